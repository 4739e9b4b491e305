"""Emitting to async handlers, and waiting for them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from madcrow_events import LoginEventContext

from ..measuring import OURS, Effort, Line, timed_async
from ..ours import CONTEXT, KEYWORDS, NAME, SENDER, dispatcher_of, handlers_text, many
from ..peers import installed

IS_EAGER = sys.version_info >= (3, 12)
AT_ONCE_BOUND = 0.30 if IS_EAGER else 1.0
SUSPENDED_BOUND = 0.85 if IS_EAGER else 1.0
NUMBERS = (1, 10, 100)

Emit = Callable[[], Awaitable[object]]


async def task_group(handlers: list[Any], sender: Any, **context: Any) -> None:
    """Run all handlers at the same time, as one does by hand; nothing is collected."""
    async with asyncio.TaskGroup() as group:
        for handler in handlers:
            group.create_task(handler(sender, **context))


async def typed_task_group(handlers: list[Any], context: Any) -> None:
    """Do the same with the context as one object."""
    async with asyncio.TaskGroup() as group:
        for handler in handlers:
            group.create_task(handler(context))


async def gathered(handlers: list[Any], sender: Any, **context: Any) -> list[Any]:
    """Run all handlers at the same time, and collect what they return or raise."""
    calls = [handler(sender, **context) for handler in handlers]
    return await asyncio.gather(*calls, return_exceptions=True)


def at_once() -> Any:
    """Make a handler that never suspends."""

    async def handler(sender: Any, **context: Any) -> None:
        pass

    return handler


def typed_at_once() -> Any:
    """Make a handler that takes the context as one object, and never suspends."""

    async def handler(context: LoginEventContext) -> None:
        pass

    return handler


def sleeping() -> Any:
    """Make a handler that lets the others run for one turn of the loop."""

    async def handler(sender: Any, **context: Any) -> None:
        await asyncio.sleep(0)

    return handler


def expecting() -> Any:
    """Make a handler that awaits a future, as it would for something from outside."""

    async def handler(sender: Any, **context: Any) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    return handler


def loose_emits(make: Callable[[], Any], number: int) -> tuple[dict[str, Emit], object]:
    """Return what emits with keywords, and the peers, which must be kept."""
    handlers = many(make, number)
    dispatcher, _ = dispatcher_of(handlers)
    emits: dict[str, Emit] = {
        "TaskGroup": lambda: task_group(handlers, SENDER, **KEYWORDS),
        OURS: lambda: dispatcher.emit_async(NAME, **KEYWORDS),
        "gather": lambda: gathered(handlers, SENDER, **KEYWORDS),
    }
    peers = [make_peer() for make_peer in installed()]
    for peer in peers:
        emit = peer.emit_async()
        if emit is not None:
            peer.fill(make, number)
            emits[peer.name] = emit
    return emits, peers


def typed_emits(make: Callable[[], Any], number: int) -> tuple[dict[str, Emit], object]:
    """Return what emits a context."""
    handlers = many(make, number)
    dispatcher, signal = dispatcher_of(handlers)
    return {
        "TaskGroup": lambda: typed_task_group(handlers, CONTEXT),
        OURS: lambda: dispatcher.emit_typed_async(signal, CONTEXT),
    }, None


def lines(
    title: str,
    emits_of: Callable[[Callable[[], Any], int], tuple[dict[str, Emit], object]],
    make: Callable[[], Any],
    bound: float,
) -> Iterator[Line]:
    """Yield a line for each number of handlers."""
    for number in NUMBERS:
        emits, peers = emits_of(make, number)
        with asyncio.Runner() as runner:
            yield Line(
                work=f"{title}, {handlers_text(number)}",
                contenders={name: timed_async(runner.run, emit) for name, emit in emits.items()},
                base="TaskGroup",
                bound=bound,
                calls=max(300 // number, 3),
                handlers=number,
                is_hot=number < 100,
                keeps=peers,
            )


def at_once_rows(effort: Effort) -> Iterator[Line]:
    """Await handlers that never suspend."""
    yield from lines("emit_async", loose_emits, at_once, AT_ONCE_BOUND)
    yield from lines("emit_typed_async", typed_emits, typed_at_once, AT_ONCE_BOUND)


def suspended(effort: Effort) -> Iterator[Line]:
    """Await handlers that suspend."""
    yield from lines("emit_async, sleep(0)", loose_emits, sleeping, SUSPENDED_BOUND)
    yield from lines("emit_async, a future", loose_emits, expecting, SUSPENDED_BOUND)
