"""Print how many machine instructions an emission takes, alone or against another version.

Run it from a clone with the `dev` extra installed, on a machine with valgrind::

    python tests/benchmarks/count_instructions.py
    git worktree add ../before v1.0.0
    python tests/benchmarks/count_instructions.py --against ../before

Times vary by more than a small change is worth; instructions, counted by
callgrind with a fixed hash seed, hardly vary at all. The ratio is to the bare
loop of `compare_emit.py` with as many handlers, counted in the same run, so
that another Python or compiler matters little. With `--against`, the change is
that of the ratio, and the exit status is 1 if a row got more than 3 % worse.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compare_emit
import compare_emit_async

import madcrow_events
from madcrow_events import EventDispatcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

CLONE = Path(__file__).resolve().parents[2]
WORSE = 3.0  # per cent
NUMBERS = (1, 10, 100)
# Each row runs three times: for the warm-up only, with the counted calls, for the warm-up only.
COUNTED = (False, True, False)


def warm_up(number: int) -> int:
    """Return after how many calls to so many handlers the interpreter has adapted to them."""
    return 50 + 500 // max(number, 1)


def counted_calls(number: int) -> int:
    """Return how many calls to so many handlers are counted."""
    return 50 + 2000 // max(number, 1)


def run(candidate: Callable[[], Any], calls: int) -> None:
    """Call a candidate so many times."""
    for _ in range(calls):
        candidate()


def run_async(candidate: Callable[[], Awaitable[Any]], calls: int) -> None:
    """Await a candidate so many times, in one loop."""

    async def calling() -> None:
        for _ in range(calls):
            await candidate()

    asyncio.run(calling())


def rows() -> dict[str, tuple[int, Callable[[int], None]]]:
    """Return the number of handlers of each row, and what runs it so many times."""
    found: dict[str, tuple[int, Callable[[int], None]]] = {}

    def enter(title: str, number: int, candidate: Callable[[], Any]) -> None:
        found[title] = number, partial(run, candidate)

    enter("bare loop, 0", 0, lambda: compare_emit.bare_loop([], "sender", **compare_emit.KEYWORDS))
    for number in NUMBERS:
        enter(f"bare loop, {number}", number, compare_emit.loose(number)["bare loop"])
    for number in NUMBERS:
        enter(f"loose, {number}", number, compare_emit.loose(number)["madcrow"])
    for number in NUMBERS:
        enter(f"typed, {number}", number, compare_emit.typed(number)["madcrow"])
    for number in NUMBERS:
        for title, candidate in compare_emit.shortest(number).items():
            enter(f"{title}, {number}", number, candidate)
    enter("empty", 0, compare_emit.empty()["madcrow"])
    if hasattr(EventDispatcher, "emit_async"):
        for kind, (candidates, make, _) in compare_emit_async.ROWS.items():
            for number in NUMBERS:
                candidate = candidates(make, number)["madcrow"]
                found[f"async, {kind}, {number}"] = number, partial(run_async, candidate)
    return found


def run_rows() -> None:
    """Run every row in forked children of its own; print their ids, by which callgrind reports.

    They start alike, for the parent does nothing between two of them; what
    little its own forking adds is evened out by the first and the third.
    """
    gc.disable()
    children: dict[str, list[int]] = {}
    for title, (number, run_calls) in rows().items():
        children[title] = []
        for counted in COUNTED:
            child = os.fork()
            if child == 0:
                run_calls(warm_up(number) + counted * counted_calls(number))
                os._exit(0)
            if os.waitpid(child, 0)[1] != 0:
                raise SystemExit(f"{title} failed")
            children[title].append(child)
    print(json.dumps([madcrow_events.__file__, children]))


def instructions(valgrind: str, clone: Path) -> dict[str, float]:
    """Return the instructions of one call of each row, for the package in a clone."""
    source = clone.resolve() / "src"
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                f"--log-file={log}",
                sys.executable,
                __file__,
                "--run",
            ],
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(source)},
            stdout=subprocess.PIPE,
            check=True,
        )
        reports = re.findall(r"^==(\d+)== Collected : (\d+)", log.read_text(), re.MULTILINE)
    package, children = json.loads(done.stdout)
    if not Path(package).is_relative_to(source):
        raise SystemExit(f"{package} was imported, not the package in {source}")
    collected = {int(child): int(number) for child, number in reports}
    figures = {}
    for title, (before, within, after) in children.items():
        extra = collected[within] - (collected[before] + collected[after]) / 2
        figures[title] = extra / counted_calls(handlers_of(title))
    return figures


def handlers_of(title: str) -> int:
    """Return how many handlers a row has."""
    return 0 if title == "empty" else int(title.rpartition(" ")[2])


def ratio(figures: dict[str, float], title: str) -> float:
    """Return the figure of a row as a multiple of the bare loop with as many handlers."""
    return figures[title] / figures[f"bare loop, {handlers_of(title)}"]


def show(title: str, figures: dict[str, float], before: dict[str, float] | None) -> bool:
    """Print one row; return whether it got worse by too much."""
    line = f"{title:19} {figures[title]:10.0f} {ratio(figures, title):8.3f}"
    if before is None or title not in before:
        print(line)
        return False
    change = (ratio(figures, title) / ratio(before, title) - 1) * 100
    worse = change > WORSE
    line += f"   {before[title]:10.0f} {ratio(before, title):8.3f}   {change:+6.2f} %"
    print(line + "  WORSE" * worse)
    return worse


def main() -> int:
    """Print all rows; the exit status tells whether one got worse by too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, metavar="PATH", help="a clone to compare with")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_rows()
        return 0
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        parser.error("valgrind is not installed")
    clones = [CLONE] if arguments.against is None else [CLONE, arguments.against]
    with ThreadPoolExecutor() as executor:
        figures, *others = executor.map(partial(instructions, valgrind), clones)
    before = others[0] if others else None
    print(f"Python {platform.python_version()}, instructions a call, ratios to the bare loop")
    if before is not None:
        print(f"{'':19} {'this clone':>19}   {arguments.against!s:>19}   change of the ratio")
    worse = [show(title, figures, before) for title in figures]
    return 1 if any(worse) else 0


if __name__ == "__main__":
    sys.exit(main())
