"""What observers are told, and what the log adds to it (B6)."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EmissionDepthError,
    EventDispatcher,
    EventSignal,
    HandlerErrors,
    HandlerTimeoutError,
    QueueFullError,
    SignalRegistry,
)
from support.observers import Faulty, Notes, called_or_awaited, each_way, emit, emit_async, name_of
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B6")


# What they are told


@each_way
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_what_a_handler_raises_reaches_exit(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    background: bool,
    is_async: bool,
) -> None:
    """The exception itself; the emission ends without one."""
    error = ValueError("no")

    def plain_handler() -> None:
        raise error

    async def async_handler() -> None:
        raise error

    handler = async_handler if is_async else plain_handler
    signal.subscribe(handler, background=background)
    emission = emitting(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert emission.failures == ((handler, error),)
    assert f"< {name_of(handler)} ValueError" in notes.story
    assert "< thing_happened" in notes.story
    assert sorted(map(str, notes.told)) == ["None", "no"]


def test_a_timeout_reaches_exit(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """As the error that the emission notes."""

    @signal.on(timeout=0.01)
    async def handler() -> None:
        await asyncio.Event().wait()

    emission = emit_async(dispatcher)
    assert type(emission.failures[0].exception) is HandlerTimeoutError
    assert "< handler HandlerTimeoutError" in notes.story


async def test_the_emitters_cancellation_reaches_exit_of_both(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """The handler's first; nothing is left entered."""
    started = asyncio.Event()

    @signal.on()
    async def handler() -> None:
        started.set()
        await asyncio.Event().wait()

    emitting = asyncio.ensure_future(dispatcher.emit_async(signal))
    await started.wait()
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting
    assert notes.story == [
        *("> thing_happened", "> handler", "< handler CancelledError"),
        "< thing_happened CancelledError",
    ]
    assert notes.open == 0


async def test_a_cancellation_that_waits_for_a_place_reaches_exit(
    signals: SignalRegistry, signal: EventSignal[Any], story: list[str]
) -> None:
    """An emitter that waits for a place in the queue has begun its emission."""
    go, busy = threading.Event(), threading.Semaphore(0)
    entered = asyncio.Event()

    class Observer(Notes):
        def emission(self, emission: Emission[Any]) -> AbstractContextManager[None]:
            if len(self.emissions) == 2:
                entered.set()
            return super().emission(emission)

    @signal.on(background=True)
    def hold() -> None:
        busy.release()
        assert go.wait(LIMIT)

    dispatcher = EventDispatcher(signals, queue_size=1, max_workers=1)
    observer = Observer(story)
    dispatcher.add_observer(observer)
    dispatcher.emit(signal)
    assert busy.acquire(timeout=LIMIT)
    await dispatcher.emit_async(signal)
    waiting = asyncio.ensure_future(dispatcher.emit_async(signal))
    await asyncio.wait_for(entered.wait(), LIMIT)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert story[-1] == "< thing_happened CancelledError"
    go.set()
    await asyncio.to_thread(dispatcher.close, LIMIT)
    assert observer.open == 0


@called_or_awaited
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_a_handler_reaches_both(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    is_async: bool,
    error: type[BaseException],
) -> None:
    """And goes through to the emitter, if the emitter calls or awaits the handler."""

    def plain_handler() -> None:
        raise error

    async def async_handler() -> None:
        await asyncio.sleep(0)
        raise error

    signal.subscribe(async_handler if is_async else plain_handler)
    with pytest.raises(error):
        emitting(dispatcher)
    kind = error.__name__
    name = "async_handler" if is_async else "plain_handler"
    assert notes.story == [
        *("> thing_happened", f"> {name}", f"< {name} {kind}", f"< thing_happened {kind}"),
    ]
    assert emitting(EventDispatcher(SignalRegistry(strict=False))).ok


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_an_endless_recursion_leaves_every_observer(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, is_async: bool
) -> None:
    """The emissions below the outermost are left with the error, that one without."""

    def plain_handler() -> None:
        dispatcher.emit(signal)

    async def async_handler() -> None:
        await dispatcher.emit_async(signal)

    signal.subscribe(async_handler if is_async else plain_handler)
    emission = (emit_async if is_async else emit)(dispatcher)
    assert [type(failure.exception) for failure in emission.failures] == [EmissionDepthError]
    assert notes.open == 0
    ends = [line for line in notes.story if line.startswith("< thing")]
    assert ends == ["< thing_happened EmissionDepthError"] * 63 + ["< thing_happened"]


def test_a_full_queue_leaves_none_entered(
    signals: SignalRegistry, signal: EventSignal[Any], story: list[str]
) -> None:
    """Nothing was emitted, and so nothing is observed."""
    go, busy = threading.Event(), threading.Semaphore(0)

    @signal.on(background=True)
    def hold() -> None:
        busy.release()
        assert go.wait(LIMIT)

    with EventDispatcher(signals, queue_size=1, max_workers=1, overflow="raise") as dispatcher:
        emit(dispatcher)
        assert busy.acquire(timeout=LIMIT)
        emit(dispatcher)
        notes = Notes(story)
        dispatcher.add_observer(notes)
        for emitting in (emit, emit_async):
            with pytest.raises(QueueFullError):
                emitting(dispatcher)
        assert story == []
        go.set()
    assert notes.emissions == []


