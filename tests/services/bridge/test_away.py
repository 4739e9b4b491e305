"""The broker goes away, for a while or again and again, and comes back: nothing is lost (D11).

Each test starts a broker of its own, with a relay before it that can be cut.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import aio_pika
import nats
import pytest
import redis.asyncio

from madcrow_events.bridge import TopologyError
from support.brokers import Server
from support.ferry import Ferry, a_ferry, count, drain
from support.outboxes import lines_of, wait_for
from support.relays import Relay
from support.two_services import BROKERS, Moved

pytestmark = [
    pytest.mark.once,
    pytest.mark.guarantee("D11"),
    # The clients of the brokers leave open what they could not close, and forget to await.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Let these warnings come while they are ignored."""
    yield
    gc.collect()


@pytest.fixture(scope="module", params=BROKERS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Server]]:
    """Yield the kind of a broker, and a server of that kind."""
    with BROKERS[request.param](tmp_path_factory.mktemp("broker")) as server:
        yield request.param, server


@pytest.fixture
def relay(broker: tuple[str, Server]) -> Iterator[Relay]:
    with Relay("127.0.0.1", broker[1].port) as relay:
        yield relay


@pytest.fixture
def ferry(broker: tuple[str, Server], relay: Relay, tmp_path: Path) -> Iterator[Ferry]:
    """Yield two services whose way to the broker is the relay."""
    kind, server = broker
    url = server.url.replace(f":{server.port}", f":{relay.port}")
    with a_ferry(kind, url, tmp_path, topic=f"away-{uuid4().hex[:12]}") as ferry:
        yield ferry


def emit(ferry: Ferry, first: int, number: int, at_once: int = 5) -> None:
    """Emit events of a few accounts, some in each transaction."""
    for start in range(first, first + number, at_once):
        numbers = range(start, start + at_once)
        ferry.shop.emit(*(Moved(account=f"account-{n % 7}", mark=str(n)) for n in numbers))


def is_all_booked(ferry: Ferry) -> bool:
    counts = count(ferry)
    return not (counts.lost or counts.stuck)


def check_promises(ferry: Ferry) -> None:
    """Check that nothing is lost, doubled, stuck or dead, and that the order holds."""
    counts = count(ferry)
    print(f"\n{ferry.kind}: {counts}")
    assert (counts.lost, counts.doubled, counts.stuck, counts.dead) == (0, 0, 0, 0)
    assert ferry.kind == "redis" or (counts.disorder, counts.late) == (0, 0)


def check_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Check that each bridge has written once that the broker is away, and once that it is back."""
    lines = lines_of(caplog)
    for name in ("shop", "bank"):
        mine = [it for it in lines if it.startswith(f"the bridge of {name} can")]
        assert ["cannot reach" in it for it in mine] == [True, False]
    assert len(lines) <= 10


@pytest.mark.soak
def test_what_is_emitted_meanwhile_waits(ferry, relay, scale, caplog):
    """The log says it once for each bridge, and not for each event; no delivery becomes dead."""
    seconds = 30.0 if scale == 1.0 else 6.0  # a shorter time is not worth a line
    caplog.set_level(logging.INFO, "madcrow_events")
    with ferry.shop.worker(), ferry.bank.worker():
        emit(ferry, 0, 50)
        wait_for(lambda: is_all_booked(ferry))
        relay.cut()
        end = time.monotonic() + seconds
        for first in range(50, 250, 5):
            emit(ferry, first, 5)
            time.sleep(max(0.0, end - time.monotonic()) / 50)
        time.sleep(max(0.0, end - time.monotonic()))
        relay.mend()
        wait_for(lambda: is_all_booked(ferry), 60)
        wait_for(lambda: len([it for it in lines_of(caplog) if it.endswith("again")]) == 2)
    check_promises(ferry)
    check_lines(caplog)


def test_nothing_is_lost_while_connections_break_again_and_again(ferry, relay):
    """Each time the connections break when something has just been taken in."""
    chance = random.Random(ferry.kind)  # noqa: S311  # nobody needs to guess it
    with ferry.shop.worker(), ferry.bank.worker():
        emit(ferry, 0, 1000, at_once=50)
        for _ in range(5):
            ferry.wait_for_arrivals()
            time.sleep(chance.uniform(0.0, 0.02))
            relay.cut()
            time.sleep(chance.uniform(0.0, 0.1))
            relay.mend()
    drain(ferry)
    check_promises(ferry)


def test_a_worker_that_starts_while_the_broker_is_away_works_when_it_comes(ferry, relay, caplog):
    """It says so, starts within seconds, and needs nobody when the broker is there."""
    relay.cut()
    began = time.monotonic()
    with ferry.shop.worker(), ferry.bank.worker():
        assert time.monotonic() < began + 15
        emit(ferry, 0, 20)
        relay.mend()
        wait_for(lambda: is_all_booked(ferry))
        wait_for(lambda: len([it for it in lines_of(caplog) if it.endswith("again")]) == 2)
    check_promises(ferry)
    check_lines(caplog)


def test_a_worker_stops_although_the_broker_has_gone_meanwhile(ferry, relay):
    """What was not sent is sent by the next one."""
    with ferry.shop.worker(), ferry.bank.worker():
        emit(ferry, 0, 500, at_once=50)
        ferry.wait_for_arrivals()
        relay.cut()
        began = time.monotonic()
    assert time.monotonic() < began + 15
    relay.mend()
    drain(ferry)
    check_promises(ferry)


@pytest.mark.soak
def test_a_worker_stops_although_the_broker_says_nothing_any_more(ferry, broker):
    """It waits for an answer for some seconds, and goes; the same bridge works again later."""
    _, server = broker
    with ferry.shop.worker(), ferry.bank.worker():
        emit(ferry, 0, 500, at_once=50)
        ferry.wait_for_arrivals()
        server.pause()
        began = time.monotonic()
    took = time.monotonic() - began
    server.resume()
    print(f"\n{ferry.kind}, both stopped within {took:.1f} s")
    assert took < 40
    drain(ferry)
    check_promises(ferry)


def test_a_worker_does_not_start_where_the_broker_has_something_else_by_its_names(broker, tmp_path):
    """The error says what to do."""
    kind, server = broker
    topic = f"taken-{uuid4().hex[:12]}"
    asyncio.run(TAKE[kind](server.url, topic))
    ferry = Ferry(kind, server.url, str(tmp_path), topic=topic)
    for service in (ferry.shop, ferry.bank):
        service.create()
        with (
            pytest.raises(TopologyError, match="give the bridge another topic"),
            service.worker(),
        ):
            pass
        service.engine.dispose()


async def take_stream(url: str, topic: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().add_stream(name=topic, subjects=[f"other-{topic}.>"])
    await client.close()


async def take_key(url: str, topic: str) -> None:
    async with redis.asyncio.from_url(url) as client:
        await client.set(topic, "taken")


async def take_exchange(url: str, topic: str) -> None:
    async with await aio_pika.connect(url) as connection, connection.channel() as channel:
        await channel.declare_exchange(topic, "direct")


TAKE = {"nats": take_stream, "rabbitmq": take_exchange, "redis": take_key}
