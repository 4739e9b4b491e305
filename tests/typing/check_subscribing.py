"""Which handlers a type checker accepts (H4), and that decorators return them as they are (H2)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, assert_type

from madcrow_events import (
    ANY,
    BaseEventContext,
    Batch,
    Emission,
    EventSignal,
    HandlerGroup,
    LoginEventContext,
    SignalRegistry,
    Subscription,
    madcrow_signals,
    on_event,
    on_user_login,
    register_handler,
    unregister_handler,
    user_logged_in,
)
from madcrow_events.subscriptions import BatchHandlerDecorator, HandlerDecorator


class OrderContext(BaseEventContext):
    order_id: int


class Shop:
    """Its methods take an order in each of the forms, and so does the object."""

    def with_context(self, context: OrderContext) -> int:
        return context.order_id

    def with_keywords(self, sender: object, **context: Any) -> None:
        """Take anything."""

    def __call__(self, emission: Emission[OrderContext]) -> int:
        return emission.context.order_id


def with_context(context: OrderContext) -> int:
    return context.order_id


def with_base_context(context: BaseEventContext) -> str | None:
    return context.request_id


def with_either_context(context: OrderContext | LoginEventContext) -> str | None:
    return context.request_id


def with_emission(emission: Emission[OrderContext]) -> int:
    return emission.context.order_id


def with_any_emission(emission: Emission[Any]) -> str:
    return emission.event


def with_plain_emission(emission: Emission) -> str:
    return emission.event


def with_keywords(sender: object, **context: Any) -> str:
    return f"{sender}{context}"


def with_checked_keywords(sender: object, **context: object) -> str:
    return f"{sender}{context}"


def with_nothing() -> int:
    return 1


def by_name(sender: object, order_id: int) -> int:
    return order_id


def with_contexts(contexts: list[OrderContext]) -> int:
    return len(contexts)


def with_sequence(contexts: Sequence[OrderContext]) -> int:
    return len(contexts)


def with_emissions(emissions: list[Emission[OrderContext]]) -> int:
    return len(emissions)


def with_any_emissions(emissions: list[Emission[Any]]) -> int:
    return len(emissions)


def with_plain_emissions(emissions: list[Emission]) -> int:
    return len(emissions)


def with_anything(contexts: list[Any]) -> int:
    return len(contexts)


async def with_contexts_async(contexts: list[OrderContext]) -> int:
    return len(contexts)


class Store:
    """Its method takes a batch, and so does the object."""

    def save(self, contexts: list[OrderContext]) -> int:
        return len(contexts)

    def __call__(self, contexts: list[OrderContext]) -> int:
        return len(contexts)


def declare() -> EventSignal[OrderContext]:
    return SignalRegistry().signal("order_placed", context=OrderContext)


def check_subscribe_accepts_all_forms() -> None:
    placed = declare()

    assert_type(placed.subscribe(with_context), Subscription)
    placed.subscribe(with_base_context)
    placed.subscribe(with_either_context)
    placed.subscribe(with_emission)
    placed.subscribe(with_any_emission)
    placed.subscribe(with_plain_emission)
    placed.subscribe(with_keywords)
    placed.subscribe(with_checked_keywords)
    placed.subscribe(with_nothing)


def check_subscribe_accepts_all_kinds_of_callables() -> None:
    placed = declare()
    shop = Shop()

    placed.subscribe(shop)
    placed.subscribe(shop.with_context)
    placed.subscribe(shop.with_keywords)
    placed.subscribe(partial(with_keywords, color="blue"))
    placed.subscribe(lambda sender, **context: (sender, context))
    placed.subscribe(lambda: None)


def check_a_signal_without_a_model_accepts_handlers_of_any_context() -> None:
    seen = SignalRegistry().signal("order_seen")

    seen.subscribe(with_base_context)
    seen.subscribe(with_any_emission)
    seen.subscribe(with_keywords)
    seen.subscribe(with_nothing)


def check_a_decorator_returns_the_function_it_was_given() -> None:
    placed = declare()

    assert_type(placed.on(), HandlerDecorator[OrderContext])
    # Called by its parameters' names, a function shows that its signature is unchanged.
    order = OrderContext(order_id=7)
    assert_type(placed.on()(with_context)(context=order), int)
    assert_type(placed.on()(with_base_context)(context=BaseEventContext()), str | None)
    assert_type(placed.on()(with_either_context)(context=order), str | None)
    assert_type(placed.on()(with_keywords)(1, anything=2), str)
    assert_type(placed.on()(with_checked_keywords)(sender=1, anything=2), str)
    assert_type(placed.on()(with_nothing)(), int)
    assert_type(placed.on()(with_nothing), Callable[[], int])
    to_emission: list[Callable[[Emission[OrderContext]], object]] = [
        placed.on()(with_emission),
        placed.on()(with_any_emission),
        placed.on()(with_plain_emission),
    ]
    assert to_emission == [with_emission, with_any_emission, with_plain_emission]


def check_decorators_can_be_written_above_functions() -> None:
    placed = declare()

    @placed.on()
    def context_handler(context: OrderContext) -> int:
        return context.order_id

    @placed.on(priority=10)
    def emission_handler(emission: Emission[OrderContext]) -> int:
        return emission.context.order_id

    @placed.on(once=True, sender="shop")
    @placed.on()
    def keyword_handler(sender: object, **context: Any) -> int:
        return len(context)

    @placed.on()
    def bare_handler() -> int:
        return 1

    assert_type(context_handler(context=OrderContext(order_id=7)), int)
    assert_type(keyword_handler(None, order_id=7), int)
    assert_type(bare_handler(), int)
    handler: Callable[[Emission[OrderContext]], int] = emission_handler
    assert handler is emission_handler


def check_options() -> None:
    placed = declare()

    placed.subscribe(with_context, sender=ANY, priority=3, once=True, weak=False)
    placed.subscribe(with_emission, when=lambda context: context["order_id"] > 1, weak=None)


def check_decorators_of_built_in_events_know_their_contexts() -> None:
    assert_type(on_user_login(), HandlerDecorator[LoginEventContext])

    @on_user_login()
    def context_handler(context: LoginEventContext) -> str:
        return context.email

    @on_user_login(priority=-1)
    def keyword_handler(sender: object, **context: Any) -> str:
        return str(context["email"])

    assert_type(context_handler(context=LoginEventContext(user_id=1, email="a")), str)
    assert_type(keyword_handler(None, email="a"), str)


def check_handlers_of_a_name_are_unchecked_and_unchanged() -> None:
    signals = SignalRegistry()
    placed = signals.signal("order_placed", context=OrderContext)

    assert_type(on_event("order_placed", signals=signals)(by_name)(None, order_id=7), int)
    assert_type(on_event("order_*", signals=signals)(with_keywords)(None, order_id=7), str)
    assert_type(register_handler(placed, by_name, signals=signals), Subscription)
    assert_type(unregister_handler("order_placed", by_name, signals=signals), bool)
    assert_type(signals.subscribe("order_placed", by_name, priority=2), Subscription)


def check_on_event_takes_for_a_class_or_signal_what_the_signal_takes() -> None:
    signals = SignalRegistry()
    placed = signals.signal("order_placed", context=OrderContext)
    order = OrderContext(order_id=7)

    assert_type(on_event(OrderContext), HandlerDecorator[OrderContext])
    assert_type(on_event(placed, signals=signals), HandlerDecorator[OrderContext])
    assert_type(on_event(OrderContext, signals=signals)(with_context)(context=order), int)
    assert_type(on_event(placed, signals=signals)(with_context)(context=order), int)
    on_event(OrderContext, signals=signals, priority=1)(with_base_context)
    on_event(OrderContext, signals=signals, background=True)(with_emission)
    on_event(OrderContext, signals=signals)(with_any_emission)
    on_event(OrderContext, signals=signals)(with_keywords)
    on_event(OrderContext, signals=signals)(with_nothing)
    on_event(OrderContext, signals=signals)(Shop().with_context)
    assert_type(on_event(OrderContext, batch=Batch()), BatchHandlerDecorator[OrderContext])
    on_event(OrderContext, signals=signals, batch=Batch())(with_contexts)
    on_event(placed, signals=signals, batch=Batch())(with_emissions)
    assert_type(register_handler(OrderContext, by_name, signals=signals, id="a"), Subscription)
    assert_type(signals.subscribe(OrderContext, by_name, id="a"), Subscription)

    @on_event(OrderContext, signals=signals)
    def of_base(context: BaseEventContext) -> str | None:
        return context.request_id

    assert_type(of_base(context=order), str | None)
    assert_type(unregister_handler(OrderContext, of_base, signals=signals), bool)
    assert_type(signals.unsubscribe(OrderContext, of_base), bool)


def check_a_group_leaves_its_handlers_as_they_are() -> None:
    group = HandlerGroup("orders")
    signals = SignalRegistry(strict=False)

    @group.on("order_kept", priority=1)
    @group.on("order_lost", optional=True, priority=1)
    @group.on("order_placed")
    def handler(sender: object, order_id: int) -> int:
        return order_id

    assert_type(handler(None, order_id=7), int)
    group.register(signals)


def check_a_group_given_a_signal_takes_what_the_signal_takes() -> None:
    placed = declare()
    group = HandlerGroup("orders")

    assert_type(group.on(placed)(with_context)(context=OrderContext(order_id=7)), int)
    group.on(placed, priority=1)(with_base_context)
    group.on(placed, background=True)(with_emission)
    group.on(placed)(with_any_emission)
    group.on(placed)(with_keywords)
    group.on(placed)(with_nothing)
    assert_type(group.on(placed, batch=Batch())(with_contexts)(contexts=[]), int)
    group.on(placed, batch=Batch())(with_emissions)
    group.on(user_logged_in)(with_either_context)
    assert_type(group.on(OrderContext), HandlerDecorator[OrderContext])
    assert_type(group.on(OrderContext)(with_context)(context=OrderContext(order_id=7)), int)
    assert_type(group.on(OrderContext, batch=Batch())(with_contexts)(contexts=[]), int)


def check_subscribe_accepts_all_forms_of_handlers_for_batches() -> None:
    placed = declare()
    store = Store()

    assert_type(placed.subscribe(with_contexts, batch=Batch()), Subscription)
    placed.subscribe(with_sequence, batch=Batch(max_size=10))
    placed.subscribe(with_emissions, batch=Batch(max_wait=2))
    placed.subscribe(with_any_emissions, batch=Batch())
    placed.subscribe(with_plain_emissions, batch=Batch())
    placed.subscribe(with_anything, batch=Batch())
    placed.subscribe(with_contexts_async, batch=Batch(10, 0.5), timeout=5, id="digest")
    placed.subscribe(store.save, batch=Batch(), priority=1, sender="shop", weak=True)
    placed.subscribe(store, batch=Batch())
    placed.subscribe(len, batch=Batch())
    placed.subscribe(lambda contexts: len(contexts), batch=Batch(), when=lambda _: True)
    placed.subscribe(with_context, batch=None)
    placed.subscribe(with_base_context, on_error="raise")
    placed.subscribe(with_context, on_error=None)
    assert_type(placed.subscriptions[0].on_error, Literal["raise"] | None)
    assert_type(placed.subscriptions[0].batch, Batch | None)
    assert_type(Batch().max_size, int)
    assert_type(Batch().max_wait, float)


def check_a_decorator_for_batches_returns_the_function_it_was_given() -> None:
    placed = declare()

    assert_type(placed.on(batch=Batch()), BatchHandlerDecorator[OrderContext])
    assert_type(placed.on(batch=None), HandlerDecorator[OrderContext])
    assert_type(placed.on(batch=Batch())(with_contexts)(contexts=[]), int)
    assert_type(placed.on(batch=Batch())(with_emissions)(emissions=[]), int)
    assert_type(placed.on(batch=Batch())(with_any_emissions)(emissions=[]), int)

    @placed.on(batch=Batch(10), priority=3)
    def save(contexts: list[OrderContext], table: str = "orders") -> str:
        return f"{len(contexts)} {table}"

    assert_type(save(contexts=[OrderContext(order_id=7)], table="gifts"), str)


def check_decorators_of_built_in_events_take_handlers_for_batches() -> None:
    assert_type(on_user_login(batch=Batch()), BatchHandlerDecorator[LoginEventContext])

    @on_user_login(batch=Batch(10))
    def save(contexts: list[LoginEventContext]) -> list[str]:
        return [context.email for context in contexts]

    @on_user_login(batch=Batch(10), timeout=5)
    async def send(emissions: list[Emission[LoginEventContext]]) -> None:
        """Send them."""

    assert_type(save(contexts=[]), list[str])


def check_handlers_for_batches_of_a_name_are_unchecked_and_unchanged() -> None:
    signals = SignalRegistry()
    placed = signals.signal("order_placed", context=OrderContext)
    group = HandlerGroup("orders")

    assert_type(on_event(placed, signals=signals, batch=Batch())(with_contexts)(contexts=[]), int)
    assert_type(
        register_handler(placed, with_emissions, signals=signals, batch=Batch()), Subscription
    )
    assert_type(signals.subscribe("order_*", with_plain_emissions, batch=Batch()), Subscription)
    assert_type(group.on("order_placed", batch=Batch())(with_anything)(contexts=[]), int)


def check_subscriptions() -> None:
    subscription = user_logged_in.subscribe(with_keywords)

    assert_type(subscription.active, bool)
    assert_type(user_logged_in.subscriptions, tuple[Subscription, ...])
    assert_type(user_logged_in.unsubscribe(with_keywords), bool)
    with madcrow_signals.subscribe("user_*", with_keywords) as pattern:
        assert_type(pattern, Subscription)


def check_blinkers_side_takes_any_receiver() -> None:
    placed = declare()

    assert_type(placed.connect(by_name)(None, order_id=7), int)
    placed.connect_via("shop")(by_name)
    with placed.connected_to(with_keywords), placed.muted():
        assert_type(placed.send("shop", order_id=7), list[tuple[Callable[..., Any], Any]])
    placed.disconnect(by_name)
