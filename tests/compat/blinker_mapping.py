"""A pytest plugin that lets blinker's own tests run on our classes.

Loaded with `-p`, before anything is collected, so that the tests find our
classes under blinker's names.
"""

from __future__ import annotations

from itertools import count

import blinker
import pytest

from madcrow_events import EventSignal, SignalRegistry

_numbers = count()


class Signal(EventSignal):
    """Blinker's nameless signal; ours have names, so it gets one."""

    def __init__(self, doc: str | None = None) -> None:
        super().__init__(f"nameless_{next(_numbers)}", doc)


class Namespace(SignalRegistry):
    """Blinker's namespace, which declares a signal when it is first asked for."""

    def __init__(self) -> None:
        super().__init__(strict=False)


blinker.Signal = Signal
blinker.NamedSignal = EventSignal
blinker.Namespace = Namespace


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make sure that it was our signals that were tested."""
    if next(_numbers) == 0:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
