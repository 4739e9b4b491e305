"""Single steps of the package that something breaks off: a signal, a full stack, no memory (F3).

`test_interrupts.py` tries all places in the main thread. Here are those of other threads, of
callbacks of a loop, and those where two things must come together.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from importlib.metadata import PathDistribution
from queue import Empty
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    SignalRegistry,
    current_event,
    discover_plugins,
    event_scope,
)
from madcrow_events.testing import recorder
from support import shops
from support.inside import (
    STRANGERS,
    Batches,
    DeferralFrame,
    Job,
    SavedRegistry,
    Timer,
    Turn,
    Waiters,
    WorkerThreads,
    abandon,
    admitting,
    awaiting,
    backlog_of,
    call_all,
    calling_batches,
    completing,
    deferring,
    definition_of,
    delivering,
    handler_name,
    is_of,
    keeping_frames,
    lingering,
    locking,
    looping,
    other_library,
    printable,
    reason_of,
    recording,
    sending,
    serving,
    shortening,
    timing,
    working,
)
from support.shops import LIMIT, Shop
from support.waiting import eventually

pytestmark = [
    pytest.mark.guarantee("F3"),
    # Of those that were broken off before they could be awaited.
    pytest.mark.filterwarnings("ignore:coroutine 'call_batch_async' was never awaited"),
]

BreakOff = Callable[..., list[None]]

ONE = Batch(1, LIMIT)


def test_an_emission_that_its_emitter_has_let_go_is_not_given_up() -> None:
    """The interrupt comes as the emitter returns."""
    abandon(None, KeyboardInterrupt())


class Interrupt(BaseException):
    """What no handler raises."""


@pytest.fixture
def break_off(monkeypatch: pytest.MonkeyPatch) -> BreakOff:
    """Let a function raise the first time that it is called, and work as ever from then on."""

    def break_off(
        owner: Any, name: str, error: type[BaseException] = MemoryError, *, at_its_end: bool = False
    ) -> list[None]:
        def function(*arguments: Any, **options: Any) -> Any:
            if left:
                left.clear()
                if at_its_end:
                    real(*arguments, **options)
                raise error("broken off")
            return real(*arguments, **options)

        real = getattr(owner, name)
        left = [None]
        monkeypatch.setattr(owner, name, function)
        return left

    return break_off


def cannot_start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# Workers, the timer, and what they take


@pytest.mark.parametrize(
    ("owner", "name"), [(Job, "work_off"), (Turn, "work_off"), (Turn, "handle")]
)
def test_a_worker_goes_on_after_whatever_comes_up_in_it(
    break_off: BreakOff, owner: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop()
    left = break_off(owner, name)
    shops.emit(shop, 1)
    assert shop.dispatcher.drain(LIMIT)
    assert not left
    shop.assert_accounted_for(1, returned=True)
    shop.assert_all_is_well()
    assert "a background worker was interrupted by MemoryError" in caplog.text


def test_a_worker_that_is_broken_off_as_it_begins_to_wait_waits_again() -> None:
    class Refusing(list[object]):
        def append(self, item: object) -> None:
            if is_refusing:
                is_refusing.clear()
                raise MemoryError
            super().append(item)

    is_refusing = [True]
    shop = Shop()
    backlog_of(shop.dispatcher).workers.idle = Refusing()
    shops.emit(shop, 1)
    assert shop.dispatcher.drain(LIMIT)
    assert not is_refusing
    shop.assert_all_is_well()


def test_a_worker_that_is_too_late_for_a_job_waits_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Queue(working.SimpleQueue):  # type: ignore[misc, name-defined]
        def get(self, block: bool = True) -> Any:
            if left and not block:
                left.clear()
                raise Empty
            return super().get(block)

        def qsize(self) -> int:
            return 1 if left else int(super().qsize())

    left = [True]
    monkeypatch.setattr(working, "SimpleQueue", Queue)
    shop = Shop()
    backlog_of(shop.dispatcher).workers.ensure_thread()
    assert eventually(lambda: not left)
    shop.assert_all_is_well()


def test_a_worker_that_is_broken_off_as_it_waits_is_not_counted_as_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Queue(working.SimpleQueue):  # type: ignore[misc, name-defined]
        def get(self, *arguments: Any) -> Any:
            if left:
                left.clear()
                raise MemoryError
            return super().get(*arguments)

    left = [True]
    monkeypatch.setattr(working, "SimpleQueue", Queue)
    shop = Shop()
    workers = backlog_of(shop.dispatcher).workers
    workers.ensure_thread()
    assert eventually(lambda: not left and workers.idle)
    assert len(workers.idle) == len(workers.threads)
    shop.assert_all_is_well()


def test_an_alarm_that_is_broken_off_as_it_is_set_is_set_for_the_next_context(
    dispatcher: EventDispatcher, signal: EventSignal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_alarm(timer: Timer, *arguments: Any) -> bool:
        # Only this one's: a worker of an earlier test may still set one.
        if left and timer is backlog_of(dispatcher).batches.timer:
            left.clear()
            raise Interrupt
        return real(timer, *arguments)

    # Long enough that no batch is due at once, even on a busy machine.
    signal.subscribe(lambda batch: None, batch=Batch(100, 0.5))
    left, real = [True], Timer.set_alarm
    monkeypatch.setattr(Timer, "set_alarm", set_alarm)
    with pytest.raises(Interrupt):
        dispatcher.emit(signal)
    assert not left
    assert dispatcher.emit(signal).wait(LIMIT)


@pytest.mark.parametrize("has_heard_of_both", [False, True])
def test_the_timer_takes_an_alarm_again_that_it_could_not_set(
    break_off: BreakOff, caplog: pytest.LogCaptureFixture, has_heard_of_both: bool
) -> None:
    shop = Shop()
    timer = backlog_of(shop.dispatcher).batches.timer
    bell = timer.bell

    def wait_for_both(timeout: float) -> bool:
        deadline = time.monotonic() + LIMIT
        while left and timer.alarms.qsize() < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        return bell.acquire(timeout=timeout)

    if has_heard_of_both:
        timer.bell = SimpleNamespace(acquire=wait_for_both, release=bell.release)  # type: ignore[assignment]
    left = break_off(timing.heapq, "heappush")
    shops.emit(shop, 1)
    (emission,) = shop.emissions[1]
    assert emission.wait(LIMIT)
    assert not left
    shop.assert_accounted_for(1, returned=True)
    assert "the timer of batches was interrupted by MemoryError" in caplog.text


@pytest.mark.parametrize("is_broken_off", [False, True])
def test_work_that_was_queued_for_a_thread_which_then_did_not_start_is_done(
    monkeypatch: pytest.MonkeyPatch, break_off: BreakOff, is_broken_off: bool
) -> None:
    shop = Shop()
    backlog = backlog_of(shop.dispatcher)
    monkeypatch.setattr(threading.Thread, "start", cannot_start)
    monkeypatch.setattr(WorkerThreads, "start_enough_threads", lambda self: self.threads.clear())
    backlog.workers.threads.append(threading.current_thread())
    backlog.workers.queue.put(None)  # as `stop` does
    if is_broken_off:
        break_off(Job, "work_off")
    with shop.other.subscribe(lambda: done.append(True), background=True):
        done: list[bool] = []
        emission = shop.dispatcher.emit("other")
    assert shop.dispatcher.drain(LIMIT)
    if is_broken_off:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
    else:
        assert done == [True]
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_a_subscription_may_outlive_the_dispatcher_that_gathers_for_it() -> None:
    shop = Shop()
    subscription = shop.other.subscribe(len, batch=ONE)
    shop.dispatcher.emit("other")
    assert shop.dispatcher.drain(LIMIT)
    buffers = list(backlog_of(shop.dispatcher).batches.buffers.values())
    assert shop.dispatcher.close(LIMIT)
    shop.dispatcher = EventDispatcher(shop.signals)
    gc.collect()
    subscription.cancel()
    del subscription
    gc.collect()
    assert [buffer.owner() for buffer in buffers] == [None]  # type: ignore[misc]


# Without the GIL, the new thread may find that lock free, too, as it tells that it has started.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_interrupts_the_start_of_a_thread_reaches_the_emitter_as_it_is(
    monkeypatch: pytest.MonkeyPatch, ring: Any
) -> None:
    """Python's own condition gives an error of its own for a lock that it does not hold then."""

    def release(condition: threading.Condition) -> Any:
        state = real(condition)
        if threading.current_thread() is threading.main_thread() and not rung:
            rung.append(True)
            ring()
        return state

    rung: list[bool] = []
    real = threading.Condition._release_save  # type: ignore[attr-defined]
    shop = Shop()
    monkeypatch.setattr(threading.Condition, "_release_save", release)
    with pytest.raises(TimeLimit):
        shops.emit(shop, 1)
    assert rung
    shop.assert_all_is_well()


