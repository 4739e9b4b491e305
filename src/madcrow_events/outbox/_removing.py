"""Statements that remove what is over, and what somebody discards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madcrow_events.outbox._settling import Settling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from madcrow_events.outbox._keeping import Keeping

__all__ = ["Removing"]


class Removing(Settling):
    """The statements that remove events and deliveries."""

    def sweep(self, connection: Connection, cursor: int, limit: int) -> tuple[int, int]:
        """Remove events of which no delivery is left.

        Args:
            connection: the connection.
            cursor: the last event that was looked at.
            limit: how many events to look at.

        Returns:
            The new cursor, 0 at the end of the table; and how many events were removed.
        """
        seqs = (
            self._do(
                connection,
                "select seq from {event} where seq > :cursor and expanded = {EXPANDED} "
                "order by seq limit :limit",
                {"cursor": cursor, "limit": limit},
            )
            .scalars()
            .all()
        )
        if not seqs:
            return 0, 0
        source, parameters = self._source([(it,) for it in seqs], "seq bigint")
        removed = self._do(
            connection,
            """
            delete from {event} where seq in (select seq from {source})
              and keep_until <= {now} and expanded = {EXPANDED}
              and not exists(select 1 from {delivery} d where d.event_seq = {event}.seq)
            """,
            parameters,
            source=source,
        ).rowcount
        return (seqs[-1] if len(seqs) == limit else 0), removed

    def remove_old(self, connection: Connection, keeping: Keeping) -> None:
        """Remove deliveries that are kept no longer, and notes of the inbox."""
        self._do(
            connection,
            "delete from {delivery} where state = {DONE} and due <= {now} - :kept",
            {"kept": keeping.done},
        )
        self._do(
            connection, "delete from {inbox} where seen <= {now} - :kept", {"kept": keeping.inbox}
        )
        dead = self._do(
            connection,
            "select event_seq, handler_id from {delivery} "
            "where state = {DEAD} and error_at <= {now} - :kept limit 1000",
            {"kept": keeping.dead},
        ).all()
        self.discard(connection, [(seq, handler) for seq, handler in dead])

    def discard(self, connection: Connection, deliveries: Sequence[tuple[int, int]]) -> int:
        """Remove dead or delayed deliveries, and let those go on that waited behind them.

        Args:
            connection: the connection.
            deliveries: the deliveries, by event and handler.

        Returns:
            How many of them were dead or delayed.
        """
        source, parameters = self._source(deliveries, "seq bigint, handler int")
        removed = self._do(
            connection,
            """
            delete from {delivery}
            where (state = {DEAD} or state = {HEAD} and (token is null or due <= {now}))
              and (event_seq, handler_id) in (select seq, handler from {source})
            returning handler_id, key, event_seq
            """,
            parameters,
            source=source,
        ).all()
        lanes = [(handler, key, seq, 0) for handler, key, seq in removed if key is not None]
        if lanes:
            self.promote(connection, lanes)
        return len(removed)
