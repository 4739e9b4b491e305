"""Background handlers that use the pools of their applications; needs PostgreSQL.

Two FastAPI applications share an event loop and a dispatcher. One has a pool of asyncpg, the other
one of aiosqlite, and both have an `asyncio.Lock`. These belong to the loop in which they are first
used: in another loop they fail as soon as somebody has to wait for them.

The environment variable `POSTGRES_DSN` says where the server is:
`postgresql://postgres@127.0.0.1:5432/test` unless given. The test makes a schema of its own in the
database, and removes it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from madcrow_events import Batch, Emission, EventDispatcher, SignalRegistry

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
asyncpg = pytest.importorskip("asyncpg")
aiosqlite = pytest.importorskip("aiosqlite")

pytestmark = [pytest.mark.once, pytest.mark.guarantee("B1", "B3")]

POSTGRES = os.environ.get("POSTGRES_DSN", "postgresql://postgres@127.0.0.1:5432/test")
REQUESTS = 1_000  # to each application
AT_ONCE = 50  # requests to each
POOL_SIZE = 3  # connections
LIMIT = 240.0  # seconds for what takes ten on a quiet machine

Row = tuple[str, int]  # who wrote it, and for which order


class Postgres:
    """A pool of asyncpg, in a schema of its own."""

    def __init__(self, pool: Any, name: str) -> None:
        self.pool = pool
        self.name = name

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Postgres]:
        name = f"madcrow_events_{uuid4().hex}"
        settings = {"application_name": name, "search_path": name}
        async with AsyncExitStack() as stack:
            # Not of the pool, so that the schema is removed even if the pool is broken.
            outside = await asyncpg.connect(POSTGRES, server_settings={"lock_timeout": "10s"})
            stack.push_async_callback(outside.close)
            await outside.execute(f'CREATE SCHEMA "{name}"')
            stack.push_async_callback(outside.execute, f'DROP SCHEMA "{name}" CASCADE')
            pool = await asyncpg.create_pool(
                POSTGRES, min_size=POOL_SIZE, max_size=POOL_SIZE, server_settings=settings
            )
            stack.push_async_callback(lambda: asyncio.wait_for(pool.close(), 10))
            await pool.execute("CREATE TABLE rows (writer text, number integer)")
            await pool.execute("CREATE TABLE totals AS SELECT 0 AS total")
            yield cls(pool, name)

    async def write(self, rows: list[Row]) -> None:
        async with self.pool.acquire() as connection, connection.transaction():
            await connection.executemany("INSERT INTO rows VALUES ($1, $2)", rows)

    async def add_to_total(self) -> None:
        """Add 1 in two statements, between which nobody else may come."""
        async with self.pool.acquire() as connection, connection.transaction():
            total = await connection.fetchval("SELECT total FROM totals")
            await connection.execute("UPDATE totals SET total = $1", total + 1)

    async def read(self) -> tuple[list[Row], int]:
        rows = await self.pool.fetch("SELECT writer, number FROM rows")
        return [tuple(row) for row in rows], await self.pool.fetchval("SELECT total FROM totals")

    async def check_connections(self) -> None:
        assert self.pool.get_idle_size() == self.pool.get_size() == POOL_SIZE
        async with AsyncExitStack() as stack:
            for _ in range(POOL_SIZE):
                connection = await stack.enter_async_context(self.pool.acquire(timeout=LIMIT))
                assert await connection.fetchval("SELECT 1") == 1
                assert not connection.is_in_transaction()
            states = await connection.fetch(
                "SELECT state FROM pg_stat_activity WHERE application_name = $1", self.name
            )
        assert sorted(row["state"] for row in states) == ["active", "idle", "idle"]


class Sqlite:
    """A pool of aiosqlite: connections in a queue, one of which at a time may write."""

    def __init__(self, connections: list[Any]) -> None:
        self.connections = connections
        self.idle: asyncio.Queue[Any] = asyncio.Queue()
        self.writing = asyncio.Lock()
        for connection in connections:
            self.idle.put_nowait(connection)

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Sqlite]:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(aiosqlite.connect(path)) for _ in range(POOL_SIZE)
            ]
            for connection in connections:
                await connection.execute("PRAGMA synchronous = OFF")  # it is gone with the test
            await connections[0].execute("CREATE TABLE rows (writer text, number integer)")
            await connections[0].execute("CREATE TABLE totals AS SELECT 0 AS total")
            await connections[0].commit()
            yield cls(connections)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        connection = await self.idle.get()
        try:
            yield connection
        finally:
            self.idle.put_nowait(connection)

    async def write(self, rows: list[Row]) -> None:
        async with self.acquire() as connection, self.writing:
            await connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
            await connection.commit()

    async def add_to_total(self) -> None:
        async with self.acquire() as connection, self.writing:
            ((total,),) = await connection.execute_fetchall("SELECT total FROM totals")
            await connection.execute("UPDATE totals SET total = ?", (total + 1,))
            await connection.commit()

    async def read(self) -> tuple[list[Row], int]:
        async with self.acquire() as connection:
            rows = await connection.execute_fetchall("SELECT writer, number FROM rows")
            ((total,),) = await connection.execute_fetchall("SELECT total FROM totals")
        return list(rows), total

    async def check_connections(self) -> None:
        assert self.idle.qsize() == POOL_SIZE
        for connection in self.connections:
            assert await connection.execute_fetchall("SELECT 1") == [(1,)]
            assert not connection.in_transaction


class Shop:
    """An application whose requests write rows, as its handlers do."""

    def __init__(
        self,
        dispatcher: EventDispatcher,
        name: str,
        open_database: Callable[[], AbstractAsyncContextManager[Postgres | Sqlite]],
    ) -> None:
        self.dispatcher = dispatcher
        self.open_database = open_database
        self.emissions: list[Emission[Any]] = []
        self.app = fastapi.FastAPI(lifespan=self.live)
        self.app.post("/async/{number}")(self.place_async)
        self.app.post("/plain/{number}")(self.place_plain)
        self.order_placed = dispatcher.signals.signal(f"{name}.order_placed")
        self.order_placed.subscribe(self.confirm, background=True)
        self.order_placed.subscribe(self.count, background=True)
        self.order_placed.subscribe(self.export, batch=Batch(20, max_wait=0.05))

    @asynccontextmanager
    async def live(self, _app: Any) -> AsyncIterator[None]:
        async with self.open_database() as self.database:
            self.counting = asyncio.Lock()
            with self.dispatcher.bind_loop():
                yield

    async def place_async(self, number: int) -> str:
        await self.database.write([("request", number)])
        emission = await self.dispatcher.emit_async(self.order_placed, number=number)
        self.emissions.append(emission)
        return "placed"

    def place_plain(self, number: int) -> str:
        """Emit where no loop runs, for FastAPI calls this in a thread."""
        self.emissions.append(self.dispatcher.emit(self.order_placed, number=number))
        return "placed"

    async def confirm(self, number: int) -> None:
        await self.database.write([("handler", number)])

    async def count(self) -> None:
        async with self.counting:
            await self.database.add_to_total()

    async def export(self, batch: list[Any]) -> None:
        await self.database.write([("batch", context["number"]) for context in batch])

    async def place_orders(self) -> set[int]:
        """Place all orders, every second one by the plain endpoint; return the statuses."""
        at_once = asyncio.Semaphore(AT_ONCE)
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)

        async def place(number: int) -> int:
            async with at_once:
                answer = await client.post(f"/{'plain' if number % 2 else 'async'}/{number}")
                return int(answer.status_code)

        async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
            return set(await asyncio.gather(*map(place, range(REQUESTS))))


@pytest.fixture
async def _postgres() -> None:
    """Skip the test where there is no server; `.ci/run` has one, and lets no test be skipped."""
    try:
        connection = await asyncpg.connect(POSTGRES, timeout=5)
    except OSError as error:
        pytest.skip(f"needs PostgreSQL, and POSTGRES_DSN finds none: {error}")
    await connection.close()


@pytest.fixture
def dispatcher(signals: SignalRegistry) -> EventDispatcher:
    """Return one that is not closed, for that would hang where the test has failed."""
    return EventDispatcher(signals)


@pytest.mark.usefixtures("_postgres")
async def test_background_handlers_use_the_pools_of_their_applications(
    dispatcher: EventDispatcher, tmp_path: Path
) -> None:
    """All is written, and written once; no connection is left in a wrong state."""
    shops = [
        Shop(dispatcher, "postgres", Postgres.open),
        Shop(dispatcher, "sqlite", lambda: Sqlite.open(tmp_path / "shop.db")),
    ]
    async with AsyncExitStack() as stack:
        for shop in shops:
            await stack.enter_async_context(shop.app.router.lifespan_context(shop.app))
        placing = asyncio.gather(*(shop.place_orders() for shop in shops))
        done, _ = await asyncio.wait([placing], timeout=LIMIT)
        is_idle = await dispatcher.drain_async(LIMIT)
        emissions = [emission for shop in shops for emission in shop.emissions]
        failures = [failure.exception for emission in emissions for failure in emission.failures]
        assert failures == []
        assert is_idle
        assert done
        assert placing.result() == [{200}, {200}]
        assert len(emissions) == 2 * REQUESTS
        everyone = [(writer, n) for writer in ("batch", "handler") for n in range(REQUESTS)]
        everyone += [("request", n) for n in range(0, REQUESTS, 2)]
        for shop in shops:
            rows, total = await shop.database.read()
            assert sorted(rows) == everyone
            assert total == REQUESTS
            await shop.database.check_connections()
