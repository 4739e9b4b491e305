"""The database as a worker reaches it, with connections of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import SingletonThreadPool, StaticPool

from madcrow_events._transactions import AsyncEngine
from madcrow_events.outbox._errors import OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Access",
    "Database",
    "SharedDatabase",
    "access_for_claims",
    "access_to",
    "is_async_engine",
    "is_in_memory",
    "synchronous_engine",
]

T = TypeVar("T")


def is_async_engine(engine: Any) -> bool:
    """Whether an engine is an `AsyncEngine`."""
    return isinstance(engine, AsyncEngine)


def synchronous_engine(engine: Any) -> Engine:
    """Return an engine, or the one behind an async engine.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(engine, AsyncEngine):
        return engine.sync_engine
    if isinstance(engine, Engine):
        return engine
    raise TypeError(
        f"the outbox needs an Engine or an AsyncEngine, not {type(engine).__name__}: pass what "
        "create_engine or create_async_engine returned"
    )


def is_in_memory(engine: Engine) -> bool:
    """Whether a database is in the memory of one connection."""
    return isinstance(engine.pool, StaticPool | SingletonThreadPool)


class Access(Protocol):
    """Transactions on one database."""

    def transaction(self, step: Callable[[Connection], T]) -> T:
        """Call a function in a transaction, which is committed if it returns."""
        ...

    def close(self) -> None:
        """Close the connections that are its own."""
        ...


class SharedDatabase:
    """Transactions by the connections of an engine, for one in memory.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def transaction(self, step: Callable[[Connection], T]) -> T:
        """Call a function in a transaction, which is committed if it returns."""
        with self._engine.begin() as connection:
            return step(connection)

    def close(self) -> None:
        """Leave the connections open, which are not its own."""


def access_to(engine: Any) -> Access:
    """Return the access to a database, by connections of its own where there can be some."""
    if isinstance(engine, Engine) and is_in_memory(engine):
        return SharedDatabase(engine)
    return Database(engine)


class Database:
    """Transactions on one database, for the use of one thread.

    An async engine is used in an event loop of this object's own.

    Args:
        engine: the engine of the application, which is left alone: the connections are others.
        is_lasting: whether a commit of SQLite waits until a power failure cannot undo it. See
            `Statements.relax`.

    Raises:
        OutboxError: the database is in the memory of one connection.

    Attributes:
        engine: the engine of these connections.
        async_engine: the same as an async engine, if the application's is one; else None.
    """

    def __init__(self, engine: Any, *, is_lasting: bool = True) -> None:
        given = synchronous_engine(engine)
        if is_in_memory(given):
            raise OutboxError(
                "a worker needs connections of its own, and a database in memory belongs to one "
                "connection: use a file, as in create_engine('sqlite:///events.db')"
            )
        pool = given.pool.recreate()
        own = Engine(pool, given.dialect, given.url, hide_parameters=True)
        if given.dialect.name == "postgresql":
            own = own.execution_options(isolation_level="READ COMMITTED")
            # Compiling takes longer than the statements, which touch few rows.
            event.listen(pool, "connect", _without_jit)
        else:
            event.listen(own, "begin", _begin)
            if not is_lasting:
                event.listen(pool, "connect", _without_syncing)
        self.engine = own
        self.async_engine = AsyncEngine(own) if is_async_engine(engine) else None
        self._runner: asyncio.Runner | None = None

    def transaction(self, step: Callable[[Connection], T]) -> T:
        """Call a function in a transaction, which is committed if it returns.

        Raises:
            RuntimeError: the engine is async, and an event loop runs in this thread.
        """
        if self.async_engine is None:
            with self.engine.begin() as connection:
                return step(connection)
        _refuse_running_loop()
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._transaction(step))

    async def _transaction(self, step: Callable[[Connection], T]) -> T:
        assert self.async_engine is not None  # noqa: S101  # asked above
        async with self.async_engine.begin() as connection:
            return await connection.run_sync(step)

    def close(self) -> None:
        """Close the connections."""
        if self.async_engine is None:
            self.engine.dispose()
        elif self._runner is not None:
            try:
                self._runner.run(self.async_engine.dispose())
            finally:
                self._runner.close()
                self._runner = None


def access_for_claims(database: Database, engine: Any) -> Database:
    """Return the access for transactions that are relaxed.

    SQLite relaxes whole connections. PostgreSQL, which may be short of these, does transactions.
    """
    if database.engine.dialect.name == "sqlite":
        return Database(engine, is_lasting=False)
    return database


def _refuse_running_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "an event loop runs here, and would be held up: use a thread, as in "
        "await asyncio.to_thread(inspection.status)"
    )


def _begin(connection: Connection) -> None:
    """Begin a transaction of SQLite, as a listener of the application's engine may do there."""
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        cursor = connection.connection.cursor()  # which takes a third of what `execute` takes
        cursor.execute("BEGIN")
        cursor.close()


def _without_jit(connection: Any, _record: object) -> None:
    _execute(connection, "SET jit = off")


def _without_syncing(connection: Any, _record: object) -> None:
    # Without a write-ahead log, it might damage the file.
    if _execute(connection, "PRAGMA journal_mode") == "wal":
        lasting = int(_execute(connection, "PRAGMA synchronous"))
        _execute(connection, f"PRAGMA synchronous = {min(lasting, _NORMAL)}")


_NORMAL: Final = 1
"""What SQLite calls it if the log is synced at checkpoints only."""


def _execute(connection: Any, statement: str) -> Any:
    """Execute a statement on a connection of the driver; return the value that it returns."""
    cursor = connection.cursor()
    cursor.execute(statement)
    row = cursor.fetchone() if cursor.description else None
    cursor.close()
    connection.commit()
    return row[0] if row else None
