"""The tables of an outbox."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
)

__all__ = ["DEAD", "DONE", "EXPANDED", "HEAD", "NEW", "PARKED", "SET_ASIDE", "Tables"]

NEW: Final = 0
"""An event whose deliveries are yet to be made."""
EXPANDED: Final = 1
"""An event whose deliveries have been made."""
SET_ASIDE: Final = 2
"""An event that no handler was announced for."""

HEAD: Final = 0
"""A delivery that is due, delayed or leased: one without a key, or the first of its lane."""
PARKED: Final = 1
"""A delivery that waits behind the head of its lane."""
DEAD: Final = 2
"""A delivery that is not tried again; it keeps its place in the lane if it holds up its key."""
DONE: Final = 3
"""A delivery that was handled, and is kept for a while; in no lane."""

_NUMBER = BigInteger().with_variant(Integer(), "sqlite")  # the only type that SQLite counts up

# Deliveries come and go by the thousand, so their dead rows must be removed all the time.
_BUSY = (
    "autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, "
    "autovacuum_vacuum_cost_delay = 0"
)


class Tables:
    """The tables of an outbox, with the names that it was given.

    Moments are microseconds since 1970 in UTC; a missing one is 0.

    Args:
        schema: the schema of the database; None for the default one.
        prefix: what the names of the tables begin with.
    """

    def __init__(self, schema: str | None, prefix: str) -> None:
        self.metadata: MetaData = MetaData(schema=schema)
        self.event: Table = self._make_event(f"{prefix}event")
        self.handler: Table = self._make_handler(f"{prefix}handler")
        self.delivery: Table = self._make_delivery(f"{prefix}delivery")
        self.inbox: Table = self._make_inbox(f"{prefix}inbox")
        _set_parameters(self.event, _BUSY)
        _set_parameters(self.delivery, f"{_BUSY}, fillfactor = 80")

    def _make_event(self, name: str) -> Table:
        table = Table(
            name,
            self.metadata,
            Column("seq", _NUMBER, primary_key=True, autoincrement=True),
            Column("source", Text, nullable=False),
            Column("event_id", Text, nullable=False),
            Column("event", Text, nullable=False),
            Column("version", SmallInteger, nullable=False),
            Column("key", Text),
            Column("sender", Text),
            Column("payload", Text, nullable=False),
            Column("headers", Text, nullable=False),
            Column("not_before", BigInteger, nullable=False),
            Column("created", BigInteger, nullable=False),
            Column("keep_until", BigInteger, nullable=False),
            Column("expanded", SmallInteger, nullable=False),
            UniqueConstraint("source", "event_id", name=f"uq_{name}"),
            sqlite_autoincrement=True,
        )
        columns = table.c
        new, aside = columns.expanded == NEW, columns.expanded == SET_ASIDE
        Index(f"ix_{name}_new", columns.seq, postgresql_where=new, sqlite_where=new)
        Index(
            f"ix_{name}_aside",
            columns.event,
            columns.seq,
            postgresql_where=aside,
            sqlite_where=aside,
        )
        return table

    def _make_handler(self, name: str) -> Table:
        return Table(
            name,
            self.metadata,
            Column("id", Integer, primary_key=True, autoincrement=True),
            Column("name", Text, nullable=False),
            Column("formerly", Text, nullable=False),
            Column("event", Text, nullable=False),
            Column("version", SmallInteger, nullable=False),
            Column("keyed", SmallInteger, nullable=False),
            Column("sender", Text),
            Column("paused", SmallInteger, nullable=False),
            Column("retired", SmallInteger, nullable=False),
            Column("seen", BigInteger, nullable=False),
            UniqueConstraint("name", name=f"uq_{name}"),
            sqlite_autoincrement=True,
        )

    def _make_delivery(self, name: str) -> Table:
        table = Table(
            name,
            self.metadata,
            Column("event_seq", BigInteger, primary_key=True, autoincrement=False),
            Column("handler_id", Integer, primary_key=True, autoincrement=False),
            Column("key", Text),
            Column("version", SmallInteger, nullable=False),
            Column("state", SmallInteger, nullable=False),
            Column("due", BigInteger, nullable=False),
            Column("token", BigInteger),
            Column("alone_until", BigInteger, nullable=False),
            Column("attempts", Integer, nullable=False),
            Column("deliveries", Integer, nullable=False),
            Column("error_type", Text),
            Column("error_group", Text),
            Column("error_at", BigInteger, nullable=False),
            Column("replays", Integer, nullable=False),
            sqlite_with_rowid=False,
        )
        columns = table.c
        head, dead = columns.state == HEAD, columns.state == DEAD
        keyed = columns.key.is_not(None)
        Index(
            f"ix_{name}_due",
            columns.handler_id,
            columns.due,
            columns.event_seq,
            postgresql_where=head,
            sqlite_where=head,
        )
        Index(
            f"ix_{name}_lane",
            columns.handler_id,
            columns.key,
            columns.event_seq,
            postgresql_where=keyed,
            sqlite_where=keyed,
        )
        Index(
            f"ix_{name}_dead",
            columns.handler_id,
            columns.event_seq,
            postgresql_where=dead,
            sqlite_where=dead,
        )
        return table

    def _make_inbox(self, name: str) -> Table:
        return Table(
            name,
            self.metadata,
            Column("consumer", Text, primary_key=True),
            Column("source", Text, primary_key=True),
            Column("event_id", Text, primary_key=True),
            Column("seen", BigInteger, nullable=False),
            sqlite_with_rowid=False,
        )


def _set_parameters(table: Table, parameters: str) -> None:
    """Set the storage parameters of a table when it is made in PostgreSQL."""
    statement: Any = DDL(f"ALTER TABLE %(fullname)s SET ({parameters})")  # type: ignore[no-untyped-call]
    event.listen(table, "after_create", statement.execute_if(dialect="postgresql"))
