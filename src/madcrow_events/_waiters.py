"""Waiting for what happens elsewhere, in threads and in event loops, without a lock.

A finalizer may emit in the middle of anything, so nothing here may wait for a
lock that the interrupted code holds: lists are appended to and popped from,
which cannot be interrupted.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._clock import calling_later, is_frozen, monotonic
from madcrow_events._interrupts import suppress_but_interrupts
from madcrow_events._other_loops import loop_to_wait_in
from madcrow_events.exceptions import InvalidOptionError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["LOOK_EVERY", "Waiters", "check_seconds"]

LOOK_EVERY = 0.1
"""Seconds between looks at what may end without a notice, such as an event loop that is closed."""


def check_seconds(option: str, seconds: object, *, allow_zero: bool = False) -> None:
    """Refuse what is no time to wait; None, for as long as it takes, is one.

    Raises:
        InvalidOptionError: it is no positive, finite number.
    """
    if seconds is None:
        return
    if (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and (0 < seconds <= threading.TIMEOUT_MAX or (allow_zero and seconds == 0))
    ):
        return
    raise InvalidOptionError(
        f"{option} must be a number of seconds{', 0 or more' if allow_zero else ' above 0'}, such "
        "as 2.5, or None for no limit",
        option=option,
    )


class Waiters:
    """Those who wait until something is so; whoever makes it so calls `notify`.

    Args:
        look_every: how many seconds to wait at most before looking again, for what
            becomes so without `notify`, or for who was notified and went away.
    """

    __slots__ = ("_callbacks", "_look_every")

    def __init__(self, look_every: float = threading.TIMEOUT_MAX) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._look_every = look_every

    def notify(self, number: int | None = None) -> None:
        """Let those who wait look again: all, or so many of those who came first."""
        while self._callbacks and number != 0:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # pragma: no cover  # another thread was faster, once in a while
                return
            callback()
            number = None if number is None else number - 1

    def wait(self, is_so: Callable[[], object], timeout: float | None) -> bool:
        """Wait in a thread; return whether it is so, after `timeout` seconds at most."""
        deadline = math.inf if timeout is None else monotonic() + timeout
        while not is_so():
            remaining = deadline - monotonic()
            if remaining <= 0:
                return False
            # An event of `threading` has a lock of its own, which an interrupt leaves held.
            notice = threading.Lock()
            notice.acquire()  # whoever notifies releases it
            self._callbacks.append(notice.release)
            try:
                # Again, for it may have become so before anybody could be notified.
                if is_so():
                    return True
                notice.acquire(timeout=min(remaining, self._look_every))
            finally:
                self._forget(notice.release)
        return True

    async def wait_async(
        self,
        is_so: Callable[[], object],
        timeout: float | None,
    ) -> bool:
        """Wait in a task; return whether it is so, after `timeout` seconds at most.

        Raises:
            EventLoopError: it is not so, and asyncio does not run here.
        """
        if is_so():
            return True
        loop = loop_to_wait_in()
        seconds = math.inf if timeout is None else timeout
        deadline = monotonic() + seconds
        # A loop may have a clock of its own, which a test lets run faster.
        deadline_of_loop = math.inf if is_frozen() else loop.time() + seconds
        while not is_so():
            remaining = deadline - monotonic()
            if remaining <= 0 or (loop.time() >= deadline_of_loop and not is_frozen()):
                return False
            wake = loop.create_future()

            def notify(wake: asyncio.Future[None] = wake) -> None:
                with suppress_but_interrupts(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(_resolve, wake)

            self._callbacks.append(notify)
            try:
                if is_so():
                    return True
                with calling_later(loop, min(remaining, self._look_every), partial(_resolve, wake)):
                    await wake
            finally:
                self._forget(notify)
        return True

    def _forget(self, callback: Callable[[], object]) -> None:
        with suppress(ValueError):
            self._callbacks.remove(callback)


def _resolve(future: Any) -> None:
    if not future.done():
        future.set_result(None)
