"""Observers that fail (B6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from madcrow_events import Emission, EventDispatcher, EventSignal, SignalRegistry
from support.observers import (
    FAULTS,
    Faulty,
    Notes,
    Raised,
    called_or_awaited,
    each_way,
    emit,
    emit_async,
    raising,
)
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B6")


each_fault = pytest.mark.parametrize("fault", FAULTS)


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@each_fault
@each_way
@pytest.mark.parametrize(
    ("method", "fails"),
    [
        *(("emission", False), ("handling", False), ("handling", True)),
        # A failure that is recorded is none for who is around the emission.
        pytest.param("emission", True, marks=pytest.mark.once),
    ],
)
def test_a_faulty_observer_disturbs_nothing_and_hides_nothing(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    emitting: Any,
    fails: bool,
    method: str,
) -> None:
    """It is logged, by its type's name, once each time; the observers around it see all."""
    story: list[str] = []
    error = ValueError("no")

    def call() -> str:
        story.append("called")
        if fails:
            raise error
        return "done"

    def inline() -> str:
        return call()

    async def awaited() -> str:
        return call()

    def in_thread() -> str:
        return call()

    async def in_loop() -> str:
        await asyncio.sleep(0)
        return call()

    handlers = (inline, awaited, in_thread, in_loop)
    for handler in handlers:
        signal.subscribe(handler, background=handler.__name__.startswith("in_"))
    around = [Notes([], "a"), Notes([], "b")]
    dispatcher.add_observer(around[0])
    dispatcher.add_observer(Faulty(fault, method=method))
    dispatcher.add_observer(around[1])
    emission = emitting(dispatcher, password="canary")
    assert dispatcher.drain(LIMIT)
    assert story == ["called"] * 4
    if fails:
        assert {failure.handler for failure in emission.failures} == set(handlers)
        assert {failure.exception for failure in emission.failures} == {error}
    else:
        assert {result.handler for result in emission.results} == set(handlers)
        assert {result.value for result in emission.results} == {"done"}
    for notes in around:
        assert notes.open == 0
        assert len(notes.told) == 5
        assert sum(told is error for told in notes.told) == (4 if fails else 0)
    _, logged_well, logged_failing = FAULTS[fault]
    logged = logged_failing if fails and method == "handling" else logged_well
    lines = [line for line in errors_in(caplog) if line.startswith("observer")]
    expected = f"observer {Faulty.__module__}.Faulty failed: {logged}"
    assert lines == [expected] * (0 if logged is None else 4 if method == "handling" else 1)
    assert len(errors_in(caplog)) == len(lines) + (4 if fails else 0)
    assert not any("canary" in line for line in errors_in(caplog))


@each_fault
def test_a_faulty_observer_does_not_stop_an_exit(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, fault: str
) -> None:
    """What is no failure goes through it, to the emitter and to the observers around."""

    @signal.on()
    def handler() -> None:
        raise KeyboardInterrupt

    dispatcher.add_observer(Faulty(fault, method="handling"))
    dispatcher.add_observer(Faulty(fault, method="emission"))
    with pytest.raises(KeyboardInterrupt):
        emit(dispatcher)
    assert notes.story[-2:] == ["< handler KeyboardInterrupt", "< thing_happened KeyboardInterrupt"]


@each_fault
async def test_a_faulty_observer_does_not_stop_a_cancellation(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, fault: str
) -> None:
    """The emitter ends, and its handlers with it."""
    started = asyncio.Event()

    @signal.on()
    async def handler() -> None:
        started.set()
        await asyncio.Event().wait()

    dispatcher.add_observer(Faulty(fault, method="handling"))
    dispatcher.add_observer(Faulty(fault, method="emission"))
    emitting = asyncio.ensure_future(dispatcher.emit_async(signal))
    await started.wait()
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting
    assert notes.open == 0
    assert notes.story[-1] == "< thing_happened CancelledError"


