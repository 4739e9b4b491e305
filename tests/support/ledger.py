"""An application with an outbox, whose processes may be killed at any moment.

Producers move money between a few accounts, in transactions of their own, and emit what they did.
Each event bears a mark, and what was committed, handled and called is written down with the mark
where the outbox has no hand in it. So `count` can say what was lost, doubled or out of order.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from madcrow_events import BaseEventContext, SignalRegistry, current_event
from madcrow_events.outbox import Outbox, Retry, RetryLater, Worker
from madcrow_events.outbox._calling import Caller, Ended, Run
from madcrow_events.outbox._dialects import PostgreSQL
from madcrow_events.outbox._tables import DEAD, HEAD, NEW, PARKED
from support.outboxes import postgres_url

POISONED = "poisoned"
RETRY = Retry(attempts=20, wait_initial=0.05, wait_max=0.1, wait_jitter=0.05)


class Moved(BaseEventContext):
    """Money has moved on an account; the events of an account keep their order."""

    account: str
    mark: str
    kind: str = "plain"


class Noted(BaseEventContext):
    """Something was noted; without an order."""

    mark: str
    kind: str = "plain"


@dataclass
class Ledger:
    """Where the tables are, and what is wrong with the outbox on purpose.

    Attributes:
        url: the database.
        schema: the schema of PostgreSQL; None for SQLite.
        fault: the name of one of `FAULTS`, or "".
        lease: of the workers, in seconds.
        concurrency: of the workers.
        batch: of the workers.
        accounts: how many accounts the producers share.
        seconds: for how long handlers handle what is slow.
        notes: a file to which handlers write instead of the database, so that many workers
            can share its connections.
    """

    url: str
    schema: str | None = None
    fault: str = ""
    lease: float = 1.0
    concurrency: int = 2
    batch: int = 8
    accounts: int = 5
    seconds: float = 0.0
    notes: str = ""

    def __post_init__(self) -> None:
        self.metadata = MetaData(schema=self.schema)
        self.emitted = Table(
            "emitted",
            self.metadata,
            Column("mark", Text, primary_key=True),
            Column("event", Text),
            Column("account", Text),
            Column("kind", Text),
            Column("event_id", Text),
        )
        self.effect = self._log("effect")
        self.called = self._log("called")
        self.place = Table(
            "place",
            self.metadata,
            Column("seq", Integer, primary_key=True, autoincrement=False),
            Column("event_id", Text),
        )
        self.apart = self.engine()
        self.outbox = self._make_outbox()

    def _log(self, name: str) -> Table:
        return Table(
            name,
            self.metadata,
            Column("id", Integer, primary_key=True),
            Column("handler", Text),
            Column("mark", Text),
            Column("attempt", Integer),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """What a process needs to make the same ledger."""
        return {
            name: vars(self)[name]
            for name in (
                *("url", "schema", "fault", "lease", "concurrency", "batch", "accounts"),
                *("seconds", "notes"),
            )
        }

    def engine(self) -> Engine:
        """Return a new engine."""
        if not self.url.startswith("sqlite"):
            # Many workers share the connections that a server allows: each has one for a moment.
            return create_engine(self.url, poolclass=NullPool if self.notes else None)
        engine = create_engine(self.url, connect_args={"timeout": 60})
        event.listen(engine, "connect", _in_full)
        return engine

    def create(self, engine: Engine) -> None:
        """Make the tables, and what notes the places of events, which the sweeper removes."""
        with engine.begin() as connection:
            if self.schema is not None:
                connection.execute(text(f"create schema {self.schema}"))
        self.outbox.metadata.create_all(engine)
        self.metadata.create_all(engine)
        with engine.begin() as connection:
            for statement in self._triggers():
                connection.execute(text(statement))

    def _triggers(self) -> Iterator[str]:
        if self.schema is None:
            yield (
                "create trigger places after insert on madcrow_event begin "
                "insert into place values (new.seq, new.event_id); end"
            )
            return
        yield (
            f"create function {self.schema}.note_place() "  # noqa: S608  # our own name
            "returns trigger language plpgsql as $$ "
            f"begin insert into {self.schema}.place values (new.seq, new.event_id); return null; "
            "end $$"
        )
        yield (
            f"create trigger places after insert on {self.schema}.madcrow_event for each row "
            f"execute function {self.schema}.note_place()"
        )

    def _make_outbox(self) -> Outbox:
        signals = SignalRegistry()
        moved = signals.signal("moved", context=Moved, key="account")
        noted = signals.signal("noted", context=Noted)
        outbox = Outbox("/ledger", signals=signals, schema=self.schema)
        for signal in (moved, noted):
            self._add_handlers(outbox, signal)
        FAULTS[self.fault](outbox)
        return outbox

    def _add_handlers(self, outbox: Outbox, signal: Any) -> None:
        def book(context: signal.context_model, session: Session) -> None:
            attempt = current_event().attempt
            row = {"handler": f"book {signal.name}", "mark": context.mark, "attempt": attempt}
            session.execute(self.effect.insert(), row)
            _fail(context.kind, attempt)
            if context.kind == "slow effect":
                time.sleep(self.seconds)

        def tell(context: signal.context_model) -> None:
            attempt = current_event().attempt
            row = {"handler": f"tell {signal.name}", "mark": context.mark, "attempt": attempt}
            if self.notes:
                _note(self.notes, row)
            else:
                with self.apart.begin() as connection:
                    connection.execute(self.called.insert(), row)
            _fail(context.kind, attempt)
            if context.kind == "slow call":
                time.sleep(self.seconds)

        # With the classes of this moment, because these handlers are made twice.
        for handler in (book, tell):
            handler.__annotations__["context"] = signal.context_model
        book.__annotations__["session"] = Session
        if not self.notes:
            outbox.on(signal, id=f"book {signal.name}", retry=RETRY)(book)
        outbox.on(signal, id=f"tell {signal.name}", retry=RETRY, on_dead="continue")(tell)

    def worker(self, engine: Engine) -> Worker:
        """Return a worker."""
        return Worker(
            self.outbox,
            engine,
            lease=self.lease,
            poll=0.5 if self.notes else 0.05,
            batch=self.batch,
            concurrency=self.concurrency,
        )

    # What processes do

    def emit(self, session: Session, context: Moved | Noted, **options: Any) -> None:
        """Write something down, and emit it."""
        with self._transaction_of_event(session) as emitting:
            emission = self.outbox.emit(emitting, context, **options)
        row = {
            "mark": context.mark,
            "event": "moved" if isinstance(context, Moved) else "noted",
            "account": getattr(context, "account", None),
            "kind": context.kind,
            "event_id": str(emission.id),
        }
        session.execute(self.emitted.insert(), row)

    @contextmanager
    def _transaction_of_event(self, session: Session) -> Iterator[Session]:
        """Yield the session itself, or that of the transaction in which it is wrong to emit."""
        if self.fault != "emitted in a transaction of its own":
            yield session
            return
        with Session(session.get_bind()) as other:
            yield other
            other.commit()

    def produce(self, name: str, transactions: int) -> None:
        """Emit until so many transactions are over."""
        engine = self.engine()
        chance = random.Random(name)  # noqa: S311  # nobody needs to guess it
        marks = (f"{name}:{number}" for number in range(1_000_000))
        for _ in range(transactions):
            with Session(engine) as session:
                self._produce_once(session, chance, marks)
            time.sleep(chance.uniform(0, 0.03))

    def commit(self, engine: Engine, contexts: Iterable[Moved | Noted]) -> None:
        """Emit some events in one transaction."""
        with Session(engine) as session:
            for context in contexts:
                self.emit(session, context)
            session.commit()

    def _produce_once(self, session: Session, chance: random.Random, marks: Iterator[str]) -> None:
        for _ in range(chance.randrange(1, 3)):
            self._emit_some(session, chance, marks)
        if chance.random() < 0.3:
            savepoint = session.begin_nested()
            self._emit_some(session, chance, marks)
            if chance.random() < 0.5:
                savepoint.rollback()
            else:
                savepoint.commit()
            self._emit_some(session, chance, marks)
        if chance.random() < 0.15:
            session.rollback()
        else:
            session.commit()

    def _emit_some(self, session: Session, chance: random.Random, marks: Iterator[str]) -> None:
        kind = chance.choices(("plain", "fails once", "later"), (20, 1, 1))[0]
        options = {}
        if chance.random() < 0.03:
            options["not_before"] = datetime.now(UTC) + timedelta(seconds=chance.uniform(0, 0.3))
        if chance.random() < 0.7:
            account = f"account-{chance.randrange(self.accounts)}"
            self.emit(session, Moved(account=account, mark=next(marks), kind=kind), **options)
        else:
            self.emit(session, Noted(mark=next(marks), kind=kind), **options)


def _in_full(connection: Any, _record: object) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")


def _note(path: str, row: dict[str, Any]) -> None:
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, (json.dumps(row) + "\n").encode())
    finally:
        os.close(file)


def _fail(kind: str, attempt: int | None) -> None:
    if kind == "poison":
        raise ValueError("poison")
    if attempt == 1 and kind == "fails once":
        raise RuntimeError("the first attempt fails")
    if attempt == 1 and kind == "later":
        raise RetryLater(0.02)


# The processes


def produce(arguments: dict[str, Any], name: str, transactions: int) -> None:
    """Be a producer."""
    Ledger(**arguments).produce(name, transactions)


def work(arguments: dict[str, Any]) -> None:
    """Be a worker, until SIGTERM."""
    logging.getLogger("madcrow_events").setLevel(logging.CRITICAL)
    ledger = Ledger(**arguments)
    ledger.worker(ledger.engine()).run()


# What is wrong on purpose


def _settle_first(outbox: Outbox) -> None:
    """Let deliveries be settled as handled before their handler is called."""

    class Hasty(Caller):
        def call(self, run: Run) -> Ended:
            done = [it.event_seq for it in run.rows]
            settlement = self.settlement_for(run, done, None)
            with self._engine.begin() as connection:
                self.settle(connection, [settlement])
            super().call(run)
            return Ended(run, None, done=len(done))

    def caller(*arguments: Any) -> Caller:
        made = make(*arguments)
        made.__class__ = Hasty
        return made

    make = outbox._caller
    outbox._caller = caller  # type: ignore[method-assign]


class Unlocked(PostgreSQL):
    """Appends without a lock on the keys."""

    def _do(self, connection: Connection, template: str, parameters: Any = None, **words: str):
        given = dict(parameters or ())
        if "buckets" in given:
            given["buckets"] = []
        return super()._do(connection, template, given, **words)


class Tardy(PostgreSQL):
    """Sometimes takes its time between the append and the COMMIT, as a busy disk does."""

    def append(self, connection: Connection, events: Any, *, notify: str | None) -> None:
        super().append(connection, events, notify=notify)
        if random.random() < 0.2:  # noqa: S311  # as above
            time.sleep(0.4)


class TardyUnlocked(Tardy, Unlocked):
    """Appends without a lock, and takes its time."""


def _with(class_: type[PostgreSQL]) -> Callable[[Outbox], None]:
    def use(outbox: Outbox) -> None:
        outbox._statements_of = lambda dialect: class_(outbox.tables, dialect)  # type: ignore[method-assign]

    return use


FAULTS: dict[str, Callable[[Outbox], None]] = {
    "": lambda _: None,
    "emitted in a transaction of its own": lambda _: None,
    "settled before the call": _settle_first,
    "slow commits": _with(Tardy),
    "no lock on the key": _with(TardyUnlocked),
}


# What came of it


class Counts(NamedTuple):
    """What was committed, and what came of it.

    Attributes:
        events: the events that were committed.
        calls: all calls of their handlers.
        lost: the deliveries of which no handler was called.
        phantoms: the events that were heard of and not committed.
        disorder: the calls that came after that of a later event.
        doubled: the effects of handlers with a session that are there twice.
        repeated: the calls of other handlers that were made again, which is no fault.
        stuck: the deliveries that are open at the end, although nothing holds them up.
        dead: the deliveries that are dead, visibly.
        blocked: the deliveries that wait behind one of these.
    """

    events: int
    calls: int
    lost: int
    phantoms: int
    disorder: int
    doubled: int
    repeated: int
    stuck: int
    dead: int
    blocked: int

    @property
    def faults(self) -> tuple[int, ...]:
        """All that must be zero."""
        return self.lost, self.phantoms, self.disorder, self.doubled, self.stuck

    def __str__(self) -> str:
        return ", ".join(f"{value} {name}" for name, value in self._asdict().items())


@dataclass
class Open:
    """What has not come to its end, by (state, account)."""

    new: int
    deliveries: Counter[tuple[int, str | None]] = field(default_factory=Counter)

    @property
    def stuck(self) -> int:
        """How much of it does not wait behind a dead delivery."""
        deliveries = (
            count
            for (state, account), count in self.deliveries.items()
            if state != DEAD and account != POISONED
        )
        return self.new + sum(deliveries)


def still_open(ledger: Ledger, connection: Connection) -> Open:
    """Return what has not come to its end."""
    tables = ledger.outbox.tables
    columns = tables.delivery.c
    new = connection.execute(
        select(func.count()).select_from(tables.event).where(tables.event.c.expanded == NEW)
    ).scalar_one()
    rows = connection.execute(
        select(columns.state, columns.key, func.count())
        .where(columns.state.in_((HEAD, PARKED, DEAD)))
        .group_by(columns.state, columns.key)
    )
    return Open(new, Counter({(state, key): count for state, key, count in rows}))


def poison(ledger: Ledger, engine: Engine) -> None:
    """Commit an event that no handler can handle, and two that wait behind it."""
    kinds = enumerate(("poison", "plain", "plain"))
    ledger.commit(
        engine, (Moved(account=POISONED, mark=f"poison:{n}", kind=kind) for n, kind in kinds)
    )


def drain(ledger: Ledger, engine: Engine, patience: float = 10.0) -> None:
    """Have a last worker do what is left, as long as it gets on."""
    logging.getLogger("madcrow_events").setLevel(logging.CRITICAL)
    seen, last = None, time.monotonic()
    with ledger.worker(engine):
        while time.monotonic() < last + patience:
            with engine.connect() as connection:
                now = still_open(ledger, connection)
            if not now.stuck and not now.deliveries[HEAD, POISONED]:
                return
            if now != seen:
                seen, last = now, time.monotonic()
            time.sleep(0.05)


def count(ledger: Ledger, engine: Engine) -> Counts:
    """Count what came of all that was committed."""
    emitted, effect, called, place = ledger.emitted, ledger.effect, ledger.called, ledger.place
    with engine.connect() as connection:
        rows = {it.mark: it for it in connection.execute(select(emitted))}
        places = {it.event_id: it.seq for it in connection.execute(select(place))}
        effects = connection.execute(select(effect).order_by(effect.c.id)).all()
        calls: list[Any] = [*connection.execute(select(called).order_by(called.c.id))]
        left = still_open(ledger, connection)
    if ledger.notes:
        lines = Path(ledger.notes).read_text(encoding="utf-8").splitlines()
        calls = [SimpleNamespace(**json.loads(line)) for line in lines]
    heard = {(it.handler, it.mark) for it in (*effects, *calls)}
    expected = {
        (f"{name} {it.event}", it.mark)
        for it in rows.values()
        for name in (("tell",) if ledger.notes else ("book", "tell"))
        if it.account != POISONED
    }
    firsts = list(dict.fromkeys((it.handler, it.mark) for it in (*effects, *calls)))
    seqs = {mark: places.get(it.event_id, 0) for mark, it in rows.items()}
    return Counts(
        events=len(rows),
        calls=len(effects) + len(calls),
        lost=len(expected - heard),
        phantoms=len({mark for _, mark in heard} - rows.keys()),
        disorder=_disorder(firsts, rows, seqs) + _disorder_of_producers(rows, seqs),
        doubled=len(effects) - len({(it.handler, it.mark) for it in effects}),
        repeated=len(calls) - len({(it.handler, it.mark, it.attempt) for it in calls}),
        stuck=left.stuck,
        dead=sum(n for (state, _), n in left.deliveries.items() if state == DEAD),
        blocked=left.deliveries[PARKED, POISONED],
    )


def _disorder(firsts: list[tuple[str, str]], rows: dict[str, Any], seqs: dict[str, int]) -> int:
    """Count the first calls that come after that of a later event of their lane."""
    last: Counter[tuple[str, str]] = Counter()
    late = 0
    for handler, mark in firsts:
        account = rows[mark].account if mark in rows else None
        if account is not None:
            lane = handler, account
            late += seqs[mark] < last[lane]
            last[lane] = max(last[lane], seqs[mark])
    return late


def _disorder_of_producers(rows: dict[str, Any], seqs: dict[str, int]) -> int:
    """Count the events that come before an earlier one of the same producer and account."""
    last: Counter[tuple[str, str]] = Counter()
    early = 0
    marks = (mark.rpartition(":") for mark in rows)
    for producer, _, number in sorted(marks, key=lambda it: (it[0], int(it[2]))):
        mark = f"{producer}:{number}"
        if rows[mark].account is not None:
            lane = producer, rows[mark].account
            early += seqs[mark] < last[lane]
            last[lane] = max(last[lane], seqs[mark])
    return early


# The databases


@contextmanager
def a_ledger(database: str, folder: Path, **options: Any) -> Iterator[tuple[Ledger, Engine]]:
    """Yield an empty ledger and an engine; on PostgreSQL in a schema of its own."""
    if database == "sqlite":
        ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", **options)
    else:
        url = postgres_url().render_as_string(hide_password=False)
        ledger = Ledger(url, schema=f"soak_{uuid4().hex[:12]}", **options)
    engine = ledger.engine()
    ledger.create(engine)
    try:
        yield ledger, engine
    finally:
        if ledger.schema is not None:
            with engine.begin() as connection:
                connection.execute(text(f"drop schema {ledger.schema} cascade"))
        engine.dispose()
        ledger.apart.dispose()


def warm_up() -> None:
    """Do what each process would do first, in the one that is the parent of all."""
    Ledger("postgresql+psycopg://", schema="nowhere")
    Ledger("sqlite://")
