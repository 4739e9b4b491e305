"""Settling: only who holds the lease writes down what came of a run."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from madcrow_events.outbox import Retry
from support.outbox_steps import Steps
from support.outboxes import Order, emit, keyed_outbox

ONCE_MORE = Retry(attempts=5, wait_initial=3600, wait_jitter=0)


@pytest.fixture
def engine(any_engine):
    return any_engine


def new_outbox(engine, **options):
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    return outbox


def rows(outbox, engine):
    """Return the deliveries, as event, state and key."""
    table = outbox.tables.delivery.c
    query = select(table.event_seq, table.state, table.key).order_by(table.event_seq)
    with engine.begin() as connection:
        return [tuple(it) for it in connection.execute(query)]


def test_a_run_that_was_taken_over_cannot_settle(engine):
    """Nothing is written of it, and the other worker's settling is."""
    outbox = new_outbox(engine)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1), Order(number=2))
    paused, other = Steps(outbox, engine), Steps(outbox, engine)
    (run,) = paused.claim()
    ended = paused.call(run)
    (later,) = other.claim(ahead=True)
    assert paused.settle(ended) == {ended.settlement.lease}
    assert rows(outbox, engine) == [(1, 0, "nobody"), (2, 1, "nobody")]
    assert other.settle(other.call(later)) == set()
    assert rows(outbox, engine) == [(2, 0, "nobody")]


def test_a_worker_that_claims_its_own_run_again_settles_the_later_one_only(engine):
    """Both end in one transaction, as after the database was away for longer than a lease."""
    outbox = new_outbox(engine)
    acts = iter([ValueError, None])

    @outbox.on("order", id="mail", on_dead="continue", retry=Retry(attempts=1))
    def mail(number):
        error = next(acts)
        if error is not None:
            raise error

    emit(outbox, engine, Order(number=1), Order(number=2))
    worker = Steps(outbox, engine)
    (run,) = worker.claim(room=1)
    run.rows = run.rows[:1]
    earlier = worker.call(run)
    (again,) = worker.claim(ahead=True)
    later = worker.caller.give_back(again)
    assert worker.settle(earlier, later) == {earlier.settlement.lease}
    assert rows(outbox, engine) == [(1, 0, "nobody"), (2, 1, "nobody")]


def test_when_is_asked_before_the_first_call_after_a_crash_too(engine):
    """The worker that claimed it first has ended before it asked."""
    outbox = new_outbox(engine)
    asked, handled = [], []

    @outbox.on("order", id="mail", when=lambda context: asked.append(context["number"]))
    def mail(number):
        handled.append(number)

    emit(outbox, engine, Order(number=1))
    worker = Steps(outbox, engine)
    worker.claim()  # and nothing follows
    (run,) = worker.claim(ahead=True)
    worker.settle(worker.call(run))
    assert (asked, handled) == ([1], [])
    assert rows(outbox, engine) == []
