"""Waiting for batches that could never end, forks, finalizers, and what is left behind (B3)."""

from __future__ import annotations

import contextvars
import gc
import os
import threading
import time
import weakref
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    DispatcherClosedError,
    Emission,
    EventDispatcher,
    EventSignal,
    SignalRegistry,
    WouldDeadlockError,
    current_event,
)
from support.batches import HOUR, Kept, emit_numbers, handler_of, numbers, run_python, values_of
from support.inside import Turn, backlog_of
from support.waiting import LIMIT
from support.ways import plain_and_async

pytestmark = pytest.mark.guarantee("B3")


# Waiting where it could never end


@plain_and_async
@pytest.mark.guarantee("A3")
def test_a_batch_cannot_wait_for_all_pending_work(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    async def waits(batch: Any) -> None:
        await dispatcher.drain_async()

    signal.subscribe(waits if is_async else lambda _: dispatcher.drain(), batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert isinstance(emissions[0].failures[0].exception, WouldDeadlockError)


@plain_and_async
@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("which", ["first", "last", "next"])
def test_a_batch_cannot_wait_for_itself_or_the_next(
    signal: EventSignal[Any], dispatcher: EventDispatcher, which: str, is_async: bool
) -> None:
    def wanted(emissions: list[Emission[Any]]) -> Emission[Any] | None:
        if len(emissions) == 1:
            return None
        if which == "next":
            return dispatcher.emit(signal, number=3)
        return emissions[0 if which == "first" else -1]

    def plain(emissions: list[Emission]) -> None:
        emission = wanted(emissions)
        if emission is not None:
            emission.wait()

    async def coroutine(emissions: list[Emission]) -> None:
        emission = wanted(emissions)
        if emission is not None:
            await emission.wait_async()

    signal.subscribe(coroutine if is_async else plain, batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    error = emissions[0].failures[0].exception
    assert isinstance(error, WouldDeadlockError)
    if which == "next" and is_async:
        assert "part of this batch or of the next" in str(error)


@pytest.mark.guarantee("A3")
def test_the_background_loop_cannot_wait_for_a_batch_that_it_would_handle(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handle(batch: Any) -> None: ...

    async def waits() -> None:
        dispatcher.emit(signal, number=1).wait()

    signal.subscribe(handle, batch=Batch(2, HOUR))
    signals.signal("other_thing").subscribe(waits, background=True)
    emission = dispatcher.emit("other_thing")
    assert emission.wait(LIMIT)
    assert isinstance(emission.failures[0].exception, WouldDeadlockError)
    assert dispatcher.drain(LIMIT)


@pytest.mark.guarantee("A3")
def test_a_batch_may_wait_for_the_batch_of_another_handler(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def waits(batch: Any) -> Any:
        emission = dispatcher.emit("other_thing", number=1)
        await emission.wait_async()
        return values_of(emission)

    async def handle(batch: Any) -> str:
        return "handled"

    signal.subscribe(waits, batch=Batch(1, HOUR))
    signals.signal("other_thing").subscribe(handle, batch=Batch(1, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    assert emission.wait(LIMIT)
    assert values_of(emission) == [["handled"]]


@plain_and_async
@pytest.mark.guarantee("B2")
def test_a_closed_dispatcher_gathers_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    backlog = backlog_of(dispatcher)
    assert dispatcher.close(LIMIT)
    with pytest.raises(DispatcherClosedError):
        emit_numbers(dispatcher, 2)
    assert kept.batches == [[1]]
    assert backlog.batches.timer.thread is not None
    assert not backlog.batches.timer.thread.is_alive()
    assert not any(thread.is_alive() for thread in backlog.workers.threads)


# Where no thread can be started, after a fork, and in finalizers


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@plain_and_async
@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_start_nothing_waits_and_nothing_is_lost(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
) -> None:
    """The emitter does it, a chain, too, but in none of its own context."""

    def handle(batch: Any) -> int:
        seen.append(user.get("nobody"))
        emit_numbers(dispatcher, *numbers(batch), name="next_thing")
        return len(batch)

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    seen: list[str] = []
    signal.subscribe(handler_of(handle, is_async), batch=Batch(3, HOUR))
    signals.signal("next_thing").subscribe(kept, batch=Batch(3, HOUR))
    token = user.set("emitter")
    emissions = emit_numbers(dispatcher, 1, 2)
    user.reset(token)
    assert [values_of(emission) for emission in emissions] == [[1], [1]]
    assert kept.batches == [[1], [2]]
    assert seen == ["nobody"] * 2
    assert dispatcher.drain(LIMIT)
    assert current_event() is None


@plain_and_async
@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_start_what_a_handler_emits_to_itself_is_the_next_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    def handle(batch: Any) -> None:
        if kept(batch) == 1 and numbers(batch) == [0]:
            emit_numbers(dispatcher, 1, 2, 3)

    signal.subscribe(handler_of(handle, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 0)
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[0], [1, 2], [3]]


@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
async def test_an_async_batch_needs_no_thread_in_a_running_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(handler_of(kept, is_async=True), batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert kept.batches == []
    assert await dispatcher.drain_async(LIMIT)
    assert kept.numbers == [1, 2]
    assert len(backlog_of(dispatcher).permits.free) == 1000


@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
async def test_a_plain_handler_needs_no_thread_in_a_running_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(kept, batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1)
    assert kept.batches == [[1]]


def test_where_only_the_timer_could_start_it_calls_the_handler(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal.subscribe(kept, batch=Batch(3, 0.05))
    emit_numbers(dispatcher, 1)
    monkeypatch.setattr(backlog_of(dispatcher).workers, "startable", [])
    assert kept.await_one() == [1]


FORKING = """
import os, sys
from madcrow_events import Batch, EventDispatcher, SignalRegistry

signals = SignalRegistry()
dispatcher = EventDispatcher(signals)

def handle(batch):
    os.write(1, f"{os.getpid() == parent} {[c['number'] for c in batch]}\\n".encode())

async def coroutine(batch):
    handle(batch)

parent = os.getpid()
handler = coroutine if sys.argv[1] == "async" else handle
signals.signal("thing").subscribe(handler, batch=Batch(3, 3600))
inherited = [dispatcher.emit("thing", number=number) for number in (1, 2)]
child = os.fork()
if not child:
    assert not any(emission.pending for emission in inherited)
    dispatcher.emit("thing", number=10)
    assert dispatcher.drain(10)
    for number in (11, 12, 13):
        emission = dispatcher.emit("thing", number=number)
    assert emission.wait(10)
    dispatcher.emit("thing", number=14)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
emission = dispatcher.emit("thing", number=3)
assert emission.wait(10)
dispatcher.emit("thing", number=4)
"""


@plain_and_async
@pytest.mark.guarantee("B2")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_starts_afresh_and_the_parents_batch_is_the_parents(is_async: bool) -> None:
    lines = run_python(FORKING, "async" if is_async else "plain").splitlines()
    assert lines == [
        "False [10]",
        "False [11, 12, 13]",
        "False [14]",
        "True [1, 2, 3]",
        "True [4]",
    ]


@plain_and_async
@pytest.mark.guarantee("F6")
def test_a_finalizer_may_emit_for_a_batch_in_the_middle_of_another(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    """While a batch is being taken, say; whoever takes it looks again."""

    def take_batch(turn: Turn) -> list[Any]:
        jobs: list[Any] = original(turn)
        if not finalized:
            finalized.append(1)
            emit_numbers(dispatcher, 3, 4, 5)
        return jobs

    finalized: list[int] = []
    original = Turn.take_batch
    monkeypatch.setattr(Turn, "take_batch", take_batch)
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert kept.numbers == [1, 2, 3, 4, 5]
    assert max(map(len, kept.batches)) == 2


# What is left behind


@plain_and_async
@pytest.mark.guarantee("L2")
def test_subscriptions_that_are_gone_leave_nothing_behind(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    backlog = backlog_of(dispatcher)
    for number in range(50):
        with signal.subscribe(handler_of(lambda batch: len(batch), is_async), batch=Batch(2, HOUR)):
            emit_numbers(dispatcher, number)
        with signals.subscribe("thing_*", lambda batch: len(batch), batch=Batch(2, HOUR)):
            emit_numbers(dispatcher, number)
    assert dispatcher.drain(LIMIT)
    dispatcher.emit(signal)  # and its plan is renewed
    threads_let_go = time.monotonic() + LIMIT
    while backlog.batches.buffers and time.monotonic() < threads_let_go:
        gc.collect()
        time.sleep(0.001)
    assert backlog.batches.buffers == {}
    assert backlog.jobs == {}
    assert len(backlog.permits.free) == 1000


def test_what_was_gathered_is_not_kept_after_its_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    class Payload: ...

    signal.subscribe(lambda batch: len(batch), batch=Batch(2, HOUR))
    references = []
    for _ in range(2):
        payload = Payload()
        references.append(weakref.ref(payload))
        dispatcher.emit(signal, payload=payload)
    del payload
    assert dispatcher.drain(LIMIT)
    until = time.monotonic() + LIMIT
    while any(reference() for reference in references) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.001)
    assert [reference() for reference in references] == [None, None]


def test_a_dispatcher_that_is_dropped_stops_its_timer(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    dispatcher = EventDispatcher(signals)
    with signal.subscribe(lambda batch: len(batch), batch=Batch(2, HOUR)):
        dispatcher.emit(signal)
        assert dispatcher.drain(LIMIT)
    timer = backlog_of(dispatcher).batches.timer.thread
    assert timer is not None
    del dispatcher
    until = time.monotonic() + LIMIT
    while timer.is_alive() and time.monotonic() < until:
        gc.collect()
        timer.join(0.01)
    assert not timer.is_alive()


def test_a_forgotten_dispatcher_does_not_mind_subscriptions_that_go(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    dispatcher = EventDispatcher(signals)
    subscription = signal.subscribe(lambda batch: len(batch), batch=Batch(1, HOUR))
    dispatcher.emit(signal)
    assert dispatcher.close(LIMIT)
    buffer = next(iter(backlog_of(dispatcher).batches.buffers.values()))
    owner = buffer.owner
    assert owner is not None
    assert owner() is subscription
    del dispatcher, buffer
    gc.collect()
    subscription.cancel()
    del subscription
    signal.send(payload=1)
    gc.collect()
    assert owner() is None
