"""Events in a FastAPI application: the file to copy.

`init_events(app)` once, then `events: Events` wherever something is emitted. What is emitted
while a request is handled goes out when it has succeeded, and knows from whom it came.
"""

from __future__ import annotations  # or the inner function evaluates its own for each request

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from madcrow_events import (
    EventDispatcher,
    event_scope,
    get_event_dispatcher,
    load_plugins,
    request_fields,
)
from madcrow_events.emissions import ScopeFields
from madcrow_events.event_handlers import register_all_handlers

__all__ = ["Events", "init_events"]

# Seconds at shut-down for what is pending: while the application's resources are still open, and
# after they were closed. Together they are less than the patience of whoever sent the SIGTERM.
DRAIN_BEFORE, DRAIN_AFTER = 2.0, 0.5

_FAILURE = 500  # a status that is no success of the application
_DISPATCHER = "madcrow_events.dispatcher"  # its place in the scope of a request
_LOGGER = logging.getLogger(__name__)


def init_events(
    app: FastAPI, *, plugins: bool = False, trusted_proxies: Sequence[str] = ()
) -> None:
    """Give an application its events; its lifespan and its middleware stay as they are.

    Call it before the application starts, and after your own `add_middleware` lines: what stands
    further out is no part of a request.

    Args:
        app: the application; the dispatcher becomes its `state.event_dispatcher`.
        plugins: whether to load the plugins that are installed; what is refused is logged.
        trusted_proxies: addresses or networks of proxies whose X-Forwarded-For is believed.

    Raises:
        RuntimeError: the application has its events already, or has been started.
    """
    if hasattr(app.state, "event_dispatcher"):
        raise RuntimeError("init_events was called for this application before: call it once")
    dispatcher = get_event_dispatcher()
    register_all_handlers(dispatcher.signals)
    if plugins:
        load_plugins(signals=dispatcher.signals)
    app.add_middleware(EventsMiddleware, dispatcher=dispatcher, version=app.version)
    if trusted_proxies:
        # Only who is behind a proxy needs it; added last, it stands in front of the other.
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=[*trusted_proxies])
    app.state.event_dispatcher = dispatcher


async def _dispatcher_of(connection: HTTPConnection) -> EventDispatcher:
    # Not of the application's state, for it may be one that is mounted in another.
    dispatcher: EventDispatcher | None = connection.scope.get(_DISPATCHER)
    if dispatcher is None:
        raise RuntimeError("the application has no events: call init_events(app)")
    return dispatcher


Events = Annotated[EventDispatcher, Depends(_dispatcher_of)]
"""The parameter of an endpoint that emits: `async def sign_up(events: Events)`."""


class EventsMiddleware:
    """Opens a scope for each request and each websocket, and holds a request's events back."""

    def __init__(self, app: ASGIApp, dispatcher: EventDispatcher, version: str) -> None:
        self.app = app
        self.dispatcher = dispatcher
        self.version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, one websocket, or the lifespan of the application."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif _DISPATCHER in scope:  # that of the application in which this one is mounted
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            scope[_DISPATCHER] = self.dispatcher
            with event_scope(**_who_asks(scope)):
                await self.app(scope, receive, send)
        else:
            scope[_DISPATCHER] = self.dispatcher
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = _FAILURE  # who answers nothing has failed

        async def send_after_events(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            # Who has the whole answer can count on the events; a stream has many parts.
            elif deferral.pending and status < _FAILURE and not message.get("more_body"):
                await deferral.flush_async()
            try:
                await send(message)
            except OSError:  # the client has left, which is no failure
                if status < _FAILURE:
                    await deferral.flush_async()
                raise

        # An exception drops what is still held back.
        with self.dispatcher.deferred(lambda: _who_asks(scope)) as deferral:
            await self.app(scope, receive, send_after_events)
            if status >= _FAILURE:
                deferral.discard()
            elif deferral.pending:
                await deferral.flush_async()  # what background tasks have emitted

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()

        async def receive_after_events() -> Message:
            message = await receive()
            # The application does not see it yet: what its handlers use is still open.
            if message["type"] == "lifespan.shutdown":
                uptime = time.monotonic() - started
                async with _at_most(DRAIN_BEFORE):
                    await self.dispatcher.emit_async(
                        "system_shutdown", uptime=uptime, reason="the server stops"
                    )
                    await self.dispatcher.drain_async()
            return message

        async def send_after_events(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self.dispatcher.emit_async(
                    "system_startup", version=self.version, process_id=os.getpid()
                )
            elif message["type"] == "lifespan.shutdown.complete":
                async with _at_most(DRAIN_AFTER):
                    await self.dispatcher.drain_async()
            await send(message)

        # For async handlers of what is emitted in a thread: the application's loop is this one.
        with self.dispatcher.bind_loop():
            await self.app(scope, receive_after_events, send_after_events)


def _who_asks(scope: Scope) -> ScopeFields:
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    client = scope.get("client")  # a Unix socket has none
    return request_fields(
        request_id=headers.get(b"x-request-id"),
        ip_address=client[0] if client else None,
        user_agent=headers.get(b"user-agent"),
    )


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        _LOGGER.warning(
            "handlers of events are still pending after %s s of the shut-down, and may be lost: "
            "make them quicker, or raise DRAIN_BEFORE and DRAIN_AFTER",
            seconds,
        )
    except Exception:  # whoever comes next has something to close
        _LOGGER.exception("the end of the application could not be told to all handlers")
