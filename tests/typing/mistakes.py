# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Mistakes that mypy and pyright both find.

Each line in error bears a comment that both heed. Where one of them finds no
mistake any more, it reports the comment as unused; `test_typing.py` also takes
the comments away, and compares. Nothing here ever runs.
"""

from typing import Any, assert_type

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    HandlerGroup,
    LoginEventContext,
    SignalRegistry,
    emit_event,
    emit_login_event,
    on_event,
    on_user_login,
    register_handler,
)


class OrderContext(BaseEventContext):
    order_id: int


class GiftContext(OrderContext):
    greeting: str


def with_order(context: OrderContext) -> None: ...
def with_gift(context: GiftContext) -> None: ...
def with_login(context: LoginEventContext) -> None: ...
def with_login_emission(emission: Emission[LoginEventContext]) -> None: ...
def with_keywords(sender: object, **context: Any) -> None: ...
def with_two(sender: object, context: OrderContext) -> None: ...
def by_name(order_id: int) -> None: ...
def with_nothing() -> None: ...
def with_orders(contexts: list[OrderContext]) -> None: ...
def with_gifts(contexts: list[GiftContext]) -> None: ...
def with_logins(contexts: list[LoginEventContext]) -> None: ...
def with_login_emissions(emissions: list[Emission[LoginEventContext]]) -> None: ...


signals = SignalRegistry()
dispatcher = EventDispatcher(signals)
placed = signals.signal("order_placed", context=OrderContext)
seen = signals.signal("order_seen")
order = OrderContext(order_id=7)
login = LoginEventContext(user_id=1, email="user@example.com")


def declaring() -> None:
    signals.signal("order_sent", context=int)  # type: ignore[type-var]
    signals.signal("order_sent", context=order)  # type: ignore[call-overload]
    signals.signal(7)  # type: ignore[call-overload]
    signals.signal("order_sent", formerly=7)  # type: ignore[call-overload]
    signals.signal("order_sent", context=OrderContext, formerly=[7])  # type: ignore[list-item]
    signals.signal("order_sent", formerly=placed)  # type: ignore[call-overload]
    signals.signal("order_sent", key=7)  # type: ignore[call-overload]
    signals.signal("order_sent", context=OrderContext, key=with_login)  # type: ignore[arg-type]
    signals.event(key=7)  # type: ignore[call-overload]
    EventSignal("order_sent", context=int)  # type: ignore[type-var]
    _: EventSignal[LoginEventContext] = placed  # type: ignore[assignment]


def making_contexts() -> None:
    LoginEventContext(email="user@example.com")  # type: ignore[call-arg]
    LoginEventContext(user_id=1.5, email="")  # type: ignore[arg-type]
    LoginEventContext(user_id=1, email="", mail="")  # type: ignore[call-arg]
    LoginEventContext(user_id=1, email=b"")  # type: ignore[arg-type]
    GenericEventContext(data={})  # type: ignore[call-arg]


def emitting() -> None:
    dispatcher.emit_typed(placed, login)  # type: ignore[arg-type]
    dispatcher.emit_typed(placed, BaseEventContext())  # type: ignore[arg-type]
    dispatcher.emit_typed(placed, LoginEventContext)  # type: ignore[call-overload]
    dispatcher.emit_typed(placed, {"order_id": 7})  # type: ignore[call-overload]
    dispatcher.emit_typed(placed, order_id=7)  # type: ignore[call-overload]
    dispatcher.emit_typed("order_placed", {"order_id": 7})  # type: ignore[call-overload]
    dispatcher.emit_typed(seen, 7)  # type: ignore[call-overload]
    dispatcher.emit(7)  # type: ignore[arg-type]
    dispatcher.emit(OrderContext)  # type: ignore[arg-type]
    emit_event(OrderContext)  # type: ignore[arg-type]
    placed.emit()  # type: ignore[call-arg]
    placed.emit(order_id=7)  # type: ignore[call-arg, arg-type]
    placed.emit(order, order_id=7)  # type: ignore[arg-type]
    placed.emit(login)  # type: ignore[arg-type]
    placed.emit(OrderContext)  # type: ignore[arg-type]
    placed.emit("order_placed", order_id=7)  # type: ignore[arg-type]
    _ = placed.emit_async()  # type: ignore[call-arg]
    _ = placed.emit_async(login)  # type: ignore[arg-type]
    signals.dispatcher = None  # type: ignore[assignment]
    emit_login_event(order)  # type: ignore[arg-type]
    emit_login_event(user_id=1, email="")  # type: ignore[call-arg]
    EventDispatcher(on_error="explode")  # type: ignore[arg-type]
    dispatcher.with_options(strict=True)  # type: ignore[call-arg]


def reading_emissions() -> None:
    emission = dispatcher.emit_typed(placed, order)
    emission.context.email  # type: ignore[attr-defined]
    placed.emit(order).context.email  # type: ignore[attr-defined]
    assert_type(emission, Emission[LoginEventContext])  # type: ignore[assert-type]


def subscribing() -> None:
    placed.subscribe(with_login)  # type: ignore[arg-type]
    placed.subscribe(with_login_emission)  # type: ignore[arg-type]
    placed.subscribe(with_gift)  # type: ignore[arg-type]
    placed.subscribe(with_two)  # type: ignore[arg-type]
    placed.subscribe(by_name)  # type: ignore[arg-type]
    placed.subscribe("with_order")  # type: ignore[call-overload]
    seen.subscribe(with_order)  # type: ignore[arg-type]


def subscribing_to_batches() -> None:
    placed.subscribe(with_order, batch=Batch())  # type: ignore[arg-type]
    placed.subscribe(with_nothing, batch=Batch())  # type: ignore[arg-type]
    placed.subscribe(with_gifts, batch=Batch())  # type: ignore[arg-type]
    placed.subscribe(with_logins, batch=Batch())  # type: ignore[arg-type]
    placed.subscribe(with_login_emissions, batch=Batch())  # type: ignore[arg-type]
    placed.subscribe(with_orders)  # type: ignore[arg-type]
    placed.subscribe(with_orders, batch=None)  # type: ignore[arg-type]
    placed.subscribe(with_orders, batch=5)  # type: ignore[call-overload]
    placed.subscribe(with_orders, batch=Batch(), onse=True)  # type: ignore[call-overload]
    placed.subscribe(with_order, on_error="log")  # type: ignore[call-overload]
    placed.on(batch=Batch())(with_order)  # type: ignore[call-overload]
    placed.on(batch=Batch())(with_logins)  # type: ignore[call-overload]
    placed.on()(with_orders)  # type: ignore[type-var]
    placed.on(batch=5)  # type: ignore[call-overload]
    on_user_login(batch=Batch())(with_login)  # type: ignore[call-overload]
    on_user_login(batch=Batch())(with_orders)  # type: ignore[call-overload]
    on_user_login()(with_logins)  # type: ignore[type-var]
    Batch(max_size="many")  # type: ignore[arg-type]
    Batch(max_wait=None)  # type: ignore[arg-type]
    Batch(seconds=5)  # type: ignore[call-arg]


def decorating() -> None:
    placed.on()(with_login)  # type: ignore[type-var]
    placed.on()(with_login_emission)  # type: ignore[type-var]
    placed.on()(with_gift)  # type: ignore[type-var]
    placed.on()(with_two)  # type: ignore[type-var]
    placed.on()(by_name)  # type: ignore[type-var]
    seen.on()(with_order)  # type: ignore[type-var]
    on_user_login()(with_order)  # type: ignore[type-var]
    # Without their parentheses.
    placed.on(with_order)  # type: ignore[call-overload]
    on_user_login(with_keywords)  # type: ignore[call-overload]
    on_event(with_keywords)  # type: ignore[call-overload]
    on_event(order)  # type: ignore[call-overload]
    on_event(int)  # type: ignore[type-var]
    signals.event("order_placed")  # type: ignore[call-overload]
    signals.event(int)  # type: ignore[type-var]
    signals.event(with_order)  # type: ignore[call-overload]
    # A decorated function keeps its signature.
    placed.on()(with_order)(context=login)  # type: ignore[arg-type]
    placed.on()(with_order)(order=order)  # type: ignore[call-arg]


def by_class_or_signal() -> None:
    on_event(OrderContext)(with_login)  # type: ignore[type-var]
    on_event(OrderContext)(with_login_emission)  # type: ignore[type-var]
    on_event(OrderContext)(with_gift)  # type: ignore[type-var]
    on_event(OrderContext)(with_two)  # type: ignore[type-var]
    on_event(OrderContext)(by_name)  # type: ignore[type-var]
    on_event(OrderContext)(GiftContext)  # type: ignore[type-var]
    on_event(OrderContext, batch=Batch())(with_order)  # type: ignore[call-overload]
    on_event(OrderContext, batch=Batch())(with_gifts)  # type: ignore[call-overload]
    on_event(OrderContext)(with_orders)  # type: ignore[type-var]
    on_event(placed)(with_login)  # type: ignore[type-var]
    on_event(placed)(by_name)  # type: ignore[type-var]
    on_event(seen)(with_order)  # type: ignore[type-var]
    on_event(OrderContext)(with_order)(context=login)  # type: ignore[arg-type]
    signals[OrderContext].subscribe(with_login)  # type: ignore[arg-type]


def in_a_group() -> None:
    """What a plugin exports."""
    group = HandlerGroup("orders")
    group.on(placed)(with_login)  # type: ignore[type-var]
    group.on(placed)(with_login_emission)  # type: ignore[type-var]
    group.on(placed)(with_gift)  # type: ignore[type-var]
    group.on(placed)(by_name)  # type: ignore[type-var]
    group.on(placed, batch=Batch())(with_logins)  # type: ignore[call-overload]
    group.on(placed, batch=Batch())(with_order)  # type: ignore[call-overload]
    group.on(placed)(with_order)(context=login)  # type: ignore[arg-type]
    group.on(OrderContext)(with_login)  # type: ignore[type-var]
    group.on(OrderContext)(by_name)  # type: ignore[type-var]
    group.on(OrderContext, optional=True)  # type: ignore[call-overload]
    group.on(placed, optional=True)  # type: ignore[call-overload]
    group.on("order_placed", optional="yes")  # type: ignore[call-overload]
    HandlerGroup("orders", api_version="1")  # type: ignore[arg-type]


def options() -> None:
    placed.subscribe(with_order, prio=1)  # type: ignore[call-overload]
    placed.subscribe(with_order, priority="high")  # type: ignore[call-overload]
    placed.subscribe(with_order, when=True)  # type: ignore[call-overload]
    placed.on(once="yes")  # type: ignore[call-overload]
    placed.on(first=True)  # type: ignore[call-overload]
    on_user_login(weak=1)  # type: ignore[call-overload]
    on_event("order_placed", onse=True)  # type: ignore[call-overload]
    on_event(OrderContext, onse=True)  # type: ignore[call-overload]
    register_handler("order_placed", by_name, priority=1.5)  # type: ignore[arg-type]
    register_handler("order_placed", "by_name")  # type: ignore[arg-type]
    register_handler("order_placed")  # type: ignore[call-arg]
    HandlerGroup("orders").on("order_placed", sendr=1)  # type: ignore[call-overload]
    HandlerGroup("orders").signal("order_placed", context=int)  # type: ignore[arg-type]
    HandlerGroup("orders").signal("order_placed", formerly=7)  # type: ignore[arg-type]
    HandlerGroup("orders").signal("order_placed", key=7)  # type: ignore[arg-type]
