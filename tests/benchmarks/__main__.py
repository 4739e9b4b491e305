"""Print what events cost, beside other libraries.

Run it from a clone, with the package and the extra `bench` installed::

    python -m tests.benchmarks
    python -m tests.benchmarks emit async

All contenders of a line take turns in one process, and the least cost of each counts. The exit
status is 1 if a bound is missed, or a peer is ahead where none must be.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from . import instructions
from .measuring import Effort, Measured, measure
from .page import ROOT, write_page
from .peers import PEERS, missing, versions
from .pictures import draw
from .rows import ROWS
from .table import as_json, is_reached, notes, shown


def main() -> int:
    """Measure, and print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=description)
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="of each line at most")
    parser.add_argument("--seconds", type=float, default=Effort.seconds, help="the same")
    parser.add_argument("--quick", action="store_true", help="only see that all of it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="write pictures there")
    page = "write what the page of the costs shows of this Python; for all rows"
    parser.add_argument("--page", action="store_true", help=page)
    counting = parser.add_argument_group("instructions, counted by valgrind's callgrind")
    counting.add_argument("--instructions", action="store_true", help="count those of hot lines")
    counting.add_argument("--against", type=Path, metavar="CLONE", help="compare with it")
    counting.add_argument("--check", action="store_true", help="compare with what is recorded")
    counting.add_argument("--record", action="store_true", help="record what is counted")
    counting.add_argument("--recorded", type=Path, default=instructions.RECORDED, metavar="FILE")
    options = parser.parse_args()
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    if options.page and options.rows:
        parser.error("--page is for all rows: leave their names out")
    if options.page and missing():
        parser.error(f"--page compares with all libraries: install {', '.join(missing())}")
    if options.instructions or options.against or options.check or options.record:
        return instructions.main(
            options.rows,
            against=options.against,
            recorded=options.recorded,
            check=options.check,
            record=options.record,
        )
    effort = Effort(options.rounds, options.seconds, options.quick)
    print(f"Python {platform.python_version()}; multiples of the base, the best of the rounds")
    if missing():
        print(f"not installed, so left out: {', '.join(missing())}")
    results: list[Measured] = []
    for row in options.rows or ROWS:
        for line in ROWS[row](effort):
            results.append(measure(row, line, effort))
            print(shown(results[-1]), flush=True)
    print("", "What the peers leave out:", *notes(results), sep="\n")
    if options.json:
        written = {
            "python": platform.python_version(),
            "peers": versions(),
            "left out": {peer.name: peer.leaves_out for peer in PEERS},
            "lines": as_json(results),
        }
        options.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    if options.svg:
        draw(results, options.svg)
    if options.page:
        write_page(results, ROOT, "{}.{}".format(*sys.version_info))
    return 0 if all(map(is_reached, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
