"""Statements of workers about themselves: which handlers there are, and that they are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events.outbox._templates import Templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from madcrow_events.outbox._rows import Announced

__all__ = ["Announcing"]


class Announcing(Templates):
    """The statements that write down handlers."""

    def announce(self, connection: Connection, handlers: Iterable[Announced]) -> dict[str, int]:
        """Write down the handlers of a worker; return their ids by name.

        Events that were set aside for want of a handler are taken up, under their earlier names,
        too.
        """
        self.lock_expanding(connection, wait=True)
        ids: dict[str, int] = {}
        events: set[str] = set()
        for handler in handlers:
            ids[handler.name], is_new = self._announce(connection, handler)
            if is_new:
                events.update((handler.event, *handler.event_formerly))
        for event in sorted(events):
            self._do(
                connection,
                "update {event} set expanded = {NEW} "
                "where expanded = {SET_ASIDE} and event = :event",
                {"event": event},
            )
        return ids

    def _announce(self, connection: Connection, handler: Announced) -> tuple[int, bool]:
        given = {
            "name": handler.name,
            "formerly": "\n".join(handler.formerly),
            "event": handler.event,
            "version": handler.version,
            "keyed": int(handler.keyed),
            "sender": handler.sender,
        }
        known = self._known(connection, handler)
        if known is None:
            id_ = self._do(
                connection,
                """
                insert into {handler}
                  (name, formerly, event, version, keyed, sender, paused, retired, seen)
                values (:name, :formerly, :event, :version, :keyed, :sender, 0, 0, {now})
                returning id
                """,
                given,
            ).scalar_one()
            return id_, True
        if handler.name in known.formerly.split("\n"):
            given["name"], given["formerly"] = known.name, known.formerly
        # The newest version of all workers, so that `status` tells what nobody can read.
        self._do(
            connection,
            """
            update {handler} set name = :name, formerly = :formerly, event = :event,
              keyed = :keyed, sender = :sender,
              version = {greatest}(version, :version), retired = 0, seen = {now} where id = :id
            """,
            {**given, "id": known.id},
        )
        # Emitters may have used the new name of an event before any worker knew it.
        return known.id, bool(known.retired) or known.event != handler.event

    def _known(self, connection: Connection, handler: Announced) -> Any:
        """Return the row of a handler, by its name, an earlier or even a later one."""
        rows = self._do(
            connection, "select id, name, formerly, event, retired from {handler}"
        ).all()
        by_name = {it.name: it for it in rows}
        for name in (handler.name, *handler.formerly):
            if name in by_name:
                return by_name[name]
        # A worker of older code, beside newer ones that have renamed the handler.
        return next((it for it in rows if handler.name in it.formerly.split("\n")), None)

    def note_seen(self, connection: Connection, ids: Sequence[int]) -> None:
        """Write down that a worker of some handlers is there."""
        self.relax(connection)
        source, parameters = self._source([(it,) for it in ids], "id int")
        self._do(
            connection,
            "update {handler} set seen = {now} where id in (select id from {source})",
            parameters,
            source=source,
        )