def test_the_failure_of_an_observer_is_no_failure_of_the_emission(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It is not raised by `on_error="raise"`, and not announced."""
    announced: list[Any] = []
    signals.subscribe("handler_failed", lambda: announced.append(1))
    signal.subscribe(lambda: "done")
    for method in ("emission", "handling"):
        for fault in FAULTS:
            dispatcher.add_observer(Faulty(fault, method=method))
    emission = emit(dispatcher.with_options(on_error="raise"))
    assert emission.ok
    assert [result.value for result in emission.results] == ["done"]
    assert announced == []


class Interrupting(Notes):
    """Is interrupted at the place that it is told."""

    def __init__(self, place: str) -> None:
        super().__init__([])
        self.place = place

    @contextmanager
    def _around(self, what: str) -> Iterator[None]:
        kind = "emission" if what == "thing_happened" else "handling"
        if self.place in (f"entry of {kind}", f"entry of {what}"):
            raise KeyboardInterrupt
        yield
        if self.place == f"exit of {kind}":
            raise KeyboardInterrupt


@called_or_awaited
@pytest.mark.parametrize(
    "place", ["entry of emission", "exit of emission", "entry of handling", "exit of handling"]
)
def test_an_interrupted_observer_goes_through_and_the_others_are_left(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    emitting: Any,
    is_async: bool,
    place: str,
) -> None:
    """The emitter is interrupted; who was entered is told, and the next emission works."""
    around = [Notes([], "a"), Notes([], "b")]
    interrupted = Interrupting(place)

    def plain_handler() -> None: ...

    async def async_handler() -> None: ...

    signal.subscribe(async_handler if is_async else plain_handler)
    dispatcher.add_observer(around[0])
    dispatcher.add_observer(interrupted)
    dispatcher.add_observer(around[1])
    with pytest.raises(KeyboardInterrupt):
        emitting(dispatcher)
    assert [notes.open for notes in around] == [0, 0]
    assert around[0].story[-1] == "a< thing_happened KeyboardInterrupt"
    assert errors_in(caplog) == []
    assert dispatcher.remove_observer(interrupted)
    assert emitting(dispatcher).ok
    assert [notes.open for notes in around] == [0, 0]


@pytest.mark.parametrize("emitting", [emit, emit_async])
def test_an_interrupted_emission_gives_its_places_in_the_queue_back(
    signals: SignalRegistry, signal: EventSignal[Any], emitting: Any
) -> None:
    """None of its handlers will be called; nor does it matter if there are none."""
    other = signals.signal("other_thing")
    signal.subscribe(lambda: "done", background=True)
    interrupted = Interrupting("entry of emission")
    with EventDispatcher(signals, queue_size=1, overflow="raise") as dispatcher:
        dispatcher.add_observer(interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                emitting(dispatcher)
        assert [emission.pending for emission in interrupted.emissions] == [0, 0]
        dispatcher.remove_observer(interrupted)
        assert emitting(dispatcher).wait(LIMIT)
        interrupted.place = "entry of other_thing"
        dispatcher.add_observer(interrupted)
        with pytest.raises(KeyboardInterrupt):
            dispatcher.emit(other)


def test_two_interrupted_observers_still_leave_the_third(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """It is told of the last of them."""
    for _ in range(2):
        dispatcher.add_observer(Interrupting("exit of handling"))
    signal.subscribe(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        emit(dispatcher)
    assert notes.open == 0
    assert notes.story[-1] == "< thing_happened KeyboardInterrupt"


def test_an_observer_that_the_log_cannot_show_disturbs_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a filter of the log that raises, or an exception that cannot be shown."""

    class Unshowable(Exception):
        def __str__(self) -> str:
            raise Raised

    class Observer:
        def emission(self, emission: Emission[Any]) -> Any:
            raise Unshowable

        handling = raising

    def refuse(record: logging.LogRecord) -> bool:
        raise Raised

    signal.subscribe(lambda: "done")
    dispatcher.add_observer(Observer())
    assert emit(dispatcher).ok
    logger = logging.getLogger("madcrow_events")
    logger.addFilter(refuse)
    try:
        assert emit(dispatcher).ok
    finally:
        logger.removeFilter(refuse)