@pytest.mark.parametrize("place", [1, 2])
def test_who_waits_in_a_thread_is_not_held_up_by_who_was_interrupted_as_it_notified(
    ring: Any, place: int
) -> None:
    """The lock in an event of Python's own would stay held; the one here is a plain one."""

    def profile(frame: Any, event: str, _argument: object) -> None:
        if event == "c_return" and frame.f_code is Waiters.notify.__code__:
            places.append(frame.f_lineno)
            if len(places) == place:
                ring()

    places: list[int] = []
    waiters = Waiters()
    waiting = threading.Thread(target=waiters.wait, args=(lambda: False, 0.2))
    waiting.start()
    while not waiters._callbacks:
        time.sleep(0.001)
    sys.setprofile(profile)
    try:
        waiters.notify()
    except TimeLimit:
        pass
    finally:
        sys.setprofile(None)
    waiting.join(LIMIT)
    assert len(places) >= place
    assert not waiting.is_alive()


def test_a_batch_is_not_handled_by_the_limits_of_a_subscription_that_is_gone() -> None:
    """What forgets them is a weak-reference callback, which an interrupt may break off."""
    shop = Shop()
    subscription = shop.other.subscribe(len, batch=Batch(1000, LIMIT))
    shop.dispatcher.emit("other")
    buffers = backlog_of(shop.dispatcher).batches.buffers
    (key,) = (key for key in buffers if key[0] == id(subscription))
    left = buffers[key]
    assert shop.dispatcher.drain(LIMIT)
    subscription.cancel()
    del subscription
    gc.collect()
    subscription = shop.other.subscribe(len, batch=ONE)
    buffers[id(subscription), key[1]] = left
    assert shop.dispatcher.emit("other").wait(LIMIT)
    assert left not in buffers.values()


