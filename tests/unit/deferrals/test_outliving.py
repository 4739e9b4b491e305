"""Transactions that are no block, full queues, and blocks that outlive their `with` (B4)."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal, HandlerErrors, SignalRegistry, event_scope
from support.blocks import LONG, Failed, Happened, Way, in_both_forms, in_every_way
from support.inside import backlog_of, current_frame
from support.waiting import elsewhere

pytestmark = pytest.mark.guarantee("B4")


# Transactions that are no block


@in_every_way
async def test_what_is_discarded_is_dropped_and_the_block_goes_on(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        dropped = [await way.emit(dispatcher, "thing_happened", number=n) for n in range(3)]
        assert deferral.discard() == 3
        assert [emission.state for emission in dropped] == ["dropped"] * 3
        assert deferral.discard() == 0
        await way.emit(dispatcher, "thing_happened", number=3)
        assert deferral.pending == 1
    assert heard == [3]


@in_every_way
async def test_what_is_flushed_goes_out_and_the_block_goes_on(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    with pytest.raises(Failed):
        async with way.block(dispatcher) as deferral:
            for number in range(3):
                await way.emit(dispatcher, "thing_happened", number=number)
            await way.flush(deferral)
            assert heard == [0, 1, 2]
            assert deferral.pending == 0
            await way.emit(dispatcher, "thing_happened", number=3)
            assert deferral.pending == 1
            raise Failed
    assert heard == [0, 1, 2]


@in_every_way
async def test_a_nested_block_is_flushed_past_the_outer_one(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as outer:
        await way.emit(dispatcher, "thing_happened", number=1)
        async with way.block(dispatcher) as inner:
            await way.emit(dispatcher, "thing_happened", number=2)
            await way.flush(inner)
            assert heard == [2]
            assert (inner.pending, outer.pending) == (0, 1)
    assert heard == [2, 1]


@in_both_forms
async def test_what_a_flush_raises_it_raises_after_the_last(
    raising: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    @signal.on()
    def fail(number: int) -> None:
        if number == 1:
            raise Failed

    async with way.block(raising) as deferral:
        for number in range(3):
            await way.emit(raising, signal, number=number)
        with pytest.raises(Failed):
            await way.flush(deferral)
        assert heard == [0, 1, 2]


@in_both_forms
async def test_a_flush_of_a_closed_block_does_nothing(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        await way.emit(dispatcher, "thing_happened", number=1)
    await way.flush(deferral)
    assert heard == [1]


# A queue that is full


class Slow:
    """A background handler that works when it is let, and has begun with one event already."""

    def __init__(self, signals: SignalRegistry) -> None:
        self.has_begun = threading.Event()
        self.may_work = threading.Event()
        self.numbers: list[int] = []
        signals.signal("happened").subscribe(self.work, background=True)

    def work(self, number: int) -> None:
        self.has_begun.set()
        assert self.may_work.wait(LONG)
        self.numbers.append(number)

    def busy(self, signals: SignalRegistry, **options: Any) -> EventDispatcher:
        """Return a dispatcher whose only thread is at work, and whose queue has two places."""
        dispatcher = EventDispatcher(signals, queue_size=2, max_workers=1, **options)
        dispatcher.emit("happened", number=0)
        assert self.has_begun.wait(LONG)
        return dispatcher


@pytest.fixture
def slow(signals: SignalRegistry) -> Iterator[Slow]:
    slow = Slow(signals)
    yield slow
    slow.may_work.set()


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("ends", [True, False], ids=["at the end", "by flush_async"])
async def test_the_loop_waits_for_places_in_the_queue(
    signals: SignalRegistry, slow: Slow, ends: bool
) -> None:
    """Nothing is lost of what threads have emitted by `emit`, as a server's endpoints do."""
    dispatcher = slow.busy(signals)
    asyncio.get_running_loop().call_later(0.05, slow.may_work.set)
    async with dispatcher.deferred() as deferral:
        for number in range(1, 10):
            await asyncio.to_thread(dispatcher.emit, "happened", number=number)
        assert deferral.pending == 9
        if not ends:
            await deferral.flush_async()
            assert deferral.pending == 0
    assert await dispatcher.drain_async(LONG)
    assert slow.numbers == list(range(10))


@pytest.mark.guarantee("B1")
async def test_who_is_cancelled_while_waiting_for_places_is_cancelled(
    signals: SignalRegistry, slow: Slow
) -> None:
    """What finds no place by then is refused, as by `flush`, and no place is lost."""
    dispatcher = slow.busy(signals)

    async def work() -> None:
        async with dispatcher.deferred():
            for number in range(1, 6):
                dispatcher.emit("happened", number=number)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, HandlerErrors)
    slow.may_work.set()
    assert await dispatcher.drain_async(LONG)
    assert slow.numbers == [0, 1, 2]
    assert backlog_of(dispatcher).permits.acquire(2, [])


