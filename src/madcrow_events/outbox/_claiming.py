"""Finding what is due, and leasing it."""

from __future__ import annotations

import secrets
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Final

from madcrow_events.outbox._calling import Run
from madcrow_events.outbox._rows import Watched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from madcrow_events.outbox._durable import DurableHandler
    from madcrow_events.outbox._rows import Look
    from madcrow_events.outbox._statements import Statements

__all__ = ["Claiming"]

_LONGEST_RUN: Final = 10
_FLOOR_FOR: Final = 1.0
"""For how many seconds looks and claims leave out what was due before the last claim."""
_LATE: Final = 1_000_000
"""By how many microseconds a delivery may be committed after it is due, and be seen at once."""


class Claiming:
    """Claims deliveries for some handlers, in turn.

    Args:
        statements: the statements for the tables.
        handlers: the handlers, by their ids in the tables.
        lease: for how many seconds a claim is good.
    """

    def __init__(
        self, statements: Statements, handlers: Mapping[int, DurableHandler], lease: float
    ) -> None:
        self._statements = statements
        self._handlers = handlers
        self._lease = lease
        self._turns = 0
        # Claims go by `due`, so nothing is due before the last claim, but for what was locked, or
        # committed late. Dead rows before it, which an old snapshot keeps, are not read again.
        self._floors: dict[int, int] = {}
        self._floors_until = 0.0
        self._old_names = {
            old: handler.signal.name
            for handler in handlers.values()
            for old in handler.signal.formerly
        }

    def look(self, connection: Connection) -> Look:
        """Return what there is to do."""
        if monotonic() >= self._floors_until:
            self._floors.clear()
        look = self._look(connection)
        if self._floors and all(moment > look.now for moment in look.due.values()):
            self._floors.clear()  # before it says that there is nothing
            look = self._look(connection)
        return look

    def _look(self, connection: Connection) -> Look:
        ready = [
            self._watched(id_)
            for id_, it in self._handlers.items()
            if it.is_ready is None or it.is_ready()
        ]
        return self._statements.look(connection, ready)

    def expand(self, connection: Connection, *, wait: bool = False) -> int:
        """Make the deliveries of new events; return how many events there were.

        Args:
            connection: the connection.
            wait: whether to wait for another worker that does so now.
        """
        return self._statements.expand(
            connection, lambda name: self._old_names.get(name, name), wait=wait
        )

    def claim(
        self,
        connection: Connection,
        look: Look,
        *,
        room: int,
        running: Counter[int],
        ahead: int = 0,
    ) -> list[Run]:
        """Lease due deliveries.

        Args:
            connection: the connection.
            look: what there was to do a moment ago.
            room: how many runs to claim at most.
            running: how many runs each handler has now.
            ahead: how many microseconds the clock is put ahead.
        """
        self._turns += 1
        # Not by the clock of this moment, which may have jumped since.
        until = look.now + ahead
        ids = sorted(id_ for id_, moment in look.due.items() if moment <= until)
        turn = self._turns % len(ids) if ids else 0
        runs: list[Run] = []
        for id_ in ids[turn:] + ids[:turn]:
            handler = self._handlers[id_]
            limit = room - len(runs)
            if handler.concurrency is not None:
                limit = min(limit, handler.concurrency - running[id_])
            if limit > 0:
                if handler.carry is not None:
                    limit *= _LONGEST_RUN  # one thread carries them all
                claimed = self._claim_of(connection, id_, handler, limit, until)
                self._raise_floor(id_, look.now, claimed)
                runs += claimed
        return runs

    def _raise_floor(self, id_: int, now: int, claimed: list[Run]) -> None:
        if not claimed:
            return
        if not self._floors:
            self._floors_until = monotonic() + _FLOOR_FOR
        self._floors[id_] = min(now, max(it.rows[0].due for it in claimed)) - _LATE

    def _claim_of(
        self, connection: Connection, id_: int, handler: DurableHandler, limit: int, until: int
    ) -> list[Run]:
        token, started = secrets.randbits(62), monotonic()
        # One transaction, or one thread, is for one delivery.
        is_single = handler.session is not None or (handler.timeout and not handler.is_async)
        claimed = self._statements.claim(
            connection,
            self._watched(id_),
            token=token,
            limit=limit,
            run=1 if is_single else _LONGEST_RUN,
            lease=int(self._lease * 1_000_000),
            until=until,
        )
        runs: dict[int, Run] = {}
        for it in claimed:
            if it.head not in runs:
                runs[it.head] = Run(handler, id_, token, [], started + self._lease)
            runs[it.head].rows.append(it)
        return list(runs.values())

    def _watched(self, id_: int) -> Watched:
        return Watched(id_, self._handlers[id_].version, self._floors.get(id_, 0))
