"""`madcrow-events doctor` on the examples that are one file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command is an extra")

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("app", ["quickstart", "quickstart:main", "every_shape"])
def test_nothing_is_wrong_with_an_example(app, tmp_path):
    """Before its handlers are registered, and after."""
    environment = {**os.environ, "MADCROW_EVENTS_DISABLE_PLUGINS": "1"}
    command = [sys.executable, "-m", "madcrow_events", "doctor", "--app", app]
    found = subprocess.run(
        [*command, "--app-dir", str(EXAMPLES)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.endswith(": nothing wrong\n"), found.stdout
    assert found.returncode == 0
