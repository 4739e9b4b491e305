"""Registries declare events and know them by their names (N2)."""

from __future__ import annotations

import asyncio
from typing import Any

import blinker
import pytest

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    InvalidEventNameError,
    LogoutEventContext,
    MadcrowEventsError,
    SignalConflictError,
    SignalRegistry,
    UnknownEventError,
    emit_event,
    madcrow_signals,
    on_event,
    register_handler,
    unregister_handler,
)
from madcrow_events.testing import fake_events, record_events
from support.subscribers import OrderPlaced


@pytest.mark.guarantee("N2")
def test_declaring_again_returns_the_signal(signals: SignalRegistry) -> None:
    declared = signals.signal("order_placed", "An order came in.", context=OrderPlaced)
    assert declared.context_model is OrderPlaced
    assert declared.__doc__ == declared.doc == "An order came in."
    assert signals.signal("order_placed", context=OrderPlaced) is declared
    assert signals.signal("order_placed") is declared
    assert len(signals) == 1
    assert repr(signals) == "<SignalRegistry of 1 events>"


@pytest.mark.guarantee("N2")
@pytest.mark.parametrize("first", [OrderPlaced, None])
def test_declaring_again_with_another_model_is_a_conflict(
    signals: SignalRegistry, first: Any
) -> None:
    signal = signals.signal("order_placed", context=first)
    with pytest.raises(SignalConflictError, match="declare it once, with its model") as caught:
        signals.signal("order-placed", context=LogoutEventContext)
    assert caught.value.event == "order_placed"
    assert caught.value.declared is first
    assert caught.value.requested is LogoutEventContext
    assert signal.context_model is first


