"""`madcrow-events doctor` on the example applications, and on the plugin."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDED = ("accounts", "fastapi_app", "flask_app", "madcrow_events_webhook", "typer")
missing = [name for name in NEEDED if find_spec(name) is None]
if missing:
    pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)

APPLICATIONS = ("fastapi_app", "flask_app")


@pytest.mark.parametrize("options", [(), ("--plugins",)])
@pytest.mark.parametrize(
    "app",
    [
        *APPLICATIONS,
        *(f"{it}:create_app" for it in APPLICATIONS),
        "accounts",
        "madcrow_events_webhook",
    ],
)
def test_nothing_is_wrong_with_an_example(
    app: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    """Made or only imported, with the plugin and without."""
    environment = {
        **os.environ,
        "ACCOUNTS_FOLDER": str(tmp_path),
        "ACCOUNTS_SECRET_KEY": "not a secret, for it is only used by tests",
    }
    found = subprocess.run(
        [sys.executable, "-m", "madcrow_events", "doctor", "--app", app, *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.endswith(": nothing wrong\n"), found.stdout
    assert found.returncode == 0
