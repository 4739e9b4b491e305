"""Large outboxes: what is there already makes neither an emission nor a claim slow (D5, D8)."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("sqlalchemy")

from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.orm import Session

from madcrow_events.outbox._claiming import Claiming
from madcrow_events.outbox._statements import Statements
from madcrow_events.outbox._tables import DEAD, EXPANDED, HEAD, PARKED
from support.outboxes import Order, keyed_outbox, postgres_url, sqlite_engine

pytestmark = [pytest.mark.soak, pytest.mark.once]

DATABASES = ("sqlite", "postgresql")
ROWS = 20_000
CLAIMS = 30


class Place:
    """An empty outbox, and what fills it."""

    def __init__(self, engine: Engine, schema: str | None) -> None:
        self.engine = engine
        self.outbox = keyed_outbox(schema=schema)
        self.outbox.on("order", id="book")(book)
        self.outbox.metadata.create_all(engine)
        self.statements: Statements = self.outbox._statements_for(engine)
        with engine.begin() as connection:
            handlers = [it.announced() for it in self.outbox._handlers.values()]
            self.handler = self.statements.announce(connection, handlers)["book"]
        self.claiming = Claiming(
            self.statements, {self.handler: self.outbox._handlers["book"]}, lease=30.0
        )
        self._seq = 0

    def fill(self, rows: int, keys: int, *, dead: bool = False, due: int = 0) -> None:
        """Write events with one delivery each, the heads of keys first."""
        tables, seqs = self.outbox.tables, range(self._seq + 1, self._seq + rows + 1)
        self._seq += rows
        events = {
            "source": "/shop", "event": "order", "version": 1, "payload": "{}", "headers": "{}",
            "not_before": 0, "created": 0, "keep_until": 0, "expanded": EXPANDED,
        }  # fmt: skip
        deliveries = {
            "handler_id": self.handler, "version": 1, "alone_until": 0, "attempts": 0,
            "deliveries": 0, "error_at": 0, "replays": 0,
        }  # fmt: skip
        with self.engine.begin() as connection:
            connection.execute(
                tables.event.insert(), [{**events, "seq": it, "event_id": str(it)} for it in seqs]
            )
            states = [DEAD if dead else HEAD if n < keys else PARKED for n in range(rows)]
            connection.execute(
                tables.delivery.insert(),
                [
                    {
                        **deliveries,
                        "event_seq": seq,
                        "key": f"{'dead-' * dead}{seq % keys}",
                        "state": state,
                        "due": due + seq,
                    }
                    for seq, state in zip(seqs, states, strict=True)
                ],
            )
        self.analyze()

    def delete(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.outbox.tables.delivery.delete())

    def analyze(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(text(f"analyze {self.outbox.tables.delivery}"))
            connection.commit()

    def claim(self, connection: Connection, limit: int) -> None:
        """Look, and lease what is due."""
        look = self.claiming.look(connection)
        runs = self.claiming.claim(connection, look, room=limit, running=Counter())
        assert runs

    def timed_claim(self, limit: int) -> float:
        """Return how many microseconds a look and a claim take, which are undone."""
        with self.engine.connect() as connection:
            started = time.perf_counter()
            self.claim(connection, limit)
            took = (time.perf_counter() - started) * 1e6
            connection.rollback()
        return took


def costs(limit: int, *places: Place) -> list[float]:
    """Return the medians of what claims cost in some outboxes, which take turns."""
    taken = [[it.timed_claim(limit) for it in places] for _ in range(CLAIMS + 1)]
    return [statistics.median(column) for column in zip(*taken[1:], strict=True)]


def book(context: Order) -> None:
    """Do nothing."""


@contextmanager
def a_place(database: str, folder: Path) -> Iterator[Place]:
    """Yield an empty outbox; on PostgreSQL in a schema of its own."""
    if database == "sqlite":
        folder.mkdir()
        engine = sqlite_engine(folder)
        yield Place(engine, None)
        engine.dispose()
        return
    engine, schema = create_engine(postgres_url()), f"sizes_{uuid4().hex[:12]}"
    with engine.begin() as connection:
        connection.execute(text(f"create schema {schema}"))
    try:
        yield Place(engine, schema)
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"drop schema {schema} cascade"))
        engine.dispose()


@pytest.mark.parametrize("database", DATABASES)
def test_forty_thousand_keys_fit_in_one_transaction(database: str, tmp_path: Path) -> None:
    with a_place(database, tmp_path / "place") as place:
        with Session(place.engine) as session:
            for number in range(40_000):
                place.outbox.emit(session, Order(number=number, customer=str(number)))
            started = time.perf_counter()
            session.commit()
        took = time.perf_counter() - started
        with place.engine.connect() as connection:
            count = select(func.count()).select_from(place.outbox.tables.event)
            assert connection.execute(count).scalar_one() == 40_000
    print(f"\n{database}: 40,000 keys are committed in {took:.1f} s")


@pytest.mark.parametrize("limit", [1, 16])
@pytest.mark.parametrize("database", DATABASES)
def test_a_claim_among_rows_of_one_key_is_no_slower_than_among_many_keys(
    database: str, limit: int, tmp_path: Path
) -> None:
    with (
        a_place(database, tmp_path / "one") as one,
        a_place(database, tmp_path / "many") as many,
    ):
        one.fill(ROWS, keys=1)
        many.fill(ROWS, keys=1000)
        of_one, of_many = costs(limit, one, many)
    print(f"\n{database}: a claim of {limit}: one key {of_one:.0f} us, 1,000 {of_many:.0f} us")
    assert of_one <= of_many * 1.5  # the same, on a busy machine


@pytest.mark.parametrize("database", DATABASES)
def test_a_claim_beside_dead_deliveries_is_as_fast(database: str, tmp_path: Path) -> None:
    with (
        a_place(database, tmp_path / "few") as few,
        a_place(database, tmp_path / "dead") as dead,
    ):
        few.fill(1000, keys=1000)
        dead.fill(1000, keys=1000)
        dead.fill(ROWS, keys=1000, dead=True)
        before, after = costs(16, few, dead)
    print(f"\n{database}: a claim {before:.0f} us, beside 20,000 dead ones {after:.0f} us")
    assert after <= before * 1.5


def test_a_claim_after_deleted_rows_that_an_old_snapshot_keeps_is_fast(tmp_path: Path) -> None:
    """An old transaction keeps PostgreSQL from removing what was handled since it began."""
    level = {"isolation_level": "REPEATABLE READ"}
    with (
        a_place("postgresql", tmp_path) as clean,
        a_place("postgresql", tmp_path) as place,
        place.engine.connect().execution_options(**level) as old,
    ):
        old.execute(text("select 1"))
        # What is deleted was due some time before what is left, and was handled first.
        place.fill(100_000, keys=100_000)
        place.delete()
        for it in (clean, place):
            it.fill(1000, keys=1000, due=10**9)
        first = place.timed_claim(16)
        before, after = costs(16, clean, place)
    print(f"\na claim {before:.0f} us, after 100,000 deleted {first:.0f} and {after:.0f} us")
    assert after <= before * 2
