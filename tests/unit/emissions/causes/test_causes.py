"""What caused an emission (B5)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    SignalRegistry,
    current_event,
    event_scope,
)
from support.causes import is_caused_by
from support.inside import enclosing
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B5")


# Causes


def inline(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    signal.subscribe(work)


def once(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    signal.subscribe(work, once=True)


def in_background(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    signal.subscribe(work, background=True)


def at_once(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on()
    async def handler() -> None:
        work()


def suspending(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on()
    async def handler() -> None:
        await asyncio.sleep(0)
        work()


def in_background_loop(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on(background=True)
    async def handler() -> None:
        await asyncio.sleep(0)
        work()


def in_time(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on(timeout=LIMIT)
    async def handler() -> None:
        await asyncio.to_thread(work)


def in_a_predicate(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    def when(context: Any) -> bool:
        work()
        return False

    signal.subscribe(lambda: None, when=when)


def in_a_background_predicate(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    def when(context: Any) -> bool:
        work()
        return False

    signal.subscribe(lambda: None, when=when, background=True)


def in_a_task_left_behind(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    kept: list[asyncio.Task[None]] = []

    async def later() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        work()

    @signal.on()
    async def handler() -> None:
        kept.append(asyncio.create_task(later()))

    @signal.on(priority=-1)
    async def keeping_the_loop() -> None:
        await asyncio.wait(kept)
        kept.clear()  # or a task that failed by itself would tell it in a later test


def emitting(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Emission[Any]:
    return dispatcher.emit(signal)


def emitting_async(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Emission[Any]:
    async def main() -> Emission[Any]:
        emission = await dispatcher.emit_async(signal)
        await dispatcher.drain_async(LIMIT)
        return emission

    return asyncio.run(main())


def emitting_in_a_loop(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Emission[Any]:
    async def main() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        await dispatcher.drain_async(LIMIT)
        return emission

    return asyncio.run(main())


@pytest.mark.parametrize("emit", [emitting, emitting_async, emitting_in_a_loop])
@pytest.mark.parametrize(
    "subscribe",
    [
        inline,
        once,
        in_background,
        at_once,
        suspending,
        in_background_loop,
        in_time,
        in_a_predicate,
        in_a_background_predicate,
        in_a_task_left_behind,
    ],
)
@pytest.mark.parametrize("fails", [False, True], ids=["", "failing"])
def test_every_kind_of_handler_is_the_cause_of_what_it_emits(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    inner: EventSignal[Any],
    dispatcher: EventDispatcher,
    emit: Any,
    subscribe: Any,
    fails: bool,
) -> None:
    """An emission below an emission; and the announcement of a failure is caused by what failed."""
    seen: dict[str, list[Emission[Any]]] = {"inner": [], "below": [], "failed": [], "heard": []}
    below = signals.signal("thing_below")

    def hear(emission: Emission[Any]) -> None:
        seen["failed"].append(emission)
        seen["heard"].append(dispatcher.emit("heard_thing"))

    def work() -> None:
        seen["inner"].append(dispatcher.emit(inner))
        if fails:
            raise ValueError

    signals.signal("heard_thing")
    signals.subscribe("handler_failed", hear)
    inner.subscribe(lambda: seen["below"].append(dispatcher.emit(below)))
    subscribe(work, signal)
    first = emit(dispatcher, signal)
    assert dispatcher.drain(LIMIT)
    assert len(seen["inner"]) == len(seen["below"]) == 1
    fails = fails and subscribe is not in_a_task_left_behind  # which fails by itself
    assert len(seen["failed"]) == len(seen["heard"]) == fails
    for heard, failed in zip(seen["heard"], seen["failed"], strict=True):
        assert is_caused_by(heard, failed, first)
        assert is_caused_by(failed, first, first)
    assert is_caused_by(seen["below"][0], seen["inner"][0], first)
    assert is_caused_by(seen["inner"][0], first, first)
    assert first.causation_id is None


async def test_a_task_that_outlives_its_handler_still_has_its_cause(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """As do tasks that it starts in its turn, and threads."""
    go = asyncio.Event()
    tasks: list[asyncio.Task[list[Emission[Any]]]] = []

    async def grandchild() -> Emission[Any]:
        return await dispatcher.emit_async(inner)

    async def later() -> list[Emission[Any]]:
        await go.wait()
        return [
            dispatcher.emit(inner),
            await asyncio.to_thread(dispatcher.emit, inner),
            await asyncio.create_task(grandchild()),
        ]

    def handler() -> None:
        tasks.append(asyncio.create_task(later()))

    async def async_handler() -> None:
        tasks.append(asyncio.create_task(later()))

    signal.subscribe(handler)
    signal.subscribe(async_handler)
    signal.subscribe(async_handler, priority=1, sender=dispatcher)
    first = await dispatcher.emit_async(signal, dispatcher)
    go.set()
    for task in tasks:
        for emission in await task:
            assert emission.parent is None
            assert is_caused_by(emission, first, first)
    assert len(tasks) == 3


def test_a_held_back_emission_has_the_cause_of_where_it_was_emitted(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Whether its ids are read from below or from above, and the handler is a held back one."""
    below = dispatcher.signals.signal("thing_below")
    held: list[Emission[Any]] = []
    belows: list[Emission[Any]] = []
    inner.subscribe(lambda: belows.append(dispatcher.emit(below)))
    signal.subscribe(lambda: held.append(dispatcher.emit(inner)))
    for above_first in (True, False):
        with dispatcher.deferred():
            first = dispatcher.emit(signal)
            assert first.state == "deferred"
        if above_first:
            assert is_caused_by(held[-1], first, first)
        assert is_caused_by(belows[-1], held[-1], first)
        assert is_caused_by(held[-1], first, first)


