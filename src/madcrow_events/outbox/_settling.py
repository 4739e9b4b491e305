"""Statements for what was leased: renewing a lease, and writing down what came of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from madcrow_events.outbox._templates import Templates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from madcrow_events.outbox._rows import Lease, Settlement

__all__ = ["Settling"]


class Settling(Templates):
    """The statements that end runs, and let lanes go on."""

    def renew(self, connection: Connection, tokens: Sequence[int], lease: int) -> None:
        """Lengthen leases, from now on; those that are being settled are left out."""
        self.relax(connection)
        source, parameters = self._source([(it,) for it in tokens], "token bigint")
        self._do(
            connection,
            """
            update {delivery} set due = {now} + :lease where (event_seq, handler_id) in (
              select event_seq, handler_id from {delivery}
              where state = {HEAD} and token in (select token from {source}) {skip_locked})
            """,
            {**parameters, "lease": lease},
            source=source,
            skip_locked=f"{self._for_update} skip locked" if self._for_update else "",
        )

    def settle(
        self, connection: Connection, settlements: Sequence[Settlement], *, keep: bool
    ) -> set[Lease]:
        """Write down what came of runs.

        Args:
            connection: the connection.
            settlements: what came of each run.
            keep: whether to keep what was handled.

        Returns:
            The leases that are lost: nothing was written for their runs.
        """
        held = self._fence(connection, settlements)
        valid = [it for it in settlements if it.lease in held]
        done = [(seq, it.handler_id) for it in valid for seq in it.done]
        if done:
            self._finish(connection, done, keep=keep)
        failed = [(it.handler_id, *it.failed) for it in valid if it.failed is not None]
        if failed:
            self._fail(connection, failed)
        promoted = [
            (it.handler_id, it.key, it.promoted_after, it.alone_until)
            for it in valid
            if it.promoted_after is not None
        ]
        if promoted:
            # A statement of its own, which sees what was parked while the last one waited.
            self.promote(connection, promoted)
        return {it.lease for it in settlements} - held

    def _fence(self, connection: Connection, settlements: Sequence[Settlement]) -> set[Lease]:
        source, parameters = self._source(
            [(it.handler_id, it.head, it.token, it.deliveries) for it in settlements],
            "handler int, head bigint, token bigint, deliveries int",
        )
        rows = self._do(
            connection,
            """
            select d.handler_id, d.event_seq, d.token from {source} join {delivery} d
              on d.event_seq = u.head and d.handler_id = u.handler
            where d.state = {HEAD} and d.token = u.token and d.deliveries = u.deliveries
            order by d.event_seq, d.handler_id {for_update_of}
            """,
            parameters,
            source=source,
            for_update_of=f"{self._for_update} of d" if self._for_update else "",
        )
        return {(row[0], row[1], row[2]) for row in rows}

    def _finish(
        self, connection: Connection, done: Sequence[tuple[int, int]], *, keep: bool
    ) -> None:
        source, parameters = self._source(done, "seq bigint, handler int")
        self._do(
            connection,
            "{change} where (event_seq, handler_id) in (select seq, handler from {source})",
            parameters,
            source=source,
            change=(_KEEP if keep else _DELETE).format_map(self._words),
        )

    def _fail(self, connection: Connection, failed: Sequence[tuple[Any, ...]]) -> None:
        source, parameters = self._source(
            failed,
            "handler int, seq bigint, state int, key text, delay bigint, attempts int, "
            "deliveries int, alone_until bigint, error_type text, error_group text",
        )
        self._do(
            connection,
            """
            update {delivery} set state = u.state, key = u.key, token = null,
              due = {now} + u.delay, attempts = u.attempts, deliveries = u.deliveries,
              alone_until = u.alone_until,
              error_type = coalesce(u.error_type, {delivery}.error_type),
              error_group = coalesce(u.error_group, {delivery}.error_group),
              error_at = case when u.error_type is null then error_at else {now} end
            from {source} where event_seq = u.seq and handler_id = u.handler
            """,
            parameters,
            source=source,
        )

    def promote(self, connection: Connection, lanes: Sequence[tuple[int, Any, int, int]]) -> None:
        """Make the first parked delivery of some lanes their head.

        Args:
            connection: the connection.
            lanes: for each, the handler, the key, the event after which to look, and `alone_until`.
        """
        source, parameters = self._source(
            lanes, "handler int, key text, last bigint, alone_until bigint"
        )
        self._do(
            connection,
            """
            with n as {materialized} (select u.handler, u.alone_until, (
                select t.event_seq from {delivery} t
                where t.handler_id = u.handler and t.key = u.key and t.event_seq > u.last
                order by t.handler_id, t.key, t.event_seq limit 1) seq from {source})
            update {delivery} set state = {HEAD}, due = {greatest}(due, {now}),
              alone_until = n.alone_until
            from n where event_seq = n.seq and handler_id = n.handler and state = {PARKED}
            """,
            parameters,
            source=source,
            materialized="materialized" if self._for_update else "",
        )


_KEEP: Final = "update {delivery} set state = {DONE}, key = null, token = null, due = {now}"
_DELETE: Final = "delete from {delivery}"
