"""Calling durable handlers in a test."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from madcrow_events.outbox import OutboxSchemaError, Retry
from madcrow_events.testing import DrainReport, drain_outbox
from support.outboxes import Order, emit, keyed_outbox

LATER = Retry(attempts=3, wait_initial=3600)


@pytest.fixture
def outbox(outbox_engine):
    outbox = keyed_outbox()
    outbox.metadata.create_all(outbox_engine)
    return outbox


def test_the_report_counts_what_came_of_the_deliveries(outbox, outbox_engine):
    """Nothing to do is nothing done."""
    assert drain_outbox(outbox, outbox_engine) == DrainReport(done=0, dead=0, retried=0)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, outbox_engine, Order(number=1), Order(number=2))
    assert drain_outbox(outbox, outbox_engine) == DrainReport(done=2, dead=0, retried=0)
    assert drain_outbox(outbox, outbox_engine) == DrainReport(done=0, dead=0, retried=0)


def test_a_failure_can_be_made(outbox, outbox_engine):
    """The handler is not called, is tried once, and its delivery waits for the next attempt."""
    handled = []
    outbox.on("order", id="mail", retry=LATER)(lambda number: handled.append(("mail", number)))
    outbox.on("order", id="book", retry=LATER)(lambda number: handled.append(("book", number)))
    emit(outbox, outbox_engine, Order(number=1))
    report = drain_outbox(outbox, outbox_engine, fail={"mail": LookupError("made up")})
    assert (report, handled) == (DrainReport(done=1, dead=0, retried=1), [("book", 1)])
    (_, mail) = outbox.inspect(outbox_engine).status().handlers
    assert (mail.delayed, mail.dead) == (1, 0)
    assert drain_outbox(outbox, outbox_engine) == DrainReport(done=1, dead=0, retried=0)
    assert handled == [("book", 1), ("mail", 1)]


def test_deliveries_can_be_tried_until_they_are_dead(outbox, outbox_engine):
    """Hours of waits pass at once."""
    outbox.on("order", id="mail", retry=LATER)(lambda number: None)
    emit(outbox, outbox_engine, Order(number=1))
    fail = {"mail": LookupError()}
    report = drain_outbox(outbox, outbox_engine, fail=fail, until_dead=True)
    assert report == DrainReport(done=0, dead=1, retried=2)


def test_a_handler_that_succeeds_in_the_end_is_done(outbox, outbox_engine):
    """Those behind it come after it."""
    attempts = []

    @outbox.on("order", id="mail", retry=LATER)
    def mail(number):
        attempts.append(number)
        if attempts.count(1) < 3:
            raise LookupError

    emit(outbox, outbox_engine, Order(number=1), Order(number=2))
    report = drain_outbox(outbox, outbox_engine, until_dead=True)
    assert (report, attempts) == (DrainReport(done=2, dead=0, retried=2), [1, 1, 1, 2])


def test_a_handler_may_emit_durably_in_its_turn(outbox, outbox_engine):
    """What it emits is handled, too."""
    handled = []

    @outbox.on("order", id="mail")
    def mail(number):
        handled.append(number)
        if number < 3:
            emit(outbox, outbox_engine, Order(number=number + 1))

    emit(outbox, outbox_engine, Order(number=1))
    assert drain_outbox(outbox, outbox_engine).done == 3
    assert handled == [1, 2, 3]


def test_tables_that_are_missing_are_told(outbox_engine):
    """Before anything is called."""
    with pytest.raises(OutboxSchemaError, match="create_all"):
        drain_outbox(keyed_outbox(), outbox_engine)


def test_a_database_in_memory_will_do():
    """It belongs to one connection, which is shared."""
    outbox, engine = keyed_outbox(), create_engine("sqlite://", poolclass=StaticPool)
    outbox.metadata.create_all(engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1))
    assert drain_outbox(outbox, engine).done == 1
    engine.dispose()


async def test_an_async_test_drains_in_a_thread(outbox, outbox_engine):
    """With the async engine of the application."""
    handled = []

    @outbox.on("order", id="mail")
    async def mail(number):
        handled.append(number)

    emit(outbox, outbox_engine, Order(number=1))
    engine = create_async_engine(f"sqlite+aiosqlite:///{outbox_engine.url.database}")
    report = await asyncio.to_thread(drain_outbox, outbox, engine)
    await engine.dispose()
    assert (report.done, handled) == (1, [1])
