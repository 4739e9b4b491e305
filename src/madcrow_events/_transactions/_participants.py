"""What takes part in a transaction: it writes rows just before the COMMIT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from madcrow_events._transactions._refusing import Refusal

if TYPE_CHECKING:
    from sqlalchemy import ClauseElement, Connection

__all__ = ["Participant"]


class Participant(Protocol):
    """Gathers rows while a transaction goes on, and writes them as it is committed.

    It is for one transaction of one session or connection, in one thread at a time.
    """

    clause: ClauseElement
    """By which a session finds the engine of the rows: their table, or a statement with it."""

    def mark(self) -> int:
        """Return how much it has taken and not discarded; 0 if there is nothing to write."""
        ...

    def discard(self, keep: int) -> None:
        """Drop what it took after `mark` returned this number; the rows of these are gone, too."""
        ...

    def write(self, connection: Connection) -> None:
        """Write what it has taken and not written yet, in the transaction of this connection.

        Called just before the COMMIT, and afterwards for each row that is still added. What it
        raises comes out of the commit, or of the emission that adds the row. If the commit is
        tried again, it is called again, after an interrupt perhaps with the rows already there.
        """
        ...

    def end(self, *, is_committed: bool) -> None:
        """Note that the transaction is over; the events held back go out, or are dropped, next.

        It raises nothing. After an interrupt it is called again.
        """
        ...

    def refuse(self, refusal: Refusal, given: object) -> Exception:
        """Return the error to raise if there is no connection to write on."""
        ...
