"""How a handler of batches is called, and what happens when the queue is full (B3)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    QueueFullError,
    SignalRegistry,
    current_event,
    event_scope,
)
from support.batches import HOUR, NAME, Kept, emit_numbers, handler_of, numbers
from support.inside import backlog_of, buffering, turn_of
from support.waiting import LIMIT
from support.ways import plain_and_async

pytestmark = pytest.mark.guarantee("B3")


# How the handler is called


@plain_and_async
def test_one_batch_of_a_subscription_runs_at_a_time(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    """However many workers are free, and from however many threads is emitted."""

    def begin(batch: Any) -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        got.extend(numbers(batch))
        time.sleep(0.001)

    def end() -> None:
        with lock:
            running.pop()

    def plain(batch: Any) -> None:
        begin(batch)
        end()

    async def coroutine(batch: Any) -> None:
        begin(batch)
        await asyncio.sleep(0.001)
        end()

    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []
    got: list[int] = []
    dispatcher = EventDispatcher(signals, max_workers=4)
    signal.subscribe(coroutine if is_async else plain, batch=Batch(5, 0.001))
    threads = [
        threading.Thread(target=emit_numbers, args=(dispatcher, *range(n, 400, 4)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.close(LIMIT)
    assert max(most) == 1
    assert sorted(got) == list(range(400))
    for emitter in range(4):
        own = [number for number in got if number % 4 == emitter]
        assert own == sorted(own)


@plain_and_async
def test_subscriptions_do_not_wait_for_each_others_batches(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    async def hang(batch: Any) -> None:
        await asyncio.to_thread(free.wait, LIMIT)

    free = threading.Event()
    signal.subscribe(hang if is_async else lambda _: free.wait(LIMIT), batch=Batch(1, HOUR))
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert kept.await_one() == [1, 2]
    free.set()
    assert dispatcher.drain(LIMIT)


@plain_and_async
@pytest.mark.guarantee("A4")
def test_the_handler_sees_no_emitters_context_variables(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    """Nor does one batch see what the handler has set in another."""

    def handle(batch: Any) -> None:
        seen.append(user.get("nobody"))
        user.set("handler")

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    seen: list[str] = []
    signal.subscribe(handler_of(handle, is_async), batch=Batch(2, HOUR))
    for number in range(6):
        contextvars.copy_context().run(user.set, f"user {number}")
        token = user.set(f"user {number}")
        dispatcher.emit(signal, number=number)
        user.reset(token)
    user.set("drainer")
    assert dispatcher.drain(LIMIT)
    assert seen == ["nobody"] * 3


@plain_and_async
@pytest.mark.guarantee("B5")
def test_the_current_event_is_the_last_emission_of_the_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    current: list[Any] = []
    work = handler_of(lambda _: current.append(current_event()), is_async)
    signal.subscribe(work, batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    assert current[0] is emissions[2]
    assert current_event() is None


@plain_and_async
@pytest.mark.guarantee("B5")
def test_what_a_batch_emits_has_the_scope_fields_that_all_of_it_share(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def handle(emissions: list[Emission]) -> None:
        dispatcher.emit("next_thing")
        with emissions[0].as_cause():
            dispatcher.emit("next_thing")

    got: list[dict[str, Any]] = []
    signals.signal("next_thing").subscribe(lambda _, **context: got.append(context))
    signal.subscribe(handler_of(handle, is_async), batch=Batch(2, HOUR))
    with event_scope(ip_address="192.0.2.1"):
        for request in ("first", "second"):
            with event_scope(request_id=request):
                dispatcher.emit(signal)
        assert dispatcher.drain(LIMIT)
    with event_scope(request_id="same"):
        dispatcher.emit(signal)
        dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    with event_scope(request_id="lonely"):
        dispatcher.emit(signal)
    dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    assert got == [
        {"ip_address": "192.0.2.1"},
        {"ip_address": "192.0.2.1", "request_id": "first"},
        {"request_id": "same"},
        {"request_id": "same"},
        {},
        {"request_id": "lonely"},
    ]


@plain_and_async
@pytest.mark.guarantee("B5")
def test_what_a_batch_emits_is_caused_by_the_last_or_by_the_one_that_is_named(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def handle(emissions: list[Emission]) -> None:
        made.append(dispatcher.emit("next_thing"))
        for emission in emissions:
            with emission.as_cause():
                made.append(dispatcher.emit("next_thing"))

    made: list[Emission[Any]] = []
    signals.signal("next_thing").subscribe(lambda: None)
    signal.subscribe(handler_of(handle, is_async), batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    ids = [emission.id for emission in emissions]
    assert [emission.causation_id for emission in made] == [ids[2], *ids]
    assert [emission.correlation_id for emission in made] == [ids[2], *ids]
    assert {emission.depth for emission in made} == {0}
    assert {emission.parent for emission in made} == {None}


@plain_and_async
@pytest.mark.guarantee("B6")
def test_observers_enter_the_handling_of_a_batch_once(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    class Observing:
        @contextmanager
        def emission(self, emission: Emission[Any], /) -> Iterator[None]:
            yield

        @contextmanager
        def handling(self, emission: Emission[Any], handler: Any, /) -> Iterator[None]:
            seen.append(("enters", emission.context["number"], handler))
            try:
                yield
            except ValueError:
                seen.append(("fails", emission.context["number"], handler))
                raise
            else:
                seen.append(("leaves", emission.context["number"], handler))

    def handle(batch: Any) -> None:
        seen.append(("called", len(batch), None))
        if numbers(batch)[0] == 4:
            raise ValueError("on purpose")

    seen: list[Any] = []
    dispatcher.add_observer(Observing())
    handler = handler_of(handle, is_async)
    signal.subscribe(handler, batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    emit_numbers(dispatcher, 4, 5)
    assert dispatcher.drain(LIMIT)
    assert seen == [
        ("enters", 3, handler),
        ("called", 3, None),
        ("leaves", 3, handler),
        ("enters", 5, handler),
        ("called", 2, None),
        ("fails", 5, handler),
    ]


# A full queue


@plain_and_async
@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("emitting", ["emit", "emit in a loop", "emit_async"])
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
def test_a_queue_full_of_waiting_contexts_delivers_early(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    kept: Kept,
    overflow: Any,
    emitting: str,
    is_async: bool,
) -> None:
    """A batch that the queue has no room for is never waited for."""
    dispatcher = EventDispatcher(signals, queue_size=3, overflow=overflow)
    signal.subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR))
    accepted: list[int] = []
    refused: list[int] = []
    emissions: list[Emission[Any]] = []

    def note(number: int, emission: Emission[Any]) -> None:
        emissions.append(emission)
        if emission.pending or emission.results:
            accepted.append(number)

    async def main() -> None:
        for number in range(60):
            try:
                if emitting == "emit_async":
                    note(number, await dispatcher.emit_async(NAME, number=number))
                else:
                    note(number, dispatcher.emit(NAME, number=number))
            except QueueFullError:
                refused.append(number)
                await asyncio.sleep(0)
        assert await dispatcher.drain_async(LIMIT)  # in the loop, where async batches are handled

    if emitting == "emit":
        for number in range(60):
            try:
                note(number, dispatcher.emit(NAME, number=number))
            except QueueFullError:
                refused.append(number)
    else:
        asyncio.run(asyncio.wait_for(main(), LIMIT))
    assert len(accepted) >= 3
    assert all(emission.wait(LIMIT) for emission in emissions[:3]), "the queue has been full"
    assert dispatcher.drain(LIMIT)
    assert kept.numbers == accepted
    assert len(accepted) + len(refused) + dispatcher.dropped == 60
    assert max(map(len, kept.batches)) <= 3
    assert not any(emission.pending for emission in emissions)
    assert len(backlog_of(dispatcher).permits.free) == 3
    if overflow == "block" and emitting != "emit in a loop":
        assert accepted == list(range(60))


@plain_and_async
@pytest.mark.guarantee("B1")
def test_a_single_handler_that_finds_no_place_is_not_kept_waiting_by_a_batch(
    signals: SignalRegistry, signal: EventSignal[Any], kept: Kept, is_async: bool
) -> None:
    """The contexts that take up the whole queue are delivered; then there are places."""
    dispatcher = EventDispatcher(signals, queue_size=2)
    signal.subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR))
    signals.signal("other_thing").subscribe(lambda: "done", background=True)
    emit_numbers(dispatcher, 1)
    others = [dispatcher.emit("other_thing") for _ in range(5)]
    assert all(other.wait(LIMIT) for other in others)
    emit_numbers(dispatcher, 2, 3)
    assert dispatcher.drain(LIMIT)
    assert kept.numbers == [1, 2, 3]


@pytest.mark.guarantee("B1")
def test_an_emitter_that_waits_for_a_place_gets_that_of_a_waiting_context(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    """Though it was another handler that took the last place."""

    async def handle(batch: Any) -> None: ...

    def hold() -> None:
        began.set()
        assert free.wait(LIMIT)

    began, free = threading.Event(), threading.Event()
    dispatcher = EventDispatcher(signals, queue_size=2, max_workers=1)
    signal.subscribe(handle, batch=Batch(100, HOUR))
    signals.signal("busy_thing").subscribe(hold, background=True)
    dispatcher.emit("busy_thing")
    assert began.wait(LIMIT)
    (waiting,) = emit_numbers(dispatcher, 1)
    dispatcher.emit("busy_thing")
    emitter = threading.Thread(target=dispatcher.emit, args=("busy_thing",), daemon=True)
    emitter.start()
    emitter.join(LIMIT)
    assert not emitter.is_alive()
    assert not waiting.pending
    free.set()
    assert dispatcher.close(LIMIT)


@plain_and_async
@pytest.mark.guarantee("B1")
def test_a_waiting_context_holds_a_place_until_it_is_handled(
    signals: SignalRegistry, signal: EventSignal[Any], kept: Kept, is_async: bool
) -> None:
    """Until its handler has been called, or, if that is async, has ended."""

    def handle(batch: Any) -> None:
        left.append(len(backlog.permits.free))

    left: list[int] = []
    dispatcher = EventDispatcher(signals, queue_size=10)
    backlog = backlog_of(dispatcher)
    signal.subscribe(handler_of(handle, is_async), batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert len(backlog.permits.free) == 8
    emit_numbers(dispatcher, 3)
    assert dispatcher.drain(LIMIT)
    assert left == [7 if is_async else 10]
    assert len(backlog.permits.free) == 10


@plain_and_async
@pytest.mark.guarantee("B1")
def test_a_batch_that_emits_into_a_full_queue_is_told_so(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    """It holds up the queue itself, and waiting might never end."""

    def handle(batch: Any) -> None:
        for _ in range(10):
            dispatcher.emit("busy_thing")

    free = threading.Event()
    dispatcher = EventDispatcher(signals, queue_size=2, max_workers=2)
    signals.signal("busy_thing").subscribe(lambda: free.wait(LIMIT), background=True)
    signal.subscribe(handler_of(handle, is_async), batch=Batch(1, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    assert emission.wait(LIMIT)
    assert isinstance(emission.failures[0].exception, QueueFullError)
    free.set()
    assert dispatcher.close(LIMIT)


def test_a_batch_that_another_thread_has_handled_is_not_followed_by_a_smaller_one(
    signals: SignalRegistry, signal: EventSignal[Any], kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though an emitter saw that a batch was due, and then what had come in meanwhile."""

    def move_last(source: list[Any], *arguments: Any) -> None:
        if source is buffers[0].lease and len(buffers[0].waiting) == 2 and not emitted:
            emitted.append(3)
            turn = turn_of(buffers[0])
            turn.handle()
            turn.release()
            emit_numbers(dispatcher, 3)
        real(source, *arguments)

    dispatcher = EventDispatcher(signals, max_workers=1)
    signals.signal("another_thing").subscribe(lambda: None, background=True)
    signal.subscribe(kept, batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    buffers = list(backlog_of(dispatcher).batches.buffers.values())
    emitted: list[int] = []
    real = buffering.move_last
    monkeypatch.setattr(buffering, "move_last", move_last)
    emit_numbers(dispatcher, 2)
    assert dispatcher.emit("another_thing").wait(LIMIT)
    assert kept.batches == [[1, 2]]
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[1, 2], [3]]
