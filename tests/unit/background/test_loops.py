"""In which event loop an async handler runs that its emitter does not await (B1)."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from madcrow_events import Batch, EventDispatcher, EventSignal, SignalRegistry
from madcrow_events.exceptions import (
    DispatcherClosedError,
    HandlerCancelledError,
    InvalidOptionError,
    WouldDeadlockError,
)
from support.inside import backlog_of, bindings_of, renew_after_fork
from support.waiting import LIMIT, elsewhere

pytestmark = pytest.mark.guarantee("B1")
HOUR = 3600


class Where:
    """A handler that notes the loops it runs in."""

    def __init__(self) -> None:
        self.loops: list[Any] = []

    async def handle(self) -> None:
        self.loops.append(asyncio.get_running_loop())

    async def handle_batch(self, batch: list[Any]) -> None:
        self.loops.extend([asyncio.get_running_loop()] * len(batch))


@pytest.fixture
def where() -> Where:
    return Where()


@pytest.fixture
def a_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of an application, which runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    is_running = threading.Event()
    loop.call_soon_threadsafe(is_running.set)
    assert is_running.wait(LIMIT)
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_a_background_handler_runs_in_the_loop_of_its_emitter(
    signal: EventSignal[Any], dispatcher: EventDispatcher, where: Where
) -> None:
    signal.subscribe(where.handle, background=True)
    signal.subscribe(where.handle_batch, batch=Batch(2, HOUR))
    dispatcher.emit(signal)
    await dispatcher.emit_async(signal)
    assert await dispatcher.drain_async(LIMIT)
    assert where.loops == [asyncio.get_running_loop()] * 4


async def test_what_belongs_to_a_loop_can_be_used_in_the_background(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A lock that others wait for, as the pool of a database has one."""
    lock = asyncio.Lock()
    used: list[int] = []

    async def use(number: int) -> None:
        async with lock:
            await asyncio.sleep(0)
            used.append(number)

    signal.subscribe(use, background=True)
    async with lock:
        for number in range(5):
            await dispatcher.emit_async(signal, number=number)
        await asyncio.sleep(0)
        assert used == []
    assert await dispatcher.drain_async(LIMIT)
    assert used == [0, 1, 2, 3, 4]


