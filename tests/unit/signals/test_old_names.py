"""An old name of an event means the event, in every way to use a name (N8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    ContextTypeError,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    HandlerGroup,
    InvalidEventNameError,
    LoginEventContext,
    SignalConflictError,
    SignalRegistry,
    UnknownEventError,
    emit_event,
    emit_event_async,
    madcrow_signals,
    on_event,
    register_handler,
    unregister_handler,
)
from support.subscribers import OrderPlaced

pytestmark = [
    pytest.mark.guarantee("N8"),
    pytest.mark.filterwarnings("ignore:the event .* is called .* now:DeprecationWarning"),
]


@pytest.fixture
def placed(signals: SignalRegistry) -> EventSignal[OrderPlaced]:
    return signals.signal(
        "order_placed", context=OrderPlaced, formerly=("order-made", "shop.bought")
    )


def test_a_signal_tells_its_old_names_and_a_registry_lists_the_new_one_only(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    assert placed.formerly == ("order_made", "shop.bought")
    assert list(signals) == ["order_placed"]
    assert len(signals) == 1
    assert signals.signal("other").formerly == ()
    assert EventSignal("by_hand").formerly == ()


@pytest.mark.parametrize("formerly", ["order_made", "order-made", ["order_made"], {"order_made"}])
def test_old_names_may_be_one_or_several_in_any_spelling(
    signals: SignalRegistry, formerly: Any
) -> None:
    placed = signals.signal("order_placed", formerly=formerly)
    assert placed.formerly == ("order_made",)
    assert signals.signal("order_placed", formerly=iter(["order-made", "order_made"])) is placed
    assert placed.formerly == ("order_made",)


@pytest.mark.guarantee("N1")
@pytest.mark.parametrize("formerly", ["Order Made", "order_*", None, 3, [None], ("a", "B")])
def test_a_malformed_old_name_is_refused_before_anything_is_declared(
    signals: SignalRegistry, formerly: Any
) -> None:
    with pytest.raises(InvalidEventNameError):
        signals.signal("order_placed", formerly=formerly)
    with pytest.raises(InvalidEventNameError):
        HandlerGroup("shop").signal("order_placed", formerly=formerly)
    assert not signals


def test_every_look_up_finds_the_event(
    signals: SignalRegistry, placed: EventSignal[OrderPlaced]
) -> None:
    for old in ("order_made", "order-made", "shop.bought"):
        assert signals[old] is placed
        assert signals.resolve(old) is placed
        assert signals.get(old) is placed
        assert old in signals
    assert "shop_bought" not in signals
    assert signals.get("shop_bought", 3) == 3


EMITTERS: list[Callable[[EventDispatcher], Any]] = [
    lambda it: it.emit("order-made", order_id=7),
    lambda it: asyncio.run(it.emit_async("order_made", order_id=7)),
    lambda it: it.emit_typed("order_made", OrderPlaced(order_id=7)),
    lambda it: asyncio.run(it.emit_typed_async("order_made", OrderPlaced(order_id=7))),
]


@pytest.mark.parametrize("emit", EMITTERS)
def test_who_emits_the_old_name_emits_the_event(
    placed: EventSignal[OrderPlaced], dispatcher: EventDispatcher, emit: Any
) -> None:
    seen: list[Any] = []
    placed.subscribe(lambda sender, order_id: seen.append((sender, order_id)))
    emission = emit(dispatcher)
    assert (emission.event, emission.signal, emission.sender) == ("order_placed", placed, placed)
    assert seen == [(placed, 7)]


def test_the_default_dispatcher_knows_old_names_too() -> None:
    madcrow_signals.signal("order_placed", formerly="order_made")
    assert emit_event("order_made").event == "order_placed"
    assert asyncio.run(emit_event_async("order_made")).event == "order_placed"
    with pytest.raises(ContextTypeError, match=r"madcrow_signals\['order_placed'\].emit\("):
        emit_event("order_made", context=OrderPlaced(order_id=1))


SUBSCRIBERS: list[Callable[[SignalRegistry, Any], Any]] = [
    lambda signals, handler: signals.subscribe("order-made", handler),
    lambda signals, handler: register_handler("order_made", handler, signals=signals),
    lambda signals, handler: on_event("order_made", signals=signals)(handler),
    lambda signals, handler: in_a_group(signals, handler),
    lambda signals, handler: signals["order_made"].subscribe(handler),
]


def in_a_group(signals: SignalRegistry, handler: Any) -> None:
    group = HandlerGroup("shop")
    group.on("order-made")(handler)
    group.register(signals)


@pytest.mark.parametrize("subscribe", SUBSCRIBERS)
def test_who_subscribes_to_the_old_name_subscribes_to_the_event(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher, subscribe: Any
) -> None:
    def handler(order_id: int) -> int:
        return order_id

    subscribe(signals, handler)
    (subscription,) = placed.subscriptions
    assert subscription.event == "order_placed"
    assert [it.value for it in dispatcher.emit(placed, order_id=7).results] == [7]
    assert signals.subscribe("order_placed", handler) is subscription
    assert unregister_handler("shop.bought", handler, signals=signals) is True
    assert signals.unsubscribe("order_made", handler) is False
    assert not placed.subscriptions


def test_declaring_the_old_name_returns_the_event_under_the_same_rule_for_models(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    assert signals.signal("order_made") is placed
    assert signals.signal("order_made", context=OrderPlaced) is placed
    assert signals.signal("shop.bought", formerly="older") is placed
    assert placed.formerly == ("order_made", "shop.bought", "older")
    with pytest.raises(SignalConflictError) as caught:
        signals.signal("order-made", context=LoginEventContext)
    assert str(caught.value) == (
        "order_made is called order_placed now, which is declared already, with OrderPlaced, not "
        "with LoginEventContext: declare it once, with its model, and import its class elsewhere"
    )
    assert caught.value.event == "order_placed"
    assert list(signals) == ["order_placed"]


def test_an_old_name_may_be_declared_later(signals: SignalRegistry) -> None:
    placed = signals.signal("order_placed")
    with pytest.raises(UnknownEventError):
        signals["order_made"]
    assert signals.signal("order_placed", formerly="order_made") is placed
    assert signals["order_made"] is placed
    assert signals.signal("order_placed").formerly == ("order_made",)


def test_the_name_itself_is_no_old_name(signals: SignalRegistry) -> None:
    """As where a hyphen became an underscore."""
    placed = signals.signal("order_placed", formerly=("order-placed", "order_made"))
    assert placed.formerly == ("order_made",)


def test_a_lenient_registry_looks_at_old_names_before_it_declares() -> None:
    signals = SignalRegistry(strict=False)
    placed = signals.signal("order_placed", formerly="order_made")
    EventDispatcher(signals).emit("order_made")
    signals.subscribe("order_made", lambda: None)
    assert list(signals) == ["order_placed"]
    assert len(placed.subscriptions) == 1


# A generic context names its event


def test_a_generic_context_may_name_the_event_by_its_old_name(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def handler(context: OrderPlaced) -> int:
        return context.order_id

    placed.subscribe(handler)
    for name in ("order_placed", "order-made"):
        for event_type in ("order_made", "order-made", "shop.bought", "order_placed"):
            context = GenericEventContext(event_type=event_type, data={"order_id": 7})
            assert [it.value for it in dispatcher.emit_typed(name, context).results] == [7]
    other = GenericEventContext(event_type="order_mad", data={"order_id": 7})
    with pytest.raises(ContextTypeError, match="give it event_type='order_placed'"):
        dispatcher.emit_typed("order_made", other)
    by_hand: EventSignal[Any] = EventSignal("by_hand")
    with pytest.raises(ContextTypeError):
        dispatcher.emit_typed(by_hand, other)


# Conflicts


def test_an_old_name_is_never_given_to_a_second_event(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    with pytest.raises(SignalConflictError) as caught:
        signals.signal("order_sent", formerly=("sent", "order_made"))
    assert str(caught.value) == (
        "order_made is a former name of order_placed already, and cannot be a former name of "
        "order_sent: take it out of one of the two declarations"
    )
    assert caught.value.event == "order_made"
    assert list(signals) == ["order_placed"]
    assert "sent" not in signals
    sent = signals.signal("order_sent")
    with pytest.raises(SignalConflictError):
        signals.signal("order_sent", formerly="order_made")
    assert sent.formerly == ()
    assert signals["order_made"] is placed


def test_an_event_with_a_model_cannot_become_an_old_name(signals: SignalRegistry) -> None:
    made = signals.signal("order_made", context=OrderPlaced)
    with pytest.raises(SignalConflictError) as caught:
        signals.signal("order_placed", context=LoginEventContext, formerly=("bought", "order_made"))
    assert str(caught.value) == (
        "order_made is an event of its own, declared with OrderPlaced, and cannot be a former "
        "name of order_placed: remove that declaration, or leave order_made out of formerly"
    )
    assert caught.value.declared is OrderPlaced
    assert caught.value.requested is LoginEventContext
    assert list(signals) == ["order_made"]
    assert signals["order_made"] is made
    assert "bought" not in signals
    del signals["order_made"]
    assert signals.signal("order_placed", formerly="order_made") is signals["order_made"]


def test_the_event_that_announces_failures_is_no_old_name(signals: SignalRegistry) -> None:
    with pytest.raises(SignalConflictError, match="leave it out of formerly") as caught:
        signals.signal("broken", formerly="handler_failed")
    assert caught.value.declared.__name__ == "HandlerFailedEventContext"  # type: ignore[union-attr]
    assert not signals


def test_two_declarations_that_rename_into_each_other_are_a_conflict(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    with pytest.raises(SignalConflictError) as caught:
        signals.signal("order_made", formerly="order_placed")
    assert str(caught.value) == (
        "order_placed is the name that order_made has now, and cannot be a former name of "
        "order_made: declare it in one of the two ways"
    )
    assert list(signals) == ["order_placed"]


def test_a_conflict_of_models_gives_no_old_name(
    signals: SignalRegistry, placed: EventSignal[Any]
) -> None:
    with pytest.raises(SignalConflictError, match="declared already, with OrderPlaced"):
        signals.signal("order_placed", context=LoginEventContext, formerly="new_old")
    assert "new_old" not in signals


# Suggestions


@pytest.mark.guarantee("N3")
def test_old_names_are_suggested_last(signals: SignalRegistry) -> None:
    signals.signal("sale_done", formerly="order_made")
    for name in ("order_mailed", "order_main"):
        signals.signal(name)
    with pytest.raises(UnknownEventError) as caught:
        signals["order_mad"]
    assert caught.value.suggestions == ("order_mailed", "order_main", "order_made")
    signals.signal("order_mat")
    with pytest.raises(UnknownEventError, match="did you mean order_mat or order_m") as caught:
        signals["order_mad"]
    assert "order_made" not in caught.value.suggestions
    del signals["order_mat"], signals["order_mailed"], signals["order_main"]
    with pytest.raises(UnknownEventError, match=r"did you mean order_made\?"):
        signals["order_mad"]


# Forgetting


@pytest.mark.parametrize("name", ["order_placed", "order-made", "shop.bought"])
@pytest.mark.parametrize("forget", [SignalRegistry.pop, SignalRegistry.__delitem__])
def test_a_forgotten_event_takes_its_old_names_with_it(
    signals: SignalRegistry, placed: EventSignal[Any], name: str, forget: Any
) -> None:
    """Whatever name it is forgotten by: an old one means the event."""
    kept = signals.signal("kept", formerly="kept_formerly")
    assert forget(signals, name) in (placed, None)
    assert list(signals) == ["kept"]
    assert placed.formerly == ()
    for old in ("order_made", "shop.bought"):
        assert old not in signals
        with pytest.raises(KeyError):
            forget(signals, old)
    assert signals["kept_formerly"] is kept
    made = signals.signal("order_made", context=OrderPlaced)
    assert made is not placed
    assert signals.signal("order_placed") is not placed
    assert signals["order_made"] is made


@pytest.mark.parametrize("forget", [SignalRegistry.clear, SignalRegistry.popitem])
def test_old_names_of_what_a_dictionary_forgets_mean_nothing(
    signals: SignalRegistry, placed: EventSignal[Any], forget: Any
) -> None:
    """`clear` and `popitem` are those of dict."""
    forget(signals)
    assert "order_made" not in signals
    assert signals.pop("order_made", None) is None
    made = signals.signal("order_made")
    assert signals["order_made"] is made
    again = signals.signal("order_placed", formerly="shop.bought")
    assert signals["shop.bought"] is again
    assert again.formerly == ("shop.bought",)


# Contexts that are no signal's


def test_a_signal_of_another_registry_is_not_found_by_an_old_name(
    placed: EventSignal[Any],
) -> None:
    other = SignalRegistry()
    other.signal("order_sent", formerly="order_placed")
    with pytest.raises(UnknownEventError, match="belongs to"):
        EventDispatcher(other).emit(placed)
    assert placed not in other


def test_a_group_takes_name_and_model_of_a_signal_but_no_old_names(
    placed: EventSignal[OrderPlaced],
) -> None:
    """N9: an old name is a matter of the registry that declares it."""
    other, group = SignalRegistry(), HandlerGroup("shop")

    @group.on(placed)
    def handler(context: OrderPlaced) -> None: ...

    group.register(other)
    assert other["order_placed"].formerly == ()


def test_an_event_that_announces_failures_may_have_an_old_name(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    seen: list[Any] = []
    signals.signal("handler_failed", formerly="handler_broke")
    signals.subscribe("handler_broke", lambda event_name: seen.append(event_name))
    signals.subscribe("handler_b*", lambda: seen.append("no pattern matches it"))
    signals.signal("thing_happened").subscribe(lambda: 1 / 0)
    dispatcher.emit("thing_happened")
    assert seen == ["thing_happened"]


def test_a_pattern_handler_hears_the_new_name(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    seen: list[str] = []
    signals.subscribe("*", lambda sender, **_: seen.append(str(sender)))
    dispatcher.emit("order_made")
    assert seen == ["order_placed"]
