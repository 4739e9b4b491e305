"""Ending by the signals of service managers and terminals."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["stopped_by_signals"]


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when SIGTERM or SIGINT comes, if this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = (signal.SIGTERM, signal.SIGINT)
    before = {it: signal.signal(it, lambda *_: stop()) for it in ends}
    try:
        yield
    finally:
        for it, handler in before.items():
            signal.signal(it, handler)
