"""Telling what a signal handler raises from what else goes wrong (F3)."""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any

__all__ = ["is_interrupt", "raise_exit"]


def is_interrupt(error: BaseException) -> bool:
    """Tell whether the handler of a signal has raised an exception, such as a time limit.

    For where anything may go wrong, and is made the best of: an interrupt goes through.
    """
    # Looked up, not imported: who never loaded it has set no handler.
    signal: Any = sys.modules.get("signal")
    if signal is None or threading.current_thread() is not threading.main_thread():
        return False
    if isinstance(error, KeyboardInterrupt):  # Python's own handler leaves no frame
        return True
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def raise_exit(error: BaseException) -> None:
    """Raise an exit that the handler of a signal has raised, such as that of Ctrl-C.

    For a handler that nobody waits for, which was running just then: the exit is recorded as its
    failure, and is for the program, too. asyncio lets only `KeyboardInterrupt` and `SystemExit`
    out of its loop.
    """
    if not isinstance(error, Exception) and is_interrupt(error):
        raise error


def _code_of(handler: Any) -> object:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return getattr(handler, "__code__", None) or getattr(type(handler).__call__, "__code__", None)
