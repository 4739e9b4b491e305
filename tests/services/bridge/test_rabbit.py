"""RabbitMQ under the bridge: exchanges and queues, one consumer at a time, other producers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aio_pika")
pytest.importorskip("nats")
pytest.importorskip("redis")

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from faststream import BaseMiddleware
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage

from madcrow_events.bridge._errors import BrokerAwayError, MessageTooLargeError, TopologyError
from madcrow_events.bridge._rabbit import RabbitTransport
from madcrow_events.outbox import CloudEvent
from support.relays import Relay
from support.transports import KINDS, Rig, an_event, numbers_of, take, until

pytestmark = pytest.mark.once


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig(KINDS["rabbit"]) as rig:
        yield rig


@pytest.fixture
async def channel(rig: Rig) -> AsyncIterator[Any]:
    async with await aio_pika.connect(rig.url) as connection:
        yield await connection.channel()


async def send(channel: Any, topic: str, **options: Any) -> None:
    exchange = await channel.get_exchange(topic)
    message = aio_pika.Message(options.pop("body", b"7"), **options)
    await exchange.publish(message, routing_key="order_placed")


async def test_a_second_process_waits_and_takes_over_in_order(rig):
    """The first one receives all, until it ends; and what it had not settled comes first."""
    first, second = await rig.connected(), await rig.connected()
    for number in range(4):
        await first.publish(an_event(number))
    async with second.receiving() as waiting, first.receiving() as receiver:
        assert await receiver.take() == []
        assert numbers_of(await take(waiting, 4)) == [0, 1, 2, 3]
    async with first.receiving() as receiver, second.receiving() as waiting:
        held = await take(receiver, 4)
        await held[0].settle()
        assert await waiting.take() == []
        taking = asyncio.create_task(take(waiting, 3))
        await first.close()
        assert numbers_of(await taking) == [1, 2, 3]


async def test_only_the_events_that_come_in_are_delivered(rig):
    """The exchange leaves the others out."""
    transport = await rig.connected(events=("order_placed", "order_paid"))
    await transport.publish(an_event(1, type="order_lost"))
    await transport.publish(an_event(2, type="order_paid"))
    await transport.publish(an_event(3))
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 2)) == [2, 3]


async def test_what_was_refused_is_kept_in_a_queue_of_its_own(rig, channel):
    """As it was, so that somebody can look at it and send it again."""
    transport = await rig.connected()
    event = an_event(1)
    await transport.publish(event)
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        assert event.id in message.place
        await message.refuse()
    queue = await channel.get_queue(f"{rig.topology.topic}.{rig.topology.consumer}.refused")
    async with asyncio.timeout(10), queue.iterator(no_ack=True) as messages:
        kept = await anext(messages)
    assert CloudEvent.read({"content-type": kept.content_type, **kept.headers}, kept.body) == event


async def test_what_was_refused_takes_an_exchange_of_its_own(rig, channel):
    """So that a service needs no right to write to the queues of all others."""
    transport = await rig.connected()
    queue = f"{rig.topology.topic}.{rig.topology.consumer}"
    async with transport.receiving():
        exchange = await channel.get_exchange(f"{queue}.refused")
    await exchange.publish(aio_pika.Message(b"7"), routing_key="")
    async with asyncio.timeout(10):
        refused = await channel.get_queue(f"{queue}.refused")
        assert await refused.get(fail=False) is not None
    options = {"x-single-active-consumer": True, "x-dead-letter-exchange": f"{queue}.refused"}
    await channel.declare_queue(queue, durable=True, arguments=options)
    await refused.delete(if_unused=False, if_empty=False)
    with pytest.raises(ChannelNotFoundEntity):
        await channel.get_exchange(f"{queue}.refused")


async def test_the_headers_of_other_producers_become_texts(rig, channel):
    """What has no text in CloudEvents is left out."""
    transport = await rig.connected()
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    headers = {
        "cloudEvents:time": moment,
        "count": 7,
        "share": 0.5,
        "is_paid": True,
        "bytes": bytearray(b"\xff"),
        "parts": ["a"],
        "nothing": None,
    }
    await send(channel, rig.topology.topic, headers=headers)
    await send(channel, rig.topology.topic, content_type="text/plain", message_id="17")
    async with transport.receiving() as receiver:
        first, second = await take(receiver, 2)
    assert first.headers == {
        "cloudEvents:time": "2026-01-31T12:00:00+00:00",
        "count": "7",
        "share": "0.5",
        "is_paid": "true",
        "bytes": "\ufffd",
    }
    assert second.headers == {"content-type": "text/plain"}
    assert "'17'" in second.place


async def test_queues_that_count_deliveries_are_believed(rig, channel):
    """Quorum queues do so by a header, which others may have set as they like at first."""
    transport = await rig.connected()
    await send(channel, rig.topology.topic, headers={"x-delivery-count": 3})
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        assert message.deliveries == 1
        await message.give_back(0)
        [message] = await take(receiver, 1)
        assert message.deliveries == 4


async def test_what_is_given_back_is_counted_where_the_queue_does_not(rig):
    """So that what fails again and again is refused in the end; the queue only says "again"."""
    transport = await rig.connected()
    for number in (1, 2):
        await transport.publish(an_event(number))
    counts: dict[int, list[int]] = {1: [], 2: []}
    async with transport.receiving() as receiver:
        while len(counts[1]) < 5 or not counts[2]:
            for message in await take(receiver, 1):
                [number] = numbers_of([message])
                counts[number].append(message.deliveries)
                if number == 2 or len(counts[1]) == 5:
                    await message.settle()
                else:
                    await message.give_back(0.0)
    assert counts == {1: [1, 2, 3, 4, 5], 2: [1]}


async def test_applications_of_faststream_read_what_the_bridge_publishes(rig):
    """Their subscribers get the headers and the body of a CloudEvent."""
    transport = await rig.connected()
    sent, received = an_event(7), []
    broker = RabbitBroker(rig.url, logger=None)
    exchange = RabbitExchange(rig.topology.topic, type=ExchangeType.TOPIC)

    @broker.subscriber(f"{rig.topology.topic}.{rig.topology.consumer}.refused", exchange)
    async def note(message: RabbitMessage) -> None:
        headers = {**message.headers, "content-type": message.content_type}
        received.append(CloudEvent.read(headers, message.body))

    async with broker:
        await broker.start()
        await transport.publish(sent)
        async with transport.receiving() as receiver:
            [message] = await take(receiver, 1)
            await message.refuse()
        await until(lambda: received)
    assert received == [sent]


async def test_an_exchange_of_another_kind_is_refused(rig, channel):
    """The error says what to do; and the application's channel is not closed by it."""
    await channel.declare_exchange(rig.topology.topic, "fanout", durable=True)
    broker = RabbitBroker(rig.url, logger=None)
    transport = RabbitTransport(broker, rig.topology)
    rig.transport()  # which removes the names
    async with broker:
        own = (await broker.declare_exchange(RabbitExchange("amq.topic", declare=False))).channel
        closed = []
        own.close_callbacks.add(lambda *_: closed.append(1))
        with pytest.raises(TopologyError, match="Delete it, give the bridge another topic"):
            await transport.connect()
        assert not closed
        assert not transport.is_connected


