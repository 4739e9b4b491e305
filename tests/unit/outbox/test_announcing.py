"""Announcing handlers while old and new code run side by side."""

from __future__ import annotations

import pytest

from madcrow_events import SignalRegistry
from madcrow_events.outbox import Outbox, Retry
from madcrow_events.testing import drain_outbox
from support.outbox_steps import Steps
from support.outboxes import Order, emit


@pytest.fixture
def engine(any_engine):
    return any_engine


def outbox_of(name, *formerly):
    """Return an outbox whose event has this name, and earlier ones."""
    signals = SignalRegistry()
    signals.signal(name, context=Order, formerly=formerly)
    return Outbox("/shop", signals=signals)


def test_a_new_name_that_is_emitted_before_any_worker_knows_it_is_heard_of(engine):
    """The handler keeps its id, so that it is not new."""
    old, new, handled = outbox_of("order"), outbox_of("bought", "order"), []
    old.metadata.create_all(engine)
    old.on("order", id="mail")(lambda number: handled.append(-number))
    drain_outbox(old, engine)
    emit(new, engine, Order(number=1))
    drain_outbox(old, engine)
    assert [it.event for it in old.inspect(engine).status().set_aside] == ["bought"]
    new.on("bought", id="mail")(lambda number: handled.append(number))
    drain_outbox(new, engine)
    assert handled == [1]


def test_what_was_set_aside_under_an_earlier_name_is_taken_up(engine):
    """By the first handler of the event, whose name is the new one."""
    old, new, handled = outbox_of("order"), outbox_of("bought", "order"), []
    old.metadata.create_all(engine)
    emit(old, engine, Order(number=1))
    drain_outbox(old, engine)
    new.on("bought", id="mail")(lambda number: handled.append(number))
    drain_outbox(new, engine)
    assert handled == [1]


def test_a_worker_of_older_code_leaves_the_new_name_to_others(engine):
    """It has the handler, but not the event; that is no attempt."""
    old, new, handled = outbox_of("order"), outbox_of("bought", "order"), []
    old.metadata.create_all(engine)
    old.on("order", id="mail", retry=Retry(attempts=1))(lambda number: handled.append(-number))
    new.on("bought", id="mail", retry=Retry(attempts=1))(lambda number: handled.append(number))
    older = Steps(old, engine)
    drain_outbox(new, engine)  # announces
    emit(new, engine, Order(number=1))
    (ended,) = older.work()
    failed = ended.settlement.failed
    assert (failed.is_dead, failed.error_type, failed.attempts) == (False, "HandlerIdError", 0)
    drain_outbox(new, engine)
    assert handled == [1]
