"""Ways to reach async handlers, and to wait for what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from madcrow_events import BaseEventContext, Emission, EventDispatcher

KEYWORDS: dict[str, Any] = {"user_id": 1, "email": "a@b.c"}


def run(story: Coroutine[Any, Any, Any]) -> Any:
    """Run a story in a loop of its own; an interrupt that leaves it is no end of the tests."""
    try:
        return asyncio.run(story)
    except KeyboardInterrupt:
        pytest.fail("a KeyboardInterrupt went past the emitter")


async def awaited(emission: Emission[Any]) -> Emission[Any]:
    async with asyncio.timeout(10):
        await emission.wait_async()
    return emission


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # what is waited for may happen in another thread
            await asyncio.sleep(0.001)


class Emits:
    """One of the ways in which an async handler can be reached; to its end in each."""

    def __init__(self, mode: str, dispatcher: EventDispatcher) -> None:
        self.mode = mode
        self.dispatcher = dispatcher

    def __call__(self, event: Any, sender: Any = None, **context: Any) -> Emission[Any]:
        """Emit with keywords."""
        return self._ended(
            lambda: self.dispatcher.emit(event, sender, **context),
            lambda: self.dispatcher.emit_async(event, sender, **context),
        )

    def typed(self, event: Any, context: BaseEventContext, sender: Any = None) -> Emission[Any]:
        """Emit with a model."""
        return self._ended(
            lambda: self.dispatcher.emit_typed(event, context, sender),
            lambda: self.dispatcher.emit_typed_async(event, context, sender),
        )

    def _ended(self, emit: Callable[[], Any], emit_async: Callable[[], Any]) -> Emission[Any]:
        async def in_a_loop() -> Emission[Any]:
            if self.mode == "emit_async":
                emission = await emit_async()
            else:
                emission = emit()
            await awaited(emission)
            # Announcements of failures come after the handlers.
            assert await self.dispatcher.drain_async(timeout=10)
            return emission

        if self.mode != "emit outside of a loop":
            return run(in_a_loop())
        emission: Emission[Any] = emit()
        assert emission.wait(timeout=10)
        assert self.dispatcher.drain(timeout=10)
        return emission


async def fail() -> None:
    raise ValueError("on purpose")


async def fail_later() -> None:
    await asyncio.sleep(0)
    raise ValueError("on purpose")


async def plainly(sender: Any, **context: Any) -> str:
    return "function"


class Owner:
    async def method(self, sender: Any, **context: Any) -> str:
        await asyncio.sleep(0)
        return "method"

    @classmethod
    async def of_class(cls, sender: Any, **context: Any) -> str:
        return cls.__name__

    @staticmethod
    async def static(sender: Any, **context: Any) -> str:
        return "static"

    async def __call__(self, sender: Any, **context: Any) -> str:
        await asyncio.sleep(0)
        return "object"


OWNER = Owner()
