"""Processes of an application with an outbox are killed at random moments: nothing is lost (D1).

No event is lost, none that was rolled back is heard of, the events of a key keep their order, and
what a handler writes with its session is there once. The same driver shows the faults of outboxes
that are wrong on purpose.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("sqlalchemy")

from support.ledger import Counts, Ledger, a_ledger, count, drain, poison
from support.nursery import Nursery

pytestmark = [
    pytest.mark.soak,
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL"),
]

DEATHS = {"sqlite": 1000, "postgresql": 100}
CREW = ("producer", "producer", "producer", "worker", "worker", "worker")
LIMIT = 1500.0  # seconds for all deaths; a machine of two processors needs a third of it


class Driver:
    """Starts producers and workers, kills one after another, and starts another in its place."""

    def __init__(self, nursery: Nursery, ledger: Ledger, seed: str) -> None:
        self._nursery = nursery
        self._ledger = ledger
        self._chance = random.Random(seed)  # noqa: S311  # nobody needs to guess it
        self._started = 0
        self.deaths = 0
        self.faults: list[int] = []
        """The codes of processes that ended by themselves."""

    def _start(self, role: str) -> int:
        self._started += 1
        if role == "worker":
            return self._nursery.start("work", self._ledger.arguments)
        name = f"producer-{self._started}"
        return self._nursery.start("produce", self._ledger.arguments, name, 1_000_000)

    def kill(self, deaths: int, mortal: str) -> None:
        """Kill processes until so many have died, and then all that are left.

        Args:
            deaths: how many are to die.
            mortal: the roles of those that are killed.
        """
        crew = [(role, self._start(role)) for role in CREW]
        end = time.monotonic() + LIMIT
        while self.deaths < deaths and time.monotonic() < end:
            time.sleep(self._chance.uniform(0.05, 0.35))
            place = self._chance.randrange(len(crew))
            role, process = crew[place]
            if role in mortal:
                self._bury(process)
                crew[place] = role, self._start(role)
        for _, process in crew:
            self._bury(process)

    def _bury(self, process: int) -> None:
        code = self._nursery.kill(process)
        self.deaths += 1
        if code != -signal.SIGKILL:
            self.faults.append(code)


def killed(
    database: str, folder: Path, deaths: int, mortal: str = "producer, worker", **options: Any
) -> Counts:
    """Return what came of a ledger whose processes were killed."""
    with a_ledger(database, folder, **options) as (ledger, engine):
        poison(ledger, engine)
        with Nursery("support.ledger") as nursery:
            driver = Driver(nursery, ledger, seed=f"{database} {options}")
            started = time.monotonic()
            driver.kill(deaths, mortal)
        took = time.monotonic() - started
        drain(ledger, engine, patience=5.0 if options else 30.0)
        counts = count(ledger, engine)
        fault = options.get("fault", "as it is")
        print(f"\n{database}, {fault}: {driver.deaths} deaths in {took:.0f} s: {counts}")
        assert driver.faults == []
        assert driver.deaths >= deaths
        return counts


@pytest.mark.parametrize("database", DEATHS)
def test_nothing_is_lost_doubled_or_out_of_order_whatever_is_killed(
    database: str, scale: float, tmp_path: Path
) -> None:
    """Producers and workers are killed; a last worker does what is left, and all is counted."""
    counts = killed(database, tmp_path, round(DEATHS[database] * scale))
    faults = counts.lost, counts.phantoms, counts.disorder, counts.doubled, counts.stuck
    assert faults == (0, 0, 0, 0, 0)
    assert (counts.dead, counts.blocked) == (2, 2)  # the poison, and what waits behind it


def test_the_count_finds_what_an_emission_in_another_transaction_does(tmp_path: Path) -> None:
    """Events of transactions that were rolled back are heard of."""
    counts = killed("postgresql", tmp_path, 5, fault="emitted in a transaction of its own")
    assert counts.phantoms > 0


@pytest.mark.parametrize("database", DEATHS)
def test_the_count_finds_what_settling_before_the_call_does(database: str, tmp_path: Path) -> None:
    """A worker that is killed between the two loses what it had settled."""
    counts = killed(database, tmp_path, 20, fault="settled before the call")
    assert counts.lost > 0


SLOW = {"mortal": "producer", "accounts": 1}
"""While a worker is dead, its lane waits, and what comes late is still in time."""


def test_the_count_finds_what_appending_without_a_lock_on_the_key_does(tmp_path: Path) -> None:
    """An event that gets its place before another one, and is committed after it, comes late."""
    counts = killed("postgresql", tmp_path, 20, fault="no lock on the key", **SLOW)
    assert counts.disorder + counts.stuck > 0


def test_slow_commits_alone_break_no_order(tmp_path: Path) -> None:
    """With the lock on the key, slow commits are as good as quick ones."""
    counts = killed("postgresql", tmp_path, 20, fault="slow commits", **SLOW)
    faults = counts.lost, counts.phantoms, counts.disorder, counts.doubled, counts.stuck
    assert faults == (0, 0, 0, 0, 0)
