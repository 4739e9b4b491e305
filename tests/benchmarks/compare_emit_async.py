"""Print how much an awaited emission costs, as ratios against a task group and peers.

Run it from a clone with the `dev` extra installed::

    python tests/benchmarks/compare_emit_async.py

Every figure of a row comes from the same run: the candidates take turns, round
by round, in one running event loop, and the ratio is taken between the medians
of their rounds. The task group makes a task for each handler, with the same
keywords, and waits for them; it collects no results and isolates nobody, which
is what one writes by hand. blinker awaits one receiver after the other.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import blinker
from compare_emit import CONTEXT, KEYWORDS, NAME, registry, show

from madcrow_events import LoginEventContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EAGER = sys.version_info >= (3, 12)
AT_ONCE_BOUND = 0.35 if EAGER else 1.15
SUSPENDING_BOUND = 1.05 if EAGER else 1.15
NUMBERS = (1, 10, 100)


async def task_group(handlers: list[Any], sender: Any, **context: Any) -> None:
    """Run all handlers at the same time, with the context as keywords."""
    async with asyncio.TaskGroup() as group:
        for handler in handlers:
            group.create_task(handler(sender, **context))


async def typed_task_group(handlers: list[Any], context: LoginEventContext) -> None:
    """Run all handlers at the same time, with the context as one object."""
    async with asyncio.TaskGroup() as group:
        for handler in handlers:
            group.create_task(handler(context))


async def gathered(handlers: list[Any], sender: Any, **context: Any) -> list[Any]:
    """Run all handlers at the same time, and collect what they return or raise."""
    calls = [handler(sender, **context) for handler in handlers]
    return await asyncio.gather(*calls, return_exceptions=True)


async def typed_gathered(handlers: list[Any], context: LoginEventContext) -> list[Any]:
    """Do the same with the context as one object."""
    calls = [handler(context) for handler in handlers]
    return await asyncio.gather(*calls, return_exceptions=True)


def at_once() -> Any:
    """Make a handler that takes keywords and never suspends."""

    async def handler(sender: Any, **context: Any) -> None:
        pass

    return handler


def typed_at_once() -> Any:
    """Make a handler that takes the context as one object and never suspends."""

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


def loose(make: Callable[[], Any], number: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Emissions with keywords."""
    handlers = [make() for _ in range(number)]
    dispatcher, _ = registry(handlers)
    peer = blinker.NamedSignal(NAME)
    for handler in handlers:
        peer.connect(handler, weak=False)
    return {
        "TaskGroup": lambda: task_group(handlers, "sender", **KEYWORDS),
        "madcrow": lambda: dispatcher.emit_async(NAME, **KEYWORDS),
        "gather": lambda: gathered(handlers, "sender", **KEYWORDS),
        "blinker": lambda: peer.send_async("sender", **KEYWORDS),
    }


def typed(make: Callable[[], Any], number: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Emissions with a context model, to handlers that take it."""
    handlers = [make() for _ in range(number)]
    dispatcher, signal = registry(handlers)
    return {
        "TaskGroup": lambda: typed_task_group(handlers, CONTEXT),
        "madcrow": lambda: dispatcher.emit_typed_async(signal, CONTEXT),
        "by name": lambda: dispatcher.emit_typed_async(NAME, CONTEXT),
        "gather": lambda: typed_gathered(handlers, CONTEXT),
    }


ROWS = {
    "at once": (loose, at_once, AT_ONCE_BOUND),
    "typed": (typed, typed_at_once, AT_ONCE_BOUND),
    "sleep(0)": (loose, sleeping, SUSPENDING_BOUND),
    "future": (loose, expecting, SUSPENDING_BOUND),
}


async def measured(
    candidates: dict[str, Callable[[], Awaitable[Any]]], calls: int, rounds: int
) -> dict[str, float]:
    """Return the median time of an awaited call, in nanoseconds, for candidates in turns."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        await candidate()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, candidate in candidates.items():
                started = time.perf_counter_ns()
                for _ in range(calls):
                    await candidate()
                times[name].append((time.perf_counter_ns() - started) / calls)
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in times.items()}


async def all_rows(rounds: int) -> bool:
    """Print all rows; return whether every bound holds."""
    held = []
    for title, (candidates, make, bound) in ROWS.items():
        for number in NUMBERS:
            figures = await measured(candidates(make, number), 500 // number, rounds)
            held.append(show(f"{title}, {number}", "TaskGroup", figures, bound))
    return all(held)


def main() -> int:
    """Print all rows; the exit status tells whether every bound holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=101, help="rounds of each row")
    rounds = parser.parse_args().rounds
    print(f"Python {platform.python_version()}, ratios to the first column, medians of {rounds}")
    return 0 if asyncio.run(all_rows(rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
