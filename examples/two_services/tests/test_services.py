"""An order goes through both services, whatever fails on its way."""

import json
from typing import Any

import pytest

from madcrow_events.outbox import CloudEvent


def test_an_order_is_shipped_and_the_shop_hears_of_it(services: Any) -> None:
    """Shipping has its own, smaller model of the event."""
    order = services.place("tea")
    assert services.state_of(order) == "placed"
    services.work()
    assert services.parcels() == [(1, order, "1 Mill Lane")]
    assert services.state_of(order) == "shipped"


def test_while_shipping_is_away_its_events_wait(services: Any) -> None:
    orders = [services.place(item) for item in ("tea", "milk", "bread")]
    services.work_in_shop()
    assert {services.state_of(it) for it in orders} == {"placed"}
    services.work()
    assert [order for _, order, _ in services.parcels()] == orders
    assert {services.state_of(it) for it in orders} == {"shipped"}


def test_a_parcel_that_cannot_be_booked_is_tried_again(services: Any) -> None:
    """Neither the parcel nor its event is there before it is booked."""
    order = services.place("tea")
    services.work_in_shop()
    report = services.work_in_shipping(fail={"book-parcel": ConnectionError()})
    assert report.retried == 1
    assert services.parcels() == []
    services.work()  # which waits for nothing
    assert services.parcels() == [(1, order, "1 Mill Lane")]
    assert services.state_of(order) == "shipped"


@pytest.mark.parametrize(("source", "parcels"), [("/shop", 1), ("/elsewhere", 0)])
def test_an_event_is_taken_in_once_and_only_from_the_shop(
    services: Any, source: str, parcels: int
) -> None:
    """However often the broker delivers it."""
    fields = {"order_id": 7, "address": "1 Mill Lane"}
    event = CloudEvent(
        id="e-1", source=source, type="order_placed", data=json.dumps(fields).encode()
    )
    for _ in range(2):
        services.broker.publish("madcrow_events", *event.binary())
    services.work_in_shipping()
    assert len(services.parcels()) == parcels
