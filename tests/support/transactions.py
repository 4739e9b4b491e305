"""Sessions and connections of SQLAlchemy, and a participant of their transactions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import Column, Connection, Integer, MetaData, Table, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from madcrow_events import Emission, EventDispatcher, EventSignal
from madcrow_events._transactions import Refusal, in_transaction, synchronous, watcher_of
from support.inside import keeping_frames


def with_real_transactions(engine: Any) -> Any:
    """Let SQLAlchemy begin the transactions, for Python's sqlite3 does not before a savepoint."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


async def done(result: Any) -> Any:
    """Await what a method has returned, if it is one of an async session or connection."""
    return await result if inspect.isawaitable(result) else result


class Unit:
    """A session or connection; its methods are awaited, whichever it is."""

    def __init__(self, it: Any) -> None:
        self.it = it

    async def insert(self, number: int) -> None:
        await done(self.it.execute(text("INSERT INTO orders VALUES (:n)"), {"n": number}))

    async def insert_parcel(self, number: int) -> None:
        await done(self.it.execute(text("INSERT INTO parcels VALUES (:n)"), {"n": number}))

    async def commit(self) -> None:
        await done(self.it.commit())

    async def rollback(self) -> None:
        await done(self.it.rollback())

    async def close(self) -> None:
        await done(self.it.close())

    async def invalidate(self) -> None:
        """Do so; a `scoped_session` has no such method of its own."""
        it = self.it
        await done((it if hasattr(it, "invalidate") else it()).invalidate())

    @asynccontextmanager
    async def block(self, name: str) -> AsyncIterator[Any]:
        """Enter `begin()` or `begin_nested()`."""
        block = getattr(self.it, name)()
        async with AsyncExitStack() as stack:
            if hasattr(block, "__aenter__"):
                yield await stack.enter_async_context(block)
            else:
                yield stack.enter_context(block)


KINDS: dict[str, Callable[[Any], Any]] = {
    "Session": Session,
    "scoped_session": lambda engine: scoped_session(sessionmaker(engine)),
    "Connection": lambda engine: engine.connect(),
    "AsyncSession": AsyncSession,
    "async_scoped_session": lambda engine: async_scoped_session(
        async_sessionmaker(engine), scopefunc=asyncio.current_task
    ),
    "AsyncConnection": lambda engine: engine.connect(),
}


NOTES = Table("notes", MetaData(), Column("number", Integer, primary_key=True))


class RefusedError(Exception):
    """Raised where there is no transaction; its argument says why."""


class Rows:
    """A participant that writes numbers, and notes in a log what becomes of them."""

    clause: Any = NOTES

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.taken: list[int] = []
        self.written: list[int] = []
        self.before_write: Callable[[], object] = int  # does nothing

    def mark(self) -> int:
        return len(self.taken)

    def discard(self, keep: int) -> None:
        gone = self.taken[keep:]
        del self.taken[keep:]
        self.written = [it for it in self.written if it not in gone]

    def write(self, connection: Connection) -> None:
        self.before_write()
        rows = [it for it in self.taken if it not in self.written]
        if rows:
            insert = NOTES.insert()
            connection.execute(insert, [{"number": it} for it in rows])
            self.written += rows
            self.log.append(("written", rows))

    def end(self, *, is_committed: bool) -> None:
        self.log.append("committed" if is_committed else "rolled back")

    def refuse(self, refusal: Refusal, given: object) -> Exception:
        return refuse(refusal, given)


def refuse(refusal: Refusal, given: object) -> Exception:
    return RefusedError(refusal, type(given))


class Box:
    """Writes a number with each event that it emits, as an outbox does."""

    def __init__(self, dispatcher: EventDispatcher, signal: EventSignal[Any]) -> None:
        self.dispatcher = dispatcher
        self.signal = signal
        self.log: list[Any] = []
        """What happened, in its order: numbers stand for handled events."""
        self.rows: dict[Any, Rows] = {}
        signal.subscribe(lambda number: self.log.append(number))

    def emit(self, given: Any, number: int) -> Emission[Any]:
        given = getattr(given, "it", given)
        watched = synchronous(given, refuse)
        if not in_transaction(watched):
            raise RefusedError("no transaction")
        watcher = watcher_of(watched)
        transaction = watched.get_transaction()
        rows = self.rows.get(transaction)
        if rows is None:
            rows = self.rows[transaction] = Rows(self.log)
        rows.taken.append(number)
        watcher.join(watched, rows)
        frame = watcher.holder_for(self.dispatcher).frame_of_part()
        return keeping_frames.run_in_frame(
            frame, partial(self.dispatcher.emit, self.signal, number=number)
        )
