"""What this package writes: its loggers, and text that is safe to put in a log (G1).

Names of events, handlers and exception types are written; values from a
context never are. Text that comes from elsewhere is made printable first, so
that no exception message can forge a line of the log.
"""

from __future__ import annotations

import functools
import logging
import traceback
from typing import Any

__all__ = ["LOGGER", "handler_name", "log_failure", "printable", "type_name"]

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
    named = handler if hasattr(handler, "__qualname__") else type(handler)
    module = getattr(named, "__module__", None)
    name = getattr(named, "__qualname__", "")
    return printable(f"{module}.{name}" if module else name)


def log_failure(event: str, handler: object, error: BaseException, *, tracebacks: bool) -> None:
    """Log one failed handler at ERROR.

    Args:
        event: the name of the event.
        handler: the handler that failed.
        error: what it raised.
        tracebacks: whether its traceback, its author's text, is written too.
    """
    if not LOGGER.isEnabledFor(logging.ERROR):
        return
    record = LOGGER.makeRecord(
        LOGGER.name,
        logging.ERROR,
        __file__,
        0,
        "handler %s of %s failed: %s",
        (handler_name(handler), event, printable(type(error).__name__)),
        (type(error), error, error.__traceback__) if tracebacks else None,
        func="log_failure",
    )
    if tracebacks:
        # Formatters print this cached text as it stands; error trackers still find exc_info.
        record.exc_text = _indented_traceback(error)
    LOGGER.handle(record)


def _indented_traceback(error: BaseException) -> str:
    """Format a traceback so that none of its lines can pass for a line of the log."""
    lines: list[str] = []
    for part in traceback.format_exception(error):
        lines.extend(part.splitlines())
    return "\n".join(_TRACEBACK_MARGIN + printable(line, limit=2000) for line in lines)


def type_name(annotation: Any) -> str:
    """Return how an annotation is written in code, for messages that say what to write."""
    if isinstance(annotation, type):
        return printable(annotation.__name__)
    return printable(annotation).replace("typing.", "")
