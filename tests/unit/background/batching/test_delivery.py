"""When a batch is delivered, and which emissions are in it (B3)."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import Batch, EventDispatcher, EventSignal, HandlerTimeoutError, SignalRegistry
from support.batches import (
    HOUR,
    NAME,
    Kept,
    ThingContext,
    emit_numbers,
    handler_of,
    numbers,
    run_python,
    values_of,
)
from support.inside import backlog_of
from support.waiting import LIMIT, eventually
from support.ways import plain_and_async

pytestmark = pytest.mark.guarantee("B3")


class Gate:
    """Work that waits in the middle of its first batch, until the test lets it go on."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.began = threading.Event()
        self.open = threading.Event()

    def __call__(self, batch: Any) -> Any:
        self.began.set()
        assert self.open.wait(LIMIT)
        return self.work(batch)


# When a batch is delivered


@plain_and_async
def test_a_batch_is_delivered_as_soon_as_it_is_full(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    subscription = signal.subscribe(handler_of(kept, is_async), batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3, 4)
    assert all(emission.wait(LIMIT) for emission in emissions[:3])
    assert kept.batches == [[1, 2, 3]]
    assert emissions[3].pending == 1
    assert [values_of(emission) for emission in emissions] == [[3], [3], [3], []]
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[1, 2, 3], [4]]
    assert emissions[3].results[0].handler is subscription.handler


@plain_and_async
def test_a_batch_is_delivered_when_its_first_context_has_waited_long_enough(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    """Each of several, one after the other, and never before its time."""
    signal.subscribe(handler_of(kept, is_async), batch=Batch(100, 0.2))
    for number in (1, 3, 5):
        began = time.monotonic()
        emit_numbers(dispatcher, number, number + 1)
        assert kept.await_one() == [number, number + 1]
        assert time.monotonic() - began >= 0.2
    assert backlog_of(dispatcher).batches.timer.thread is not None


@plain_and_async
def test_what_comes_in_during_a_batch_waits_for_the_next_and_is_not_forgotten(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    """Both when it fills a batch, and when its time comes, before the handler returns."""
    gate = Gate(kept)
    signal.subscribe(handler_of(gate, is_async), batch=Batch(3, 0.2))
    emit_numbers(dispatcher, 0, 1, 2)
    assert gate.began.wait(LIMIT)
    emissions = emit_numbers(dispatcher, 3, 4, 5, 6)
    timer = backlog_of(dispatcher).batches.timer.alarms
    while not timer.empty():
        time.sleep(0.001)
    time.sleep(0.3)  # so that all of it is overdue
    gate.open.set()
    assert all(emission.wait(LIMIT) for emission in emissions)
    assert kept.batches == [[0, 1, 2], [3, 4, 5], [6]]


@plain_and_async
def test_a_batch_of_one_waits_for_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(1, HOUR))
    for emission in emit_numbers(dispatcher, 1, 2, 3):
        assert emission.wait(LIMIT)
    assert kept.batches == [[1], [2], [3]]


def drains(dispatcher: EventDispatcher) -> bool:
    return dispatcher.drain(LIMIT)


def drains_async(dispatcher: EventDispatcher) -> bool:
    return asyncio.run(dispatcher.drain_async(LIMIT))


def closes(dispatcher: EventDispatcher) -> bool:
    return dispatcher.close(LIMIT)


def leaves_a_block(dispatcher: EventDispatcher) -> bool:
    with dispatcher:
        pass
    return True


each_end = pytest.mark.parametrize("end", [drains, drains_async, closes, leaves_a_block])


@each_end
@plain_and_async
@pytest.mark.guarantee("B2")
def test_whoever_waits_for_all_gets_what_waits_for_a_batch(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
    end: Callable[[EventDispatcher], bool],
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3)
    assert end(dispatcher)
    assert kept.batches == [[1, 2], [3]]
    assert not any(emission.pending for emission in emissions)


@each_end
@plain_and_async
@pytest.mark.guarantee("B2")
def test_whoever_waits_for_all_gets_a_chain_of_batches(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
    end: Callable[[EventDispatcher], bool],
) -> None:
    def passes_on(batch: Any) -> None:
        emit_numbers(dispatcher, *numbers(batch), name="next_thing")

    def passes_on_again(batch: Any) -> None:
        emit_numbers(dispatcher, *numbers(batch), name="last_thing")

    signal.subscribe(handler_of(passes_on, is_async), batch=Batch(100, HOUR))
    signals.signal("next_thing").subscribe(
        handler_of(passes_on_again, not is_async), batch=Batch(100, HOUR)
    )
    signals.signal("last_thing").subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR))
    emit_numbers(dispatcher, 1, 2, 3)
    assert end(dispatcher)
    assert sorted(kept.numbers) == [1, 2, 3]


