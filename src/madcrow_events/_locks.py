"""The lock of this package, which is free again whatever interrupts who holds it."""

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
    """A re-entrant lock for `with`: a signal handler, or a finalizer, may emit while it is held.

    A signal handler that raises as `acquire` returns leaves a plain lock held for ever: outside
    of a `with` block on every Python, in one since 3.14. Here it is released.
    """

    def __enter__(self) -> bool:
        """Acquire it, or nothing if that is interrupted."""
        try:
            return self.acquire()
        except BaseException:
            with suppress(RuntimeError):  # interrupted before it was acquired
                self.release()
            raise

    # The `__exit__` of the base class runs as one step, which nothing interrupts.

    def run_if_free(self, function: Callable[[], object], wait: float = 0.0) -> bool:
        """Call a function under the lock, unless another thread has it; return whether it did.

        Args:
            function: the function.
            wait: how long to wait for the other thread, in seconds.
        """
        try:
            if not self.acquire(timeout=wait):
                return False
            function()
            return True
        finally:
            try:  # nothing may come before the release that could be interrupted
                self.release()
            except RuntimeError as error:  # interrupted before it was acquired, or another has it
                if is_interrupt(error):
                    raise
