"""Events of FastAPI endpoints that wait for the commit of their session; needs PostgreSQL.

The session comes from the usual dependency, which commits when the endpoint has returned. Each
handler reads the rows by a connection of its own. The same is told on SQLite, without a server,
where the endpoints are plain ones, too.

The environment variable `POSTGRES_DSN` says where the server is, as in `test_pools.py`. The test
makes a schema of its own in the database, and removes it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from madcrow_events import Emission, EventDispatcher, SignalRegistry

fastapi = pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")
asyncpg = pytest.importorskip("asyncpg")

from fastapi import BackgroundTasks, Depends, FastAPI  # noqa: E402
from sqlalchemy import create_engine, text  # noqa: E402
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from madcrow_events.contrib.sqlalchemy import after_commit  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.guarantee("B4")]

POSTGRES = os.environ.get("POSTGRES_DSN", "postgresql://postgres@127.0.0.1:5432/test")
LIMIT = 60.0  # seconds for what takes less than one on a quiet machine

INSERT = text("INSERT INTO orders VALUES (:number)")
SELECT = text("SELECT number FROM orders ORDER BY number")

NewEngine = Callable[[], AsyncEngine]


@asynccontextmanager
async def postgres(_path: Path) -> AsyncIterator[NewEngine]:
    """Yield a function that makes engines of a schema of its own."""
    try:
        outside = await asyncpg.connect(POSTGRES, timeout=5)
    except OSError as error:
        pytest.skip(f"needs PostgreSQL, and POSTGRES_DSN finds none: {error}")
    name = f"madcrow_events_{uuid4().hex}"
    await outside.execute(f'CREATE SCHEMA "{name}"')
    address = POSTGRES.replace("postgresql://", "postgresql+asyncpg://")
    try:
        yield lambda: create_async_engine(
            address, connect_args={"server_settings": {"search_path": name}}
        )
    finally:
        await outside.execute(f'DROP SCHEMA "{name}" CASCADE')
        await outside.close()


@asynccontextmanager
async def sqlite(path: Path) -> AsyncIterator[NewEngine]:
    """Yield a function that makes engines of one file."""
    yield lambda: create_async_engine(f"sqlite+aiosqlite:///{path}")


class Handlers:
    """The handlers of a shop, which look for the rows of their orders."""

    def __init__(self, dispatcher: EventDispatcher, new_engine: NewEngine) -> None:
        self.dispatcher = dispatcher
        self.new_engine = new_engine
        self.emissions: list[Emission[Any]] = []
        self.found: list[tuple[str, int, bool]] = []  # whether the row was there
        self.order_placed = dispatcher.signals.signal("order_placed")
        self.order_placed.subscribe(self.inline)
        self.order_placed.subscribe(self.background, background=True)
        self.order_placed.subscribe(self.asynchronous)

    def emit(self, session: Any, number: int) -> None:
        with after_commit(session, self.dispatcher):
            self.emissions.append(self.dispatcher.emit(self.order_placed, number=number))

    async def numbers(self) -> list[int]:
        engine = self.new_engine()
        async with AsyncSession(engine) as session:
            found = [*(await session.scalars(SELECT))]
        await engine.dispose()
        return found

    def look(self, handler: str, number: int) -> None:
        with ThreadPoolExecutor() as threads:  # each with a loop of its own
            numbers = threads.submit(asyncio.run, self.numbers()).result(LIMIT)
        self.found.append((handler, number, number in numbers))

    def inline(self, number: int) -> None:
        self.look("inline", number)

    def background(self, number: int) -> None:
        self.look("background", number)

    async def asynchronous(self, number: int) -> None:
        self.found.append(("async", number, number in await self.numbers()))


def new_app(handlers: Handlers, engine: AsyncEngine, depends: Any) -> FastAPI:
    """Return an application with async endpoints."""

    async def new_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session
            await session.commit()

    app = FastAPI()
    session_of_request = depends(new_session)

    async def place(session: AsyncSession, number: int) -> None:
        await session.execute(INSERT, {"number": number})
        handlers.emit(session, number)

    @app.post("/orders/{number}")
    async def place_order(
        number: int, fail: bool = False, session: AsyncSession = session_of_request
    ) -> None:
        await place(session, number)
        if fail:
            raise LookupError

    @app.post("/savepoint/{number}")
    async def place_two(number: int, session: AsyncSession = session_of_request) -> None:
        await place(session, number)
        with pytest.raises(LookupError):
            async with session.begin_nested():
                await place(session, number + 1)
                raise LookupError

    @app.post("/later/{number}")
    async def place_later(number: int, tasks: BackgroundTasks) -> None:
        async def work() -> None:
            async with AsyncSession(engine) as session, session.begin():
                await place(session, number)

        tasks.add_task(work)

    return app


def new_plain_app(handlers: Handlers, path: Path, depends: Any) -> FastAPI:
    """Return an application with plain endpoints, which FastAPI calls in threads."""
    engine = create_engine(f"sqlite:///{path}")

    def new_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session
            session.commit()

    app = FastAPI()
    session_of_request = depends(new_session)

    def place(session: Session, number: int) -> None:
        session.execute(INSERT, {"number": number})
        handlers.emit(session, number)

    @app.post("/orders/{number}")
    def place_order(number: int, fail: bool = False, session: Session = session_of_request) -> None:
        place(session, number)
        if fail:
            raise LookupError

    @app.post("/savepoint/{number}")
    def place_two(number: int, session: Session = session_of_request) -> None:
        place(session, number)
        with pytest.raises(LookupError), session.begin_nested():
            place(session, number + 1)
            raise LookupError

    @app.post("/later/{number}")
    def place_later(number: int, tasks: BackgroundTasks) -> None:
        def work() -> None:
            with Session(engine) as session, session.begin():
                place(session, number)

        tasks.add_task(work)

    return app


@pytest.fixture
def dispatcher(signals: SignalRegistry) -> EventDispatcher:
    """Return one that is not closed, for that would hang where the test has failed."""
    return EventDispatcher(signals)


@pytest.mark.parametrize("scope", ["function", "request"])
@pytest.mark.parametrize(
    ("database", "is_plain"),
    [(postgres, False), (sqlite, False), (sqlite, True)],
    ids=["postgres", "sqlite", "sqlite-plain"],
)
async def test_the_handlers_of_an_endpoint_see_the_rows_of_its_session(
    dispatcher: EventDispatcher, tmp_path: Path, database: Any, is_plain: bool, scope: str
) -> None:
    """In a block around each request, too, as that of a middleware; before or after the answer."""

    def depends(new_session: Any) -> Any:
        return Depends(new_session, scope=scope)

    async with database(tmp_path / "shop.db") as new_engine:
        engine = new_engine()
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE orders (number INTEGER PRIMARY KEY)"))
        handlers = Handlers(dispatcher, new_engine)
        app = (
            new_plain_app(handlers, tmp_path / "shop.db", depends)
            if is_plain
            else new_app(handlers, engine, depends)
        )

        async def with_a_block(*request: Any) -> None:
            with dispatcher.deferred():
                await app(*request)

        transport = httpx.ASGITransport(with_a_block, raise_app_exceptions=False)
        with dispatcher.bind_loop():
            async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as shop:
                calls = ["orders/1", "orders/2?fail=1", "savepoint/3", "later/5", "orders/6"]
                answers = [await shop.post(f"/{call}") for call in calls]
            for emission in handlers.emissions:
                if emission.state != "dropped":
                    assert await emission.wait_async(LIMIT)
        committed = await handlers.numbers()
        await engine.dispose()

    assert [answer.status_code for answer in answers] == [200, 500, 200, 200, 200]
    assert committed == [1, 3, 5, 6]
    assert sorted(handlers.found) == [
        (handler, number, True)
        for handler in ("async", "background", "inline")
        for number in committed
    ]
    states = {emission.context["number"]: emission.state for emission in handlers.emissions}
    assert states == dict.fromkeys(committed, "done") | {2: "dropped", 4: "dropped"}
    assert [failure for emission in handlers.emissions for failure in emission.failures] == []
