"""The lock of this package; an interrupt never leaves it acquired."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from madcrow_events._interrupts import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Callable

    class RLock:
        """What `threading.RLock()` returns, whose class has no public name."""

        def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...
        def release(self) -> None: ...
        def __exit__(self, *exc_info: object) -> None: ...

else:
    RLock = type(threading.RLock())

__all__ = ["Lock"]


class Lock(RLock):
    """A lock for `with`, re-entrant because a signal handler or finalizer may emit under it.

    If a signal handler raises just as `acquire` returns, a plain lock stays acquired for ever: on
    every Python outside of a `with` block, and since 3.14 inside one, too. This lock is released in
    both cases.
    """

    __slots__ = ()

    def __enter__(self) -> bool:
        """Acquire the lock; if that is interrupted, leave it free."""
        try:
            return self.acquire()
        except BaseException:
            with suppress(RuntimeError):  # interrupted before it was acquired
                self.release()
            raise

    # The `__exit__` of the base class is one step, which nothing interrupts.

    def run_if_free(self, function: Callable[[], object], wait: float = 0.0) -> bool:
        """Call a function under the lock, unless another thread has it.

        Args:
            function: the function.
            wait: how long to wait for the other thread, in seconds.

        Returns:
            Whether the function was called.
        """
        try:
            if not self.acquire(timeout=wait):
                return False
            function()
            return True
        finally:
            try:  # first, because an interrupt may come between any two steps
                self.release()
            except RuntimeError as error:  # interrupted before it was acquired, or another has it
                if is_interrupt(error):
                    raise
