"""What the bridge may expect of every broker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aio_pika")
pytest.importorskip("nats")
pytest.importorskip("redis")

from madcrow_events.bridge._errors import BrokerAwayError
from support.relays import Relay
from support.transports import KINDS, Kind, Rig, an_event, numbers_of, take, until

pytestmark = [
    pytest.mark.once,
    # The client of NATS leaves sockets open when it fails to connect again.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
async def rig(kind: Kind) -> AsyncIterator[Rig]:
    async with Rig(kind) as rig:
        yield rig


@pytest.fixture
def relay(rig: Rig) -> Iterator[Relay]:
    with Relay(*rig.address) as relay:
        yield relay


async def test_events_arrive_as_they_were_sent_and_in_their_order(rig):
    """One that publishes and one that receives need nothing else."""
    transport = await rig.connected()
    sent = [an_event(number) for number in range(25)]
    received = []
    async with transport.receiving() as receiver:
        for event in sent:  # now, or NATS may deliver to the receiver that has just ended
            await transport.publish(event)
        while len(received) < 25:
            for message in await take(receiver, 1):
                assert message.deliveries == 1
                assert rig.topology.topic in message.place
                received.append(type(sent[0]).read(message.headers, message.body))
                await message.settle()
        assert await receiver.take() == []
    assert received == sent


async def test_each_service_receives_all_events(rig):
    """Services have consumers of their own, which know nothing of each other."""
    mail = await rig.connected()
    stock = await rig.connected(consumer="stock")
    await mail.publish(an_event(1))
    for transport in (mail, stock):
        async with transport.receiving() as receiver:
            [message] = await take(receiver, 1)
            assert numbers_of([message]) == [1]
            await message.settle()


async def test_what_was_not_settled_is_delivered_again_after_a_crash(rig, relay):
    """Another process of the service takes over; and it is told that this is not the first time."""
    await (survivor := await rig.connected()).publish(an_event(1))
    await survivor.publish(an_event(2))
    dying = await rig.connected(rig.through(relay.port))
    async with dying.receiving() as receiver:
        first, _ = await take(receiver, 2)
        await first.settle()
        await asyncio.sleep(0.1)  # an acknowledgement may be on its way
        relay.cut()
        async with survivor.receiving() as other:
            [message] = await take(other, 1)
            assert numbers_of([message]) == [2]
            assert message.deliveries >= 2  # NATS counts those to a connection that broke
            await message.settle()
            await asyncio.sleep(2 * rig.topology.lease)
            assert await other.take() == []


async def test_no_more_than_a_batch_is_on_its_way(rig):
    """What follows comes as soon as messages are acknowledged."""
    transport = await rig.connected(batch=3)
    for number in range(8):
        await transport.publish(an_event(number))
    async with transport.receiving() as receiver:
        held = await take(receiver, 3)
        assert numbers_of(held) == [0, 1, 2]
        assert await receiver.take() == []
        for message in held:
            await message.settle()
        assert numbers_of(await take(receiver, 3)) == [3, 4, 5]


async def test_a_take_that_is_cancelled_loses_nothing(rig):
    """Whenever it is cancelled, the messages come with the next one."""
    transport = await rig.connected(lease=60.0)
    received = []
    async with transport.receiving() as receiver:
        for number in range(20):
            taking = asyncio.create_task(receiver.take())
            publishing = asyncio.create_task(transport.publish(an_event(number)))
            await asyncio.sleep(number / 5000)
            taking.cancel()
            await publishing
            with contextlib.suppress(asyncio.CancelledError):
                received += numbers_of(messages := await taking)
                for message in messages:
                    await message.settle()
        while len(received) < 20:
            for message in await take(receiver, 1):
                received += numbers_of([message])
                await message.settle()
    assert received == list(range(20))


async def test_what_is_refused_is_not_delivered_again(rig):
    """It is no obstacle for those behind it."""
    transport = await rig.connected(batch=1)
    await transport.publish(an_event(1))
    await transport.publish(an_event(2))
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        await message.refuse()
        [message] = await take(receiver, 1)
        assert numbers_of([message]) == [2]
        await message.settle()
        await asyncio.sleep(2 * rig.topology.lease)
        assert await receiver.take() == []


async def test_what_is_given_back_is_delivered_again_and_not_at_once(rig):
    """The transport does not wait for that, and goes on with others."""
    transport = await rig.connected()
    await transport.publish(an_event(1))
    async with transport.receiving() as receiver:
        [message] = await take(receiver, 1)
        await message.give_back(0.4)
        given = time.monotonic()
        await transport.publish(an_event(2))
        [other] = await take(receiver, 1)
        assert numbers_of([other]) == [2]
        await other.settle()
        [again] = await take(receiver, 1)
        assert time.monotonic() >= given + 0.4
        assert numbers_of([again]) == [1]
        assert again.deliveries >= 2
        await again.settle()


async def test_what_was_not_settled_at_the_end_is_delivered_again(rig):
    """Also what was delivered, but not even taken."""
    transport = await rig.connected()
    for number in range(4):
        await transport.publish(an_event(number))
    async with transport.receiving() as receiver:
        await take(receiver, 1)
    async with transport.receiving() as receiver:
        assert set(numbers_of(await take(receiver, 4))) == {0, 1, 2, 3}


async def test_a_connection_that_breaks_ends_the_receiving_and_nothing_else(rig, relay):
    """Acknowledging fails silently, taking says so, and what was not acknowledged comes again."""
    transport = await rig.connected(rig.through(relay.port))
    for number in range(6):
        await transport.publish(an_event(number))
    async with transport.receiving() as receiver:
        held = await take(receiver, 6)
        await held[0].settle()
        await asyncio.sleep(0.1)  # an acknowledgement may be on its way
        relay.cut()
        for message in held[1:4]:
            await message.settle()
        await held[4].refuse()
        await held[5].give_back(0)
        with pytest.raises(BrokerAwayError):
            await take(receiver, 1)
    await until(lambda: not transport.is_connected)
    relay.mend()
    await transport.connect()
    assert transport.is_connected
    async with transport.receiving() as receiver:
        assert sorted(numbers_of(await take(receiver, 5))) == [1, 2, 3, 4, 5]


async def test_publishing_fails_soon_while_the_broker_is_away_and_works_again(rig, relay):
    """It is known beforehand, by the way; and nothing must be done when the broker is back."""
    transport = await rig.connected(rig.through(relay.port))
    await transport.publish(an_event(1))
    relay.cut()
    began = time.monotonic()
    with pytest.raises(BrokerAwayError, match=str(relay.port)):
        await transport.publish(an_event(2))
    assert time.monotonic() < began + 6
    await until(lambda: not transport.is_connected)
    with pytest.raises(BrokerAwayError):
        await transport.publish(an_event(3))
    relay.mend()
    await until(lambda: transport.is_connected)
    await transport.publish(an_event(4))
    async with transport.receiving() as receiver:
        assert numbers_of(await take(receiver, 2)) == [1, 4]


async def test_nobody_is_told_the_password_of_a_broker_that_is_away(rig, relay):
    """Connecting fails soon, with an error that says where the broker should be."""
    relay.cut()
    transport = rig.transport(rig.through(relay.port).replace("//", "//somebody:secret@", 1))
    began = time.monotonic()
    with pytest.raises(BrokerAwayError, match=f"127.0.0.1:{relay.port}") as caught:
        await transport.connect()
    assert time.monotonic() < began + 6
    assert "secret" not in f"{caught.value!r} {transport.place}"
    assert not transport.is_connected


async def test_a_transport_connects_again_after_it_was_closed(rig):
    """Before it is connected, and in between, it is not."""
    transport = rig.transport()
    assert not transport.is_connected
    await transport.connect()
    await transport.close()
    assert not transport.is_connected
    await transport.connect()
    assert transport.is_connected
    async with transport.receiving() as receiver:
        await transport.publish(an_event(1))
        assert numbers_of(await take(receiver, 1)) == [1]


async def test_what_was_acknowledged_survives_a_server_that_is_killed(kind, tmp_path):
    """The publisher was told that it is stored, and so it is; the client need not be made anew."""
    with kind.server(tmp_path) as server:
        async with Rig(kind, server.url) as rig:
            transport = await rig.connected()
            for number in range(5):
                await transport.publish(an_event(number))
            await asyncio.to_thread(server.restart)
            await transport.connect()
            async with transport.receiving() as receiver:
                assert numbers_of(await take(receiver, 5)) == [0, 1, 2, 3, 4]
