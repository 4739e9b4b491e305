"""Batches that are broken off (B3)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
)
from support.batches import HOUR, Kept, emit_numbers, handler_of, values_of
from support.inside import Timer, WorkerThreads, backlog_of, calling_batches, keep_time, turn_of
from support.waiting import LIMIT
from support.ways import plain_and_async

pytestmark = pytest.mark.guarantee("B3")


@pytest.mark.guarantee("A2")
def test_a_batch_whose_task_is_cancelled_before_it_begins_has_failed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handle(batch: Any) -> int:
        return len(batch)

    def emit_and_cancel() -> None:
        emissions.extend(emit_numbers(dispatcher, 1, 2))
        # After the batch's task was made, and before its first step.
        loop.call_soon(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        emitted.set()

    emissions: list[Emission[Any]] = []
    emitted = threading.Event()
    loop = backlog_of(dispatcher).background_loop.get()
    assert loop is not None
    signal.subscribe(handle, batch=Batch(2, HOUR))
    loop.call_soon_threadsafe(emit_and_cancel)
    assert emitted.wait(LIMIT)
    assert dispatcher.drain(LIMIT)
    for emission in emissions:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
        assert str(failure.exception) == "the handler's task was cancelled"
    (emission,) = emit_numbers(dispatcher, 3)
    assert dispatcher.drain(LIMIT)
    assert values_of(emission) == [1]


class Broken:
    """Stands for a task that was broken off."""

    def __init__(self, error: BaseException) -> None:
        self.exception = lambda: error

    def cancelled(self) -> bool:
        return False


@pytest.mark.guarantee("A2")
def test_a_batch_whose_task_is_broken_off_has_failed_once(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(len, batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    backlog = backlog_of(dispatcher)
    (buffer,) = backlog.batches.buffers.values()
    turn = turn_of(buffer)
    assert len(turn.take_batch()) == 2
    broken: Any = Broken(OSError("broken"))
    turn._task_is_done(broken)
    for emission in emissions:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
        assert isinstance(failure.exception.__cause__, OSError)
    turn._task_is_done(broken)
    assert len(emissions[0].failures) == 1
    assert dispatcher.drain(0)
    assert len(backlog.permits.free) == 1000


@pytest.mark.guarantee("A2")
def test_a_batch_that_is_closed_by_force_is_not_gone_on_with(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """As the collector does with what is left of a loop; nothing can be awaited then."""

    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    async def handle(batch: Any) -> None:
        await Never()

    signal.subscribe(handle, batch=Batch(3, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    (buffer,) = backlog_of(dispatcher).batches.buffers.values()
    turn = turn_of(buffer)
    coroutine = calling_batches.call_batch_async(turn.take_batch())
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert emission.pending == 1
    assert emission.ok
    broken: Any = Broken(GeneratorExit())
    turn._task_is_done(broken)
    assert not emission.ok
    assert dispatcher.drain(0)


def has_its_lease(buffer: Any) -> bool:
    """Soon, that is: a drain waits for the contexts, and the lease comes back a moment later."""
    deadline = time.monotonic() + LIMIT
    while buffer.lease != [None] and time.monotonic() < deadline:
        time.sleep(0.001)
    return buffer.lease == [None]


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("queued", [False, True])
def test_an_emitter_that_is_interrupted_leaves_a_handler_that_works_on(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    queued: bool,
) -> None:
    """By Ctrl-C, while it hands a batch to a thread, before or after it is in the queue."""
    batches: list[list[int]] = []
    signal.subscribe(lambda batch: batches.append([it["n"] for it in batch]), batch=Batch(2, HOUR))
    backlog = backlog_of(dispatcher)
    put = WorkerThreads.put

    def interrupted(self: Any, work: Any) -> bool:
        monkeypatch.setattr(WorkerThreads, "put", put)
        if queued:
            put(self, work)
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerThreads, "put", interrupted)
    dispatcher.emit(signal, n=1)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal, n=2)
    for number in (3, 4):
        dispatcher.emit(signal, n=number)
    assert dispatcher.drain(LIMIT)
    handled = [number for batch in batches for number in batch]
    assert handled in ([1, 3, 4], [1, 2, 3, 4])
    (buffer,) = backlog.batches.buffers.values()
    assert has_its_lease(buffer)


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("begun", [False, True])
def test_an_emitter_that_is_interrupted_leaves_an_async_handler_that_works_on(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    begun: bool,
) -> None:
    """By Ctrl-C, when it has just given the batch to the loop, which may have begun with it."""

    async def handle(batch: Any) -> None:
        kept(batch)
        handled.set()

    def interrupted(*call: Any, **context: Any) -> None:
        monkeypatch.undo()
        if not begun:
            loop.call_soon_threadsafe(free.wait, LIMIT)
        loop.call_soon_threadsafe(*call, **context)
        if begun:
            assert handled.wait(LIMIT)
        raise KeyboardInterrupt

    free, handled = threading.Event(), threading.Event()
    signal.subscribe(handle, batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    loop = backlog_of(dispatcher).background_loop.get()
    assert loop is not None
    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal, number=2)
    free.set()
    emit_numbers(dispatcher, 3, 4)
    assert dispatcher.drain(LIMIT)
    assert [number for batch in kept.batches for number in batch] in ([1, 3, 4], [1, 2, 3, 4])
    (buffer,) = backlog_of(dispatcher).batches.buffers.values()
    assert has_its_lease(buffer)


@plain_and_async
@pytest.mark.guarantee("B3")
def test_a_batch_of_nothing_but_lost_contexts_calls_nobody(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    """Whose emitters were interrupted, say; the next batch is handled."""
    signal.subscribe(handler_of(kept, is_async), batch=Batch(5, HOUR))
    emit_numbers(dispatcher, 1)
    backlog = backlog_of(dispatcher)
    (job,) = backlog.jobs.values()
    job.lose("its emitter was interrupted")
    (buffer,) = backlog.batches.buffers.values()
    backlog.batches.flush_now()
    deadline = time.monotonic() + LIMIT
    while buffer.lease != [None] or buffer.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    backlog.batches.flushing.clear()
    assert kept.batches == []
    emit_numbers(dispatcher, 2)
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[2]]


def test_the_timer_forgets_the_alarms_of_subscriptions_that_are_gone() -> None:
    class Alarmed:
        def come_due(self) -> None:
            looked.append(sum(reference() is not None for reference in references))
            timer.alarms.put(None)
            timer.bell.release()

    class Reference(weakref.ref[Any]):
        """One that can be referred to weakly itself."""

    timer = Timer({})
    looked: list[int] = []
    live, now = Alarmed(), time.monotonic()
    gone = [Reference(Alarmed()) for _ in range(150)]
    references = [weakref.ref(reference) for reference in gone]
    timer.alarms.put((now, 0, gone.pop()))
    for number in range(1, 150):
        timer.alarms.put((now + HOUR, number, gone.pop()))
    timer.alarms.put((now, 150, weakref.ref(live)))
    keep_time(timer)
    (still_there,) = looked
    assert still_there < 100


@pytest.mark.guarantee("G1")
def test_one_of_a_batch_that_asks_for_no_traceback_is_obeyed(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """For its values may be in it."""

    def handle(batch: Any) -> None:
        raise ValueError(batch[0]["password"])

    signal.subscribe(handle, batch=Batch(2, HOUR))
    dispatcher.with_options(log_tracebacks=False).emit(signal, password="canary")
    dispatcher.emit(signal, password="other")
    assert dispatcher.drain(LIMIT)
    assert "in a batch of 2 failed: ValueError" in caplog.text
    assert "canary" not in caplog.text
