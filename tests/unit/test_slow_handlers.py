"""The observer that warns of handlers that take longer than they may (X3)."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from decimal import Decimal
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    SignalRegistry,
    SlowHandlers,
    observers,
)
from support.async_handlers import run
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("X3")

SECONDS = 0.02


def wait() -> None:
    time.sleep(1.5 * SECONDS)


def wait_in_a_batch(batch: list[Any]) -> None:
    wait()


async def wait_async() -> None:
    await asyncio.sleep(1.5 * SECONDS)


async def wait_async_in_a_batch(batch: list[Any]) -> None:
    await wait_async()


def quick() -> None: ...


@pytest.fixture
def observed(dispatcher: EventDispatcher) -> EventDispatcher:
    dispatcher.add_observer(SlowHandlers(SECONDS))
    return dispatcher


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (wait, {}),
        (wait, {"background": True}),
        (wait_async, {}),
        (wait_async, {"background": True}),
        (wait_async, {"timeout": LIMIT}),
        (wait_in_a_batch, {"batch": Batch(max_size=1)}),
        (wait_async_in_a_batch, {"batch": Batch(max_size=1)}),
    ],
)
def test_each_kind_of_call_that_takes_longer_has_one_warning(
    signal: EventSignal[Any],
    observed: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    handler: Any,
    options: dict[str, Any],
    awaits: bool,
) -> None:
    """An async one takes from its start to its end, as the others do."""

    async def emit_async() -> Emission[Any]:
        emission = await observed.emit_async(signal)
        assert await observed.drain_async(LIMIT)
        return emission

    signal.subscribe(handler, **options)
    signal.subscribe(quick)
    emission = run(emit_async()) if awaits else observed.emit(signal)
    assert observed.drain(LIMIT)
    assert emission.ok
    (line,) = warnings(caplog)
    told = re.fullmatch(
        rf"handler {__name__}\.{handler.__name__} of thing_happened took (\d+\.\d\d\d) s, "
        r"longer than 0\.02 s",
        line,
    )
    assert told is not None
    assert SECONDS < float(told[1]) < LIMIT
    assert caplog.records[0].name == "madcrow_events"


def test_the_time_of_a_call_decides_and_the_id_names_the_handler(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exactly as long is not longer."""
    now = [0.0]
    monkeypatch.setattr(observers, "perf_counter", lambda: now[0])

    def work(seconds: float) -> None:
        now[0] += seconds

    dispatcher.add_observer(SlowHandlers(2))
    signal.subscribe(work, id="worker")
    for seconds in (1.0, 2.0, 2.25):
        dispatcher.emit(signal, seconds=seconds)
    assert warnings(caplog) == ["handler worker of thing_happened took 2.250 s, longer than 2 s"]


def test_a_call_that_fails_is_told_too(
    signal: EventSignal[Any], observed: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        wait()
        raise ValueError

    signal.subscribe(fail)
    assert not observed.emit(signal).ok
    assert len(warnings(caplog)) == 1


def test_siblings_are_watched_and_a_removed_observer_is_silent(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    observer = SlowHandlers(SECONDS)
    dispatcher.add_observer(observer)
    signal.subscribe(wait)
    dispatcher.with_options(on_error="raise").emit(signal)
    assert len(warnings(caplog)) == 1
    dispatcher.remove_observer(observer)
    dispatcher.emit(signal)
    assert len(warnings(caplog)) == 1


def test_a_logging_handler_that_emits_causes_no_lines_without_end(
    signals: SignalRegistry, signal: EventSignal[Any], observed: EventDispatcher
) -> None:
    """As for every line of the package (G1)."""

    class Emitting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            observed.emit(signal)

    lines: list[str] = []
    signal.subscribe(wait)
    handler = Emitting()
    logger = logging.getLogger("madcrow_events")
    logger.addHandler(handler)
    try:
        observed.emit(signal)
    finally:
        logger.removeHandler(handler)
    assert 1 <= len(lines) <= 2


@pytest.mark.parametrize(
    "seconds",
    [0, -1, True, None, "1", float("nan"), float("inf"), -float("inf"), Decimal(1), 10**400],
)
def test_an_impossible_time_is_refused(seconds: Any) -> None:
    with pytest.raises(
        InvalidOptionError, match=r"^seconds must be a number of seconds above 0, such as 0\.5$"
    ) as caught:
        SlowHandlers(seconds)
    assert caught.value.option == "seconds"


def test_it_shows_its_limit() -> None:
    assert repr(SlowHandlers(0.5)) == "SlowHandlers(seconds=0.5)"
    assert SlowHandlers(2).seconds == 2
