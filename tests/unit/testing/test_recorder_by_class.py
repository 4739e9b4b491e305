"""Recorders and their assertions take context classes (H8)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    EventDispatcher,
    GenericEventContext,
    InvalidEventNameError,
    SignalRegistry,
    UnknownEventError,
)
from madcrow_events.testing import fake_events, record_events

pytestmark = pytest.mark.guarantee("H8")


class Ordered(BaseEventContext):
    order_id: int


class Placed(Ordered):
    total: float = 0


class Paid(Ordered):
    currency: str = "EUR"


@pytest.fixture(autouse=True)
def _declare(signals: SignalRegistry) -> None:
    signals.event(Placed)
    signals.event(Paid)
    signals.signal("seen")


def test_a_class_stands_for_the_events_that_carry_it(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events(signals=signals) as events:
        placed = dispatcher.emit(Placed(order_id=7, total=3))
        paid = dispatcher.emit("paid", order_id=7, currency="USD")
        dispatcher.emit("seen", order_id=7)
    assert events.assert_emitted(Placed, total=3) is placed
    assert events.assert_emitted(Paid, times=1) is paid
    assert events.assert_emitted(Ordered, times=2, order_id=7) is paid
    assert events.assert_emitted(Ordered, times=1, currency="USD") is paid
    events.assert_not_emitted(Ordered, where=lambda order: order["order_id"] > 7)
    events.assert_emitted(signals[Placed], times=1)


def test_only_events_of_the_class_are_recorded(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Lost(Ordered): ...

    with record_events(Ordered, signals=signals) as orders, record_events(Paid, signals=signals):
        signals.event(Lost)
        emissions = [dispatcher.emit(it(order_id=1)) for it in (Placed, Paid, Lost)]
        dispatcher.emit("seen")
    assert list(orders.emissions) == emissions


def test_a_failure_names_the_class_and_what_was_emitted_instead(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def failing() -> None:
        raise ValueError

    signals.subscribe(Ordered, failing)
    with record_events("placed", signals=signals) as events:
        dispatcher.emit(Placed(order_id=7))
    for assertion, message in (
        (lambda: events.assert_emitted(Ordered, order_id=8), r"Ordered\(order_id=8\) was not emi"),
        (lambda: events.assert_not_emitted(Placed), "Placed was emitted once"),
        (lambda: events.assert_emitted(Placed, totl=8), "Placed has no field totl: did you mean t"),
        (lambda: events.assert_emitted(Ordered, totl=8), "Ordered has no field totl: did you mean"),
        (lambda: events.assert_not_emitted(Paid), "paid is not recorded, only placed: record it"),
        (
            lambda: events.assert_handled_by(Ordered, print),
            "Ordered was not handled by .*print, bu",
        ),
        (
            lambda: events.assert_handled_by(Ordered, failing),
            "called for Ordered, and raised Value",
        ),
        (
            lambda: events.wait_for(Ordered, 0.001, order_id=9),
            r"Ordered\(order_id=9\) was not emit",
        ),
    ):
        with pytest.raises(AssertionError, match=message):
            assertion()


def test_what_would_hold_because_it_was_not_recorded_is_refused(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events("placed", Paid, signals=signals) as events:
        signals.signal("lost", context=type("Lost", (Ordered,), {}))
    with pytest.raises(AssertionError, match="lost is not recorded, only placed, Paid: record it"):
        events.assert_not_emitted(Ordered)
    with record_events(Ordered, signals=signals) as orders:
        dispatcher.emit("seen")
    orders.assert_not_emitted(Ordered)
    orders.assert_not_emitted(Paid)
    with pytest.raises(AssertionError, match="seen is not recorded, only Ordered: record it"):
        orders.assert_not_emitted("seen")


def test_a_class_that_no_event_carries_is_refused(signals: SignalRegistry) -> None:
    class Lost(Ordered): ...

    with record_events(signals=signals) as events:
        pass
    with pytest.raises(UnknownEventError, match="Lost is the model of no event"):
        events.assert_not_emitted(Lost)
    with pytest.raises(InvalidEventNameError, match="the class int names no event"):
        events.assert_not_emitted(int)  # type: ignore[arg-type]  # the mistake
    for record in (record_events, fake_events):
        with pytest.raises(InvalidEventNameError, match="the class int names no event"):
            record(int, signals=signals)  # type: ignore[arg-type]  # the mistake
        with pytest.raises(ContextModelError, match="with a GenericEventContext"):
            record(GenericEventContext, signals=signals)


def test_an_emission_of_an_event_that_was_taken_out_since_is_found(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    with record_events(signals=signals) as events:
        emission = dispatcher.emit(Placed(order_id=7))
    signals.clear()
    assert events.assert_emitted(Placed, order_id=7) is emission
    assert events.assert_emitted("placed", order_id=7) is emission


def test_the_handlers_of_a_class_are_faked_also_those_of_events_declared_since(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Lost(Ordered): ...

    called: list[Any] = []
    signals.subscribe("*", lambda sender, **_: called.append(str(sender)))
    signals.subscribe(Ordered, lambda sender, **_: called.append(str(sender)))
    with fake_events(Ordered, signals=signals) as events:
        signals.event(Lost)
        for model in (Placed, Lost):
            dispatcher.emit(model(order_id=7))
        dispatcher.emit("seen")
    assert called == ["seen"]
    events.assert_emitted(Ordered, times=2)
    dispatcher.emit(Lost(order_id=7))
    assert called == ["seen", "lost", "lost"]


def test_a_class_is_waited_for(signals: SignalRegistry, dispatcher: EventDispatcher) -> None:
    with record_events(Ordered, signals=signals) as events:
        thread = threading.Timer(0.01, dispatcher.emit, (Paid(order_id=7),))
        thread.start()
        found = events.wait_for(Ordered, 10, order_id=7)
        thread.join()
        assert asyncio.run(events.wait_for_async(Paid, 10, currency="EUR")) is found
