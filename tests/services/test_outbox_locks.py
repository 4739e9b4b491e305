"""What each lock of an outbox is for: without it, a fault; with it, none. Needs PostgreSQL.

The environment variable `POSTGRES_DSN` says where the server is. Each test makes a
schema of its own in the database, and removes it.
"""

from __future__ import annotations

import random
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("sqlalchemy")

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.outbox import NotSerialisableError, Outbox
from madcrow_events.outbox._dialects import PostgreSQL
from madcrow_events.outbox._rows import Announced, Claimed, Settlement, StoredEvent, Watched
from madcrow_events.outbox._tables import EXPANDED, HEAD, PARKED, SET_ASIDE
from support.ledger import Unlocked
from support.outboxes import postgres_url
from support.waiting import elsewhere, eventually

pytestmark = pytest.mark.once


class Moved(BaseEventContext):
    account: str


class Sealed(BaseEventContext):
    """What cannot be written, because it is no text that JSON has."""

    text: str


class Place:
    """An outbox with one handler, and its statements."""

    def __init__(self, engine: Engine, schema: str, outbox_class: type[Outbox] = Outbox) -> None:
        self.engine = engine
        signals = SignalRegistry()
        signals.signal("moved", context=Moved, key="account")
        signals.signal("sealed", context=Sealed)
        self.outbox = outbox_class("/place", signals=signals, schema=schema)
        self.statements = PostgreSQL(self.outbox.tables, engine.dialect)

    def use(self, class_: type[PostgreSQL]) -> None:
        """Use other statements."""
        self.statements = class_(self.outbox.tables, self.engine.dialect)

    def announce(self) -> int:
        handler = Announced("book", (), "moved", 1, keyed=True, sender=None)
        with self.engine.begin() as connection:
            return self.statements.announce(connection, [handler])["book"]

    def append(self, *accounts: str) -> None:
        with self.engine.begin() as connection:
            events = [stored(account) for account in accounts]
            self.statements.append(connection, events, notify=None)

    def expand(self) -> int:
        with self.engine.begin() as connection:
            return self.statements.expand(connection, str)

    def claim(self, handler: int) -> list[Claimed]:
        with self.engine.begin() as connection:
            return self.statements.claim(
                connection,
                Watched(handler, 1, 0),
                token=1,
                limit=16,
                run=10,
                lease=60_000_000,
                until=self.statements.now(connection) + 1_000_000,
            )

    def settle(self, connection: Connection, handler: int, run: list[Claimed]) -> None:
        done = tuple(it.event_seq for it in run)
        settlement = Settlement(
            handler, run[0].head, 1, run[0].deliveries, run[0].key, done, None, done[-1], 0
        )
        assert self.statements.settle(connection, [settlement], keep=False) == set()

    def states(self) -> list[int]:
        """Return the states of the deliveries, in the order of their events."""
        columns = self.outbox.tables.delivery.c
        with self.engine.connect() as connection:
            return [*connection.scalars(select(columns.state).order_by(columns.event_seq))]

    def expanded(self) -> list[int]:
        """Return what became of the events, in their order."""
        columns = self.outbox.tables.event.c
        with self.engine.connect() as connection:
            return [*connection.scalars(select(columns.expanded).order_by(columns.seq))]


def stored(account: str) -> StoredEvent:
    return StoredEvent(
        "/place", uuid4().hex, "moved", 1, account, None, "{}", "{}", not_before=0, created=0,
        keep_until=0,
    )  # fmt: skip


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = create_engine(postgres_url())
    yield engine
    engine.dispose()


@pytest.fixture
def schema(engine: Engine) -> Iterator[str]:
    name = f"locks_{uuid4().hex[:12]}"
    with engine.begin() as connection:
        connection.execute(text(f"create schema {name}"))
    yield name
    with engine.begin() as connection:
        connection.execute(text(f"drop schema {name} cascade"))


@pytest.fixture
def place(engine: Engine, schema: str) -> Place:
    place = Place(engine, schema)
    place.outbox.metadata.create_all(engine)
    return place


# The lock on the keys, as events are appended


