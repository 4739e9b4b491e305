"""What all statements of an outbox are made of."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from sqlalchemy import Connection, text

from madcrow_events.outbox._tables import DEAD, DONE, EXPANDED, HEAD, NEW, PARKED, SET_ASIDE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from sqlalchemy import Dialect, TextClause

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


class _Prepared(NamedTuple):
    """A statement as its driver takes it, which SQLAlchemy needs not compile for each execution.

    Attributes:
        statement: the statement.
        names: the names of its parameters by their places; None if they go by their names.
        takes_now: whether `now` is one of them.
    """

    statement: str
    names: tuple[str, ...] | None
    takes_now: bool

    @classmethod
    def of(cls, clause: TextClause, dialect: Dialect) -> Self:
        compiled: Any = clause.compile(dialect=dialect)
        names = tuple(compiled.positiontup) if compiled.positional else None
        return cls(compiled.string, names, "now" in compiled.params)

    def ordered(self, given: Mapping[str, Any]) -> Any:
        """Return parameters as the driver takes them."""
        return given if self.names is None else tuple([given[name] for name in self.names])


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
        self._dialect = dialect
        self._ready: dict[tuple[str, ...], _Prepared] = {}

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
        """Execute a statement.

        Args:
            connection: the connection.
            template: the statement, with words in braces and parameters behind colons.
            parameters: the parameters; `:now` is given by itself.
            words: more words.
        """
        prepared = self._prepared(template, words)
        given = dict(parameters or ())
        if prepared.takes_now:
            given["now"] = microseconds()
        return connection.exec_driver_sql(prepared.statement, prepared.ordered(given))

    def _do_many(
        self, connection: Connection, template: str, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Execute a statement for each of some rows, of which there must be one."""
        prepared = self._prepared(template, {})
        connection.exec_driver_sql(prepared.statement, [prepared.ordered(it) for it in rows])

    def _prepared(self, template: str, words: Mapping[str, str]) -> _Prepared:
        key = (template, *words.values())
        prepared = self._ready.get(key)
        if prepared is None:
            statement = template.format_map({**self._words, **words})
            prepared = self._ready[key] = _Prepared.of(text(statement), self._dialect)
        return prepared

    def now(self, connection: Connection) -> int:
        """Return the time of the clock that decides what is due."""
        return int(self._do(connection, "select {now}").scalar_one())


def microseconds() -> int:
    """Return the time of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
