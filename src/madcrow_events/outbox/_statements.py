"""The statements of an outbox: writing events, looking, making deliveries, and leasing them.

A lane is the open deliveries of one handler and one key, in the order of their events. Exactly one
of them is the head: due, delayed, leased, or dead. The others are parked. The head carries the
lease of a run, which is the head and those that follow it.

Each method is for one transaction, or a part of one, and leaves beginning and ending it to others.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from madcrow_events.outbox._announcing import Announcing
from madcrow_events.outbox._removing import Removing
from madcrow_events.outbox._rows import InboxNote, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection

    from madcrow_events.outbox._rows import Claimed, StoredEvent, Watched

__all__ = ["EXPANDED_AT_ONCE", "Statements"]

EXPANDED_AT_ONCE: Final = 200
"""How many events one round of expanding takes."""


class Statements(Announcing, Removing):
    """The statements for the tables of an outbox in a database."""

    # What differs between databases

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

    def _locked_keys(self, connection: Connection, first: int, last: int) -> set[str]:  # noqa: ARG002  # PostgreSQL's
        """Lock the tail of each lane that new events will lengthen; return the keys in use."""
        return set()

    def oldest_transaction(self, connection: Connection) -> float:  # noqa: ARG002  # PostgreSQL's
        """Return the age of the oldest transaction of the database, in seconds; 0.0 if unknown."""
        return 0.0

    # What is the same

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
