"""What the bridge finds at NATS and cannot use, and what NATS does not take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("faststream")

import nats
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig

from madcrow_events.bridge import BrokerAwayError, MessageTooLargeError, TopologyError
from madcrow_events.bridge._nats_receiver import Left
from support.transports import KINDS, Rig, an_event, numbers_of, take, until

pytestmark = pytest.mark.once


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig(KINDS["nats"]) as rig:
        yield rig


@pytest.fixture
async def server(rig: Rig) -> AsyncIterator[Any]:
    """Yield what an administrator of JetStream uses."""
    client = await nats.connect(rig.url)
    yield client.jetstream()
    await client.close()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"subjects": ["TOPIC.other"]}, "does not take the subjects TOPIC.>"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "removes what one service has acknowledged"),
        ({"storage": StorageType.MEMORY}, "is in memory, and is lost with its server"),
        ({"no_ack": True}, "acknowledges nothing"),
    ],
)
async def test_a_stream_that_does_not_fit_is_refused(rig, server, config, problem):
    """It is left as it is, and the message says what to do."""
    topic = rig.topology.topic
    wanted = {"subjects": ["TOPIC.>"], **config}
    wanted["subjects"] = [it.replace("TOPIC", topic) for it in wanted["subjects"]]
    await server.add_stream(StreamConfig(name=topic, **wanted))
    told = f"{re.escape(problem.replace('TOPIC', topic))}.*give the bridge another topic"
    with pytest.raises(TopologyError, match=told):
        await rig.transport().connect()


async def test_a_stream_that_cannot_be_made_is_told(rig, server):
    """As when another stream takes its subjects."""
    topic = rig.topology.topic
    await server.add_stream(name=f"{topic}-other", subjects=[f"{topic}.*"])
    with pytest.raises(TopologyError, match=r"cannot be made \(subjects overlap.*administrator"):
        await rig.transport().connect()
    await server.delete_stream(f"{topic}-other")


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"deliver_subject": None}, "is pulled, and not pushed"),
        ({"ack_policy": AckPolicy.ALL}, "does not wait for each message to be acknowledged"),
        ({"filter_subject": "TOPIC.order_placed"}, "leaves some of the subjects out"),
        ({"max_deliver": 3}, "gives messages up after some deliveries"),
    ],
)
async def test_a_consumer_that_does_not_fit_is_refused(rig, server, config, problem):
    """Its position in the stream is somebody's, so it is not replaced."""
    topology = rig.topology
    transport = rig.transport()
    await transport.connect()
    made = {"deliver_subject": "somewhere", "ack_policy": AckPolicy.EXPLICIT, **config}
    if "filter_subject" in made:
        made["filter_subject"] = made["filter_subject"].replace("TOPIC", topology.topic)
    await server.add_consumer(
        topology.topic, ConsumerConfig(durable_name=topology.consumer, **made)
    )
    with pytest.raises(TopologyError, match=f"{problem}: delete it"):
        async with transport.receiving():
            pass


async def test_an_event_that_is_too_large_is_not_sent(rig):
    """The limit is that of the server."""
    transport = await rig.connected()
    with pytest.raises(MessageTooLargeError, match="NATS allows 1,048,576"):
        await transport.publish(an_event(1, data=b"1" * 2_000_000))


async def test_what_has_not_been_connected_says_so(rig):
    """To publish and to receive."""
    transport = rig.transport()
    with pytest.raises(BrokerAwayError, match="is away"):
        await transport.publish(an_event(1))
    with pytest.raises(BrokerAwayError, match="cannot be reached"):
        async with transport.receiving():
            pass


async def test_a_client_that_has_given_up_is_made_anew(rig):
    """It never tries again by itself."""
    transport = await rig.connected()
    async with transport.receiving():
        await transport._client.close()
    assert not transport.is_connected
    await transport.connect()
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 1)) == [1]


async def test_a_consumer_that_was_deleted_is_noticed(rig, server, monkeypatch):
    """It would be silent for ever; a look that is not answered is no reason to stop."""
    monkeypatch.setattr("madcrow_events.bridge._nats_receiver._LOOK_EVERY", 0.0)
    transport = await rig.connected()
    async with transport.receiving() as receiver:
        assert await receiver.take() == []
        with monkeypatch.context() as patch:
            patch.setattr(receiver._context, "consumer_info", no_answer)
            assert await receiver.take() == []
        await server.delete_consumer(rig.topology.topic, rig.topology.consumer)
        with pytest.raises(BrokerAwayError, match="was deleted, and is made anew"):
            await receiver.take()


async def no_answer(*_: object) -> None:
    raise nats.errors.TimeoutError


async def test_the_slower_of_two_stands_by(rig, monkeypatch):
    """Also if both have seen that nobody receives."""
    first, second = await rig.connected(), await rig.connected()
    stand_by = second._stand_by
    looks = []

    async def hasty(context: Any) -> Any:
        looks.append(context)
        return Left(0, 0) if len(looks) == 1 else await stand_by(context)

    async with first.receiving():
        monkeypatch.setattr(second, "_stand_by", hasty)
        entering = asyncio.create_task(second.receiving().__aenter__())
        await until(lambda: len(looks) == 2)
        await asyncio.sleep(0.1)
        assert not entering.done()
    await asyncio.wait_for(entering, 10)


async def test_what_keeps_it_from_receiving_is_told(rig, monkeypatch):
    """Whatever else the server answers."""
    transport = await rig.connected()
    context = transport._client.jetstream()

    async def refused(*_: object, **__: object) -> None:
        raise nats.js.errors.Error("nats: nobody may subscribe")

    monkeypatch.setattr(context, "subscribe", refused)
    monkeypatch.setattr(transport._client, "jetstream", lambda **_: context)
    with pytest.raises(nats.js.errors.Error, match="nobody may subscribe"):
        async with transport.receiving():
            pass


async def test_a_broker_that_the_application_has_started_is_left_open(rig):
    """It is the application's to stop."""
    transport = rig.transport()
    await transport._broker.start()
    await transport.connect()
    await transport.close()
    assert await transport._broker.ping(5)
    await transport._broker.stop()


async def test_a_client_that_gives_up_while_it_receives_says_so(rig):
    """There is nothing to unsubscribe from then."""
    transport = await rig.connected()
    with pytest.raises(BrokerAwayError, match="was lost"):
        async with transport.receiving() as receiver:
            await transport._client.close()
            await receiver.take()
