"""What NATS does with messages that a receiver leaves unacknowledged, and what becomes of them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import nats
import pytest

from madcrow_events.bridge import BrokerAwayError, MessageTooLargeError, _nats_receiver
from support.relays import Relay
from support.transports import KINDS, Rig, an_event, numbers_of, take, until

pytestmark = [
    pytest.mark.once,
    pytest.mark.guarantee("D11"),
    # The client leaves open what it could not connect.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

MANY = 4000  # with fewer, the server has mostly delivered all before it knows that nobody is there


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let these warnings come while they are ignored."""
    yield
    gc.collect()


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


async def test_the_headers_of_an_event_count_for_its_size(rig):
    """The server would close the connection, again and again, and nothing else could be sent."""
    transport = await rig.connected()
    largest = transport._client.max_payload
    with pytest.raises(MessageTooLargeError, match=r"with its headers, and NATS allows 1,048,576"):
        await transport.publish(an_event(1, data=b"1" * (largest - 300)))
    await transport.publish(an_event(2, data=b"2" * (largest - 1000)))
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
    assert len(message.body) == largest - 1000


async def test_an_event_that_its_stream_does_not_take_is_told_from_a_broker_that_is_away(rig):
    """An administrator may have limited the stream."""
    client, topic = await nats.connect(rig.url), rig.topology.topic
    await client.jetstream().add_stream(name=topic, subjects=[f"{topic}.>"], max_msg_size=1000)
    await client.close()
    transport = await rig.connected()
    with pytest.raises(MessageTooLargeError, match="raise max_msg_size of the stream"):
        await transport.publish(an_event(1, data=b"1" * 1000))
    await transport.publish(an_event(2))


@pytest.mark.parametrize(
    "headers",
    [
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0 100 FlowControl Request\r\n\r\n",
        b"NATS/1.0\r\nStatus: 100\r\nDescription: hello\r\n\r\n",
        b"NATS/1.0 503\r\n\r\n",
        b"NATS/1.0\r\n: \xff\r\n\r\n",
    ],
)
async def test_a_message_that_looks_like_a_word_of_the_server_is_delivered(rig, headers):
    """Anybody can publish it; unseen, it would come again for ever, in the place of others."""
    transport = await rig.connected()
    reader, writer = await asyncio.open_connection(*rig.address)
    await reader.readline()
    subject, size = f"{rig.topology.topic}.order_placed".encode(), len(headers)
    writer.write(b'CONNECT {"verbose": false, "headers": true}\r\n')
    writer.write(b"HPUB %s %d %d\r\n%s\r\nPING\r\n" % (subject, size, size, headers))
    assert await reader.readline() == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        assert message.body == b""
        await message.refuse()


def place_of(message) -> int:
    return int(message.place.split()[1])


async def test_a_receiver_ends_when_its_client_has_connected_again(rig):
    """Else the client would subscribe for nobody, and nobody else could receive."""
    transport = await rig.connected()
    for number in range(3):
        await transport.publish(an_event(number))
    with Relay(*rig.address) as relay:
        is_lost = asyncio.Event()
        receiving = asyncio.create_task(receive_until_lost(rig, relay, is_lost))
        await is_lost.wait()
        await asyncio.sleep(1.5)
        assert not receiving.done()
        relay.mend()
        with pytest.raises(BrokerAwayError, match=r"the connection was lost$"):
            await asyncio.wait_for(receiving, 10)
        async with asyncio.timeout(10), transport.receiving() as receiver:
            assert numbers_of(await take(receiver, 3)) == [0, 1, 2]


async def receive_until_lost(rig: Rig, relay: Relay, is_lost: asyncio.Event) -> None:
    """Receive, and answer when the connection is lost."""
    transport = await rig.connected(rig.through(relay.port))
    async with transport.receiving() as receiver:
        messages = await take(receiver, 3)
        relay.cut()
        await until(lambda: not transport.is_connected)
        is_lost.set()
        await messages[0].settle()
        await messages[1].refuse()
        await messages[2].give_back(0)
        await receiver.take()


async def test_what_comes_after_a_moment_without_connection_is_not_taken(rig):
    """What came in that moment is missing, and comes only after it."""
    with Relay(*rig.address) as relay:
        transport = await rig.connected(rig.through(relay.port))
        with pytest.raises(BrokerAwayError, match="for a moment"):
            async with transport.receiving() as receiver:
                relay.cut()
                await until(lambda: not transport.is_connected)
                relay.mend()
                await until(lambda: transport.is_connected)
                await receiver.take()


async def test_a_receiver_ends_when_its_client_has_given_up(rig):
    """Nothing is left to be waited for."""
    transport = await rig.connected()
    with pytest.raises(BrokerAwayError):
        async with transport.receiving() as receiver:
            await transport._client.close()
            await receiver.take()