async def test_who_waits_for_a_place_asks_the_loop_not_for_each_handler_in_the_queue(
    signals: SignalRegistry, signal: EventSignal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, asked, ended = 100, [], asyncio.Event()
    dispatcher = EventDispatcher(signals, queue_size=size)

    async def handle() -> None:
        await ended.wait()

    def is_running(loop: asyncio.AbstractEventLoop) -> bool:
        asked.append(loop)
        return real(loop)

    signal.subscribe(handle, background=True)
    for _ in range(size):
        await dispatcher.emit_async(signal)
    real = asyncio.BaseEventLoop.is_running
    monkeypatch.setattr(asyncio.BaseEventLoop, "is_running", is_running)
    waiting = asyncio.create_task(dispatcher.emit_async(signal))
    await asyncio.sleep(0)
    assert not waiting.done()
    ended.set()
    await waiting
    assert await dispatcher.drain_async(LIMIT)
    assert 0 < len(asked) < size / 2


async def test_a_task_in_the_background_is_held_until_it_has_ended(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Even where only it refers to what it waits for, and a loop holds its tasks weakly."""
    waited_for: list[weakref.ref[asyncio.Future[None]]] = []

    async def handle() -> None:
        future = asyncio.get_running_loop().create_future()
        waited_for.append(weakref.ref(future))
        await future

    signal.subscribe(handle, background=True)
    dispatcher.emit(signal)
    await asyncio.sleep(0)
    gc.collect()
    (reference,) = waited_for
    future = reference()
    assert future is not None
    future.set_result(None)
    assert await dispatcher.drain_async(LIMIT)


@pytest.mark.guarantee("A2")
@pytest.mark.parametrize("background", [True, False])
def test_where_no_loop_runs_it_is_the_one_that_is_bound(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    where: Where,
    a_loop: asyncio.AbstractEventLoop,
    background: bool,
) -> None:
    signal.subscribe(where.handle, background=background)
    with dispatcher.bind_loop(a_loop):
        dispatcher.emit(signal).wait(LIMIT)
        dispatcher.with_options(validate=True).emit(signal).wait(LIMIT)
    dispatcher.emit(signal).wait(LIMIT)
    assert where.loops[:2] == [a_loop, a_loop]
    assert where.loops[2] is not a_loop


def test_a_batch_waits_for_the_loop_that_is_bound(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    where: Where,
    a_loop: asyncio.AbstractEventLoop,
) -> None:
    signal.subscribe(where.handle_batch, batch=Batch(2, HOUR))
    dispatcher.bind_loop(a_loop)
    for _ in range(3):
        dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    assert where.loops == [a_loop] * 3


async def test_the_loop_that_runs_is_bound_and_another_emitters_thread_uses_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher, where: Where
) -> None:
    """As a plain endpoint of a web framework, which runs in a thread."""
    signal.subscribe(where.handle, background=True)
    dispatcher.bind_loop()
    await asyncio.to_thread(dispatcher.emit, signal)
    assert await dispatcher.drain_async(LIMIT)
    assert where.loops == [asyncio.get_running_loop()]


def test_a_loop_that_is_closed_is_bound_no_more(
    signal: EventSignal[Any], dispatcher: EventDispatcher, where: Where
) -> None:
    async def bind() -> None:
        dispatcher.bind_loop()

    signal.subscribe(where.handle, background=True)
    asyncio.run(bind())
    assert dispatcher.emit(signal).wait(LIMIT)
    assert len(where.loops) == 1


def test_blocks_that_bind_end_in_any_order(
    dispatcher: EventDispatcher, signal: EventSignal[Any], where: Where, a_loop: Any
) -> None:
    other = asyncio.new_event_loop()
    signal.subscribe(where.handle, background=True)
    first, second = dispatcher.bind_loop(other), dispatcher.bind_loop(a_loop)
    with first:
        pass
    assert dispatcher.emit(signal).wait(LIMIT)
    assert where.loops == [a_loop]
    other.close()
    with second:
        pass
    assert dispatcher.emit(signal).wait(LIMIT)
    assert where.loops[1] not in (a_loop, other)


def test_of_two_blocks_with_one_loop_either_may_end_first(
    dispatcher: EventDispatcher, signal: EventSignal[Any], where: Where, a_loop: Any
) -> None:
    """As those of two applications that share a dispatcher and a server's loop."""
    signal.subscribe(where.handle, background=True)
    first, second = dispatcher.bind_loop(a_loop), dispatcher.bind_loop(a_loop)
    for block in (first, second):
        assert dispatcher.emit(signal).wait(LIMIT)
        with block:
            pass
    assert where.loops == [a_loop, a_loop]
    assert dispatcher.emit(signal).wait(LIMIT)
    assert where.loops[2] is not a_loop


def test_what_has_ended_is_bound_no_more_when_a_later_block_ends(
    dispatcher: EventDispatcher, signal: EventSignal[Any], where: Where, a_loop: Any
) -> None:
    other = asyncio.new_event_loop()
    signal.subscribe(where.handle, background=True)
    first, second = dispatcher.bind_loop(a_loop), dispatcher.bind_loop(other)
    with first:
        pass
    with second:
        pass
    other.close()
    assert dispatcher.emit(signal).wait(LIMIT)
    assert where.loops[0] not in (a_loop, other)


def test_loops_that_were_bound_and_are_closed_do_not_pile_up(dispatcher: EventDispatcher) -> None:
    async def bind() -> None:
        dispatcher.bind_loop()

    for _ in range(20):
        asyncio.run(bind())
    assert len(bindings_of(dispatcher)) == 1


def test_a_forked_child_is_bound_to_no_loop_of_its_parent(
    signal: EventSignal[Any], dispatcher: EventDispatcher, where: Where, a_loop: Any
) -> None:
    signal.subscribe(where.handle, background=True)
    dispatcher.bind_loop(a_loop)
    renew_after_fork()
    assert dispatcher.emit(signal).wait(LIMIT)
    assert where.loops != [a_loop]


@pytest.mark.parametrize("loop", [None, "loop"])
def test_only_a_loop_can_be_bound(dispatcher: EventDispatcher, loop: Any) -> None:
    with pytest.raises(InvalidOptionError, match="call it in a running one, or give it one"):
        dispatcher.bind_loop(loop)


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("options", [{"background": True}, {"batch": Batch(5, HOUR)}])
async def test_a_loop_is_not_stopped_for_what_is_pending_in_it(
    signals: SignalRegistry, signal: EventSignal[Any], where: Where, options: dict[str, Any]
) -> None:
    signal.subscribe(where.handle_batch if "batch" in options else where.handle, **options)
    async with EventDispatcher(signals) as dispatcher:
        emission = dispatcher.emit(signal)
        for wait in (emission.wait, dispatcher.drain, dispatcher.close):
            with pytest.raises(WouldDeadlockError, match="stop the event loop"):
                wait()
        with pytest.raises(WouldDeadlockError), dispatcher:
            pass
        assert where.loops == []
    assert where.loops == [asyncio.get_running_loop()]


@pytest.mark.guarantee("B2")
async def test_a_wait_at_the_end_of_a_block_that_is_given_up_closes_nothing(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    may_go_on = asyncio.Event()
    signal.subscribe(may_go_on.wait, background=True)
    dispatcher = EventDispatcher(signals)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), dispatcher:
            dispatcher.emit(signal)
    dispatcher.emit(signal)
    may_go_on.set()
    assert await dispatcher.drain_async(LIMIT)


@pytest.mark.guarantee("B2")
async def test_a_dispatcher_is_closed_within_its_loop(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append("background")

    async def work_batch(batch: list[Any]) -> None:
        done.append(f"batch of {len(batch)}")

    signal.subscribe(work, background=True)
    signal.subscribe(work_batch, batch=Batch(5, HOUR))
    async with EventDispatcher(signals) as dispatcher:
        dispatcher.emit(signal)
    assert sorted(done) == ["background", "batch of 1"]
    with pytest.raises(DispatcherClosedError):
        dispatcher.emit(signal)


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize("own", [None, ValueError("the block's own")])
async def test_what_a_block_raised_is_not_hidden_by_a_close_that_cannot_be(
    signals: SignalRegistry, signal: EventSignal[Any], own: Exception | None
) -> None:
    dispatcher = EventDispatcher(signals)

    async def close_inside() -> None:
        async with dispatcher:
            if own is not None:
                raise own

    signal.subscribe(close_inside, background=True)
    emission = dispatcher.emit(signal)
    await emission.wait_async()
    (failure,) = emission.failures
    assert failure.exception is own or type(failure.exception) is WouldDeadlockError
    assert await dispatcher.drain_async(LIMIT)


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize("waits", ["as a task", "in a batch"])
def test_what_a_loop_has_cut_off_is_reported_by_name(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    waits: str,
) -> None:
    async def slow_handler() -> None:
        await asyncio.sleep(HOUR)

    async def slow_batch(batch: list[Any]) -> None: ...

    if waits == "as a task":
        signal.subscribe(slow_handler, background=True)
    else:
        signal.subscribe(slow_batch, batch=Batch(5, HOUR))

    async def main() -> Any:
        return await dispatcher.emit_async(signal)

    emission = asyncio.run(main())
    assert dispatcher.drain(LIMIT)
    (failure,) = emission.failures
    assert isinstance(failure.exception, (HandlerCancelledError, asyncio.CancelledError))
    (record,) = [it for it in caplog.records if it.levelno == logging.ERROR]
    assert "slow_" in record.getMessage()


def test_each_loop_has_batches_of_its_own(
    signal: EventSignal[Any], dispatcher: EventDispatcher, where: Where
) -> None:
    """And leaves nothing behind when it is closed."""
    signal.subscribe(where.handle_batch, batch=Batch(10, HOUR))

    async def main() -> None:
        for _ in range(3):
            dispatcher.emit(signal)
        assert await dispatcher.drain_async(LIMIT)

    for _ in range(20):
        asyncio.run(main())
    elsewhere(lambda: dispatcher.emit(signal)).result(LIMIT)
    assert dispatcher.drain(LIMIT)
    assert len(where.loops) == 61
    assert len(backlog_of(dispatcher).batches.buffers) <= 2


@pytest.mark.guarantee("B3")
def test_two_loops_handle_batches_at_the_same_time_and_each_one_at_a_time(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    both = threading.Barrier(2)
    running: Counter[Any] = Counter()
    most: Counter[Any] = Counter()

    async def handle(batch: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        running[loop] += 1
        most[loop] = max(most[loop], running[loop])
        await asyncio.to_thread(both.wait, LIMIT)
        running[loop] -= 1

    signal.subscribe(handle, batch=Batch(2, HOUR))

    async def main() -> list[Any]:
        emissions = [dispatcher.emit(signal) for _ in range(6)]
        for emission in emissions:
            await emission.wait_async()
        return [failure for emission in emissions for failure in emission.failures]

    others = elsewhere(lambda: asyncio.run(main()))
    assert asyncio.run(main()) == others.result(LIMIT) == []
    assert list(most.values()) == [1, 1]


def test_a_loop_that_ends_while_a_batch_is_due_loses_nothing_in_silence(
    signal: EventSignal[Any], dispatcher: EventDispatcher, where: Where
) -> None:
    signal.subscribe(where.handle_batch, batch=Batch(10, 0.01))

    async def main() -> list[Any]:
        return [dispatcher.emit(signal) for _ in range(3)]

    emissions = asyncio.run(main())
    assert all(emission.wait(LIMIT) for emission in emissions)
    assert [len(emission.failures) for emission in emissions] == [1, 1, 1]