def test_of_two_loops_that_are_made_at_once_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: Any, **options: Any) -> Any:
        if not others:
            others.append(None)
            others.append(background_loop.get())  # as another thread does
        return real(*arguments, **options)

    others: list[Any] = []
    real = serving.start_thread
    monkeypatch.setattr(serving, "start_thread", start)
    shop = Shop()
    background_loop = backlog_of(shop.dispatcher).background_loop
    shops.emit(shop, 1)
    assert shop.dispatcher.drain(LIMIT)
    assert background_loop.loops == others[1:]
    shop.assert_accounted_for(1, returned=True)
    shop.assert_all_is_well()


# Jobs


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_job_that_cannot_even_be_claimed_for_the_stack_is_full_is_its_emitters(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    def put(_threads: WorkerThreads, job: Job) -> bool:
        if has_begun:
            done.append(job.ticket.pop())
        raise RecursionError

    def claim(_job: Job) -> bool:
        raise RecursionError

    done: list[None] = []
    shop = Shop()
    with shop.other.subscribe(len, background=True):
        monkeypatch.setattr(WorkerThreads, "put", put)
        monkeypatch.setattr(Job, "claim", claim)
        with pytest.raises(RecursionError):
            shop.dispatcher.emit("other")
    jobs = list(backlog_of(shop.dispatcher).jobs.values())
    assert bool(jobs) is has_begun
    monkeypatch.undo()
    for job in jobs:  # as the worker does that has begun with it
        job.context.run(job.run)
    shop.assert_all_is_well()


class Alone:
    """An event with one handler, which runs later, and an emitter that nothing surrounds."""

    def __init__(self, *, in_batches: bool) -> None:
        signals = SignalRegistry()
        self.signal = signals.signal("thing_happened", context=shops.Thing)
        if in_batches:
            self.signal.subscribe(self.handle_batch, batch=Batch(10, LIMIT))
        else:
            self.signal.subscribe(self.handle, background=True)
        self.dispatcher = EventDispatcher(signals, max_workers=1)
        self.backlog = backlog_of(self.dispatcher)
        self.numbers: list[int] = []
        self.may_end = threading.Semaphore()
        self.emit(1)  # what is made when first needed
        assert self.dispatcher.drain(LIMIT)

    def handle(self, context: shops.Thing) -> None:
        self.numbers.append(context.number)
        assert self.may_end.acquire(timeout=LIMIT)
        self.may_end.release()

    def handle_batch(self, contexts: list[shops.Thing]) -> None:
        self.numbers.extend([context.number for context in contexts])

    def emit(self, number: int) -> Emission[shops.Thing]:
        return self.dispatcher.emit_typed(self.signal, shops.Thing(number=number))


@pytest.mark.parametrize("in_batches", [False, True])
@pytest.mark.parametrize("moment", ["before", "queued", "done"])
def test_an_emitter_that_is_broken_off_releases_its_place_once(
    monkeypatch: pytest.MonkeyPatch, moment: str, in_batches: bool
) -> None:
    def launch(admission: Any, job: Job, permits: Any) -> None:
        if moment != "before":
            real(admission, job, permits)
        if moment == "done":
            assert alone.dispatcher.drain(LIMIT)
        raise Interrupt

    alone = Alone(in_batches=in_batches)
    if moment == "queued":
        alone.may_end.acquire()
    alone.emit(2)
    assert in_batches or eventually(lambda: 2 in alone.numbers)
    real = admitting.Admission._launch
    monkeypatch.setattr(admitting.Admission, "_launch", launch)
    with pytest.raises(Interrupt):
        alone.emit(3)
    monkeypatch.undo()
    alone.may_end.release()
    assert alone.dispatcher.drain(LIMIT)
    assert len(alone.backlog.permits.free) == 1000
    assert alone.numbers == ([1, 2] if moment == "before" else [1, 2, 3])


@pytest.mark.parametrize("error", [Interrupt, MemoryError])
def test_a_context_that_never_came_into_a_batch_is_reported(
    break_off: BreakOff, error: type[BaseException]
) -> None:
    alone = Alone(in_batches=True)
    break_off(Batches, "add", error)
    with pytest.raises(Interrupt) if error is Interrupt else nullcontext():
        emission = alone.emit(2)
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
        assert not emission.pending
    assert alone.dispatcher.drain(0)
    assert len(alone.backlog.permits.free) == 1000
    alone.emit(3)
    assert alone.dispatcher.drain(LIMIT)
    assert alone.numbers == [1, 3]


def test_a_job_that_another_thread_has_begun_with_is_not_run_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put(_threads: WorkerThreads, job: Job) -> bool:
        assert job.claim()
        return False

    shop = Shop()
    monkeypatch.setattr(WorkerThreads, "put", put)
    with shop.other.subscribe(lambda: done.append(True), background=True):
        done: list[bool] = []
        emission = shop.dispatcher.emit("other")
    assert emission.pending == 1
    assert done == []
    (job,) = backlog_of(shop.dispatcher).jobs.values()
    job.context.run(job.run)
    assert done == [True]


def test_a_job_that_is_lost_before_its_loop_gets_to_it_is_not_begun() -> None:
    shop = Shop()
    loop = asyncio.new_event_loop()
    with shop.dispatcher.bind_loop(loop), shop.other.subscribe(fail_async, background=True):
        emission = shop.dispatcher.emit("other")
    (job,) = backlog_of(shop.dispatcher).jobs.values()
    job.lose("its emitter was interrupted")
    job.lose("its emitter was interrupted")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    (failure,) = emission.failures
    assert str(failure.exception) == "its emitter was interrupted"
    shop.assert_all_is_well()


async def fail_async(*_arguments: Any) -> None:
    raise AssertionError("it was called")


def test_a_job_that_is_lost_before_a_worker_takes_it_is_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop()
    put = WorkerThreads.put

    def lose_and_put(workers: WorkerThreads, job: Job) -> bool:
        job.lose("its emitter was interrupted")
        return put(workers, job)

    monkeypatch.setattr(WorkerThreads, "put", lose_and_put)
    with shop.other.subscribe(lambda: 1 / 0, background=True, weak=False):
        emission = shop.dispatcher.emit("other")
    monkeypatch.undo()
    shop.assert_all_is_well()
    (failure,) = emission.failures
    assert isinstance(failure.exception, HandlerCancelledError)


def test_who_reports_a_job_that_is_reported_elsewhere_leaves_it_to_that() -> None:
    shop = Shop()
    loop = asyncio.new_event_loop()
    with shop.dispatcher.bind_loop(loop), shop.other.subscribe(fail_async, background=True):
        emission = shop.dispatcher.emit("other")
    (job,) = backlog_of(shop.dispatcher).jobs.values()
    elsewhere = job.unreported.pop()
    job.lose("too late")
    calling_batches.lose_batch([job], "too late")
    assert emission.pending == 1
    job.unreported.append(elsewhere)
    calling_batches.lose_batch([job], "in time")
    job.lose("too late")
    loop.close()
    (failure,) = emission.failures
    assert str(failure.exception) == "in time"
    shop.assert_all_is_well()


def test_what_has_ended_as_it_is_reported_as_lost_has_ended() -> None:
    shop = Shop()
    loop = asyncio.new_event_loop()
    with shop.dispatcher.bind_loop(loop), shop.other.subscribe(fail_async, background=True):
        emission = shop.dispatcher.emit("other")
    (job,) = backlog_of(shop.dispatcher).jobs.values()
    emission._values[0] = "what it returned"
    job.lose("too late")
    loop.close()
    assert emission.ok
    shop.assert_all_is_well()


@pytest.mark.parametrize("at_its_end", [False, True])
@pytest.mark.parametrize("kind", ["background_async", "batch_async"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_report_that_is_broken_off_is_made_once(
    break_off: BreakOff, kind: str, at_its_end: bool
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: heard.append(told))
        with shop.other.subscribe(getattr(shop, kind), **options):
            emissions.append(shop.dispatcher.emit("other", number=1))
        if kind == "batch_async":
            await asyncio.sleep(0)  # it has its task now, which has not begun
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)

    shop = Shop()
    options: Any = {"background": True} if kind == "background_async" else {"batch": ONE}
    heard: list[Any] = []
    emissions: list[Any] = []
    left = break_off(recording, "add_failure", at_its_end=at_its_end)
    shop.run(main())
    assert not left
    assert [type(told["exception"]) for told in heard] == [MemoryError]
    (failure,) = emissions[0].failures
    assert isinstance(failure.exception, HandlerCancelledError)
    shop.assert_all_is_well()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the coroutine is never awaited
def test_a_batch_that_gets_no_task_is_reported(break_off: BreakOff) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, told: heard.append(told))
        emissions.append(shop.dispatcher.emit("other", number=1))
        await asyncio.sleep(0.01)

    shop = Shop()
    heard: list[Any] = []
    emissions: list[Any] = []
    left = break_off(Turn, "_begin")
    with shop.other.subscribe(shop.batch_async, batch=ONE):
        shop.run(main())
    assert not left
    assert [type(told["exception"]) for told in heard] == [MemoryError]
    assert not emissions[0].pending
    shop.assert_all_is_well()


@pytest.mark.parametrize("options", [{"background": True}, {"batch": ONE}])
async def test_at_the_exit_an_async_handler_cannot_be_waited_for_in_a_loop(options: Any) -> None:
    """A handler in the library's own loop emits when no thread can be started any more."""
    shop = Shop()
    with shop.other.subscribe(fail_async, **options):
        emission = shop.dispatcher.emit("other")
        (job,) = backlog_of(shop.dispatcher).jobs.values()
        job._run_in_place()
    (failure,) = emission.failures
    assert str(failure.exception) == "no thread could be started for the handler"


def test_where_no_other_library_is_loaded_none_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in STRANGERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    shop = Shop()
    shop.assert_all_is_well()


@pytest.mark.parametrize("kind", ["background", "background_async"])
def test_a_call_that_is_broken_off_as_it_ends_is_ended(break_off: BreakOff, kind: str) -> None:
    shop = Shop()
    left = break_off(Job, "_leave")
    with shop.other.subscribe(getattr(shop, kind), background=True):
        shop.dispatcher.emit("other", number=1)
        assert shop.dispatcher.drain(LIMIT)
    assert not left
    shop.assert_all_is_well()


# Waiting


@pytest.mark.parametrize("method", ["drain", "drain_async"])
def test_a_drain_that_is_broken_off_as_it_begins_leaves_batches_waiting(
    break_off: BreakOff, method: str
) -> None:
    shop = Shop()
    with shop.other.subscribe(len, batch=Batch(2, LIMIT)):
        shop.dispatcher.emit("other")
        break_off(Batches, "flush_now", Interrupt)
        with pytest.raises(Interrupt):
            if method == "drain":
                shop.dispatcher.drain(LIMIT)
            else:
                shop.run(shop.dispatcher.drain_async(LIMIT))
    assert not backlog_of(shop.dispatcher).batches.flushing
    shop.assert_all_is_well()


# Awaited handlers


async def fail_by_keywords(sender: Any, **context: Any) -> None:
    raise ValueError


async def fail_by_keyword(number: int) -> None:
    raise ValueError


async def fail_by_context(context: shops.Thing) -> None:
    raise ValueError


async def fail_by_emission(emission: Emission[Any]) -> None:
    raise ValueError


@pytest.mark.parametrize("is_typed", [False, True])
@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (fail_by_keywords, {}),
        (fail_by_keyword, {}),
        (fail_by_context, {}),
        (fail_by_emission, {}),
        (fail_by_keyword, {"timeout": LIMIT}),
    ],
)
@pytest.mark.parametrize("name", ["record", "leave"])
def test_what_comes_up_after_an_awaited_handler_has_ended_is_its_emitters(
    break_off: BreakOff, handler: Any, options: Any, is_typed: bool, name: str
) -> None:
    shop = Shop()
    subscriptions = [shop.signal.subscribe(handler, weak=False, **options)]
    if name == "leave":
        subscriptions.append(shop.signal.subscribe(wait_a_moment, weak=False, **options))
    left = break_off(awaiting if name == "record" else awaiting.Unfinished, name, Interrupt)
    dispatcher = shops.unobserved(shop)
    with pytest.raises(Interrupt):
        if is_typed:
            shop.run(dispatcher.emit_typed_async(shop.signal, shops.Thing(number=1)))
        else:
            shop.run(dispatcher.emit_async(shop.signal, number=1))
    assert not left
    for subscription in subscriptions:
        subscription.cancel()
    shop.assert_all_is_well()


