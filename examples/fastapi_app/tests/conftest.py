"""What the tests share: a registry of their own for each, and applications called over ASGI."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from madcrow_events import Emission, madcrow_signals, on_event

PEER = "192.0.2.1"


@pytest.fixture(autouse=True)
def isolated() -> Iterator[None]:
    # Not `empty`, for the events of the accounts are declared only once, when they are imported.
    with madcrow_signals.isolated():
        yield


@pytest.fixture
def heard() -> list[Emission]:
    """Return a list to which a handler adds what it is called with: what went out."""
    madcrow_signals.signal("order_placed")
    emissions: list[Emission] = []

    @on_event("order_placed")
    def hear(emission: Emission) -> None:
        emissions.append(emission)

    return emissions


@pytest.fixture
def client_of() -> Callable[[FastAPI], httpx.AsyncClient]:
    """Return what makes a client of an application, without a server between them."""

    def make(app: FastAPI) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(PEER, 50000))
        return httpx.AsyncClient(transport=transport, base_url="http://shop.test")

    return make


class Connection:
    """One call of an application: messages to it and from it, as a server exchanges them."""

    def __init__(self) -> None:
        self.to_app: asyncio.Queue[Any] = asyncio.Queue()
        self.from_app: asyncio.Queue[Any] = asyncio.Queue()

    async def say(self, kind: str, **fields: Any) -> None:
        await self.to_app.put({"type": kind, **fields})

    async def hear(self) -> Any:
        async with asyncio.timeout(5):
            return await self.from_app.get()


@pytest.fixture
def connect() -> Callable[..., Any]:
    """Return what calls an application with a scope, and cancels the call in the end."""

    @asynccontextmanager
    async def call(
        app: Callable[..., Awaitable[None]], kind: str = "http", path: str = "/"
    ) -> AsyncIterator[Connection]:
        connection = Connection()
        scope = {
            "type": kind,
            "asgi": {"version": "3.0"},
            "path": path,
            "query_string": b"",
            "headers": [(b"user-agent", b"test")],
            "client": (PEER, 50000),
            "state": {},
        }
        if kind == "http":
            scope["method"] = "GET"
            await connection.say("http.request", body=b"", more_body=False)
        task = asyncio.ensure_future(app(scope, connection.to_app.get, connection.from_app.put))
        try:
            yield connection
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return call
