"""Handlers of groups that wait for an event which may never be declared (H5)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    HandlerSignatureError,
    InvalidOptionError,
    SignalRegistry,
    UnknownEventError,
    madcrow_signals,
)
from madcrow_events.testing import assert_plugin_works
from support.explaining import called, handler, only

pytestmark = pytest.mark.guarantee("H5")


class OrderPlaced(BaseEventContext):
    order_id: int


@pytest.fixture
def group(signals: SignalRegistry) -> HandlerGroup:
    """A group with one optional handler, which is registered."""
    group = HandlerGroup("orders")
    group.on("order-placed", optional=True, id="waits")(handler())
    group.register(signals)
    return group


def test_the_handler_is_subscribed_when_its_event_is_declared(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """With all its options, and in the place that its registration has among others."""
    seen: list[Any] = []
    group = HandlerGroup("orders")

    @group.on("order_placed", optional=True, once=True)
    def first(context: OrderPlaced) -> None:
        seen.append(context)

    @group.on("order_placed", optional=True)
    def by_field(order_id: int) -> None:
        seen.append(order_id)

    @group.on("order_placed", optional=True, batch=Batch(max_size=1))
    def in_batches(contexts: list[OrderPlaced]) -> None:
        seen.append(contexts)

    group.register(signals)
    group.register(signals)
    signals.subscribe("order_*", lambda: seen.append("later"))
    signals.signal("order_lost")
    signals.event(OrderPlaced)
    order = OrderPlaced(order_id=7)
    dispatcher.emit(order)
    dispatcher.drain()

    assert seen == [order, 7, "later", [order]]
    dispatcher.emit(order)
    dispatcher.drain()
    assert seen[4:] == [7, "later", [order]]


def test_an_event_that_is_declared_already_is_subscribed_to_at_once(
    signals: SignalRegistry,
) -> None:
    """And the handler must fit it."""
    placed = signals.signal("order_placed", context=OrderPlaced)
    group = HandlerGroup("orders")
    group.on("order_placed", optional=True)(lambda order_id: None)
    group.register(signals)
    assert len(placed.subscriptions) == 1

    group.on("order_placed", optional=True)(lambda order, **rest: None)
    group.on("order_placed", optional=True)(lambda buyer: None)
    group.unregister(signals)
    with pytest.raises(HandlerSignatureError, match="buyer"):
        group.register(signals)
    assert signals.subscriptions == ()


def test_a_handler_that_fits_no_event_is_refused_at_once(signals: SignalRegistry) -> None:
    group = HandlerGroup("orders")
    group.on("order_placed", optional=True)(lambda sender, order, /: None)

    with pytest.raises(HandlerSignatureError, match="positional-only"):
        group.register(signals)


def test_a_misfit_is_logged_and_the_event_is_declared(
    signals: SignalRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    group = HandlerGroup("orders")
    group.on("order_placed", optional=True, id="misfit")(lambda buyer: None)
    group.register(signals)

    placed = signals.event(OrderPlaced)

    assert signals[placed].subscriptions == ()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("madcrow_events", logging.ERROR)
    assert record.getMessage().startswith("an optional handler is not subscribed: handler ")
    assert "takes 'buyer', which is no field of OrderPlaced" in record.getMessage()
    entry = only(signals.explain(placed))
    assert (entry.reason, entry.pattern) == ("unmatched", None)
    assert entry.detail == "it is optional, and does not fit its event order_placed"


def test_what_waits_is_told(signals: SignalRegistry, group: HandlerGroup) -> None:
    entry = only(signals.explain(signals.signal("order_lost")))

    assert (entry.name, entry.reason, entry.pattern) == ("waits", "unmatched", None)
    assert entry.detail == "it is optional, and its event order_placed is not declared"
    assert str(entry) == f"waits: {entry.detail}"
    (waiting,) = signals.subscriptions
    assert repr(waiting).endswith("on order_placed, id='waits', optional=True>")


def test_what_is_subscribed_is_told_like_any_other(
    signals: SignalRegistry, group: HandlerGroup
) -> None:
    placed = signals.signal("order_placed")
    (entry,) = signals.explain(placed).called
    assert (entry.name, entry.origin, entry.pattern) == ("waits", "group orders", None)

    group.unregister(signals)

    assert str(only(signals.explain(placed))) == "waits: it was cancelled"


def test_unregistering_takes_away_what_waits(signals: SignalRegistry, group: HandlerGroup) -> None:
    group.unregister(signals)

    assert signals.subscriptions == ()
    assert signals.signal("order_placed").subscriptions == ()


def test_a_failed_registration_leaves_nothing_waiting(signals: SignalRegistry) -> None:
    group = HandlerGroup("orders")
    group.on("order_placed", optional=True)(handler())
    group.on("order_lost")(handler())

    with pytest.raises(LookupError):
        group.register(signals)
    assert signals.subscriptions == ()


def test_an_event_that_is_forgotten_is_waited_for_again(
    signals: SignalRegistry, group: HandlerGroup
) -> None:
    signals.signal("order_placed")
    del signals["order_placed"]

    assert called(signals.explain(signals.signal("order_placed"))) == ["waits"]


def test_it_waits_for_an_old_name_too(signals: SignalRegistry, group: HandlerGroup) -> None:
    signals.signal("order_placed")
    made = signals.signal("order_made", formerly="order_placed")

    assert called(signals.explain(made)) == ["waits"]


def test_a_lenient_registry_does_not_declare_it() -> None:
    lenient = SignalRegistry(strict=False)
    group = HandlerGroup("orders")
    group.on("order_placed", optional=True)(handler())
    group.register(lenient)

    assert list(lenient) == []


def test_the_event_of_failures_is_declared_when_it_is_first_waited_for(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    seen: list[str] = []
    group = HandlerGroup("failures")
    group.on("handler_failed", optional=True)(lambda event_name: seen.append(event_name))
    group.register(signals)
    signals.signal("order_placed").subscribe(lambda: 1 / 0)

    dispatcher.emit("order_placed")

    assert seen == ["order_placed"]


def test_an_isolated_block_restores_what_waits(
    signals: SignalRegistry, group: HandlerGroup
) -> None:
    with signals.isolated(empty=True):
        assert signals.signal("order_placed").subscriptions == ()
    with signals.isolated():
        assert called(signals.explain(signals.signal("order_placed"))) == ["waits"]
    assert called(signals.explain(signals.signal("order_placed"))) == ["waits"]


@pytest.mark.parametrize("event", ["order_*", OrderPlaced, madcrow_signals["user_logged_in"]])
def test_only_a_name_can_be_optional(event: Any) -> None:
    with pytest.raises(InvalidOptionError, match="one event, which is given by its name") as caught:
        HandlerGroup("orders").on(event, optional=True)
    assert caught.value.option == "optional"


def test_the_option_is_a_boolean_and_only_of_groups(signals: SignalRegistry) -> None:
    wrong: Any = "yes"
    with pytest.raises(InvalidOptionError, match="optional must be True or False"):
        HandlerGroup("orders").on("order_placed", optional=wrong)
    with pytest.raises(InvalidOptionError, match="no option is called 'optional'"):
        signals.subscribe("order_*", handler(), optional=True)  # type: ignore[misc]


def test_a_plugin_works_without_the_event() -> None:
    """An example of the event lets the handler be tried, too."""
    calls: list[str] = []
    group = HandlerGroup("bells")
    group.on("user_logged_in")(lambda: calls.append("needed"))
    group.on("order_placed", optional=True)(lambda order_id: calls.append(f"optional {order_id}"))

    assert_plugin_works(group)
    assert calls == ["needed"] * 2

    assert_plugin_works(group, examples={"order_placed": {"order_id": 7}})
    assert sorted(calls) == ["needed"] * 4 + ["optional 7"] * 2


def test_it_is_a_subscription_of_its_own(signals: SignalRegistry, group: HandlerGroup) -> None:
    """As that to a pattern is: the signal does not end it."""
    placed = signals.signal("order_placed")
    (_, waiting), *_ = group.handlers
    placed.subscribe(waiting, id="own")
    placed.subscribe(handler(), id="waits")

    assert called(signals.explain(placed)) == ["waits", "own", "waits"]
    assert placed.unsubscribe(waiting)
    assert called(signals.explain(placed)) == ["waits", "waits"]


@pytest.mark.parametrize("declared", ["before", "after", "under a new name", "never"])
@pytest.mark.parametrize("strict", [True, False])
def test_the_registry_unsubscribes_it_by_the_name_of_its_event(declared: str, strict: bool) -> None:
    """Whether it waits or not; nothing of it is left."""
    signals = SignalRegistry(strict=strict)
    group = HandlerGroup("orders")
    group.on("order-placed", optional=True)(handler())
    group.on("order_placed", optional=True)(handler())
    (_, first), (_, second) = group.handlers
    if declared == "before":
        signals.signal("order_placed")
    group.register(signals)
    if declared == "after":
        signals.signal("order_placed")
    if declared == "under a new name":
        signals.signal("order_made", formerly="order_placed")
    name = "order_made" if declared == "under a new name" else "order-placed"

    assert not signals.unsubscribe(name, handler())
    assert signals.unsubscribe(name, first)
    assert not signals.unsubscribe(name, first)
    assert {it.handler for it in signals.subscriptions} == {second}
    assert signals.unsubscribe(name, second)
    assert signals.subscriptions == ()
    expected = {"never": [], "under a new name": ["order_made"]}
    assert list(signals) == expected.get(declared, ["order_placed"])


def test_what_is_optional_and_what_is_not_end_together(signals: SignalRegistry) -> None:
    group = HandlerGroup("orders")
    group.on("order_placed", optional=True)(handler())
    group.register(signals)
    (_, waiting), *_ = group.handlers
    placed = signals.signal("order_placed")
    placed.subscribe(waiting)

    assert not signals.unsubscribe(EventSignal("order_placed"), waiting)
    assert signals.unsubscribe(placed, waiting)
    assert signals.subscriptions == ()


def test_a_name_that_nothing_waits_for_is_unknown(
    signals: SignalRegistry, group: HandlerGroup
) -> None:
    with pytest.raises(UnknownEventError):
        signals.unsubscribe("order_lost", handler())