@pytest.mark.guarantee("B1")
async def test_places_for_handlers_that_went_away_while_it_waited_are_given_back(
    signals: SignalRegistry, slow: Slow
) -> None:
    """The queue is as large as ever, and nothing is called."""
    dispatcher = slow.busy(signals)
    for number in (1, 2):
        await dispatcher.emit_async("happened", number=number)

    async def work() -> None:
        async with dispatcher.deferred():
            dispatcher.emit("happened", number=3)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    signals["happened"].unsubscribe(slow.work)
    slow.may_work.set()
    await task
    assert await dispatcher.drain_async(LONG)
    assert 3 not in slow.numbers
    assert backlog_of(dispatcher).permits.acquire(2, [])


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("overflow", ["raise", "drop"])
async def test_only_a_queue_that_blocks_is_waited_for(
    signals: SignalRegistry, slow: Slow, overflow: Any
) -> None:
    """The other two do with what is too much what they always do."""
    dispatcher = slow.busy(signals, overflow=overflow)
    with pytest.raises(HandlerErrors) if overflow == "raise" else nullcontext():
        async with dispatcher.deferred():
            for number in range(1, 6):
                dispatcher.emit("happened", number=number)
    slow.may_work.set()
    assert await dispatcher.drain_async(LONG)
    assert slow.numbers == [0, 1, 2]


# A block that outlives its `with`


