"""Work in other threads, which a test can see wait without hanging with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


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
