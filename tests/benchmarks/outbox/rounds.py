"""Contenders that take turns, and the medians of what they cost."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..measuring import OURS, Line, Measured

__all__ = ["Effort", "Rows", "compare", "report"]


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        rounds: how many rounds each line has.
        is_quick: whether everything is done a few times only: to see that it works.
    """

    rounds: int = 15
    is_quick: bool = False

    def size(self, full: int) -> int:
        """Return how many of something to do."""
        return max(full // 50, 2) if self.is_quick else full

    @property
    def turns(self) -> int:
        """How many rounds each line has."""
        return 1 if self.is_quick else self.rounds


Rows: TypeAlias = Callable[[str, Path, Effort], Iterator[Measured]]


def compare(
    row: str,
    work: str,
    bound: float | None,
    effort: Effort,
    contenders: Mapping[str, Callable[[], float]],
) -> Measured:
    """Let contenders take turns; return the medians of their costs.

    Args:
        row: the row.
        work: what they do.
        bound: what ours must reach, as a multiple of the first one.
        effort: how much is done.
        contenders: by their names, what each returns the cost of, in microseconds.
    """
    if not effort.is_quick:
        for act in contenders.values():
            act()  # fills caches
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(effort.turns):
        for name, act in contenders.items():
            gc.collect()
            taken[name].append(act())
    costs = {name: statistics.median(it) for name, it in taken.items()}
    base = next(name for name in contenders if name != OURS)
    line = Line(work=work, contenders={}, base=base, bound=bound, unit="us")
    return Measured(row, line, costs)


def report(row: str, work: str, cost: float, unit: str = "ms") -> Measured:
    """Return a line that is compared with nothing."""
    return Measured(row, Line(work=work, contenders={}, unit=unit), {OURS: cost})
