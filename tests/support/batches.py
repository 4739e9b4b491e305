"""Handlers of batches, plain and async, and what they keep."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from madcrow_events import BaseEventContext, Emission, EventDispatcher
from support.waiting import LIMIT

HOUR = 3600.0
NAME = "thing_happened"


class ThingContext(BaseEventContext):
    number: int


def handler_of(work: Callable[[Any], Any], is_async: bool) -> Callable[[Any], Any]:
    """Return a handler for batches that does the work, with its annotations."""

    @functools.wraps(work)
    async def handler(batch: Any) -> Any:
        return work(batch)

    return handler if is_async else work


def numbers(batch: Any) -> list[Any]:
    return [context["number"] for context in batch]


class Kept:
    """Keeps the numbers of each batch, and lets a test wait for the next."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self._arrived = threading.Semaphore(0)

    def __call__(self, batch: Any) -> int:
        self.batches.append(numbers(batch))
        self._arrived.release()
        return len(batch)

    @property
    def numbers(self) -> list[Any]:
        return [number for batch in self.batches for number in batch]

    def await_one(self) -> list[Any]:
        assert self._arrived.acquire(timeout=LIMIT)
        return self.batches[-1]


def emit_numbers(dispatcher: EventDispatcher, *given: int, name: str = NAME) -> list[Emission[Any]]:
    return [dispatcher.emit(name, number=number) for number in given]


def values_of(emission: Emission[Any]) -> list[Any]:
    return [result.value for result in emission.results]


def run_python(source: str, *arguments: str) -> str:
    """Run a program in an interpreter of its own; return what it wrote."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr
