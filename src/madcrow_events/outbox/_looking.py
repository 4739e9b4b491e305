"""Looking into an outbox."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, and_, case, func, select

from madcrow_events._text import printable
from madcrow_events.outbox._errors import NotInOutboxError
from madcrow_events.outbox._records import (
    BlockedKey,
    DeadGroup,
    DeliveryRecord,
    HandlerStatus,
    OutboxStatus,
    WaitingEvents,
)
from madcrow_events.outbox._reporting import delivery_id
from madcrow_events.outbox._tables import DEAD, DONE, HEAD, NEW, PARKED, SET_ASIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._statements import Statements
    from madcrow_events.outbox._tables import Tables

__all__ = ["Looking", "delivery_of", "unknown_delivery"]

T = TypeVar("T")

_MOST_KEYS = 20
"""How many blocked keys `status` names."""


class Looking:
    """The part of `Inspection` that reads.

    Args:
        connect: makes the access to the database.
        statements: the statements for the tables.
        tables: the tables.
        check: raises an error if the tables are missing or old.
    """

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
        seq, handler_id = delivery_of(id)
        delivery = self._tables.delivery.c
        found = self._records(delivery.event_seq == seq, delivery.handler_id == handler_id)
        if not found:
            raise unknown_delivery(id)
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


def _count(condition: Any) -> Any:
    return func.count(case((condition, 1)))


def _age(now: int, moment: int) -> float:
    return max(0.0, (now - moment) / 1_000_000) if moment else 0.0


def _state_shown(row: Any, now: int) -> str:
    if row.state == HEAD:
        return "running" if row.token is not None and row.due > now else "waiting"
    return {PARKED: "parked", DEAD: "dead", DONE: "done"}[row.state]


def delivery_of(id: str) -> tuple[int, int]:  # noqa: A002  # as above
    """Return the event and the handler of a delivery, by its id.

    Raises:
        NotInOutboxError: it is no id of a delivery.
    """
    given: object = id
    # No more digits than the databases have numbers for.
    found = re.fullmatch("([0-9]{1,18})-([0-9]{1,9})", given) if isinstance(given, str) else None
    if found is None:
        raise unknown_delivery(id)
    return int(found[1]), int(found[2])


def unknown_delivery(id: str) -> NotInOutboxError:  # noqa: A002  # as above
    """Return the error for an id that no delivery has."""
    return NotInOutboxError(
        f"there is no delivery '{printable(id)}' in the outbox: give its id, such as '17-2', as it "
        "stands in the log and in dead()"
    )
