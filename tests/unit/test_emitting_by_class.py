"""Where a model belongs to one event, emitting a context emits that event (E4, E5)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from unittest import mock

import pytest
from pydantic import Field

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    LoginEventContext,
    SignalRegistry,
    UnknownEventError,
    emit_event,
    emit_event_async,
    event_scope,
    get_event_dispatcher,
    madcrow_signals,
    set_event_dispatcher,
)
from support.async_handlers import run
from support.shortest import Emit, by_class, in_short
from support.subscribers import OrderPlaced

pytestmark = pytest.mark.guarantee("E4")


class Gift(OrderPlaced):
    greeting: str = ""


class Sent(BaseEventContext):
    by: str = Field(alias="carrier")


@pytest.fixture
def placed() -> EventSignal[OrderPlaced]:
    madcrow_signals.event(OrderPlaced)
    return madcrow_signals[OrderPlaced]


@in_short
def test_a_context_emits_the_event_of_its_class(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    order, sender = OrderPlaced(order_id=7), object()

    @placed.on()
    async def awaited(context: OrderPlaced) -> int:
        return context.order_id

    placed.subscribe(lambda sender, **context: (sender, context["order_id"]))
    for arguments, keywords in ((), {}), ((sender,), {}), ((), {"sender": sender}):
        emission = emit(order, *arguments, **keywords)
        assert emission.wait(10)
        assert emission.signal is placed
        assert emission.context is order
        expected = placed if (arguments, keywords) == ((), {}) else sender
        assert emission.sender is expected
        assert {it.value for it in emission.results} == {7, (expected, 7)}
        assert emission.dispatcher is get_event_dispatcher() is madcrow_signals.dispatcher


@in_short
def test_what_a_handler_raises_is_treated_as_the_dispatcher_says(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    placed.subscribe(lambda: 1 / 0)
    told: list[str] = []
    madcrow_signals.subscribe("handler_failed", lambda event_name: told.append(event_name))
    assert not emit(OrderPlaced(order_id=7)).ok
    set_event_dispatcher(EventDispatcher(on_error="raise"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            emit(OrderPlaced(order_id=7))
    assert told == ["order_placed"] * 3


@in_short
def test_a_context_takes_the_fields_of_its_scope_and_waits_in_a_deferring_block(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    with event_scope(request_id="r-1"), madcrow_signals.dispatcher.deferred():
        emission = emit(OrderPlaced(order_id=7))
        assert emission.state == "deferred"
    assert emission.state == "done"
    assert emission.context.request_id == "r-1"


@in_short
def test_a_context_whose_fields_have_aliases_is_emitted_as_it_is(emit: Emit) -> None:
    madcrow_signals.event(Sent)
    heard: list[Any] = []
    madcrow_signals.subscribe("sent", lambda by: heard.append(by))
    assert emit(Sent(carrier="bike")).ok
    assert heard == ["bike"]


@by_class
def test_a_context_of_a_derived_class_emits_the_event_of_the_nearest_base(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    class GiftPlaced(Gift): ...

    assert emit(GiftPlaced(order_id=7)).signal is placed
    given = madcrow_signals.signal("gift_placed", context=Gift)
    assert emit(GiftPlaced(order_id=7)).signal is given
    assert emit(Gift(order_id=7)).signal is given
    assert emit(OrderPlaced(order_id=7)).signal is placed
    assert placed.emit(Gift(order_id=7)).signal is placed


@by_class
def test_a_context_of_two_unrelated_bases_is_that_of_neither(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    class Both(Gift, LoginEventContext): ...

    both = Both(order_id=7, user_id=1, email="")
    message = "Both may be any of the events order_placed, user_logged_in: say which, as in "
    with pytest.raises(ContextTypeError, match=message) as caught:
        emit(both)
    assert caught.value.received is Both
    assert placed.emit(both).ok


@by_class
def test_the_base_of_all_contexts_is_no_ones_context(emit: Emit) -> None:
    with pytest.raises(UnknownEventError, match="BaseEventContext is the model of no event"):
        emit(BaseEventContext())
    madcrow_signals.signal("anything", context=BaseEventContext)
    assert emit(BaseEventContext()).event == "anything"
    with pytest.raises(UnknownEventError, match="OrderPlaced is the model of no event"):
        emit(OrderPlaced(order_id=7))


@by_class
def test_a_generic_context_emits_the_event_that_it_names(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    context = GenericEventContext(event_type="order-placed", data={"order_id": 7})
    heard: list[Any] = []
    placed.subscribe(lambda order_id: heard.append(order_id))
    assert emit(context).signal is placed
    assert placed.emit(context).ok  # type: ignore[arg-type]  # C3 lets it be
    assert heard == [7, 7]
    with pytest.raises(UnknownEventError, match="no event is called 'order_lost'"):
        emit(GenericEventContext(event_type="order_lost", data={}))
    with pytest.raises(ValueError, match="cannot be of type NoneType"):
        emit(GenericEventContext.model_construct())


@by_class
def test_a_context_that_lacks_fields_is_refused(
    placed: EventSignal[OrderPlaced], emit: Emit
) -> None:
    placed.subscribe(lambda order_id: order_id)
    with pytest.raises(ContextValidationError, match="order_id"):
        emit(OrderPlaced.model_construct())


@pytest.mark.parametrize("is_async", [False, True])
def test_a_context_of_another_registry_is_told_so(
    placed: EventSignal[OrderPlaced], dispatcher: EventDispatcher, *, is_async: bool
) -> None:
    order = OrderPlaced(order_id=7)
    with pytest.raises(UnknownEventError, match="no event of <SignalRegistry of 0 events> at 0x"):
        run(dispatcher.emit_async(order)) if is_async else dispatcher.emit(order)
    by_hand = EventSignal("order_placed", context=OrderPlaced)
    with pytest.raises(UnknownEventError, match="order_placed belongs to no registry: declare it"):
        run(by_hand.emit_async(order)) if is_async else by_hand.emit(order)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_signal_emits_through_the_dispatcher_of_its_own_registry(
    signals: SignalRegistry, dispatcher: EventDispatcher, *, is_async: bool
) -> None:
    signals.event(OrderPlaced)
    signal, order = signals[OrderPlaced], OrderPlaced(order_id=7)
    for _ in range(2):
        emission = run(signal.emit_async(order)) if is_async else signal.emit(order)
        assert emission.dispatcher is dispatcher is signals.dispatcher
    with pytest.raises(ContextTypeError, match="order_placed carries OrderPlaced, not LoginEventC"):
        signal.emit(LoginEventContext(user_id=1, email=""))  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("is_async", [False, True])
def test_a_signal_without_a_model_emits_any_context(
    signals: SignalRegistry, *, is_async: bool
) -> None:
    seen, order = signals.signal("order_seen"), OrderPlaced(order_id=7)
    emission = run(seen.emit_async(order)) if is_async else seen.emit(order)
    assert emission.context is order


@pytest.mark.parametrize("is_async", [False, True])
def test_a_subclass_of_dispatchers_can_change_how_contexts_are_emitted(
    signals: SignalRegistry, *, is_async: bool
) -> None:
    class Counting(EventDispatcher):
        number = 0

        def emit_typed(self, *arguments: Any, **keywords: Any) -> Any:
            self.number += 1
            return super().emit_typed(*arguments, **keywords)

        async def emit_typed_async(self, *arguments: Any, **keywords: Any) -> Any:
            self.number += 1
            return await super().emit_typed_async(*arguments, **keywords)

    signals.event(OrderPlaced)
    signals.dispatcher = dispatcher = Counting(signals)
    signal, order = signals[OrderPlaced], OrderPlaced(order_id=7)

    async def emit_async() -> list[Emission[Any]]:
        return [await signal.emit_async(order), await dispatcher.emit_async(order)]

    emissions = run(emit_async()) if is_async else [signal.emit(order), dispatcher.emit(order)]
    assert [emission.ok for emission in emissions] == [True, True]
    assert dispatcher.number == 2


def test_an_interrupt_goes_through_a_signal_and_leaves_nothing_behind(
    placed: EventSignal[OrderPlaced],
) -> None:
    def handler() -> None:
        raise KeyboardInterrupt

    with placed.subscribe(handler), pytest.raises(KeyboardInterrupt):
        placed.emit(OrderPlaced(order_id=7))
    assert placed.emit(OrderPlaced(order_id=7)).depth == 0


def test_an_emission_without_end_is_broken_off(placed: EventSignal[OrderPlaced]) -> None:
    placed.subscribe(lambda: placed.emit(OrderPlaced(order_id=7)))
    emission = placed.emit(OrderPlaced(order_id=7))
    assert [type(it.exception).__name__ for it in emission.failures] == ["EmissionDepthError"]


@pytest.mark.guarantee("E5")
@pytest.mark.parametrize("is_async", [False, True])
def test_a_context_beside_a_name_is_refused_wherever_it_is_put(
    placed: EventSignal[OrderPlaced], *, is_async: bool
) -> None:
    def emit(*arguments: Any, **keywords: Any) -> Any:
        if is_async:
            return asyncio.run(emit_event_async(*arguments, **keywords))
        return emit_event(*arguments, **keywords)

    order = OrderPlaced(order_id=7)
    for arguments, keywords, message in (
        (("order_placed", order), {}, r"as the sender: write emit_event\(OrderPlaced\(\.\.\.\)\)$"),
        (("order_placed",), {"context": order}, r"\): write emit_event\(OrderPlaced\(\.\.\.\)\)$"),
        ((order,), {"context": order}, "with the keyword 'context' beside its context: write all"),
        ((order,), {"order_id": 8}, "with the keyword 'order_id' beside its context: write all"),
        ((OrderPlaced,), {}, r"the class OrderPlaced in the place of a context: write Ord"),
    ):
        with pytest.raises(ContextTypeError, match=message):
            emit(*arguments, **keywords)


@pytest.mark.guarantee("E5")
def test_a_context_beside_the_name_of_another_event_is_told_so(
    placed: EventSignal[OrderPlaced],
) -> None:
    """What a message says to write is offered only if it emits this event."""
    order, login = OrderPlaced(order_id=7), LoginEventContext(user_id=98765, email="")
    madcrow_signals.signal("order_seen")
    others = SignalRegistry()
    others.event(OrderPlaced)
    dispatcher = EventDispatcher(others)
    others.signal("seen", context=Gift)
    others.signal("seen_again", context=Gift)
    by_hand = EventSignal("made_by_hand")
    wrong: list[tuple[Any, str]] = [
        (lambda: emit_event("order_placed", context=login), "placed carries OrderPlaced, not Log"),
        (lambda: emit_event("order_placed", login), "placed carries OrderPlaced, not LoginEventCo"),
        (
            lambda: emit_event("order_seen", order),
            r"write madcrow_signals\['order_seen'\]\.emit\(O",
        ),
        (lambda: emit_event("order_seen", {"a": 1}), r"write emit_event\('order_seen', \*\*fields"),
        (
            lambda: dispatcher.emit("order_placed", order),
            r"write dispatcher\.emit\(OrderPlaced\(\.",
        ),
        (
            lambda: dispatcher.emit("seen", Gift(order_id=1)),
            r"registry\['seen'\]\.emit\(Gift\(\.\.",
        ),
        (lambda: dispatcher.emit(by_hand, order), r"write made_by_hand\.emit\(OrderPlaced\(\.\.\."),
        (lambda: others["seen"].emit(), r"or dispatcher\.emit\('seen', \.\.\.\) for keywords"),
    ]
    for emit, message in wrong:
        with pytest.raises(ContextTypeError, match=message) as caught:
            emit()
        assert "98765" not in str(caught.value)


def test_what_is_logged_of_it_shows_no_values(
    placed: EventSignal[OrderPlaced], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    emit_event(OrderPlaced(order_id=12345))
    assert "order_placed" in caplog.text
    assert "12345" not in caplog.text


@in_short
def test_a_second_context_is_no_sender(placed: EventSignal[OrderPlaced], emit: Emit) -> None:
    with pytest.raises(ContextTypeError, match="second context, as the sender: emit each context"):
        emit(OrderPlaced(order_id=7), Gift(order_id=8))


@by_class
@pytest.mark.usefixtures("placed")
def test_a_dispatcher_of_a_derived_class_gets_each_emission(emit: Emit) -> None:
    """The first, for which the event is looked up, and those after it."""
    emitted: list[object] = []

    class Counting(EventDispatcher):
        def emit(self, event: Any, /, sender: object = None, **context: object) -> Emission[Any]:
            emitted.append(event)
            return super().emit(event, sender, **context)

        async def emit_async(
            self, event: Any, /, sender: object = None, **context: object
        ) -> Emission[Any]:
            emitted.append(event)
            return await super().emit_async(event, sender, **context)

    set_event_dispatcher(Counting())
    orders = [OrderPlaced(order_id=number) for number in range(3)]
    for order in orders:
        assert emit(order).ok
    assert emitted == orders


@pytest.mark.usefixtures("placed")
def test_a_dispatcher_with_a_patched_method_is_called_by_it() -> None:
    order = OrderPlaced(order_id=7)
    emit_event(order)
    with mock.patch.object(get_event_dispatcher(), "emit") as patched:
        emit_event(order)
    patched.assert_called_once_with(order, None)
    with mock.patch.object(get_event_dispatcher(), "emit_typed") as patched:
        madcrow_signals[OrderPlaced].emit(order)
    assert patched.called
    assert emit_event(order).ok