def order_of_calls(place: Place) -> list[int]:
    """Return the order in which events are claimed of which the first is committed last."""
    handler = place.announce()
    claimed: list[Claimed] = []

    def work() -> None:
        place.expand()
        run = place.claim(handler)
        if run:
            with place.engine.begin() as connection:
                place.settle(connection, handler, run)
        claimed.extend(run)

    with place.engine.connect() as first:
        place.statements.append(first, [stored("a")], notify=None)
        second = elsewhere(lambda: place.append("a"))
        waits_for_a_lock(place.engine, second.done)
        work()
        first.commit()
        second.result(20)
    work()
    return [it.event_seq for it in claimed]


def waits_for_a_lock(engine: Engine, is_done: Callable[[], bool]) -> None:
    """Wait until another connection waits for a lock of ours, or what it does is done."""
    waiting = text(
        "select count(*) from pg_locks l where not granted and l.locktype = 'advisory' "
        "and l.database = (select oid from pg_database where datname = current_database())"
    )

    def is_waiting() -> bool:
        with engine.connect() as connection:
            return is_done() or connection.execute(waiting).scalar_one() > 0

    assert eventually(is_waiting)


def test_events_of_a_key_are_called_in_the_order_of_their_commits(place: Place) -> None:
    assert order_of_calls(place) == [1, 2]


def test_without_the_lock_on_the_key_an_event_comes_after_a_later_one(place: Place) -> None:
    place.use(Unlocked)
    assert order_of_calls(place) == [2, 1]


# The moment of that lock


class LocksEarly(Outbox):
    """Takes the lock on the key when an event is emitted."""

    def emit(self, session: Any, context: Any, **options: Any) -> Any:
        bucket = zlib.crc32(context.account.encode()) % 1024
        session.execute(text("select pg_advisory_xact_lock(1, :bucket)"), {"bucket": bucket})
        return super().emit(session, context, **options)


def emit_crosswise(place: Place, orders: list[list[str]]) -> list[str]:
    """Emit keys in several transactions at once, event by event; return the codes of errors."""
    in_step = threading.Barrier(len(orders))

    def emit(accounts: list[str]) -> str:
        with Session(place.engine) as session:
            try:
                for account in accounts:
                    place.outbox.emit(session, Moved(account=account))
                    meet(in_step)
                session.commit()
            except OperationalError as error:
                return str(getattr(error.orig, "sqlstate", "?"))
        return ""

    with ThreadPoolExecutor(len(orders)) as pool:
        return sorted(pool.map(emit, orders))


def meet(barrier: threading.Barrier) -> None:
    """Wait for the others, unless they wait for a lock of ours."""
    with suppress(threading.BrokenBarrierError):
        barrier.wait(0.2)


def test_transactions_that_emit_the_same_keys_crosswise_are_both_committed(place: Place) -> None:
    assert emit_crosswise(place, [["a", "b"], ["b", "a"]]) == ["", ""]


def test_with_the_lock_at_the_emission_they_end_in_a_deadlock(engine: Engine, schema: str) -> None:
    place = Place(engine, schema, LocksEarly)
    place.outbox.metadata.create_all(engine)
    assert emit_crosswise(place, [["a", "b"], ["b", "a"]]) == ["", "40P01"]


def test_transactions_with_twenty_keys_in_any_order_never_end_in_a_deadlock(place: Place) -> None:
    chance = random.Random(1)  # noqa: S311  # no secret
    keys = [f"account-{number}" for number in range(20)]
    for _ in range(30):
        orders = [chance.sample(keys, len(keys)) for _ in range(2)]
        assert emit_crosswise(place, orders) == ["", ""]


# The lock on the last delivery of a key, as deliveries are made


class IgnoresTails(PostgreSQL):
    """Makes deliveries behind one that is being settled."""

    def _locked_keys(self, connection: Connection, first: int, last: int) -> set[str]:
        return set()


def expand_beside_settling(place: Place) -> list[int]:
    """Make a delivery while the one before it is being settled; return the states at the end."""
    handler = place.announce()
    place.append("a")
    place.expand()
    run = place.claim(handler)
    place.append("a")
    with place.engine.connect() as settling:
        place.settle(settling, handler, run)
        place.expand()
        settling.commit()
    place.expand()
    return place.states()


def test_a_delivery_that_is_made_while_its_lane_is_settled_becomes_its_head(place: Place) -> None:
    assert expand_beside_settling(place) == [HEAD]


def test_without_the_lock_on_the_tail_its_key_is_stuck(place: Place) -> None:
    place.use(IgnoresTails)
    assert expand_beside_settling(place) == [PARKED]