@pytest.mark.parametrize("error", [Interrupt, asyncio.CancelledError])
def test_what_ends_a_task_before_its_handler_begins_is_told(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    async def broken(*_arguments: Any) -> None:
        raise error

    shop = Shop()
    monkeypatch.setattr(awaiting, "_with_argument", broken)
    monkeypatch.setattr(awaiting, "_with_keywords", broken)
    with shop.other.subscribe(fail_async):
        if error is Interrupt:
            with pytest.raises(Interrupt):
                shop.run(shops.unobserved(shop).emit_async("other"))
        else:
            emission = asyncio.run(shops.unobserved(shop).emit_async("other"))
            assert [type(failure.exception) for failure in emission.failures] == [error]
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_awaited_handlers_that_cannot_be_entered_leave_nothing_behind(break_off: BreakOff) -> None:
    shop = Shop()
    left = break_off(awaiting, "_enter", Interrupt)
    with pytest.raises(Interrupt):
        shops.emit_async(shop, 1)
    assert not left
    shop.assert_all_is_well()


async def wait_a_moment(number: int) -> None:
    await asyncio.sleep(0)


def test_awaited_handlers_that_have_begun_are_cancelled_if_the_next_cannot_begin(
    break_off: BreakOff,
) -> None:
    async def hang() -> None:
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def emit() -> None:
        with pytest.raises(Interrupt):
            await shop.dispatcher.emit_async("other")
        await asyncio.sleep(0.01)

    cancelled: list[bool] = []
    shop = Shop()
    with shop.other.subscribe(hang), shop.other.subscribe(fail_async):
        begin = awaiting.Unfinished.__init__

        def begin_and_break_off(*arguments: Any) -> None:
            begin(*arguments)
            break_off(awaiting, "Branch", Interrupt)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(awaiting.Unfinished, "__init__", begin_and_break_off)
            shop.run(emit())
    shop.assert_all_is_well()


# Blocks


class Refusing:
    """A context variable whose `set` is broken off the first time."""

    def __init__(self, real: Any) -> None:
        self.get, self.reset = real.get, real.reset
        self._real = real
        self._is_refusing = True

    def set(self, value: Any) -> Any:
        if self._is_refusing:
            self._is_refusing = False
            raise Interrupt
        return self._real.set(value)


async def test_a_block_that_is_flushed_is_left_if_that_cannot_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop()
    with pytest.raises(Interrupt):
        async with shop.dispatcher.deferred():
            await shop.dispatcher.emit_async("other")
            monkeypatch.setattr(keeping_frames, "CURRENT", Refusing(keeping_frames.CURRENT))
    monkeypatch.undo()
    assert await shop.dispatcher.drain_async(LIMIT)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_send_that_cannot_begin_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    shop = Shop()
    monkeypatch.setattr(sending, "CURRENT", Refusing(sending.CURRENT))
    with pytest.raises(Interrupt):
        await shop.other.send_async() if is_async else shop.other.send()
    assert current_event() is None
    assert await shop.other.send_async() == []


def test_a_delivery_that_cannot_begin_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop()
    monkeypatch.setattr(delivering, "CURRENT", Refusing(delivering.CURRENT))
    bound = shop.other.bind(shops.do_nothing)
    with pytest.raises(Interrupt):
        shop.dispatcher.deliver(bound, BaseEventContext())
    assert current_event() is None
    assert shop.dispatcher.deliver(bound, BaseEventContext()).ok


def test_what_comes_up_after_the_last_handler_is_no_failure_of_it() -> None:
    def interrupt(frame: Any, event: str, _: object) -> None:
        if event == "c_return" and frame.f_code is call_all.__code__:
            raise Interrupt

    shop = Shop()
    emissions: list[Any] = []
    shop.other.subscribe(lambda **_: emissions.append(current_event()))
    last = shop.other.subscribe(lambda: sys.setprofile(interrupt), priority=-1)
    with last, pytest.raises(Interrupt):
        shop.dispatcher.emit("other")
    assert [emission.failures for emission in emissions] == [()]
    shop.assert_all_is_well()


def test_a_muted_block_whose_with_was_cut_off_mutes_nobody() -> None:
    shop = Shop()
    block = shop.signal.muted()
    block.__enter__()
    del block
    shop.assert_all_is_well()


def test_a_scope_whose_with_was_cut_off_fills_nothing_in() -> None:
    shop = Shop()
    for _ in range(2):
        scope = event_scope(request_id="of another")
        scope.__enter__()
        del scope  # no `__exit__`
    assert shop.dispatcher.emit("other").depth == 0
    shop.assert_all_is_well()


@pytest.mark.parametrize("kind", ["scope", "deferred"])
def test_a_block_that_was_cut_off_is_over_in_each_context_that_has_it(kind: str) -> None:
    shop = Shop()
    is_scope = kind == "scope"
    block = event_scope(request_id="it") if is_scope else shop.dispatcher.deferred()
    block.__enter__()
    contexts = [copy_context() for _ in range(2)]
    del block  # no `__exit__`
    for context in contexts:
        context.run(shop.assert_all_is_well)
    shop.assert_all_is_well()


def test_a_block_that_another_thread_leaves_meanwhile_is_not_cut_off() -> None:
    class Leaving(keeping_frames.AmbientFrame):
        @property
        def block(self) -> Any:
            return None if reads or reads.append(None) else lambda: self

    reads: list[None] = []
    assert not Leaving().is_cut_off()
    assert len(reads) == 1


def test_a_scope_around_one_that_was_cut_off_goes_on() -> None:
    shop = Shop()
    with event_scope(request_id="it"):
        scope = event_scope(request_id="of another")
        scope.__enter__()
        del scope
        emission = shop.dispatcher.emit("thing_happened", number=1)
        assert emission.context["request_id"] == "it"
    shop.assert_all_is_well()


def test_a_scope_that_cannot_begin_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    monkeypatch.setattr(keeping_frames, "CURRENT", Refusing(keeping_frames.CURRENT))
    with pytest.raises(Interrupt), event_scope(request_id="it"):
        pass
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_a_block_that_cannot_begin_holds_nothing_back(break_off: BreakOff) -> None:
    shop = Shop()
    break_off(deferring, "enter", Interrupt)
    with pytest.raises(Interrupt), shop.dispatcher.deferred():
        pass
    shop.assert_all_is_well()


@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_held_back_is_dropped_if_its_flush_is_broken_off(
    break_off: BreakOff, is_async: bool
) -> None:
    shop = Shop()
    break_off(deferring, "emit_held_back_async" if is_async else "emit_held_back", Interrupt)
    with pytest.raises(Interrupt):
        (shops.emit_deferred_async if is_async else shops.emit_deferred)(shop, 1)
    assert shop.emissions == {}
    shop.assert_all_is_well()


def test_what_was_dropped_meanwhile_does_not_go_out() -> None:
    shop = Shop()
    with shop.dispatcher.deferred():
        shop.dispatcher.emit("other")._values.drop()  # type: ignore[union-attr]
        kept = shop.dispatcher.emit("other")
    assert kept.state == "done"
    shop.assert_all_is_well()


def test_a_flush_that_cannot_begin_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    with pytest.raises(Interrupt), shop.dispatcher.deferred():
        shop.dispatcher.emit("other")
        monkeypatch.setattr(completing, "CURRENT", Refusing(keeping_frames.CURRENT))
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_a_scope_that_cannot_be_asked_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Shop()
    with pytest.raises(Interrupt), shop.dispatcher.deferred(lambda: {"request_id": "1"}):
        monkeypatch.setattr(keeping_frames, "CURRENT", Refusing(keeping_frames.CURRENT))
        shop.dispatcher.emit("other")
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_an_interrupt_as_a_scope_is_left_is_not_taken_for_its_end(
    monkeypatch: pytest.MonkeyPatch, ring: Any
) -> None:
    class Ringing:
        get, set = keeping_frames.CURRENT.get, keeping_frames.CURRENT.set

        @staticmethod
        def reset(token: Any) -> None:
            real.reset(token)
            if not rung:
                rung.append(True)
                ring()

    real = keeping_frames.CURRENT
    rung: list[bool] = []
    shop = Shop()
    monkeypatch.setattr(keeping_frames, "CURRENT", Ringing)
    with pytest.raises(TimeLimit), event_scope(request_id="it"):
        pass
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_a_registry_is_restored_though_that_is_broken_off(break_off: BreakOff) -> None:
    shop = Shop()
    with pytest.raises(Interrupt), shop.signals.isolated(empty=True):
        break_off(SavedRegistry, "restore", Interrupt)
    shop.assert_all_is_well()


@pytest.mark.parametrize("is_async", [False, True])
def test_what_another_thread_flushes_at_the_same_time_goes_out_once(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    def take(held: Any, taken: list[Any]) -> bool:
        if not others:
            others.append(True)
            thread = threading.Thread(target=held.flush)
            thread.start()
            thread.join(LIMIT)
        return real(held, taken)

    others: list[bool] = []
    real = DeferralFrame._take
    shop = Shop()
    monkeypatch.setattr(DeferralFrame, "_take", take)
    (shops.emit_deferred_async if is_async else shops.emit_deferred)(shop, 1)
    assert shop.dispatcher.drain(LIMIT)
    assert len(shop.emissions[1]) == 1
    shop.assert_all_is_well()


@pytest.mark.parametrize("moment", ["as it begins", "as it ends"])
def test_handlers_are_called_again_after_a_fake_that_is_broken_off(
    break_off: BreakOff, moment: str
) -> None:
    shop = Shop()
    with pytest.raises(Interrupt):
        if moment == "as it begins":
            break_off(recorder, "record", Interrupt)
        with recorder.fake_events(signals=shop.signals):
            break_off(recorder, "record", Interrupt)
    shop.assert_all_is_well()


# What makes the best of anything that goes wrong lets an interrupt through


class TimeLimit(RuntimeError):
    """As what task queues raise when a job takes too long; of a kind that is expected often."""


@pytest.fixture(params=["each time", "once", "with arguments of its own"])
def ring(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """What lets a time limit come up."""

    def handle(*_arguments: object) -> None:
        if request.param == "once":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise TimeLimit

    def ring(*_arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    is_partial = request.param == "with arguments of its own"
    before = signal.signal(signal.SIGTERM, partial(handle, "its own") if is_partial else handle)
    yield ring
    signal.signal(signal.SIGTERM, before)


def in_a_name(ring: Any, _shop: Shop, _patch: pytest.MonkeyPatch) -> None:
    handler_name(type("Proxy", (), {"__module__": property(ring)})())


def in_a_text(ring: Any, _shop: Shop, _patch: pytest.MonkeyPatch) -> None:
    printable(type("Value", (), {"__str__": ring})())


def in_a_definition(ring: Any, _shop: Shop, _patch: pytest.MonkeyPatch) -> None:
    definition_of(type("Proxy", (), {"__self__": property(ring)})())


def in_the_annotations_of_what_is_no_event(
    ring: Any, shop: Shop, _patch: pytest.MonkeyPatch
) -> None:
    names = {"__call__": ring, "__annotations__": property(ring)}
    shop.signals.resolve(type("Proxy", (), names)())


def in_an_annotation(ring: Any, shop: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(globals(), "bell", ring)

    def handler(context: bell()) -> None: ...  # type: ignore[valid-type]  # noqa: F821

    shop.other.subscribe(handler)


def in_a_filter_of_the_log(ring: Any, shop: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(logging.getLogger("madcrow_events"), "filters", [ring])
    with shop.other.subscribe(lambda: 1 / 0, weak=False):
        shop.dispatcher.emit("other")


def in_a_traceback(ring: Any, shop: Shop, patch: pytest.MonkeyPatch) -> None:
    class Reading(logging.Handler):
        """Reads the text where no handler of `logging` catches what is raised."""

        def emit(self, record: logging.LogRecord) -> None:
            print(record.exc_text)

    patch.setattr(traceback, "format_exception", ring)
    patch.setattr(logging.getLogger("madcrow_events"), "handlers", [Reading()])
    shop.dispatcher.log_tracebacks = True
    with shop.other.subscribe(lambda: 1 / 0, weak=False):
        shop.dispatcher.emit("other")


def in_the_text_of_an_error(ring: Any, _shop: Shop, _patch: pytest.MonkeyPatch) -> None:
    reason_of(type("Error", (Exception,), {"__str__": ring})())


def in_metadata(ring: Any, _shop: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PathDistribution, "read_text", ring)
    discover_plugins()


def in_a_module_of_a_plugin(ring: Any, _shop: Shop, _patch: pytest.MonkeyPatch) -> None:
    is_of("plugin", type("Proxy", (), {"__module__": property(ring)})())


def in_the_question_for_trio(ring: Any, _shop: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "trio", SimpleNamespace())  # type: ignore[call-overload]
    patch.setitem(sys.modules, "trio.lowlevel", SimpleNamespace(current_task=str))  # type: ignore[call-overload]
    patch.setattr(asyncio, "current_task", ring)
    other_library()


def in_the_question_for_a_task_of_trio(ring: Any, _shop: Shop, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "trio", SimpleNamespace())  # type: ignore[call-overload]
    patch.setitem(sys.modules, "trio.lowlevel", SimpleNamespace(current_task=ring))  # type: ignore[call-overload]
    other_library()


def in_the_question_for_a_task(ring: Any, shop: Shop, patch: pytest.MonkeyPatch) -> None:
    branch = keeping_frames.Branch(shop.dispatcher.emit("other"), 0)
    branch.task = ring
    patch.setattr(asyncio, "current_task", ring)
    branch.is_anothers()


@pytest.mark.parametrize(
    "way",
    [
        in_the_question_for_trio,
        in_the_question_for_a_task_of_trio,
        in_the_question_for_a_task,
        in_a_name,
        in_a_text,
        in_a_definition,
        in_the_annotations_of_what_is_no_event,
        in_an_annotation,
        in_a_filter_of_the_log,
        in_a_traceback,
        in_the_text_of_an_error,
        in_metadata,
        in_a_module_of_a_plugin,
    ],
)
def test_what_makes_the_best_of_any_failure_lets_an_interrupt_through(
    monkeypatch: pytest.MonkeyPatch, ring: Any, way: Any
) -> None:
    shop = Shop()
    with pytest.raises(TimeLimit):
        way(ring, shop, monkeypatch)
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_an_emission_that_is_broken_off_as_it_is_entered_is_the_present_one_no_more(
    break_off: BreakOff,
) -> None:
    shop = Shop()
    left = break_off(looping, "_enter", Interrupt)
    with pytest.raises(Interrupt):
        shop.dispatcher.emit("nested", number=1)
    assert not left
    assert current_event() is None
    shop.assert_all_is_well()


def test_an_emission_in_a_scope_that_is_broken_off_as_it_is_entered_leaves_the_scope(
    dispatcher: EventDispatcher, signal: EventSignal[Any], break_off: BreakOff
) -> None:
    signal.subscribe(lambda sender, **context: None)
    dispatcher.emit(signal)  # the first one does not go the short way
    with event_scope(request_id="1"):
        left = break_off(shortening, "_enter", Interrupt)
        with pytest.raises(Interrupt):
            dispatcher.emit(signal)
        assert not left
        assert current_event() is None
        assert dispatcher.emit(signal).fields["request_id"] == "1"
    assert "request_id" not in dispatcher.emit(signal).fields


def test_an_interrupt_as_the_frames_of_a_failure_are_emptied_goes_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a traceback that leads back to a frame that has not ended."""
    shop = Shop()
    here = TracebackType(None, sys._getframe(), 0, 1)

    def fail() -> None:
        raise ValueError().with_traceback(here)

    monkeypatch.setattr(lingering, "is_interrupt", lambda _: True)
    with shop.other.subscribe(fail), pytest.raises(RuntimeError, match="executing frame"):
        shop.dispatcher.emit("other")
    monkeypatch.undo()
    shop.assert_all_is_well()


def test_an_interrupt_of_the_release_of_a_lock_reaches_who_called_under_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupted(locking.Lock):
        def release(self) -> None:
            super().release()
            raise RuntimeError("raised by a signal handler")

    monkeypatch.setattr(locking, "is_interrupt", lambda _: True)
    called: list[bool] = []
    with pytest.raises(RuntimeError, match="signal handler"):
        Interrupted().run_if_free(lambda: called.append(True))
    assert called == [True]
