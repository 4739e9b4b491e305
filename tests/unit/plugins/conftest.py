"""Distributions with plugins, for the length of a test."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from support.plugins import Install, install_plugin


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    monkeypatch.syspath_prepend(str(tmp_path))
    for variable in ("DISABLE_PLUGINS", "PLUGINS_DENY", "PLUGINS_ALLOW"):
        monkeypatch.delenv(f"MADCROW_EVENTS_{variable}", raising=False)
    before = set(sys.modules)

    yield partial(install_plugin, tmp_path)
    for module in set(sys.modules) - before:
        del sys.modules[module]
