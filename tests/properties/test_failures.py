"""Failure isolation, for every subset of failing handlers (F1)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madcrow_events import Emission, EventDispatcher, LoginEventContext, SignalRegistry

KEYWORDS = {"user_id": 1, "email": "a@b.c"}


class Failed(Exception):
    """What the failing handlers raise, with their number."""


class Records(logging.Handler):
    """Collects what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def make(number: int, shape: str, calls: list[int], *, fails: bool) -> Any:
    def act() -> int:
        calls.append(number)
        if fails:
            raise Failed(number)
        return number

    def keywords(sender: Any, **context: Any) -> int:
        return act()

    def context(context: LoginEventContext) -> int:
        return act()

    def emission(emission: Emission[Any]) -> int:
        return act()

    def by_name(email: str) -> int:
        return act()

    def bare() -> int:
        return act()

    return {
        "keywords": keywords,
        "context": context,
        "emission": emission,
        "by_name": by_name,
        "bare": bare,
    }[shape]


SHAPES = st.sampled_from(["keywords", "context", "emission", "by_name", "bare"])


@pytest.mark.guarantee("F1")
@given(
    handlers=st.lists(st.tuples(SHAPES, st.booleans(), st.booleans()), min_size=1, max_size=8),
    typed=st.booleans(),
)
def test_all_others_run_in_order_and_each_failure_is_recorded_and_logged_once(
    handlers: list[tuple[str, bool, bool]], typed: bool
) -> None:
    signals = SignalRegistry()
    signal = signals.signal("user_logged_in", context=LoginEventContext)
    calls: list[int] = []
    kept = []
    for number, (shape, fails, guarded) in enumerate(handlers):
        handler = make(number, shape, calls, fails=fails)
        kept.append(handler)
        signals.subscribe(signal, handler, **({"when": lambda context: True} if guarded else {}))
    records = Records()
    logger = logging.getLogger("madcrow_events")
    logger.addHandler(records)
    try:
        dispatcher = EventDispatcher(signals)
        emission: Emission[Any] = (
            dispatcher.emit_typed(signal, LoginEventContext(**KEYWORDS))
            if typed
            else dispatcher.emit(signal, **KEYWORDS)
        )
    finally:
        logger.removeHandler(records)
    failing = [number for number, (_, fails, _) in enumerate(handlers) if fails]
    working = [number for number, (_, fails, _) in enumerate(handlers) if not fails]
    assert calls == list(range(len(handlers)))
    assert [result.value for result in emission.results] == working
    assert [kept.index(result.handler) for result in emission.results] == working
    assert [failure.exception.args[0] for failure in emission.failures] == failing
    assert [kept.index(failure.handler) for failure in emission.failures] == failing
    assert [record.exc_info[1].args[0] for record in records.records if record.exc_info] == failing
    assert len(records.records) == len(failing)
    assert emission.ok == (not failing)


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("number", range(1, 9))
def test_every_subset_of_failing_handlers(number: int) -> None:
    """All of them, not a sample: 510 subsets in all."""
    logging.getLogger("madcrow_events").disabled = True
    try:
        for subset in range(2**number):
            signals = SignalRegistry()
            signal = signals.signal("user_logged_in")
            calls: list[int] = []
            for index in range(number):
                signal.subscribe(make(index, "bare", calls, fails=bool(subset >> index & 1)))
            emission = EventDispatcher(signals).emit(signal)
            assert calls == list(range(number))
            assert [failure.exception.args[0] for failure in emission.failures] == [
                index for index in range(number) if subset >> index & 1
            ]
            assert len(emission.results) + len(emission.failures) == number
    finally:
        logging.getLogger("madcrow_events").disabled = False
