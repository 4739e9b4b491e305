"""Ending by the signals of service managers and terminals."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["stopped_by_signals"]


@contextmanager
def stopped_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call a function when SIGTERM or SIGINT comes, if this is the main thread.

    Args:
        stop: the function. After it has returned something true, the signals do what they did
            before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Any] = {}

    def restore() -> None:
        for it, handler in before.items():
            signal.signal(it, handler)

    def end(*_: object) -> None:
        if stop():
            restore()

    before.update((it, signal.signal(it, end)) for it in (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        restore()
