"""Handling what is due: as a process, in a thread, or beside an event loop."""

from __future__ import annotations

import logging
import threading
from asyncio import get_running_loop, to_thread
from contextlib import contextmanager
from fnmatch import fnmatchcase
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy import Engine  # noqa: TC002  # annotations are read at run time

from madcrow_events._logs import log
from madcrow_events._transactions import AsyncEngine
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox._database import Database
from madcrow_events.outbox._ending import stopped_by_signals
from madcrow_events.outbox._listening import Listener, check_driver
from madcrow_events.outbox._outbox import Outbox
from madcrow_events.outbox._reporting import error_shown
from madcrow_events.outbox._shift import Shift

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator, Mapping

    from madcrow_events.outbox._durable import DurableHandler

__all__ = ["Worker"]


class Worker:
    """Calls the durable handlers of an outbox, until it is stopped.

    Any number of workers, in any number of processes, may share the work.

    Args:
        outbox: the outbox.
        engine: the engine of its database, an `Engine` or `AsyncEngine`. The worker has connections
            of its own to it; the sessions of handlers are made with the engine itself.
        concurrency: how many handlers run at the same time.
        lease: for how many seconds a delivery belongs to this worker. The lease is renewed as long
            as the handler runs; if the process dies, others take over when it has ended.
        poll: how many seconds pass between two looks into the database. What this process commits
            is seen at once.
        batch: how many deliveries, or runs of deliveries of one key, are claimed at once.
        handlers: a pattern such as `"mail*"` for the ids of the handlers to call; None for all.

    Attributes:
        outbox: the outbox. The other arguments are attributes, too, by their names.

    Raises:
        InvalidOptionError: a value is impossible.
        OutboxError: the database is neither PostgreSQL nor SQLite, or is in memory.
    """

    def __init__(
        self,
        outbox: Outbox,
        engine: Engine | AsyncEngine,
        *,
        concurrency: int = 4,
        lease: float = 30.0,
        poll: float = 0.5,
        batch: int = 16,
        handlers: str | None = None,
    ) -> None:
        for option, value in (("concurrency", concurrency), ("batch", batch)):
            if type(value) is not int or value < 1:
                raise InvalidOptionError(f"{option} must be a positive int", option=option)
        for option, seconds in (("lease", lease), ("poll", poll)):
            given: object = seconds
            is_number = isinstance(given, int | float) and not isinstance(given, bool)
            if not is_number or not 0 < seconds <= threading.TIMEOUT_MAX:
                raise InvalidOptionError(
                    f"{option} must be a number of seconds above 0, such as 2.5", option=option
                )
        _check(outbox, handlers)
        self.outbox = outbox
        self.engine = engine
        self.concurrency = concurrency
        self.lease = lease
        self.poll = poll
        self.batch = batch
        self.handlers = handlers
        self._statements = outbox._statements_for(engine)
        self._channel = outbox._channel if engine.dialect.name == "postgresql" else None
        if self._channel is not None:
            check_driver(engine)
        Database(engine).close()  # refuses one in memory
        self.wakes: SimpleQueue[None] = SimpleQueue()
        self.stops: int = 0
        self._loop: AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._working = threading.Lock()
        self._has_worked = False
        self._started: SimpleQueue[BaseException | None] = SimpleQueue()

    # What users call

    def run(self, *, once: bool = False) -> None:
        """Work in this thread until `stop` is called, or a signal comes.

        In the main thread, SIGTERM and SIGINT stop it: the worker claims nothing more, and returns
        when the handlers that run have ended. A second signal gives up their leases.

        Args:
            once: whether to return as soon as nothing is due.

        Raises:
            InvalidOptionError: a handler takes a session that needs another kind of engine.
            OutboxSchemaError: the tables are missing, or are older than this package.
            RuntimeError: this worker works already.
        """
        with self._alone(), stopped_by_signals(self.stop):
            if self._has_worked:
                self.stops = 0  # they were for the last time
            self._work(once=once)

    def stop(self) -> None:
        """Claim nothing more, and end when the handlers that run have ended.

        If it is called once more, the worker ends at once, and other workers call these handlers
        again.
        """
        self.stops += 1
        self.wakes.put(None)

    def _is_idle(self) -> bool:
        """Whether nothing comes in from other services just now."""
        return self.outbox._is_idle()

    def wake(self) -> None:
        """Look into the database now."""
        self.wakes.put(None)

    def __enter__(self) -> Self:
        """Work in a thread, until the end of the `with`."""
        self._start(None)
        with self._stopped_by_interrupts():
            error = self._started.get()
        self._raise_start(error)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self._join()

    async def __aenter__(self) -> Self:
        """Work in a thread, and call async handlers in this event loop."""
        self._start(get_running_loop())
        with self._stopped_by_interrupts():
            error = await to_thread(self._started.get)
        self._raise_start(error)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        await to_thread(self._join)

    # The thread

    def _start(self, loop: AbstractEventLoop | None) -> None:
        if self._thread is not None or self._working.locked():
            raise RuntimeError(_WORKS_ALREADY)
        self._loop, self.stops, self._started = loop, 0, SimpleQueue()
        self._thread = threading.Thread(
            target=self._work_in_thread, name="madcrow-outbox-worker", daemon=True
        )
        self._thread.start()

    def _work_in_thread(self) -> None:
        try:
            with self._alone():
                self._work(once=False)
        except BaseException as error:  # for the thread that has started this one, if it waits
            self._started.put(error)
            log(logging.ERROR, "the outbox worker has ended: %s", error_shown(error))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse to work twice at the same time: what wakes the one would not wake the other."""
        if not self._working.acquire(blocking=False):
            raise RuntimeError(_WORKS_ALREADY)
        try:
            yield
        finally:
            self._has_worked = True
            self._working.release()

    @contextmanager
    def _stopped_by_interrupts(self) -> Iterator[None]:
        """End the thread if the wait for its start is broken off, for no `with` will end it."""
        try:
            yield
        except BaseException:
            self.stop()
            self._thread = None
            raise

    def _raise_start(self, error: BaseException | None) -> None:
        if error is not None:
            self._join()
            raise error

    def _join(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:  # pragma: no branch  # it is joined once
            thread.join()

    # The work

    def _chosen(self, handlers: Mapping[int, DurableHandler]) -> dict[int, DurableHandler]:
        pattern = "*" if self.handlers is None else self.handlers
        return {id_: it for id_, it in handlers.items() if fnmatchcase(it.name, pattern)}

    def _work(self, *, once: bool) -> None:
        database = Database(self.engine)
        try:
            self.outbox._check_sessions(self.engine, self.handlers)
            self.outbox._check_schema(database)
            chosen = self._chosen(self.outbox._announce(database))
            caller = self.outbox._caller(self._statements, self.engine, self._loop)
            shift = Shift(
                self,
                database,
                self._statements,
                chosen,
                caller,
                self.outbox._sweeping(self._statements),
            )
            if chosen:
                names = ", ".join(sorted(it.name for it in chosen.values()))
                log(logging.INFO, "the outbox worker handles %s", names)
            else:
                log(
                    logging.WARNING,
                    "the outbox worker handles nothing: no handler has an id like '%s'",
                    self.handlers or "*",
                )
            with self.outbox._waking(self), self._listening(), self.outbox._accompanied(self):
                self._started.put(None)
                shift.work(once=once)
        finally:
            database.close()

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Hear of commits in other processes, if the outbox asks for it."""
        if self._channel is None:
            yield
            return
        listener = Listener(self.engine, self._channel, self.wake)
        listener.start()
        try:
            yield
        finally:
            listener.stop()


_WORKS_ALREADY = "this worker works already: make another one"


def _check(outbox: object, handlers: object) -> None:
    if not isinstance(outbox, Outbox):
        raise InvalidOptionError(
            "outbox must be an Outbox: write Worker(outbox, engine)", option="outbox"
        )
    if handlers is not None and not isinstance(handlers, str):
        raise InvalidOptionError(
            "handlers must be a pattern for the ids of handlers, such as 'mail*', or None",
            option="handlers",
        )
