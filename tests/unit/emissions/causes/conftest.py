"""Two events, one of which may cause the other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from madcrow_events import EventSignal, SignalRegistry


@pytest.fixture
def signal(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("first_thing")


@pytest.fixture
def inner(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("inner_thing")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of a task that a handler left behind is the application's matter."""
    handle: Any = asyncio.BaseEventLoop.default_exception_handler
    monkeypatch.setattr(
        asyncio.BaseEventLoop,
        "default_exception_handler",
        lambda self, context: (
            None if isinstance(context.get("exception"), ValueError) else handle(self, context)
        ),
    )
