"""Context classes: one handler for every event that carries a class or one derived from it (H8)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    ContextModelError,
    Emission,
    EventDispatcher,
    GenericEventContext,
    HandlerGroup,
    HandlerSignatureError,
    InvalidEventNameError,
    LoginEventContext,
    SignalRegistry,
    SubscriptionConflictError,
    UnknownEventError,
    on_event,
    register_handler,
    unregister_handler,
)
from madcrow_events.models import HandlerFailedEventContext
from madcrow_events.subscriptions import PatternSubscription
from support.inside import declared_in

pytestmark = pytest.mark.guarantee("H8")


class Ordered(BaseEventContext):
    order_id: int


class Placed(Ordered):
    total: float = 0


class Paid(Ordered):
    currency: str = "EUR"


class Reserved(BaseEventContext):
    sender: str = ""


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def shop(signals: SignalRegistry) -> SignalRegistry:
    signals.event(Placed)
    signals.signal("seen")
    signals.signal("signed_in", context=LoginEventContext)
    return signals


@pytest.fixture(params=[False, True], ids=["emit", "emit_async"])
def emit(request: pytest.FixtureRequest, dispatcher: EventDispatcher) -> Callable[..., Any]:
    if request.param:
        return lambda *event, **context: asyncio.run(dispatcher.emit_async(*event, **context))
    return dispatcher.emit


def test_a_class_catches_present_and_later_events_of_it_and_of_derived_models(
    shop: SignalRegistry, emit: Callable[..., Any], heard: list[Any]
) -> None:
    @on_event(Ordered, signals=shop)
    def handler(context: Ordered) -> None:
        heard.append(context)

    (subscription,) = shop.subscriptions[:1]
    assert isinstance(subscription, PatternSubscription)
    assert (subscription.event, subscription.pattern) == ("Ordered", Ordered)
    shop.event(Paid)
    shop.event(Ordered)
    contexts = [Placed(order_id=1, total=3), Paid(order_id=2), Ordered(order_id=3)]
    for context in [*contexts, LoginEventContext(user_id=1, email="")]:
        assert emit(context).ok
    assert emit("seen", order_id=4).ok
    assert heard == contexts
    del shop["placed"], shop["paid"]
    shop.signal("placed", context=Placed)
    assert emit(contexts[0]).ok
    assert heard == [*contexts, contexts[0]]


def test_a_loose_emission_is_validated_into_the_events_own_model(
    shop: SignalRegistry, emit: Callable[..., Any], heard: list[Any]
) -> None:
    shop.subscribe(Ordered, of_ordered(heard))
    assert emit("placed", order_id=7, total="3").ok
    assert heard == [Placed(order_id=7, total=3, timestamp=heard[0].timestamp)]
    (failure,) = emit("placed", total="3").failures
    assert "order_id: missing" in str(failure.exception)
    assert emit(GenericEventContext(event_type="placed", data={"order_id": 8})).ok
    assert [context.order_id for context in heard] == [7, 8]


def of_ordered(heard: list[Any]) -> Callable[..., None]:
    def handler(context: Ordered) -> None:
        heard.append(context)

    return handler


def test_every_form_of_handler_that_the_class_can_call_is_taken(
    shop: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def of_base(context: BaseEventContext) -> object:
        return type(context)

    def of_emission(emission: Emission[Ordered]) -> object:
        return emission.event

    async def of_sender(sender: object, context: Ordered) -> object:
        return sender, context.order_id

    forms: list[Callable[..., Any]] = [
        of_base,
        of_emission,
        of_sender,
        lambda order_id: order_id,
        lambda sender, **context: context["total"],
        lambda: "nothing",
    ]
    for form in forms:
        shop.subscribe(Ordered, form)
    emission = asyncio.run(dispatcher.emit_async(Placed(order_id=7, total=3), "till"))
    values = [result.value for result in emission.results]
    assert values == [Placed, "placed", 7, 3, "nothing", ("till", 7)]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda total: None, "for Ordered takes 'total', which is no field of Ordered"),
        (Placed, "is a context class, and handlers are functions: to declare the event"),
        (3, "cannot be called: give a function"),
    ],
)
def test_a_handler_that_the_class_cannot_call_is_refused(
    shop: SignalRegistry, handler: Any, message: str
) -> None:
    def of_placed(context: Placed) -> None: ...
    def of_login(emission: Emission[LoginEventContext]) -> None: ...

    for wrong, told in ((handler, message), (of_placed, "Placed"), (of_login, "LoginEventContext")):
        with pytest.raises(HandlerSignatureError, match=told):
            on_event(Ordered, signals=shop)(wrong)
    assert not shop.subscriptions


@pytest.mark.parametrize(
    ("class_", "error", "message"),
    [
        (GenericEventContext, ContextModelError, "subscribe to it by its name or by a pattern"),
        (Reserved, ContextModelError, "has a field called 'sender'"),
        (int, InvalidEventNameError, "the class int names no event"),
        (Ordered(order_id=7), InvalidEventNameError, "not by a context: give Ordered"),
    ],
)
def test_a_class_that_no_event_can_carry_is_refused(
    shop: SignalRegistry, class_: Any, error: type[Exception], message: str
) -> None:
    for subscribe in (
        lambda: on_event(class_, signals=shop),
        lambda: shop.subscribe(class_, print),
        lambda: shop.unsubscribe(class_, print),
        lambda: HandlerGroup("shop").on(class_),
    ):
        with pytest.raises(error, match=message):
            subscribe()


def test_the_base_of_all_contexts_catches_every_event_with_a_model_but_handler_failed(
    shop: SignalRegistry, emit: Callable[..., Any], heard: list[Any]
) -> None:
    @on_event(BaseEventContext, signals=shop)
    def every(emission: Emission[Any]) -> None:
        heard.append(emission.event)
        raise ValueError

    shop.signal("handler_failed")
    emit(Placed(order_id=7))
    emit("seen")
    emit("signed_in", user_id=1, email="")
    assert heard == ["placed", "signed_in"]

    @on_event(HandlerFailedEventContext, signals=shop)
    def failed(context: HandlerFailedEventContext) -> None:
        heard.append(context.event_name)

    emit(Placed(order_id=7))
    assert heard[2:] == ["placed", "placed"]


def test_once_is_once_over_all_events_of_a_class(
    shop: SignalRegistry, emit: Callable[..., Any], heard: list[Any]
) -> None:
    shop.event(Paid)
    subscription = shop.subscribe(Ordered, of_ordered(heard), once=True)
    for context in (Placed(order_id=1), Paid(order_id=2), Placed(order_id=3)):
        emit(context)
    assert [context.order_id for context in heard] == [1]
    assert not subscription.active
    assert not any(signal.subscriptions for signal in declared_in(shop))


def test_options_hold_for_every_event_of_a_class(
    shop: SignalRegistry, emit: Callable[..., Any], heard: list[Any]
) -> None:
    shop.event(Paid)
    shop.subscribe(
        Ordered,
        of_ordered(heard),
        sender="till",
        when=lambda context: context["order_id"] > 1,
        id="note",
        background=True,
        priority=3,
    )
    for context in (Placed(order_id=1), Placed(order_id=2), Paid(order_id=3)):
        emit(context, "web")
        assert emit(context, "till").wait(10)
    assert [context.order_id for context in heard] == [2, 3]
    (subscription,) = shop["paid"].subscriptions
    assert (subscription.name, subscription.priority) == ("note", 3)


def test_a_batch_holds_the_contexts_of_all_events_of_a_class(
    shop: SignalRegistry, dispatcher: EventDispatcher, heard: list[Any]
) -> None:
    shop.event(Paid)

    @on_event(Ordered, signals=shop, batch=Batch(10, 5))
    def handler(contexts: list[Ordered]) -> None:
        heard.append([type(context) for context in contexts])

    for context in (Placed(order_id=1), Paid(order_id=2), Placed(order_id=3)):
        dispatcher.emit(context)
    assert dispatcher.drain(10)
    assert heard == [[Placed, Paid, Placed]]


def test_a_handler_is_unsubscribed_by_its_own_class(shop: SignalRegistry) -> None:
    def handler() -> None: ...

    subscription = register_handler(Ordered, handler, signals=shop)
    assert register_handler(Ordered, handler, signals=shop) is subscription
    assert shop["placed"].subscriptions
    assert unregister_handler(BaseEventContext, handler, signals=shop) is False
    assert shop["placed"].unsubscribe(handler) is False
    assert unregister_handler(Ordered, handler, signals=shop) is True
    assert unregister_handler(Ordered, handler, signals=shop) is False
    assert not shop["placed"].subscriptions


def test_a_handler_for_a_class_keeps_its_place_and_is_called_for_each_class(
    shop: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def first() -> str:
        return "first"

    shop.subscribe(Ordered, first)
    shop.subscribe("placed", lambda: "second")
    shop.subscribe(Placed, first)
    shop.subscribe("*", lambda: "third")
    shop.subscribe(Ordered, lambda: "urgent", priority=1)
    values = [result.value for result in dispatcher.emit(Placed(order_id=7)).results]
    assert values == ["urgent", "first", "second", "first", "third"]


def test_an_id_is_unique_within_its_class(shop: SignalRegistry) -> None:
    def handler() -> None: ...

    subscription = shop.subscribe(Ordered, handler, id="note")
    shop.subscribe(Placed, lambda: None, id="note")
    shop.subscribe("placed", lambda: None, id="note")
    with pytest.raises(SubscriptionConflictError, match="id 'note' of Ordered is that of"):
        shop.subscribe(Ordered, lambda: None, id="note")
    with pytest.raises(SubscriptionConflictError, match="subscribed to Ordered already, with oth"):
        shop.subscribe(Ordered, handler, id="note", priority=1)
    subscription.cancel()
    assert shop.subscribe(Ordered, lambda: None, id="note").name == "note"


def test_a_group_subscribes_to_a_class_and_declares_nothing(
    shop: SignalRegistry, dispatcher: EventDispatcher, heard: list[Any]
) -> None:
    group = HandlerGroup("shop")
    group.on(Ordered)(of_ordered(heard))
    assert [event for event, _ in group.handlers] == ["Ordered"]
    for _ in range(2):
        group.register(shop)
    assert set(shop) == {"placed", "seen", "signed_in"}
    dispatcher.emit(Placed(order_id=7))
    group.unregister(shop)
    dispatcher.emit(Placed(order_id=8))
    assert [context.order_id for context in heard] == [7]


@pytest.mark.parametrize("decorate", [on_event, HandlerGroup("shop").on])
def test_a_decorator_without_parentheses_above_a_class_is_told_at_its_first_use(
    decorate: Any,
) -> None:
    @decorate
    class Lost(Ordered): ...

    for call in (lambda: Lost(order_id=7), lambda: Lost()):
        with pytest.raises(HandlerSignatureError, match=r"write @madcrow_signals\.event to declar"):
            call()
    with pytest.raises(HandlerSignatureError, match="is a handler, and the event comes first"):
        on_event(Lost)


@pytest.mark.parametrize("empty", [False, True])
def test_an_isolated_block_restores_handlers_for_classes(
    shop: SignalRegistry, dispatcher: EventDispatcher, heard: list[Any], *, empty: bool
) -> None:
    shop.subscribe(Ordered, of_ordered(heard))
    with shop.isolated(empty=empty), shop.isolated(empty=empty):
        shop.clear_handlers()
        shop.event(Paid)
        dispatcher.emit(Paid(order_id=1))
        shop.subscribe(Paid, of_ordered(heard))
        dispatcher.emit(Paid(order_id=2))
    with pytest.raises(UnknownEventError):
        dispatcher.emit(Paid(order_id=3)) if empty else shop[Paid]
    dispatcher.emit(Placed(order_id=4))
    assert [context.order_id for context in heard] == [2, 4]


@pytest.mark.usefixtures("threads_switch_often")
def test_every_event_is_caught_while_threads_declare_and_subscribe(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    models = [type(f"Model{number}", (Ordered,), {}) for number in range(100)]
    counted: list[int] = []
    start = threading.Barrier(3)

    def declare(some: list[type[Ordered]]) -> None:
        start.wait()
        for model in some:
            signals.event(model)

    def subscribe() -> None:
        start.wait()
        for _ in range(20):
            signals.subscribe(Ordered, lambda: counted.append(1))

    threads = [threading.Thread(target=declare, args=(models[at::2],)) for at in range(2)]
    threads.append(threading.Thread(target=subscribe))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        assert len(dispatcher.emit(model(order_id=1)).results) == 20


@pytest.mark.guarantee("C3")
@pytest.mark.parametrize("data", [{"order_id": 8}, {"order_id": "eight"}])
def test_a_handler_of_any_context_gets_the_model_of_the_event_however_it_is_called(
    signals: SignalRegistry, dispatcher: EventDispatcher, data: dict[str, Any]
) -> None:
    """A generic context becomes the model, or the handler fails; `explain` says which."""

    def take(context: BaseEventContext) -> type[BaseEventContext]:
        return type(context)

    async def take_async(context: BaseEventContext) -> type[BaseEventContext]:
        return type(context)

    signal = signals.signal("placed", context=Placed)
    several: list[dict[str, Any]] = [
        {},
        {"when": lambda context: True},
        {"once": True},
        {"background": True},
    ]
    for options in several:
        signal.subscribe(partial(take), **options)
    signal.subscribe(take_async)
    signal.subscribe(partial(take_async), timeout=60)
    context = GenericEventContext(event_type="placed", data=data)

    explanation = signals.explain(context)
    emission = dispatcher.emit(context)

    assert emission.wait(10)
    assert len(emission.results) == len(explanation.called)
    assert {it.value for it in emission.results} <= {Placed}
    assert {it.reason for it in explanation.left_out} <= {"context"}
    assert len(explanation.called) in (0, 6)
