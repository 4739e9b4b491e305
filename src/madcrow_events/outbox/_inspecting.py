"""Looking into an outbox, and mending what is stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, and_, case, select, update

from madcrow_events._text import close_matches, printable
from madcrow_events.outbox._errors import NotInOutboxError
from madcrow_events.outbox._looking import Looking, delivery_of
from madcrow_events.outbox._tables import DEAD, DONE, EXPANDED, HEAD

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Inspection"]

_A_MINUTE = 60_000_000
"""In microseconds."""


class Inspection(Looking):
    """Looks into an outbox, and mends what is stuck. Made by `Outbox.inspect`."""

    def _change(self, step: Callable[[Connection], int]) -> int:
        def change(connection: Connection) -> int:
            self._statements.lock(connection)
            return step(connection)

        return self._transaction(change)

    def retry(self, *ids: str) -> int:
        """Have dead deliveries tried again, and delayed ones at once.

        Args:
            ids: the ids of deliveries.

        Returns:
            How many of them were dead or delayed.
        """
        delivery = self._tables.delivery
        deliveries = [delivery_of(it) for it in ids]

        def retry(connection: Connection) -> int:
            now = self._statements.now(connection)
            changed = 0
            for seq, handler_id in deliveries:
                changed += connection.execute(
                    update(delivery)
                    .where(
                        delivery.c.event_seq == seq,
                        delivery.c.handler_id == handler_id,
                        (delivery.c.state == DEAD)
                        | and_(
                            delivery.c.state == HEAD,
                            # Or its worker is gone, and no other one has taken it over.
                            delivery.c.token.is_(None) | (delivery.c.due <= now),
                        ),
                    )
                    .values(state=HEAD, due=now, attempts=0, deliveries=0, token=None)
                ).rowcount
            return changed

        return self._change(retry)

    def discard(self, *ids: str) -> int:
        """Give dead or delayed deliveries up, so that those behind them go on.

        Args:
            ids: the ids of deliveries.

        Returns:
            How many of them were dead or delayed.
        """
        deliveries = [delivery_of(it) for it in ids]
        return self._change(lambda connection: self._statements.discard(connection, deliveries))

    def replay(self, event_id: str | UUID, handler: str | None = None) -> int:
        """Deliver an event again, or to a handler that was deployed after it.

        It is delivered beside the order of its key.

        Args:
            event_id: the id of the event.
            handler: the id of the handler; None for every handler of the event.

        Returns:
            How many deliveries were made. Open deliveries stay as they are.

        Raises:
            NotInOutboxError: the event or the handler is not in the outbox. Events are kept until
                they are handled, or longer by `keep_done`.
        """
        return self._change(lambda connection: self._replay(connection, str(event_id), handler))

    def _replay(self, connection: Connection, event_id: str, name: str | None) -> int:
        event, handler = self._tables.event, self._tables.handler
        found = connection.execute(
            select(event.c.seq, event.c.event, event.c.version, event.c.expanded).where(
                event.c.event_id == event_id
            )
        ).all()
        if not found:
            raise NotInOutboxError(
                f"no event with the id {printable(event_id)} is in the outbox: events are kept "
                "until they are handled; keep_done keeps them longer"
            )
        made = 0
        for it in found:
            if it.expanded != EXPANDED:  # its deliveries are yet to be made
                continue
            # First, and kept for a minute, because a sweep may be about to remove it.
            until = self._statements.now(connection) + _A_MINUTE
            connection.execute(
                update(event)
                .where(event.c.seq == it.seq)
                .values(
                    keep_until=case((event.c.keep_until > until, event.c.keep_until), else_=until)
                )
            )
            handlers = select(handler.c.id).where(
                handler.c.event == it.event, handler.c.retired == 0
            )
            if name is not None:
                handlers = handlers.where(handler.c.id == self._handler_id(connection, name))
            for handler_id in connection.execute(handlers).scalars().all():
                made += self._statements.replay(connection, it.seq, handler_id, it.version)
        return made

    def pause(self, handler: str) -> None:
        """Call a handler no longer, in any worker; its deliveries wait.

        Raises:
            NotInOutboxError: there is no such handler.
        """
        self._mark(handler, paused=1)

    def resume(self, handler: str) -> None:
        """Call a handler again that was paused.

        Raises:
            NotInOutboxError: there is no such handler.
        """
        self._mark(handler, paused=0)

    def retire(self, handler: str) -> int:
        """Give up a handler that is gone, and its deliveries.

        A worker that still has it, and starts anew, takes it back.

        Returns:
            How many deliveries were given up.

        Raises:
            NotInOutboxError: there is no such handler.
        """
        delivery = self._tables.delivery

        def retire(connection: Connection) -> int:
            self._statements.lock_expanding(connection, wait=True)
            id_ = self._handler_id(connection, handler)
            table = self._tables.handler
            connection.execute(update(table).where(table.c.id == id_).values(retired=1))
            return connection.execute(
                delivery.delete().where(delivery.c.handler_id == id_, delivery.c.state != DONE)
            ).rowcount

        return self._change(retire)

    def _mark(self, handler: str, **values: int) -> None:
        table = self._tables.handler

        def mark(connection: Connection) -> int:
            id_ = self._handler_id(connection, handler)
            return connection.execute(
                update(table).where(table.c.id == id_).values(**values)
            ).rowcount

        self._change(mark)

    def _handler_id(self, connection: Connection, name: str) -> int:
        table = self._tables.handler
        ids = {it.name: it.id for it in connection.execute(select(table.c.name, table.c.id))}
        if name not in ids:
            near = close_matches(str(name), list(ids), 1)
            hint = f"did you mean '{near[0]}'?" if near else "start a worker that has it"
            raise NotInOutboxError(f"no durable handler '{printable(name)}' was announced: {hint}")
        return int(ids[name])

    def purge(self) -> int:
        """Remove deliveries that were handled, and their events, without waiting for `keep_done`.

        Returns:
            How many events were removed.
        """
        delivery = self._tables.delivery

        def purge(connection: Connection) -> int:
            connection.execute(delivery.delete().where(delivery.c.state == DONE))
            cursor, total = self._statements.sweep(connection, 0, 1000)
            while cursor:
                cursor, removed = self._statements.sweep(connection, cursor, 1000)
                total += removed
            return total

        return self._change(purge)

    def redact(self, event_id: str | UUID) -> int:
        """Remove the values of an event, as a person may ask for.

        Its key stays, because it keeps the order. Its deliveries that are still open become dead
        when they are tried.

        Returns:
            How many events there were.
        """
        event = self._tables.event
        return self._change(
            lambda connection: (
                connection.execute(
                    update(event)
                    .where(event.c.event_id == str(event_id))
                    .values(payload="", headers="{}", sender=None)
                ).rowcount
            )
        )
