"""Distinguishing exceptions that a signal handler raises from all others."""

from __future__ import annotations

import functools
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ["interrupt_behind", "is_exit", "is_interrupt", "suppress_but_interrupts"]

_VARARGS = 0x04  # as in `inspect`, which takes long to import


def is_interrupt(error: BaseException) -> bool:
    """Whether the handler of a signal has raised an exception, such as a time limit.

    Code that catches every exception asks this, and lets interrupts through.
    """
    if isinstance(error, KeyboardInterrupt):  # Python's own handler leaves no frame
        return threading.current_thread() is threading.main_thread()
    traceback = error.__traceback__
    if traceback is None or traceback.tb_next is None:  # a built-in function raised it
        return False
    # Looked up, not imported: a program that never loaded it has set no handler.
    signal: Any = sys.modules.get("signal")
    if signal is None or threading.current_thread() is not threading.main_thread():
        return False
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    interrupted = traceback.tb_frame
    left: TracebackType | None = traceback.tb_next
    while left is not None:
        if left.tb_frame.f_code in codes or _is_given(left.tb_frame, interrupted):
            return True
        interrupted, left = left.tb_frame, left.tb_next
    return False


def interrupt_behind(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """Return the interrupt that led to an exception, or None.

    Args:
        error: the exception; code that an interrupt has left in disorder may have raised it.
        handled: the exception that was being handled before; the search ends there.
    """
    found: BaseException | None = error
    while found is not None and found is not handled:
        if is_interrupt(found):
            return found
        found = found.__context__
    return None


def is_exit(error: BaseException) -> bool:
    """Whether a handler of a signal has raised an exit, such as that of Ctrl-C.

    If it comes up in a handler that runs later, it is recorded as the failure of that handler,
    and raised to the program, too. asyncio lets only `KeyboardInterrupt` and `SystemExit` out
    of its loop.
    """
    return not isinstance(error, Exception) and is_interrupt(error)


class suppress_but_interrupts(suppress):  # noqa: N801  # named as its base class is
    """Suppress exceptions as `contextlib.suppress` does, but not those of signal handlers."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Return whether the exception is suppressed."""
        is_named = super().__exit__(kind, error, traceback)
        return is_named and error is not None and not is_interrupt(error)


def _code_of(handler: object) -> object:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)


def _is_given(frame: FrameType, interrupted: FrameType) -> bool:
    """Whether a function was called with its caller's frame, as handlers of signals are.

    This finds a handler that unregisters itself before it raises.
    """
    code = frame.f_code
    if code.co_argcount < 2 and not code.co_flags & _VARARGS:  # noqa: PLR2004  # number and frame
        return False
    values = frame.f_locals.values()
    return any(
        value is interrupted or (type(value) is tuple and any(it is interrupted for it in value))
        for value in values
    )
