"""Events of web applications on WSGI, such as those of Flask, Django and Bottle."""

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeAlias, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._logs import log
from madcrow_events._waiters import check_seconds
from madcrow_events.dispatcher import EventDispatcher, get_event_dispatcher
from madcrow_events.emissions import ScopeFields, request_fields
from madcrow_events.emissions._frames import run_in_frame
from madcrow_events.emissions._holding import DeferralFrame

__all__ = ["EventsMiddleware"]

Emitting: TypeAlias = Callable[[], AbstractContextManager[object]]

_DISPATCHER = "madcrow_events.dispatcher"  # its key in the environment of a request

_END: Any = object()
_next: Callable[[Iterator[bytes], Any], Any] = next
_SERVER_ERROR = "5"  # what the status of a failure begins with


class EventsMiddleware:
    """Connects the events of a [WSGI](https://peps.python.org/pep-3333/) application to requests.

    - Each request has an `event_scope`: its events carry the request id, the address and the user
      agent.
    - Events of a request are held back. What is emitted before the head of the response goes out
      before the server gets the response, if its status is below 500. What is emitted while the
      body is made goes out before the end of the body, and what is emitted when the body is closed
      goes out after that. What breaks the response off drops the events that are held back then. A
      client that leaves is no failure.
    - Each process emits `system_startup` before its first request, and `system_shutdown` at its
      end, if the registry of the dispatcher has these events, and waits for pending handlers then.

    An application that is mounted in another one has the request id of the outer one, and its own
    middleware decides what goes out.

    Args:
        app: the application.
        dispatcher: the dispatcher; None is the default dispatcher.
        version: the version of the application, for `system_startup`.
        drain_timeout: how long a process waits for pending handlers at its end, in seconds; None
            for no limit.

    Raises:
        InvalidOptionError: `drain_timeout` is no positive number.

    Example:
        ```python
        from madcrow_events.contrib.wsgi import EventsMiddleware


        def app(environ, start_response):
            start_response("204 No Content", [])
            return []


        app = EventsMiddleware(app)
        ```
    """

    def __init__(
        self,
        app: WSGIApplication,
        dispatcher: EventDispatcher | None = None,
        *,
        version: str | None = None,
        drain_timeout: float | None = 2.0,
    ) -> None:
        self.app: WSGIApplication = app
        self._dispatcher = dispatcher
        check_seconds("drain_timeout", drain_timeout)
        self._process = _Process(version, drain_timeout)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request.

        Args:
            environ: what the server says of the request.
            start_response: takes the head of the response.

        Returns:
            The body of the response.
        """
        dispatcher = self._dispatcher or get_event_dispatcher()
        outer = environ.get(_DISPATCHER)
        if not self._process.has_begun and outer is not dispatcher:
            self._process.begin(dispatcher, self.emitting)
        environ[_DISPATCHER] = dispatcher  # for applications that are mounted in this one
        block = DeferralFrame(dispatcher, partial(_fields, environ) if outer is None else None)
        block.open()
        response = _Response(self, block, start_response)
        try:
            response.body = run_in_frame(block, self.app, environ, response.start)
            if block.held_back:
                response.flush()
        except BaseException:
            block.discard()
            block.end(None)
            raise
        finally:
            environ[_DISPATCHER] = outer  # the server may give it to another application
        is_file = type(response.body) is environ.get("wsgi.file_wrapper")
        return response.of_file() if is_file else response

    def emitting(self) -> AbstractContextManager[object]:
        """Return a context manager for the moment when events go out.

        These are the events of a request, `system_startup` and `system_shutdown`. It does nothing.
        Override it if handlers need a context of your framework.
        """
        return nullcontext()


class _Response:
    """The response to one request, from the call of the application to the end of its body."""

    # It runs in the frame of its block for each part. `Deferral.resumed` does so, too, but would
    # double what this middleware costs a request without events.

    __slots__ = ("_block", "_has_failed", "_middleware", "_start_response", "_status", "body")

    body: Iterable[bytes]
    """The body that the application has returned."""

    def __init__(
        self, middleware: EventsMiddleware, block: DeferralFrame, start_response: StartResponse
    ) -> None:
        self._middleware = middleware
        self._block = block
        self._start_response = start_response
        self._status = ""
        self._has_failed = False

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self._status = status
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        block, parts = self._block, iter(self.body)
        is_late = not self._status  # WSGI lets the head come with the first part of the body
        while True:
            try:
                part = run_in_frame(block, _next, parts, _END)
            except BaseException:
                self._has_failed = True
                raise
            if block.held_back and (is_late or part is _END):
                self.flush()  # before the end, so that a client with the whole response has them
            if part is _END:
                return
            is_late = False
            yield part  # if the server reads no further, the client has left: that is no failure

    def of_file(self) -> Iterable[bytes]:
        """Return the server's own wrapper of a file, which the server may send without reading."""
        wrapper: Any = self.body
        body: Any = SimpleNamespace(close=getattr(wrapper, "close", None))
        try:
            wrapper.close = self.close
        except AttributeError:  # it is written in C
            return self
        self.body = body  # because each would keep the other
        return cast("Iterable[bytes]", wrapper)

    def close(self) -> None:
        block = self._block
        close = getattr(self.body, "close", None)
        try:
            if close is not None:
                run_in_frame(block, close)
        except BaseException:
            self._has_failed = True
            raise
        finally:
            if block.held_back and (self._has_failed or not self._is_good()):
                block.discard()
            if (ended := block.end(None)) is not None:
                with self._middleware.emitting():
                    ended.flush()

    def _is_good(self) -> bool:
        return "" < self._status < _SERVER_ERROR  # no head is a failure

    def flush(self) -> None:
        if self._is_good():
            with self._middleware.emitting():
                self._block.flush()


