"""Registries declare events and know them by their names (N2)."""

from __future__ import annotations

from typing import Any

import blinker
import pytest

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    EventSignal,
    LogoutEventContext,
    SignalConflictError,
    SignalRegistry,
)
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


@pytest.mark.guarantee("N5")
def test_signals_and_registries_are_blinkers(
    signal: EventSignal[Any], signals: SignalRegistry
) -> None:
    assert isinstance(signal, blinker.NamedSignal)
    assert isinstance(signals, blinker.Namespace)
    assert signal.name == "thing_happened"
    assert "thing_happened" in repr(signal)
    assert not hasattr(signal, "_by_sender")
