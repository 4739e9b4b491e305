"""Events of web applications on ASGI, such as those of FastAPI, Starlette, Quart and Litestar."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from madcrow_events._logs import log
from madcrow_events._waiters import check_seconds
from madcrow_events.dispatcher import EventDispatcher, get_event_dispatcher
from madcrow_events.emissions import Emission, ScopeFields, event_scope, request_fields
from madcrow_events.emissions._frames import await_in_frame
from madcrow_events.emissions._holding import DeferralFrame
from madcrow_events.observers import SlowHandlers

__all__ = ["DISPATCHER", "EventsMiddleware"]

DISPATCHER = "madcrow_events.dispatcher"
"""The key of the dispatcher in the scope of a request or websocket."""

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
# Any, because frameworks have types of their own for these, which do not fit each other.
ASGIApp: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]

_SERVER_ERROR = 500
_BODY = frozenset({"http.response.body", "http.response.pathsend", "http.response.zerocopysend"})
_SECONDS_AFTER = 0.5  # for what is emitted while the application closes its resources
_SLOW = 0.1  # seconds, as for asyncio's own warnings


class EventsMiddleware:
    """Connects the events of an [ASGI](https://asgi.readthedocs.io) application to its requests.

    - Each request, stream and websocket has an `event_scope`: its events carry the request id, the
      address and the user agent.
    - Events of a request are held back. What is emitted before the head of the response goes out
      just before the head, if its status is below 500. What is emitted later goes out just before
      the end of the body, and what background tasks emit goes out when they have ended. What breaks
      the response off drops the events that are held back then. A client that leaves is no failure.
    - Events of a websocket go out at once.
    - The dispatcher is bound to the event loop of the server. It emits `system_startup` and
      `system_shutdown`, if its registry has these events. At the end it waits for pending handlers.

    An application that is mounted in another one is a part of the request of the outer one.

    If this middleware stands at several places, the innermost decides what goes out. Starlette's
    `BaseHTTPMiddleware` hides from all that is around it that a stream has broken.

    Args:
        app: the application.
        dispatcher: the dispatcher; None is the default dispatcher.
        version: the version of the application, for `system_startup`.
        drain_timeout: how long the server waits for pending handlers at its end, in seconds, before
            the application closes its resources; and half a second after that. None for no limit.
        debug: whether to log a warning for each plain handler that keeps the event loop busy for
            longer than 0.1 seconds; None asks whether asyncio is in
            [debug mode](https://docs.python.org/3/library/asyncio-dev.html#debug-mode).

    Raises:
        InvalidOptionError: `drain_timeout` is no positive number.

    Example:
        ```python
        from madcrow_events.contrib.asgi import EventsMiddleware


        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})


        app = EventsMiddleware(app)
        ```
    """

    def __init__(
        self,
        app: ASGIApp,
        dispatcher: EventDispatcher | None = None,
        *,
        version: str | None = None,
        drain_timeout: float | None = 2.0,
        debug: bool | None = None,
    ) -> None:
        check_seconds("drain_timeout", drain_timeout)
        self.app: ASGIApp = app
        self._dispatcher = dispatcher
        self._version = version
        self._drain_timeout = drain_timeout
        self._debug = debug

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle a request, a websocket, or the life of the application.

        Args:
            scope: what the server says of the connection.
            receive: returns the next message from the server.
            send: takes a message to the server.
        """
        dispatcher = self._dispatcher or get_event_dispatcher()
        outer = scope.get(DISPATCHER)
        if scope["type"] != "http":
            await self._pass_on(dispatcher, scope, receive, send)
            return
        scope[DISPATCHER] = dispatcher
        block = DeferralFrame(dispatcher, partial(_fields, scope) if outer is None else None)
        block.open()
        response = _Response(block, receive, send)
        try:
            await await_in_frame(block, self.app, scope, response.receive, response.send)
            if block.held_back and response.is_good and (response.is_whole or response.is_left):
                await block.flush_async()
        except BaseException as error:
            if block.held_back and response.is_good and response.is_excused(error):
                block.flush()
            raise
        finally:
            scope[DISPATCHER] = outer  # somebody may call another application with it
            if block.held_back:
                block.discard()
            block.end(None)

    async def _pass_on(
        self, dispatcher: EventDispatcher, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Handle everything but a request."""
        kind = scope["type"]
        if kind == "lifespan" and scope.get(DISPATCHER) is not dispatcher:
            scope[DISPATCHER] = dispatcher
            await self._live(dispatcher, scope, receive, send)
        elif kind == "websocket":
            outer = scope.get(DISPATCHER)
            scope[DISPATCHER] = dispatcher
            try:
                with event_scope(**_fields(scope)) if outer is None else nullcontext():
                    await self.app(scope, receive, send)
            finally:
                scope[DISPATCHER] = outer
        else:
            await self.app(scope, receive, send)

    async def _live(
        self, dispatcher: EventDispatcher, scope: Scope, receive: Receive, send: Send
    ) -> None:
        started = time.monotonic()
        is_drained = True

        async def receive_after_events() -> Message:
            nonlocal is_drained
            message = await receive()
            # The application does not see it yet: what its handlers use is still open.
            if message["type"] == "lifespan.shutdown":
                is_drained = await _end(dispatcher, started, self._drain_timeout)
            return message

        async def send_after_events(message: Message) -> None:
            kind = message["type"]
            if kind == "lifespan.startup.complete" and "system_startup" in dispatcher.signals:
                await dispatcher.emit_async(
                    "system_startup", version=self._version, process_id=os.getpid()
                )
            elif kind == "lifespan.shutdown.complete" and is_drained:
                await _drain_again(dispatcher)
            await send(message)

        # For async handlers of what is emitted in a thread: the application's loop is this one.
        with dispatcher.bind_loop(), self._watching(dispatcher):
            await self.app(scope, receive_after_events, send_after_events)

    @contextmanager
    def _watching(self, dispatcher: EventDispatcher) -> Iterator[None]:
        debug = self._debug
        if debug is None:
            debug = asyncio.get_running_loop().get_debug()
        if not debug:
            yield
            return
        observer = _SlowOnTheLoop(_SLOW)
        dispatcher.add_observer(observer)
        try:
            yield
        finally:
            dispatcher.remove_observer(observer)


class _Response:
    """The response to one request, on its way to the server.

    Attributes:
        is_good: whether its head has gone out, with the status of no failure.
        is_left: whether the client has left before its end.
        is_whole: whether it has all been made.
    """

    __slots__ = ("_block", "_gone", "_receive", "_send", "is_good", "is_left", "is_whole")

    def __init__(self, block: DeferralFrame, receive: Receive, send: Send) -> None:
        self._block = block
        self._receive = receive
        self._send = send
        self._gone: OSError | None = None
        self.is_good = self.is_left = self.is_whole = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.is_whole:
            await self._leave()
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.is_good = message["status"] < _SERVER_ERROR
        elif kind in _BODY and not message.get("more_body"):
            self.is_whole = True
        # Before the message, so that a client that has the response can count on the events.
        if (
            self._block.held_back
            and self.is_good
            and (kind == "http.response.start" or self.is_whole)
        ):
            await self._block.flush_async()
        try:
            await self._send(message)
        except OSError as error:
            self._gone = error
            await self._leave()
            raise

    async def _leave(self) -> None:
        """Let out what was emitted until the client left."""
        self.is_left = True
        if self.is_good and self._block.held_back:
            await self._block.flush_async()

    def is_excused(self, error: BaseException) -> bool:
        """Whether an exception says no more than that the client has left."""
        return self.is_left and (
            isinstance(error, OSError | asyncio.CancelledError | GeneratorExit)
            or (self._gone is not None and error.__context__ is self._gone)
        )


class _SlowOnTheLoop(SlowHandlers):
    """Warns of plain handlers that keep the event loop busy."""

    __slots__ = ()

    def handling(self, emission: Emission, handler: object, /) -> AbstractContextManager[None]:
        is_async = iscoroutinefunction(handler) or iscoroutinefunction(type(handler).__call__)
        if is_async or not _is_in_a_loop():
            return nullcontext()
        return super().handling(emission, handler)


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _fields(scope: Scope) -> ScopeFields:
    """Return what the events of a connection have in common; asked for by the first of them."""
    headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
    client = scope.get("client")  # a Unix socket has none
    return request_fields(
        request_id=headers.get(b"x-request-id"),
        ip_address=client[0] if client else None,
        user_agent=headers.get(b"user-agent"),
    )


async def _end(dispatcher: EventDispatcher, started: float, timeout: float | None) -> bool:
    """Announce the end of the application, and wait for handlers; return whether all have ended.

    Args:
        dispatcher: the dispatcher.
        started: when the application started, by the monotonic clock.
        timeout: how long to wait, in seconds; None for no limit.
    """
    try:
        async with asyncio.timeout(timeout):
            await _announce_end(dispatcher, time.monotonic() - started)
            return await dispatcher.drain_async()
    except TimeoutError:
        log(
            logging.WARNING,
            "handlers are still pending %s s after the server was told to stop, and may be lost: "
            "make them quicker, or raise drain_timeout",
            timeout,
        )
        return False


async def _drain_again(dispatcher: EventDispatcher) -> None:
    """Wait for the handlers of what the application has emitted as it closed."""
    if not await dispatcher.drain_async(_SECONDS_AFTER):
        log(
            logging.WARNING,
            "handlers are still pending %s s after the application has closed, and may be lost: "
            "make them quicker",
            _SECONDS_AFTER,
        )


async def _announce_end(dispatcher: EventDispatcher, uptime: float) -> None:
    if "system_shutdown" not in dispatcher.signals:
        return
    try:
        await dispatcher.emit_async("system_shutdown", uptime=uptime, reason="the server stops")
    except Exception as error:  # the application still has to close what it has opened
        log(logging.ERROR, "a handler of system_shutdown failed: %s", type(error).__name__)
