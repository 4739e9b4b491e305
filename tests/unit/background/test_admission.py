"""Background work: the queue, its workers, draining and closing (A3, B1, B2).

One long file, for all of it stands on one stage: a worker that the test keeps busy.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import logging
import math
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    DispatcherClosedError,
    Emission,
    EventDispatcher,
    HandlerGroup,
    InvalidOptionError,
    QueueFullError,
    SignalRegistry,
    SubscriptionConflictError,
    WouldDeadlockError,
)
from support.inside import admitting, backlog_of, finding_own_failures, working
from support.waiting import LIMIT, elsewhere, eventually
from support.ways import plain_and_async

NAME = "thing_happened"


class Stage:
    """A signal, a handler that keeps workers busy, and dispatchers that are closed in the end."""

    def __init__(self, signals: SignalRegistry) -> None:
        self.signals = signals
        self.signal = signals.signal(NAME)
        self.busy = signals.signal("busy_thing")
        self.busy.subscribe(self.hold, background=True)
        self.started = threading.Semaphore(0)
        self.free = threading.Event()
        self.heard: list[Any] = []
        self.made: list[EventDispatcher] = []

    def hold(self) -> str:
        self.started.release()
        assert self.free.wait(LIMIT)
        return "held"

    def hear(self, **context: Any) -> None:
        self.heard.append(context.get("number"))

    def make(self, **options: Any) -> EventDispatcher:
        self.made.append(EventDispatcher(self.signals, **options))
        return self.made[-1]

    def occupy(self, dispatcher: EventDispatcher) -> Emission[Any]:
        """Keep a worker busy until the test lets it go on."""
        emission = dispatcher.emit(self.busy)
        assert self.started.acquire(timeout=LIMIT)
        return emission

    def full(self, overflow: str) -> EventDispatcher:
        """Make a dispatcher with one worker, which is busy, and one place, which is taken."""
        dispatcher = self.make(queue_size=1, max_workers=1, overflow=overflow)
        self.occupy(dispatcher)
        dispatcher.emit(self.busy)
        return dispatcher


@pytest.fixture
def stage(signals: SignalRegistry) -> Iterator[Stage]:
    stage = Stage(signals)
    yield stage
    stage.free.set()
    assert all(dispatcher.close(LIMIT) for dispatcher in stage.made)


def emit(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    return dispatcher.emit(NAME, **context)


def emit_in_a_loop(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    async def main() -> Emission[Any]:
        return dispatcher.emit(NAME, **context)

    return asyncio.run(main())


def emit_async(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    async def main() -> Emission[Any]:
        return await dispatcher.emit_async(NAME, **context)

    return asyncio.run(main())


each_way_of_emitting = pytest.mark.parametrize("emitting", [emit, emit_in_a_loop, emit_async])


def handler_of(work: Callable[[], Any], is_async: bool) -> Callable[[], Any]:
    async def handler() -> Any:
        return work()

    return handler if is_async else work


def told(caplog: pytest.LogCaptureFixture, level: int) -> int:
    return sum(record.levelno == level for record in caplog.records)


@plain_and_async
@pytest.mark.guarantee("B1")
def test_no_thread_starts_before_a_handler_needs_it(stage: Stage, is_async: bool) -> None:
    before = set(threading.enumerate())
    dispatcher = stage.make()
    handler = handler_of(lambda: None, is_async)
    stage.signal.subscribe(handler, background=True, when=lambda context: context["needed"])
    emit(dispatcher, needed=False)
    assert dispatcher.drain()
    assert set(threading.enumerate()) == before
    emit(dispatcher, needed=True)
    assert dispatcher.drain(LIMIT)
    # A second one if the first was not waiting for work yet.
    started = set(threading.enumerate()) - before
    assert started
    assert all(thread.daemon for thread in started)
    assert dispatcher.close(LIMIT)
    assert eventually(lambda: not any(thread.is_alive() for thread in started))


@pytest.mark.guarantee("B1")
def test_there_are_no_more_workers_than_max_workers(stage: Stage) -> None:
    before = set(threading.enumerate())
    dispatcher = stage.make(max_workers=3)
    emissions = [dispatcher.emit(stage.busy) for _ in range(10)]
    assert all(stage.started.acquire(timeout=LIMIT) for _ in range(3))
    assert not stage.started.acquire(timeout=0.05)
    assert len(set(threading.enumerate()) - before) == 3
    stage.free.set()
    assert dispatcher.drain(LIMIT)
    assert [emission.results[0].value for emission in emissions] == ["held"] * 10


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("emitting", [emit, emit_async])
def test_blocked_emitters_wait_for_a_place(stage: Stage, emitting: Any) -> None:
    dispatcher = stage.full("block")
    stage.signal.subscribe(stage.hear, background=True)
    emission = elsewhere(lambda: emitting(dispatcher, number=1))
    time.sleep(0.1)
    assert not emission.done()
    stage.free.set()
    assert emission.result(LIMIT).wait(LIMIT)
    assert stage.heard == [1]


@pytest.mark.guarantee("B1")
async def test_emit_async_waits_without_blocking_its_loop(stage: Stage) -> None:
    """One that is cancelled meanwhile leaves its place to others."""
    dispatcher = stage.full("block")
    stage.signal.subscribe(stage.hear, background=True)
    cancelled = asyncio.ensure_future(dispatcher.emit_async(NAME, number=1))
    waiting = asyncio.ensure_future(dispatcher.emit_async(NAME, number=2))
    for _ in range(20):
        await asyncio.sleep(0.002)
    assert not waiting.done()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    stage.free.set()
    await (await asyncio.wait_for(waiting, LIMIT)).wait_async()
    assert stage.heard == [2]


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize(
    ("overflow", "emitting"),
    [("raise", emit), ("raise", emit_in_a_loop), ("raise", emit_async), ("block", emit_in_a_loop)],
)
def test_a_full_queue_is_an_error_before_any_handler_ran(
    stage: Stage, overflow: str, emitting: Any
) -> None:
    dispatcher = stage.full(overflow)
    stage.signal.subscribe(lambda: stage.heard.append("inline"), priority=1)
    once = stage.signal.subscribe(stage.hear, once=True, background=True)
    with pytest.raises(QueueFullError) as caught:
        emitting(dispatcher)
    assert (caught.value.event, caught.value.queue_size) == (NAME, 1)
    assert (stage.heard, once.active, dispatcher.dropped) == ([], True, 0)
    stage.free.set()
    assert dispatcher.drain(LIMIT)
    assert emitting(dispatcher, number=1).wait(LIMIT)
    assert stage.heard == ["inline", 1]


@plain_and_async
@pytest.mark.guarantee("B1")
def test_work_that_makes_more_work_than_fits_is_told_at_once(stage: Stage, is_async: bool) -> None:
    """It would wait for itself: nobody else empties the queue."""
    dispatcher = stage.make(queue_size=1, max_workers=1)
    stage.signal.subscribe(lambda: None, background=True)
    work = handler_of(lambda: emit(dispatcher) and emit(dispatcher), is_async)
    stage.signals.signal("outer_thing").subscribe(work, background=True)
    emission = dispatcher.emit("outer_thing")
    assert emission.wait(LIMIT)
    assert [type(failure.exception) for failure in emission.failures] == [QueueFullError]


@each_way_of_emitting
@pytest.mark.guarantee("B1")
def test_dropped_calls_are_counted_and_told_once_per_burst(
    stage: Stage, caplog: pytest.LogCaptureFixture, emitting: Any
) -> None:
    dispatcher = stage.full("drop")
    sibling = dispatcher.with_options(on_error="raise")
    stage.signal.subscribe(lambda: "inline")
    stage.signal.subscribe(stage.hear, background=True)
    for burst in (1, 2):
        for _ in range(3):
            emission = emitting(dispatcher)
            assert (emission.pending, emission.failures) == (0, ())
            assert [result.value for result in emission.results] == ["inline"]
        assert dispatcher.dropped == sibling.dropped == 3 * burst
        assert told(caplog, logging.WARNING) == burst
        stage.free.set()
        assert dispatcher.drain(LIMIT)
        stage.free.clear()
        stage.started = threading.Semaphore(0)
        stage.occupy(dispatcher)
        dispatcher.emit(stage.busy)
    assert stage.heard == []


@each_way_of_emitting
@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
def test_an_emission_may_have_more_background_handlers_than_there_are_places(
    stage: Stage, overflow: str, emitting: Any
) -> None:
    dispatcher = stage.make(queue_size=2, max_workers=1, overflow=overflow)
    for number in range(5):
        stage.signal.subscribe(lambda number=number: stage.heard.append(number), background=True)
    emission = elsewhere(lambda: emitting(dispatcher))
    if overflow == "raise" or (overflow == "block" and emitting is emit_in_a_loop):
        with pytest.raises(QueueFullError):
            emission.result(LIMIT)
        assert stage.heard == []
    else:
        assert emission.result(LIMIT).wait(LIMIT)
        assert len(stage.heard) + dispatcher.dropped == 5
        assert overflow == "drop" or not dispatcher.dropped


@pytest.mark.guarantee("B2")
def test_drain_waits_for_all_work_and_for_what_it_emits(stage: Stage) -> None:
    dispatcher = stage.make()
    sibling = dispatcher.with_options(on_error="raise")

    def chain(number: int) -> None:
        stage.heard.append(number)
        stage.hold()
        if number < 5:
            emit(sibling, number=number + 1)

    stage.signal.subscribe(chain, background=True)
    assert dispatcher.drain(0)
    emit(dispatcher, number=1)
    assert not dispatcher.drain(0)
    assert not sibling.drain(0.01)
    assert not asyncio.run(sibling.drain_async(0.01))
    stage.free.set()
    assert asyncio.run(sibling.drain_async())
    assert stage.heard == [1, 2, 3, 4, 5]
    assert dispatcher.drain()


@plain_and_async
@pytest.mark.guarantee("B2")
def test_a_closed_dispatcher_finishes_its_work_and_takes_no_more(
    stage: Stage, is_async: bool
) -> None:
    with stage.make() as dispatcher:
        emission = stage.occupy(dispatcher)
        assert not dispatcher.close(0.01)
        stage.signal.subscribe(stage.hear, priority=1)
        assert emit(dispatcher, number="inline").ok
        later = stage.signal.subscribe(handler_of(lambda: 1, is_async), background=not is_async)
        for closed in (dispatcher, dispatcher.with_options(validate=True)):
            for emitting in (emit, emit_in_a_loop if is_async else emit_async):
                with pytest.raises(DispatcherClosedError, match=NAME) as caught:
                    emitting(closed)
                assert caught.value.event == NAME
        assert stage.heard == ["inline"]
        if not is_async:
            later.cancel()
        assert emit_async(dispatcher).ok
        stage.free.set()
    assert dispatcher.close()
    assert emission.results[0].value == "held"


@plain_and_async
@pytest.mark.guarantee("B1", "F1", "F3")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_is_logged_recorded_and_announced_once_and_work_goes_on(
    stage: Stage, caplog: pytest.LogCaptureFixture, error: type[BaseException], is_async: bool
) -> None:
    dispatcher = stage.make(on_error="raise", max_workers=1)

    def work(number: int) -> str:
        if number == 0:
            raise error
        return "after"

    async def async_work(number: int) -> str:
        return work(number)

    stage.signals.subscribe("handler_failed", lambda event_name: stage.heard.append(event_name))
    stage.signal.subscribe(async_work if is_async else work, background=True)
    failed, after = emit(dispatcher, number=0), emit(dispatcher, number=1)
    assert dispatcher.drain(LIMIT)
    assert [type(failure.exception) for failure in failed.failures] == [error]
    assert [result.value for result in after.results] == ["after"]
    assert (told(caplog, logging.ERROR), stage.heard) == (1, [NAME])


@pytest.mark.guarantee("F1", "F2")
@pytest.mark.parametrize("moment", range(6))
def test_a_failure_that_comes_while_the_emitter_looks_for_its_own_is_not_its_own(
    stage: Stage, moment: int
) -> None:
    """The moment is a line of what looks for them, before which the other thread goes on."""
    dispatcher = stage.make(on_error="raise")
    failing, lines = threading.Event(), itertools.count()

    def fail() -> None:
        assert failing.wait(LIMIT)
        raise LookupError

    def step(frame: Any, event: str, _: Any) -> Any:
        if frame.f_code is not finding_own_failures.__code__:
            return None
        if event == "line" and next(lines) == moment:
            failing.set()
            while not frame.f_locals["failures"].items:
                time.sleep(0.001)
        return step

    stage.signals.subscribe("handler_failed", lambda event_name: stage.heard.append(event_name))
    stage.signal.subscribe(fail, background=True)
    before = sys.gettrace()
    sys.settrace(step)
    try:
        dispatcher.emit(NAME)
    finally:
        sys.settrace(before)
        failing.set()
    assert dispatcher.drain(LIMIT)
    assert stage.heard == [NAME]


@pytest.mark.guarantee("B1", "H5")
def test_the_emitter_decides_who_will_be_called(stage: Stage) -> None:
    dispatcher = stage.make(max_workers=1)
    stage.occupy(dispatcher)
    asked: list[threading.Thread] = []

    def when(context: Any) -> bool:
        asked.append(threading.current_thread())
        return bool(context["number"] / (context["number"] - 9))

    stage.signal.subscribe(stage.hear, background=True, when=when, once=True, sender="me")
    numbers = [("you", 1), ("me", 0), ("me", 9), ("me", 2), ("me", 3)]
    emissions = [dispatcher.emit(NAME, sender, number=number) for sender, number in numbers]
    assert [emission.pending for emission in emissions] == [0, 0, 0, 1, 0]
    assert [emission.ok for emission in emissions] == [True, True, False, True, True]
    assert set(asked) == {threading.current_thread()}
    stage.free.set()
    assert dispatcher.drain(LIMIT)
    assert stage.heard == [2]


@pytest.mark.guarantee("B1", "L1")
def test_an_object_lives_until_its_queued_method_ran(stage: Stage) -> None:
    class Owner:
        def handle(self) -> None:
            stage.heard.append("owner")

    owner = Owner()
    gone = weakref.ref(owner)
    dispatcher = stage.make(max_workers=1)
    stage.occupy(dispatcher)
    stage.signal.subscribe(owner.handle, background=True)
    emit(dispatcher)
    del owner
    gc.collect()
    stage.free.set()
    assert dispatcher.drain(LIMIT)
    assert stage.heard == ["owner"]

    def is_gone() -> bool:
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            # There the worker frees what it made, when it runs again; a collection does so too.
            gc.collect()
        return gone() is None

    assert eventually(is_gone), "an idle worker must not keep its last handler"
    assert not stage.signal.subscriptions


@pytest.mark.guarantee("E2")
def test_other_threads_see_an_emission_fill_and_wait_for_it(stage: Stage) -> None:
    """Also before its inline handlers are through."""
    dispatcher = stage.make()
    waiting: list[Future[Any]] = []

    def inline(emission: Emission[Any]) -> str:
        waiting.append(elsewhere(emission.wait))
        waiting.append(elsewhere(lambda: asyncio.run(emission.wait_async())))
        time.sleep(0.05)
        assert emission.pending == 3
        return "inline"

    stage.signal.subscribe(handler_of(lambda: "async", is_async=True), background=True)
    stage.signal.subscribe(stage.hold, background=True)
    stage.signal.subscribe(inline)
    emission = emit(dispatcher)
    assert eventually(lambda: emission.pending == 1)
    assert [result.value for result in emission.results] == ["inline", "async"]
    assert not emission.wait(0.01)
    assert not any(future.done() for future in waiting)
    stage.free.set()
    assert [future.result(LIMIT) for future in waiting] == [True, True]
    assert [result.value for result in emission.results] == ["inline", "async", "held"]
    assert emission.wait(0)


@pytest.mark.guarantee("B2")
def test_a_dispatcher_that_is_forgotten_ends_its_threads_when_its_work_is_done(
    stage: Stage,
) -> None:
    before = set(threading.enumerate())
    dispatcher = EventDispatcher(stage.signals)
    stage.signal.subscribe(handler_of(lambda: None, is_async=True), background=True)
    emission = stage.occupy(dispatcher)
    emit(dispatcher).wait(LIMIT)
    del dispatcher
    gc.collect()
    stage.free.set()
    assert emission.wait(LIMIT)
    del emission
    gc.collect()
    assert eventually(lambda: set(threading.enumerate()) <= before)
    gc.collect()  # an event loop that was left open would warn


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "5", math.nan, None])
@pytest.mark.parametrize("option", ["queue_size", "max_workers", "overflow"])
def test_a_dispatcher_says_what_its_options_may_be(option: Any, value: Any) -> None:
    advice = "'block', 'raise' or 'drop'" if option == "overflow" else r"such as \d+"
    with pytest.raises(InvalidOptionError, match=f"{option} must be .*{advice}") as caught:
        EventDispatcher(**{option: value})
    assert caught.value.option == option


@pytest.mark.guarantee("A5", "B1")
@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"timeout": value}, "such as 2.5, or None")
        for value in (0, -1, math.nan, math.inf, True, "5")
    ]
    + [({"background": value}, "True or False") for value in (1, None, "yes")],
)
def test_a_subscription_says_what_its_options_may_be(
    stage: Stage, options: Any, advice: str
) -> None:
    for subscribe in (
        lambda: stage.signal.subscribe(handler_of(print, is_async=True), **options),
        lambda: stage.signals.subscribe("thing_*", handler_of(print, is_async=True), **options),
        lambda: HandlerGroup("group").on(NAME, **options),
    ):
        with pytest.raises(InvalidOptionError, match=advice) as caught:
            subscribe()
        assert [caught.value.option] == list(options)
    with pytest.raises(InvalidOptionError, match="make it async, or leave out timeout"):
        stage.signal.subscribe(stage.hear, timeout=1)
    assert [entry.event for entry in stage.signals.subscriptions] == [stage.busy.name]


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize("seconds", [-1, math.nan, True, "5"])
def test_a_time_to_wait_that_is_none_is_refused(stage: Stage, seconds: Any) -> None:
    dispatcher = stage.make()
    emission = stage.occupy(dispatcher)
    for wait in (
        dispatcher.drain,
        dispatcher.close,
        emission.wait,
        lambda timeout: asyncio.run(dispatcher.drain_async(timeout)),
    ):
        with pytest.raises(InvalidOptionError, match="timeout must be a number of seconds"):
            wait(seconds)
    assert dispatcher.emit(stage.busy).pending == 1, "it has not been closed either"


@pytest.mark.guarantee("B1", "H6", "N4")
def test_patterns_and_groups_have_background_handlers_too(stage: Stage) -> None:
    dispatcher = stage.make(max_workers=1)
    stage.occupy(dispatcher)
    group = HandlerGroup("group")
    group.on("thing_*", background=True, once=True)(stage.hear)
    for _ in range(2):
        group.register(stage.signals)
    stage.signals.signal("thing_declared_later")
    emissions = [dispatcher.emit(name, number=name) for name in ("thing_declared_later", NAME)]
    assert [emission.pending for emission in emissions] == [1, 0]
    stage.free.set()
    assert dispatcher.drain(LIMIT)
    assert stage.heard == ["thing_declared_later"]


@pytest.mark.guarantee("H6")
def test_the_same_handler_with_other_options_is_a_conflict(stage: Stage) -> None:
    handler = handler_of(print, is_async=True)
    options: list[Any] = [{}, {"background": True}, {"timeout": 1}, {"timeout": 1.5}]
    for mine in options:
        with stage.signal.subscribe(handler, **mine) as subscription:
            assert stage.signal.subscribe(handler, **mine) is subscription
            for others in options:
                if others != mine:
                    with pytest.raises(SubscriptionConflictError, match="with other options"):
                        stage.signal.subscribe(handler, **others)


WAITING = {
    "drain": lambda dispatcher: dispatcher.drain(),
    "drain for a second": lambda dispatcher: dispatcher.drain(1),
    "close": lambda dispatcher: dispatcher.close(),
    "drain of a sibling": lambda dispatcher: dispatcher.with_options(on_error="raise").drain(),
    "leaving with": lambda dispatcher: dispatcher.__exit__(None, None, None),
    "drain_async": lambda dispatcher: dispatcher.drain_async(),
}


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("place", ["worker", "background loop", "held task"])
@pytest.mark.parametrize("waiting", WAITING.values(), ids=WAITING)
def test_work_that_waits_for_all_work_is_told_that_it_would_wait_for_itself(
    stage: Stage, place: str, waiting: Any
) -> None:
    dispatcher = stage.make()

    def plain() -> None:
        if waiting is WAITING["drain_async"]:
            asyncio.run(waiting(dispatcher))
        waiting(dispatcher)

    async def coroutine() -> None:
        outcome = waiting(dispatcher)
        if waiting is WAITING["drain_async"]:
            await outcome

    async def main() -> Emission[Any]:
        emission = emit(dispatcher)
        await asyncio.wait_for(emission.wait_async(), LIMIT)
        return emission

    stage.signal.subscribe(
        plain if place == "worker" else coroutine, background=place != "held task"
    )
    emission = asyncio.run(main())
    assert [type(failure.exception) for failure in emission.failures] == [WouldDeadlockError]
    assert emit(dispatcher).wait(LIMIT), "it has not been closed"


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("waiting", list(WAITING.values())[:-1], ids=list(WAITING)[:-1])
def test_a_loop_that_is_kept_from_running_is_not_waited_for(stage: Stage, waiting: Any) -> None:
    """From inside, and from outside while it is stopped."""
    dispatcher = stage.make()

    async def handler() -> None:
        await asyncio.sleep(0.01)
        stage.heard.append("ran")

    stage.signal.subscribe(handler)

    async def main() -> Emission[Any]:
        emission = emit(dispatcher)
        with pytest.raises(WouldDeadlockError):
            waiting(dispatcher)
        return emission

    with asyncio.Runner() as runner:
        emission = runner.run(main())
        with pytest.raises(WouldDeadlockError):
            waiting(dispatcher)
        assert emission.pending == 1
        assert not dispatcher.drain(0)
        runner.run(emission.wait_async())
        assert runner.run(dispatcher.drain_async(LIMIT))
    assert stage.heard == ["ran"]


@pytest.mark.guarantee("B1")
async def test_a_flush_that_finds_too_few_places_does_not_keep_those(stage: Stage) -> None:
    dispatcher = stage.make(queue_size=2, max_workers=1)
    stage.signal.subscribe(stage.hear, background=True)
    stage.signal.subscribe(lambda: None, background=True)
    stage.occupy(dispatcher)
    dispatcher.emit(stage.busy)
    async with asyncio.timeout(LIMIT):
        async with dispatcher.deferred():
            emit(dispatcher, number=1)
            asyncio.get_running_loop().call_later(0.01, stage.free.set)
        assert await dispatcher.drain_async()
    assert stage.heard == [1]


@plain_and_async
@pytest.mark.parametrize("batch", [None, Batch(1, 1.0)], ids=["each", "batch"])
@pytest.mark.guarantee("B1")
def test_a_failed_handler_holds_no_place_that_its_announcement_needs(
    stage: Stage, is_async: bool, batch: Batch | None
) -> None:
    def fail(batch: list[Any] | None = None) -> None:
        raise ValueError

    async def fail_async(batch: list[Any] | None = None) -> None:
        raise ValueError

    dispatcher = stage.make(queue_size=1)
    stage.signals.subscribe("handler_failed", lambda: stage.hear(number=1), background=True)
    stage.signal.subscribe(fail_async if is_async else fail, background=True, batch=batch)
    emit(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert stage.heard == [1]


@pytest.mark.guarantee("B1")
def test_a_once_that_was_called_elsewhere_holds_no_place_while_a_predicate_runs(
    stage: Stage,
) -> None:
    def call_it_first(context: Any) -> bool:
        if context["number"] == 1:
            emit(dispatcher, number=2)
        return True

    def emit_another(context: Any) -> bool:
        return context["number"] == 2 or dispatcher.emit(another).wait(LIMIT)

    dispatcher = stage.make(queue_size=1)
    another = stage.signals.signal("another_thing")
    another.subscribe(lambda: None, background=True)
    stage.signal.subscribe(stage.hear, background=True, once=True, when=call_it_first)
    stage.signal.subscribe(lambda: None, background=True, when=emit_another)
    elsewhere(lambda: emit(dispatcher, number=1)).result(LIMIT)
    assert dispatcher.drain(LIMIT)
    assert stage.heard == [2]


@pytest.mark.guarantee("B2")
def test_closing_waits_for_what_another_thread_emits_before_no_more_is_admitted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drain(*arguments: Any) -> Any:
        is_done = real(*arguments)
        if not late:
            late.append(stage.occupy(dispatcher))
            threading.Timer(0.05, stage.free.set).start()
        return is_done

    late: list[Emission[Any]] = []
    real = admitting.drain
    monkeypatch.setattr(admitting, "drain", drain)
    dispatcher = stage.make()
    assert dispatcher.close(LIMIT)
    assert late[0].state == "done"


@pytest.mark.guarantee("B2")
async def test_leaving_a_dispatcher_waits_for_what_comes_before_no_more_is_admitted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def drain_async(*arguments: Any) -> Any:
        is_done = await real(*arguments)
        if not late:
            late.append(emit(dispatcher))
        return is_done

    late: list[Emission[Any]] = []
    real = admitting.drain_async
    monkeypatch.setattr(admitting, "drain_async", drain_async)
    dispatcher = stage.make()
    stage.signals.subscribe(NAME, functools.partial(asyncio.sleep, 0.05), background=True)
    async with dispatcher:
        pass
    assert late[0].state == "done"


@pytest.mark.guarantee("B1")
def test_work_that_comes_as_a_worker_takes_other_work_finds_a_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Queue(working.SimpleQueue):  # type: ignore[misc, name-defined]
        def get(self, *arguments: Any) -> Any:
            work = super().get(*arguments)
            if not second:  # by a thread of its own, or it would be this worker's
                second.append(elsewhere(lambda: emit(dispatcher, number=2)).result(LIMIT))
            return work

    def wait_for_the_second(number: int) -> None:
        stage.hear(number=number)
        if number == 1:
            assert eventually(lambda: 2 in stage.heard)

    second: list[Any] = []
    monkeypatch.setattr(working, "SimpleQueue", Queue)
    stage.signal.subscribe(wait_for_the_second, background=True)
    dispatcher = stage.make(max_workers=2)
    first = emit(dispatcher, number=1)
    assert dispatcher.drain(LIMIT)
    assert first.ok


@pytest.mark.guarantee("B1")
def test_no_thread_is_started_for_what_an_idle_worker_can_do(stage: Stage) -> None:
    dispatcher = stage.make(max_workers=2)
    stage.signal.subscribe(stage.hear, background=True)
    workers = backlog_of(dispatcher).workers
    workers.ensure_thread()
    for _ in range(5):
        assert eventually(lambda: workers.idle)
        assert emit(dispatcher).wait(LIMIT)
    assert len(workers.threads) == 1


@pytest.mark.guarantee("B1")
def test_a_burst_of_drops_is_over_when_exactly_half_of_the_queue_is_free(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def work() -> None:
        begun.release()
        assert go_on.acquire(timeout=LIMIT)

    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
    dispatcher = stage.make(queue_size=2, max_workers=1, overflow="drop")
    stage.signal.subscribe(work, background=True)
    emit(dispatcher)
    assert begun.acquire(timeout=LIMIT)
    for _ in range(3):
        emit(dispatcher)
    assert told(caplog, logging.WARNING) == 1
    go_on.release()
    assert begun.acquire(timeout=LIMIT)
    for _ in range(2):
        emit(dispatcher)
    assert told(caplog, logging.WARNING) == 2
    go_on.release(3)


def test_what_is_emitted_in_a_worker_without_a_context_does_not_wait_for_itself(
    stage: Stage,
) -> None:
    """As a finalizer may, that runs between two steps of the worker."""
    dispatcher = stage.make(queue_size=1, max_workers=1)
    stage.signal.subscribe(lambda: None, background=True)

    def emit_twice() -> None:
        for _ in range(2):
            contextvars.Context().run(emit, dispatcher)

    stage.signals.signal("outer_thing").subscribe(emit_twice, background=True)
    emission = dispatcher.emit("outer_thing")
    assert emission.wait(LIMIT)
    (failure,) = emission.failures
    assert "a handler that has a place itself cannot wait" in str(failure.exception)
