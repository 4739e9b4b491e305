"""The clock that waiting goes by, which runs on where a test has stopped the clock.

Freezing a clock is for what the application reads from it. A time to wait is real time: else
who waits for half a second in a test that has stopped the clock would wait for ever.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from madcrow_events._interrupts import suppress_but_interrupts

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator

__all__ = ["calling_later", "is_frozen", "monotonic"]

# Not `time.monotonic` itself, for who stops the clock replaces that wherever a module names it.
if hasattr(time, "clock_gettime"):
    monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
else:  # pragma: no cover  # Windows
    monotonic = partial(time.monotonic)


def is_frozen() -> bool:
    """Whether something stands in the place of the clock by which event loops wait."""
    return getattr(time.monotonic, "__self__", None) is not time


@contextmanager
def calling_later(
    loop: AbstractEventLoop, seconds: float, function: Callable[[], object]
) -> Iterator[None]:
    """Let a loop call a function after so many seconds, unless the block has ended before.

    Args:
        loop: the running loop.
        seconds: how many, of real time; `threading.TIMEOUT_MAX` at most.
        function: what is called.
    """
    if not is_frozen():
        handle = loop.call_later(seconds, function)
        try:
            yield
        finally:
            handle.cancel()
        return

    def call() -> None:
        if not is_over:
            function()

    def notify_loop() -> None:
        with suppress_but_interrupts(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(call)

    is_over = False
    timer = threading.Timer(seconds, notify_loop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        is_over = True
        timer.cancel()
