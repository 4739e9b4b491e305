"""Counting the machine instructions of the hot lines.

Times vary by more than a small change is worth; instructions, counted by callgrind with a fixed
hash seed, hardly vary at all. They are told as multiples of the bare loop with as many handlers,
counted in the same run, so that another compiler matters little.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NoReturn

import madcrow_events

from .measuring import OURS, Contender, Effort
from .peers import leave_out_all
from .rows import HOT, ROWS
from .rows.emitting import loose_line

CLONE = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).with_name("instructions.json")
WORSE = 3.0  # per cent
BARE = (0, 1, 10, 100)
# A line runs three times: for the warm-up only, with the counted calls, for the warm-up only.
COUNTED = (False, True, False)

PYTHON = f"{platform.python_version()}, {platform.python_compiler()}"
"""What the recorded values are for: another build takes other instructions."""


def main(
    rows: list[str], *, against: Path | None, recorded: Path, check: bool, record: bool
) -> int:
    """Count, print, and compare or record.

    Args:
        rows: the names of the rows.
        against: a clone to compare with.
        recorded: the file with the recorded multiples of each Python.
        check: whether to compare with that file.
        record: whether to write it.

    Returns:
        1 if a line got worse by too much, 2 if nothing can be compared, else 0.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind is not installed, which counts instructions", file=sys.stderr)
        return 2
    of_all = json.loads(recorded.read_text(encoding="utf-8")) if recorded.exists() else {}
    if check and PYTHON not in of_all:
        print(f"nothing is recorded for Python {PYTHON}: record it", file=sys.stderr)
        return 2
    clones = [CLONE] if against is None else [CLONE, against]
    with ThreadPoolExecutor() as executor:
        counts = [*executor.map(partial(count, valgrind, rows), clones)]
    now = ratios(counts[0])
    before = ratios(counts[1]) if against else of_all[PYTHON] if check else None
    print(f"Python {PYTHON}, instructions of an act, as multiples of the bare loop")
    worse = [is_worse(work, counts[0][work][1], ratio, before) for work, ratio in now.items()]
    if record:
        of_all[PYTHON] = {**of_all.get(PYTHON, {}), **{it: round(now[it], 3) for it in now}}
        recorded.write_text(json.dumps(of_all, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return 1 if any(worse) else 0


Counts = Mapping[str, tuple[int, float]]
"""How many handlers each work has, and how many instructions it takes."""


def ratios(counts: Counts) -> dict[str, float]:
    """Return the instructions of our lines as multiples of the bare loop."""
    return {
        work: instructions / counts[bare_loop(handlers)][1]
        for work, (handlers, instructions) in counts.items()
        if work != bare_loop(handlers)
    }


def is_worse(
    work: str, instructions: float, ratio: float, before: Mapping[str, float] | None
) -> bool:
    """Print a line, and return whether it got worse by too much."""
    line = f"{work:<50} {instructions:>11.0f} {ratio:>9.3f}"
    if before is None:
        print(line)
        return False
    if work not in before:
        print(line, "  not there before")
        return False
    change = (ratio / before[work] - 1) * 100
    verdict = "  WORSE" if change > WORSE else "  better: record it" if change < -WORSE else ""
    print(f"{line}   before {before[work]:>9.3f}   {change:+7.2f} %{verdict}")
    return change > WORSE


def count(valgrind: str, rows: list[str], clone: Path) -> Counts:
    """Return the instructions of each hot line, for the package in a clone."""
    source = clone.resolve() / "src"
    searched = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                f"--log-file={log}",
                *(sys.executable, "-m", f"{__package__}.instructions", *rows),
            ],
            cwd=CLONE,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(searched)},
            stdout=subprocess.PIPE,
            check=True,
        )
        reports = re.findall(r"^==(\d+)== Collected : (\d+)", log.read_text(), re.MULTILINE)
    package, works = json.loads(done.stdout)
    if not Path(package).is_relative_to(source):
        raise SystemExit(f"{package} was imported, not the package in {source}")
    collected = {int(child): int(number) for child, number in reports}
    found = {}
    for work, handlers, calls, (before, within, after) in works:
        extra = collected[within] - (collected[before] + collected[after]) / 2
        found[work] = handlers, extra / calls
    return found


def bare_loop(handlers: int) -> str:
    """Return the name of the bare loop with so many handlers."""
    return f"bare loop, {handlers}"


def hot_works(rows: Iterable[str]) -> Iterator[tuple[str, int, int, Contender]]:
    """Yield the works to count, with their handlers, the calls to count, and who does them."""
    for number in BARE:
        line = loose_line(number, None)
        yield bare_loop(number), number, line.calls, line.contenders["bare loop"]
    for row in rows:
        for line in ROWS[row](Effort()):
            if line.is_hot:
                yield line.work, line.handlers, line.calls, line.contenders[OURS]


def run_in_children(rows: Iterable[str]) -> None:
    """Do each work in forked children; print their ids, by which callgrind reports.

    They start alike, for the parent does nothing between two of them; what little its own forking
    adds is evened out by the first and the third. The warm-up is for the interpreter, which since
    3.11 adapts code to what it meets.
    """
    gc.disable()
    leave_out_all()  # or the figures would depend on what is installed
    works = []
    for work, handlers, calls, contender in hot_works(rows):
        children = []
        for is_counted in COUNTED:
            child = os.fork()
            if child == 0:
                act_and_exit(contender, 60 + calls // 4 + calls * is_counted)
            if os.waitpid(child, 0)[1] != 0:
                raise SystemExit(f"{work} failed")
            children.append(child)
        works.append((work, handlers, calls, children))
    print(json.dumps([madcrow_events.__file__, works]))


def act_and_exit(contender: Contender, calls: int) -> NoReturn:
    """Act so many times, and end the process before anything of its parent's is ended."""
    try:
        contender(calls)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    run_in_children(sys.argv[1:] or HOT)
