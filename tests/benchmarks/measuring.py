"""What is measured, and how those that are compared take turns."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

OURS = "madcrow"
"""The name of this package in each line."""

Act: TypeAlias = Callable[[], object]
Contender: TypeAlias = Callable[[int], float]
"""Acts so many times, and returns the cost of one act in the unit of its line."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the table: some work, done by several contenders.

    Attributes:
        work: what they do.
        contenders: who does it; one of them is `OURS`.
        base: the contender whose cost counts as 1; None if costs are compared with the bound.
        bound: what we must reach, as a multiple of the base, or in the unit; None for no bound.
        unit: the unit of the costs.
        calls: how many times each acts in a round.
        rounds: how many rounds suffice, however many are asked for.
        collects: whether the collector of garbage is on.
        handlers: how many handlers are called.
        is_hot: whether the instructions of this line are counted and recorded.
        leads: whether we must also be ahead of every peer.
        keeps: what must not be collected before all is measured.
        at: the place on the horizontal axis of a picture, for a line that is part of a curve.
    """

    work: str
    contenders: Mapping[str, Contender]
    base: str | None = None
    bound: float | None = None
    unit: str = "ns"
    calls: int = 1000
    rounds: int = sys.maxsize
    collects: bool = False
    handlers: int = 1
    is_hot: bool = False
    leads: bool = False
    keeps: object = None
    at: int | None = None


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        rounds: how many rounds each line has at most; the best one counts.
        seconds: after how many seconds a line has no further round.
        is_quick: whether each act is done once, and all that is large is small: to see that it
            works, not what it costs.
    """

    rounds: int = 30
    seconds: float = 10
    is_quick: bool = False

    def size(self, full: int) -> int:
        """Return how many of something to make."""
        return max(full // 100, 1) if self.is_quick else full


Row: TypeAlias = Callable[[Effort], Iterator[Line]]


@dataclass(frozen=True)
class Measured:
    """A line with the least costs that were found."""

    row: str
    line: Line
    costs: Mapping[str, float]

    def ratio(self, name: str) -> float:
        """Return the cost of a contender as a multiple of the base, or as it is."""
        base = self.line.base
        return self.costs[name] / (1 if base is None else self.costs[base])

    @property
    def holds(self) -> bool:
        """Whether we keep within the bound, if there is one."""
        return self.line.bound is None or self.ratio(OURS) <= self.line.bound


def measure(row: str, line: Line, effort: Effort) -> Measured:
    """Let the contenders of a line take turns, and keep the least cost of each.

    A first round is not counted: caches are filled, and since 3.11 the interpreter adapts code to
    what it meets, which takes it some dozens of calls.
    """
    if effort.is_quick:
        return Measured(row, line, {name: it(1) for name, it in line.contenders.items()})
    costs = dict.fromkeys(line.contenders, float("inf"))
    if line.rounds > 1:
        for contender in line.contenders.values():
            contender(line.calls)
    gc.collect()
    gc.freeze()  # what is there already is not looked at by collections
    if not line.collects:
        gc.disable()
    try:
        ends = time.monotonic() + effort.seconds
        for _ in range(min(effort.rounds, line.rounds)):
            for name, contender in line.contenders.items():
                costs[name] = min(costs[name], contender(line.calls))
            if not line.collects:
                gc.collect()
            if time.monotonic() > ends:
                break
    finally:
        gc.enable()
        gc.unfreeze()
    return Measured(row, line, costs)


def timed(act: Act, acts: int = 1) -> Contender:
    """Return a contender that calls a function; each call counts as so many acts."""

    def run(calls: int) -> float:
        started = time.perf_counter_ns()
        for _ in repeat(None, calls):
            act()
        return (time.perf_counter_ns() - started) / (calls * acts)

    return run


def timed_async(
    run_in_loop: Callable[[Any], float], act: Callable[[], Awaitable[object]]
) -> Contender:
    """Return a contender that awaits what a function returns, in a loop that others use, too."""

    async def run(calls: int) -> float:
        started = time.perf_counter_ns()
        for _ in repeat(None, calls):
            await act()
        return (time.perf_counter_ns() - started) / calls

    return lambda calls: run_in_loop(run(calls))


def once(act: Act, *, divisor: float = 1) -> Contender:
    """Return a contender that acts once a round, whatever the number of calls.

    Args:
        act: what it does.
        divisor: by what the nanoseconds are divided: the number of acts in it, or a unit.
    """

    def run(_calls: int) -> float:
        started = time.perf_counter_ns()
        act()
        return (time.perf_counter_ns() - started) / divisor

    return run
