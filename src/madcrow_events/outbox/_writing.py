"""The events of one transaction, from their emission to the COMMIT."""

from __future__ import annotations

from datetime import date
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy.exc import StatementError

from madcrow_events._text import type_name
from madcrow_events._transactions import Refusal
from madcrow_events.exceptions import MadcrowEventsError
from madcrow_events.models import GenericEventContext
from madcrow_events.outbox._errors import (
    NoTransactionError,
    NotSerialisableError,
    OutboxSchemaError,
)
from madcrow_events.outbox._rows import StoredEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ClauseElement, Connection

    from madcrow_events.outbox._statements import Statements
    from madcrow_events.signals import EventSignal

__all__ = ["Writing", "key_of", "refuse"]


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
        self._taken: list[StoredEvent | BaseException] = []
        self._written = 0

    def take(self, event: StoredEvent | BaseException) -> None:
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
        events: list[StoredEvent] = []
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
                self._statements_on(connection).append(connection, events, notify=self._notify)
            except StatementError as error:
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


_LONGEST_KEY: Final = 512
"""In characters; the index of PostgreSQL takes 2,704 bytes."""


def key_of(signal: EventSignal[Any], context: Any) -> str | None:
    """Return the ordering key of an event as text; None without one.

    Raises:
        NotSerialisableError: it is no text, number, id, date or enum, or is too long.
    """
    key = signal.key
    if key is None:
        return None
    if callable(key):
        value = key(context)
    elif isinstance(context, GenericEventContext) and not hasattr(context, key):
        value = context.data.get(key)
    else:
        value = getattr(context, key)
    if value is None:
        return None
    if isinstance(value, Enum):
        value = value.value
    problem = None
    if not isinstance(value, str | int | UUID | date):
        problem = f"is of {type_name(type(value))}: let it be a str, int, UUID, date or enum"
    elif len(text := str(value)) > _LONGEST_KEY:
        problem = f"is longer than {_LONGEST_KEY} characters"
    elif not text.isprintable():
        problem = "has characters that cannot be printed"
    else:
        return text
    raise NotSerialisableError(
        f"the ordering key of {signal.name} {problem}",
        event=signal.name,
        field=key if isinstance(key, str) else None,
    )
