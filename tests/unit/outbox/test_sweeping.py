"""Removing what is kept no longer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, update

from madcrow_events.outbox import GiveUp, Outbox
from madcrow_events.outbox import _sweeping as sweeping_module
from madcrow_events.outbox._database import SharedDatabase
from madcrow_events.testing import drain_outbox
from support.outboxes import Order, emit, keyed_outbox


@pytest.fixture
def engine(any_engine):
    return any_engine


def new_outbox(engine, **options) -> Outbox:
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    return outbox


def counts(outbox, engine):
    """Return how many events, deliveries and notes of the inbox there are."""
    tables = (outbox.tables.event, outbox.tables.delivery, outbox.tables.inbox)
    with engine.begin() as connection:
        return [
            connection.execute(select(func.count()).select_from(it)).scalar_one() for it in tables
        ]


def sweeping_of(outbox, engine):
    return outbox._sweeping(outbox._statements_for(engine))


def test_events_that_were_handled_are_removed_a_thousand_at_a_time(engine):
    """Those whose deliveries are open stay; after the end it begins again."""
    outbox = new_outbox(engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, *(Order(number=it, customer=str(it % 50)) for it in range(1500)))
    drain_outbox(outbox, engine)
    emit(outbox, engine, Order(number=1500))
    sweeping, access = sweeping_of(outbox, engine), SharedDatabase(engine)
    seen = []
    for _ in range(3):
        sweeping.sweep(access)
        seen.append(counts(outbox, engine)[0])
    assert seen == [501, 1, 1]


def test_sweeping_is_due_after_a_thousand_deliveries_or_five_seconds(engine, monkeypatch):
    """So that a busy worker keeps up, and an idle one sweeps, too."""
    now = [100.0]
    monkeypatch.setattr(sweeping_module, "monotonic", lambda: now[0])
    outbox = new_outbox(engine)
    sweeping, access = sweeping_of(outbox, engine), SharedDatabase(engine)
    assert not sweeping.is_due
    sweeping.count(999)
    assert not sweeping.is_due
    sweeping.count(1)
    assert sweeping.is_due
    sweeping.sweep(access)
    assert not sweeping.is_due
    now[0] += 5.0
    assert sweeping.is_due
    sweeping.sweep(access)
    assert not sweeping.is_due


def test_what_is_older_than_it_is_kept_is_removed(engine, monkeypatch):
    """Once a minute: what was handled, what is dead, and the notes of the inbox."""
    now = [100.0]
    monkeypatch.setattr(sweeping_module, "monotonic", lambda: now[0])
    hour = timedelta(hours=1)
    outbox = new_outbox(engine, keep_done=hour, keep_dead=hour, keep_inbox=hour)

    @outbox.on("order", id="mail")
    def mail(number):
        if number == 2:
            raise GiveUp

    emit(outbox, engine, *(Order(number=it) for it in (1, 2, 3)))
    drain_outbox(outbox, engine)
    tables = outbox.tables
    statements = outbox._statements_for(engine)
    with engine.begin() as connection:
        note = {"consumer": "us", "source": "/them", "event_id": "1"}
        connection.execute(insert(tables.inbox), {**note, "seen": statements.now(connection)})
    sweeping, access = sweeping_of(outbox, engine), SharedDatabase(engine)
    sweeping.sweep(access)
    assert counts(outbox, engine) == [3, 3, 1]
    past = 3_600_000_001
    with engine.begin() as connection:
        delivery, inbox = tables.delivery, tables.inbox
        connection.execute(update(inbox).values(seen=inbox.c.seen - past))
        change = update(delivery).where(delivery.c.state.in_((2, 3)))
        connection.execute(
            change.values(due=delivery.c.due - past, error_at=delivery.c.error_at - past)
        )
    now[0] += 5.0
    sweeping.sweep(access)
    assert counts(outbox, engine) == [3, 3, 1]
    now[0] += 60.0
    sweeping.sweep(access)
    assert counts(outbox, engine) == [3, 1, 0]
    sweeping.sweep(access)
    assert counts(outbox, engine) == [1, 1, 0]
    assert drain_outbox(outbox, engine) == (1, 0, 0)