def test_a_deferred_block_in_a_handler_keeps_the_handlers_emission_as_cause(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Also where its emissions go out, and are read, after the handler has returned."""
    below = dispatcher.signals.signal("thing_below")
    seen: list[tuple[Emission[Any], UUID | None]] = []
    belows: list[Emission[Any]] = []
    deferrals: list[Any] = []

    def handler() -> None:
        with dispatcher.deferred():
            emission = dispatcher.emit(inner)
            seen.append((emission, emission.id))
        deferrals.append(dispatcher.deferred())
        deferrals[0].__enter__()
        emission = dispatcher.emit(inner)
        seen.append((emission, emission.id))
        seen.append((dispatcher.emit(inner), None))

    inner.subscribe(lambda: belows.append(dispatcher.emit(below)))
    signal.subscribe(handler)
    first = dispatcher.emit(signal)
    assert [emission.state for emission, _ in seen] == ["done", "deferred", "deferred"]
    deferrals[0].__exit__(None, None, None)
    assert len(belows) == 3
    for (emission, early), caused in zip(seen, belows, strict=True):
        assert early in (None, emission.id)
        assert is_caused_by(caused, emission, first)
        assert is_caused_by(emission, first, first)


# as_cause


def test_as_cause_names_the_cause_of_what_is_emitted_in_the_block(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """And of nothing after it; blocks nest, and the parent is not concerned."""
    below: list[Emission[Any]] = []
    inner.subscribe(lambda: below.append(dispatcher.emit("thing_below")))
    dispatcher.signals.signal("thing_below")
    first, second = dispatcher.emit(signal), dispatcher.emit(signal)
    with first.as_cause():
        caused = dispatcher.emit(inner)
        with second.as_cause():
            other = dispatcher.emit(inner)
        again = dispatcher.emit(inner)
        with event_scope(request_id="1"):
            scoped = dispatcher.emit(inner)
    after = dispatcher.emit(inner)
    assert all(is_caused_by(emission, first, first) for emission in (caused, again, scoped))
    assert is_caused_by(other, second, second)
    assert is_caused_by(below[1], other, second)
    assert after.causation_id is None
    assert after.correlation_id == after.id
    assert caused.parent is None
    assert caused.depth == 0


def test_as_cause_in_a_handler_counts_before_the_handlers_own_emission(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Which is the parent all the same, and the current one."""
    other = dispatcher.emit(inner)
    seen: list[Emission[Any]] = []

    def handler(emission: Emission[Any]) -> None:
        with other.as_cause():
            assert current_event() is emission
            seen.append(dispatcher.emit(inner))
        seen.append(dispatcher.emit(inner))

    signal.subscribe(handler)
    first = dispatcher.emit(signal)
    assert first.ok
    assert is_caused_by(seen[0], other, other)
    assert is_caused_by(seen[1], first, first)
    assert [emission.parent for emission in seen] == [first] * 2
    assert [emission.depth for emission in seen] == [1] * 2


def test_as_cause_carries_a_cause_to_a_thread_of_ones_own(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Which knows nothing else of the emission; its scope comes along."""
    with event_scope(request_id="1"):
        first = dispatcher.emit(signal)
    seen: list[Emission[Any]] = []

    def work() -> None:
        with first.as_cause():
            seen.append(dispatcher.emit(inner))
        seen.append(dispatcher.emit(inner))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert is_caused_by(seen[0], first, first)
    assert seen[0].context["request_id"] == "1"
    assert seen[1].causation_id is None
    assert dict(seen[1].context) == {}


async def test_as_cause_holds_for_tasks_and_background_handlers(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Those that were started in the block, when it is over."""
    first = dispatcher.emit(signal)
    below = dispatcher.signals.signal("thing_below")
    seen: list[Emission[Any]] = []
    inner.subscribe(lambda: seen.append(dispatcher.emit(below)), background=True)
    go = asyncio.Event()

    async def later() -> Emission[Any]:
        await go.wait()
        return dispatcher.emit(inner)

    with first.as_cause():
        task = asyncio.create_task(later())
    go.set()
    caused = await task
    assert await dispatcher.drain_async(LIMIT)
    assert is_caused_by(seen[0], caused, first)
    assert is_caused_by(caused, first, first)


def test_as_cause_is_about_where_it_is_entered(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Not about where it was made: in a `deferred` block it holds back, and it can decorate."""
    first = dispatcher.emit(signal)
    block = first.as_cause()
    with dispatcher.deferred():
        with block:
            held = dispatcher.emit(inner)
        assert held.state == "deferred"
    assert is_caused_by(held, first, first)

    @first.as_cause()
    def work() -> Emission[Any]:
        return dispatcher.emit(inner)

    for _ in range(2):
        assert is_caused_by(work(), first, first)
        with dispatcher.deferred():
            assert work().state == "deferred"


def test_a_held_back_emission_keeps_its_as_cause(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Though it goes out after the block."""
    first = dispatcher.emit(signal)
    below: list[Emission[Any]] = []
    inner.subscribe(lambda: below.append(dispatcher.emit("thing_below")))
    dispatcher.signals.signal("thing_below")
    with dispatcher.deferred(), first.as_cause():
        held = dispatcher.emit(inner)
    assert is_caused_by(below[0], held, first)
    assert is_caused_by(held, first, first)


def test_the_cause_of_an_emission_is_known_while_its_handler_ends(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Another thread may end it between any two looks at it."""
    signals.signal("other")
    inside, may_end = threading.Event(), threading.Event()
    caused: list[Emission[Any]] = []

    @signal.on(background=True)
    def handler() -> None:
        caused.append(dispatcher.emit("other"))
        inside.set()
        may_end.wait(LIMIT)

    first = dispatcher.emit(signal)
    assert inside.wait(LIMIT)

    branch: Any = enclosing(caused[0])

    class Ending(type(branch)):  # type: ignore[misc]  # found at run time
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name in ("emission", "ids") and not may_end.is_set():
                may_end.set()
                assert dispatcher.drain(LIMIT)
            return value

    branch.__class__ = Ending
    assert is_caused_by(caused[0], first, first)
