"""Print what durable events cost, beside the same work without them.

Run it from a clone, with the package and the extras `outbox` and `dev` installed::

    python -m tests.benchmarks.outbox
    python -m tests.benchmarks.outbox append drain --database sqlite

The environment variable `POSTGRES_DSN` says where PostgreSQL is. All contenders of a line take
turns, and the medians are compared. The exit status is 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ..measuring import Measured
from ..table import is_reached, shown
from .appending import append
from .databases import DATABASES
from .draining import drain
from .rounds import Effort, Rows
from .waiting import latency

ROWS: dict[str, Rows] = {"append": append, "drain": drain, "latency": latency}


def main() -> int:
    """Measure, and print."""
    description = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.outbox", description=description
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of: {', '.join(ROWS)}")
    parser.add_argument("--database", choices=DATABASES, help="only this one")
    parser.add_argument("--rounds", type=int, default=Effort.rounds, help="of each line")
    parser.add_argument("--quick", action="store_true", help="only see that all of it works")
    options = parser.parse_args()
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    effort = Effort(options.rounds, options.quick)
    results: list[Measured] = []
    for database in [options.database] if options.database else DATABASES:
        for row in options.rows or ROWS:
            with tempfile.TemporaryDirectory() as folder:
                for measured in ROWS[row](database, Path(folder), effort):
                    results.append(measured)
                    print(f"{database:<11} {shown(measured)}", flush=True)
    return 0 if all(map(is_reached, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
