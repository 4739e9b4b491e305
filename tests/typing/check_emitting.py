"""What a type checker knows of an emission."""

import asyncio
from typing import Any, assert_type
from uuid import UUID

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    GenericEventContext,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    current_event,
    emit_event,
    emit_event_async,
    emit_login_event,
    emit_logout_event,
    get_event_dispatcher,
    madcrow_signals,
    request_fields,
    set_event_dispatcher,
    user_logged_in,
)
from madcrow_events.dispatcher import ContextEmitter
from madcrow_events.emissions import HandlerFailure, HandlerResult
from madcrow_events.signals import (
    CalledHandler,
    CallMode,
    Explanation,
    LeftOutHandler,
    LeftOutReason,
)


class OrderContext(BaseEventContext):
    order_id: int


class GiftContext(OrderContext):
    greeting: str = ""


signals = SignalRegistry()
order_placed = signals.signal("order_placed", context=OrderContext)
order_seen = signals.signal("order_seen")
dispatcher = EventDispatcher(signals, on_error="raise", validate=True)


def check_emit_has_one_signature_for_contexts_and_keywords() -> None:
    by_name = dispatcher.emit("order_placed", order_id=7)
    by_signal = dispatcher.emit(order_placed, "shop", order_id=7)

    assert_type(by_name, Emission[Any])
    assert_type(by_signal.context["order_id"], Any)
    assert_type(dispatcher.emit(OrderContext(order_id=7), sender="shop"), Emission[Any])
    assert_type(emit_event(user_logged_in, user_id=1, email=""), Emission[Any])
    assert_type(emit_event(LoginEventContext(user_id=1, email=""), "shop"), Emission[Any])


def check_a_signal_is_emitted_with_its_context() -> None:
    assert_type(order_placed.emit(OrderContext(order_id=7)), Emission[OrderContext])
    assert_type(order_placed.emit(GiftContext(order_id=7), "shop"), Emission[OrderContext])
    assert_type(order_placed.emit(context=OrderContext(order_id=7)).context.order_id, int)
    assert_type(order_seen.emit(OrderContext(order_id=7)), Emission[BaseEventContext])
    assert_type(signals[OrderContext].emit(OrderContext(order_id=7)), Emission[OrderContext])


def check_so_it_is_where_async_handlers_are_awaited() -> None:
    order, login = OrderContext(order_id=7), LoginEventContext(user_id=1, email="")

    async def emit() -> None:
        assert_type(await order_placed.emit_async(order, sender="shop"), Emission[OrderContext])
        assert_type(await dispatcher.emit_async(order), Emission[Any])
        assert_type(await dispatcher.emit_async("order_placed", order_id=7), Emission[Any])
        assert_type(await emit_event_async(login), Emission[Any])

    asyncio.run(emit())


def check_a_delivery_knows_the_context_that_it_was_given() -> None:
    bound = order_placed.bind(lambda: None)
    order = OrderContext(order_id=7)
    fields = request_fields(user_agent="shop")
    delivery = dispatcher.deliver(bound, order, id=UUID(int=1), scope=fields)

    async def deliver() -> None:
        delivery = await dispatcher.deliver_async(bound, order, scope={"request_id": "r-1"})
        assert_type(delivery, Emission[OrderContext])
        assert_type(await dispatcher.announce_async(delivery), None)

    assert_type(delivery, Emission[OrderContext])
    assert_type(delivery.context.order_id, int)
    dispatcher.announce(delivery)
    asyncio.run(deliver())


def check_an_explanation_lists_handlers() -> None:
    explanation = signals.explain(order_placed, sender="shop", order_id=7)

    assert_type(explanation, Explanation)
    assert_type(explanation.called, tuple[CalledHandler, ...])
    assert_type(explanation.left_out, tuple[LeftOutHandler, ...])
    for called in explanation.called:
        assert_type(called.mode, CallMode)
    for left_out in explanation.left_out:
        assert_type(left_out.reason, LeftOutReason)
    assert_type(signals.explain("order_placed"), Explanation)


def check_a_typed_emission_carries_its_context() -> None:
    order = OrderContext(order_id=7)

    by_signal = dispatcher.emit_typed(order_placed, order)
    by_name = dispatcher.emit_typed("order_placed", order, sender="shop")

    assert_type(by_signal, Emission[OrderContext])
    assert_type(by_signal.context, OrderContext)
    assert_type(by_signal.context.order_id, int)
    assert_type(by_name, Emission[OrderContext])


def check_a_context_of_a_derived_model_will_do() -> None:
    assert_type(
        dispatcher.emit_typed(order_placed, GiftContext(order_id=7)), Emission[OrderContext]
    )


def check_a_signal_without_a_model_keeps_the_type_of_the_context() -> None:
    emission = dispatcher.emit_typed(order_seen, OrderContext(order_id=7))

    assert_type(emission, Emission[OrderContext])


def check_a_generic_context_may_be_emitted_on_any_signal() -> None:
    placed = GenericEventContext(event_type="order_placed", data={"order_id": 7})
    seen = GenericEventContext(event_type="order_seen", data={"order_id": 7})

    assert_type(dispatcher.emit_typed(order_placed, placed), Emission[GenericEventContext])
    assert_type(dispatcher.emit_typed("order_placed", placed), Emission[GenericEventContext])
    assert_type(dispatcher.emit_typed(order_seen, seen), Emission[GenericEventContext])


def check_emitters_know_their_contexts() -> None:
    login = LoginEventContext(user_id=1, email="user@example.com", session_duration=60)
    logout = LogoutEventContext(user_id="1", email="user@example.com")

    assert_type(emit_login_event, ContextEmitter[LoginEventContext])
    assert_type(emit_login_event(login), Emission[LoginEventContext])
    assert_type(emit_logout_event(context=logout, sender="shop"), Emission[LogoutEventContext])


def check_the_outcome_of_an_emission() -> None:
    emission = dispatcher.emit_typed(order_placed, OrderContext(order_id=7))

    assert_type(emission.event, str)
    assert_type(emission.ok, bool)
    assert_type(emission.results, tuple[HandlerResult, ...])
    assert_type(emission.failures, tuple[HandlerFailure, ...])
    assert_type([result.value for result in emission.results], list[Any])
    assert_type([failure.exception for failure in emission.failures], list[BaseException])
    assert_type(emission.pending, int)
    assert_type(emission.depth, int)
    assert_type(emission.parent, Emission[Any] | None)
    assert_type(emission.dispatcher, EventDispatcher | None)
    assert_type(emission.wait(timeout=1), bool)
    assert_type(current_event(), Emission[Any] | None)


def check_an_emission_is_one_of_its_contexts_base() -> None:
    emission = dispatcher.emit_typed(order_placed, OrderContext(order_id=7))
    of_any_context: Emission[BaseEventContext] = emission

    assert of_any_context.context.request_id is None


def check_dispatchers_make_dispatchers() -> None:
    assert_type(dispatcher.with_options(on_error="log"), EventDispatcher)
    assert_type(get_event_dispatcher(), EventDispatcher)
    assert_type(signals.dispatcher, EventDispatcher)
    signals.dispatcher = dispatcher.with_options(on_error="log")
    set_event_dispatcher(madcrow_signals.dispatcher)
    set_event_dispatcher(None)
