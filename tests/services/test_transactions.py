"""Rows that are written just before the COMMIT; needs PostgreSQL, in which an error spoils more.

The drivers are psycopg, plain and async, and asyncpg. The same is told on SQLite, without a
server, in `tests/unit/transactions`.

The environment variable `POSTGRES_DSN` says where the server is, as in `test_pools.py`. The test
makes a schema of its own in the database, and removes it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from madcrow_events import EventDispatcher, EventSignal

pytest.importorskip("sqlalchemy")
pytest.importorskip("greenlet")
asyncpg = pytest.importorskip("asyncpg")
pytest.importorskip("psycopg")

from sqlalchemy import create_engine, event, text  # noqa: E402
from sqlalchemy.exc import InvalidRequestError, ProgrammingError  # noqa: E402
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from support.transactions import Box, Unit, done  # noqa: E402

pytestmark = pytest.mark.once

POSTGRES = os.environ.get("POSTGRES_DSN", "postgresql://postgres@127.0.0.1:5432/test")


class Database:
    """A schema of its own, read by a connection that belongs to no engine."""

    def __init__(self, outside: Any, name: str) -> None:
        self.outside = outside
        self.name = name

    async def rows(self, table: str = "notes") -> list[int]:
        found = await self.outside.fetch(f'SELECT * FROM "{self.name}".{table} ORDER BY 1')  # noqa: S608  # names of ours
        return [row[0] for row in found]

    async def open_transactions(self) -> int:
        return int(
            await self.outside.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE application_name = $1 AND state LIKE 'idle in transaction%'",
                self.name,
            )
        )


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    try:
        outside = await asyncpg.connect(POSTGRES, timeout=5)
    except OSError as error:
        pytest.skip(f"needs PostgreSQL, and POSTGRES_DSN finds none: {error}")
    name = f"madcrow_events_{uuid4().hex}"
    await outside.execute(f'CREATE SCHEMA "{name}"')
    try:
        await outside.execute(
            f'SET search_path TO "{name}"; CREATE TABLE notes (number INTEGER PRIMARY KEY); '
            "CREATE TABLE orders (id INTEGER PRIMARY KEY)"
        )
        yield Database(outside, name)
    finally:
        await outside.execute(f'SET lock_timeout TO 10000; DROP SCHEMA "{name}" CASCADE')
        await outside.close()


def new_engine(database: Database, driver: str) -> Any:
    """Return an engine with a pool of one connection."""
    address = POSTGRES.replace("postgresql://", f"postgresql+{driver.removesuffix(' async')}://")
    settings = {"search_path": database.name, "application_name": database.name}
    is_async = driver != "psycopg"
    return (create_async_engine if is_async else create_engine)(
        address,
        pool_size=1,
        max_overflow=0,
        connect_args={"server_settings": settings}
        if driver == "asyncpg"
        else {"options": " ".join(f"-c {name}={value}" for name, value in settings.items())},
    )


@pytest.fixture(params=["psycopg", "psycopg async", "asyncpg"])
async def engine(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Any]:
    engine = new_engine(database, request.param)
    yield engine
    await done(engine.dispose())


@pytest.fixture(params=["session", "connection"])
async def unit(request: pytest.FixtureRequest, engine: Any) -> AsyncIterator[Unit]:
    is_async = hasattr(engine, "sync_engine")
    if request.param == "connection":
        it = engine.connect()
        if is_async:
            await it.start()
    else:
        it = AsyncSession(engine) if is_async else Session(engine)
    yield Unit(it)
    await done(it.close())


@pytest.fixture
def box(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Box:
    return Box(dispatcher, signal)


async def test_rows_are_written_with_the_commit_and_events_go_out_after_it(
    unit: Unit, box: Box, database: Database
) -> None:
    for number in (1, 2):
        await done(unit.it.begin())
        await unit.insert(number)
        box.emit(unit, number)
        box.emit(unit, 10 * number)
        assert await database.rows() == ([] if number == 1 else [1, 10])
        await unit.commit()
        assert box.log[-4:] == [
            ("written", [number, 10 * number]),
            "committed",
            number,
            10 * number,
        ]
    assert await database.rows() == [1, 2, 10, 20]
    await done(unit.it.begin())
    await unit.insert(3)
    emission = box.emit(unit, 3)
    await unit.rollback()
    assert (await database.rows("orders"), emission.state) == ([1, 2], "dropped")


async def test_savepoints_take_their_rows_along(unit: Unit, box: Box, database: Database) -> None:
    async with unit.block("begin"):
        await unit.insert(1)
        box.emit(unit, 1)
        async with unit.block("begin_nested"):
            box.emit(unit, 2)
            async with unit.block("begin_nested") as savepoint:
                await unit.insert(3)
                box.emit(unit, 3)
                async with unit.block("begin_nested"):
                    await unit.insert(4)
                    box.emit(unit, 4)
                await done(savepoint.rollback())
            box.emit(unit, 5)
    assert await database.rows() == [1, 2, 5]
    assert await database.rows("orders") == [1]
    assert [it for it in box.log if isinstance(it, int)] == [1, 2, 5]


@pytest.mark.parametrize("is_refused_by_the_server", [True, False])
async def test_a_write_that_raises_leaves_no_transaction_open(
    unit: Unit, box: Box, database: Database, is_refused_by_the_server: bool
) -> None:
    def fail() -> None:
        raise LookupError

    await done(unit.it.begin())
    await unit.insert(1)
    emission = box.emit(unit, 1)
    if is_refused_by_the_server:
        await database.outside.execute("ALTER TABLE notes RENAME TO others")
    else:
        (rows,) = box.rows.values()
        rows.before_write = fail
    with pytest.raises(ProgrammingError if is_refused_by_the_server else LookupError):
        await unit.commit()
    await unit.close()
    assert await database.open_transactions() == 0
    assert await database.rows("orders") == []
    assert (emission.state, box.log) == ("dropped", ["rolled back"])


@pytest.mark.parametrize("unit", ["session"], indirect=True)
async def test_a_late_row_that_the_server_refuses_makes_the_commit_fail(
    unit: Unit, box: Box, database: Database
) -> None:
    """Though the emitter swallows the error; the server would answer COMMIT with a rollback."""

    def emit(session: Session) -> None:
        session.execute(text("ALTER TABLE notes RENAME TO others"))
        with pytest.raises(ProgrammingError):
            box.emit(session, 2)

    sync = getattr(unit.it, "sync_session", unit.it)
    await unit.insert(1)
    emission = box.emit(unit, 1)
    event.listen(sync, "before_commit", emit)
    with pytest.raises(InvalidRequestError, match="inactive"):
        await unit.commit()
    await unit.close()
    assert (await database.rows(), await database.rows("orders")) == ([], [])
    assert (emission.state, box.log[-1]) == ("dropped", "rolled back")
