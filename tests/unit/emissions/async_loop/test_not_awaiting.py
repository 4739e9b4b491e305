"""`emit` with async handlers: in a running loop, and outside of one (A2)."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal, InvalidOptionError
from support.async_handlers import awaited, fail, plainly, run, until
from support.outcomes import errors, logged, values


@pytest.mark.guarantee("A2")
async def test_emit_in_a_running_loop_leaves_tasks_to_that_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = asyncio.Event()
    loop, thread = asyncio.get_running_loop(), threading.current_thread()

    async def first() -> str:
        assert asyncio.get_running_loop() is loop
        assert threading.current_thread() is thread
        return "first"

    async def second() -> str:
        await go.wait()
        return "second"

    signal.subscribe(first, priority=1)
    signal.subscribe(second, priority=2)
    signal.subscribe(fail)
    signal.subscribe(lambda: "inline")
    emission = dispatcher.emit(signal)
    assert (values(emission), emission.pending, emission.ok) == (["inline"], 3, True)
    await until(lambda: emission.pending == 1)
    assert values(emission) == ["inline", "first"]
    assert errors(emission) == [ValueError]
    gc.collect()
    assert emission.wait(timeout=0) is False
    go.set()
    await awaited(emission)
    assert values(emission) == ["inline", "second", "first"]
    assert emission.pending == 0
    assert emission.wait(timeout=5)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.guarantee("A2")
async def test_a_held_task_needs_nobody_else_to_hold_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    finished: list[str] = []

    async def handler() -> None:
        nobody_else_knows = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, nobody_else_knows.set_result, None)
        await nobody_else_knows
        finished.append("whole")

    signal.subscribe(handler)
    dispatcher.emit(signal)
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    await until(lambda: finished)
    assert finished == ["whole"]


@pytest.mark.guarantee("A2")
def test_emit_outside_of_a_loop_uses_the_background_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = threading.Event()
    seen: list[Any] = []

    async def handler() -> str:
        seen.append((asyncio.get_running_loop(), threading.current_thread()))
        await asyncio.to_thread(go.wait, 10)
        return "done"

    signal.subscribe(handler)
    signal.subscribe(lambda: "inline")
    emissions = [dispatcher.emit(signal) for _ in range(2)]
    assert [values(emission) for emission in emissions] == [["inline"]] * 2
    assert emissions[0].pending == 1
    assert not emissions[0].wait(timeout=0.01)
    assert not emissions[0].wait(timeout=0)
    go.set()
    for emission in emissions:
        assert emission.wait()
        assert values(emission) == ["inline", "done"]
        assert emission.pending == 0
    (loop, thread) = seen[0]
    assert seen == [(loop, thread)] * 2
    assert thread is not threading.current_thread()
    assert thread.daemon


@pytest.mark.guarantee("A2")
def test_done_can_be_awaited_in_another_loop_than_the_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.02)
        return "done"

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    assert values(run(awaited(emission))) == ["done"]

    async def main() -> None:
        here = dispatcher.emit(signal)
        there = await asyncio.to_thread(lambda: values(run(awaited(here))))
        assert there == ["done"]
        assert values(here) == ["done"]

    run(main())


@pytest.mark.guarantee("A2")
def test_many_may_wait_for_one_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> None:
        await asyncio.sleep(0.05)

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    waited: list[bool] = []

    async def main() -> None:
        await asyncio.gather(*(awaited(emission) for _ in range(5)))

    threads = [
        threading.Thread(target=lambda: waited.append(emission.wait(timeout=10))) for _ in range(5)
    ]
    threads.append(threading.Thread(target=lambda: waited.append(run(main()) is None)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waited == [True] * 6


@pytest.mark.guarantee("A2")
async def test_awaiting_done_can_be_cancelled_without_the_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = asyncio.Event()

    async def handler() -> str:
        await go.wait()
        return "done"

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(emission.wait_async(), 0.01)
    assert emission.pending == 1
    go.set()
    assert values(await awaited(emission)) == ["done"]


@pytest.mark.guarantee("A2")
@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), True, "1"])
def test_a_time_to_wait_that_is_none_is_refused(
    signal: EventSignal[Any], dispatcher: EventDispatcher, timeout: Any
) -> None:
    emission = dispatcher.emit(signal)
    with pytest.raises(InvalidOptionError):
        emission.wait(timeout)


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_a_handler_that_nobody_awaits_is_its_failure(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    async def exiting() -> None:
        raise error

    async def exiting_later() -> None:
        await asyncio.sleep(0)
        raise error

    def plain() -> None:
        raise error

    signal.subscribe(exiting)
    signal.subscribe(exiting_later)
    signal.subscribe(plain, background=True)
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert errors(emission) == [error] * 3
    assert len(logged(caplog)) == 3
    signal.subscribe(plainly)
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert values(emission) == ["function"], "the threads have survived it"


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("awaits", [False, True])
def test_two_loops_share_a_dispatcher_and_each_runs_its_own_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher, awaits: bool
) -> None:
    meeting = threading.Barrier(2)
    loops: list[Any] = []
    problems: list[str] = []

    async def handler(sender: Any, **context: Any) -> Any:
        before = (asyncio.get_running_loop(), threading.get_ident())
        await asyncio.sleep(0)
        assert before == (asyncio.get_running_loop(), threading.get_ident())
        return before

    async def main() -> None:
        here = (asyncio.get_running_loop(), threading.get_ident())
        loops.append(here)
        asyncio.get_running_loop().set_exception_handler(
            lambda _, problem: problems.append(problem["message"])
        )
        await asyncio.to_thread(meeting.wait, 10)
        for _ in range(100):
            if awaits:
                emission = await dispatcher.emit_async(signal)
            else:
                emission = await awaited(dispatcher.emit(signal))
            assert values(emission) == [here, here]
        await asyncio.to_thread(meeting.wait, 10)

    signal.subscribe(handler)
    signal.subscribe(functools.partial(handler))
    failed: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            meeting.abort()
            failed.append(error)

    threads = [threading.Thread(target=target) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert problems == []
    assert len({id(loop) for loop, _ in loops}) == 2
