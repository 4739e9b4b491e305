"""What becomes of single calls of background handlers, at their edges."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    InvalidOptionError,
    SignalRegistry,
    WouldDeadlockError,
)
from support.inside import WorkerThreads, backlog_of, settling
from support.waiting import elsewhere, eventually


async def suspends() -> None:
    await asyncio.sleep(60)


def fail() -> None:
    raise ValueError("on purpose")


async def fail_async() -> None:
    raise ValueError("on purpose")


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("handler", [fail, fail_async])
def test_an_exit_of_whom_a_failure_is_announced_to_ends_no_worker(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    handler: Any,
) -> None:
    def exits() -> None:
        raise SystemExit

    signals.subscribe("handler_failed", exits)
    signal.subscribe(handler, background=True)
    for _ in range(2):
        dispatcher.emit(signal)
        assert dispatcher.drain(10)
    told = (
        "the announcement of a failure of thing_happened was cut off by SystemExit: "
        "some handlers of handler_failed may not have been called"
    )
    assert caplog.messages.count(told) == 2


@pytest.mark.guarantee("A2")
async def test_a_held_task_that_is_cancelled_before_it_begins_has_failed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(suspends)
    emission = dispatcher.emit(signal)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await emission.wait_async()
    (failure,) = emission.failures
    assert isinstance(failure.exception, HandlerCancelledError | asyncio.CancelledError)
    assert await dispatcher.drain_async(10)
    assert await dispatcher.drain_async(0)


@pytest.mark.guarantee("A2")
async def test_a_task_that_is_broken_off_has_failed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(suspends)
    emission = dispatcher.emit(signal)
    (job,) = backlog_of(dispatcher).jobs.values()
    await asyncio.sleep(0)
    broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    broken.set_exception(OSError("broken"))
    job._task_is_done(broken)  # type: ignore[arg-type]  # as asyncio calls it
    (failure,) = emission.failures
    assert isinstance(failure.exception.__cause__, OSError)
    job.lose("again")
    job.end()
    assert len(emission.failures) == 1
    job.task.cancel()
    await asyncio.sleep(0)
    assert dispatcher.drain(0)


@pytest.mark.guarantee("B1")
def test_once_is_claimed_by_who_found_a_place(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Two emissions match; the first to have a place takes the call."""
    calls: list[str] = []

    def when(context: Any) -> bool:
        if context["name"] == "outer":
            dispatcher.emit(signal, name="inner")
        return True

    def handler(name: str) -> None:
        calls.append(name)

    dispatcher.signals.subscribe(signal, handler, background=True, once=True, when=when)
    emission = dispatcher.emit(signal, name="outer")
    assert dispatcher.drain(10)
    assert calls == ["inner"]
    assert emission.results == ()
    assert len(backlog_of(dispatcher).permits.free) == 1000


@pytest.mark.guarantee("B1")
def test_a_predicate_that_emits_holds_no_place(signals: SignalRegistry) -> None:
    dispatcher = EventDispatcher(signals, queue_size=1)
    signals.signal("other_thing").subscribe(lambda: None, background=True)
    signals.signal("thing_happened").subscribe(
        lambda: None, background=True, when=lambda _: dispatcher.emit("other_thing").wait(10)
    )
    dispatcher.emit("thing_happened")
    assert dispatcher.drain(10)


