"""The broker goes away, for a while or again and again, and comes back: nothing is lost (D11).

Each test starts a broker of its own, with a relay before it that can be cut.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip("faststream")
pytest.importorskip("sqlalchemy")

from support.brokers import Server
from support.ferry import Ferry, a_ferry, count, drain
from support.outboxes import lines_of, wait_for
from support.relays import Relay
from support.two_services import BROKERS, Moved

pytestmark = [pytest.mark.once, pytest.mark.guarantee("D11")]


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


def emit(ferry: Ferry, first: int, number: int) -> None:
    """Emit events of a few accounts, a few in a transaction."""
    for start in range(first, first + number, 5):
        numbers = range(start, min(start + 5, first + number))
        ferry.shop.emit(*(Moved(account=f"account-{n % 7}", mark=str(n)) for n in numbers))


def is_all_booked(ferry: Ferry) -> bool:
    counts = count(ferry)
    return not (counts.lost or counts.stuck)


@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.soak)])
def test_what_is_emitted_meanwhile_waits(ferry, relay, seconds, caplog):
    """The log has one line when the broker goes, and one when it is back; no attempt is counted."""
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
    counts = count(ferry)
    print(f"\n{ferry.kind}, away for {seconds:g} s: {counts}")
    print("\n".join(lines_of(caplog)))
    assert counts.events == 250
    assert not any(counts.faults)


def test_nothing_is_lost_while_connections_break_again_and_again(ferry, relay, broker):
    """Each time the connections break when something has just been taken in."""
    chance = random.Random(broker[0])  # noqa: S311  # nobody needs to guess it
    cuts, end = 0, time.monotonic() + 60
    with ferry.shop.worker(), ferry.bank.worker():
        emit(ferry, 0, 1000)
        while ferry.bank.number_booked < 1000 and time.monotonic() < end:
            ferry.wait_for_arrivals(0.5)
            time.sleep(chance.uniform(0.0, 0.03))
            relay.cut()
            time.sleep(chance.uniform(0.0, 0.1))
            relay.mend()
            cuts += 1
    drain(ferry)
    counts = count(ferry)
    print(f"\n{ferry.kind}, cut {cuts} times: {counts}")
