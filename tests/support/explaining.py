"""Reading explanations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from madcrow_events.signals import Explanation, LeftOutHandler


def handler() -> Callable[..., None]:
    """Return a function that no other subscription has."""

    def handle(**context: Any) -> None: ...

    return handle


def short(name: str) -> str:
    """Return the last part of a dotted name."""
    return name.rpartition(".")[2]


def called(explanation: Explanation) -> list[str]:
    """Return the names of those that would be called."""
    return [short(it.name) for it in explanation.called]


def left_out(explanation: Explanation) -> dict[str, str]:
    """Return the names of the others, each with its reason; no two may have one name."""
    found = {short(it.name): it.reason for it in explanation.left_out}
    assert len(found) == len(explanation.left_out)
    return {**found}


def only(explanation: Explanation) -> LeftOutHandler:
    """Return the one handler there is, which would not be called."""
    assert explanation.called == ()
    (entry,) = explanation.left_out
    return entry
