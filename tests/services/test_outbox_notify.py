"""Workers hear of commits in other processes by NOTIFY, long before they would look.

The environment variable `POSTGRES_DSN` says where the server is. The test makes tables of its own,
and removes them.
"""

from __future__ import annotations

import time

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import Worker
from support.outboxes import Order, emit, keyed_outbox, lines_of, postgres_url, wait_for

pytestmark = pytest.mark.once


@pytest.fixture
def engine():
    engine = create_engine(postgres_url())
    yield engine
    engine.dispose()


def outboxes(engine):
    """Return the outbox of the worker, and that of an emitter as in another process."""
    made = [keyed_outbox(notify=True, table_prefix="notify_") for _ in range(2)]
    made[0].metadata.drop_all(engine)
    made[0].metadata.create_all(engine)
    return made


@pytest.mark.parametrize("driver", ["psycopg", "psycopg_async", "asyncpg"])
def test_a_commit_elsewhere_is_heard_of_at_once(engine, driver, caplog):
    """With each driver; and again when the connection that listens was lost."""
    pytest.importorskip(driver.partition("_")[0])
    ours, theirs = outboxes(engine)
    handled = []
    ours.on("order", id="mail")(lambda number: handled.append((number, time.monotonic())))
    url = postgres_url().set(drivername=f"postgresql+{driver}")
    own = create_engine(url) if driver == "psycopg" else create_async_engine(url)
    try:
        with Worker(ours, own, poll=600):
            wait_for(lambda: _listening(engine))
            emit(theirs, engine, Order(number=1))
            wait_for(lambda: len(handled) == 1, 5)
            _end_listening(engine)
            wait_for(lambda: any("hears of no commits" in it for it in lines_of(caplog)))
            wait_for(lambda: _listening(engine))
            emit(theirs, engine, Order(number=2))
            wait_for(lambda: len(handled) == 2, 5)
    finally:
        ours.metadata.drop_all(engine)


def _listening(engine):
    with engine.connect() as connection:
        return (
            connection.execute(
                text("select pid from pg_stat_activity where query = 'LISTEN \"notify_event\"'")
            )
            .scalars()
            .all()
        )


def _end_listening(engine):
    with engine.begin() as connection:
        for pid in _listening(engine):
            connection.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})


def test_a_driver_that_hears_nothing_is_refused(engine):
    """With what to do instead."""
    engine.dialect.driver = "pg8000"
    with pytest.raises(InvalidOptionError, match="psycopg or asyncpg, not pg8000: leave it out"):
        Worker(keyed_outbox(notify=True), engine)
