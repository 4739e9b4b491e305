"""Blocks in tasks and in threads (B4)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from contextlib import nullcontext
from typing import Any

import pytest

from madcrow_events import Emission, EventDispatcher
from support.blocks import LONG, Failed, Way, in_every_way
from support.inside import DeferralFrame, renew_after_fork
from support.waiting import elsewhere

pytestmark = pytest.mark.guarantee("B4")


@in_every_way
@pytest.mark.parametrize("fails", [False, True])
async def test_a_child_task_shares_the_block_until_it_closes(
    dispatcher: EventDispatcher, heard: list[int], way: Way, fails: bool
) -> None:
    closed = asyncio.Event()
    held = asyncio.Event()

    async def child() -> None:
        assert (await way.emit(dispatcher, "thing_happened", number=1)).state == "deferred"
        held.set()
        await closed.wait()
        assert (await way.emit(dispatcher, "thing_happened", number=2)).state == "done"

    with pytest.raises(Failed) if fails else nullcontext():
        async with way.block(dispatcher) as deferral:
            task = asyncio.create_task(child())
            await held.wait()
            assert deferral.pending == 1
            assert heard == []
            if fails:
                raise Failed
    closed.set()
    await task
    assert heard == ([2] if fails else [1, 2])


@in_every_way
async def test_a_thread_of_the_loop_shares_the_block_until_it_closes(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    held, closed = threading.Event(), threading.Event()

    def child() -> list[str]:
        states = [dispatcher.emit("thing_happened", number=1).state]
        held.set()
        assert closed.wait(LONG)
        return [*states, dispatcher.emit("thing_happened", number=2).state]

    async with way.block(dispatcher):
        working = asyncio.create_task(asyncio.to_thread(child))
        assert await asyncio.to_thread(held.wait, LONG)
        assert heard == []
    assert heard == [1]
    closed.set()
    assert await working == ["deferred", "done"]
    assert heard == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_with_a_copy_of_the_context_shares_the_block_until_it_closes(
    dispatcher: EventDispatcher, heard: list[int], fails: bool
) -> None:
    with pytest.raises(Failed) if fails else nullcontext(), dispatcher.deferred() as deferral:
        context = contextvars.copy_context()
        elsewhere(lambda: context.run(dispatcher.emit, "thing_happened", number=1)).result(LONG)
        assert deferral.pending == 1
        if fails:
            raise Failed
    elsewhere(lambda: context.run(dispatcher.emit, "thing_happened", number=2)).result(LONG)
    assert heard == ([2] if fails else [1, 2])


def test_a_thread_without_a_copy_of_the_context_does_not_share_the_block(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    with dispatcher.deferred():
        elsewhere(lambda: dispatcher.emit("thing_happened", number=1)).result(LONG)
        assert heard == [1]


@in_every_way
async def test_a_nested_block_of_a_child_task_joins_the_block(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async def child(number: int) -> None:
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=number)
            await asyncio.sleep(0)
            if number == 2:
                raise Failed

    async with way.block(dispatcher) as deferral:
        await asyncio.gather(*(child(number) for number in range(4)), return_exceptions=True)
        assert heard == []
        assert deferral.pending == 3
    assert heard == [0, 1, 3]


@in_every_way
@pytest.mark.parametrize("outer_fails", [False, True])
async def test_a_nested_block_that_outlives_the_outer_one_goes_out_by_itself(
    dispatcher: EventDispatcher, heard: list[int], way: Way, outer_fails: bool
) -> None:
    held, closed = asyncio.Event(), asyncio.Event()

    async def child() -> None:
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=1)
            held.set()
            await closed.wait()
            await way.emit(dispatcher, "thing_happened", number=2)
            assert heard == []
        assert heard == [1, 2]

    with pytest.raises(Failed) if outer_fails else nullcontext():
        async with way.block(dispatcher):
            task = asyncio.create_task(child())
            await held.wait()
            if outer_fails:
                raise Failed
    assert heard == []
    closed.set()
    await task


@in_every_way
@pytest.mark.parametrize("middle_fails", [False, True])
async def test_a_nested_block_that_outlives_the_next_one_joins_that_around_both(
    dispatcher: EventDispatcher, heard: list[int], way: Way, middle_fails: bool
) -> None:
    held, closed = asyncio.Event(), asyncio.Event()

    async def child() -> None:
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=1)
            held.set()
            await closed.wait()
        await way.emit(dispatcher, "thing_happened", number=2)

    async with way.block(dispatcher) as outer:
        with pytest.raises(Failed) if middle_fails else nullcontext():
            async with way.block(dispatcher):
                task = asyncio.create_task(child())
                await held.wait()
                if middle_fails:
                    raise Failed
        closed.set()
        await task
        assert heard == []
        assert outer.pending == 2
    assert heard == [1, 2]


@in_every_way
async def test_a_block_that_closes_while_a_nested_one_hands_over_loses_nothing(
    dispatcher: EventDispatcher, heard: list[int], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outer one's end, in another thread, comes after the nested one has looked for it."""
    outermost, outer, inner = (way.block(dispatcher) for _ in range(3))
    await outermost.__aenter__()
    await outer.__aenter__()
    await inner.__aenter__()
    for number in range(3):
        await way.emit(dispatcher, "thing_happened", number=number)
    take = DeferralFrame._take

    def close_then_take(self: Any, taken: Any) -> bool:
        if self is inner.deferral._frame and len(self.held_back) == 2:
            outer.deferral.__exit__(None, None, None)
        return take(self, taken)

    monkeypatch.setattr(DeferralFrame, "_take", close_then_take)
    await inner.__aexit__(None, None, None)
    assert heard == []
    assert outermost.deferral.pending == 3
    await outermost.__aexit__(None, None, None)
    assert heard == [0, 1, 2]


@pytest.mark.parametrize("taken_along", [False, True])
def test_an_emission_that_comes_while_the_block_closes_goes_out_once(
    dispatcher: EventDispatcher,
    heard: list[int],
    monkeypatch: pytest.MonkeyPatch,
    taken_along: bool,
) -> None:
    """It is put among the others after another thread has closed the block."""
    deferral = dispatcher.deferred()

    class Closing(deque[Emission[Any]]):
        """Closes the block when the emitter has seen that it is open."""

        def append(self, emission: Emission[Any]) -> None:
            super().append(emission)
            deferral._frame.is_open = False
            if taken_along:
                deferral.flush()

    deferral._frame.held_back = Closing()
    with deferral:
        emission = dispatcher.emit("thing_happened", number=1)
        assert heard == [1]
        assert emission.state == "done"
        assert len(emission.results) == 1
    assert heard == [1]


@in_every_way
async def test_a_process_that_was_forked_in_the_block_leaves_the_emissions_to_its_parent(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher):
        inherited = await way.emit(dispatcher, "thing_happened", number=1)
        renew_after_fork()  # as in the child
        await way.emit(dispatcher, "thing_happened", number=2)
    assert heard == [2]
    assert inherited.state == "dropped"
