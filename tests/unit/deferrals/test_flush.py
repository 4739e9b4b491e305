"""How a block hands over what it held, and what a cancellation does to that (B4)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from madcrow_events import (
    DispatcherClosedError,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerErrors,
    QueueFullError,
    SignalRegistry,
)
from support.blocks import LONG, Failed, Happened, Way, in_both_forms, in_every_way

pytestmark = pytest.mark.guarantee("B4")


# The flush


@in_every_way
async def test_what_handlers_emit_during_the_flush_goes_out_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    inner: list[Emission[Any]] = []

    @signal.on(priority=1)
    def emit_more(number: int) -> None:
        if number < 10:
            inner.append(dispatcher.emit(signal, number=number + 10))
            assert inner[-1].state == "done"

    async with way.block(dispatcher):
        for number in range(3):
            await way.emit(dispatcher, signal, number=number)
    assert heard == [10, 0, 11, 1, 12, 2]
    assert all(emission.parent is not None for emission in inner)


@in_both_forms
async def test_what_handlers_emit_during_a_flush_in_an_open_block_goes_out_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    @signal.on(priority=1)
    def emit_more(number: int) -> None:
        if number < 10:
            dispatcher.emit(signal, number=number + 10)

    async with way.block(dispatcher), way.block(dispatcher) as inner:
        await way.emit(dispatcher, signal, number=1)
        await way.flush(inner)
        assert heard == [11, 1]


async def test_what_async_handlers_emit_during_the_flush_goes_out_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    @signal.on()
    async def emit_more(number: int) -> None:
        await asyncio.sleep(0)
        if number < 10:
            assert (await dispatcher.emit_async(signal, number=number + 10)).state == "done"

    async with dispatcher.deferred():
        await dispatcher.emit_async(signal, number=1)
        await dispatcher.emit_async(signal, number=2)
    assert heard == [1, 11, 2, 12]


@in_every_way
async def test_a_failing_handler_is_isolated_and_announced_at_the_flush(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    announced: list[str] = []

    def announce(sender: Any, **context: Any) -> None:
        announced.append(context["exception_type"])

    dispatcher.signals.signal("handler_failed").subscribe(announce)

    @signal.on(priority=1)
    def fail() -> None:
        raise Failed

    async with way.block(dispatcher):
        first = await way.emit(dispatcher, signal, number=1)
        await way.emit(dispatcher, signal, number=2)
        assert announced == []
    assert heard == [1, 2]
    assert announced == ["Failed", "Failed"]
    assert [type(failure.exception) for failure in first.failures] == [Failed]


@in_every_way
async def test_one_exception_of_a_flush_is_raised_as_it_is_after_the_last_emission(
    raising: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    error = Failed()

    @signal.on(priority=1)
    def fail(number: int) -> None:
        if number == 1:
            raise error

    with pytest.raises(Failed) as caught:
        async with way.block(raising):
            for number in range(4):
                await way.emit(raising, signal, number=number)
    assert caught.value is error
    assert heard == [0, 1, 2, 3]


@in_every_way
async def test_several_exceptions_of_a_flush_are_raised_as_a_group(
    raising: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    errors = [Failed(number) for number in range(4)]

    @signal.on(priority=1)
    def fail(number: int) -> None:
        if number:
            raise errors[number]

    with pytest.raises(HandlerErrors, match="3 of the emissions that were held back") as caught:
        async with way.block(raising):
            for number in range(4):
                await way.emit(raising, signal, number=number)
    assert caught.value.exceptions == tuple(errors[1:])
    assert heard == [0, 1, 2, 3]


@in_every_way
async def test_an_exit_from_a_handler_is_raised_after_the_last_emission(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    heard: list[int] = []
    interrupts = [KeyboardInterrupt("first"), SystemExit("second")]

    @signal.on()
    def interrupt(number: int) -> None:
        heard.append(number)
        if number % 2:
            raise interrupts[number // 2]

    signal.subscribe(lambda number: heard.append(number + 10))
    emissions: list[Emission[Any]] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        async with way.block(dispatcher):
            emissions += [await way.emit(dispatcher, signal, number=number) for number in range(5)]
    assert caught.value is interrupts[0]
    assert heard == [0, 10, 1, 2, 12, 3, 4, 14]
    assert [emission.state for emission in emissions] == ["done"] * 5


@in_every_way
async def test_an_exit_keeps_its_own_cause(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    cause = Failed()

    @signal.on()
    def interrupt() -> None:
        raise KeyboardInterrupt from cause

    with pytest.raises(KeyboardInterrupt) as caught:
        async with way.block(dispatcher):
            await way.emit(dispatcher, signal)
    assert caught.value.__cause__ is cause


@in_every_way
async def test_an_exit_shows_what_else_the_flush_raised(
    raising: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    error = Failed()

    @signal.on()
    def interrupt(number: int) -> None:
        raise (KeyboardInterrupt if number else error)

    with pytest.raises(KeyboardInterrupt) as caught:
        async with way.block(raising):
            await way.emit(raising, signal, number=0)
            await way.emit(raising, signal, number=1)
    assert caught.value.__cause__ is error


async def test_async_with_awaits_what_was_emitted_by_emit_async(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    story: list[str] = []

    @signal.on()
    async def work(number: int) -> None:
        story.append(f"begin {number}")
        await asyncio.sleep(0)
        story.append(f"end {number}")

    async with dispatcher.deferred():
        first = await dispatcher.emit_async(signal, number=1)
        second = await dispatcher.emit_async(signal, number=2)
        assert story == []
        assert first.state == "deferred"
    assert story == ["begin 1", "end 1", "begin 2", "end 2"]
    assert (first.state, second.state) == ("done", "done")
    assert (first.pending, len(first.results)) == (0, 1)


async def test_async_with_awaits_typed_emissions_too(
    dispatcher: EventDispatcher, signals: SignalRegistry
) -> None:
    seen: list[Happened] = []
    signal = signals.signal("typed_thing", context=Happened)

    @signal.on()
    async def work(context: Happened) -> None:
        await asyncio.sleep(0)
        seen.append(context)

    context = Happened(number=1)
    async with dispatcher.deferred():
        await dispatcher.emit_typed_async(signal, context)
    assert seen == [context]


@pytest.mark.parametrize("way", [Way(False, False), Way(False, True), Way(True, False)], ids=str)
async def test_other_async_handlers_are_started_as_by_emit(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    go_on = asyncio.Event()

    @signal.on()
    async def work(number: int) -> int:
        await go_on.wait()
        return number

    async with asyncio.timeout(LONG), way.block(dispatcher):
        emissions = [await way.emit(dispatcher, signal, number=number) for number in range(2)]
    assert [(emission.state, emission.pending) for emission in emissions] == [("running", 1)] * 2
    go_on.set()
    assert await dispatcher.drain_async(LONG)
    assert [emission.results[0].value for emission in emissions] == [0, 1]
    assert [emission.state for emission in emissions] == ["done"] * 2


def test_async_handlers_run_in_the_background_where_no_loop_runs(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    @signal.on()
    async def work() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    with dispatcher, dispatcher.deferred():
        emission = dispatcher.emit(signal)
    assert emission.wait(LONG)
    assert [result.value for result in emission.results] == ["madcrow-events-loop"]


@in_every_way
async def test_background_handlers_start_at_the_flush(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    heard: list[int] = []
    signal.subscribe(lambda number: heard.append(number), background=True)

    @signal.on(background=True)
    async def work(number: int) -> None:
        heard.append(number)

    async with way.block(dispatcher):
        emission = await way.emit(dispatcher, signal, number=1)
        assert await dispatcher.drain_async(LONG)
        assert heard == []
    await emission.wait_async()
    assert heard == [1, 1]
    assert len(emission.results) == 2


@in_every_way
async def test_what_background_handlers_emit_is_not_held_back(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    flushed = threading.Event()
    states: list[str] = []

    @signal.on(background=True)
    def emit_more(number: int) -> None:
        if number < 10:
            states.append(dispatcher.emit(signal, number=number + 10).state)
            flushed.set()

    async with way.block(dispatcher) as deferral:
        await way.emit(dispatcher, signal, number=1)
        await way.flush(deferral)
        await asyncio.to_thread(flushed.wait, LONG)
        assert heard == [1, 11]
    assert "deferred" not in states
    assert await dispatcher.drain_async(LONG)


@in_every_way
async def test_a_full_queue_is_told_after_all_went_out_and_drops_that_emission(
    signals: SignalRegistry, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    dispatcher = EventDispatcher(signals, queue_size=1, overflow="raise")
    crowded = signals.signal("crowded")
    crowded_heard: list[int] = []
    crowded.subscribe(lambda number: crowded_heard.append(number))
    for _ in range(2):
        crowded.subscribe(lambda: None, background=True)
    with pytest.raises(QueueFullError):
        async with way.block(dispatcher):
            first = await way.emit(dispatcher, signal, number=1)
            refused = await way.emit(dispatcher, crowded, number=2)
            last = await way.emit(dispatcher, signal, number=3)
            assert refused.state == "deferred"
    assert heard == [1, 3]
    assert crowded_heard == []
    assert (first.state, refused.state, last.state) == ("done", "dropped", "done")
    assert (refused.pending, refused.results, refused.failures) == (0, (), ())
    assert refused.wait(LONG)


@in_every_way
async def test_a_dispatcher_that_was_closed_meanwhile_drops_what_would_run_later(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    signal.subscribe(lambda: None, background=True)
    with pytest.raises(DispatcherClosedError):
        async with way.block(dispatcher):
            emission = await way.emit(dispatcher, signal)
            dispatcher.close()
    assert emission.state == "dropped"


@in_every_way
async def test_who_subscribed_before_the_block_ended_is_called(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    early: list[int] = []
    late: list[int] = []
    subscription = signal.subscribe(lambda number: early.append(number))
    async with way.block(dispatcher):
        await way.emit(dispatcher, signal, number=1)
        await way.emit(dispatcher, signal, number=2)
        subscription.cancel()
        signal.subscribe(lambda number: late.append(number), once=True)
    assert early == []
    assert late == [1]


@in_every_way
async def test_observers_are_entered_when_the_emission_goes_out(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @contextmanager
        def emission(self, emission: Emission[Any]) -> Iterator[None]:
            self.seen.append(f"begin {emission.context['number']}")
            yield
            self.seen.append(f"end {emission.context['number']}")

        @contextmanager
        def handling(self, emission: Emission[Any], handler: Any) -> Iterator[None]:
            self.seen.append(f"handler {emission.context['number']}")
            yield

    observer = Observer()
    dispatcher.add_observer(observer)
    with pytest.raises(Failed):
        async with way.block(dispatcher):
            await way.emit(dispatcher, signal, number=1)
            raise Failed
    async with way.block(dispatcher):
        await way.emit(dispatcher, signal, number=2)
        assert observer.seen == []
    assert observer.seen == ["begin 2", "handler 2", "end 2"]


# Cancellation


@in_every_way
async def test_cancellation_inside_of_the_block_drops_its_emissions(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    emissions: list[Emission[Any]] = []
    begun = asyncio.Event()

    async def work() -> None:
        async with way.block(dispatcher):
            emissions.append(await way.emit(dispatcher, "thing_happened", number=1))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == []
    assert emissions[0].state == "dropped"


async def test_cancellation_during_the_flush_lets_the_rest_go_out(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()
    story: list[str] = []
    emissions: list[Emission[Any]] = []

    @signal.on()
    async def work(number: int) -> None:
        begun.set()
        try:
            await go_on.wait()
            story.append(f"end {number}")
        except asyncio.CancelledError:
            story.append(f"cancelled {number}")
            raise

    async def transact() -> None:
        async with dispatcher.deferred():
            emissions.extend([await dispatcher.emit_async(signal, number=n) for n in range(3)])

    task = asyncio.create_task(transact())
    await begun.wait()
    assert heard == [0]
    task.cancel()
    await asyncio.wait([task], timeout=LONG)
    pending = [emission.pending for emission in emissions]
    go_on.set()
    assert task.cancelled()
    assert heard == [0, 1, 2]
    # Those that nobody awaits any more run by themselves, as after `emit`.
    assert pending == [0, 1, 1]
    assert await dispatcher.drain_async(LONG)
    assert story == ["cancelled 0", "end 1", "end 2"]


async def test_a_timeout_around_the_block_is_a_timeout(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    @signal.on()
    async def work(number: int) -> None:
        if number == 0:
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), dispatcher.deferred():
            for number in range(3):
                await dispatcher.emit_async(signal, number=number)
    assert heard == [0, 1, 2]
    assert await dispatcher.drain_async(LONG)
