"""What all statements of an outbox are made of."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import Connection, TextClause, text

from madcrow_events.outbox._tables import DEAD, DONE, EXPANDED, HEAD, NEW, PARKED, SET_ASIDE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Dialect

    from madcrow_events.outbox._tables import Tables

__all__ = ["Templates", "microseconds"]

_STATES: Final = {
    "DEAD": DEAD,
    "DONE": DONE,
    "EXPANDED": EXPANDED,
    "HEAD": HEAD,
    "NEW": NEW,
    "PARKED": PARKED,
    "SET_ASIDE": SET_ASIDE,
}


class Templates(ABC):
    """Statements as templates: the words in braces are the tables, states, and what differs.

    Args:
        tables: the tables.
        dialect: the dialect of the database.
    """

    _now: ClassVar[str]
    """The expression for the present moment, in microseconds since 1970."""
    _greatest: ClassVar[str]
    _for_update: ClassVar[str] = ""

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        named = dialect.identifier_preparer.format_table
        self._words = {
            "event": named(tables.event),
            "handler": named(tables.handler),
            "delivery": named(tables.delivery),
            "inbox": named(tables.inbox),
            "now": self._now,
            "greatest": self._greatest,
            "for_update": self._for_update,
            **_STATES,
        }
        self._tables = tables
        self._texts: dict[str, TextClause] = {}

    @abstractmethod
    def lock(self, connection: Connection) -> None:
        """Take the lock of a writer, where there is one, before anything is read."""

    @abstractmethod
    def relax(self, connection: Connection) -> None:
        """Let the commit of this transaction not wait for the disk.

        Claims may be undone by a power failure: what depends on them is undone with them.
        """

    @abstractmethod
    def lock_expanding(self, connection: Connection, *, wait: bool) -> bool:
        """Become the only one that makes deliveries until the end of the transaction.

        Args:
            connection: the connection.
            wait: whether to wait for another one that does.

        Returns:
            Whether it was possible.
        """

    @abstractmethod
    def _source(self, rows: Sequence[Sequence[Any]], columns: str) -> tuple[str, dict[str, Any]]:
        """Return rows as a table `u` in a `FROM`, and its parameters.

        Args:
            rows: the rows.
            columns: the names and types of the columns, such as "id int, name text".
        """

    def _do(
        self,
        connection: Connection,
        template: str,
        parameters: Mapping[str, Any] | None = None,
        **words: str,
    ) -> Any:
        """Execute a statement; the same template always gives the same object, for the caches."""
        statement = template.format_map({**self._words, **words})
        given = dict(parameters or ())
        if ":now" in statement:
            given["now"] = microseconds()
        return connection.execute(self._clause(statement), given)

    def _clause(self, statement: str) -> TextClause:
        clause = self._texts.get(statement)
        if clause is None:
            clause = self._texts[statement] = text(statement)
        return clause

    def now(self, connection: Connection) -> int:
        """Return the time of the clock that decides what is due."""
        return int(self._do(connection, "select {now}").scalar_one())


def microseconds() -> int:
    """Return the time of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
