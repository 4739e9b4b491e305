"""Announcing handlers, and making the deliveries of events."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from madcrow_events import SignalRegistry
from madcrow_events.outbox import GiveUp, Outbox
from madcrow_events.outbox._reporting import Reporting
from madcrow_events.testing import drain_outbox
from support.outbox_steps import Steps
from support.outboxes import Order, emit, keyed_outbox, lines_of


@pytest.fixture
def engine(any_engine):
    return any_engine


def new_outbox(engine, **options) -> Outbox:
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    return outbox


def test_a_run_ends_before_what_is_not_yet_due(engine):
    """And before a version that the worker cannot read."""
    outbox, handled = new_outbox(engine), []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    with Session(engine) as session:
        outbox.emit(session, Order(number=1))
        later = datetime.now(UTC) + timedelta(hours=1)
        outbox.emit(session, Order(number=2), not_before=later)
        outbox.emit(session, Order(number=3))
        session.commit()
    worker = Steps(outbox, engine)
    assert [len(it.run.rows) for it in worker.work()] == [1]
    assert worker.work() == []
    drain_outbox(outbox, engine)
    assert handled == [1, 2, 3]


def test_events_follow_the_new_name_of_their_event(engine):
    """What was emitted under the old one is delivered under the new one."""
    outbox = new_outbox(engine)
    emit(outbox, engine, Order(number=1))
    signals, handled = SignalRegistry(), []
    signals.signal("order_placed", context=Order, key="customer", formerly=["order"])
    renamed = Outbox("/shop", signals=signals)
    renamed.on("order_placed", id="mail")(lambda number: handled.append(number))
    assert drain_outbox(renamed, engine) == (1, 0, 0)
    assert handled == [1]


def test_a_handler_that_was_renamed_takes_its_deliveries_over(engine):
    """An older worker beside it changes nothing of that."""
    older, handled = new_outbox(engine), []
    older.on("order", id="mail")(lambda number: handled.append(("mail", number)))
    emit(older, engine, Order(number=1))
    worker = Steps(older, engine)
    worker.expand()
    newer = keyed_outbox()
    newer.on("order", id="post", formerly=("letter", "mail"))(
        lambda number: handled.append(("post", number))
    )
    Steps(newer, engine)
    Steps(older, engine)
    (status,) = newer.inspect(engine).status().handlers
    assert status.name == "post"
    drain_outbox(newer, engine)
    assert handled == [("post", 1)]


def test_an_id_that_was_given_to_a_handler_of_another_event_waits(engine):
    """Its old deliveries are not for the new handler; the error says what to do."""
    older = new_outbox(engine)
    older.on("order", id="mail")(lambda number: None)
    emit(older, engine, Order(number=1))
    Steps(older, engine).expand()
    signals = SignalRegistry()
    signals.signal("refund", context=Order)
    newer = Outbox("/shop", signals=signals)
    newer.on("refund", id="mail")(lambda number: None)
    drain_outbox(newer, engine)
    waiting = newer.inspect(engine).show("1-1")
    assert (waiting.state, waiting.attempts) == ("waiting", 0)
    assert waiting.error_type == "HandlerIdError"


def test_one_worker_expands_at_a_time(postgresql_engine):
    """The others leave it to that one."""
    outbox = new_outbox(postgresql_engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, postgresql_engine, Order(number=1))
    worker = Steps(outbox, postgresql_engine)
    with postgresql_engine.begin() as connection:
        assert worker.claiming.expand(connection, wait=True) == 1
        assert worker.do(worker.claiming.expand) == 0


def test_a_key_whose_tail_is_being_settled_waits_a_round(postgresql_engine):
    """Else what is new would wait behind a delivery that is gone."""
    outbox = new_outbox(postgresql_engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, postgresql_engine, Order(number=1, customer="a"))
    worker = Steps(outbox, postgresql_engine)
    (run,) = worker.claim()
    ended = worker.call(run)
    with postgresql_engine.begin() as connection:
        assert worker.caller.settle(connection, [ended.settlement]) == set()
        emit(outbox, postgresql_engine, Order(number=2, customer="a"))
        assert worker.expand() == 0
        emit(outbox, postgresql_engine, Order(number=3, customer="b"))
        assert worker.expand() == 1
    assert worker.expand() == 1
    assert len(worker.work()) == 2


def test_leases_are_renewed_by_their_tokens(engine):
    """From now on; those that were lost stay lost."""
    outbox = new_outbox(engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    worker, table = Steps(outbox, engine), outbox.tables.delivery
    first, second = worker.claim()
    assert first.token == second.token
    with engine.begin() as connection:
        connection.execute(update(table).values(due=1))
        connection.execute(update(table).where(table.c.event_seq == 2).values(token=7))
    worker.do(worker.statements.renew, [first.token], 60_000_000)
    with engine.begin() as connection:
        now = worker.statements.now(connection)
        due = connection.execute(select(table.c.due).order_by(table.c.event_seq)).scalars().all()
    assert due[0] > now
    assert due[1] == 1


def test_an_announcement_that_fails_ends_no_worker(outbox_engine, caplog):
    """It is logged, without a value."""

    class Dispatcher:
        def announce(self, emission):
            raise LookupError("secret")

    outbox = new_outbox(outbox_engine)

    @outbox.on("order", id="mail")
    def mail(number):
        raise GiveUp

    emit(outbox, outbox_engine, Order(number=1))
    (ended,) = Steps(outbox, outbox_engine).work()
    Reporting(Dispatcher(), 60.0).report(ended, is_lost=False)
    (line,) = [it for it in lines_of(caplog, logging.ERROR) if it.startswith("the announcement")]
    assert line == "the announcement of a dead delivery of order has failed: LookupError"
