"""Writing the package's log: its logger, and the lines for failures.

Lines hold names of events, handlers and exception types, and never a value from a context.
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

_ERROR = logging.ERROR

_TRACEBACK_MARGIN = "  | "
# How many characters of a traceback are written; its text may have any length.
_TRACEBACK_LENGTH = 32 * 1024


class Writing:
    """A line of the log that is being written.

    The application may emit an event for each line of its log, and the handlers of that event
    would cause further lines, for ever. So the work that a line of this package causes, tasks and
    background work included, writes no line below WARNING. The work that such a second line
    causes writes no line at all.

    Attributes:
        number: 1 for a line that no other has caused, 2 for a second one.
        frame: the frame in which the line was written.
    """

    __slots__ = ("frame", "number")

    def __init__(self, number: int, frame: object) -> None:
        self.number = number
        self.frame = frame


_writing: ContextVar[Writing | None] = ContextVar("madcrow_events.writing", default=None)

writing = _writing.get
"""Return the line that has caused the present work, or None."""


_frame: Callable[[], object] = type(None)


def set_frame_getter(function: Callable[[], object]) -> None:
    """Set the function that returns the present frame, which this module knows nothing of."""
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
        level: the level of the line.
        message: the text, with places for the arguments.
        arguments: the values for these places.
    """
    if LOGGER.isEnabledFor(level) and _may_write(level):
        _write(LOGGER.log, level, message, *arguments, stacklevel=3)


def mark_as_written(cause: Writing | None) -> None:
    """Note that a line has caused the work in the present context."""
    _writing.set(cause)


def _write(function: Callable[..., object], *arguments: object, **options: object) -> None:
    """Call a function that writes a line, and note the line for the work that it causes."""
    cause = _writing.get()
    number = 1 if cause is None else cause.number + 1
    # No `with`: an interrupt may come before the first step of its `__exit__`.
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
        error: the exception that it raised.
        tracebacks: whether the traceback, whose text is the author's, is written too.
        batch_size: how many contexts the handler was called with, if it takes batches.
    """
    what = f"{event} in a batch of {batch_size}" if batch_size else event
    _log_error(f"handler {handler} of {what}", error, tracebacks=tracebacks)


def log_observer_failure(observer: object, error: BaseException, *, tracebacks: bool) -> None:
    """Log at ERROR that an observer has failed.

    Args:
        observer: the observer.
        error: the exception that it raised.
        tracebacks: whether the traceback, whose text is the author's, is written too.
    """
    _log_error(f"observer {handler_name(type(observer))}", error, tracebacks=tracebacks)


def log_unannounced(event: str, error: BaseException) -> None:
    """Log at WARNING that an exception has cut off the announcement of a failure."""
    name = type_name(type(error))
    log(
        logging.WARNING,
        "the announcement of a failure of %s was cut off by %s: some handlers of handler_failed "
        "may not have been called",
        event,
        name,
    )


def _log_error(who: str, error: BaseException, *, tracebacks: bool) -> None:
    """Log an error; if logging itself fails, the emitter is not bothered."""
    cause = _writing.get()
    try:
        if not LOGGER.isEnabledFor(_ERROR) or (cause is not None and not _may_write(_ERROR)):
            return
        # Not by `error()`, which looks for the line of code that calls it.
        record = LOGGER.makeRecord(
            LOGGER.name,
            _ERROR,
            __file__,
            0,
            "%s failed: %s",
            (who, type_name(type(error))),
            (type(error), error, error.__traceback__) if tracebacks else None,
            func="emit",
        )
        if tracebacks:
            # Formatters print `exc_text` as it is; error trackers still find exc_info. The text
            # takes 30 times as long as the rest of a failure.
            record.exc_text = _indented_traceback(error) if _is_written(_ERROR) else None
        try:  # as in `_write`, whose call takes long
            _writing.set(Writing(1 if cause is None else cause.number + 1, _frame()))
            LOGGER.handle(record)
        finally:
            _writing.set(cause)
    except Exception as raised:  # for example by a filter of the application
        if is_interrupt(raised):
            raise


def _is_written(level: int) -> bool:
    """Whether a handler of the log may write lines of a level."""
    if not LOGGER.handle.__module__ == LOGGER.callHandlers.__module__ == "logging":
        return True  # a tool has put another method there, which may write any line
    logger: logging.Logger | None = LOGGER
    handlers: list[logging.Handler] = []
    while logger is not None:
        handlers += logger.handlers
        logger = logger.parent if logger.propagate else None
    # Without any, `logging` writes to the standard error stream.
    return not handlers or any(
        level >= it.level and type(it) is not logging.NullHandler for it in handlers
    )


class _FormattingError(Exception):
    """The exception that is being handled while a traceback is formatted."""


def _formatted(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as raised:  # an exception may have a `__str__` that fails
        if is_interrupt(raised):
            raise
        return f"{type_name(type(error))}, which cannot be formatted"


def _indented_traceback(error: BaseException) -> str:
    """Return the text of a traceback, none of whose lines looks like a line of the log."""
    try:
        raise _FormattingError  # noqa: TRY301  # to be the one that is handled
    except _FormattingError as aside:
        # When the `traceback` module raises internally, Python walks the whole `__context__` chain
        # of the exception that is being handled. So we handle this one, whose chain is cut; the
        # emitter may be handling one with thousands of causes.
        aside.__context__ = None
        text = _formatted(error)
    left_out = len(text) - _TRACEBACK_LENGTH
    if left_out > 0:  # its beginning and its end say the most
        half = _TRACEBACK_LENGTH // 2
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    lines = text.splitlines()
    return "\n".join(_TRACEBACK_MARGIN + printable(line, limit=2000) for line in lines)
