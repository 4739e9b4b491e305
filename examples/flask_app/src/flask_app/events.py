"""Events in a Flask application: copy this file, and call `Events(app)`.

Each request has a scope, so that its events carry its id, address and user agent, and a deferral,
so that they go out when it has succeeded, and never if it has failed. Flask's own signals are
events, too, and `flask events` lists what there is.
"""

from __future__ import annotations  # or the inner functions evaluate theirs for each request

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import blinker
import click
import flask
from flask import Flask
from flask.cli import AppGroup
from werkzeug.middleware.proxy_fix import ProxyFix

from madcrow_events import (
    BaseEventContext,
    Deferral,
    EventDispatcher,
    SystemShutdownEventContext,
    SystemStartupEventContext,
    check_plugins,
    get_event_dispatcher,
    load_plugins,
    request_fields,
)
from madcrow_events.emissions import ScopeFields
from madcrow_events.event_handlers import register_all_handlers

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = [
    "Events",
    "ExceptionEventContext",
    "FlashEventContext",
    "RequestEventContext",
    "ResponseEventContext",
    "TemplateEventContext",
]

EXTENSION = "madcrow_events"

_FAILURE = "5"  # what the status of a failure begins with
_WITHOUT_BODY = frozenset({"204", "304"})
_END_SECONDS = 2.5
_LOGGER = logging.getLogger(__name__)


class Events:
    """Gives an application its events: `Events(app)`, or `events.init_app(app)` in a factory.

    Args:
        app: the application; see `init_app`.
        plugins: likewise.
        trusted_proxies: likewise.
    """

    def __init__(
        self, app: Flask | None = None, *, plugins: bool = False, trusted_proxies: int = 0
    ) -> None:
        if app is not None:
            self.init_app(app, plugins=plugins, trusted_proxies=trusted_proxies)

    def init_app(self, app: Flask, *, plugins: bool = False, trusted_proxies: int = 0) -> None:
        """Register the ready-made handlers, and open a scope and a deferral around each request.

        Args:
            app: the application; the dispatcher becomes its `extensions["madcrow_events"]`.
            plugins: whether to load the plugins that are installed; what is refused is logged.
            trusted_proxies: how many proxies there are in front of the application, which set
                `X-Forwarded-For`, `-Proto` and `-Host`; without any, these headers are ignored.

        Raises:
            RuntimeError: the application has its events already.
        """
        if EXTENSION in app.extensions:
            raise RuntimeError(f"{app.name} has its events already: call init_app once")
        dispatcher = get_event_dispatcher()
        app.extensions[EXTENSION] = dispatcher
        register_all_handlers(dispatcher.signals)
        app.wsgi_app = _Requests(app, dispatcher)  # type: ignore[method-assign]  # where Flask wants it
        if trusted_proxies:
            app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # likewise
                app.wsgi_app,
                x_for=trusted_proxies,
                x_proto=trusted_proxies,
                x_host=trusted_proxies,
            )
        app.cli.add_command(_commands)
        if plugins:  # last, for they may handle Flask's events
            load_plugins(signals=dispatcher.signals)


# Requests


class _Requests:
    """Handles each request within a scope and a deferral; stands in the place of `wsgi_app`."""

    def __init__(self, app: Flask, dispatcher: EventDispatcher) -> None:
        self._handle = app.wsgi_app
        self._dispatcher = dispatcher
        self._flask_events = [_FlaskEvent(app, dispatcher, *offered) for offered in _FLASK_SIGNALS]
        self._process = _Process(dispatcher, self._flask_events)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if self._process.begun_in != os.getpid():
            self._process.begin()
        status, is_whole = "", False

        def start(line: str, headers: list[tuple[str, str]], *error: Any) -> Callable[..., object]:
            nonlocal status, is_whole
            status = line
            is_whole = "Content-Length" in dict(headers) or line[:3] in _WITHOUT_BODY
            return start_response(line, headers, *error)

        with self._dispatcher.deferred(lambda: _scope(environ)) as deferral:
            body = self._handle(environ, start)
            if not is_whole:
                return _Stream(deferral, body, lambda: status >= _FAILURE)
            if status >= _FAILURE:
                deferral.discard()
            return body