@pytest.mark.guarantee("N2")
@pytest.mark.guarantee("H1")
@pytest.mark.guarantee("C4")
def test_two_models_of_one_name_are_told_apart_by_their_modules(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """As where a module was imported under two names."""
    of_shop, of_app = (
        type("Order", (BaseEventContext,), {"__module__": module})
        for module in ("shop.events", "app.shop.events")
    )

    def handler(context: Any) -> None: ...

    handler.__annotations__["context"] = of_app
    signals.signal("bare").subscribe(handler)
    (failure,) = dispatcher.emit_typed("bare", of_shop()).failures
    told = [str(failure.exception)]
    signal = signals.signal("order_placed", context=of_shop)
    for mistake in (
        lambda: signals.signal("order_placed", context=of_app),
        lambda: dispatcher.emit_typed(signal, of_app()),
        lambda: dispatcher.emit_typed(signal, of_app),  # type: ignore[arg-type]  # the mistake
        lambda: signal.subscribe(handler),
    ):
        with pytest.raises(MadcrowEventsError) as caught:
            mistake()
        told.append(str(caught.value))
    for text in told:
        assert " shop.events.Order" in text
        assert " app.shop.events.Order" in text


@pytest.mark.guarantee("N2")
def test_a_signal_without_a_model_accepts_any_context(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("anything")
    for context in (OrderPlaced(order_id=1), BaseEventContext()):
        assert dispatcher.emit_typed("anything", context).context is context


def test_signals_are_not_assigned_but_declared(signals: SignalRegistry) -> None:
    named = blinker.NamedSignal("a")
    for assign in (
        lambda: signals.__setitem__("a", named),
        lambda: signals.setdefault("a", named),
        lambda: signals.update(a=named),
        lambda: signals.__ior__({"a": named}),
    ):
        with pytest.raises(TypeError, match=r"signals\.signal\('event_name'\)"):
            assign()
    assert signals.get("a") is None
    assert signals.get("a", 3) == 3
    assert 3 not in signals


@pytest.mark.guarantee("N1")
def test_events_are_forgotten_by_name_in_any_spelling(signals: SignalRegistry) -> None:
    for name in ("first-event", "second_event"):
        signals.signal(name)
    del signals["first_event"]
    assert signals.pop("second-event").name == "second_event"
    assert signals.pop("second-event", None) is None
    assert not signals


def test_a_signal_stands_for_its_name_in_every_look_up(signals: SignalRegistry) -> None:
    """As in `signals[signal]`; what is neither is the name of nothing."""
    declared = signals.signal("order_placed")
    same_name = SignalRegistry().signal("order_placed")
    assert declared in signals
    assert signals.get(declared) is declared
    assert same_name not in signals
    assert None not in signals
    assert signals.get(None) is None  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        del signals[3]  # type: ignore[arg-type]
    assert signals.pop(declared) is declared
    assert declared not in signals
    assert signals.get(declared, "none") == "none"
    signals.signal("order_placed")
    assert declared not in signals


@pytest.mark.guarantee("N9")
@pytest.mark.parametrize(
    "use",
    [
        emit_event,
        on_event,
        lambda it: register_handler(it, print),
        record_events,
        HandlerGroup("a").on,
    ],
)
def test_a_signal_of_blinker_is_refused_with_what_to_do(use: Any) -> None:
    theirs = blinker.Namespace().signal("appcontext-pushed")
    with pytest.raises(InvalidEventNameError, match=r"'appcontext-pushed': .* connect\(\)"):
        use(theirs)


@pytest.mark.guarantee("N5")
def test_signals_and_registries_are_blinkers(
    signal: EventSignal[Any], signals: SignalRegistry
) -> None:
    assert isinstance(signal, blinker.NamedSignal)
    assert isinstance(signals, blinker.Namespace)
    assert signal.name == "thing_happened"
    assert "thing_happened" in repr(signal)
    assert not hasattr(signal, "_by_sender")


class SpecialSignal(EventSignal[Any]):
    pass


@pytest.mark.guarantee("N9")
@pytest.mark.parametrize(
    "use",
    [
        lambda signals, foreign: EventDispatcher(signals).emit(foreign, order_id=1),
        lambda signals, foreign: EventDispatcher(signals).emit_typed(foreign, PLACED),
        lambda signals, foreign: asyncio.run(EventDispatcher(signals).emit_async(foreign)),
        lambda signals, foreign: asyncio.run(
            EventDispatcher(signals).emit_typed_async(foreign, PLACED)
        ),
        lambda signals, foreign: signals.subscribe(foreign, print),
        lambda signals, foreign: signals.unsubscribe(foreign, print),
        lambda signals, foreign: signals[foreign],
        lambda signals, foreign: signals.get(foreign),
        lambda signals, foreign: signals.pop(foreign, None),
        lambda signals, foreign: signals.__delitem__(foreign),
        lambda signals, foreign: record_events(foreign, signals=signals),
        lambda signals, foreign: fake_events("*", foreign, signals=signals),
        lambda signals, foreign: on_event(foreign, signals=signals),
        lambda signals, foreign: register_handler(foreign, print, signals=signals),
        lambda signals, foreign: unregister_handler(foreign, print, signals=signals),
        lambda signals, foreign: recorded(signals, "assert_emitted", foreign),
        lambda signals, foreign: recorded(signals, "assert_not_emitted", foreign),
        lambda signals, foreign: recorded(signals, "assert_handled_by", foreign, print),
        lambda signals, foreign: recorded(signals, "wait_for", foreign, 0.01),
    ],
)
def test_a_signal_of_another_registry_is_an_error_that_names_both(use: Any) -> None:
    """Its handlers are not those of the registry, though the name may be the same."""
    own, other = SignalRegistry(), SignalRegistry()
    for signals in (own, other):
        signals.signal("order_placed", context=OrderPlaced)
    with pytest.raises(UnknownEventError, match="order_placed") as caught:
        use(own, other["order_placed"])
    for signals in (own, other):
        assert f"at {id(signals):#x}" in str(caught.value)
    with pytest.raises(UnknownEventError, match="madcrow_signals"):
        use(own, madcrow_signals["user_logged_in"])
    assert not other["order_placed"].subscriptions


PLACED = OrderPlaced(order_id=1)


def recorded(signals: SignalRegistry, method: str, *arguments: Any) -> None:
    with record_events(signals=signals) as recorder:
        getattr(recorder, method)(*arguments)


@pytest.mark.guarantee("N9")
def test_a_group_takes_name_and_model_of_any_signal_and_a_signal_made_by_hand_belongs_to_all() -> (
    None
):
    """A group may be registered in any registry, and a signal by hand belongs to none."""
    own, other = SignalRegistry(), SignalRegistry()
    foreign = other.signal("order_placed", context=OrderPlaced)
    group = HandlerGroup("orders")
    seen: list[str] = []
    group.on(foreign)(lambda sender: seen.append("group"))
    group.register(own)
    dispatcher = EventDispatcher(own)
    assert dispatcher.emit("order_placed", order_id=1).ok
    by_hand: EventSignal[Any]
    for by_hand in (EventSignal("by_hand"), SpecialSignal("by_hand")):
        by_hand.subscribe(lambda: seen.append("by hand"))
        own.subscribe(by_hand, lambda sender: seen.append(str(sender)))
        assert dispatcher.emit(by_hand).ok
    assert seen == ["group", *["by hand", "by_hand"] * 2]
