"""From the emission in a transaction to the call of a durable handler."""

from __future__ import annotations

from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry, current_event
from madcrow_events.outbox import Outbox, Worker


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
