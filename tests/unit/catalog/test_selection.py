"""A name or a pattern means the same events in the catalogue as where handlers subscribe."""

from __future__ import annotations

import re
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    EventSignal,
    GenericEventContext,
    HandlerFailedEventContext,
    InvalidEventNameError,
    SignalRegistry,
    UnknownEventError,
    madcrow_signals,
)
from madcrow_events.catalog import asyncapi, json_schema


class OrderEvent(BaseEventContext):
    order_id: int


class OrderPlaced(OrderEvent):
    pass


@pytest.fixture
def shop(signals: SignalRegistry) -> SignalRegistry:
    """Return a registry with some events, one of which had another name before."""
    signals.signal("order_placed", context=OrderPlaced, formerly="purchase_made")
    signals.signal("order_shipped", context=OrderEvent)
    signals.signal("cart.order_left")
    signals.signal("handler_failed", context=HandlerFailedEventContext)
    return signals


def chosen(pattern: Any, signals: SignalRegistry) -> list[str]:
    """Return the events that a pattern means, which both documents have."""
    names = list(json_schema(pattern, signals=signals)["properties"])
    channels = asyncapi(pattern, signals=signals)["channels"].values()
    assert names == [channel["address"] for channel in channels]
    return names


@pytest.mark.parametrize(
    ("pattern", "events"),
    [
        ("*", ["cart.order_left", "handler_failed", "order_placed", "order_shipped"]),
        ("order_*", ["order_placed", "order_shipped"]),
        ("*order-*", ["cart.order_left", "order_placed", "order_shipped"]),
        ("*_failed", ["handler_failed"]),
        ("purchase_*", ["order_placed"]),
        ("nothing_*", []),
        ("order_placed", ["order_placed"]),
        ("order-placed", ["order_placed"]),
        ("handler_failed", ["handler_failed"]),
        (OrderPlaced, ["order_placed"]),
        (OrderEvent, ["order_placed", "order_shipped"]),
        (BaseEventContext, ["order_placed", "order_shipped"]),
        (HandlerFailedEventContext, ["handler_failed"]),
    ],
)
def test_a_pattern_or_class_means_the_events_that_fit_it_in_the_order_of_their_names(
    pattern: Any, events: list[str], shop: SignalRegistry
) -> None:
    assert chosen(pattern, shop) == events


def test_an_old_name_means_the_event_and_is_warned_of(shop: SignalRegistry) -> None:
    with pytest.warns(DeprecationWarning, match="purchase_made is called order_placed now"):
        assert list(json_schema("purchase-made", signals=shop)["properties"]) == ["order_placed"]


def test_a_signal_means_its_event(shop: SignalRegistry, signal: EventSignal[Any]) -> None:
    assert chosen(signal, shop) == ["thing_happened"]


def test_without_arguments_the_catalogue_has_all_events_of_the_default_registry() -> None:
    madcrow_signals.signal("order_placed")

    assert list(json_schema()["properties"]) == sorted(madcrow_signals)
    assert list(asyncapi()["channels"]) == sorted(madcrow_signals)


@pytest.mark.parametrize("make", [json_schema, asyncapi])
@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("Order Placed", InvalidEventNameError),
        ("order placed*", InvalidEventNameError),
        (7, InvalidEventNameError),
        (int, InvalidEventNameError),
        (GenericEventContext, ContextModelError),
        (EventSignal("order_placed"), None),
        (madcrow_signals["login_failed"], UnknownEventError),
    ],
    ids=str,
)
def test_what_no_event_can_be_named_by_is_refused(
    make: Any, pattern: Any, error: type[Exception] | None, shop: SignalRegistry
) -> None:
    """A signal that somebody made directly is in no registry, and any registry takes it."""
    if error is None:
        make(pattern, signals=shop)
        return
    with pytest.raises(error):
        make(pattern, signals=shop)


@pytest.mark.parametrize("strict", [True, False])
def test_an_unknown_name_is_an_error_that_names_similar_ones_and_is_not_declared(
    strict: bool,
) -> None:
    signals = SignalRegistry(strict=strict)
    signals.signal("order_placed", formerly="order_maid")

    hint = "no event is called 'order_plaecd': did you mean order_placed or order_maid?"
    with pytest.raises(UnknownEventError, match=re.escape(hint)):
        json_schema("order-plaecd", signals=signals)

    with pytest.raises(UnknownEventError):
        json_schema("shipped", signals=signals)
    assert list(signals) == ["order_placed"]
    assert chosen("order_placed", signals) == ["order_placed"]
