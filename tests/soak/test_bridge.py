"""Services with a broker between them are killed at random moments: nothing is lost (D11).

The process that receives, the one that sends and the broker are killed while producers emit. No
event is lost, each is taken in once, and those of a key keep their order where the broker keeps it.
The same driver shows the faults of bridges that are wrong on purpose.
"""

from __future__ import annotations

import random
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("faststream")
pytest.importorskip("sqlalchemy")

from support.brokers import Server
from support.ferry import Counts, Ferry, a_ferry, count, drain
from support.nursery import Nursery
from support.two_services import BROKERS

pytestmark = [
    pytest.mark.soak,
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL"),
]

DEATHS = {"receive": 100, "send": 50, "broker": 10}
LIMIT = 800.0  # seconds for all deaths; a machine of two processors needs a third of it


class Driver:
    """Starts the processes, kills one after another, and starts another in its place.

    Args:
        nursery: starts processes.
        ferry: what they do.
        server: the broker.
        seed: of the moments.
        receivers: how many processes there are to receive; one of them does.
    """

    def __init__(
        self, nursery: Nursery, ferry: Ferry, server: Server, seed: str, receivers: int
    ) -> None:
        self._nursery = nursery
        self._ferry = ferry
        self._server = server
        self._chance = random.Random(seed)  # noqa: S311  # nobody needs to guess it
        self._started = 0
        crew = {"produce": 2, "send": 1, "receive": receivers}
        self._alive = {
            role: deque(self._start(role) for _ in range(number)) for role, number in crew.items()
        }
        self.codes: list[int] = []
        """Those of processes that ended by themselves."""

    def _start(self, role: str) -> int:
        self._started += 1
        names = (f"producer-{self._started}",) if role == "produce" else ()
        return self._nursery.start(role, self._ferry.arguments, *names)

    def kill(self, deaths: dict[str, int]) -> None:
        """Kill at random moments, and at the end all processes.

        Args:
            deaths: how often processes of each role die, and the broker.
        """
        turns = [what for what, number in deaths.items() for _ in range(number)]
        self._chance.shuffle(turns)
        end = time.monotonic() + LIMIT
        for what in turns:
            assert time.monotonic() < end, "it takes too long"
            self._wait(what)
            if what == "broker":
                self._server.stop()
                time.sleep(self._chance.uniform(0.0, 0.3))
                self._server.start()
            else:
                self._replace(what)
        for process in [it for alive in self._alive.values() for it in alive]:
            self._bury(process)

    def _wait(self, what: str) -> None:
        """Wait for a random moment: at any time, or when there is something to break."""
        if what == "receive" and (self._ferry.fault or self._chance.random() < 0.5):
            self._ferry.wait_for_arrivals()
            time.sleep(self._chance.uniform(0.0, 0.1))
        else:
            longest = 0.5 if what == "send" else self._ferry.longest_pause
            time.sleep(self._chance.uniform(0.05, longest))

    def _replace(self, role: str) -> None:
        """Kill the oldest process of a role, which is the one at work if others stand by."""
        alive = self._alive[role]
        self._bury(alive.popleft())
        alive.append(self._start(role))

    def _bury(self, process: int) -> None:
        code = self._nursery.kill(process)
        if code != -signal.SIGKILL:
            self.codes.append(code)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery("support.ferry") as nursery:
        yield nursery


def killed(
    nursery: Nursery,
    kind: str,
    folder: Path,
    deaths: dict[str, int],
    receivers: int = 1,
    fault: str = "",
) -> Counts:
    """Return what came of a ferry whose processes were killed."""
    (folder / "broker").mkdir()
    with (
        BROKERS[kind](folder / "broker") as server,
        a_ferry(kind, server.url, folder, fault=fault) as ferry,
    ):
        started = time.monotonic()
        driver = Driver(nursery, ferry, server, f"{kind} {fault} {receivers}", receivers)
        driver.kill(deaths)
        took = time.monotonic() - started
        drain(ferry)
        counts = count(ferry)
    died = ", ".join(f"{number} x {what}" for what, number in deaths.items())
    print(f"\n{kind}, {fault or 'as it is'}: deaths {died} in {took:.0f} s: {counts}")
    assert driver.codes == []
    return counts


@pytest.mark.parametrize("kind", BROKERS)
def test_nothing_is_lost_or_doubled_whoever_dies(
    nursery: Nursery, kind: str, scale: float, tmp_path: Path
) -> None:
    """What was not acknowledged comes again, and what was taken in before is left out."""
    deaths = {what: round(number * scale) for what, number in DEATHS.items()}
    counts = killed(nursery, kind, tmp_path, deaths)
    assert (counts.lost, counts.doubled, counts.stuck, counts.dead) == (0, 0, 0, 0)
    assert kind == "redis" or (counts.disorder, counts.late) == (0, 0)


def test_the_order_holds_when_a_process_that_stands_by_takes_over(
    nursery: Nursery, tmp_path: Path
) -> None:
    """It goes on when what the dead one has committed and not acknowledged is due again."""
    counts = killed(
        nursery, "nats", tmp_path, {"receive": 5}, receivers=2, fault="acknowledged late"
    )
    assert counts.again > 0
    assert not any(counts.faults)


def test_the_count_finds_what_acknowledging_before_the_commit_does(
    nursery: Nursery, tmp_path: Path
) -> None:
    """A process that is killed between the two loses what it has acknowledged."""
    counts = killed(
        nursery, "nats", tmp_path, {"receive": 3}, fault="acknowledged before the commit"
    )
    assert counts.lost > 0


def test_the_count_finds_what_an_inbox_without_notes_does(nursery: Nursery, tmp_path: Path) -> None:
    """What was committed and not acknowledged is taken in again."""
    counts = killed(nursery, "nats", tmp_path, {"receive": 3}, fault="no note in the inbox")
    assert counts.doubled > 0


def test_the_count_finds_what_going_on_at_once_after_a_death_does(
    nursery: Nursery, tmp_path: Path
) -> None:
    """What the dead process has left comes after what is newer."""
    counts = killed(nursery, "nats", tmp_path, {"receive": 3}, fault="no wait for leases")
    assert counts.disorder > 0
