"""Blocks in both of their forms, and ways to emit in them.

What holds for every form of the block and every way of emitting is told in each:
`with` and `async with`, `emit` and `emit_async`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from madcrow_events import BaseEventContext, Deferral, Emission, EventDispatcher

LONG = 10.0
"""Seconds that no test takes, unless it fails."""


class Happened(BaseEventContext):
    number: int = 0


class Failed(Exception):
    """What a block or a handler raises."""


class Block:
    """A deferral in one of its two forms, for stories that are coroutines in both."""

    def __init__(self, deferral: Deferral, *, is_async: bool) -> None:
        self.deferral = deferral
        self.is_async = is_async

    async def __aenter__(self) -> Deferral:
        if self.is_async:
            return await self.deferral.__aenter__()
        return self.deferral.__enter__()

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036  # passed on
        if self.is_async:
            await self.deferral.__aexit__(*error)
        else:
            self.deferral.__exit__(*error)


class Way(NamedTuple):
    """A form of the block, and a way to emit in it."""

    is_async: bool
    awaits: bool

    def __str__(self) -> str:
        return f"{'async with' if self.is_async else 'with'}-{'emit_async' * self.awaits or 'emit'}"

    def block(self, dispatcher: EventDispatcher) -> Block:
        return Block(dispatcher.deferred(), is_async=self.is_async)

    async def emit(
        self, dispatcher: EventDispatcher, event: Any, /, *sender: Any, **context: Any
    ) -> Emission[Any]:
        if self.awaits:
            return await dispatcher.emit_async(event, *sender, **context)
        return dispatcher.emit(event, *sender, **context)

    async def emit_typed(
        self, dispatcher: EventDispatcher, event: Any, context: BaseEventContext
    ) -> Emission[Any]:
        if self.awaits:
            return await dispatcher.emit_typed_async(event, context)
        return dispatcher.emit_typed(event, context)

    async def flush(self, deferral: Deferral) -> None:
        if self.is_async:
            await deferral.flush_async()
        else:
            deferral.flush()


in_every_way = pytest.mark.parametrize(
    "way", [Way(a, b) for a in (False, True) for b in (False, True)], ids=str
)


in_both_forms = pytest.mark.parametrize("way", [Way(False, False), Way(True, True)], ids=str)
