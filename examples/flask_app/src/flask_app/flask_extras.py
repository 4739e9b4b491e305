"""Flask's own signals as events, and `flask events`: optional, call `init_extras(app)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import blinker
import click
import flask
from flask import Flask
from flask.cli import AppGroup

from madcrow_events import BaseEventContext, EventDispatcher, check_plugins

__all__ = [
    "ExceptionEventContext",
    "FlashEventContext",
    "RequestEventContext",
    "ResponseEventContext",
    "TemplateEventContext",
    "init_extras",
]


def init_extras(app: Flask) -> None:
    """Offer Flask's signals as events, and add `flask events`; call it after `Events(app)`."""
    app.extensions["flask_events"] = _FlaskEvents(app, app.extensions["madcrow_events"])
    app.cli.add_command(_commands)


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


class _FlaskEvents:
    """Flask's signals for one application, offered as events."""

    def __init__(self, app: Flask, dispatcher: EventDispatcher) -> None:
        self._events = [_FlaskEvent(app, dispatcher, *offered) for offered in _FLASK_SIGNALS]
        # Nobody is told of a pattern that is subscribed. So look again before the first request.
        dispatcher.signals["system_startup"].subscribe(self.connect)
        self.connect()

    def connect(self) -> None:
        """Connect those that have handlers."""
        for event in self._events:
            event.connect_if_handled()


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
        """Connect it if it has handlers by now."""
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
    signals = flask.current_app.extensions["madcrow_events"].signals
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