class _Stream:
    """The body of an answer that is made while it is sent; events wait for its end.

    It has context variables of its own: whoever reads the last of it, and where, nothing of the
    request is left to the next one of the thread.
    """

    def __init__(
        self, deferral: Deferral, body: Iterable[bytes], has_failed: Callable[[], bool]
    ) -> None:
        self._context = deferral.detach()
        self._deferral = deferral
        self._body = body
        self._parts = iter(body)
        self._has_failed = has_failed
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return self._context.run(next, self._parts)
        except StopIteration:
            if not self._has_failed():
                self._context.run(self._deferral.flush)  # before the client sees the end
            raise
        except BaseException:
            self._has_failed = lambda: True
            raise

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._context.run(self._close)

    def _close(self) -> None:
        # A client that has left early is no failure.
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._has_failed = lambda: True
            raise
        finally:
            if self._has_failed():
                self._deferral.discard()
            self._deferral.end()


def _scope(environ: WSGIEnvironment) -> ScopeFields:
    """Return what the events of a request have in common; asked for by the first of them."""
    return request_fields(
        request_id=environ.get("HTTP_X_REQUEST_ID"),
        ip_address=environ.get("REMOTE_ADDR"),  # a Unix socket has none
        user_agent=environ.get("HTTP_USER_AGENT"),
    )


# The process


class _Process:
    """Tells of the start and the end of each process that answers requests."""

    def __init__(self, dispatcher: EventDispatcher, flask_events: Iterable[_FlaskEvent]) -> None:
        self._dispatcher = dispatcher
        self._flask_events = flask_events
        self.begun_in = self._begins_in = 0  # the id of a process
        # One for each process, for that of another may have been forked while it was held.
        self._locks: dict[int, Any] = {}

    def begin(self) -> None:
        """Emit `system_startup`, if this is the first request of the process."""
        process_id = os.getpid()
        with self._locks.setdefault(process_id, threading.RLock()):
            if process_id in (self.begun_in, self._begins_in):
                return  # a handler of `system_startup` may make requests itself
            self._begins_in = process_id
            for event in self._flask_events:
                event.connect_if_handled()
            # Later than the package, so that its wait for pending work comes after this.
            atexit.register(_end, self._dispatcher, process_id, time.monotonic())
            try:
                self._dispatcher.emit_typed(
                    "system_startup", SystemStartupEventContext(process_id=process_id)
                )
            finally:
                self.begun_in = process_id


def _end(dispatcher: EventDispatcher, process_id: int, began: float) -> None:
    if os.getpid() == process_id:  # and not one that was forked from it
        uptime = time.monotonic() - began
        dispatcher.emit_typed("system_shutdown", SystemShutdownEventContext(uptime=uptime))
        # The package waits for longer, and whoever sent the SIGTERM perhaps not, nor says a word.
        if not dispatcher.drain(_END_SECONDS):
            _LOGGER.warning(
                "handlers of events are still pending after %s s of the end, and may be lost: make "
                "them quicker, or raise _END_SECONDS and the patience of the server",
                _END_SECONDS,
            )


# Flask's signals


class RequestEventContext(BaseEventContext):
    """What Flask tells of a request: no query string, no form, no text of an exception.

    All is None outside of a request.
    """

    method: str | None = None
    path: str | None = None
    endpoint: str | None = None


class ResponseEventContext(RequestEventContext):
    """A request has its response."""

    status: int


class ExceptionEventContext(RequestEventContext):
    """A request has raised an exception, or ends, which it may have done by one."""

    exception_type: str | None = None


class TemplateEventContext(RequestEventContext):
    """A template was rendered; it has no name if it was a string."""

    template: str | None = None


