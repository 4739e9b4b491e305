"""What differs between PostgreSQL and SQLite."""

from __future__ import annotations

import json
import zlib
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from madcrow_events.outbox._errors import OutboxError
from madcrow_events.outbox._rows import Claimed
from madcrow_events.outbox._statements import Statements
from madcrow_events.outbox._templates import microseconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Dialect

    from madcrow_events.outbox._rows import StoredEvent, Watched
    from madcrow_events.outbox._tables import Tables

__all__ = ["PostgreSQL", "SQLite", "statements_for"]


def statements_for(tables: Tables, dialect: Dialect) -> Statements:
    """Return the statements for the tables in a database.

    Raises:
        OutboxError: the database is neither PostgreSQL nor SQLite.
    """
    class_ = {"postgresql": PostgreSQL, "sqlite": SQLite}.get(dialect.name)
    if class_ is None:
        raise OutboxError(
            f"an outbox needs PostgreSQL or SQLite, not {dialect.name}: use an engine of one of "
            "these"
        )
    return class_(tables, dialect)


class PostgreSQL(Statements):
    """The statements for PostgreSQL."""

    # Without the `select`, the clock would be a filter and no condition for the index.
    _now = "(select (extract(epoch from clock_timestamp()) * 1000000)::bigint)"
    _greatest = "greatest"
    _for_update = "for update"

    def __init__(self, tables: Tables, dialect: Dialect) -> None:
        super().__init__(tables, dialect)
        # Locks are numbers for the whole database: outboxes with other tables get others.
        self._class = zlib.crc32(self._words["event"].encode()) - 2**31  # type: ignore[attr-defined]

    def lock(self, connection: Connection) -> None:
        """Take no lock: rows are locked as they are claimed."""

    def relax(self, connection: Connection) -> None:
        # Not for the connection, which a pool such as PgBouncer gives to the application next.
        self._do(connection, "set local synchronous_commit = off")

    def append(
        self, connection: Connection, events: Sequence[StoredEvent], *, notify: str | None
    ) -> None:
        # Locked as late as possible, each key and each id that was given, in one order.
        locked = {it.key for it in events if it.key is not None}
        locked |= {it.event_id for it in events if it.keep_until}
        buckets = sorted({zlib.crc32(it.encode()) % _BUCKETS for it in locked})
        source, parameters = self._source(
            events,
            "source text, event_id text, event text, version int, key text, sender text, "
            "payload text, headers text, not_before bigint, created bigint, keep_until bigint",
        )
        self._do(
            connection,
            """
            with l as materialized (select pg_advisory_xact_lock(:class, b)
                from unnest(cast(:buckets as int[])) b),
              r as materialized (select count(*) from l)
            insert into {event} (source, event_id, event, version, key, sender, payload, headers,
              not_before, created, keep_until, expanded)
            select u.source, u.event_id, u.event, u.version, u.key, u.sender, u.payload, u.headers,
              u.not_before, u.created, u.keep_until, {NEW}
            from r cross join {source} order by u.place on conflict do nothing
            """,
            {**parameters, "class": self._class, "buckets": buckets},
            source=source,
        )
        if notify is not None:
            self._do(connection, "select pg_notify(:channel, '')", {"channel": notify})

    def oldest_transaction(self, connection: Connection) -> float:
        age = self._do(
            connection,
            "select extract(epoch from clock_timestamp() - min(xact_start)) from pg_stat_activity "
            "where datname = current_database()",
        ).scalar_one()
        return float(age or 0.0)

    def lock_expanding(self, connection: Connection, *, wait: bool) -> bool:
        function = "pg_advisory_xact_lock" if wait else "pg_try_advisory_xact_lock"
        got = self._do(
            connection, f"select {function}(:class, -1)", {"class": self._class}
        ).scalar_one()
        return wait or bool(got)

    def _locked_keys(self, connection: Connection, first: int, last: int) -> set[str]:
        return set(
            self._do(
                connection,
                """
                with lane as materialized (select distinct h.id, e.key from {event} e
                  join {handler} h on h.event = e.event and h.retired = 0 and h.keyed = 1
                  where e.expanded = {NEW} and e.seq between :first and :last
                    and e.key is not null)
                select lane.key from lane
                cross join lateral (select max(event_seq) seq from {delivery} d
                  where d.handler_id = lane.id and d.key = lane.key) tail
                left join lateral (select 1 got from {delivery} d where d.handler_id = lane.id
                  and d.key = lane.key and d.event_seq = tail.seq
                  for update skip locked) locked on true
                where tail.seq is not null and locked.got is null
                """,
                {"first": first, "last": last},
            ).scalars()
        )

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
        self.relax(connection)
        rows = self._do(
            connection,
            """
            with heads as materialized (select event_seq, key, deliveries, alone_until, due
                from {delivery} where state = {HEAD} and handler_id = :handler
                  and version <= :version and due >= :floor and due <= :until
                order by due, event_seq limit :limit for update skip locked),
              tail as materialized (select h.event_seq head, h.key, t.* from heads h
                cross join lateral (select * from (select event_seq, attempts, deliveries, due,
                      bool_and(due <= :until and version <= :version)
                        over (order by event_seq) ready
                    from (select event_seq, attempts, deliveries, due, version from {delivery} t
                      where t.handler_id = :handler and t.key = h.key
                        and t.event_seq > h.event_seq and t.state = {PARKED}
                      order by t.event_seq limit :behind) next) runs where ready) t
                where h.deliveries = 0 and h.alone_until < h.event_seq),
              leased as (update {delivery} d set token = :token, due = {now} + :lease,
                  deliveries = d.deliveries + 1, alone_until = greatest(d.alone_until,
                    (select max(event_seq) from tail where head = d.event_seq))
                from heads where d.handler_id = :handler and d.event_seq = heads.event_seq
                returning d.event_seq head, d.event_seq, d.attempts, d.deliveries, d.alone_until,
                  heads.due, d.key)
            select x.head, x.event_seq, x.attempts, x.deliveries, x.alone_until, x.due, x.key,
              e.source, e.event_id, e.event, e.version, e.sender, e.payload, e.headers, e.created
            from (select * from leased union all
                select head, event_seq, attempts, deliveries, 0, due, key from tail) x
              join {event} e on e.seq = x.event_seq order by 1, 2
            """,
            {
                "handler": watched.id,
                "version": watched.version,
                "floor": watched.floor,
                "until": until,
                "limit": limit,
                "behind": run - 1,
                "token": token,
                "lease": lease,
            },
        )
        return [Claimed(*row) for row in rows]

    def _source(self, rows: Sequence[Sequence[Any]], columns: str) -> tuple[str, dict[str, Any]]:
        is_single = len(rows) == 1
        source, names = _unnested(columns, is_single=is_single)
        if is_single:
            return source, dict(zip(names, rows[0], strict=True))
        columns_of = zip(*rows, strict=True) if rows else ([] for _ in names)
        return source, {name: list(values) for name, values in zip(names, columns_of, strict=True)}


