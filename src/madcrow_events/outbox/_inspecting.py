"""Looking into an outbox, and mending what is stuck."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, and_, case, func, select, update

from madcrow_events._text import close_matches, printable
from madcrow_events.outbox._errors import NotInOutboxError
from madcrow_events.outbox._reporting import delivery_id
from madcrow_events.outbox._tables import DEAD, DONE, EXPANDED, HEAD, NEW, PARKED, SET_ASIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._statements import Statements
    from madcrow_events.outbox._tables import Tables

__all__ = [
    "BlockedKey",
    "DeadGroup",
    "DeliveryRecord",
    "HandlerStatus",
    "Inspection",
    "OutboxStatus",
    "WaitingEvents",
]

T = TypeVar("T")

_MOST_KEYS = 20
"""How many blocked keys `status` names."""


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """The deliveries of one durable handler. Ages and times are in seconds.

    Attributes:
        name: its id.
        event: the name of its event.
        due: deliveries that wait for a worker.
        delayed: deliveries that wait for their time, such as that of the next attempt.
        running: deliveries that a worker has now.
        parked: deliveries that wait behind another one of their key.
        dead: deliveries that are not tried again.
        unknown: deliveries of a version that no worker can read.
        oldest_due: the age of the delivery that has been due for longest; 0.0 if none is due.
        seen: how long ago a worker announced the handler.
        paused: whether it is paused.
        retired: whether it is retired.
    """

    name: str
    event: str
    due: int
    delayed: int
    running: int
    parked: int
    dead: int
    unknown: int
    oldest_due: float
    seen: float
    paused: bool
    retired: bool


@dataclass(frozen=True, slots=True)
class WaitingEvents:
    """Events of one name that no handler was announced for.

    Attributes:
        event: their name.
        count: how many there are.
        oldest: the age of the oldest one, in seconds.
    """

    event: str
    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """A key whose deliveries wait for one that is dead, or delayed.

    Attributes:
        handler: the id of the handler.
        head: the id of the delivery at the head of the key.
        is_dead: whether it is dead; else it is delayed.
        waiting: how many deliveries wait behind it.
        age: for how long it has been there, in seconds.
    """

    handler: str
    head: str
    is_dead: bool
    waiting: int
    age: float


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What there is in an outbox.

    Attributes:
        new: how many events wait for their deliveries to be made.
        oldest_new: the age of the oldest of these, in seconds; 0.0 if there is none.
        handlers: the handlers, by name.
        set_aside: the events that no handler was announced for.
        blocked: the keys that are held up, the longest first; at most 20.
        oldest_transaction: the age of the oldest transaction of the database, in seconds; 0.0 if
            unknown. As long as it goes on, PostgreSQL cannot remove what was deleted.
    """

    new: int
    oldest_new: float
    handlers: tuple[HandlerStatus, ...]
    set_aside: tuple[WaitingEvents, ...]
    blocked: tuple[BlockedKey, ...]
    oldest_transaction: float


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A delivery, without the values of its event.

    Attributes:
        id: its id.
        handler: the id of the handler.
        event: the name of the event.
        event_id: the id of the event.
        source: where the event comes from.
        state: "waiting", "running", "parked", "dead" or "done".
        attempts: how often the handler was called.
        deliveries: how often a worker has claimed it.
        error_type: the class of the last exception.
        error_group: that class and the place in the application where it was raised.
        error_age: how long ago that was, in seconds.
    """

    id: str
    handler: str
    event: str
    event_id: str
    source: str
    state: str
    attempts: int
    deliveries: int
    error_type: str | None
    error_group: str | None
    error_age: float


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead deliveries with the same exception, from the same place.

    Attributes:
        group: the class of the exception and the place.
        handler: the id of the handler.
        count: how many there are.
    """

    group: str
    handler: str
    count: int


