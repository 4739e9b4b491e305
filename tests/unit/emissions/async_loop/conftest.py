"""Events that carry a login, and the ways to reach async handlers."""

from __future__ import annotations

import pytest

from madcrow_events import EventDispatcher, EventSignal, LoginEventContext, SignalRegistry
from support.async_handlers import Emits


@pytest.fixture
def login(signals: SignalRegistry) -> EventSignal[LoginEventContext]:
    return signals.signal("user_logged_in", context=LoginEventContext)


@pytest.fixture(params=["emit_async", "emit in a loop", "emit outside of a loop"])
def emits(request: pytest.FixtureRequest, dispatcher: EventDispatcher) -> Emits:
    return Emits(request.param, dispatcher)