@pytest.mark.parametrize("suffix", ["", ".refused"])
async def test_a_queue_that_is_there_with_other_arguments_is_refused(rig, channel, suffix):
    """The error names the queue."""
    name = f"{rig.topology.topic}.{rig.topology.consumer}{suffix}"
    await channel.declare_queue(name, durable=True, arguments={"x-max-length": 5})
    transport = rig.transport()
    await transport.connect()
    with pytest.raises(TopologyError, match=f"the queue {name} of .*inequivalent"):
        async with transport.receiving():
            raise AssertionError("it receives")


async def test_a_channel_without_publisher_confirms_is_refused(rig):
    """Nothing would say that an event was lost."""
    broker = RabbitBroker(rig.url, logger=None, default_channel=Channel(publisher_confirms=False))
    transport = RabbitTransport(broker, rig.topology)
    rig.transport()  # which removes the names
    with pytest.raises(TopologyError, match="leave out publisher_confirms=False"):
        await transport.connect()
    await transport.close()


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_queue_that_is_deleted_ends_the_receiving(rig, channel, is_waiting):
    """RabbitMQ tells that at once; and the next receiving makes the queue anew."""
    transport = await rig.connected()
    async with transport.receiving() as receiver:
        taking = asyncio.create_task(take(receiver, 1))
        if is_waiting:
            await asyncio.sleep(0.1)
        await channel.queue_delete(f"{rig.topology.topic}.{rig.topology.consumer}")
        with pytest.raises(BrokerAwayError, match="no longer delivers the queue"):
            await taking
    async with transport.receiving() as receiver:
        await transport.publish(an_event(1))
        assert numbers_of(await take(receiver, 1)) == [1]


