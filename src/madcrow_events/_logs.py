"""What this package writes in logs: its logger, and the lines for failures (G1).

Names of events, handlers and exception types are written; values from a context never are.
"""

from __future__ import annotations

import logging
import traceback

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import handler_name, printable, type_name

__all__ = [
    "LOGGER",
    "log_failure",
    "log_observer_failure",
    "log_unannounced",
]

LOGGER = logging.getLogger("madcrow_events")

_TRACEBACK_MARGIN = "  | "


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
    try:
        if LOGGER.isEnabledFor(logging.ERROR):
            LOGGER.handle(_failure_record(who, error, tracebacks=tracebacks))
    except Exception as raised:  # by a filter of the application, say
        if is_interrupt(raised):
            raise


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
    except Exception as raised:  # an exception can be made so that it cannot be shown
        if is_interrupt(raised):
            raise
        lines = [f"{type(error).__name__}, which cannot be formatted"]
    return "\n".join(_TRACEBACK_MARGIN + printable(line, limit=2000) for line in lines)
