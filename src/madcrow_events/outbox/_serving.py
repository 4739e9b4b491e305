"""What workers, drains and inspections need of an outbox."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json
from sqlalchemy import Connection, Dialect, MetaData, inspect

from madcrow_events._text import type_name
from madcrow_events._transactions import is_autocommit
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox._calling import Caller
from madcrow_events.outbox._companions import Companion
from madcrow_events.outbox._database import is_async_engine, synchronous_engine
from madcrow_events.outbox._dialects import statements_for
from madcrow_events.outbox._durable import DurableHandler
from madcrow_events.outbox._errors import MalformedPayloadError
from madcrow_events.outbox._keeping import Keeping
from madcrow_events.outbox._payload import load
from madcrow_events.outbox._statements import Statements
from madcrow_events.outbox._sweeping import Sweeping
from madcrow_events.outbox._tables import Tables
from madcrow_events.outbox._versions import Upcasts, version_of
from madcrow_events.outbox._writing import schema_error
from madcrow_events.signals import SignalRegistry

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.models import BaseEventContext
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._worker import Worker
    from madcrow_events.signals import EventSignal

__all__ = ["Serving"]


class Serving:
    """The part of `Outbox` that serves workers, drains and inspections."""

    metadata: MetaData
    _companions: list[Companion]
    signals: SignalRegistry
    tables: Tables
    _decode: Callable[[str], str] | None
    _handlers: dict[str, DurableHandler]
    _keeping: Keeping
    _statements: dict[tuple[type[Dialect], str], Statements]
    _upcasts: Upcasts
    _workers: set[Any]  # workers, which know outboxes

    @property
    def _dispatcher(self) -> EventDispatcher:
        return self.signals.dispatcher

    def _statements_on(self, connection: Connection) -> Statements:
        return self._statements_of(connection.dialect)

    def _statements_for(self, engine: Any) -> Statements:
        return self._statements_of(synchronous_engine(engine).dialect)

    def _statements_of(self, dialect: Dialect) -> Statements:
        key = type(dialect), dialect.paramstyle
        known = self._statements.get(key)
        if known is None:
            known = self._statements[key] = statements_for(self.tables, dialect)
        return known

    def _check_schema(self, database: Access) -> None:
        database.transaction(self._check_tables)

    def _check_tables(self, connection: Connection) -> None:
        found = inspect(connection)
        for table in self.metadata.sorted_tables:
            if not found.has_table(table.name, table.schema):
                raise schema_error(f"the table {table.fullname} is missing")
            there = {it["name"] for it in found.get_columns(table.name, table.schema)}
            missing = [it.name for it in table.columns if it.name not in there]
            if missing:
                raise schema_error(f"the table {table.fullname} has no {', '.join(missing)}")

    def _check_sessions(self, engine: Any, pattern: str | None) -> None:
        """Refuse an engine that can make no session for a handler that takes one."""
        is_async = is_async_engine(engine)
        # In PostgreSQL, sessions of handlers have an isolation level of their own.
        is_unsafe = engine.dialect.name == "sqlite" and is_autocommit(synchronous_engine(engine))
        for it in self._handlers.values():
            is_chosen = pattern is None or fnmatchcase(it.name, pattern)
            if is_chosen and it.session is not None and is_unsafe:
                raise InvalidOptionError(
                    f"{it.name} takes a session, but the isolation level of the engine is "
                    "AUTOCOMMIT, so nothing could be rolled back: choose another isolation level",
                    option="engine",
                )
            if is_chosen and it.session is not None and it.session.is_async is not is_async:
                needed = "an Engine" if is_async else "an AsyncEngine"
                other = "AsyncSession" if is_async else "Session"
                raise InvalidOptionError(
                    f"{it.name} takes {type_name(it.session.class_)}, which needs {needed}: call "
                    "it by another worker that has one, with handlers= for both, or let the "
                    f"handler take {other}",
                    option="engine",
                )

    def _announce(self, database: Access) -> dict[int, DurableHandler]:
        """Write down the handlers, and return them by their ids in the tables."""
        for companion in self._companions:
            companion._prepare()
        self._upcasts.check(self._version_of)
        announced = [it.announced() for it in self._handlers.values()]

        def announce(connection: Connection) -> dict[str, int]:
            return self._statements_on(connection).announce(connection, announced)

        ids = database.transaction(announce)
        return {id_: self._handlers[name] for name, id_ in ids.items()}

    def _version_of(self, event: str) -> int:
        return version_of(event, self.signals[event].context_model)

    def _caller(
        self, statements: Statements, engine: Any, loop: AbstractEventLoop | None
    ) -> Caller:
        return Caller(
            self._dispatcher,
            statements,
            engine,
            self,
            self._read,
            loop,
            keep=self._keeping.done > 0,
        )

    def _sweeping(self, statements: Statements) -> Sweeping:
        return Sweeping(statements, self._keeping)

    def _read(self, signal: EventSignal[Any], version: int, stored: str) -> BaseEventContext:
        return self._context_of(signal, version, self._decoded(stored))

    def _context_of(self, signal: EventSignal[Any], version: int, payload: str) -> BaseEventContext:
        """Return the context of an event of some version, from its JSON."""
        try:
            document: object = from_json(payload)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise MalformedPayloadError(
                f"what is stored of {signal.name} is no JSON object: discard the delivery",
                event=signal.name,
            )
        known = version_of(signal.name, signal.context_model)
        if version != known:
            document = self._upcasts.raise_version(signal.name, version, known, document)
            payload = json.dumps(document)
        return load(signal.name, signal.context_model, payload)

    def _decoded(self, stored: str) -> str:
        # Nothing is stored of what was redacted, and `decode` may raise anything at it.
        return stored if self._decode is None or not stored else self._decode(stored)

    @contextmanager
    def _waking(self, worker: Worker) -> Iterator[None]:
        """Wake a worker when this process commits events."""
        self._workers.add(worker)
        try:
            yield
        finally:
            self._workers.discard(worker)

    @contextmanager
    def _accompanied(self, worker: Worker) -> Iterator[None]:
        """Let the companions of the outbox work as long as a worker does."""
        with ExitStack() as stack:
            self._enter_companions(stack, worker)
            yield

    def _enter_companions(self, stack: ExitStack, worker: Worker) -> None:
        for companion in self._companions:
            stack.enter_context(companion._working(worker.engine, worker.wake))

    def _is_idle(self) -> bool:
        """Whether no companion of the outbox takes anything in just now."""
        return all(companion._is_idle() for companion in self._companions)

    def _wake(self) -> None:
        for worker in tuple(self._workers):  # others may start or end meanwhile
            worker.wake()