@pytest.mark.guarantee("K4")
def test_a_resumed_block_holds_back_in_each_part_and_goes_out_at_its_end(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """Between the parts nothing is held back; the fields are those of the first part."""
    deferral = dispatcher.deferred(lambda: {"ip_address": "192.0.2.1"})
    with event_scope(request_id="1"), deferral.resumed():
        dispatcher.emit("thing_happened", number=1)
    dispatcher.emit("thing_happened", number=2)
    assert heard == [2]
    assert current_frame() is None
    with deferral.resumed():
        emission = dispatcher.emit("thing_happened", number=3)
    assert (emission.state, deferral.pending) == ("deferred", 2)
    assert emission.context["request_id"] == "1"
    assert emission.context["ip_address"] == "192.0.2.1"
    with deferral:
        dispatcher.emit("thing_happened", number=4)
    assert heard == [2, 1, 3, 4]
    dispatcher.emit("thing_happened", number=5)
    assert heard == [2, 1, 3, 4, 5]
    assert current_frame() is None


@pytest.mark.guarantee("K4")
def test_an_open_block_is_resumed_in_a_thread_of_its_own(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """Which has no copy of the context variables."""

    def work() -> None:
        with deferral.resumed():
            states.append(dispatcher.emit("thing_happened", number=1).state)
        states.append(dispatcher.emit("thing_happened", number=2).state)

    states: list[str] = []
    with dispatcher.deferred() as deferral:
        elsewhere(work).result(LONG)
        assert (states, heard) == (["deferred", "done"], [2])
    assert heard == [2, 1]


def test_a_part_may_end_with_an_exception_or_in_another_context(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """The block is not over, and nothing is dropped."""
    deferral = dispatcher.deferred()
    with pytest.raises(Failed), deferral.resumed():
        dispatcher.emit("thing_happened", number=1)
        raise Failed
    part = deferral.resumed()
    part.__enter__()
    elsewhere(lambda: part.__exit__(None, None, None)).result(LONG)
    part = deferral.resumed()
    elsewhere(part.__enter__).result(LONG)
    part.__exit__(None, None, None)
    assert deferral.pending == 1
    with pytest.raises(Failed), deferral:
        raise Failed
    assert heard == []


def test_the_fields_of_a_part_are_those_of_its_block_and_those_around_it(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """The block is the inner one of the two; an outer part of it changes nothing."""
    deferral = dispatcher.deferred(lambda: {"request_id": "block"})
    around = event_scope(request_id="around", user_agent="around")
    with around, deferral.resumed(), deferral.resumed():
        context = dispatcher.emit("thing_happened", number=1).context
    assert (context["request_id"], context["user_agent"]) == ("block", "around")
    with event_scope(ip_address="later", request_id="later"), deferral.resumed():
        context = dispatcher.emit("thing_happened", number=2).context
    assert context["request_id"] == "block"
    assert (context["user_agent"], context["ip_address"]) == ("around", "later")
    with event_scope(user_agent="last"), deferral:
        context = dispatcher.emit("thing_happened", number=3).context
    assert (context["request_id"], context["user_agent"]) == ("block", "around")
    assert heard == [1, 2, 3]


def test_the_fields_around_the_first_part_hold_for_the_last(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """The block's own `with`, which may be inside of a part."""
    deferral = dispatcher.deferred()
    with event_scope(request_id="first"), deferral.resumed():
        pass
    with event_scope(request_id="last"), deferral.resumed(), deferral:
        assert dispatcher.emit("thing_happened", number=1).context["request_id"] == "first"
        kept = weakref.ref(current_frame())
    del deferral
    assert (heard, kept()) == ([1], None)  # without a garbage collection


def test_resumed_blocks_end_in_any_order(dispatcher: EventDispatcher, heard: list[int]) -> None:
    """Each by itself, though one thread has begun them all; and one that is dropped is dropped."""
    first, second = dispatcher.deferred(), dispatcher.deferred()
    for number, deferral in enumerate((first, second, first), 1):
        with deferral.resumed():
            dispatcher.emit("thing_happened", number=number)
    with second:
        pass
    assert heard == [2]
    assert first.discard() == 2
    with first:
        pass
    assert heard == [2]


def test_a_block_that_is_resumed_in_another_joins_that_in_which_it_began(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    inner = dispatcher.deferred()
    with dispatcher.deferred():
        with inner.resumed():
            dispatcher.emit("thing_happened", number=1)
        with inner:
            dispatcher.emit("thing_happened", number=2)
        assert heard == []
    assert heard == [1, 2]


def test_what_a_handler_emits_at_a_flush_in_a_part_goes_out(
    dispatcher: EventDispatcher, heard: list[int], signal: EventSignal[Any]
) -> None:
    @signal.on(priority=1)
    def emit_more(sender: Any, **context: Any) -> None:
        if context["number"] < 3:
            dispatcher.emit("thing_happened", number=context["number"] + 1)

    deferral = dispatcher.deferred()
    with deferral.resumed():
        dispatcher.emit("thing_happened", number=1)
        deferral.flush()
        assert heard == [3, 2, 1]


async def test_a_task_of_a_part_belongs_to_the_block_until_that_ends(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    async def emit_at(moment: asyncio.Event, number: int) -> None:
        await moment.wait()
        dispatcher.emit("thing_happened", number=number)

    between, over = asyncio.Event(), asyncio.Event()
    deferral = dispatcher.deferred()
    with deferral.resumed():
        tasks = [asyncio.create_task(emit_at(it, n)) for n, it in enumerate((between, over))]
    between.set()
    await tasks[0]
    assert (heard, deferral.pending) == ([], 1)
    async with deferral:
        pass
    over.set()
    await tasks[1]
    assert heard == [0, 1]


def test_a_part_is_for_one_with_and_for_an_open_block(dispatcher: EventDispatcher) -> None:
    deferral = dispatcher.deferred()
    part = deferral.resumed()
    with part:
        pass
    with pytest.raises(RuntimeError, match=r"call it again"):
        part.__enter__()
    with deferral, deferral.resumed():
        pass
    with pytest.raises(RuntimeError, match="has ended"):
        deferral.resumed().__enter__()
    with pytest.raises(RuntimeError, match="call deferred"):
        deferral.__enter__()
    assert current_frame() is None


def test_a_savepoint_drops_what_was_emitted_since(
    dispatcher: EventDispatcher, heard: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), dispatcher.deferred() as deferral:
        dispatcher.emit("thing_happened", number=1)
        savepoint = deferral.pending
        emissions = [dispatcher.emit("thing_happened", number=n) for n in (2, 3)]
        assert deferral.discard(keep=savepoint) == 2
        assert deferral.discard(keep=savepoint) == 0
        dispatcher.emit("thing_happened", number=4)
    assert heard == [1, 4]
    assert [it.state for it in emissions] == ["dropped"] * 2
    assert caplog.text.count("dropped with its deferred block") == 2


def test_what_is_dropped_is_told_in_order(
    signals: SignalRegistry, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("first", "second"):
        signals.signal(name)
    with caplog.at_level(logging.DEBUG), dispatcher.deferred() as deferral:
        dispatcher.emit("first")
        dispatcher.emit("second")
        deferral.discard()
    lines = [line.getMessage() for line in caplog.records]
    assert lines == [f"{it} dropped with its deferred block" for it in ("first", "second")]


def test_what_its_scope_was_asked_of_is_not_kept(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Whoever keeps an emission keeps no request with it."""

    class Request: ...

    signals.signal("happened", context=Happened)
    context = Happened()  # before, for the first may be built with a look at all names here
    request = Request()
    kept = weakref.ref(request)
    with dispatcher.deferred(lambda of=request: {"request_id": type(of).__name__}):
        emission = dispatcher.emit_typed("happened", context)
        del request
    assert kept() is None
    assert emission.context.request_id == "Request"


async def test_a_block_in_a_nested_one_forgets_the_outer_one_that_has_ended(
    dispatcher: EventDispatcher,
) -> None:
    """So that tasks of which each starts the next in its block look at no more and more of them."""

    async def nested() -> None:
        with dispatcher.deferred():
            begun.set()
            await outer_has_ended.wait()
            with dispatcher.deferred():
                numbers.append(len(current_frame().holders))

    begun, outer_has_ended = asyncio.Event(), asyncio.Event()
    numbers: list[int] = []
    with dispatcher.deferred():
        task = asyncio.create_task(nested())
        await begun.wait()
    outer_has_ended.set()
    await task
    assert numbers == [2]
