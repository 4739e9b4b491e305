"""What an emission tells: its fields, its cause, and when its handlers have ended (E7)."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import nullcontext
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    HandlerFailedEventContext,
    InvalidOptionError,
    SignalRegistry,
    event_scope,
)
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("E7")


class OrderPlaced(BaseEventContext):
    order_id: int
    note: str = "none"


@pytest.fixture
def order_placed(signals: SignalRegistry) -> EventSignal[OrderPlaced]:
    return signals.signal("order_placed", context=OrderPlaced)


# Waiting


async def test_a_wait_in_a_task_tells_whether_the_handlers_have_ended(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """After some seconds, at once, or without a limit."""
    free = asyncio.Event()

    @signal.on()
    async def handler() -> str:
        await free.wait()
        return "ended"

    emission = dispatcher.emit(signal)
    began = time.monotonic()
    assert await emission.wait_async(0) is False
    assert await emission.wait_async(timeout=0.05) is False
    assert 0.05 <= time.monotonic() - began < LIMIT
    assert emission.pending == 1
    free.set()
    assert await emission.wait_async(LIMIT) is True
    assert await emission.wait_async() is True
    assert await emission.wait_async(0) is True
    assert [result.value for result in emission.results] == ["ended"]


async def test_a_wait_without_a_limit_ends_with_the_last_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: time.sleep(0.02), background=True)
    emission = dispatcher.emit(signal)
    assert await emission.wait_async() is True
    assert emission.state == "done"


@pytest.mark.parametrize("timeout", [-1, True, "5", float("nan"), float("inf")])
async def test_an_impossible_time_to_wait_is_refused(
    signal: EventSignal[Any], dispatcher: EventDispatcher, timeout: Any
) -> None:
    with pytest.raises(InvalidOptionError, match="a number of seconds, 0 or more"):
        await dispatcher.emit(signal).wait_async(timeout)


def test_there_is_no_done_which_says_something_else_on_a_future(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    assert not hasattr(dispatcher.emit(signal), "done")


# Fields


def test_the_fields_are_those_of_a_model_or_the_keywords(
    signals: SignalRegistry, dispatcher: EventDispatcher, order_placed: EventSignal[OrderPlaced]
) -> None:
    """Also what a generic context has in its `data`, and what an `event_scope` fills in."""
    with event_scope(request_id="r1"):
        typed = dispatcher.emit_typed(order_placed, OrderPlaced(order_id=1))
        loose = dispatcher.emit(order_placed, order_id=1)
    generic = dispatcher.emit_typed(
        order_placed, GenericEventContext(event_type="order_placed", data={"order_id": 1})
    )
    assert {*typed.fields} == {*OrderPlaced.model_fields}
    assert (typed.fields["order_id"], typed.fields["note"]) == (1, "none")
    assert typed.fields["request_id"] == "r1"
    assert dict(loose.fields) == {"order_id": 1, "request_id": "r1"}
    assert generic.fields["order_id"] == 1


def test_the_fields_are_read_only(
    dispatcher: EventDispatcher, order_placed: EventSignal[OrderPlaced]
) -> None:
    for emission in (
        dispatcher.emit(order_placed, order_id=1),
        dispatcher.emit_typed(order_placed, OrderPlaced(order_id=1)),
    ):
        fields: Any = emission.fields
        with pytest.raises(TypeError):
            fields["order_id"] = 2
        assert emission.fields["order_id"] == 1


# The cause


def collect(signal: EventSignal[Any]) -> list[Emission[Any]]:
    """Return a list that gets the emissions of an event."""
    heard: list[Emission[Any]] = []

    def hear(emission: Emission[Any]) -> None:
        heard.append(emission)

    signal.subscribe(hear)
    return heard


@pytest.fixture
def effect(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("effect")


def test_the_cause_of_an_emission_is_the_one_whose_handler_emitted_it(
    signal: EventSignal[Any], effect: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """None if there is no such handler."""
    heard = collect(effect)
    signal.subscribe(lambda: dispatcher.emit(effect))
    cause = dispatcher.emit(signal)
    assert heard[0].cause is cause is heard[0].parent
    assert cause.cause is None


@pytest.mark.parametrize("options", [{"background": True}, {"batch": Batch(max_size=1)}], ids=str)
def test_the_cause_is_known_in_the_background_as_long_as_somebody_holds_it(
    signal: EventSignal[Any], effect: EventSignal[Any], dispatcher: EventDispatcher, options: Any
) -> None:
    """`causation_id` is known for ever."""
    heard = collect(effect)

    def work(_context: Any) -> None:
        dispatcher.emit(effect)

    def plain(sender: Any, **context: Any) -> None:
        work(context)

    signal.subscribe(work if "batch" in options else plain, **options)
    cause = dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    assert heard[0].parent is None
    assert heard[0].cause is cause
    identity, reference = cause.id, weakref.ref(cause)
    del cause
    gc.collect()
    assert reference() is None
    assert heard[0].cause is None
    assert heard[0].causation_id == identity


async def test_a_task_that_outlives_its_handler_knows_the_cause(
    signal: EventSignal[Any], effect: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    heard, tasks = collect(effect), []

    async def later() -> None:
        await asyncio.sleep(0)
        dispatcher.emit(effect)

    signal.subscribe(lambda: tasks.append(asyncio.create_task(later())))
    cause = dispatcher.emit(signal)
    await tasks.pop()
    assert heard[0].parent is None
    assert heard[0].cause is cause


def test_a_block_of_as_cause_and_a_deferred_one_name_the_cause(
    signal: EventSignal[Any], effect: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """An `as_cause` does not keep it alive."""
    cause = dispatcher.emit(signal)
    with dispatcher.deferred(), cause.as_cause():
        caused = dispatcher.emit(effect)
        assert caused.cause is cause
    assert caused.cause is cause
    reference = weakref.ref(cause)
    del cause
    gc.collect()
    assert reference() is None
    assert caused.cause is None


def test_whoever_holds_the_emission_with_the_model_holds_the_cause(
    order_placed: EventSignal[OrderPlaced], effect: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A loose emission is given to this handler as a twin, which has the model."""
    heard: list[Emission[OrderPlaced]] = []

    def hear(emission: Emission[OrderPlaced]) -> None:
        heard.append(emission)

    effects = collect(effect)
    order_placed.subscribe(hear)
    order_placed.subscribe(lambda: dispatcher.emit(effect), background=True)
    identity = dispatcher.emit(order_placed, order_id=1).id
    assert dispatcher.drain(LIMIT)
    gc.collect()
    (caused,) = effects
    assert caused.cause is not None
    assert caused.cause.id == heard[0].id == identity
    with heard[0].as_cause():
        again = dispatcher.emit(effect)
    assert again.cause is caused.cause
    heard.clear()
    gc.collect()
    assert again.cause is caused.cause is None


