"""Starting threads; an interrupt loses neither a thread nor the right to start one."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from madcrow_events._clock import monotonic
from madcrow_events._interrupts import interrupt_behind
from madcrow_events._moves import move_all, move_last

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["join_threads", "start_thread"]


def start_thread(
    target: Callable[..., None],
    name: str,
    startable: list[None],
    threads: list[threading.Thread],
    *arguments: object,
    make: type[threading.Thread] = threading.Thread,
) -> threading.Thread | None:
    """Start a thread, if one more may be started.

    Args:
        target: the function that it calls.
        name: the thread's name.
        startable: one entry for each thread that may still be started.
        threads: gets the thread.
        arguments: the arguments of the target.
        make: the thread's class.

    Returns:
        The thread; None if none can be started, as at the exit of the interpreter.
    """
    handled = sys.exception()
    permit: list[None] = []
    unbegun: list[None] = [None]
    thread = make(target=_begin, args=(unbegun, target, *arguments), name=name, daemon=True)
    try:
        move_last(startable, permit)
        threads.append(thread)
        thread.start()
    except BaseException as error:
        # A `start` that was interrupted may have started the thread all the same.
        if _claim_start(unbegun):
            with suppress(ValueError):
                threads.remove(thread)
            move_all(permit, startable)
        interrupt = interrupt_behind(error, handled)
        if interrupt is not None and interrupt is not error:
            raise interrupt from None
        if interrupt is None and isinstance(error, IndexError | RuntimeError | MemoryError):
            return None
        raise
    return thread


def _begin(unbegun: list[None], target: Callable[..., None], *arguments: object) -> None:
    """Call the target of a thread, unless the one that starts it has given up."""
    if _claim_start(unbegun):
        target(*arguments)


def _claim_start(unbegun: list[None]) -> bool:
    """Return whether the caller is the first to claim a thread's start.

    The new thread claims the start in order to begin; the thread that starts it claims the start
    in order to give up.
    """
    try:
        unbegun.pop()
    except IndexError:
        return False
    return True


def join_threads(threads: Iterable[threading.Thread | None], deadline: float) -> None:
    """Wait until threads have ended, or until the clock shows `deadline`."""
    for thread in threads:
        if thread is not None and thread is not threading.current_thread():
            thread.join(min(max(0, deadline - monotonic()), threading.TIMEOUT_MAX))
