"""What all tests share: registries of their own, and a default registry that forgets."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from madcrow_events import EventDispatcher, SignalRegistry, madcrow_signals

# How long an example takes says more about the machine than about the package.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.fixture(autouse=True)
def _forgetful_default_registry() -> Iterator[None]:
    """Whatever a test does to the default registry and dispatcher is undone."""
    with madcrow_signals.isolated(empty=True):
        yield


@pytest.fixture
def signals() -> SignalRegistry:
    """Return a strict registry without events."""
    return SignalRegistry()


@pytest.fixture
def dispatcher(signals: SignalRegistry) -> EventDispatcher:
    """Return a dispatcher of that registry."""
    return EventDispatcher(signals)


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> float:
    """Return the part of its full count that a stress test does: all of it under `-m soak`."""
    return 1.0 if request.config.getoption("-m") == "soak" else 0.1


@pytest.fixture
def threads_switch_often() -> Iterator[None]:
    """Let threads take turns every 10 microseconds, so that they meet at many more places."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
