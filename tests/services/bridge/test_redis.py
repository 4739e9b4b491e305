"""Redis Streams under the bridge: groups, leases, other producers, and what is removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aio_pika")
pytest.importorskip("nats")
pytest.importorskip("redis")

import redis.asyncio
from faststream.redis import RedisBroker, RedisStreamMessage

from madcrow_events.bridge import _redis
from madcrow_events.bridge._errors import BrokerAwayError, TopologyError
from madcrow_events.bridge._redis import RedisTransport
from madcrow_events.outbox import CloudEvent
from support.transports import KINDS, Rig, an_event, numbers_of, take, until

pytestmark = pytest.mark.once


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig(KINDS["redis"]) as rig:
        yield rig


@pytest.fixture
async def client(rig: Rig) -> AsyncIterator[Any]:
    async with redis.asyncio.from_url(rig.url) as client:
        yield client


@asynccontextmanager
async def a_user_without(client: Any, rig: Rig, command: str) -> AsyncIterator[str]:
    """Yield a URL with a user who may do anything but one."""
    name = f"without-{uuid4().hex[:8]}"
    rights = ("reset", "on", ">secret", "~*", "&*", "+@all", f"-{command}")
    await client.execute_command("ACL", "SETUSER", name, *rights)
    try:
        yield rig.url.replace("//", f"//{name}:secret@", 1)
    finally:
        await client.acl_deluser(name)


async def test_a_new_service_also_receives_what_was_sent_before_it_was_there(rig):
    """As long as it is retained."""
    transport = await rig.connected()
    await transport.publish(an_event(1))
    late = await rig.connected(consumer="late")
    async with late.receiving() as receiver:
        assert numbers_of(await take(receiver, 1)) == [1]


@pytest.mark.parametrize(
    "fields",
    [
        {"data": "7", "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/", "ce-type": "a"},
        {"body": "7", "cloudEvents:specversion": "1.0"}
        | {f"cloudEvents:{name}": "a" for name in ("id", "source", "type")},
        {"message": '{"specversion": "1.0", "id": "1", "source": "/", "type": "a", "data": 7}'}
        | {"content-type": "application/cloudevents+json", "trace": b"\xff"},
        {"event": '{"specversion": "1.0", "id": "1", "source": "/", "type": "a", "data": 7}'},
    ],
)
async def test_events_of_other_producers_are_read(rig, client, fields):
    """Those add an entry with a body and headers, or one field that is the whole event."""
    transport = await rig.connected()
    await client.xadd(rig.topology.topic, fields)
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 1)) == [7]


async def test_an_entry_without_a_body_has_headers_only(rig, client):
    """An event may have no data."""
    transport = await rig.connected()
    await client.xadd(rig.topology.topic, {"ce-id": "1", "ce-type": "a"})
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        assert (message.headers, message.body) == ({"ce-id": "1", "ce-type": "a"}, b"")


@pytest.mark.parametrize(
    "entry", [b"x", b'{"data": "x", "headers": "y"}', b"\x89BIN\r\n\x1a\n\0\1"]
)
async def test_an_entry_that_faststream_cannot_read_holds_up_no_other(rig, client, entry):
    """It is delivered as it is, so that it is refused."""
    transport = await rig.connected()
    await client.xadd(rig.topology.topic, {"__data__": entry})
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver:
        unreadable, message = await take(receiver, 2)
    assert (unreadable.headers, numbers_of([message])) == ({}, [1])


async def test_applications_of_faststream_read_what_the_bridge_publishes(rig):
    """Their subscribers get the headers and the body of a CloudEvent."""
    transport = await rig.connected()
    sent, received = an_event(7), []
    broker = RedisBroker(rig.url, logger=None)

    @broker.subscriber(stream=rig.topology.topic)
    async def note(message: RedisStreamMessage) -> None:
        received.append(CloudEvent.read(message.headers, message.body))

    async with broker:
        await broker.start()
        await transport.publish(sent)
        await until(lambda: received)
    assert received == [sent]


async def test_both_protocols_of_redis_are_understood(rig):
    """RESP3 nests the answers otherwise."""
    transport = await rig.connected(f"{rig.url}?protocol=3")
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        await message.give_back(0)
        [message] = await take(receiver, 1)
        assert (numbers_of([message]), message.deliveries) == ([1], 2)
        assert await receiver.take() == []


async def test_deliveries_are_counted_beyond_the_second(rig):
    """Redis counts them, and is asked for what was claimed."""
    transport = await rig.connected(lease=0.05)
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver:
        for count in (1, 2, 3):
            [message] = await take(receiver, 1)
            assert message.deliveries == count


async def test_what_a_consumer_holds_is_not_claimed_before_the_lease_is_over(rig):
    """A slow one is not disturbed."""
    transport = await rig.connected(lease=60.0)
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver, transport.receiving() as other:
        await take(receiver, 1)
        assert await other.take() == []


async def test_what_a_dead_process_held_is_claimed_in_batches(rig):
    """Each is taken soon after the other, not after a lease of its own."""
    dead = await rig.connected()
    for number in range(10):
        await dead.publish(an_event(number))
    async with dead.receiving() as receiver:
        await take(receiver, 10)
    heir = await rig.connected(batch=3)
    received = []
    async with heir.receiving() as receiver:
        while len(received) < 10:
            messages = await take(receiver, 1)
            assert len(messages) <= 3
            received += numbers_of(messages)
            for message in messages:
                await message.settle()
    assert received == list(range(10))


async def test_a_consumer_that_ends_while_it_waits_is_removed(rig, client):
    """Nobody needs to wait for the answer of Redis."""
    transport = await rig.connected()
    async with transport.receiving() as receiver:
        taking = asyncio.create_task(receiver.take())
        await asyncio.sleep(0.1)
        taking.cancel()
    assert await client.xinfo_consumers(rig.topology.topic, rig.topology.consumer) == []


async def test_a_user_who_may_make_no_groups_is_told_so(rig, client):
    """The error has the words of Redis, and no password."""
    async with a_user_without(client, rig, "xgroup") as url:
        with pytest.raises(BrokerAwayError, match="no permissions") as caught:
            await rig.connected(url)
    assert "secret" not in str(caught.value)


async def test_an_acknowledgement_that_fails_ends_the_receiving(rig, client):
    """Or nobody would hear that messages are delivered again and again."""
    async with a_user_without(client, rig, "xack") as url:
        transport = await rig.connected(url)
        await transport.publish(an_event(1))
        async with transport.receiving() as receiver:
            [message] = await take(receiver, 1)
            await message.settle()
            with pytest.raises(BrokerAwayError, match="has not taken an acknowledgement"):
                await take(receiver, 1)
        await transport.close()


async def test_what_is_published_at_once_keeps_its_order_whoever_gives_up(rig):
    """A publisher that does not wait for the answer is no obstacle for the others."""
    transport = await rig.connected()
    publishing = [asyncio.create_task(transport.publish(an_event(n))) for n in range(5)]
    await asyncio.sleep(0)
    publishing[1].cancel()
    answers = await asyncio.gather(*publishing, return_exceptions=True)
    assert [type(it) for it in answers] == [type(None), asyncio.CancelledError, *[type(None)] * 3]
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 5)) == [0, 1, 2, 3, 4]


async def test_who_publishes_to_a_key_that_became_something_else_is_told_so(rig, client):
    """The error names the event, and what Redis says."""
    transport = await rig.connected()
    await client.set(rig.topology.topic, "a text")
    event = an_event(1)
    with pytest.raises(BrokerAwayError, match=f"the event {event.id}: WRONGTYPE"):
        await transport.publish(event)


async def test_a_consumer_that_ended_with_nothing_pending_is_removed(rig, client):
    """And one with something pending stays, until that is claimed."""
    topic, group = rig.topology.topic, rig.topology.consumer
    transport = await rig.connected(lease=60.0)
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        await message.settle()
    assert await client.xinfo_consumers(topic, group) == []
    await transport.publish(an_event(2))
    async with transport.receiving() as receiver:
        await take(receiver, 1)
    assert [it["pending"] for it in await client.xinfo_consumers(topic, group)] == [1]


async def test_a_consumer_that_died_long_ago_is_removed_but_not_what_it_was_given(
    rig, client, monkeypatch
):
    """So there are never more of them than died within an hour, and nothing is lost with them."""
    topic, group = rig.topology.topic, rig.topology.consumer
    transport = await rig.connected()
    await transport.publish(an_event(1))
    await client.xgroup_createconsumer(topic, group, "gone")
    await client.xreadgroup(group, "gone-with-a-message", {topic: ">"})
    await asyncio.sleep(0.01)
    async with transport.receiving():
        names = {it["name"] for it in await client.xinfo_consumers(topic, group)}
        assert names == {b"gone", b"gone-with-a-message"}  # both have been there of late
    monkeypatch.setattr(_redis, "_GONE_AFTER", 0.005)
    async with transport.receiving() as receiver:
        names = {it["name"] for it in await client.xinfo_consumers(topic, group)}
        assert names == {b"gone-with-a-message"}
        assert numbers_of(await take(receiver, 1)) == [1]


async def test_what_is_older_than_the_retention_is_removed_and_nothing_younger(rig, client):
    """Whole parts of the stream at once, so that it is a little longer than it had to be."""
    for number in range(1, 500):
        await client.xadd(rig.topology.topic, {"event": "old"}, id=f"{number}-0")
    transport = await rig.connected(retention=timedelta(seconds=60))
    young = [an_event(number) for number in range(3)]
    for event in young:
        await transport.publish(event)
    left = 0
    while not 3 <= left < 200:
        await asyncio.sleep(0.01)
        left = await client.xlen(rig.topology.topic)
    last = await client.xrevrange(rig.topology.topic, count=3)
    parse = RedisBroker().message_format.parse
    events = [CloudEvent.read(*reversed(parse(fields[b"__data__"]))) for _, fields in last]
    assert events == young[::-1]


async def test_a_key_that_is_no_stream_is_refused(rig, client):
    """The error says of which kind it is, and what to do."""
    await client.set(rig.topology.topic, "a text")
    with pytest.raises(TopologyError, match="is a string and no stream: delete it, or give"):
        await rig.transport().connect()


@pytest.mark.parametrize("command", ["delete", "xgroup_destroy"])
async def test_what_vanishes_while_receiving_is_made_again_with_the_next_receiving(
    rig, client, command
):
    """Taking says so, because messages may be missing."""
    topic, group = rig.topology.topic, rig.topology.consumer
    transport = await rig.connected()
    async with transport.receiving() as receiver:
        assert await receiver.take() == []
        await getattr(client, command)(*(topic, group)[: 1 if command == "delete" else 2])
        with pytest.raises(BrokerAwayError, match="NOGROUP"):
            await receiver.take()
    async with transport.receiving() as receiver:
        await transport.publish(an_event(1))
        assert numbers_of(await take(receiver, 1)) == [1]


async def test_a_broker_that_the_application_has_started_is_left_running(rig):
    """The bridge closes only what it has opened."""
    broker = RedisBroker(rig.url, logger=None)
    transport = RedisTransport(broker, rig.topology)
    async with broker:
        await broker.start()
        await transport.connect()
        await transport.close()
        assert not transport.is_connected
        assert await broker.ping()


async def test_an_event_that_a_middleware_refuses_holds_up_no_other(rig, monkeypatch):
    """Events that are published at once go in one round trip, and fail one by one."""
    transport = await rig.connected()
    publish = transport._broker.publish

    async def picky(body: bytes, **options: Any) -> Any:
        if b'"data":2' in body:
            raise ValueError("not this one")
        return await publish(body, **options)

    monkeypatch.setattr(transport._broker, "publish", picky)
    publishing = [transport.publish(an_event(number)) for number in (1, 2, 3)]
    answers = await asyncio.gather(*publishing, return_exceptions=True)
    assert [type(it) for it in answers] == [type(None), BrokerAwayError, type(None)]
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 2)) == [1, 3]