# The lock of those who make deliveries


class ExpandsBesideOthers(PostgreSQL):
    """Makes deliveries although another worker does."""

    def lock_expanding(self, connection: Connection, *, wait: bool) -> bool:
        return True

    def _locked_keys(self, connection: Connection, first: int, last: int) -> set[str]:
        keys = super()._locked_keys(connection, first, last)
        self.meanwhile()
        return keys

    def meanwhile(self) -> None:
        """What happens in the middle of it."""


def test_only_one_worker_makes_deliveries_at_a_time(place: Place) -> None:
    place.announce()
    place.append("a")
    with place.engine.begin() as connection:
        assert place.statements.expand(connection, str) == 1
        assert place.expand() == 0


def test_two_that_make_deliveries_at_once_make_the_same_ones(place: Place) -> None:
    place.use(ExpandsBesideOthers)
    place.announce()
    place.append("a")
    with place.engine.connect() as connection:
        place.statements.expand(connection, str)
        other = elsewhere(place.expand)
        connection.execute(text("select pg_sleep(0.2)"))
        connection.commit()
        with pytest.raises(IntegrityError):
            other.result(20)


def test_two_that_make_deliveries_at_once_leave_a_key_stuck(place: Place) -> None:
    """The second one parks an event behind a delivery that it has not locked."""
    place.use(ExpandsBesideOthers)
    statements = place.statements
    assert isinstance(statements, ExpandsBesideOthers)
    handler = place.announce()
    place.append("a")
    with place.engine.connect() as first, place.engine.connect() as second:
        statements.expand(first, str)
        place.append("a")
        statements.meanwhile = first.commit  # type: ignore[method-assign]
        statements.expand(second, str)
        run = place.claim(handler)
        assert [it.event_seq for it in run] == [1]
        with place.engine.begin() as connection:
            place.settle(connection, handler, run)
        second.commit()
    assert place.states() == [PARKED]


def announce_beside_expanding(place: Place) -> list[int]:
    """Announce a handler while its event is set aside; return what becomes of the event."""
    place.append("a")
    with place.engine.connect() as expanding:
        place.statements.expand(expanding, str)
        announcing = elsewhere(place.announce)
        waits_for_a_lock(place.engine, announcing.done)
        expanding.commit()
        announcing.result(20)
    place.expand()
    return place.expanded()


def test_a_handler_that_is_announced_takes_up_what_is_just_set_aside(place: Place) -> None:
    assert announce_beside_expanding(place) == [EXPANDED]


def test_without_that_lock_what_is_just_set_aside_stays_there(place: Place) -> None:
    place.use(ExpandsBesideOthers)
    assert announce_beside_expanding(place) == [SET_ASIDE]


# The class of the transaction, in which events are written, instead of a listener


def refused_rows(engine: Engine, table: Table, refuse: Callable[[Session], None]) -> int:
    """Insert a row, let the commit fail, and have the next one commit; return the rows there."""
    with Session(engine) as session:
        session.execute(table.insert(), {"number": 1})
        with pytest.raises((ValueError, NotSerialisableError)):
            refuse(session)
    with engine.connect() as connection:
        connection.execute(text("select 1"))
        connection.commit()
    with engine.connect() as connection:
        return len(connection.execute(select(table)).all())


@pytest.fixture
def rows(engine: Engine, schema: str) -> Table:
    table = Table("rows", MetaData(schema=schema), Column("number", Integer))
    table.metadata.create_all(engine)
    return table


def test_a_transaction_that_the_outbox_refuses_is_rolled_back(place: Place, rows: Table) -> None:
    """Its connection goes back to the pool without it."""

    def refuse(session: Session) -> None:
        try:
            place.outbox.emit(session, Sealed(text="\ud800"))
        except NotSerialisableError:
            session.commit()

    assert refused_rows(place.engine, rows, refuse) == 0


def test_a_listener_for_the_commit_that_raises_leaves_the_transaction_open(
    place: Place, rows: Table
) -> None:
    """That is why events are not written in one: the next user commits what was refused."""

    def fail(_: Connection) -> None:
        raise ValueError("refused")

    def refuse(session: Session) -> None:
        event.listen(place.engine, "commit", fail)
        try:
            session.commit()
        finally:
            event.remove(place.engine, "commit", fail)

    assert refused_rows(place.engine, rows, refuse) == 1