@cache
def _unnested(columns: str, *, is_single: bool) -> tuple[str, tuple[str, ...]]:
    """Return the source of a row or of arrays, and the names of its parameters."""
    parts = [it.split() for it in columns.split(", ")]
    parameters = tuple(f"u_{name}" for name, _ in parts)
    if is_single:  # for which arrays cost a third more
        values = ", ".join(f"cast(:u_{name} as {type_}) {name}" for name, type_ in parts)
        return f"(select {values}, 1 place) u", parameters
    arrays = ", ".join(f"cast(:u_{name} as {type_}[])" for name, type_ in parts)
    names = ", ".join(name for name, _ in parts)
    return f"unnest({arrays}) with ordinality u({names}, place)", parameters


_BUCKETS: Final = 1024
"""How many locks the keys share: a lock for each would overflow the table of locks."""


class SQLite(Statements):
    """The statements for SQLite, which has one writer at a time."""

    _now = ":now"
    _greatest = "max"

    def lock(self, connection: Connection) -> None:
        # A transaction that begins with a write waits for its turn. One that reads first and then
        # writes fails at once if another has written meanwhile.
        self._do(connection, "update {handler} set seen = seen where id = -1")

    def relax(self, connection: Connection) -> None:
        """Do nothing: it is a setting of the whole connection."""

    def append(
        self,
        connection: Connection,
        events: Sequence[StoredEvent],
        *,
        notify: str | None,  # noqa: ARG002  # PostgreSQL's
    ) -> None:
        self._do_many(
            connection,
            """
            insert into {event} (source, event_id, event, version, key, sender, payload, headers,
              not_before, created, keep_until, expanded)
            values (:source, :event_id, :event, :version, :key, :sender, :payload, :headers,
              :not_before, :created, :keep_until, {NEW}) on conflict do nothing
            """,
            [it._asdict() for it in events],
        )

    def lock_expanding(self, connection: Connection, *, wait: bool) -> bool:  # noqa: ARG002  # the writer is alone
        self.lock(connection)
        return True

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
        self.lock(connection)
        now = microseconds()
        given = {"handler": watched.id, "version": watched.version, "until": until}
        heads = self._do(
            connection,
            """
            select event_seq, event_seq, attempts, deliveries + 1, alone_until, due, key
            from {delivery} where state = {HEAD} and handler_id = :handler
              and version <= :version and due >= :floor and due <= :until
            order by due, event_seq limit :limit
            """,
            {**given, "floor": watched.floor, "limit": limit},
        ).all()
        # One that was claimed before, or with one that was, is alone: it may end its worker.
        leading = [it for it in heads if it.key and it[3] == 1 and it.alone_until < it.event_seq]
        tails = self._tails(connection, leading, given, run - 1) if run > 1 and leading else {}
        rows: list[Any] = []
        for head in heads:
            tail = tails.get(head.event_seq, [])
            alone_until = max(head.alone_until, tail[-1][1]) if tail else head.alone_until
            rows += [(*head[:4], alone_until, head.due, head.key), *tail]
        if not rows:
            return []
        self._do_many(
            connection,
            "update {delivery} set token = :token, due = :due, deliveries = :deliveries, "
            "alone_until = :alone where event_seq = :seq and handler_id = :handler",
            [
                {
                    "token": token,
                    "due": now + lease,
                    "deliveries": it[3],
                    "alone": it[4],
                    "seq": it[1],
                    "handler": watched.id,
                }
                for it in rows
                if it[0] == it[1]
            ],
        )
        source, parameters = self._source([(it[1],) for it in rows], "seq bigint")
        events = {
            it.seq: it[1:]
            for it in self._do(
                connection,
                """
                select seq, source, event_id, event, version, sender, payload, headers, created
                from {event} where seq in (select seq from {source})
                """,
                parameters,
                source=source,
            )
        }
        # Without its event, which somebody has deleted by hand, a delivery is left alone.
        return [
            Claimed(*it, *events[it[1]])
            for it in sorted(rows, key=itemgetter(0, 1))
            if it[1] in events
        ]

    def _tails(
        self, connection: Connection, heads: Sequence[Any], given: Mapping[str, Any], limit: int
    ) -> dict[int, list[tuple[Any, ...]]]:
        """Return what follows each head in its lane and is due, by the head."""
        source, parameters = self._source(
            [(it.event_seq, it.key) for it in heads], "head bigint, key text"
        )
        found = self._do(
            connection,
            # The join is "cross", because SQLite then keeps its order.
            """
            select u.head, t.event_seq, t.attempts, t.deliveries, 0, t.due, t.key,
              t.due <= :until and t.version <= :version
            from {source} cross join {delivery} t
            where t.handler_id = :handler and t.event_seq in (
              select event_seq from {delivery} where handler_id = :handler and key = u.key
                and event_seq > u.head and state = {PARKED} order by event_seq limit :behind)
            order by u.head, t.event_seq
            """,
            {**parameters, **given, "behind": limit},
            source=source,
        )
        tails: dict[int, list[tuple[Any, ...]]] = {}
        ended: set[int] = set()
        for *row, is_ready in found:
            if not is_ready:
                ended.add(row[0])
            elif row[0] not in ended:
                tails.setdefault(row[0], []).append(tuple(row))
        return tails

    def _source(self, rows: Sequence[Sequence[Any]], columns: str) -> tuple[str, dict[str, Any]]:
        return _extracted(columns), {"rows": json.dumps([list(it) for it in rows])}


@cache
def _extracted(columns: str) -> str:
    """Return the source of rows in JSON."""
    values = (
        f"json_extract(value, '$[{place}]') as {it.split()[0]}"
        for place, it in enumerate(columns.split(", "))
    )
    source = "(select {} from json_each(:rows)) u"
    return source.format(", ".join(values))
