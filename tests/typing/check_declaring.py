"""What a type checker knows of a signal after its declaration.

The functions of the `check_` files are read by mypy and pyright, and called by
`test_typing.py`: what the checkers accept must work, too.
"""

from collections.abc import Callable
from typing import Any, assert_type

from madcrow_events import (
    BaseEventContext,
    EventSignal,
    HandlerGroup,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    madcrow_signals,
    user_logged_in,
    user_logged_out,
)


class OrderContext(BaseEventContext):
    order_id: int


def check_a_signal_knows_its_context() -> None:
    signals = SignalRegistry()

    placed = signals.signal("order_placed", "An order came in.", context=OrderContext)

    assert_type(placed, EventSignal[OrderContext])
    assert_type(placed.context_model, type[OrderContext] | None)
    assert_type(placed.name, str)


def check_a_signal_without_a_model_carries_any_context() -> None:
    signals = SignalRegistry(strict=False)

    assert_type(signals.signal("order_seen"), EventSignal[BaseEventContext])
    assert_type(signals.signal("order_kept", "An order."), EventSignal[BaseEventContext])
    assert_type(EventSignal("order_lost"), EventSignal[BaseEventContext])


def check_a_signal_may_have_old_names() -> None:
    signals = SignalRegistry()

    placed = signals.signal("order_placed", context=OrderContext, formerly="order_made")

    assert_type(placed, EventSignal[OrderContext])
    assert_type(placed.formerly, tuple[str, ...])
    assert_type(
        signals.signal("order_seen", "Seen.", formerly=["order_met", "order-read"]),
        EventSignal[BaseEventContext],
    )
    assert_type(signals.signal("order_kept", formerly={"order_had"}).formerly, tuple[str, ...])


def check_a_key_is_a_field_or_a_function_of_the_context() -> None:
    signals = SignalRegistry()

    placed = signals.signal(
        "order_placed", context=OrderContext, key=lambda context: context.order_id
    )

    assert_type(placed.key, str | Callable[[OrderContext], object] | None)
    assert_type(
        signals.signal("order_paid", context=OrderContext, key="order_id"),
        EventSignal[OrderContext],
    )
    assert_type(
        signals.signal("order_seen", key=lambda context: context.request_id),
        EventSignal[BaseEventContext],
    )

    @signals.event(key=lambda context: context.order_id)
    class OrderSent(OrderContext): ...

    assert_type(OrderSent(order_id=7).order_id, int)


def check_a_signal_made_by_hand_knows_its_context() -> None:
    assert_type(EventSignal("order_placed", context=OrderContext), EventSignal[OrderContext])


def check_a_look_up_knows_no_context() -> None:
    signals = SignalRegistry()
    signals.signal("order_placed", context=OrderContext)

    assert_type(signals["order_placed"], EventSignal[Any])
    assert_type(signals.resolve("order-placed"), EventSignal[Any])


def check_a_decorated_class_keeps_its_type() -> None:
    signals = SignalRegistry()

    @signals.event
    class OrderPaid(OrderContext):
        amount: int = 0

    @signals.event(name="order_lost", doc="An order went astray.")
    class Lost(OrderContext):
        reason: str | None = None

    paid: OrderPaid = OrderPaid(order_id=7, amount=3)
    assert_type(paid.amount, int)
    assert_type(Lost(order_id=7).reason, str | None)
    assert_type(signals.event(OrderContext), type[OrderContext])
    assert_type(signals[OrderPaid], EventSignal[OrderPaid])
    assert_type(signals[Lost].context_model, type[Lost] | None)


def check_built_in_signals_know_their_contexts() -> None:
    assert_type(madcrow_signals, SignalRegistry)
    assert_type(user_logged_in, EventSignal[LoginEventContext])
    assert_type(user_logged_out, EventSignal[LogoutEventContext])


def check_an_isolated_registry_is_the_registry() -> None:
    with madcrow_signals.isolated(empty=True) as signals:
        assert_type(signals, SignalRegistry)


def check_a_group_declares_signals() -> None:
    group = HandlerGroup("orders")
    group.signal("order_placed", "An order came in.", context=OrderContext)
    group.signal("order_seen", formerly=("order_met", "order_read"))
    group.signal("order_sent", context=OrderContext, formerly="order_gone", key="order_id")
    signals = SignalRegistry()
    group.register(signals)
    group.unregister(signals)
