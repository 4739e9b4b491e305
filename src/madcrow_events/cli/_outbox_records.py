"""What there is in an outbox, and its tables, as records."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypedDict

from madcrow_events.cli._outboxes import with_database

if TYPE_CHECKING:
    from madcrow_events.cli._outboxes import FoundOutbox

__all__ = [
    "BlockedRecord",
    "DdlRecord",
    "DeadRecord",
    "DurableHandlerRecord",
    "OutboxRecord",
    "WaitingRecord",
    "ddl_record",
    "outbox_record",
]


class DurableHandlerRecord(TypedDict):
    """The deliveries of a durable handler, as `outbox status --json` shows them."""

    name: str
    """Its id."""
    event: str
    """The name of its event."""
    due: int
    """How many deliveries wait for a worker."""
    delayed: int
    """How many wait for their time, such as that of the next attempt."""
    running: int
    """How many a worker has now."""
    parked: int
    """How many wait behind another one of their key."""
    dead: int
    """How many are not tried again."""
    unknown: int
    """How many of those that are open have a version that no worker can read."""
    oldest_due: float
    """For how many seconds the oldest one has been due; 0 if none is."""
    seen: float
    """How many seconds ago a worker that has the handler was there; noted every 30 seconds."""
    paused: bool
    """Whether it is paused."""
    retired: bool
    """Whether it is retired."""


class WaitingRecord(TypedDict):
    """Events of one name that no handler was announced for."""

    event: str
    """Their name."""
    count: int
    """How many there are."""
    oldest: float
    """The age of the oldest one, in seconds."""


class BlockedRecord(TypedDict):
    """A key whose deliveries wait for one that is dead or delayed."""

    handler: str
    """The id of the handler."""
    head: str
    """The id of the delivery that they wait for."""
    is_dead: bool
    """Whether it is dead; else it is delayed."""
    waiting: int
    """How many wait behind it."""
    age: float
    """How many seconds ago it failed."""


class DeadRecord(TypedDict):
    """Dead deliveries of one handler with the same exception, from the same place."""

    group: str
    """The class of the exception, and the place."""
    handler: str
    """The id of the handler."""
    count: int
    """How many there are."""


class OutboxRecord(TypedDict):
    """What there is in an outbox, as `outbox status --json` shows it."""

    source: str
    """The source of the outbox."""
    new: int
    """How many events wait for their deliveries to be made."""
    oldest_new: float
    """The age of the oldest of these, in seconds; 0 if there is none."""
    handlers: list[DurableHandlerRecord]
    """The handlers that workers have announced, by name."""
    set_aside: list[WaitingRecord]
    """The events that no handler was announced for, by name."""
    blocked: list[BlockedRecord]
    """The keys that are held up, the longest first; at most 20."""
    dead: list[DeadRecord]
    """The dead deliveries in groups, the largest first."""
    oldest_transaction: float
    """The age of the oldest transaction of the database, in seconds; 0 if unknown."""


class DdlRecord(TypedDict):
    """The tables of an outbox, as `outbox ddl --json` shows them."""

    dialect: str
    """The database: `postgresql` or `sqlite`."""
    statements: list[str]
    """The statements that make the tables, in their order."""


def outbox_record(found: FoundOutbox) -> OutboxRecord:
    """Return what there is in an outbox.

    Args:
        found: the outbox, with its database.

    Raises:
        CommandError: nobody has named the database, or it cannot be used.
        OutboxSchemaError: the tables are missing or old.
    """
    engine = found.needed_engine()
    inspection = found.outbox.inspect(engine)
    status = with_database(engine, inspection.status)
    dead = with_database(engine, inspection.dead_groups)
    record: Any = {"source": found.outbox.source, **asdict(status)}
    for name in ("handlers", "set_aside", "blocked"):
        record[name] = [*record[name]]
    return {**record, "dead": [asdict(it) for it in dead]}  # type: ignore[typeddict-item]


def ddl_record(found: FoundOutbox, dialect: str | None) -> DdlRecord:
    """Return the statements that make the tables of an outbox.

    Args:
        found: the outbox.
        dialect: `postgresql` or `sqlite`; None for that of the database of the outbox.

    Raises:
        CommandError: neither the dialect nor the database is named.
    """
    from sqlalchemy import create_mock_engine

    name = dialect or found.needed_engine().dialect.name
    statements: list[str] = []

    def take(statement: Any, *_: Any, **__: Any) -> None:
        statements.append(str(statement.compile(dialect=engine.dialect)).strip())

    engine = create_mock_engine(f"{name}://", take)
    found.outbox.metadata.create_all(engine, checkfirst=False)
    # The indexes of a table come in any order, and the output is to be the same each time.
    return {
        "dialect": name,
        "statements": [
            it
            for is_index, group in groupby(statements, lambda it: it.startswith("CREATE INDEX"))
            for it in (sorted(group) if is_index else group)
        ],
    }
