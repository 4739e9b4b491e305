"""What NATS does with messages that a receiver leaves unacknowledged, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest

from madcrow_events.bridge import _nats_receiver
from support.relays import Relay
from support.transports import KINDS, Rig, an_event, numbers_of, take

pytestmark = [pytest.mark.once, pytest.mark.guarantee("D11")]

MANY = 4000  # with fewer, the server has mostly delivered all before it knows that nobody is there


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig(KINDS["nats"], batch=MANY, lease=1.0) as rig:
        yield rig


async def test_the_order_holds_when_a_receiver_ends_in_the_middle_of_a_redelivery(rig, monkeypatch):
    """The server then goes on in the middle, and delivers the first messages last."""
    monkeypatch.setattr(_nats_receiver, "_GATHER_FOR", 20.0)  # there are far more than in a batch
    transport = await rig.connected()
    with Relay(*rig.address) as relay:
        dying = await rig.connected(rig.through(relay.port))
        async with dying.receiving() as receiver:
            await asyncio.gather(*(transport.publish(an_event(n)) for n in range(MANY)))
            await take(receiver, MANY, 20)
            relay.cut()
    await receive_and_end(rig, 7)
    async with transport.receiving() as receiver:
        messages = await take(receiver, MANY, 20)
    places = [place_of(it) for it in messages]
    assert places == list(range(1, MANY + 1))


async def receive_and_end(rig: Rig, number: int) -> None:
    """Receive some messages when they are due again, and acknowledge none."""
    topology = rig.topology
    client = await nats.connect(rig.url)
    info = await client.jetstream().consumer_info(topology.topic, topology.consumer)
    await asyncio.sleep(topology.lease + 0.2)
    subscription = await client.subscribe(info.config.deliver_subject, max_msgs=number)
    for _ in range(number):
        await subscription.next_msg(5)
    await client.close()


async def test_what_the_stream_has_removed_meanwhile_is_not_waited_for(rig, monkeypatch):
    """The rest comes in its order, after some seconds."""
    monkeypatch.setattr(_nats_receiver, "_GATHER_FOR", 0.3)
    transport = await rig.connected()
    with Relay(*rig.address) as relay:
        dying = await rig.connected(rig.through(relay.port))
        async with dying.receiving() as receiver:
            for number in range(5):
                await transport.publish(an_event(number))
            messages = await take(receiver, 5)
            relay.cut()
    client = await nats.connect(rig.url)
    await client.jetstream().delete_msg(rig.topology.topic, place_of(messages[2]))
    await client.close()
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 4)) == [0, 1, 3, 4]


def place_of(message) -> int:
    return int(message.place.split()[1])