@pytest.mark.guarantee("B2")
def test_only_to_ask_whether_all_is_done_delivers_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(kept, batch=Batch(100, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    assert not dispatcher.drain(0)
    assert not emission.wait(0)
    assert kept.batches == []
    assert dispatcher.drain(LIMIT)
    assert emission.wait(0)


def test_batches_wait_again_after_a_drain(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(kept, batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    assert dispatcher.drain(LIMIT)
    (waiting,) = emit_numbers(dispatcher, 2)
    assert not waiting.wait(0.05)
    emit_numbers(dispatcher, 3)
    assert waiting.wait(LIMIT)
    assert kept.batches == [[1], [2, 3]]


EXITING = """
import sys
from madcrow_events import Batch, EventDispatcher, SignalRegistry

signals = SignalRegistry()
dispatcher = EventDispatcher(signals)

def plain(batch):
    print("handled", len(batch), flush=True)

async def coroutine(batch):
    plain(batch)

def plain_chain(batch):
    for context in batch:
        dispatcher.emit("last", **context)

async def chain(batch):
    plain_chain(batch)

kind = sys.argv[1]
handlers = {"plain": (plain_chain, plain), "async": (chain, coroutine),
            "plain then async": (plain_chain, coroutine), "async then plain": (chain, plain)}
first, last = handlers[kind]
signals.signal("first").subscribe(first, batch=Batch(100, 3600))
signals.signal("last").subscribe(last, batch=Batch(100, 3600))
for number in range(3):
    dispatcher.emit(sys.argv[2], number=number)
"""


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize(
    ("kind", "event"),
    [
        *(("plain", "last"), ("async", "last"), ("plain", "first"), ("async", "first")),
        *(("plain then async", "first"), ("async then plain", "first")),
    ],
)
def test_the_exit_of_the_interpreter_delivers_what_waits(kind: str, event: str) -> None:
    """A chain of batches, too; that no thread can be started any more is no hindrance."""
    lines = run_python(EXITING, kind, event).splitlines()
    handled = [line.split() for line in lines]
    assert {word for word, _ in handled} == {"handled"}, lines
    assert sum(int(size) for _, size in handled) == 3
    if event == "last":
        assert lines == ["handled 3"]


# Which emissions are in a batch


@plain_and_async
@pytest.mark.guarantee("H5")
def test_sender_and_when_decide_on_each_emission(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
) -> None:
    def is_even(context: Any) -> bool:
        asked.append(context["number"])
        if context["number"] == 5:
            raise ValueError("on purpose")
        return context["number"] % 2 == 0

    asked: list[int] = []
    signal.subscribe(
        handler_of(kept, is_async), batch=Batch(100, HOUR), sender="shop", when=is_even
    )
    emissions = [
        dispatcher.emit(signal, sender, number=number)
        for number, sender in enumerate(["shop", "other"] * 4)
    ]
    emissions += [dispatcher.emit(signal, "shop", number=5)]
    assert asked == [0, 2, 4, 6, 5]
    assert [emission.pending for emission in emissions] == [1, 0] * 4 + [0]
    assert not emissions[-1].ok
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[0, 2, 4, 6]]
    assert len(backlog_of(dispatcher).permits.free) == 1000


@plain_and_async
@pytest.mark.guarantee("L1")
def test_a_weakly_held_method_gets_what_was_emitted_while_its_object_lived(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    class Listener:
        def hear(self, batch: Any) -> int:
            got.append(numbers(batch))
            return len(batch)

        async def hear_async(self, batch: Any) -> int:
            return self.hear(batch)

    got: list[list[int]] = []
    listener = Listener()
    method = "hear_async" if is_async else "hear"
    subscription = signal.subscribe(getattr(listener, method), batch=Batch(100, HOUR))
    assert subscription.weak
    emissions = emit_numbers(dispatcher, 1, 2)
    reference = weakref.ref(listener)
    del listener
    assert dispatcher.drain(LIMIT)
    (result,) = emissions[0].results
    assert result.value == 2
    assert result.handler.__name__ == method
    del result, emissions
    # Without the GIL, what another thread lets go of may wait for a collection.
    assert eventually(lambda: gc.collect() >= 0 and reference() is None), "the loop holds it"
    assert not subscription.active
    assert values_of(dispatcher.emit(signal, number=3)) == []
    assert got == [[1, 2]]


@plain_and_async
@pytest.mark.guarantee("F4")
def test_what_waits_when_the_subscription_is_cancelled_is_still_delivered(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    with signal.subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR)):
        emissions = emit_numbers(dispatcher, 1, 2)
    gc.collect()
    emit_numbers(dispatcher, 3)
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[1, 2]]
    assert values_of(emissions[0]) == [2]


@plain_and_async
def test_dispatchers_have_batches_of_their_own_and_siblings_share_them(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    other, sibling = EventDispatcher(signals), dispatcher.with_options(log_tracebacks=False)
    emit_numbers(dispatcher, 1)
    emit_numbers(other, 2)
    assert kept.batches == []
    emit_numbers(sibling, 3)
    assert kept.await_one() == [1, 3]
    assert other.drain(LIMIT)
    assert kept.batches == [[1, 3], [2]]


@pytest.mark.guarantee("N5")
def test_send_calls_the_handler_in_its_place_with_a_list_of_one(signals: SignalRegistry) -> None:
    def handle(contexts: list[ThingContext]) -> Any:
        return contexts, threading.current_thread()

    signal = signals.signal(NAME, context=ThingContext)
    signal.subscribe(handle, batch=Batch(100, HOUR))
    ((handler, (contexts, thread)),) = signal.send("shop", number="1")
    assert handler is handle
    assert [context.number for context in contexts] == [1]
    assert thread is threading.current_thread()


@pytest.mark.guarantee("N5")
async def test_send_async_awaits_the_handler_with_a_list_of_one(signal: EventSignal[Any]) -> None:
    async def handle(batch: Any) -> Any:
        return numbers(batch)

    async def hang(batch: Any) -> None:
        await asyncio.sleep(HOUR)

    signal.subscribe(handle, batch=Batch(100, HOUR))
    assert await signal.send_async(number=1) == [(handle, [1])]
    signal.subscribe(hang, batch=Batch(100, HOUR), timeout=0.01)
    with pytest.raises(HandlerTimeoutError):
        await signal.send_async(number=1)