@pytest.mark.parametrize("fails_in", ["inline", "background", "batch", "emit_async"])
@pytest.mark.parametrize("reports_in", ["inline", "background", "async background"])
def test_a_handler_of_failures_reads_the_exceptions_from_the_cause(
    signal: EventSignal[Any], signals: SignalRegistry, fails_in: str, reports_in: str
) -> None:
    """Though nobody else holds the emission that failed."""
    told: list[Any] = []
    error = ValueError("on purpose")

    def report(emission: Emission[HandlerFailedEventContext]) -> None:
        gc.collect()
        cause = emission.cause
        assert cause is not None
        told.append((cause.event, dict(cause.fields), [it.exception for it in cause.failures]))

    async def report_async(emission: Emission[HandlerFailedEventContext]) -> None:
        await asyncio.sleep(0)
        report(emission)

    def fail(_context: Any = None) -> None:
        raise error

    async def fail_async() -> None:
        await asyncio.sleep(0)
        raise error

    is_async = reports_in.startswith("async")
    signals.subscribe(
        "handler_failed",
        report_async if is_async else report,
        background=reports_in != "inline",
    )
    if fails_in == "batch":
        signal.subscribe(fail, batch=Batch(max_size=1))
    elif fails_in == "emit_async":
        signal.subscribe(fail_async)
    else:
        signal.subscribe(lambda: fail(), background=fails_in == "background")
    with EventDispatcher(signals) as dispatcher:
        if fails_in == "emit_async":
            asyncio.run(emit_and_drain(dispatcher, signal))
        else:
            dispatcher.emit(signal, number=1)
        assert dispatcher.drain(LIMIT)
    assert told == [("thing_happened", {"number": 1}, [error])]


async def emit_and_drain(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> None:
    await dispatcher.emit_async(signal, number=1)
    assert await dispatcher.drain_async(LIMIT)


def test_an_announcement_holds_its_cause_and_what_that_causes_does_not(
    signal: EventSignal[Any],
    effect: EventSignal[Any],
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
) -> None:
    """Also if it is held back, as by an observer of the emission that failed."""

    class Observer:
        def emission(self, emission: Emission[Any]) -> Any:
            return dispatcher.deferred()

        def handling(self, emission: Emission[Any], handler: Any) -> Any:
            return nullcontext()

    def fail() -> None:
        raise ValueError

    effects, failed = collect(effect), collect(signals.signal("handler_failed"))
    signals.subscribe("handler_failed", lambda: dispatcher.emit(effect), background=True)
    signal.subscribe(fail)
    dispatcher.add_observer(Observer())
    dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    gc.collect()
    assert failed[0].cause is not None
    assert failed[0].cause.event == "thing_happened"
    assert effects[0].cause is failed[0]
    reference = weakref.ref(failed[0].cause)
    failed.clear()
    gc.collect()
    assert reference() is None
    assert effects[0].cause is None


async def test_an_announcement_by_a_task_that_outlives_its_handler_holds_its_cause(
    signal: EventSignal[Any],
    effect: EventSignal[Any],
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
) -> None:
    tasks = []

    async def later() -> None:
        await asyncio.sleep(0)
        dispatcher.emit(effect)

    def fail() -> None:
        raise ValueError

    failed = collect(signals.signal("handler_failed"))
    signal.subscribe(lambda: tasks.append(asyncio.create_task(later())))
    effect.subscribe(fail)
    dispatcher.emit(signal)
    await tasks.pop()
    gc.collect()
    assert failed[0].cause is not None
    assert failed[0].cause.event == "effect"
