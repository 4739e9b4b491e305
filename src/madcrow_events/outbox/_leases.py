"""Keeping the leases of what runs, from a thread and with a connection of their own."""

from __future__ import annotations

import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING

from madcrow_events._logs import log
from madcrow_events._text import type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from madcrow_events.outbox._calling import Run
    from madcrow_events.outbox._database import Database
    from madcrow_events.outbox._statements import Statements

__all__ = ["Leases"]


class Leases:
    """Renews leases three times in their duration, whatever the handlers do.

    Args:
        connect: makes the access to the database.
        statements: the statements for the tables.
        lease: the duration of a lease, in seconds.
    """

    def __init__(
        self, connect: Callable[[], Database], statements: Statements, lease: float
    ) -> None:
        self._connect = connect
        self._statements = statements
        self._lease = lease
        self._runs: set[Run] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._keep, name="madcrow-outbox-leases", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        self._stopping.set()
        self._thread.join(self._lease)

    def hold(self, runs: Iterable[Run]) -> None:
        """Renew the leases of some runs from now on."""
        with self._lock:
            self._runs.update(runs)

    def release(self, runs: Iterable[Run]) -> None:
        """Renew the leases of some runs no longer."""
        with self._lock:
            self._runs.difference_update(runs)

    def _keep(self) -> None:
        database = self._connect()
        try:
            self._renew_in_time(database)
        finally:
            database.close()

    def _renew_in_time(self, database: Database) -> None:
        wait = self._lease / 3
        while not self._stopping.wait(wait):
            wait = self._lease / 3 if self._renew(database) else min(1.0, self._lease / 10)

    def _renew(self, database: Database) -> bool:
        with self._lock:
            runs = list(self._runs)
        if not runs:
            return True
        started = monotonic()
        tokens = sorted({it.token for it in runs})
        try:
            database.transaction(
                lambda connection: self._statements.renew(
                    connection, tokens, int(self._lease * 1_000_000)
                )
            )
        except Exception as error:  # the database may come back before the leases end
            log(
                logging.WARNING,
                "the leases of %d runs were not renewed: %s",
                len(runs),
                type_name(type(error)),
            )
            return False
        for run in runs:
            run.valid_until = started + self._lease
        return True
