"""Databases in files of SQLite, and the sessions and connections to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from madcrow_events import EventDispatcher, EventSignal

if TYPE_CHECKING:  # where there is no SQLAlchemy, the tests are skipped
    from support.transactions import Box, Unit

TABLES = (
    "CREATE TABLE notes (number INTEGER PRIMARY KEY)",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY)",
    "CREATE TABLE parcels (order_id INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)",
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    from sqlalchemy import create_engine, text

    path = tmp_path / "shop.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(table))
    engine.dispose()
    return path


@pytest.fixture
def engine(database: Path) -> Iterator[Any]:
    """Return an engine with one connection, which its users hand on as they leave it."""
    from sqlalchemy import QueuePool, create_engine

    from support.transactions import with_real_transactions

    engine = create_engine(
        f"sqlite:///{database}", poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=1
    )
    yield with_real_transactions(engine)
    engine.dispose()


@pytest.fixture(
    params=[
        "Session",
        "scoped_session",
        "Connection",
        "AsyncSession",
        "async_scoped_session",
        "AsyncConnection",
    ]
)
async def unit(request: pytest.FixtureRequest, database: Path, engine: Any) -> AsyncIterator[Unit]:
    """Return each kind of session and connection, the async ones, too."""
    from sqlalchemy import AsyncAdaptedQueuePool
    from sqlalchemy.ext.asyncio import create_async_engine

    from support.transactions import KINDS, Unit, done, with_real_transactions

    is_async = request.param.lower().startswith("async")
    if is_async:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{database}",
            poolclass=AsyncAdaptedQueuePool,
            pool_size=1,
            max_overflow=0,
        )
        with_real_transactions(engine.sync_engine)
    it = KINDS[request.param](engine)
    if request.param == "AsyncConnection":
        await it.start()
    yield Unit(it)
    await done(it.close())
    if is_async:
        await engine.dispose()


class Reader:
    """Reads what has been committed, by a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, table: str = "notes") -> list[int]:
        from sqlalchemy import create_engine

        engine = create_engine(f"sqlite:///{self.path}")
        with engine.connect() as connection:
            found = [*connection.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1").scalars()]  # noqa: S608  # a name of ours
        engine.dispose()
        return found


@pytest.fixture
def committed(database: Path) -> Reader:
    return Reader(database)


@pytest.fixture
def box(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Box:
    from support.transactions import Box

    return Box(dispatcher, signal)


@pytest.fixture
def two_phases(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let SQLite's dialect pretend to have two phases; return the names of those that ended."""
    dialect = engine.dialect
    ended: list[str] = []
    methods = {
        "begin": lambda connection, _xid: connection.exec_driver_sql("BEGIN"),
        "prepare": lambda _connection, _xid: ended.append("prepare"),
        "commit": lambda connection, *_: dialect.do_commit(connection.connection),
        "rollback": lambda connection, *_, **__: dialect.do_rollback(connection.connection),
    }
    for name, method in methods.items():
        monkeypatch.setattr(dialect, f"do_{name}_twophase", method, raising=False)
    return ended