@pytest.mark.parametrize("emitting", [emit, emit_async])
@pytest.mark.parametrize("number", [1, 2])
def test_an_emission_is_left_before_its_failures_are_raised(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    number: int,
) -> None:
    """With `on_error="raise"`; it has ended well itself."""

    @signal.on()
    def first() -> None:
        raise ValueError

    if number == 2:

        @signal.on()
        def second() -> None:
            raise KeyError

    with pytest.raises(ValueError if number == 1 else HandlerErrors):
        emitting(dispatcher.with_options(on_error="raise"))
    assert notes.story[-1] == "< thing_happened"
    assert notes.open == 0


@pytest.mark.parametrize("emitting", [emit, emit_async])
def test_announcements_of_failures_are_observed_within_what_failed(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
) -> None:
    """They are emissions like others."""

    @signals.signal("handler_failed").on()
    def hear() -> None: ...

    @signal.on()
    def handler() -> None:
        raise ValueError

    emitting(dispatcher)
    assert notes.story == [
        *("> thing_happened", "> handler", "< handler ValueError"),
        *("> handler_failed", "> hear", "< hear", "< handler_failed"),
        "< thing_happened",
    ]


# Together with the log


def test_the_debug_log_is_written_within_the_observers(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each line in its place, also where another observer is faulty."""

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.DEBUG:
                words = record.getMessage().split()
                notes.story.append(" ".join(word for word in words if word.isidentifier()))

    @signal.on()
    def handler() -> None:
        raise ValueError

    @signal.on(when=lambda context: False)
    def skipped() -> None: ...

    logger, telling = logging.getLogger("madcrow_events"), Telling()
    dispatcher.add_observer(Faulty("swallows", method="handling"))
    dispatcher.add_observer(Faulty("raises", method="emission"))
    logger.addHandler(telling)
    try:
        with caplog.at_level(logging.DEBUG, "madcrow_events"):
            emission = emit(dispatcher)
    finally:
        logger.removeHandler(telling)
    assert len(emission.failures) == 1
    assert notes.story == [
        *("> thing_happened", "thing_happened emitted by EventSignal to handlers"),
        *("> handler", "handler of thing_happened raised after ms", "< handler ValueError"),
        *("handler of thing_happened skipped", "< thing_happened"),
    ]


def test_the_debug_log_goes_on_after_observers_are_gone(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And observers after the log is quiet again."""
    signal.subscribe(lambda: None)
    with caplog.at_level(logging.DEBUG, "madcrow_events"):
        dispatcher.remove_observer(notes)
        emit(dispatcher)
    assert len(caplog.records) == 2
    assert notes.emissions == []
    dispatcher.add_observer(notes)
    emit(dispatcher)
    assert len(caplog.records) == 2
    assert len(notes.emissions) == 1


def test_without_observers_nothing_is_entered_and_nothing_kept(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """An emission notes no more than it would if there could be none."""
    signal.subscribe(lambda: None)
    assert emit(dispatcher)._failures is None


@pytest.mark.guarantee("B6")
def test_what_an_observer_emits_is_not_observed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Else one that emits as it is entered and left would go on without end."""
    seen: list[str] = []

    class Emitting:
        @contextmanager
        def emission(self, emission: Emission[Any], /) -> Iterator[None]:
            seen.append(emission.event)
            dispatcher.emit(signal)
            yield
            dispatcher.emit(signal)

        @contextmanager
        def handling(self, emission: Emission[Any], handler: Any, /) -> Iterator[None]:
            dispatcher.emit(signal)
            yield
            dispatcher.emit(signal)

    calls: list[int] = []
    signal.subscribe(lambda: calls.append(1))
    dispatcher.add_observer(Emitting())
    emission = dispatcher.emit(signal)
    assert emission.ok
    assert seen == [signal.name]
    assert len(calls) == 5


@pytest.mark.guarantee("B6")
@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("observed", [False, True])
def test_a_chain_that_is_too_deep_ends_alike_whether_somebody_watches_or_not(
    signal: EventSignal[Any], dispatcher: EventDispatcher, observed: bool
) -> None:
    class Nothing:
        def emission(self, emission: Emission[Any], /) -> Any:
            return nullcontext()

        def handling(self, emission: Emission[Any], handler: Any, /) -> Any:
            return nullcontext()

    swallowed: list[EmissionDepthError] = []

    def handler() -> None:
        try:
            dispatcher.emit(signal)
        except EmissionDepthError as error:
            swallowed.append(error)

    signal.subscribe(handler)
    if observed:
        dispatcher.add_observer(Nothing())
    dispatcher.emit(signal)
    assert len(swallowed) == 1


@pytest.mark.guarantee("B6")
async def test_an_announcement_that_is_broken_off_lets_the_observers_go(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A handler of `handler_failed` that exits goes through to whoever awaits."""
    left: list[str] = []

    class Noting:
        @contextmanager
        def emission(self, emission: Emission[Any], /) -> Iterator[None]:
            try:
                yield
            finally:
                left.append(emission.event)

        def handling(self, emission: Emission[Any], handler: Any, /) -> Any:
            return nullcontext()

    async def fails() -> None:
        raise ValueError

    def exits() -> None:
        raise KeyboardInterrupt

    signal.subscribe(fails)
    signals.subscribe("handler_failed", exits)
    dispatcher.add_observer(Noting())
    with pytest.raises(KeyboardInterrupt):
        await dispatcher.emit_async(signal)
    assert left == ["handler_failed", signal.name]
