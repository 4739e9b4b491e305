"""PostgreSQL goes away for ten seconds at the commit, at the claim and at the settling.

The environment variable `POSTGRES_DSN` says where the server is. The test makes tables of its own,
and removes them.
"""

from __future__ import annotations

import logging
import threading
import time

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from madcrow_events.outbox import Worker
from support.outboxes import Order, emit, keyed_outbox, lines_of, postgres_url, wait_for
from support.relays import Relay

pytestmark = [pytest.mark.once, pytest.mark.guarantee("D1", "D6")]

AWAY = 10.0  # seconds


@pytest.fixture
def outbox():
    outbox = keyed_outbox(table_prefix="away_")
    engine = create_engine(postgres_url())
    outbox.metadata.drop_all(engine)
    outbox.metadata.create_all(engine)
    yield outbox
    outbox.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def relay():
    url = postgres_url()
    with Relay(url.host or "127.0.0.1", url.port or 5432) as relay:
        yield relay


@pytest.fixture
def engine(relay):
    engine = create_engine(
        postgres_url().set(host="127.0.0.1", port=relay.port), pool_pre_ping=True
    )
    yield engine
    engine.dispose()


def test_nothing_is_lost_and_nothing_is_called_twice_within_a_lease(outbox, engine, relay, caplog):
    """The emitter gets the error; the worker says what is wrong, once, and goes on afterwards."""
    handled, began, may_end = [], threading.Event(), threading.Event()

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        if number == 2:
            began.set()
            may_end.wait(60)
        handled.append(number)

    caplog.set_level(logging.DEBUG, "madcrow_events")
    heard = []
    outbox.signals["order"].on()(lambda number: heard.append(number))
    with Worker(outbox, engine, lease=60, poll=0.1):
        emit(outbox, engine, Order(number=1, customer="a"))
        wait_for(lambda: handled == [1])
        emit(outbox, engine, Order(number=2, customer="b"))
        assert began.wait(20)
        with Session(engine) as session:
            outbox.emit(session, Order(number=3, customer="c"))
            session.connection()
            relay.cut()  # at the commit, at the next claim, and before the settling
            with pytest.raises(OperationalError):
                session.commit()
        may_end.set()
        time.sleep(AWAY)
        relay.mend()
        assert heard == [1, 2]
        wait_for(lambda: "the outbox can use its database again" in lines_of(caplog), 60)
        emit(outbox, engine, Order(number=4, customer="b"))
        wait_for(lambda: handled == [1, 2, 4])
    assert handled == [1, 2, 4]
    away = [it for it in lines_of(caplog) if it.startswith("the outbox cannot use its database")]
    assert len(away) == 1
