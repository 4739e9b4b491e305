"""From the emission in a transaction to the call of a durable handler."""

from __future__ import annotations

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry, current_event
from madcrow_events.outbox import Outbox, Worker
from support.outboxes import Order, emit, keyed_outbox, sqlite_engine


class OrderPlaced(BaseEventContext):
    order_id: int


def test_what_is_committed_is_handled_by_a_worker(tmp_path):
    """A worker in a thread calls the durable handler; what is rolled back is never heard of."""
    signals = SignalRegistry()
    signals.signal("order_placed", context=OrderPlaced)
    outbox = Outbox("/shop", signals=signals)
    handled = []

    @outbox.on("order_placed", id="invoice")
    def send_invoice(context: OrderPlaced) -> None:
        handled.append((context.order_id, current_event().attempt, current_event().id))

    engine = create_engine(f"sqlite:///{tmp_path / 'events.db'}")
    outbox.metadata.create_all(engine)
    with Session(engine) as session:
        outbox.emit(session, OrderPlaced(order_id=1))
        session.rollback()
        emission = outbox.emit(session, OrderPlaced(order_id=2))
        session.commit()
    Worker(outbox, engine).run(once=True)
    assert handled == [(2, 1, emission.id)]
    engine.dispose()


def test_a_worker_without_handlers_makes_deliveries_for_those_that_have_some(tmp_path):
    """A pattern that fits no handler leaves all the calls to other workers."""
    outbox = keyed_outbox()
    outbox.on("order", id="mail")(lambda number: None)
    engine = sqlite_engine(tmp_path)
    outbox.metadata.create_all(engine)
    emit(outbox, engine, Order(number=1))
    Worker(outbox, engine, handlers="other*").run(once=True)
    status = outbox.inspect(engine).status()
    assert (status.new, status.handlers[0].due) == (0, 1)
    engine.dispose()
