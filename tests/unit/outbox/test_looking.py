"""What `inspect` needs of a database, and leaves behind."""

from __future__ import annotations

import gc

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.outbox import Outbox, OutboxSchemaError, Worker


class OrderPlaced(BaseEventContext):
    order_id: int


@pytest.fixture
def outbox():
    signals = SignalRegistry()
    signals.signal("order_placed", context=OrderPlaced)
    return Outbox("/shop", signals=signals)


def test_looking_with_an_async_engine_leaves_no_loop_and_no_connection_open(outbox, tmp_path):
    """Each call has a connection of its own, which is closed."""
    pytest.importorskip("aiosqlite")
    path = tmp_path / "events.db"
    engine = create_engine(f"sqlite:///{path}")
    outbox.metadata.create_all(engine)
    engine.dispose()
    inspection = outbox.inspect(create_async_engine(f"sqlite+aiosqlite:///{path}"))
    assert inspection.status().new == 0
    assert inspection.dead() == []
    del inspection
    gc.collect()  # a loop or a connection that was left open would be an error here


def test_the_status_of_missing_tables_is_an_error_that_says_what_to_do(outbox, tmp_path):
    """As the start of a worker is."""
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(OutboxSchemaError, match=r"is missing: call outbox\.metadata\.create_all"):
        outbox.inspect(engine).status()
    engine.dispose()


def test_an_outbox_and_a_worker_say_what_they_have(outbox, tmp_path):
    """As those who run them need to know."""

    @outbox.on("order_placed", id="mail")
    @outbox.on("order_placed", id="book")
    def handle(context: OrderPlaced) -> None: ...

    assert outbox.handlers == ("book", "mail")
    engine = create_engine(f"sqlite:///{tmp_path / 'events.db'}")
    worker = Worker(outbox, engine, handlers="m*")
    assert (worker.outbox, worker.engine, worker.handlers) == (outbox, engine, "m*")
    engine.dispose()