async def test_an_exchange_that_was_deleted_is_made_again(rig, channel):
    """The first publication fails, so nothing is taken for sent that is not."""
    transport = await rig.connected()
    await channel.exchange_delete(rig.topology.topic)
    with pytest.raises(BrokerAwayError, match="NOT_FOUND"):
        await transport.publish(an_event(1))
    await transport.publish(an_event(2))


async def test_an_event_that_is_too_large_is_told_from_a_broker_that_is_away(tmp_path):
    """To try again would be of no use; others are published."""
    with KINDS["rabbit"].server(tmp_path) as server:
        async with Rig(KINDS["rabbit"], server.url) as rig:
            transport = await rig.connected()
            large = CloudEvent(id="1", source="/shop", type="a", data=b"0" * 2_000_001)
            with pytest.raises(MessageTooLargeError, match="no message of 2000001 bytes"):
                await transport.publish(large)
            await transport.publish(an_event(1))


async def test_what_the_application_does_wrong_on_its_channel_is_not_blamed_on_the_event(rig):
    """A like error closes the channel, and to try again may help."""

    class Broken(BaseMiddleware):
        async def publish_scope(self, call_next: Any, cmd: Any) -> Any:
            raise ChannelPreconditionFailed("PRECONDITION_FAILED - unknown delivery tag 7")

    broker = RabbitBroker(rig.url, logger=None, middlewares=[Broken])
    transport = RabbitTransport(broker, rig.topology)
    rig.transport()  # which removes the names
    await transport.connect()
    with pytest.raises(BrokerAwayError, match="unknown delivery tag"):
        await transport.publish(an_event(1))
    await transport.close()


async def test_it_cannot_receive_before_it_is_connected(rig):
    """The error says what to do."""
    with pytest.raises(BrokerAwayError, match="connect first"):
        async with rig.transport().receiving():
            raise AssertionError("it receives")
    transport = await rig.connected()
    assert transport.is_connected


async def test_a_broker_that_waits_for_its_server_is_asked_again(rig):
    """A client that never gives up is given some seconds each time, and makes one connection."""
    with Relay(*rig.address) as relay:
        relay.cut()
        broker = RabbitBroker(
            rig.through(relay.port), logger=None, fail_fast=False, reconnect_interval=0.2
        )
        transport = RabbitTransport(broker, rig.topology)
        rig.transport()  # which removes the names
        with pytest.raises(BrokerAwayError, match="within 5 seconds"):
            await transport.connect()
        relay.mend()
        await transport.connect()
        assert transport.is_connected
        await transport.close()


async def test_a_broker_that_the_application_has_started_is_left_running(rig):
    """The bridge closes only what it has opened."""
    broker = RabbitBroker(rig.url, logger=None)
    transport = RabbitTransport(broker, rig.topology)
    rig.transport()  # which removes the names
    async with broker:
        await broker.start()
        await transport.connect()
        await transport.close()
        assert not transport.is_connected
        assert await broker.ping(1)
