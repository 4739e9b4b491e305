"""Removing what is kept no longer, a little at a time."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._keeping import Keeping
    from madcrow_events.outbox._statements import Statements

__all__ = ["Sweeping"]

_AT_ONCE: Final = 1000
_EVERY: Final = 5.0
_OLD_EVERY: Final = 60.0


class Sweeping:
    """Removes events that were handled, and what is older than it is to be kept.

    Args:
        statements: the statements for the tables.
        keeping: how long things are kept.
    """

    def __init__(self, statements: Statements, keeping: Keeping) -> None:
        self._statements = statements
        self._keeping = keeping
        self._cursor = 0
        self._done = 0
        self._at = monotonic() + _EVERY
        self._old_at = monotonic()

    def count(self, done: int) -> None:
        """Note that deliveries were handled, whose events may be removed."""
        self._done += done

    @property
    def is_due(self) -> bool:
        """Whether there may be something to remove."""
        return self._done >= _AT_ONCE or monotonic() >= self._at

    def sweep(self, database: Access) -> None:
        """Remove some of it."""
        self._done = max(0, self._done - _AT_ONCE)
        self._at = monotonic() + _EVERY
        self._cursor, _ = database.transaction(self._sweep)
        if monotonic() >= self._old_at:
            self._old_at = monotonic() + _OLD_EVERY
            database.transaction(self._remove_old)

    def _sweep(self, connection: Connection) -> tuple[int, int]:
        self._statements.lock(connection)
        return self._statements.sweep(connection, self._cursor, _AT_ONCE)

    def _remove_old(self, connection: Connection) -> None:
        self._statements.lock(connection)
        self._statements.remove_old(connection, self._keeping)
