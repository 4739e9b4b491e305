"""The statements of an outbox: making deliveries, leasing and settling them.

A lane is the open deliveries of one handler and one key, in the order of their events. Exactly one
of them is the head: due, delayed, leased, or dead. The others are parked. The head carries the
lease of a run, which is the head and those that follow it.

Each method is for one transaction, or a part of one, and leaves beginning and ending it to others.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from sqlalchemy import Connection, TextClause, text

from madcrow_events.outbox._rows import (
    Announced,
    Claimed,
    InboxNote,
    Lease,
    Look,
    Settlement,
    StoredEvent,
    Watched,
)
from madcrow_events.outbox._tables import DEAD, DONE, EXPANDED, HEAD, NEW, PARKED, SET_ASIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Dialect

    from madcrow_events.outbox._keeping import Keeping
    from madcrow_events.outbox._tables import Tables

__all__ = ["EXPANDED_AT_ONCE", "Statements", "microseconds"]

EXPANDED_AT_ONCE: Final = 200
"""How many events one round of expanding takes."""

_STATES: Final = {
    "DEAD": DEAD,
    "DONE": DONE,
    "EXPANDED": EXPANDED,
    "HEAD": HEAD,
    "NEW": NEW,
    "PARKED": PARKED,
    "SET_ASIDE": SET_ASIDE,
}


class Statements(ABC):
    """The statements that both databases understand.

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

    # What differs

    @abstractmethod
    def lock(self, connection: Connection) -> None:
        """Take the lock of a writer, where there is one, before anything is read."""

    @abstractmethod
    def relax(self, connection: Connection) -> None:
        """Let the commit of this transaction not wait for the disk.

        Claims may be undone by a power failure: what depends on them is undone with them.
        """

    @abstractmethod
    def append(
        self, connection: Connection, events: Sequence[StoredEvent], *, notify: str | None
    ) -> None:
        """Write events, just before the commit, so that their `seq` is the order of commits.

        An event whose source and id are there already is left out.

        Args:
            connection: the connection.
            events: the events.
            notify: the channel on which workers elsewhere hear of the commit; None for no word.
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
    def claim(
        self,
        connection: Connection,
        watched: Watched,
        *,
        token: int,
        limit: int,
        run: int,
        lease: int,
        until: int,
    ) -> list[Claimed]:
        """Lease due deliveries of one handler.

        Args:
            connection: the connection.
            watched: the handler.
            token: the token of the leases.
            limit: how many heads to claim at most.
            run: how long a run may be.
            lease: for how many microseconds.
            until: what is due by this moment is claimed.

        Returns:
            The deliveries, run by run, each in the order of its events.
        """

    @abstractmethod
    def _source(self, rows: Sequence[Sequence[Any]], columns: str) -> tuple[str, dict[str, Any]]:
        """Return rows as a table `u` in a `FROM`, and its parameters.

        Args:
            rows: the rows.
            columns: the names and types of the columns, such as "id int, name text".
        """

    def _locked_keys(self, connection: Connection, first: int, last: int) -> set[str]:  # noqa: ARG002  # PostgreSQL's
        """Lock the tail of each lane that new events will lengthen; return the keys in use."""
        return set()

    # What is the same

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

    def look(self, connection: Connection, watched: Sequence[Watched]) -> Look:
        """Return what there is to do for some handlers."""
        source, parameters = self._source(watched, "id int, version int, floor bigint")
        rows = self._do(
            connection,
            """
            select {now}, exists(select 1 from {event} where expanded = {NEW}), u.id,
              case when exists(select 1 from {handler} h
                where h.id = u.id and h.paused = 0 and h.retired = 0)
              then (select d.due from {delivery} d where d.handler_id = u.id and d.state = {HEAD}
                and d.due >= u.floor and d.version <= u.version order by d.due limit 1) end
            from (select 1) one left join {source} on true
            """,
            parameters,
            source=source,
        ).all()
        now, has_new = rows[0][0], rows[0][1]
        return Look(now, bool(has_new), {it[2]: it[3] for it in rows if it[3] is not None})

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

    def note(self, connection: Connection, notes: Iterable[InboxNote]) -> set[InboxNote]:
        """Write into the inbox what is taken in; return those that were not there before."""
        # In one order, so that two transactions never wait for each other.
        source, parameters = self._source(
            sorted(notes), "consumer text, source text, event_id text"
        )
        written = self._do(
            connection,
            """
            insert into {inbox} (consumer, source, event_id, seen)
            select u.consumer, u.source, u.event_id, {now} from {source} where true
            on conflict do nothing returning consumer, source, event_id
            """,
            parameters,
            source=source,
        )
        return {InboxNote(*row) for row in written}

    def expand(
        self, connection: Connection, rename: Callable[[str], str], *, wait: bool = False
    ) -> int:
        """Make the deliveries of the oldest new events, unless another worker does it now.

        Args:
            connection: the connection.
            rename: returns the present name of an event.
            wait: whether to wait for another worker that does it now.

        Returns:
            How many events there were.
        """
        if not self.lock_expanding(connection, wait=wait):
            return 0
        events = self._do(
            connection,
            "select seq, event, key from {event} where expanded = {NEW} order by seq limit :limit",
            {"limit": EXPANDED_AT_ONCE},
        ).all()
        if not events:
            return 0
        for name in {it.event for it in events}:
            if (present := rename(name)) != name:
                self._do(
                    connection,
                    "update {event} set event = :present where event = :name and expanded = {NEW}",
                    {"name": name, "present": present},
                )
        self.relax(connection)  # the deliveries would be made again
        in_use = self._locked_keys(connection, events[0].seq, events[-1].seq)
        seqs = [(it.seq,) for it in events if it.key not in in_use]
        if not seqs:
            return 0
        source, parameters = self._source(seqs, "seq bigint")
        self._do(
            connection,
            """
            insert into {delivery} (event_seq, handler_id, key, version, state, due, alone_until,
              attempts, deliveries, error_at, replays)
            select e.seq, h.id, case when h.keyed = 1 then e.key end, e.version,
              case when h.keyed = 0 or e.key is null then {HEAD}
                when row_number() over (partition by h.id, e.key order by e.seq) > 1 then {PARKED}
                when exists(select 1 from {delivery} d where d.handler_id = h.id and d.key = e.key)
                then {PARKED} else {HEAD} end,
              {greatest}(e.not_before, {now}), 0, 0, 0, 0, 0
            from {event} e join {handler} h on h.event = e.event and h.retired = 0
              and (h.sender is null or h.sender = e.sender)
            where e.expanded = {NEW} and e.seq in (select seq from {source})
            """,
            parameters,
            source=source,
        )
        self._do(
            connection,
            """
            update {event} set expanded = case when exists(select 1 from {handler} h
              where h.event = {event}.event and h.retired = 0) then {EXPANDED} else {SET_ASIDE} end
            where seq in (select seq from {source})
            """,
            parameters,
            source=source,
        )
        return len(seqs)

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

    def replay(self, connection: Connection, seq: int, handler_id: int, version: int) -> int:
        """Make a delivery beside the order of its key, unless it is open; return whether it was."""
        made: int = self._do(
            connection,
            """
            insert into {delivery} (event_seq, handler_id, version, state, due, alone_until,
              attempts, deliveries, error_at, replays)
            values (:seq, :handler, :version, {HEAD}, {now}, 0, 0, 0, 0, 1)
            on conflict (event_seq, handler_id) do update set state = {HEAD}, due = {now},
              attempts = 0, deliveries = 0, replays = {delivery}.replays + 1
            where {delivery}.state in ({DONE}, {DEAD})
            """,
            {"seq": seq, "handler": handler_id, "version": version},
        ).rowcount
        return made

    def oldest_transaction(self, connection: Connection) -> float:  # noqa: ARG002  # PostgreSQL's
        """Return the age of the oldest transaction of the database, in seconds; 0.0 if unknown."""
        return 0.0


_KEEP: Final = "update {delivery} set state = {DONE}, key = null, token = null, due = {now}"
_DELETE: Final = "delete from {delivery}"


def microseconds() -> int:
    """Return the time of this machine, in microseconds since 1970."""
    return time.time_ns() // 1000
