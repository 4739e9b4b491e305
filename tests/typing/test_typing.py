"""What type checkers accept works, and what they must find they find (H4)."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkers import each_checker

HERE = Path(__file__).parent
MISTAKES = HERE / "mistakes.py"

IGNORE_COMMENT = re.compile(r"  # type: ignore\[[a-z, -]+\]$", re.MULTILINE)
ERROR = re.compile(r"mistakes\.py:(\d+)(?::\d+)?(?: -|:) error")


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


@each_checker
@pytest.mark.once
@pytest.mark.guarantee("H4")
def test_checkers_accept_what_is_right_and_no_comment_hides_what_is_right(check: Any) -> None:
    """An ignore comment without a mistake under it is an error, too."""
    outcome = check(HERE)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@each_checker
@pytest.mark.once
@pytest.mark.guarantee("H4")
def test_checkers_find_every_mistake_and_nothing_else(check: Any, tmp_path: Path) -> None:
    marked = MISTAKES.read_text(encoding="utf-8")
    unmarked = tmp_path / MISTAKES.name
    unmarked.write_text(IGNORE_COMMENT.sub("", marked), encoding="utf-8")
    expected = {
        number
        for number, line in enumerate(marked.splitlines(), start=1)
        if IGNORE_COMMENT.search(line)
    }

    outcome = check(unmarked)

    found = {int(number) for number in ERROR.findall(outcome.stdout)}
    assert len(expected) > 40
    assert found == expected, outcome.stdout + outcome.stderr
