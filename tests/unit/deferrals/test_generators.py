"""Blocks in generators, which end when and where somebody else wants (B4)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    SignalRegistry,
    WouldDeadlockError,
    current_event,
    event_scope,
)
from support.blocks import LONG
from support.inside import DeferralFrame, current_frame
from support.waiting import elsewhere

pytestmark = pytest.mark.guarantee("B4")


def page(dispatcher: EventDispatcher, *numbers: int) -> Generator[int]:
    """Answer a request bit by bit, as a streaming web handler does."""
    with dispatcher.deferred():
        for number in numbers:
            dispatcher.emit("thing_happened", number=number)
            yield number


async def page_async(dispatcher: EventDispatcher, *numbers: int) -> AsyncIterator[int]:
    async with dispatcher.deferred():
        for number in numbers:
            await dispatcher.emit_async("thing_happened", number=number)
            yield number


def check_clean(dispatcher: EventDispatcher, heard: list[int], before: list[int]) -> None:
    """Others are not held back any more, and nothing is left in this context."""
    assert heard == before
    assert dispatcher.emit("thing_happened", number=-1).state == "done"
    assert heard == [*before, -1]
    assert current_frame() is None
    assert current_event() is None


def test_a_generator_that_is_exhausted_sends_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    assert list(page(dispatcher, 1, 2)) == [1, 2]
    check_clean(dispatcher, heard, [1, 2])


def test_a_generator_that_is_closed_early_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator = page(dispatcher, 1, 2)
    assert next(generator) == 1
    generator.close()
    check_clean(dispatcher, heard, [])


def test_a_generator_that_is_collected_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator = page(dispatcher, 1, 2)
    assert next(generator) == 1
    del generator
    gc.collect()
    check_clean(dispatcher, heard, [])


@pytest.mark.parametrize("how", ["close", "collect"])
@pytest.mark.parametrize("where", ["copied before", "copied after", "empty", "thread"])
def test_a_generator_that_ends_in_another_context_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int], how: str, where: str
) -> None:
    begins = contextvars.copy_context()
    generators = [page(dispatcher, 1, 2)]
    assert begins.run(next, generators[0]) == 1
    ends = {"copied before": contextvars.copy_context(), "copied after": begins.copy()}.get(
        where, contextvars.Context()
    )

    def end() -> None:
        if how == "close":
            generators.pop().close()
        else:
            generators.clear()
            gc.collect()
        assert dispatcher.emit("thing_happened", number=3).state == "done"
        assert current_frame() is None

    if where == "thread":
        elsewhere(end).result(LONG)
    else:
        ends.run(end)
    # Where it began it cannot be undone, but the block is closed there, too.
    assert begins.run(dispatcher.emit, "thing_happened", number=4).state == "done"
    check_clean(dispatcher, heard, [3, 4])


def test_a_generator_that_is_exhausted_in_another_context_sends_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator = page(dispatcher, 1)
    assert contextvars.copy_context().run(next, generator) == 1
    assert contextvars.Context().run(next, generator, None) is None
    check_clean(dispatcher, heard, [1])


def test_generators_that_end_in_the_order_of_their_begin_leave_no_block_open(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    def interleave() -> None:
        first, second = page(dispatcher, 1), page(dispatcher, 2)
        next(first)
        next(second)
        first.close()
        assert heard == []
        assert next(second, None) is None
        assert heard == [2]
        check_clean(dispatcher, heard, [2])

    contextvars.copy_context().run(interleave)


def test_a_generator_that_is_collected_in_a_handler_disturbs_nobody(
    signals: SignalRegistry, dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    other = EventDispatcher(signals)
    outer = signals.signal("outer_thing")
    generators: list[Generator[int]] = []

    @outer.on()
    def collect(emission: Emission[Any]) -> None:
        generators.clear()
        gc.collect()
        assert current_event() is emission
        assert dispatcher.emit(signal, number=2).state == "done"

    def begin_and_collect() -> None:
        generators.append(page(dispatcher, 1))
        next(generators[0])
        assert other.emit(outer).ok
        assert dispatcher.emit(signal, number=3).state == "done"

    contextvars.copy_context().run(begin_and_collect)
    check_clean(dispatcher, heard, [2, 3])


async def test_an_async_generator_that_is_exhausted_sends_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    assert [number async for number in page_async(dispatcher, 1, 2)] == [1, 2]
    check_clean(dispatcher, heard, [1, 2])


@pytest.mark.parametrize("where", ["same", "task", "empty"])
async def test_an_async_generator_that_is_closed_early_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int], where: str
) -> None:
    contexts = {"task": None, "empty": contextvars.Context()}
    generator: Any = page_async(dispatcher, 1, 2)
    if where == "same":
        assert await anext(generator) == 1
        await generator.aclose()
    else:
        # Begun in a task of its own, so that its context ends with it.
        assert await asyncio.create_task(anext(generator)) == 1

        async def close() -> None:
            await generator.aclose()
            assert dispatcher.emit("thing_happened", number=3).state == "done"
            assert current_frame() is None

        await asyncio.create_task(close(), context=contexts[where])
    check_clean(dispatcher, heard, [] if where == "same" else [3])


async def test_an_async_generator_that_began_here_may_be_closed_elsewhere(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator: Any = page_async(dispatcher, 1, 2)
    assert await anext(generator) == 1

    async def close() -> None:
        await generator.aclose()
        assert dispatcher.emit("thing_happened", number=3).state == "done"
        assert current_frame() is None

    await asyncio.create_task(close())
    # Here it cannot be undone, but the block is closed.
    assert dispatcher.emit("thing_happened", number=4).state == "done"
    assert heard == [3, 4]


async def test_an_async_generator_that_is_left_to_the_loop_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    async def read_one() -> Emission[Any]:
        async for number in page_async(dispatcher, 1, 2):
            assert number == 1
            return dispatcher.emit("thing_happened", number=3)
        raise AssertionError

    emission = await asyncio.create_task(read_one())
    gc.collect()
    async with asyncio.timeout(LONG):
        await emission.wait_async()
    assert emission.state == "dropped"
    check_clean(dispatcher, heard, [])


@pytest.mark.guarantee("B4")
@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("kind", ["background", "fails", "async"])
async def test_an_emission_that_another_thread_flushes_at_once_is_not_begun_twice(
    monkeypatch: pytest.MonkeyPatch, awaits: bool, kind: str
) -> None:
    """Its emitter leaves all that is left of it to whoever flushes it."""
    signals = SignalRegistry()
    dispatcher = EventDispatcher(signals)
    signal = signals.signal("thing_happened")
    calls: list[str] = []
    announced: list[str] = []
    signals.subscribe("handler_failed", lambda event_name: announced.append(event_name))

    def handler() -> None:
        calls.append(kind)
        if kind == "fails":
            raise ValueError

    async def handler_async() -> None:
        calls.append(kind)

    signals.subscribe(
        signal, handler_async if kind == "async" else handler, background=kind == "background"
    )
    hold = DeferralFrame.hold

    def hold_then_flush(frame: Any, *arguments: Any, **options: Any) -> bool:
        held = hold(frame, *arguments, **options)
        thread = threading.Thread(target=frame.flush)
        thread.start()
        thread.join()
        return held

    with dispatcher.deferred():
        monkeypatch.setattr(DeferralFrame, "hold", hold_then_flush)
        if awaits:
            await dispatcher.emit_async(signal)
        else:
            dispatcher.emit(signal)
    assert await dispatcher.drain_async(10)
    assert calls == [kind]
    assert announced == ["thing_happened"] * (kind == "fails")


@pytest.mark.guarantee("A3")
def test_a_handler_cannot_wait_for_what_goes_out_after_it() -> None:
    """The flush calls one after the other, so it would wait for ever."""
    signals = SignalRegistry()
    dispatcher = EventDispatcher(signals)
    first, second = signals.signal("first_thing"), signals.signal("second_thing")
    errors: list[Exception] = []
    later: list[Emission[Any]] = []

    def handler() -> None:
        with event_scope(request_id="r"):
            try:
                later[0].wait()
            except WouldDeadlockError as error:
                errors.append(error)

    signals.subscribe(first, handler)
    with dispatcher.deferred():
        dispatcher.emit(first)
        later.append(dispatcher.emit(second))
    assert len(errors) == 1
    assert later[0].state == "done"


async def test_an_async_handler_that_does_not_suspend_is_done_with_the_block(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    numbers: list[int] = []
    signals.signal("paid")

    async def note(number: int) -> None:
        numbers.append(number)

    signals.subscribe("paid", note)
    async with dispatcher.deferred():
        emission = await dispatcher.emit_async("paid", number=1)
        assert numbers == []
    assert numbers == [1]
    assert emission.state == "done"