@pytest.mark.guarantee("G1")
def test_a_background_handler_that_is_skipped_is_logged_as_skipped(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    signal.subscribe(lambda: None, background=True, when=lambda _: False)
    with caplog.at_level(logging.DEBUG, "madcrow_events"):
        dispatcher.emit(signal)
    assert "skipped" in caplog.messages[-1]


@pytest.mark.guarantee("F3")
def test_what_goes_through_a_predicate_of_a_background_handler_leaves_nothing_behind(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def when(_: Any) -> bool:
        raise errors.pop()

    errors: list[BaseException] = [asyncio.CancelledError(), KeyboardInterrupt()]
    signal.subscribe(lambda: None, background=True, when=when)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal)
    (failure,) = dispatcher.emit(signal).failures
    assert isinstance(failure.exception, asyncio.CancelledError)
    assert len(backlog_of(dispatcher).permits.free) == 1000


@pytest.mark.guarantee("F5")
def test_an_emission_that_is_refused_gives_its_places_back(signals: SignalRegistry) -> None:
    dispatcher = EventDispatcher(signals, overflow="raise", queue_size=100)
    signal = signals.signal("thing_happened")
    signal.subscribe(lambda: dispatcher.emit(signal))
    signal.subscribe(lambda: None, background=True)
    assert not dispatcher.emit(signal).ok
    assert dispatcher.drain(10)
    assert len(backlog_of(dispatcher).permits.free) == 100


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("emitting", ["emit", "emit_async"])
def test_an_announcement_that_finds_no_place_is_not_the_emitters_matter(
    signals: SignalRegistry, caplog: pytest.LogCaptureFixture, emitting: str
) -> None:
    began, never = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        never.wait()

    dispatcher = EventDispatcher(signals, overflow="raise", queue_size=1, max_workers=1)
    signals.signal("slow").subscribe(slow, background=True)
    signals.signal("thing_happened").subscribe(fail)
    signals.subscribe("handler_failed", lambda: None, background=True)
    running = dispatcher.emit("slow")
    assert began.wait(10)
    dispatcher.emit("slow")
    if emitting == "emit":
        emission: Emission[Any] = dispatcher.emit("thing_happened")
    else:
        emission = asyncio.run(dispatcher.emit_async("thing_happened"))
    assert len(emission.failures) == 1
    assert "a failure of thing_happened is not announced" in caplog.messages[-1]
    never.set()
    assert running.wait(10)


@pytest.mark.guarantee("A3")
def test_a_place_that_a_stopped_loop_holds_is_not_waited_for(signals: SignalRegistry) -> None:
    async def main() -> None:
        dispatcher.emit("held")

    dispatcher = EventDispatcher(signals, queue_size=1)
    signals.signal("held").subscribe(suspends)
    signals.signal("thing_happened").subscribe(lambda: None, background=True)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    with pytest.raises(WouldDeadlockError, match="the queue is full of handlers in an event loop"):
        dispatcher.emit("thing_happened")
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert dispatcher.emit("thing_happened").wait(10)


@pytest.mark.guarantee("B1")
async def test_a_cancelled_wait_for_a_place_begins_no_handler(signals: SignalRegistry) -> None:
    began, never = threading.Event(), threading.Event()
    calls: list[str] = []

    def slow() -> None:
        began.set()
        never.wait()

    async def awaited() -> None:
        calls.append("awaited")

    dispatcher = EventDispatcher(signals, queue_size=1, max_workers=1)
    signals.signal("slow").subscribe(slow, background=True)
    first = dispatcher.emit("slow")
    await asyncio.to_thread(began.wait, 10)
    second = dispatcher.emit("slow")
    signals.signal("thing_happened").subscribe(awaited)
    signals.subscribe("thing_happened", lambda: calls.append("background"), background=True)
    emitting = asyncio.create_task(dispatcher.emit_async("thing_happened"))
    await asyncio.sleep(0.01)
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting
    never.set()
    await first.wait_async()
    await second.wait_async()
    assert await dispatcher.drain_async(10)
    assert calls == []


@pytest.mark.guarantee("A1")
async def test_a_typed_emission_awaits_and_queues(signals: SignalRegistry) -> None:
    from madcrow_events import BaseEventContext

    signal = signals.signal("thing_happened", context=BaseEventContext)
    dispatcher = EventDispatcher(signals)
    signal.subscribe(lambda: "queued", background=True)
    emission = await dispatcher.emit_typed_async(signal, BaseEventContext())
    await emission.wait_async()
    assert [result.value for result in emission.results] == ["queued"]
    assert await dispatcher.drain_async(10)
    with pytest.raises(ValueError, match="one event is named at a time, not by a list"):
        await dispatcher.emit_async([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one event is named at a time, not by a list"):
        await dispatcher.emit_typed_async([], BaseEventContext())  # type: ignore[call-overload]


@pytest.mark.guarantee("E2")
@pytest.mark.parametrize("sending", [False, True])
def test_another_thread_may_wait_for_inline_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher, sending: bool
) -> None:
    def handler(emission: Emission[Any]) -> None:
        def wait() -> None:
            ended.append(emission.wait(0.01))
            ended.append(asyncio.run(done(emission)))
            ended.append(emission.wait(10))

        thread = threading.Thread(target=wait)
        threads.append(thread)
        thread.start()
        assert is_waited_for.wait(10)

    async def done(emission: Emission[Any]) -> bool:
        waiting = asyncio.ensure_future(emission.wait_async())
        await asyncio.sleep(0.01)
        is_waited_for.set()
        await waiting
        return True

    is_waited_for = threading.Event()
    ended: list[bool] = []
    threads: list[threading.Thread] = []
    signal.subscribe(handler)
    if sending:
        signal.send()
    else:
        dispatcher.emit(signal)
    threads[0].join(10)
    assert ended == [False, True, True]


@pytest.mark.guarantee("B2")
async def test_a_block_that_fails_is_not_hidden_by_a_close_that_cannot_be(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(suspends)
    with pytest.raises(KeyError), dispatcher:
        dispatcher.emit(signal)
        raise KeyError
    with pytest.raises(WouldDeadlockError), dispatcher:
        pass
    with pytest.raises(KeyError), EventDispatcher(SignalRegistry()):
        raise KeyError


@pytest.mark.guarantee("B2")
def test_closing_ends_what_handlers_left_in_the_background_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    left: list[Any] = []

    async def leaves() -> None:
        left.append(asyncio.ensure_future(asyncio.sleep(60)))

    signal.subscribe(leaves, background=True)
    dispatcher.emit(signal)
    assert dispatcher.close()
    assert dispatcher.close()
    assert left[0].cancelled()


def test_siblings_refuse_options_as_the_class_does(dispatcher: EventDispatcher) -> None:
    with pytest.raises(InvalidOptionError, match="on_error must be 'log' or 'raise'"):
        dispatcher.with_options(on_error="ignore")  # type: ignore[arg-type]


@pytest.mark.guarantee("F5")
async def test_a_task_left_behind_is_not_the_next_handler(signals: SignalRegistry) -> None:
    """Handlers that finish at once may share a branch; what they leave behind does not."""
    refused: list[BaseException] = []
    dispatcher = EventDispatcher(signals)
    signal = signals.signal("thing_happened")
    signals.signal("loop").subscribe(lambda: dispatcher.emit("loop"))
    signals.signal("harmless").subscribe(lambda: "heard")

    async def runaway() -> None:
        for _ in range(2):
            try:
                dispatcher.emit("loop")
            except RecursionError as error:
                refused.append(error)

    async def in_a_thread() -> Any:
        return await asyncio.to_thread(dispatcher.emit, "harmless")

    async def leaves() -> None:
        tasks.append(asyncio.ensure_future(runaway()))

    async def innocent() -> Any:
        await asyncio.sleep(0.01)
        await in_a_thread()
        return (await dispatcher.emit_async("harmless")).results[0].value

    tasks: list[Any] = []
    signal.subscribe(leaves)
    signal.subscribe(innocent)
    emission = await dispatcher.emit_async(signal)
    assert [result.value for result in emission.results] == [None, "heard"]
    assert len(refused) <= 2


def test_no_thread_is_started_beyond_max_workers() -> None:
    workers = WorkerThreads(max_workers=1)
    workers.startable.clear()  # by another emitter, at the same moment
    workers._start_thread()
    assert workers.threads == []


@pytest.mark.guarantee("A3")
async def test_a_task_left_behind_may_wait_for_the_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def leaves(emission: Emission[Any]) -> None:
        tasks.append(asyncio.ensure_future(emission.wait_async()))

    async def suspends_shortly() -> None:
        await asyncio.sleep(0.01)

    tasks: list[Any] = []
    dispatcher.signals.subscribe(signal, leaves)
    signal.subscribe(suspends_shortly)
    assert (await dispatcher.emit_async(signal)).ok
    await asyncio.wait_for(tasks[0], 10)


@pytest.mark.guarantee("E2")
async def test_a_thread_that_waits_is_told_when_nothing_had_to_be_awaited(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def starts_to_wait(emission: Emission[Any]) -> None:
        thread = threading.Thread(target=lambda: ended.append(emission.wait(10)))
        threads.append(thread)
        thread.start()
        while emission._values._waiters is None:
            pass

    async def at_once() -> None: ...

    ended: list[bool] = []
    threads: list[threading.Thread] = []
    dispatcher.signals.subscribe(signal, starts_to_wait)
    signal.subscribe(at_once)
    await dispatcher.emit_async(signal)
    threads[0].join(10)
    assert ended == [True]


@pytest.mark.guarantee("E2")
@pytest.mark.parametrize("way", ["nobody is called", "the emitter is cancelled"])
async def test_a_thread_that_waits_is_told_at_once_when_handlers_are_given_up(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    def starts_to_wait(emission: Emission[Any]) -> None:
        waiting.append(elsewhere(lambda: emission.wait(60)))
        assert eventually(lambda: settling.outcomes_of(emission)._waiters)

    monkeypatch.setattr(settling, "LOOK_EVERY", 60)
    waiting: list[Any] = []
    dispatcher.signals.subscribe(signal, starts_to_wait)
    if way == "nobody is called":
        signal.subscribe(lambda: None, background=True, when=lambda _: False)
        dispatcher.emit(signal)
    else:
        signal.subscribe(suspends)
        emitting = asyncio.create_task(dispatcher.emit_async(signal))
        await asyncio.sleep(0.01)
        emitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await emitting
    assert await asyncio.wait_for(asyncio.wrap_future(waiting[0]), 10)


@pytest.mark.guarantee("F3")
async def test_of_two_exits_the_first_goes_through(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def exits() -> None:
        await asyncio.sleep(0)
        raise SystemExit

    async def interrupts() -> None:
        try:
            await suspends()
        finally:
            raise KeyboardInterrupt

    signal.subscribe(interrupts)
    signal.subscribe(exits)
    with pytest.raises(SystemExit):
        await dispatcher.emit_async(signal)


def not_eager(loop: Any, coroutine: Any, **options: Any) -> Any:
    return asyncio.Task(coroutine, loop=loop, **options)


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("emitter_too", [False, True])
async def test_handlers_that_are_cancelled_before_they_begin_leave_nothing_behind(
    signal: EventSignal[Any], dispatcher: EventDispatcher, emitter_too: bool
) -> None:
    def cancel() -> None:
        for task in asyncio.all_tasks() - {here}:
            if emitter_too or task is not emitting:
                task.cancel()

    signal.subscribe(lambda: loop.call_soon(cancel) and None)
    signal.subscribe(suspends)
    here, loop = asyncio.current_task(), asyncio.get_running_loop()
    loop.set_task_factory(not_eager)
    emitting = asyncio.create_task(dispatcher.emit_async(signal))
    if emitter_too:
        with pytest.raises(asyncio.CancelledError):
            await emitting
    else:
        (failure,) = (await emitting).failures
        assert isinstance(failure.exception, asyncio.CancelledError)
    assert asyncio.all_tasks() == {here}


def test_an_emission_whose_loop_is_closed_is_given_up(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def main() -> None:
        emitting.append(dispatcher.emit_async(signal))
        tasks.append(asyncio.ensure_future(emitting[0]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    emitting: list[Any] = []
    tasks: list[Any] = []
    signal.subscribe(suspends)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    left = asyncio.all_tasks(loop)
    loop.close()
    emitting[0].close()
    for task in left | set(tasks):
        task._log_destroy_pending = False
        task.get_coro().close()


@pytest.mark.guarantee("F1")
def test_a_failure_whose_announcement_ends_with_its_loop_is_recorded_once(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def main() -> None:
        emissions.append(dispatcher.emit(signal))
        await asyncio.sleep(0.01)

    emissions: list[Emission[Any]] = []
    signals.subscribe("handler_failed", suspends)
    signal.subscribe(fail_async)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    left = asyncio.all_tasks(loop)
    loop.close()
    assert dispatcher.drain(10)
    assert [type(failure.exception) for failure in emissions[0].failures] == [ValueError]
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        task.get_coro().close()  # type: ignore[union-attr]


@pytest.mark.guarantee("F3")
def test_what_has_begun_goes_on_though_the_emitter_is_interrupted(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def begin(emission: Emission[Any]) -> None:
        begun.append(emission)
        assert free.wait(10)

    def interrupt(_: Any) -> bool:
        raise KeyboardInterrupt

    begun: list[Emission[Any]] = []
    free = threading.Event()
    signals.subscribe(signal, begin, background=True)
    signal.subscribe(lambda: None, background=True, when=interrupt)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal)
    assert eventually(lambda: begun)
    assert begun[0].state == "running"
    free.set()
    assert begun[0].wait(10)
    assert begun[0].state == "done"
    assert dispatcher.drain(10)
