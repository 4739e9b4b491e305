"""What this package writes: its loggers, and text that is safe to put in a log (G1).

Names of events, handlers and exception types are written; values from a
context never are. Text that comes from elsewhere is made printable first, so
that no exception message can forge a line of the log.
"""

from __future__ import annotations

import functools
import logging
import traceback
from contextlib import suppress
from typing import Any

__all__ = [
    "LOGGER",
    "handler_name",
    "log_failure",
    "log_observer_failure",
    "log_unannounced",
    "printable",
    "type_name",
]

LOGGER = logging.getLogger("madcrow_events")

_TRACEBACK_MARGIN = "  | "


def printable(text: object, limit: int = 200) -> str:
    """Return `text` in one line: control characters escaped, cut at `limit` characters."""
    shown = str(text)
    if len(shown) > limit:
        shown = shown[:limit] + "..."
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in shown
    )


def handler_name(handler: object) -> str:
    """Return the dotted name of a handler; never its `repr`, which may show values."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    try:
        module, name = handler.__module__, handler.__qualname__  # type: ignore[attr-defined]  # tried
    except Exception:  # noqa: BLE001  # a proxy may raise anything; its type is a plain one
        module, name = type(handler).__module__, type(handler).__qualname__
    return printable(f"{module}.{name}" if module else name)


def log_failure(
    event: str, handler: object, error: BaseException, *, tracebacks: bool, batch_size: int = 0
) -> None:
    """Log one failed handler at ERROR.

    Args:
        event: the name of the event, or the pattern.
        handler: the handler that failed.
        error: what it raised.
        tracebacks: whether its traceback, its author's text, is written too.
        batch_size: how many contexts it was called with, if it takes batches.
    """
    what = f"{event} in a batch of {batch_size}" if batch_size else event
    _log_error(f"handler {handler_name(handler)} of {what}", error, tracebacks=tracebacks)


def log_observer_failure(observer: object, error: BaseException, *, tracebacks: bool) -> None:
    """Log at ERROR that an observer has failed.

    Args:
        observer: the observer.
        error: what it raised.
        tracebacks: whether its traceback, its author's text, is written too.
    """
    _log_error(f"observer {handler_name(type(observer))}", error, tracebacks=tracebacks)


def log_unannounced(event: str, error: BaseException) -> None:
    """Log at WARNING that a handler of `handler_failed` let something through."""
    name = type_name(type(error))
    LOGGER.warning("a failure of %s is not announced to all: %s", event, name)


def _log_error(who: str, error: BaseException, *, tracebacks: bool) -> None:
    """Log who failed and with what; whatever goes wrong with that is not the emitter's matter."""
    with suppress(Exception):  # a filter of the application, say
        if LOGGER.isEnabledFor(logging.ERROR):
            LOGGER.handle(_failure_record(who, error, tracebacks=tracebacks))


def _failure_record(who: str, error: BaseException, *, tracebacks: bool) -> logging.LogRecord:
    record = LOGGER.makeRecord(
        LOGGER.name,
        logging.ERROR,
        __file__,
        0,
        "%s failed: %s",
        (who, printable(type(error).__name__)),
        (type(error), error, error.__traceback__) if tracebacks else None,
        func="emit",
    )
    if tracebacks:
        # Formatters print this cached text as it stands; error trackers still find exc_info.
        record.exc_text = _indented_traceback(error)
    return record


def _indented_traceback(error: BaseException) -> str:
    """Format a traceback so that none of its lines can pass for a line of the log."""
    try:
        lines = "".join(traceback.format_exception(error)).splitlines()
    except Exception:  # noqa: BLE001  # an exception can be made so that it cannot be shown
        lines = [f"{type(error).__name__}, which cannot be formatted"]
    return "\n".join(_TRACEBACK_MARGIN + printable(line, limit=2000) for line in lines)


def type_name(annotation: Any) -> str:
    """Return how an annotation is written in code, for messages that say what to write."""
    if isinstance(annotation, type):
        return printable(annotation.__name__)
    return printable(annotation).replace("typing.", "")