class FlashEventContext(RequestEventContext):
    """A message was flashed."""

    category: str


def _type_name(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__name__


_Sent = dict[str, Any]
_FLASK_SIGNALS: tuple[
    tuple[blinker.NamedSignal, type[RequestEventContext], Callable[[_Sent], _Sent]], ...
] = (
    (flask.request_started, RequestEventContext, lambda _sent: {}),
    (
        flask.request_finished,
        ResponseEventContext,
        lambda sent: {"status": sent["response"].status_code},
    ),
    (
        flask.request_tearing_down,
        ExceptionEventContext,
        lambda sent: {"exception_type": _type_name(sent["exc"])},
    ),
    (
        flask.got_request_exception,
        ExceptionEventContext,
        lambda sent: {"exception_type": _type_name(sent["exception"])},
    ),
    (
        flask.template_rendered,
        TemplateEventContext,
        lambda sent: {"template": sent["template"].name},
    ),
    (flask.message_flashed, FlashEventContext, lambda sent: {"category": sent["category"]}),
)
"""Each with the context of its event, and the fields of that which are in what Flask sends."""


class _FlaskEvent:
    """One of Flask's signals, offered as an event, `flask.request_started` for one."""

    def __init__(
        self,
        app: Flask,
        dispatcher: EventDispatcher,
        signal: blinker.NamedSignal,
        model: type[RequestEventContext],
        fields: Callable[[_Sent], _Sent],
    ) -> None:
        self._app = app
        self._dispatcher = dispatcher
        self._signal = signal
        self._model = model
        self._fields = fields
        self._event = dispatcher.signals.signal(
            f"flask.{signal.name}", model.__doc__, context=model
        )

        # As soon as anything is connected to one of Flask's signals, each request pays for it.
        self._event.receiver_connected.connect(self._connect)

    def connect_if_handled(self) -> None:
        """Look for handlers that were subscribed earlier, or to a pattern, which nobody tells."""
        if next(self._event.receivers_for(self._app), None) is not None:
            self._connect()

    def _connect(self, *_: Any, **_told: Any) -> None:
        self._signal.connect(self, sender=self._app)

    def __call__(self, app: Flask, **sent: Any) -> None:
        """Emit the event; called by Flask."""
        fields = self._fields(sent)
        if flask.has_request_context():
            request = flask.request
            fields |= {"method": request.method, "path": request.path, "endpoint": request.endpoint}
        # It tells of requests that fail, too. A deferral of its own can let it out at once, past
        # that of the request.
        with self._dispatcher.deferred() as own:
            self._dispatcher.emit_typed(self._event, self._model(**fields), sender=app)
            own.flush()


# The command line


_commands = AppGroup("events", help="Show events, their handlers, and plugins.")


@_commands.command("list")
@click.argument("pattern", default="*")
def _list(pattern: str) -> None:
    """List the events whose names match PATTERN, such as 'user_*', and who handles them."""
    signals = flask.current_app.extensions[EXTENSION].signals
    rows = [("EVENT", "CONTEXT", "HANDLER")]
    for name in sorted(signals):
        if fnmatchcase(name, pattern):
            model, subscriptions = signals[name].context_model, signals[name].subscriptions
            context = "-" if model is None else model.__name__
            handlers = [_dotted_name(it.handler) for it in subscriptions] or ["-"]
            rows += [(name, context, handler) for handler in handlers]
    _print_columns(rows)


@_commands.command("plugins")
def _plugins() -> None:
    """Try each plugin in a process of its own; exit with status 1 if one would not be loaded."""
    reports = check_plugins()
    rows = [(it.name, it.version, it.status, it.reason) for it in reports]
    _print_columns([("PLUGIN", "VERSION", "STATUS", "REASON"), *rows])
    if not all(report.ok for report in reports):
        raise SystemExit(1)


def _dotted_name(handler: Any) -> str:
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    return f"{named.__module__}.{named.__qualname__}"


def _print_columns(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())
