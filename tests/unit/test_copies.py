"""Copying and pickling what belongs to one process (N5, E2)."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import BaseEventContext, EventDispatcher, SignalRegistry, TimingObserver

SIGNALS = SignalRegistry()
DISPATCHER = EventDispatcher(SIGNALS)
PAID = SIGNALS.signal("paid")

UNIQUE = {
    "a signal": (PAID, r"send its name, and look it up there with signals\[name\]"),
    "a registry": (SIGNALS, "import it there"),
    "a dispatcher": (DISPATCHER, "make or import one there"),
    "a subscription": (SIGNALS.subscribe("paid", print, weak=False), "subscribe its handler there"),
    "a pattern": (SIGNALS.subscribe("paid*", lambda: None), "subscribe its handler there"),
    "an observer": (TimingObserver(), r"send its snapshot\(\)"),
    "a mute": (PAID.muted(), "mute the signal there"),
    "an emission": (DISPATCHER.emit("paid", secret="canary"), "send its event and the values"),
}

every_unique = pytest.mark.parametrize(("unique", "advice"), UNIQUE.values(), ids=[*UNIQUE])


@dataclasses.dataclass
class Service:
    """An object of an application that holds one of ours."""

    held: Any
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@pytest.mark.guarantee("N5")
@every_unique
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_what_belongs_to_the_process_is_the_same_object(
    unique: Any, advice: str, copied: Callable[[Any], Any]
) -> None:
    assert copied(unique) is unique


@pytest.mark.guarantee("N5")
@every_unique
def test_a_deep_copy_of_what_holds_it_holds_the_same_object(unique: Any, advice: str) -> None:
    service = Service(unique, {"nested": [unique]})
    copied = copy.deepcopy(service)
    assert copied.held is copied.options["nested"][0] is unique
    assert copied.options is not service.options


@pytest.mark.guarantee("G1")
@pytest.mark.guarantee("N5")
@every_unique
@pytest.mark.parametrize("protocol", [0, pickle.HIGHEST_PROTOCOL])
def test_pickling_it_is_refused_with_what_to_do_instead(
    unique: Any, advice: str, protocol: int
) -> None:
    for held in (unique, Service(unique), unique.__repr__):
        with pytest.raises(TypeError, match=f"cannot be pickled: {advice}") as caught:
            pickle.dumps(held, protocol)
        assert "canary" not in str(caught.value)


def test_users_are_told_of_one_class_of_subscriptions() -> None:
    subscription = SignalRegistry().signal("ping").subscribe(lambda: None, priority=1)
    with pytest.raises(TypeError, match=r"^Subscription belongs to its process"):
        pickle.dumps(subscription)


def test_a_service_can_be_shown_as_a_dictionary() -> None:
    assert dataclasses.asdict(Service(PAID))["held"] is PAID
    with pytest.raises(TypeError, match="a SignalRegistry is made empty"):
        dataclasses.asdict(Service(SIGNALS))


@pytest.mark.guarantee("N5")
def test_a_copy_of_a_model_with_a_signal_holds_the_same_signal() -> None:
    class Rule(BaseEventContext, arbitrary_types_allowed=True):
        signal: Any

    assert Rule(signal=PAID).model_copy(deep=True).signal is PAID


@pytest.mark.guarantee("L1")
def test_signals_registries_and_dispatchers_can_be_referred_to_weakly() -> None:
    signals = SignalRegistry()
    dispatcher = EventDispatcher(signals)
    for kept in (signals, dispatcher, signals.signal("paid")):
        assert weakref.ref(kept)() is kept
