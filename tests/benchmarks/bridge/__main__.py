"""Print how many events a bridge carries in a second, beside a raw client of the same broker.

Run it from a clone, with the package and the extras `bridge`, `dev` and `faststream[nats]` and so
on installed::

    python -m tests.benchmarks.bridge
    python -m tests.benchmarks.bridge nats --rounds 5

The raw client publishes message by message and waits for each acknowledgement; another process
receives them and acknowledges each. With a bridge, a service commits the events to its outbox, and
another one handles them from its own. The environment variables `NATS_URL`, `REDIS_URL` and
`RABBITMQ_URL` say where the brokers are. The exit status is 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from .carrying import carried
from .raw import BROKERS, raw

BOUND = 0.3
"""What a bridge must reach of the raw client."""


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bridge")
    parser.add_argument("brokers", nargs="*", metavar="broker", help=f"of: {', '.join(BROKERS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each broker")
    parser.add_argument("--events", type=int, default=2000, help="in each round")
    options = parser.parse_args()
    unknown = [it for it in options.brokers if it not in BROKERS]
    if unknown:
        parser.error(f"no such broker: {', '.join(unknown)}")
    is_reached = True
    for broker in options.brokers or BROKERS:
        rates: dict[str, list[float]] = {"raw client": [], "bridge": [], "bridge, 1,000 keys": []}
        for _ in range(options.rounds):
            rates["raw client"].append(raw(broker, options.events))
            for name, keys in (("bridge", 0), ("bridge, 1,000 keys", 1000)):
                with tempfile.TemporaryDirectory() as folder:
                    rates[name].append(carried(broker, options.events, keys, Path(folder)))
        medians = {name: statistics.median(it) for name, it in rates.items()}
        for name, rate in medians.items():
            ratio = rate / medians["raw client"]
            print(f"{broker:<9} {name:<20} {rate:>7,.0f} events/s   {ratio:.2f}", flush=True)
            is_reached = is_reached and ratio >= BOUND
    return 0 if is_reached else 1


if __name__ == "__main__":
    sys.exit(main())