class Inspection:
    """Looks into an outbox, and mends what is stuck. Made by `Outbox.inspect`."""

    def __init__(
        self,
        connect: Callable[[], Access],
        statements: Statements,
        tables: Tables,
        check: Callable[[Connection], None],
    ) -> None:
        self._connect = connect
        self._statements = statements
        self._tables = tables
        self._check = check

    def _transaction(self, step: Callable[[Connection], T]) -> T:
        """Call a function in a transaction; no connection is kept for the next one."""
        database = self._connect()
        try:
            return database.transaction(step)
        finally:
            database.close()

    # Looking

    def status(self) -> OutboxStatus:
        """Return what there is in the outbox.

        Raises:
            OutboxSchemaError: the tables are missing, or are older than this package.
        """
        return self._transaction(self._status)

    def dead(self, group: str | None = None) -> list[DeliveryRecord]:
        """Return the dead deliveries.

        Args:
            group: only those of this `error_group`; None for all.
        """
        delivery = self._tables.delivery.c
        of_group = () if group is None else (delivery.error_group == group,)
        return self._records(delivery.state == DEAD, *of_group)

    def dead_groups(self) -> list[DeadGroup]:
        """Return the dead deliveries by exception and place, the largest group first."""
        delivery, handler = self._tables.delivery.c, self._tables.handler.c
        count = func.count().label("count")
        query = (
            select(delivery.error_group, handler.name, count)
            .join_from(
                self._tables.delivery, self._tables.handler, handler.id == delivery.handler_id
            )
            .where(delivery.state == DEAD)
            .group_by(delivery.error_group, handler.name)
            .order_by(count.desc(), delivery.error_group)
        )
        rows = self._transaction(lambda connection: connection.execute(query).all())
        return [DeadGroup(*row) for row in rows]

    def show(self, id: str) -> DeliveryRecord:  # noqa: A002  # what it is called everywhere
        """Return one delivery.

        Args:
            id: its id, as in the log.

        Raises:
            NotInOutboxError: there is none.
        """
        seq, handler_id = _parts(id)
        delivery = self._tables.delivery.c
        found = self._records(delivery.event_seq == seq, delivery.handler_id == handler_id)
        if not found:
            raise _unknown_delivery(id)
        return found[0]

    def _records(self, *conditions: Any) -> list[DeliveryRecord]:
        delivery, handler, event = (
            self._tables.delivery.c,
            self._tables.handler.c,
            self._tables.event.c,
        )
        query = (
            select(
                delivery.event_seq,
                delivery.handler_id,
                handler.name,
                event.event,
                event.event_id,
                event.source,
                delivery.state,
                delivery.token,
                delivery.due,
                delivery.attempts,
                delivery.deliveries,
                delivery.error_type,
                delivery.error_group,
                delivery.error_at,
            )
            .join_from(
                self._tables.delivery, self._tables.handler, handler.id == delivery.handler_id
            )
            .join(self._tables.event, event.seq == delivery.event_seq)
            .where(*conditions)
            .order_by(delivery.event_seq, delivery.handler_id)
        )

        def read(connection: Connection) -> list[DeliveryRecord]:
            now = self._statements.now(connection)
            return [
                DeliveryRecord(
                    id=delivery_id(it.event_seq, it.handler_id),
                    handler=it.name,
                    event=it.event,
                    event_id=it.event_id,
                    source=it.source,
                    state=_state_shown(it, now),
                    attempts=it.attempts,
                    deliveries=it.deliveries,
                    error_type=it.error_type,
                    error_group=it.error_group,
                    error_age=_age(now, it.error_at),
                )
                for it in connection.execute(query)
            ]

        return self._transaction(read)

    def _status(self, connection: Connection) -> OutboxStatus:
        self._check(connection)
        now = self._statements.now(connection)
        event = self._tables.event.c
        new = connection.execute(
            select(func.count(), func.min(event.created)).where(event.expanded == NEW)
        ).one()
        aside = connection.execute(
            select(event.event, func.count(), func.min(event.created))
            .where(event.expanded == SET_ASIDE)
            .group_by(event.event)
            .order_by(event.event)
        )
        return OutboxStatus(
            new=new[0],
            oldest_new=_age(now, new[1] or 0),
            handlers=tuple(self._handlers(connection, now)),
            set_aside=tuple(WaitingEvents(it[0], it[1], _age(now, it[2])) for it in aside),
            blocked=tuple(self._blocked(connection, now)),
            oldest_transaction=self._statements.oldest_transaction(connection),
        )

    def _handlers(self, connection: Connection, now: int) -> Iterable[HandlerStatus]:
        delivery, handler = self._tables.delivery.c, self._tables.handler.c
        is_head = delivery.state == HEAD
        is_due = and_(is_head, delivery.due <= now)
        is_running = and_(is_head, delivery.due > now, delivery.token.is_not(None))
        query = (
            select(
                *handler.values(),
                _count(is_due).label("due"),
                _count(is_running).label("running"),
                _count(and_(is_head, delivery.due > now, delivery.token.is_(None))).label(
                    "delayed"
                ),
                _count(delivery.state == PARKED).label("parked"),
                _count(delivery.state == DEAD).label("dead"),
                _count(
                    and_(delivery.version > handler.version, delivery.state.in_((HEAD, PARKED)))
                ).label("unknown"),
                func.min(case((is_due, delivery.due))).label("oldest"),
            )
            .join_from(
                self._tables.handler,
                self._tables.delivery,
                handler.id == delivery.handler_id,
                isouter=True,
            )
            .group_by(*handler.values())
            .order_by(handler.name)
        )
        for it in connection.execute(query):
            yield HandlerStatus(
                name=it.name,
                event=it.event,
                due=it.due,
                delayed=it.delayed,
                running=it.running,
                parked=it.parked,
                dead=it.dead,
                unknown=it.unknown,
                oldest_due=_age(now, it.oldest or 0),
                seen=_age(now, it.seen),
                paused=bool(it.paused),
                retired=bool(it.retired),
            )

    def _blocked(self, connection: Connection, now: int) -> Iterable[BlockedKey]:
        delivery, handler = self._tables.delivery, self._tables.handler
        head, behind = delivery.alias("head"), delivery.alias("behind")
        waiting = (
            select(func.count())
            .where(
                behind.c.handler_id == head.c.handler_id,
                behind.c.key == head.c.key,
                behind.c.state == PARKED,
            )
            .scalar_subquery()
        )
        delayed = and_(head.c.state == HEAD, head.c.due > now, head.c.token.is_(None))
        query = (
            select(
                head.c.event_seq,
                head.c.handler_id,
                handler.c.name,
                head.c.state,
                head.c.error_at,
                waiting.label("waiting"),
            )
            .join_from(head, handler, handler.c.id == head.c.handler_id)
            .where(head.c.key.is_not(None), (head.c.state == DEAD) | delayed, waiting > 0)
            .order_by(head.c.error_at)
            .limit(_MOST_KEYS)
        )
        for it in connection.execute(query):
            yield BlockedKey(
                handler=it.name,
                head=delivery_id(it.event_seq, it.handler_id),
                is_dead=it.state == DEAD,
                waiting=it.waiting,
                age=_age(now, it.error_at),
            )

    # Mending

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
        deliveries = [_parts(it) for it in ids]

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
                        | and_(delivery.c.state == HEAD, delivery.c.token.is_(None)),
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
        deliveries = [_parts(it) for it in ids]
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
            select(event.c.seq, event.c.event, event.c.version).where(event.c.event_id == event_id)
        ).all()
        if not found:
            raise NotInOutboxError(
                f"no event with the id {printable(event_id)} is in the outbox: events are kept "
                "until they are handled; keep_done keeps them longer"
            )
        made = 0
        for it in found:
            handlers = select(handler.c.id).where(
                handler.c.event == it.event, handler.c.retired == 0
            )
            if name is not None:
                handlers = handlers.where(handler.c.id == self._handler_id(connection, name))
            for handler_id in connection.execute(handlers).scalars().all():
                made += self._statements.replay(connection, it.seq, handler_id, it.version)
            connection.execute(update(event).where(event.c.seq == it.seq).values(expanded=EXPANDED))
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
            near = close_matches(name, list(ids), 1)
            hint = f"did you mean '{near[0]}'?" if near else "start a worker that has it"
            raise NotInOutboxError(f"no durable handler '{printable(name)}' was announced: {hint}")
        return int(ids[name])

    def purge(self) -> int:
        """Remove deliveries that were handled, and their events, before their time.

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

        Its deliveries that are still open become dead when they are tried.

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


def _count(condition: Any) -> Any:
    return func.count(case((condition, 1)))


def _age(now: int, moment: int) -> float:
    return max(0.0, (now - moment) / 1_000_000) if moment else 0.0


def _state_shown(row: Any, now: int) -> str:
    if row.state == HEAD:
        return "running" if row.token is not None and row.due > now else "waiting"
    return {PARKED: "parked", DEAD: "dead", DONE: "done"}[row.state]


def _parts(id: str) -> tuple[int, int]:  # noqa: A002  # as above
    seq, dash, handler_id = id.partition("-")
    if not (dash and seq.isdecimal() and handler_id.isdecimal()):
        raise _unknown_delivery(id)
    return int(seq), int(handler_id)


def _unknown_delivery(id: str) -> NotInOutboxError:  # noqa: A002  # as above
    return NotInOutboxError(
        f"there is no delivery '{printable(id)}' in the outbox: give its id, such as '17-2', as it "
        "stands in the log and in dead()"
    )
