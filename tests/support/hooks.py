"""The hooks that mkdocs calls as it builds the documentation."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

HOOKS = Path(__file__).parents[2] / "docs" / "hooks"


def load_hook(name: str) -> Any:
    """Return a hook as a module."""
    spec = importlib.util.spec_from_file_location(name, HOOKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook
