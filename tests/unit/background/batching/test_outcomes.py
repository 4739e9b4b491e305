"""What comes of a batch, and what its list holds (B3)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    HandlerTimeoutError,
    SignalRegistry,
    current_event,
    event_scope,
)
from support.batches import (
    HOUR,
    NAME,
    Kept,
    ThingContext,
    emit_numbers,
    handler_of,
    numbers,
    values_of,
)
from support.inside import backlog_of
from support.waiting import LIMIT
from support.ways import plain_and_async

pytestmark = pytest.mark.guarantee("B3")


# What comes of it


@plain_and_async
@pytest.mark.guarantee("E2")
def test_each_emission_has_what_the_handler_returned(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    signal.subscribe(handler_of(lambda batch: batch, is_async), batch=Batch(2, HOUR))
    first, second = emit_numbers(dispatcher, 1, 2)
    assert first.wait(LIMIT)
    assert second.wait(LIMIT)
    (value,), (other) = values_of(first), values_of(second)
    assert [value] == other
    assert numbers(value) == [1, 2]
    assert first.ok
    assert first.state == second.state == "done"


@plain_and_async
@pytest.mark.guarantee("E2")
async def test_a_batch_can_be_awaited_by_each_of_its_emitters(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    signal.subscribe(handler_of(len, is_async), batch=Batch(3, HOUR))
    emissions = [await dispatcher.emit_async(NAME, number=n) for n in range(2)]
    assert [emission.pending for emission in emissions] == [1, 1]
    waiting = asyncio.gather(*(emission.wait_async() for emission in emissions))
    emissions.append(dispatcher.emit(NAME, number=2))
    await asyncio.wait_for(waiting, LIMIT)
    await asyncio.wait_for(emissions[2].wait_async(), LIMIT)
    assert [values_of(emission) for emission in emissions] == [[3]] * 3


@plain_and_async
@pytest.mark.guarantee("F1")
def test_a_failing_batch_is_one_failure_that_names_its_size(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    """Every emission has it; it is logged and announced once. The next batch is called."""

    def fail(batch: Any) -> int:
        if numbers(batch)[0] == 0:
            raise ValueError("on purpose")
        return len(batch)

    told: list[Any] = []
    signals.subscribe("handler_failed", lambda **context: told.append(current_event()))
    subscription = signal.subscribe(handler_of(fail, is_async), batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 0, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    errors = set()
    for emission in emissions[:3]:
        ((handler, error),) = emission.failures
        errors.add(error)
        assert handler is subscription.handler
        assert not emission.results
        with pytest.raises(ValueError, match="on purpose"):
            emission.raise_for_failures()
    assert len(errors) == 1
    assert emissions[3].ok
    assert values_of(emissions[3]) == [1]
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().endswith(f"of {NAME} in a batch of 3 failed: ValueError")
    (announcement,) = told
    assert announcement.context.event_name == NAME
    assert announcement.context.exception_type == "ValueError"
    assert announcement.context.batch_size == 3
    assert announcement.causation_id == emissions[2].id


@plain_and_async
@pytest.mark.guarantee("F1")
def test_a_failing_handler_of_announcements_in_batches_is_not_announced_again(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    def fail(batch: Any) -> None:
        calls.append(len(batch))
        raise ValueError("on purpose")

    def fail_alone() -> None:
        raise OSError("on purpose")

    calls: list[int] = []
    signal.subscribe(fail_alone)
    signals.subscribe("handler_failed", handler_of(fail, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    assert calls == [2, 1]
    told = [message for message in caplog.messages if "ValueError" in message]
    assert len(caplog.messages) == 3 + 2
    assert [message.split(" in a ")[1] for message in told] == [
        "batch of 2 failed: ValueError",
        "batch of 1 failed: ValueError",
    ]


@plain_and_async
@pytest.mark.guarantee("F1")
def test_a_batch_with_part_of_an_announcement_is_not_announced(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    """For it would come back to the same handler, for ever; one without any is."""

    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    def passes_on() -> None:
        announced.append(1)
        dispatcher.emit(NAME, number=3)

    announced: list[int] = []
    signals.subscribe("handler_failed", passes_on)
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert announced == [1]
    (caused,) = emit_numbers(dispatcher, 4)
    assert dispatcher.drain(LIMIT)
    assert announced == [1, 1]
    assert not caused.ok


@plain_and_async
@pytest.mark.guarantee("F1")
def test_one_part_of_an_announcement_is_enough_wherever_it_stands_in_the_batch(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    def fail_alone() -> None:
        raise OSError("on purpose")

    def passes_on(exception_type: str) -> None:
        announced.append(exception_type)
        dispatcher.emit(NAME, number=1)

    announced: list[str] = []
    signals.subscribe("handler_failed", passes_on)
    signals.signal("failing_thing").subscribe(fail_alone)
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    dispatcher.emit("failing_thing")
    (other,) = emit_numbers(dispatcher, 2)
    assert other.wait(LIMIT)
    assert not other.ok
    assert dispatcher.drain(LIMIT)
    assert announced == ["OSError"]


@plain_and_async
@pytest.mark.guarantee("F1")
def test_the_announcement_of_a_failing_batch_may_take_the_places_of_the_batch(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    announced: list[int] = []
    dispatcher = EventDispatcher(signals, queue_size=2, overflow="raise")
    signals.subscribe(
        "handler_failed", lambda batch_size: announced.append(batch_size), background=True
    )
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert announced == [2]


@plain_and_async
@pytest.mark.guarantee("F1")
def test_what_a_batch_of_announcements_emits_is_part_of_them(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def passes_on(batch: Any) -> None:
        announced.append(len(batch))
        dispatcher.emit("failing_thing")

    def fail() -> None:
        raise ValueError("on purpose")

    announced: list[int] = []
    signals.subscribe("handler_failed", handler_of(passes_on, is_async), batch=Batch(2, HOUR))
    signals.signal("failing_thing").subscribe(fail)
    dispatcher.emit("failing_thing")
    assert dispatcher.drain(LIMIT)
    assert announced == [1]


@plain_and_async
@pytest.mark.guarantee("F2")
def test_the_failure_of_a_batch_is_not_raised_in_its_emitters(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    dispatcher = EventDispatcher(signals, on_error="raise")
    signal.subscribe(handler_of(fail, is_async), batch=Batch(1, HOUR))
    emission = dispatcher.emit(signal, number=1)
    assert dispatcher.drain(LIMIT)
    assert not emission.ok


@plain_and_async
@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("exit_type", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_handler_that_exits_has_failed_and_the_next_batch_is_handled(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    exit_type: type[BaseException],
    is_async: bool,
) -> None:
    def leave(batch: Any) -> int:
        if numbers(batch) == [1, 2]:
            raise exit_type
        return len(batch)

    signal.subscribe(handler_of(leave, is_async), batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3, 4)
    assert dispatcher.drain(LIMIT)
    for emission in emissions[:2]:
        (failure,) = emission.failures
        assert type(failure.exception) is exit_type
        with pytest.raises(HandlerCancelledError):
            emission.raise_for_failures()
    assert [values_of(emission) for emission in emissions[2:]] == [[2], [2]]


@plain_and_async
@pytest.mark.guarantee("F3")
def test_an_exit_of_whom_a_batch_is_announced_to_ends_no_worker(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    def leave() -> None:
        raise SystemExit

    signals.subscribe("handler_failed", leave)
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    for _ in range(2):
        emit_numbers(dispatcher, 1, 2)
        assert dispatcher.drain(LIMIT)
    told = (
        f"the announcement of a failure of {NAME} was cut off by SystemExit: "
        "some handlers of handler_failed may not have been called"
    )
    assert caplog.messages.count(told) == 2


@pytest.mark.guarantee("A5")
def test_a_timeout_is_for_the_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(batch: Any) -> str:
        if numbers(batch) == [1, 2]:
            try:
                await asyncio.sleep(HOUR)
            finally:
                cancelled.append(len(batch))
        return "in time"

    cancelled: list[int] = []
    signal.subscribe(hang, batch=Batch(2, HOUR), timeout=0.05)
    emissions = emit_numbers(dispatcher, 1, 2, 3, 4)
    assert dispatcher.drain(LIMIT)
    assert cancelled == [2]
    for emission in emissions[:2]:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerTimeoutError)
        assert failure.exception.timeout == 0.05
    assert [values_of(emission) for emission in emissions[2:]] == [["in time"]] * 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# What the list holds


@plain_and_async
@pytest.mark.guarantee("C4")
def test_a_loose_context_that_does_not_fit_is_its_emissions_own_failure(
    signals: SignalRegistry, dispatcher: EventDispatcher, is_async: bool
) -> None:
    """The others arrive, each as a model, though the handler is called after the misfit came."""

    def handle(contexts: list[ThingContext]) -> None:
        got.extend(contexts)

    got: list[Any] = []
    announced: list[str] = []
    signal = signals.signal(NAME, context=ThingContext)
    signals.subscribe(
        "handler_failed", lambda exception_type: announced.append(exception_type), weak=False
    )
    signal.subscribe(handler_of(handle, is_async), batch=Batch(10, HOUR))
    typed = ThingContext(number=1)
    emissions = [
        dispatcher.emit_typed(signal, typed),
        dispatcher.emit(signal, number="no number"),
        dispatcher.emit(signal, number="3"),
        dispatcher.emit(signal),
    ]
    assert [emission.pending for emission in emissions] == [1, 0, 1, 0]
    assert [emission.ok for emission in emissions] == [True, False, True, False]
    assert announced == ["ContextValidationError"] * 2
    assert dispatcher.drain(LIMIT)
    assert got[0] is typed
    assert [type(context) for context in got] == [ThingContext] * 2
    assert got[1].number == 3
    assert emissions[2].context["number"] == "3"
    assert len(backlog_of(dispatcher).permits.free) == 1000


def test_a_batch_of_models_that_fails_is_a_failure_of_each_emission(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Some are emitted inside of a block, and others not."""

    def handle(contexts: list[ThingContext]) -> None:
        told.append((len(contexts), dispatcher.emit("inner")))
        raise ValueError("on purpose")

    told: list[tuple[int, Emission[Any]]] = []
    announced: list[str] = []
    signals.signal("inner")
    signal = signals.signal(NAME, context=ThingContext)
    signals.subscribe(
        "handler_failed", lambda exception_type: announced.append(exception_type), weak=False
    )
    signal.subscribe(handle, batch=Batch(10, HOUR))
    first = dispatcher.emit_typed(signal, ThingContext(number=1))
    with event_scope(request_id="it"):
        second = dispatcher.emit_typed(signal, ThingContext(number=2))
    third = dispatcher.emit_typed(signal, ThingContext(number=3))
    assert dispatcher.drain(LIMIT)
    for emission in (first, second, third):
        (failure,) = emission.failures
        assert isinstance(failure.exception, ValueError)
    assert announced == ["ValueError"]
    ((number, inner),) = told
    assert number == 3
    assert "request_id" not in inner.context, "not all of the batch are in that scope"
    assert inner.causation_id == third.id
    assert len(backlog_of(dispatcher).permits.free) == 1000


def test_a_model_is_made_once_for_all_handlers_of_an_emission(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def batch_handler(contexts: list[ThingContext]) -> None:
        got.extend(contexts)

    def single_handler(context: ThingContext) -> None:
        got.append(context)

    got: list[ThingContext] = []
    signal = signals.signal(NAME, context=ThingContext)
    signal.subscribe(batch_handler, batch=Batch(10, HOUR))
    signal.subscribe(single_handler)
    dispatcher.emit(signal, number=1)
    assert dispatcher.drain(LIMIT)
    assert got[0] is got[1]


@plain_and_async
def test_emissions_in_a_list_are_those_of_the_emitters(
    signals: SignalRegistry, dispatcher: EventDispatcher, is_async: bool
) -> None:
    def untyped(emissions: list[Emission]) -> None:
        got["untyped"] = emissions

    def typed(emissions: list[Emission[ThingContext]]) -> None:
        got["typed"] = emissions

    got: dict[str, list[Any]] = {}
    signal = signals.signal(NAME, context=ThingContext)
    for work in (untyped, typed):
        signal.subscribe(handler_of(work, is_async), batch=Batch(10, HOUR))
    emissions: list[Emission[Any]] = [
        dispatcher.emit_typed(signal, ThingContext(number=1), sender="shop"),
        dispatcher.emit(signal, "shop", number=2),
    ]
    assert dispatcher.drain(LIMIT)
    assert [got["untyped"][n] is emissions[n] for n in (0, 1)] == [True, True]
    assert got["typed"][0] is emissions[0]
    assert [emission.context.number for emission in got["typed"]] == [1, 2]
    assert [emission.id for emission in got["typed"]] == [emission.id for emission in emissions]
    assert [emission.sender for emission in got["typed"]] == ["shop", "shop"]


def test_the_list_is_the_handlers_own(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    def greedy(batch: list[Any]) -> None:
        batch.clear()

    signal.subscribe(greedy, batch=Batch(2, HOUR))
    signal.subscribe(kept, batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    assert all(emission.wait(LIMIT) for emission in emissions)
    assert kept.batches == [[1, 2]]


@plain_and_async
@pytest.mark.guarantee("N4")
def test_a_pattern_has_one_batch_over_all_its_events(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    """Of events that are declared later, too; a failure names the pattern."""

    def handle(emissions: list[Emission]) -> None:
        got.append([emission.event for emission in emissions])
        if len(got) == 2:
            raise ValueError("on purpose")

    got: list[list[str]] = []
    signals.signal("order_placed")
    signals.subscribe("order_*", handler_of(handle, is_async), batch=Batch(3, HOUR))
    signals.signal("order_paid")
    signals.signal("thing_happened")
    for name in ("order_placed", "thing_happened", "order_paid", "order_placed"):
        dispatcher.emit(name)
    (failed, other) = dispatcher.emit("order_paid"), dispatcher.emit("order_placed")
    assert dispatcher.drain(LIMIT)
    assert got == [["order_placed", "order_paid", "order_placed"], ["order_paid", "order_placed"]]
    assert len(backlog_of(dispatcher).batches.buffers) == 1
    assert failed.failures == other.failures
    (record,) = caplog.records
    assert "of order_* in a batch of 2 failed" in record.getMessage()


@pytest.mark.guarantee("N4")
def test_a_pattern_of_models_gets_each_event_in_its_own(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def handle(contexts: list[BaseEventContext]) -> None:
        got.extend(type(context).__name__ for context in contexts)

    got: list[str] = []
    signals.signal("thing_happened", context=ThingContext)
    signals.signal("thing_seen")
    signals.subscribe("thing_*", handle, batch=Batch(3, HOUR))
    dispatcher.emit("thing_happened", number=1)
    dispatcher.emit("thing_seen", color="blue")
    assert dispatcher.drain(LIMIT)
    assert got == ["ThingContext", "GenericEventContext"]
