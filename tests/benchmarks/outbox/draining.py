"""What a worker costs, beside claiming rows and deleting them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    delete,
    select,
    update,
)
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext
from madcrow_events.outbox import Worker

from ..measuring import OURS, Measured
from .databases import Keyed, Store, Unkeyed, a_store
from .rounds import Effort, compare

__all__ = ["drain"]

EVENTS = 1000
RAW = Table(
    "raw",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("payload", Text),
    Column("taken", Integer),
)
PAYLOAD = (
    '{"timestamp":"2026-11-29T15:12:26.595731Z","request_id":null,"user_agent":null,'
    '"ip_address":null,"number":1,"key":"1"}'
)


class Drain:
    """Fills and drains one outbox.

    Attributes:
        called: how often a handler was called.
    """

    def __init__(self, store: Store, engine: Engine, events: int) -> None:
        self._store = store
        self._engine = engine
        self._events = events
        self.called = 0
        store.handlers(self._handle)
        RAW.metadata.create_all(engine)

    def _handle(self, context: BaseEventContext) -> None:
        self.called += 1

    def ours(self, make: Callable[[int], Unkeyed | Keyed], batch: int) -> float:
        """Return how many microseconds the delivery of an event takes."""
        self._store.empty(self._engine)
        with Worker(self._store.outbox, self._engine):
            pass  # announces the handlers
        for first in range(0, self._events, 500):
            with Session(self._engine) as session:
                for number in range(first, min(first + 500, self._events)):
                    self._store.outbox.emit(session, make(number))
                session.commit()
        self.called = 0
        worker = Worker(self._store.outbox, self._engine, batch=batch)
        started = time.perf_counter()
        worker.run(once=True)
        took = time.perf_counter() - started
        if self.called != self._events:
            raise AssertionError(f"{self.called} calls for {self._events} events")
        return took / self._events * 1e6

    def raw(self, batch: int) -> float:
        """Return how many microseconds it takes to claim a row and to delete it."""
        with self._engine.begin() as connection:
            connection.execute(delete(RAW))
            rows = [{"payload": PAYLOAD, "taken": 0} for _ in range(self._events)]
            connection.execute(RAW.insert(), rows)
        left = self._events
        started = time.perf_counter()
        while left > 0:
            with self._engine.begin() as connection:
                ids = _claim(connection, batch)
            with self._engine.begin() as connection:
                connection.execute(delete(RAW).where(RAW.c.id.in_(ids)))
            left -= len(ids)
        return (time.perf_counter() - started) / self._events * 1e6


def _claim(connection: Connection, batch: int) -> list[int]:
    first = select(RAW.c.id).where(RAW.c.taken == 0).order_by(RAW.c.id).limit(batch)
    claimed = (
        update(RAW)
        .where(RAW.c.id.in_(first.with_for_update(skip_locked=True)))
        .values(taken=1)
        .returning(RAW.c.id, RAW.c.payload)
    )
    return [row.id for row in connection.execute(claimed)]


def drain(database: str, folder: Path, effort: Effort) -> Iterator[Measured]:
    """Deliver what there is to a handler that does nothing."""
    logging.getLogger("madcrow_events").setLevel(logging.CRITICAL)
    with a_store(database, folder) as (store, engine):
        it = Drain(store, engine, effort.size(EVENTS))
        for batch, is_bound in (16, True), (100, False):
            for name, make, bound in (
                ("no key", lambda n: Unkeyed(number=n, key=""), 3.5),
                ("10 keys", lambda n: Keyed(number=n, key=str(n % 10)), 3.0),
                ("1,000 keys", lambda n: Keyed(number=n, key=str(n % 1000)), 3.0),
                ("one key", lambda n: Keyed(number=n, key="1"), 5.0),
            ):
                yield _compared(
                    it, f"drain, batch {batch}, {name}", bound if is_bound else None, effort, make,
                    batch,
                )  # fmt: skip


def _compared(
    drain: Drain,
    work: str,
    bound: float | None,
    effort: Effort,
    make: Callable[[int], Unkeyed | Keyed],
    batch: int,
) -> Measured:
    return compare(
        "drain",
        work,
        bound,
        effort,
        {
            "claim and delete": lambda: drain.raw(batch),
            OURS: lambda: drain.ours(make, batch),
        },
    )
