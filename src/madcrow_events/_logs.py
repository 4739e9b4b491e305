"""What this package writes in logs: its logger, and the lines for failures.

Names of events, handlers and exception types are written; values from a context never are.
"""

from __future__ import annotations

import logging
import traceback
from contextvars import ContextVar
from typing import TYPE_CHECKING

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import handler_name, printable, type_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LOGGER",
    "Writing",
    "is_debugging",
    "log",
    "log_failure",
    "log_observer_failure",
    "log_unannounced",
    "mark_as_written",
    "set_frame_getter",
    "writing",
]

LOGGER = logging.getLogger("madcrow_events")

_TRACEBACK_MARGIN = "  | "
# How many characters of a traceback are written: its text may be as long as somebody likes.
_TRACEBACK_LENGTH = 32 * 1024


class Writing:
    """A line that is being written, for what a handler of the application's logs does with it.

    Such a handler may emit an event for each line, whose handlers would cause further lines, for
    ever. So what is done with a line of this package, tasks and background work included, causes
    no line below WARNING, and what is done with such a second line causes none at all.

    Attributes:
        number: how many lines are being written in each other, this one included.
        frame: the frame in which the line came up.
    """

    __slots__ = ("frame", "number")

    def __init__(self, number: int, frame: object) -> None:
        self.number = number
        self.frame = frame


_writing: ContextVar[Writing | None] = ContextVar("madcrow_events.writing", default=None)

writing = _writing.get
"""Return the line with which the present context has to do, or None."""


_frame: Callable[[], object] = type(None)


def set_frame_getter(function: Callable[[], object]) -> None:
    """Let a function tell the present frame, which is none of the matters of this module."""
    global _frame  # noqa: PLW0603  # set once, by the module above that has the frames
    _frame = function


def _may_write(level: int) -> bool:
    cause = _writing.get()
    return cause is None or (level >= logging.WARNING and cause.number < 2)  # noqa: PLR2004  # a second one


def is_debugging() -> bool:
    """Whether lines at DEBUG are written."""
    return LOGGER.isEnabledFor(logging.DEBUG) and _may_write(logging.DEBUG)


def log(level: int, message: str, *arguments: object) -> None:
    """Write a line, unless another line has caused it.

    Args:
        level: its level.
        message: its text.
        arguments: what stands in the text.
    """
    if LOGGER.isEnabledFor(level) and _may_write(level):
        _write(LOGGER.log, level, message, *arguments, stacklevel=3)


def mark_as_written(cause: Writing | None) -> None:
    """Let the present context have to do with a line."""
    _writing.set(cause)


def _write(function: Callable[..., object], *arguments: object, **options: object) -> None:
    """Write a line by a function, and let what is done with it have to do with that line."""
    cause = _writing.get()
    number = 1 if cause is None else cause.number + 1
    # No `with`, for an interrupt may come before the first step of its `__exit__`.
    try:
        _writing.set(Writing(number, _frame()))
        function(*arguments, **options)
    finally:
        _writing.set(cause)


def log_failure(
    event: str, handler: str, error: BaseException, *, tracebacks: bool, batch_size: int = 0
) -> None:
    """Log one failed handler at ERROR.

    Args:
        event: the name of the event, or the pattern.
        handler: the id or the name of the handler that failed.
        error: what it raised.
        tracebacks: whether its traceback, its author's text, is written too.
        batch_size: how many contexts it was called with, if it takes batches.
    """
    what = f"{event} in a batch of {batch_size}" if batch_size else event
    _log_error(f"handler {handler} of {what}", error, tracebacks=tracebacks)


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
    log(logging.WARNING, "a failure of %s is not announced to all: %s", event, name)


def _log_error(who: str, error: BaseException, *, tracebacks: bool) -> None:
    """Log who failed and with what; whatever goes wrong with that is not the emitter's matter."""
    try:
        if LOGGER.isEnabledFor(logging.ERROR) and _may_write(logging.ERROR):
            record = _failure_record(who, error, tracebacks=tracebacks)
            _write(LOGGER.handle, record)
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
        (who, type_name(type(error))),
        (type(error), error, error.__traceback__) if tracebacks else None,
        func="emit",
    )
    if tracebacks:
        # Formatters print this cached text as it stands; error trackers still find exc_info.
        record.exc_text = _indented_traceback(error)
    return record


class _FormattingError(Exception):
    """Is being handled while a traceback is formatted."""


def _formatted(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as raised:  # an exception can be made so that it cannot be shown
        if is_interrupt(raised):
            raise
        return f"{type_name(type(error))}, which cannot be formatted"


def _indented_traceback(error: BaseException) -> str:
    """Format a traceback so that none of its lines can pass for a line of the log."""
    try:
        raise _FormattingError  # noqa: TRY301  # to be the one that is handled
    except _FormattingError as aside:
        # Each exception within `traceback` looks through all causes of the one that is being
        # handled, which is this one instead of what may have thousands.
        aside.__context__ = None
        text = _formatted(error)
    left_out = len(text) - _TRACEBACK_LENGTH
    if left_out > 0:  # its beginning and its end tell the most
        half = _TRACEBACK_LENGTH // 2
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    lines = text.splitlines()
    return "\n".join(_TRACEBACK_MARGIN + printable(line, limit=2000) for line in lines)
