"""The broker in memory keeps what real ones do: each service hears each message, and once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from madcrow_events import SignalRegistry
from madcrow_events.bridge import MemoryBridge, MemoryBroker, _memory
from madcrow_events.bridge._memory import MemoryTransport
from madcrow_events.bridge._transport import Topology
from support.outboxes import lines_of
from support.services import TOPIC, OrderPlaced, placed


def test_each_service_hears_each_message(shop, service):
    services = [service(it) for it in ("billing", "shipping")]
    for it in services:
        it.bridge.incoming("order_placed")
        it.listen()
    shop.emit(OrderPlaced(number=1))
    for it in (shop, *services):
        it.drain()
    assert [it.handled for it in services] == [[("order_placed", 1)]] * 2


def test_two_of_one_name_share_what_comes(broker, service):
    """As the processes of one service do; each message goes to one of them."""
    services = [service(it, consumer="shipping") for it in ("one", "two")]
    for it in services:
        it.bridge.incoming("order_placed")
        it.listen()
    for number, it in enumerate(services * 2, 1):
        broker.publish(TOPIC, *placed(number))
        it.drain()
    assert [[it[1] for it in one.handled] for one in services] == [[1, 3], [2, 4]]


def test_topics_are_apart(broker, service):
    other = service("other", topic="others")
    other.bridge.incoming("order_placed")
    other.listen()
    broker.publish(TOPIC, *placed(1))
    broker.publish("others", *placed(2))
    other.drain()
    assert other.handled == [("order_placed", 2)]


def test_a_service_hears_what_is_published_after_it_asked_for_it(broker, service):
    """And nothing is kept for one that never asks."""
    late = service("late")
    broker.publish(TOPIC, *placed(1))
    assert broker._queues == {}
    late.bridge.incoming("order_placed")
    late.listen()
    broker.publish(TOPIC, *placed(2))
    late.drain()
    assert late.handled == [("order_placed", 2)]


async def test_a_drain_takes_in_where_an_event_loop_runs(broker, shipping):
    """Taking in waits for nothing."""
    broker.publish(TOPIC, *placed(1))
    shipping.drain()
    assert shipping.handled == [("order_placed", 1)]


# As a transport


@pytest.fixture
def transport(broker: MemoryBroker) -> MemoryTransport:
    topology = Topology(
        topic=TOPIC, consumer="c", events=None, lease=1.0, retention=timedelta(days=1), batch=3
    )
    return MemoryTransport(broker, topology)


def publish(broker: MemoryBroker, *bodies: bytes) -> None:
    for it in bodies:
        broker.publish(TOPIC, {}, it)


async def test_no_more_is_delivered_than_may_be_unacknowledged(broker, transport, monkeypatch):
    """The rest comes when some of it is settled."""
    monkeypatch.setattr(_memory, "_WAIT", 0.01)
    async with transport.receiving() as receiver:
        publish(broker, b"1", b"2", b"3", b"4", b"5")
        first = await receiver.take()
        assert [it.body for it in first] == [b"1", b"2", b"3"]
        await asyncio.sleep(0)
        assert await receiver.take() == []
        await first[0].settle()
        await first[1].refuse()
        assert [it.body for it in await receiver.take()] == [b"4", b"5"]


async def test_what_was_not_settled_is_delivered_again_in_its_order(broker, transport):
    """With the number of its deliveries; what was settled is not."""
    async with transport.receiving() as receiver:
        publish(broker, b"1", b"2", b"3")
        first = await receiver.take()
        await first[1].settle()
    publish(broker, b"4")
    async with transport.receiving() as receiver:
        again = await receiver.take()
        assert [(it.body, it.deliveries) for it in again] == [(b"1", 2), (b"3", 2), (b"4", 1)]
        assert again[0].place == "message 1 of the queue c"


async def test_what_is_given_back_comes_again_after_its_time(broker, transport):
    async with transport.receiving() as receiver:
        publish(broker, b"1", b"2")
        first, _ = await receiver.take()
        await first.give_back(0.01)
        again: list[Any] = []
        async with asyncio.timeout(10):
            while not again:
                again = await receiver.take()
        assert [(it.body, it.deliveries) for it in again] == [(b"1", 2)]


async def test_what_comes_wakes_the_receiver(broker, transport):
    async with transport.receiving() as receiver:
        taking = asyncio.create_task(receiver.take())
        await asyncio.sleep(0)
        await asyncio.to_thread(publish, broker, b"1")
        assert await taking == []
        assert [it.body for it in await receiver.take()] == [b"1"]


def test_a_loop_that_has_ended_meanwhile_is_woken_by_nobody():
    """A publisher may come at the very moment at which the receiver goes."""
    loop = asyncio.new_event_loop()
    loop.close()
    _memory._set(loop, asyncio.Event())


def test_a_bridge_of_a_registry_is_drained_by_nobody(broker, signals: SignalRegistry, caplog):
    """There is no outbox whose drain it could be."""
    bridge = MemoryBridge(signals, broker, consumer="cache", inbox=None)
    signals.signal("order_placed", context=OrderPlaced)
    bridge.incoming("order_placed")
    assert bridge._drain(None) == 0
    assert lines_of(caplog) == []
