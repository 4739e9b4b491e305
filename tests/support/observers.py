"""Observers that take notes, and ways to emit around them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import pytest

from madcrow_events import Emission, EventDispatcher, current_event
from support.waiting import LIMIT


def name_of(handler: Any) -> str:
    return handler.__name__


def noted(error: BaseException | None) -> str:
    return "" if error is None else f" {type(error).__name__}"


class Notes:
    """An observer that writes down what it sees, in a list that it may share with others."""

    def __init__(self, story: list[str], prefix: str = "") -> None:
        self.story = story
        self.prefix = prefix
        self.threads: dict[str, str] = {}
        self.current: list[tuple[str, Emission[Any] | None]] = []
        self.emissions: list[Emission[Any]] = []
        self.told: list[BaseException | None] = []
        self._open: list[None] = []

    @property
    def open(self) -> int:
        """How many have been entered, and not left."""
        return len(self._open)

    @contextmanager
    def _around(self, what: str) -> Iterator[None]:
        self._open.append(None)
        self.story.append(f"{self.prefix}> {what}")
        error: BaseException | None = None
        try:
            yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._open.pop()
            self.told.append(error)
            self.story.append(f"{self.prefix}< {what}{noted(error)}")

    def emission(self, emission: Emission[Any]) -> AbstractContextManager[None]:
        self.current.append((emission.event, current_event()))
        self.emissions.append(emission)
        return self._around(emission.event)

    def handling(self, emission: Emission[Any], handler: Any) -> AbstractContextManager[None]:
        self.current.append((name_of(handler), current_event()))
        self.threads[name_of(handler)] = threading.current_thread().name
        return self._around(name_of(handler))


def emit(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    return dispatcher.emit("thing_happened", **context)


def emit_async(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    async def main() -> Emission[Any]:
        emission = await dispatcher.emit_async("thing_happened", **context)
        await dispatcher.drain_async(LIMIT)  # before the loop ends, which has async handlers
        return emission

    return asyncio.run(main())


def emit_in_a_loop(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    async def main() -> Emission[Any]:
        emission = dispatcher.emit("thing_happened", **context)
        await dispatcher.drain_async(LIMIT)
        return emission

    return asyncio.run(main())


# Where what a handler raises has an emitter to go through to.
called_or_awaited = pytest.mark.parametrize(
    ("emitting", "is_async"), [(emit, False), (emit_async, False), (emit_async, True)]
)


each_way = pytest.mark.parametrize("emitting", [emit, emit_async, emit_in_a_loop])


class Raised(Exception):
    """What an observer raises."""


class Leaving:
    """A context manager that does as it is told when it is left."""

    def __init__(self, leave: Callable[[BaseException | None], Any]) -> None:
        self.leave = leave

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> Any:
        return self.leave(error)


def raising(*_: Any) -> Any:
    raise Raised("canary")


class Entering(Leaving):
    def __enter__(self) -> None:
        raise Raised("canary")


@contextmanager
def before_yield() -> Iterator[None]:
    raise Raised("canary")
    yield


@contextmanager
def after_yield() -> Iterator[None]:
    try:
        yield
    finally:
        raise Raised("canary")


@contextmanager
def without_yield() -> Iterator[None]:
    return
    yield


@contextmanager
def two_yields() -> Iterator[None]:
    try:
        yield
    except ValueError:
        pass
    yield


@contextmanager
def swallowing() -> Iterator[None]:
    with suppress(BaseException):
        yield


@contextmanager
def replacing() -> Iterator[None]:
    try:
        yield
    except BaseException:
        raise Raised("canary") from None


def again(error: BaseException | None) -> None:
    if error is not None:
        raise error


class AsyncManager:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


class Half:
    def __enter__(self) -> None: ...


# What an observer's method does, what is logged of it where nothing and where something is raised.
FAULTS: dict[str, tuple[Callable[[], Any], str | None, str | None]] = {
    "raises": (raising, "Raised", "Raised"),
    "raises a cancellation": (
        lambda: again(asyncio.CancelledError()),
        "CancelledError",
        "CancelledError",
    ),
    "raises on entry": (lambda: Entering(raising), "Raised", "Raised"),
    "raises before yield": (before_yield, "Raised", "Raised"),
    "raises on exit": (lambda: Leaving(raising), "Raised", "Raised"),
    "raises after yield": (after_yield, "Raised", "Raised"),
    "raises a cancellation on exit": (
        lambda: Leaving(lambda error: again(asyncio.CancelledError())),
        "CancelledError",
        "CancelledError",
    ),
    "does not yield": (without_yield, "RuntimeError", "RuntimeError"),
    "yields twice": (two_yields, "RuntimeError", "RuntimeError"),
    "returns None": (lambda: None, "AttributeError", "AttributeError"),
    "returns a number": (lambda: 1, "AttributeError", "AttributeError"),
    "returns a class": (lambda: nullcontext, "TypeError", "TypeError"),
    "returns an async manager": (AsyncManager, "AttributeError", "AttributeError"),
    "returns half a manager": (Half, "AttributeError", "AttributeError"),
    "swallows": (lambda: Leaving(lambda error: True), None, None),
    "swallows after yield": (swallowing, None, None),
    "raises the same again": (lambda: Leaving(again), None, None),
    "raises another": (replacing, None, "Raised"),
}


class Faulty:
    """An observer with a fault, around emissions or around handlers."""

    def __init__(self, fault: str, *, method: str) -> None:
        self.fault = FAULTS[fault][0]
        self.method = method

    def emission(self, emission: Emission[Any]) -> Any:
        return self.fault() if self.method == "emission" else nullcontext()

    def handling(self, emission: Emission[Any], handler: Any) -> Any:
        return self.fault() if self.method == "handling" else nullcontext()
