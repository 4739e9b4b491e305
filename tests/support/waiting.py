"""Waiting that ends, for what happens in other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

LIMIT = 20  # seconds after which a test gives up; nothing takes near as long


def elsewhere(work: Callable[[], Any]) -> Future[Any]:
    """Do the work in a thread of its own, with an empty context."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def eventually(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + LIMIT
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return bool(condition())
