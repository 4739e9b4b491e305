"""The events of one transaction, from their emission to the COMMIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import StatementError

from madcrow_events._text import type_name
from madcrow_events._transactions import Refusal
from madcrow_events.exceptions import MadcrowEventsError
from madcrow_events.outbox._errors import (
    NoTransactionError,
    NotSerialisableError,
    OutboxSchemaError,
)
from madcrow_events.outbox._rows import Received, StoredEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import ClauseElement, Connection

    from madcrow_events.outbox._statements import Statements

__all__ = ["Writing", "refuse", "schema_error", "write_events"]


class Writing:
    """What one transaction has emitted, and writes just before its COMMIT.

    Args:
        clause: the table of the events.
        statements_on: returns the statements for a connection.
        wake: called when events were committed.
        notify: the channel on which other processes hear of the commit, or None.
    """

    def __init__(
        self,
        clause: ClauseElement,
        statements_on: Callable[[Connection], Statements],
        wake: Callable[[], None],
        notify: str | None,
    ) -> None:
        self.clause = clause
        self._statements_on = statements_on
        self._wake = wake
        self._notify = notify
        self._taken: list[StoredEvent | Received | BaseException] = []
        self._written = 0

    def take(self, event: StoredEvent | Received | BaseException) -> None:
        """Take an event, or the error of one that cannot be written: then the commit fails."""
        self._taken.append(event)

    def mark(self) -> int:
        """Return how much was taken."""
        return len(self._taken)

    def discard(self, keep: int) -> None:
        """Drop what was taken in a savepoint."""
        del self._taken[keep:]
        self._written = min(self._written, keep)

    def write(self, connection: Connection) -> None:
        """Write the events, at most once each.

        Raises:
            NotSerialisableError: one of them could not be written.
            OutboxSchemaError: the table is missing or old.
        """
        events: list[StoredEvent | Received] = []
        for taken in self._taken[self._written :]:
            if isinstance(taken, BaseException):
                # Only the errors of this package are sure to show no value.
                is_ours = isinstance(taken, MadcrowEventsError)
                problem = str(taken) if is_ours else type_name(type(taken))
                raise NotSerialisableError(
                    f"nothing is committed, because an event could not be written: {problem}",
                    event=getattr(taken, "event", ""),
                    field=getattr(taken, "field", None),
                ) from taken
            events.append(taken)
        if events:
            try:
                write_events(self._statements_on(connection), connection, events, self._notify)
            except BaseException as error:
                # The notes may be there, and the events not: a second try would find nothing new.
                if any(isinstance(it, Received) for it in events):
                    self.take(error)
                if isinstance(error, StatementError):
                    error.hide_parameters = True  # which are the payloads
                    _explain(error)
                raise
            self._written += len(events)

    def end(self, *, is_committed: bool) -> None:
        """Forget the events of a transaction that is over, and wake the workers here."""
        is_news = is_committed and self._written > 0
        self._taken.clear()
        self._written = 0
        if is_news:
            self._wake()

    def refuse(self, refusal: Refusal, given: object) -> Exception:
        """Return the error to raise where nothing can be written."""
        return refuse(refusal, given)


def write_events(
    statements: Statements,
    connection: Connection,
    events: Sequence[StoredEvent | Received],
    notify: str | None,
) -> int:
    """Write events in their order; return how many of them were not taken in before.

    Args:
        statements: the statements for the database.
        connection: the connection, just before its commit.
        events: the events.
        notify: the channel on which other processes hear of the commit, or None.
    """
    notes = {it.note for it in events if isinstance(it, Received)}
    new = statements.note(connection, notes) if notes else set()
    stored = []
    for it in events:
        if isinstance(it, StoredEvent):
            stored.append(it)
        elif it.note in new:
            new.discard(it.note)
            stored.append(it.event)
    if stored:
        statements.append(connection, stored, notify=notify)
    return len(stored)


def refuse(refusal: Refusal, given: object) -> Exception:
    """Return the error for a session or connection that commits nothing, or is none."""
    if refusal is Refusal.NO_SESSION:
        return TypeError(
            "emit takes a Session, AsyncSession, scoped_session, async_scoped_session, "
            f"Connection or AsyncConnection, not {type_name(type(given))}: pass the session "
            "whose transaction the event belongs to"
        )
    return NoTransactionError(_REFUSALS[refusal])


_REFUSALS: Final = {
    Refusal.NOT_CONNECTED: (
        "the AsyncConnection is not connected: write `async with engine.begin()`"
    ),
    Refusal.AUTOCOMMIT: (
        "the isolation level is AUTOCOMMIT, so no transaction can take the event along: choose "
        "another isolation level"
    ),
    Refusal.NO_BIND: (
        "the session has several engines, and none for the outbox: name the one that has the "
        "tables, as in Session(binds={outbox.tables.event: engine})"
    ),
}


def _explain(error: StatementError) -> None:
    """Raise a better error if the tables are missing or old."""
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    text = str(error.orig)
    if code in {"42P01", "42703"} or "no such table" in text or "has no column" in text:
        raise schema_error("the outbox has no tables here, or old ones") from error


def schema_error(problem: str) -> OutboxSchemaError:
    """Return the error for tables that are missing or old.

    Args:
        problem: what is wrong.
    """
    return OutboxSchemaError(
        f"{problem}: call outbox.metadata.create_all(engine), or add outbox.metadata to the "
        "target_metadata of Alembic and upgrade"
    )
