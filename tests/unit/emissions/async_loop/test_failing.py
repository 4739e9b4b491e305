"""Failures and exits of async handlers (F1-F3)."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerErrors,
    HandlerFailedEventContext,
    HandlerTimeoutError,
    SignalRegistry,
    current_event,
)
from support.async_handlers import Emits, awaited, fail, fail_later, plainly, run, until
from support.outcomes import errors, logged, values


@pytest.mark.guarantee("F1")
def test_every_failure_is_recorded_logged_and_announced_once(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    emits: Emits,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announced: list[Any] = []

    async def inform(context: HandlerFailedEventContext) -> None:
        await asyncio.sleep(0)
        announced.append((context.event_name, context.handler_name, context.exception_type))

    signals.subscribe("handler_failed", inform)
    signal.subscribe(fail)
    signal.subscribe(fail_later)
    signal.subscribe(plainly)
    emission = emits(signal)
    assert sorted(announced) == [
        ("thing_happened", "support.async_handlers.fail", "ValueError"),
        ("thing_happened", "support.async_handlers.fail_later", "ValueError"),
    ]
    assert {failure.handler for failure in emission.failures} == {fail, fail_later}
    assert values(emission) == ["function"]
    assert sorted(logged(caplog)) == [
        "handler support.async_handlers.fail of thing_happened failed: ValueError",
        "handler support.async_handlers.fail_later of thing_happened failed: ValueError",
    ]


@pytest.mark.guarantee("F1")
async def test_who_awaits_an_emission_awaits_what_its_failures_cause(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    announced: list[str] = []

    async def inform(exception_type: str) -> None:
        await asyncio.sleep(0)
        announced.append(exception_type)

    signals.subscribe("handler_failed", inform)
    signal.subscribe(lambda: 1 / 0)
    signal.subscribe(fail_later)
    await dispatcher.emit_async(signal)
    assert announced == ["ZeroDivisionError", "ValueError"]


@pytest.mark.guarantee("F1")
async def test_a_held_task_that_fails_is_announced_when_it_has(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    announced: list[str] = []
    go = asyncio.Event()

    async def inform(exception_type: str) -> None:
        announced.append(exception_type)

    async def slow() -> None:
        await go.wait()

    signals.subscribe("handler_failed", inform)
    signal.subscribe(slow)
    signal.subscribe(fail)
    emission = dispatcher.emit(signal)
    await until(lambda: announced)
    assert emission.pending == 1
    go.set()
    await awaited(emission)
    assert announced == ["ValueError"]


@pytest.mark.guarantee("F1")
def test_a_failure_in_an_async_handler_of_handler_failed_is_not_announced(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    emits: Emits,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    async def failing(event_name: str) -> None:
        calls.append(event_name)
        raise KeyError

    signals.subscribe("handler_failed", failing)
    signal.subscribe(fail)
    emission = emits(signal)
    assert calls == ["thing_happened"]
    assert len(logged(caplog)) == 2
    assert errors(emission) == [ValueError]


@pytest.mark.guarantee("F2")
async def test_an_awaiting_emitter_gets_inline_and_async_failures(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    raising = dispatcher.with_options(on_error="raise")
    ran: list[str] = []

    async def last() -> None:
        await asyncio.sleep(0)
        ran.append("last")

    signal.subscribe(fail_later, priority=1)
    signal.subscribe(last)
    with pytest.raises(ValueError, match="on purpose"):
        await raising.emit_async(signal)
    assert ran == ["last"]
    signal.subscribe(lambda: 1 / 0)
    with pytest.raises(HandlerErrors) as caught:
        await raising.emit_async(signal)
    assert {type(error) for error in caught.value.exceptions} == {ZeroDivisionError, ValueError}


@pytest.mark.guarantee("F2")
def test_an_emitter_that_does_not_wait_gets_the_inline_failures_only(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    raising = dispatcher.with_options(on_error="raise")

    async def main() -> None:
        signal.subscribe(fail)
        emission = raising.emit(signal)
        await awaited(emission)
        assert errors(emission) == [ValueError]
        with signal.subscribe(lambda: 1 / 0), pytest.raises(ZeroDivisionError):
            raising.emit(signal)
        assert await dispatcher.drain_async(timeout=10)

    run(main())
    emission = raising.emit(signal)
    assert emission.wait(timeout=10)
    assert errors(emission) == [ValueError]
    with pytest.raises(ValueError, match="on purpose"):
        emission.raise_for_failures()


@pytest.mark.guarantee("F1")
async def test_exceptions_that_python_itself_catches_are_failures_like_others(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def stop() -> None:
        raise StopIteration("inline")

    async def stop_async() -> None:
        raise StopAsyncIteration

    async def stop_iteration() -> None:
        raise StopIteration

    signal.subscribe(stop)
    signal.subscribe(stop_async)
    signal.subscribe(stop_iteration)
    emission = await dispatcher.emit_async(signal)
    assert errors(emission) == [StopIteration, StopAsyncIteration, RuntimeError]


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("suspends", [False, True])
def test_an_exit_of_an_async_handler_cancels_and_joins_the_others_and_reaches_the_emitter(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
    suspends: bool,
) -> None:
    left: list[str] = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001)
            left.append("joined")

    async def exiting() -> None:
        if suspends:
            await asyncio.sleep(0)
        raise error

    async def main() -> None:
        signal.subscribe(waiting)
        subscription = signal.subscribe(exiting)
        signal.subscribe(functools.partial(waiting))
        started = time.monotonic()
        with pytest.raises(error):
            await dispatcher.emit_async(signal)
        assert time.monotonic() - started < 30
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert left.count("joined") >= 1
        assert logged(caplog) == []
        assert current_event() is None
        subscription.cancel()
        signal.unsubscribe(waiting)
        for present in signal.subscriptions:
            present.cancel()
        signal.subscribe(plainly)
        assert values(await dispatcher.emit_async(signal)) == ["function"]

    run(main())


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("first", ["exit", "cancellation"])
def test_an_exit_is_not_lost_when_the_emitter_is_cancelled_as_well(
    signal: EventSignal[Any], dispatcher: EventDispatcher, first: str
) -> None:
    async def exiting() -> None:
        try:
            await asyncio.sleep(0 if first == "exit" else 60)
        finally:
            raise SystemExit(3)

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            if first == "exit":
                emitters[0].cancel()
            await asyncio.sleep(0.001)

    async def emit() -> str:
        try:
            await dispatcher.emit_async(signal)
        except BaseException as error:
            return type(error).__name__
        return "nothing"

    async def main() -> str:
        emitters.append(asyncio.get_running_loop().create_task(emit()))
        await asyncio.sleep(0.001)
        if first == "cancellation":
            emitters[0].cancel()
        return await emitters[0]

    emitters: list[asyncio.Task[str]] = []
    signal.subscribe(waiting)
    signal.subscribe(exiting)
    assert run(main()) == "SystemExit"


@pytest.mark.guarantee("F3")
async def test_a_handler_whose_task_somebody_else_cancels_is_a_failed_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[Any] = []

    async def victim() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(60)

    async def cancelling() -> str:
        await until(lambda: tasks)
        tasks[0].cancel()
        await asyncio.sleep(0)
        return "cancelled it"

    signal.subscribe(victim)
    signal.subscribe(cancelling)
    for emit in (dispatcher.emit_async, _emit_and_wait(dispatcher)):
        tasks.clear()
        caplog.clear()
        emission = await emit(signal)
        assert errors(emission) == [asyncio.CancelledError]
        assert values(emission) == ["cancelled it"]
        assert len(logged(caplog)) == 1
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@pytest.mark.guarantee("F3")
async def test_a_cancelled_handler_has_failed_though_its_emitter_survived_a_cancellation_before(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def victim() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    async def stubborn() -> Emission[Any]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return await dispatcher.emit_async(signal)
        raise AssertionError

    signal.subscribe(victim)
    emitter = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    emitter.cancel()
    assert errors(await emitter) == [asyncio.CancelledError]


def _emit_and_wait(dispatcher: EventDispatcher) -> Callable[..., Any]:
    async def emit(*arguments: Any, **context: Any) -> Emission[Any]:
        return await awaited(dispatcher.emit(*arguments, **context))

    return emit


@pytest.mark.guarantee("A2")
def test_a_held_task_that_the_end_of_the_loop_cancels_is_a_failed_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def waiting() -> None:
        await asyncio.sleep(60)

    async def main() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        await asyncio.sleep(0)
        return emission

    signal.subscribe(waiting)
    emission = run(main())
    assert emission.pending == 0
    assert len(emission.failures) == 1
    assert not isinstance(emission.failures[0].exception, HandlerTimeoutError)
    assert len(logged(caplog)) == 1
    assert emission.wait(timeout=5)


@pytest.mark.guarantee("A2")
def test_a_held_task_that_never_began_is_a_failed_handler_too(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> Emission[Any]:
        return dispatcher.emit(signal)

    signal.subscribe(plainly)
    emission = run(main())
    if emission.failures:
        assert len(logged(caplog)) == 1
    else:
        assert values(emission) == ["function"]
    assert emission.pending == 0
    assert dispatcher.drain(timeout=5)


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("ends_by", ["a chain without end", "an exit"])
async def test_a_task_that_a_handler_of_a_broken_chain_left_behind_emits_on_its_own(
    signals: SignalRegistry, dispatcher: EventDispatcher, ends_by: str
) -> None:
    """Also if the handler has ended at once, without being suspended."""
    tasks: list[asyncio.Task[Emission[Any]]] = []
    is_over = asyncio.Event()
    signals.signal("other")
    signal = signals.signal("thing_happened")

    async def emit_later() -> Emission[Any]:
        await is_over.wait()
        return await dispatcher.emit_async("other")

    async def handler() -> None:
        if not tasks:
            tasks.append(asyncio.create_task(emit_later()))
        if ends_by == "an exit":
            raise SystemExit
        await dispatcher.emit_async(signal)

    signal.subscribe(handler)
    try:
        await dispatcher.emit_async(signal)
    except SystemExit:
        assert ends_by == "an exit"
    is_over.set()
    (task,) = tasks
    assert (await task).depth == 0


@pytest.mark.guarantee("C4")
async def test_handlers_that_an_incomplete_context_ends_have_not_failed(
    signals: SignalRegistry, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """They are cancelled, because the emitter is told of its context instead."""
    cancelled: list[str] = []

    class Thing(BaseEventContext):
        number: int

    signal = signals.signal("thing_happened", context=Thing)

    async def by_context(context: Thing) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append("by_context")
            raise

    async def by_keywords(sender: Any, **context: Any) -> None: ...

    signal.subscribe(by_context)
    signal.subscribe(by_keywords)
    with pytest.raises(ContextValidationError, match="number"):
        await dispatcher.emit_typed_async(signal, Thing.model_construct())
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    # Before 3.12 no task begins at once, so that it is cancelled before it begins.
    assert cancelled == ["by_context"] * (sys.version_info >= (3, 12))
    assert logged(caplog) == []
