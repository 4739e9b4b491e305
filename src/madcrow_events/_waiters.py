"""Waiting for a condition, in threads and in event loops, without a lock.

A finalizer may emit in the middle of anything, so nothing here may wait for a lock that the
interrupted code has. Appending to lists and popping from them cannot be interrupted.
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
"""How many seconds pass between checks for what nobody notifies of, such as a closed loop."""


def check_seconds(
    option: str, seconds: object, *, allow_zero: bool = False, allow_none: bool = True
) -> None:
    """Refuse a time to wait that is neither a number of seconds nor None, for no limit.

    Raises:
        InvalidOptionError: it is not a positive, finite number.
    """
    if seconds is None and allow_none:
        return
    if (
        isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and (0 < seconds <= threading.TIMEOUT_MAX or (allow_zero and seconds == 0))
    ):
        return
    raise InvalidOptionError(
        f"{option} must be a number of seconds{', 0 or more' if allow_zero else ' above 0'}, such "
        f"as 2.5{', or None for no limit' if allow_none else ''}",
        option=option,
    )


class Waiters:
    """Threads and tasks that wait for a condition; code that makes it true calls `notify`.

    Args:
        look_every: how many seconds to wait at most before checking again. The condition
            may become true without `notify`, or a waiter that was notified may be gone.
    """

    __slots__ = ("_callbacks", "_look_every")

    def __init__(self, look_every: float = threading.TIMEOUT_MAX) -> None:
        self._callbacks: list[Callable[[], object]] = []
        self._look_every = look_every

    def has_waiters(self) -> bool:
        """Whether somebody waits."""
        return bool(self._callbacks)

    def notify(self, number: int | None = None) -> None:
        """Let waiters check their conditions again.

        Args:
            number: how many, the first ones first; None for all.
        """
        while self._callbacks and number != 0:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # pragma: no cover  # another thread was faster, once in a while
                return
            callback()
            number = None if number is None else number - 1

    def wait(self, is_so: Callable[[], object], timeout: float | None) -> bool:
        """Wait in a thread until a condition is true, `timeout` seconds at most.

        Returns:
            Whether it is true.
        """
        deadline = math.inf if timeout is None else monotonic() + timeout
        while not is_so():
            remaining = deadline - monotonic()
            if remaining <= 0:
                return False
            # Not a `threading.Event`: an interrupt may leave its own lock acquired.
            notice = threading.Lock()
            notice.acquire()  # until `notify` releases it
            self._callbacks.append(notice.release)
            try:
                # Once more: it may have become true before the callback was entered.
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
        """Wait in a task until a condition is true, `timeout` seconds at most.

        Returns:
            Whether it is true.

        Raises:
            EventLoopError: it is not true, and asyncio does not run here.
        """
        if is_so():
            return True
        loop = loop_to_wait_in()
        seconds = math.inf if timeout is None else timeout
        deadline = monotonic() + seconds
        # A loop may have its own clock, which runs faster in some tests.
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
