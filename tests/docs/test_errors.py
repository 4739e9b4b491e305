"""The page of errors has a section for each exception of the package, with its built-in parents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from madcrow_events import bridge, exceptions, outbox
from madcrow_events.bridge import BridgeError
from madcrow_events.outbox import OutboxError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"

ERRORS = {name: getattr(exceptions, name) for name in exceptions.__all__}
ERRORS |= {
    name: thing
    for name, thing in {**vars(outbox), **vars(bridge)}.items()
    if isinstance(thing, type) and issubclass(thing, OutboxError | BridgeError)
}

_HEADING = re.compile(r"^##+ (\w+Errors?\b.*)$", re.MULTILINE)


def test_each_exception_has_a_heading_and_no_heading_names_another_one() -> None:
    """Links of other pages lead to the name of the class."""
    headings = _HEADING.findall(PAGE.read_text(encoding="utf-8"))
    assert sorted(headings) == [f"{name} {{ #{name} }}" for name in sorted(ERRORS)]


@pytest.mark.parametrize("name", ERRORS)
def test_the_section_of_an_exception_names_its_built_in_parents(name: str) -> None:
    """All of them, but `Exception` only where nothing more exact catches the error."""
    section = PAGE.read_text(encoding="utf-8").partition(f" {{ #{name} }}\n")[2]
    named = re.match(r"\n- \*\*Built-in parents?:\*\* (.+)\n", section)
    assert named
    bases = ERRORS[name].__mro__
    parents = [base.__name__ for base in bases if base.__module__ == "builtins"]
    exact = parents[: parents.index("Exception")]
    assert re.findall(r"`(\w+)`", named[1]) == (exact or ["Exception"])
