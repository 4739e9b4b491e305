"""Waiting that could never end is refused (A3)."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    LoginEventContext,
    SignalRegistry,
    WouldDeadlockError,
    current_event,
)
from support.async_handlers import KEYWORDS, Emits, awaited, plainly, run
from support.outcomes import errors, logged, values
from support.waiting import elsewhere


@pytest.mark.guarantee("A3")
async def test_a_loop_does_not_wait_for_its_own_tasks(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(plainly)
    emission = dispatcher.emit(signal)
    for timeout in (5, None):
        with pytest.raises(WouldDeadlockError):
            emission.wait(timeout)
    assert emission.wait(timeout=0) is False
    await awaited(emission)
    assert emission.wait()


@pytest.mark.guarantee("A3")
async def test_a_loop_may_wait_for_what_runs_elsewhere(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def awaiting() -> str:
        await asyncio.sleep(0.01)
        return "async"

    signal.subscribe(lambda: "plain", background=True)
    signal.subscribe(awaiting, background=True)
    emission = await asyncio.to_thread(dispatcher.emit, signal)
    assert emission.wait(timeout=10)
    assert values(emission) == ["plain", "async"]


@pytest.mark.guarantee("A3")
async def test_another_thread_may_wait_for_the_tasks_of_a_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.02)
        return "done"

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    assert await asyncio.to_thread(emission.wait, 10)
    assert values(emission) == ["done"]


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("mode", ["emit", "emit in a loop", "emit_async"])
def test_an_inline_handler_does_not_wait_for_its_own_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher, mode: str
) -> None:
    async def done(emission: Emission[Any]) -> None:
        await emission.wait_async()

    def waiting(emission: Emission[Any]) -> None:
        emission.wait(timeout=5)

    def driving(emission: Emission[Any]) -> None:
        with suppress(StopIteration):
            done(emission).send(None)

    def in_a_thread_of_its_context(emission: Emission[Any]) -> None:
        elsewhere(functools.partial(contextvars.copy_context().run, emission.wait, 5)).result(20)

    async def main() -> Emission[Any]:
        return await dispatcher.emit_async(signal) if mode == "emit_async" else emit()

    def emit() -> Emission[Any]:
        return dispatcher.emit(signal)

    for handler in (waiting, driving, in_a_thread_of_its_context):
        signal.subscribe(handler)
    started = time.monotonic()
    emission = emit() if mode == "emit" else run(main())
    assert errors(emission) == [WouldDeadlockError] * 3
    assert time.monotonic() - started < 4


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("background", [False, True])
def test_an_async_handler_does_not_wait_for_its_own_emission(
    signal: EventSignal[Any], emits: Emits, background: bool
) -> None:
    async def waiting(emission: Emission[Any]) -> None:
        emission.wait(timeout=5)

    async def awaiting(emission: Emission[Any]) -> None:
        async with asyncio.timeout(5):
            await emission.wait_async()

    async def later(emission: Emission[Any]) -> None:
        await asyncio.sleep(0)
        await asyncio.wait_for(emission.wait_async(), 5)

    async def elsewhere(emission: Emission[Any]) -> None:
        await asyncio.to_thread(emission.wait, 5)

    for handler in (waiting, awaiting, later, elsewhere):
        signal.subscribe(handler, background=background)
    started = time.monotonic()
    emission = emits(signal)
    assert errors(emission) == [WouldDeadlockError] * 4
    assert time.monotonic() - started < 4


@pytest.mark.guarantee("A3")
def test_a_background_handler_does_not_wait_for_its_own_emission(
    signal: EventSignal[Any], emits: Emits
) -> None:
    def waiting(emission: Emission[Any]) -> None:
        emission.wait(timeout=5)

    def through_current_event() -> None:
        emission = current_event()
        assert emission is not None
        emission.wait(timeout=5)

    signal.subscribe(waiting, background=True)
    signal.subscribe(through_current_event, background=True)
    assert errors(emits(signal)) == [WouldDeadlockError] * 2


@pytest.mark.guarantee("A3")
def test_a_typed_view_of_an_emission_does_not_hide_it(
    login: EventSignal[Any], emits: Emits
) -> None:
    async def awaiting(emission: Emission[LoginEventContext]) -> None:
        async with asyncio.timeout(5):
            await emission.wait_async()

    def inline(emission: Emission[LoginEventContext]) -> None:
        emission.wait(timeout=5)

    login.subscribe(inline)
    login.subscribe(awaiting)
    assert errors(emits(login, **KEYWORDS)) == [WouldDeadlockError] * 2


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("awaits", [False, True])
def test_a_nested_handler_does_not_wait_for_the_emission_that_waits_for_it(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, awaits: bool
) -> None:
    found: list[Any] = []

    async def inner(emission: Emission[Any]) -> None:
        assert emission.parent is not None
        async with asyncio.timeout(5):
            await emission.parent.wait_async()

    def plain_inner(emission: Emission[Any]) -> None:
        assert emission.parent is not None
        emission.parent.wait(timeout=5)

    async def outer() -> None:
        found.append(await dispatcher.emit_async("inner_thing"))

    def plain_outer() -> None:
        found.append(dispatcher.emit("inner_thing"))

    signals.signal("inner_thing").subscribe(inner if awaits else plain_inner)
    signal.subscribe(outer if awaits else plain_outer)
    run(dispatcher.emit_async(signal))
    assert errors(found[0]) == [WouldDeadlockError]


@pytest.mark.guarantee("A3")
async def test_a_held_task_may_wait_for_the_emission_that_led_to_it(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """For nobody there waits for it."""
    found: list[Emission[Any]] = []

    async def later(emission: Emission[Any]) -> list[Any]:
        return values(await awaited(found[0]))

    async def outer(emission: Emission[Any]) -> str:
        found.append(emission)
        found.append(dispatcher.emit("other_thing"))
        await asyncio.sleep(0.005)
        return "outer"

    signals.signal("other_thing").subscribe(later)
    signal.subscribe(outer)
    await dispatcher.emit_async(signal)
    await awaited(found[1])
    assert values(found[1]) == [["outer"]]


@pytest.mark.guarantee("A3")
def test_a_worker_does_not_wait_for_what_needs_a_worker(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    other = signals.signal("other_thing")

    def waiting() -> None:
        dispatcher.emit(other).wait(timeout=5)

    signal.subscribe(waiting, background=True)
    other.subscribe(lambda: "other", background=True)
    with EventDispatcher(signals, max_workers=1) as dispatcher:
        started = time.monotonic()
        emission = dispatcher.emit(signal)
        assert emission.wait(timeout=10)
        assert errors(emission) == [WouldDeadlockError]
        assert time.monotonic() - started < 4
        assert dispatcher.drain(timeout=10)


@pytest.mark.guarantee("A3")
def test_a_worker_may_wait_for_what_needs_none(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def waiting() -> tuple[bool, bool]:
        here, there = dispatcher.emit("other_thing"), elsewhere.emit("third_thing")
        return here.wait(timeout=10), there.wait(timeout=10)

    signal.subscribe(waiting, background=True)
    signals.signal("other_thing").subscribe(plainly, background=True)
    signals.signal("third_thing").subscribe(lambda: "third", background=True)
    with (
        EventDispatcher(signals, max_workers=1) as dispatcher,
        EventDispatcher(signals) as elsewhere,
    ):
        emission = dispatcher.emit(signal)
        assert emission.wait(timeout=20)
    assert values(emission) == [(True, True)]


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("background", [False, True])
def test_the_background_loop_does_not_wait_for_its_own_tasks(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, background: bool
) -> None:
    async def waiting() -> None:
        dispatcher.emit("other_thing").wait(timeout=5)

    signal.subscribe(waiting)
    signals.signal("other_thing").subscribe(plainly, background=background)
    started = time.monotonic()
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert errors(emission) == [WouldDeadlockError]
    assert time.monotonic() - started < 4
    assert dispatcher.drain(timeout=10)


@pytest.mark.guarantee("A3")
def test_nobody_waits_for_the_tasks_of_a_loop_that_stands_still(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0)
        return "done"

    async def main() -> Emission[Any]:
        return dispatcher.emit(signal)

    signal.subscribe(handler)
    loop = asyncio.new_event_loop()
    try:
        emission = loop.run_until_complete(main())
        assert emission.pending == 1
        started = time.monotonic()
        with pytest.raises(WouldDeadlockError):
            emission.wait(timeout=5)
        with pytest.raises(WouldDeadlockError):
            dispatcher.drain(timeout=5)
        assert time.monotonic() - started < 4
        loop.run_until_complete(awaited(emission))
        assert values(emission) == ["done"]
        assert emission.wait()
    finally:
        loop.close()


@pytest.mark.guarantee("A3")
def test_tasks_whose_loop_was_closed_have_failed(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[str] = []

    async def handler() -> None:
        started.append("begun")
        await asyncio.sleep(60)

    async def main() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        await asyncio.sleep(0)
        return emission

    signal.subscribe(handler)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio's own word on the task
    emission = loop.run_until_complete(main())
    loop.close()
    assert started == ["begun"]
    assert emission.wait(timeout=5)
    (failure,) = emission.failures
    assert failure.handler is handler
    assert len(logged(caplog)) == 1
    assert dispatcher.drain(timeout=5)
    del loop
    gc.collect()


@pytest.mark.guarantee("A3")
def test_who_waits_in_a_thread_learns_that_the_loop_was_closed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = threading.Event()

    async def handler() -> None:
        await asyncio.sleep(60)

    def wait() -> None:
        go.set()
        waited.append(held[0].wait(timeout=10))

    async def emit() -> None:
        held.append(dispatcher.emit(signal))
        thread.start()
        await asyncio.to_thread(go.wait, 10)
        await asyncio.sleep(0.02)

    held: list[Emission[Any]] = []
    waited: list[bool] = []
    thread = threading.Thread(target=wait)
    signal.subscribe(handler)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio's own word on the task
    loop.run_until_complete(emit())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    thread.join()
    assert waited == [True]
    assert len(held[0].failures) == 1


@pytest.mark.guarantee("E2")
async def test_a_loop_may_wait_for_threads_when_its_own_handlers_have_ended(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def suspends() -> None:
        await asyncio.sleep(0)

    free = threading.Event()
    signal.subscribe(suspends)
    signal.subscribe(lambda: free.wait(10) and None, background=True)
    emission = await dispatcher.emit_async(signal)
    assert not emission.wait(0.001)
    free.set()
    assert emission.wait(10)