def _fields(environ: WSGIEnvironment) -> ScopeFields:
    """Return what the events of a request have in common; asked for by the first of them."""
    return request_fields(
        request_id=environ.get("HTTP_X_REQUEST_ID"),
        ip_address=environ.get("REMOTE_ADDR"),  # a Unix socket has none
        user_agent=environ.get("HTTP_USER_AGENT"),
    )


class _Process:
    """Announces the start and the end of each process that answers requests."""

    def __init__(self, version: str | None, drain_timeout: float | None) -> None:
        self._version = version
        self._drain_timeout = drain_timeout
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        self.has_begun = False
        self._lock = Lock()

    def begin(self, dispatcher: EventDispatcher, emitting: Emitting) -> None:
        """Emit `system_startup`, if this is the first request of the process."""
        with self._lock:
            if self.has_begun:
                return
            self.has_begun = True
        process_id = os.getpid()
        began = time.monotonic()
        # Later than the package's own wait for pending work, so that it comes before that. Weak, or
        # the exit would keep each application of a test suite.
        owners = weakref.ref(dispatcher), weakref.WeakMethod(emitting)
        atexit.register(partial(_end, *owners, self._drain_timeout, process_id, began))
        if "system_startup" in dispatcher.signals:
            with emitting():
                dispatcher.emit("system_startup", version=self._version, process_id=process_id)


def _end(
    dispatcher_ref: Callable[[], EventDispatcher | None],
    emitting: Callable[[], Emitting | None],
    timeout: float | None,
    process_id: int,
    began: float,
) -> None:
    dispatcher = dispatcher_ref()
    if dispatcher is None or os.getpid() != process_id:  # this process was forked from it
        return
    if "system_shutdown" in dispatcher.signals:
        uptime = time.monotonic() - began
        try:
            with (emitting() or nullcontext)():
                dispatcher.emit("system_shutdown", uptime=uptime, reason="the process ends")
        except Exception as error:
            log(logging.ERROR, "a handler of system_shutdown failed: %s", type(error).__name__)
    # The package waits longer, but the server may end the process before that, without a word.
    if not dispatcher.drain(timeout):
        log(
            logging.WARNING,
            "handlers are still pending %s s after the end of the process began, and may be lost: "
            "make them quicker, or raise drain_timeout and the patience of the server",
            timeout,
        )
