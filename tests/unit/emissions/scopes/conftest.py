"""An event with fields that a scope can fill in."""

from __future__ import annotations

from typing import Any

import pytest

from madcrow_events import EventSignal, SignalRegistry
from support.scopes import Placed


@pytest.fixture
def signal(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("order_placed", context=Placed)
