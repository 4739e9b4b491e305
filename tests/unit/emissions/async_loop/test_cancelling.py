"""Async handlers whose emitter is cancelled, or whose time is up (A1, A5)."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import warnings
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    EventSignal,
    HandlerTimeoutError,
    InvalidOptionError,
    SignalRegistry,
)
from support.async_handlers import Emits, plainly, run, until
from support.outcomes import errors, logged, values

# Cancelling the emitter


@pytest.mark.guarantee("A1")
async def test_cancelling_an_emission_cancels_its_handlers_and_waits_for_them(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[str] = []
    entered = asyncio.Event()

    async def cleaning_up() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            left.append("cleaned up")
            raise

    async def swallowing() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.002)
            left.append("swallowed")
        return "value"

    async def last() -> None:
        entered.set()
        await asyncio.sleep(60)

    for handler in (cleaning_up, swallowing, last):
        signal.subscribe(handler)
    task = asyncio.get_running_loop().create_task(dispatcher.emit_async(signal))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == ["cleaned up", "swallowed"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert logged(caplog) == []


@pytest.mark.guarantee("A1")
async def test_a_failure_during_the_clean_up_is_logged(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    signal.subscribe(failing)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await dispatcher.emit_async(signal)
    (line,) = logged(caplog)
    assert line.endswith("failed: ValueError")


@pytest.mark.guarantee("A1")
async def test_an_emission_obeys_a_timeout_around_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    signal.subscribe(slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await dispatcher.emit_async(signal)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(dispatcher.emit_async(signal), 0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    signal.unsubscribe(slow)
    async with asyncio.timeout(10):
        assert (await dispatcher.emit_async(signal)).ok


@pytest.mark.guarantee("A1")
async def test_an_emission_obeys_the_task_group_it_is_in(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    left: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("left")

    async def breaking() -> None:
        await asyncio.sleep(0.005)
        raise ZeroDivisionError

    signal.subscribe(slow)
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.emit_async(signal))
            group.create_task(breaking())
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert left == ["left"]


@pytest.mark.guarantee("F3")
async def test_a_handler_that_cancels_the_emitter_is_heard(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    await emitter

    async def cancelling() -> None:
        emitter.cancel()
        await asyncio.sleep(60)

    async def emit() -> None:
        await dispatcher.emit_async(signal)

    signal.subscribe(cancelling)
    emitter = asyncio.get_running_loop().create_task(emit())
    with pytest.raises(asyncio.CancelledError):
        await emitter
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert logged(caplog) == []


async def test_an_emission_that_is_closed_leaves_nothing_behind(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """As it happens to whatever awaits something when a loop is torn down."""
    left: list[str] = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("left")

    signal.subscribe(waiting)
    coroutine = dispatcher.emit_async(signal)
    contextvars.copy_context().run(coroutine.send, None)
    await asyncio.sleep(0)
    coroutine.close()
    await until(lambda: left)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert left == ["left"]


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_end_of_the_loop_ends_an_emission_without_complaint(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    turns: int,
) -> None:
    """After one turn no handler has begun yet, where they do not start eagerly."""
    outcomes: list[str] = []

    async def handler() -> None:
        await asyncio.sleep(60)

    async def emit() -> None:
        try:
            await dispatcher.emit_async(signal)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, problem: outcomes.append(problem["message"]))
        tasks.append(loop.create_task(emit()))
        for _ in range(turns):
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    gc.collect()  # what earlier tests left behind may warn, too
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(main())
        tasks.clear()
        gc.collect()
    assert outcomes == ["cancelled"]
    assert [str(warning.message) for warning in warned] == []
    assert logged(caplog) == []


# Timeouts


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("background", [False, True])
def test_a_handler_that_takes_too_long_is_cancelled_and_has_failed(
    signal: EventSignal[Any], emits: Emits, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    left: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("cancelled")

    async def steady() -> str:
        await asyncio.sleep(0.05)
        return "steady"

    signal.subscribe(slow, timeout=0.01, background=background)
    signal.subscribe(steady, timeout=60)
    emission = emits(signal)
    (failure,) = emission.failures
    error = failure.exception
    assert isinstance(error, HandlerTimeoutError)
    assert isinstance(error, TimeoutError)
    assert (error.event, error.handler, error.timeout) == ("thing_happened", slow, 0.01)
    assert "slow" in str(error)
    assert "0.01 s" in str(error)
    assert failure.handler is slow
    assert values(emission) == ["steady"]
    assert left == ["cancelled"]
    assert len(logged(caplog)) == 1
    assert logged(caplog)[0].endswith("failed: HandlerTimeoutError")
    with pytest.raises(HandlerTimeoutError):
        emission.raise_for_failures()


@pytest.mark.guarantee("A5")
def test_a_timeout_error_of_the_handlers_own_stays_what_it_is(
    signal: EventSignal[Any], emits: Emits
) -> None:
    async def raising() -> None:
        raise TimeoutError("mine")

    async def waiting() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    signal.subscribe(raising, timeout=60)
    signal.subscribe(waiting, timeout=60)
    emission = emits(signal)
    assert errors(emission) == [TimeoutError, TimeoutError]


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_a_handler_that_hides_its_cancellation_took_too_long_all_the_same(
    signal: EventSignal[Any], emits: Emits, ending: str
) -> None:
    async def hiding() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
        if ending == "raises":
            raise KeyError
        return "late"

    signal.subscribe(hiding, timeout=0.01)
    emission = emits(signal)
    assert emission.results == ()
    (failure,) = emission.failures
    assert isinstance(failure.exception, HandlerTimeoutError)
    assert isinstance(failure.exception.__cause__, KeyError if ending == "raises" else type(None))


@pytest.mark.guarantee("A5")
async def test_an_emitter_that_is_cancelled_before_the_timeout_is_told_so(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    signal.subscribe(slow, timeout=30)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await dispatcher.emit_async(signal)
    assert not isinstance(caught.value, HandlerTimeoutError)
    assert logged(caplog) == []


@pytest.mark.guarantee("A5")
async def test_a_handler_with_a_timeout_that_is_cancelled_by_others_did_not_time_out(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    signal.subscribe(cancelled, timeout=30)
    assert errors(await dispatcher.emit_async(signal)) == [asyncio.CancelledError]


@pytest.mark.guarantee("A5")
def test_a_plain_handler_has_no_timeout(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    for options in ({"timeout": 1.0}, {"timeout": 1, "background": True}):
        with pytest.raises(InvalidOptionError, match="make it async") as caught:
            signal.subscribe(lambda: None, **options)
        assert caught.value.option == "timeout"
    with pytest.raises(InvalidOptionError, match="make it async"):
        signals.subscribe("thing_*", lambda: None, timeout=1.0)


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("timeout", [0, -1, 0.0, True, float("nan"), float("inf"), "1"])
def test_a_timeout_that_is_no_time_is_refused(signal: EventSignal[Any], timeout: Any) -> None:
    with pytest.raises(InvalidOptionError, match="number of seconds above 0") as caught:
        signal.subscribe(plainly, timeout=timeout)
    assert caught.value.option == "timeout"
    signal.subscribe(plainly, timeout=None)


@pytest.mark.guarantee("A5")
async def test_the_same_handler_with_another_timeout_is_a_conflict(
    signal: EventSignal[Any],
) -> None:
    from madcrow_events import SubscriptionConflictError

    subscription = signal.subscribe(plainly, timeout=1)
    assert signal.subscribe(plainly, timeout=1.0) is subscription
    assert (subscription.timeout, subscription.background) == (1, False)
    with pytest.raises(SubscriptionConflictError):
        signal.subscribe(plainly, timeout=2)
    with pytest.raises(SubscriptionConflictError):
        signal.subscribe(plainly, timeout=1, background=True)
