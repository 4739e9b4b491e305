"""Async handlers run at the same time, each with context variables of its own (A1, A4)."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import threading
from contextlib import suppress
from typing import Any

import pytest

from madcrow_events import Emission, EventDispatcher, EventSignal, SignalRegistry, current_event
from support.async_handlers import OWNER, Emits, awaited, fail, fail_later, plainly, until
from support.outcomes import errors, values

EAGER = sys.version_info >= (3, 12)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


# Order and concurrency


@pytest.mark.guarantee("A1")
async def test_inline_handlers_have_finished_before_the_first_async_one_starts(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []

    def note(name: str, *, is_async: bool) -> Any:
        async def handler() -> str:
            calls.append(name)
            await asyncio.sleep(0)
            calls.append(f"{name} again")
            return name

        return handler if is_async else lambda: calls.append(name) or name

    signal.subscribe(note("a", is_async=True), priority=100)
    signal.subscribe(note("b", is_async=False))
    signal.subscribe(note("c", is_async=True), priority=200)
    signal.subscribe(note("d", is_async=False), priority=1)
    emission = await dispatcher.emit_async(signal)
    assert calls == ["d", "b", "c", "a", "c again", "a again"]
    assert values(emission) == ["d", "b", "c", "a"]


@pytest.mark.guarantee("A1")
async def test_results_are_in_order_whoever_finishes_first(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    finished: list[int] = []

    def make(number: int) -> Any:
        async def handler() -> int:
            for _ in range(10 - number):
                await asyncio.sleep(0)
            finished.append(number)
            if number == 5:
                raise ValueError
            return number

        return handler

    for number in range(10):
        signal.subscribe(make(number))
    emission = await dispatcher.emit_async(signal)
    assert finished == list(range(9, -1, -1))
    assert values(emission) == [number for number in range(10) if number != 5]
    assert errors(emission) == [ValueError]


@pytest.mark.guarantee("A1")
def test_async_handlers_run_at_the_same_time(signal: EventSignal[Any], emits: Emits) -> None:
    """Each waits for the others, so one after the other would wait for ever."""
    barriers: list[asyncio.Barrier] = []

    async def handler() -> None:
        if not barriers:
            barriers.append(asyncio.Barrier(3))
        async with asyncio.timeout(5):
            await barriers[0].wait()

    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    assert emits(signal).failures == ()


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("depth", [1, 4])
async def test_handlers_of_a_nested_emission_run_at_the_same_time_too(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, depth: int
) -> None:
    barrier = asyncio.Barrier(10)

    async def handler() -> None:
        async with asyncio.timeout(5):
            await barrier.wait()

    async def outer(emission: Emission[Any]) -> Emission[Any]:
        if emission.depth + 1 < depth:
            return (await dispatcher.emit_async(signal)).results[0].value
        return await dispatcher.emit_async("inner_thing")

    inner = signals.signal("inner_thing")
    for _ in range(10):
        inner.subscribe(functools.partial(handler))
    signal.subscribe(outer)
    (nested,) = values(await dispatcher.emit_async(signal))
    assert nested.depth == depth
    assert len(nested.results) == 10
    assert nested.failures == ()


@pytest.mark.guarantee("A1")
async def test_a_handler_that_never_suspends_needs_no_trip_through_the_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    turns: list[int] = []

    async def handler() -> str:
        return "at once"

    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert values(await dispatcher.emit_async(signal)) == ["at once"] * 3
    if EAGER:
        assert not turns


@pytest.mark.guarantee("A1")
async def test_an_emission_to_plain_handlers_does_not_suspend(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    turns: list[int] = []
    signal.subscribe(lambda: "plain")
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert values(await dispatcher.emit_async(signal)) == ["plain"]
    assert not turns


@pytest.mark.guarantee("A1")
def test_each_handler_sees_a_task_of_its_own(signal: EventSignal[Any], emits: Emits) -> None:
    def make(suspends: bool) -> Any:
        async def handler() -> Any:
            task = asyncio.current_task()
            assert task is not None
            assert task in asyncio.all_tasks()
            assert task.get_loop() is asyncio.get_running_loop()
            if suspends:
                await asyncio.sleep(0)
                assert asyncio.current_task() is task
            return task

        return handler

    emitters: list[Any] = []

    def note_emitter() -> None:
        with suppress(RuntimeError):
            emitters.append(asyncio.current_task())

    signal.subscribe(note_emitter, priority=1)
    for suspends in (False, True, False, True):
        signal.subscribe(make(suspends))
    emission = emits(signal)
    assert emission.failures == ()
    tasks = values(emission)[1:]
    assert len({*map(id, tasks)} | {*map(id, emitters)}) == 4 + len(emitters)


@pytest.mark.guarantee("A1")
def test_what_asyncio_offers_works_inside(signal: EventSignal[Any], emits: Emits) -> None:
    async def timed_out() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    async def in_time() -> str:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "in time"

    async def grouped() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_time()) for _ in range(2)]
        return [task.result() for task in tasks]

    async def gathered() -> list[str]:
        return await asyncio.gather(in_time(), timed_out())

    async def shielded() -> str:
        return await asyncio.wait_for(asyncio.shield(in_time()), 10)

    async def threaded() -> str:
        return await asyncio.to_thread(variable.get)

    for handler in (timed_out, in_time, grouped, gathered, shielded, threaded):
        signal.subscribe(handler)
    assert values(emits(signal)) == [
        "timed out",
        "in time",
        ["in time", "in time"],
        ["in time", "timed out"],
        "in time",
        "unset",
    ]


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("is_eager", [False, True] if EAGER else [False])
async def test_the_task_factory_of_the_emitters_loop_makes_the_tasks(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_eager: bool
) -> None:
    class Task(asyncio.Task):  # type: ignore[type-arg]
        pass

    def make(loop: Any, coroutine: Any, **options: Any) -> Any:
        if is_eager:
            options["eager_start"] = True
        return Task(coroutine, loop=loop, **options)

    async def handler() -> str:
        return type(asyncio.current_task()).__qualname__

    async def suspending() -> str:
        await asyncio.sleep(0)
        return type(asyncio.current_task()).__qualname__

    signal.subscribe(handler)
    signal.subscribe(suspending)
    signal.subscribe(fail_later)
    asyncio.get_running_loop().set_task_factory(make)
    emission = await dispatcher.emit_async(signal)
    assert values(emission) == [Task.__qualname__] * 2
    assert errors(emission) == [ValueError]


@pytest.mark.guarantee("A1")
async def test_nothing_is_left_of_an_emission_that_was_awaited(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    threads = set(threading.enumerate())
    for handler in (fail, fail_later, plainly, OWNER):
        signal.subscribe(handler)
    emission = await dispatcher.emit_async(signal)
    assert emission.pending == 0
    assert emission.wait(timeout=5)
    await emission.wait_async()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) <= threads


# Context variables


@pytest.mark.guarantee("A4")
async def test_inline_handlers_share_the_variables_and_async_ones_have_a_copy(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def make(name: str, *, suspends: bool) -> Any:
        async def handler() -> Any:
            before = variable.get()
            token = variable.set(name)
            if suspends:
                await asyncio.sleep(0)
            assert variable.get() == name
            if name == "a":
                variable.reset(token)
            return before

        return handler

    signal.subscribe(make("a", suspends=True), priority=9)
    signal.subscribe(make("b", suspends=False), priority=8)
    signal.subscribe(make("c", suspends=True), priority=7)
    signal.subscribe(lambda: variable.set("inline") and None)
    variable.set("emitter")
    emission = await dispatcher.emit_async(signal)
    assert values(emission) == [None, "inline", "inline", "inline"]
    assert variable.get() == "inline"


@pytest.mark.guarantee("A4")
@pytest.mark.parametrize("background", [False, True])
async def test_a_held_task_has_the_variables_of_the_moment_of_emitting(
    signal: EventSignal[Any], dispatcher: EventDispatcher, background: bool
) -> None:
    async def handler() -> Any:
        before = variable.get()
        variable.set("handler")
        await asyncio.sleep(0)
        return (before, variable.get())

    signal.subscribe(handler, background=background)
    variable.set("then")
    emission = dispatcher.emit(signal)
    variable.set("later")
    await awaited(emission)
    assert values(emission) == [("then", "handler")]
    assert variable.get() == "later"


@pytest.mark.guarantee("A4")
def test_the_background_loop_has_the_variables_of_the_emitter(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> Any:
        before = variable.get()
        variable.set("handler")
        return before

    def emit(word: str) -> list[Any]:
        variable.set(word)
        emission = dispatcher.emit(signal)
        assert emission.wait(timeout=10)
        assert variable.get() == word
        return values(emission)

    signal.subscribe(handler)
    for word in ("one", "two"):
        assert contextvars.copy_context().run(emit, word) == [word]


@pytest.mark.guarantee("E2")
def test_a_handler_knows_its_emission_before_and_after_it_suspends(
    signal: EventSignal[Any], emits: Emits
) -> None:
    async def handler(emission: Emission[Any]) -> None:
        assert current_event() is emission
        await asyncio.sleep(0)
        assert current_event() is emission
        task = asyncio.get_running_loop().create_task(asyncio.sleep(0, current_event()))
        assert await task is emission

    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    assert emits(signal).failures == ()
    assert current_event() is None


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("background", [False, True])
async def test_what_nobody_awaits_begins_a_chain_of_its_own(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    background: bool,
) -> None:
    inner = signals.signal("inner_thing")
    seen: list[Any] = []

    async def later(emission: Emission[Any]) -> None:
        assert current_event() is emission
        nested = await dispatcher.emit_async("other_thing")
        seen.append((emission.depth, nested.depth, nested.parent))

    async def outer() -> Emission[Any]:
        return dispatcher.emit(inner)

    signals.signal("other_thing")
    inner.subscribe(later, background=background)
    signal.subscribe(outer)
    emission = await dispatcher.emit_async(signal)
    (nested,) = values(emission)
    assert nested.parent is emission
    await awaited(nested)
    assert nested.failures == ()
    assert seen == [(1, 0, None)]


@pytest.mark.guarantee("F5")
async def test_a_chain_of_held_tasks_may_be_longer_than_any_nesting(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    depths: list[int] = []

    async def handler(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if len(depths) < 200:
            dispatcher.emit(signal)

    signal.subscribe(handler)
    dispatcher.emit(signal)
    await until(lambda: len(depths) == 200)
    assert set(depths) == {0}
    assert await dispatcher.drain_async(timeout=10)


@pytest.mark.guarantee("F5")
async def test_a_chain_of_held_tasks_does_not_keep_its_beginning(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    kept: list[int] = []

    async def handler(number: int) -> None:
        if number < 100:
            dispatcher.emit(signal, number=number + 1)
        else:
            gc.collect()
            emissions = [thing for thing in gc.get_objects() if type(thing) is Emission]
            kept.append(sum(emission.signal is signal for emission in emissions))

    signal.subscribe(handler)
    dispatcher.emit(signal, number=0)
    await until(lambda: kept)
    assert kept[0] < 50


@pytest.mark.guarantee("F5")
async def test_a_chain_is_what_happens_under_one_handler_though_they_run_side_by_side(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    broken = asyncio.Event()

    async def looping(emission: Emission[Any]) -> None:
        try:
            await dispatcher.emit_async("loop")
        finally:
            if emission.event == "thing_happened":
                broken.set()
                await asyncio.sleep(0.01)

    async def patient() -> Any:
        before = await dispatcher.emit_async("harmless")
        await broken.wait()
        after = await dispatcher.emit_async("harmless")
        return values(before), values(after)

    async def heard() -> str:
        await asyncio.sleep(0)
        return "heard"

    signals.signal("loop").subscribe(looping)
    signals.signal("harmless").subscribe(heard)
    signal.subscribe(looping)
    signal.subscribe(patient)
    async with asyncio.timeout(10):
        emission = await dispatcher.emit_async(signal)
    assert [type(failure.exception).__name__ for failure in emission.failures] == [
        "EmissionDepthError"
    ]
    assert emission.failures[0].handler is looping
    assert (["heard"], ["heard"]) in values(emission)


@pytest.mark.guarantee("A1")
async def test_emissions_that_were_cancelled_do_not_count_among_those_that_cause_themselves(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Where there are hundreds of them, handlers run one after the other, to save memory."""

    async def first(number: int) -> None:
        if number == 0:
            for _ in range(300):
                task = asyncio.create_task(dispatcher.emit_async(signal, number=1))
                await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            last.append(await dispatcher.emit_async(signal, number=2))
        elif number == 1:
            await asyncio.sleep(60)
        else:
            await asyncio.wait_for(second_has_begun.wait(), 2)

    async def second(number: int) -> None:
        if number == 2:
            second_has_begun.set()

    last: list[Emission[Any]] = []
    second_has_begun = asyncio.Event()
    signal.subscribe(first)
    signal.subscribe(second)
    await dispatcher.emit_async(signal, number=0)
    assert last[0].ok
