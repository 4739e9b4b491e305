"""What a handler has heard, and a dispatcher that raises."""

from __future__ import annotations

from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal


@pytest.fixture
def heard(signal: EventSignal[Any]) -> list[Any]:
    """Return the numbers that a plain handler of `thing_happened` has been called with."""
    numbers: list[Any] = []

    @signal.on()
    def hear(sender: Any, **context: Any) -> None:
        numbers.append(context["number"])

    return numbers


@pytest.fixture
def raising(dispatcher: EventDispatcher) -> EventDispatcher:
    return dispatcher.with_options(on_error="raise")
