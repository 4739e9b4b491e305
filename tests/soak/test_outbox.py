"""Processes of an application with an outbox are killed at random moments: nothing is lost (D1).

No event is lost, none that was rolled back is heard of, the events of a key keep their order, and
what a handler writes with its session is there once. The same driver shows the faults of outboxes
that are wrong on purpose.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg")
pytest.importorskip("sqlalchemy")

from support.ledger import Counts, Ledger, Moved, Noted, a_ledger, count, drain, poison
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
    assert not any(counts.faults)
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
    assert not any(counts.faults)


@pytest.mark.parametrize("database", DEATHS)
def test_workers_that_are_paused_beyond_their_lease_leave_one_effect(
    database: str, tmp_path: Path
) -> None:
    """Others take over what they had, and they cannot settle it when they go on (D6)."""
    seconds = 0.01 if database == "sqlite" else 0.1  # an effect keeps all writers of SQLite waiting
    options: dict[str, Any] = {"lease": 0.5, "concurrency": 1, "batch": 2, "seconds": seconds}
    with a_ledger(database, tmp_path, **options) as (ledger, engine):
        for part in range(10):
            ledger.commit(engine, slow_contexts(part, 60))
        with Nursery("support.ledger") as nursery:
            workers = [nursery.start("work", ledger.arguments) for _ in range(20)]
            time.sleep(0.5)
            pauses = [(0.1 * n, worker, nursery.pause) for n, worker in enumerate(workers)]
            pauses += [(at + 1.0, worker, nursery.resume) for at, worker, _ in pauses]
            started = time.monotonic()
            for at, worker, act in sorted(pauses, key=lambda it: it[0]):
                time.sleep(max(0.0, started + at - time.monotonic()))
                act(worker)
            codes = [nursery.end(worker) for worker in workers]
        drain(ledger, engine)
        counts = count(ledger, engine)
    print(f"\n{database}, 20 workers paused beyond their lease: {counts}")
    assert not any(counts.faults)
    assert counts.repeated > 0, "no worker was paused in a call"
    assert codes == [0] * 20


def slow_contexts(part: int, size: int) -> Iterator[Moved | Noted]:
    """Yield events whose handlers take a moment."""
    for number in range(size):
        mark, kind = f"slow-{part}:{number}", ("slow call", "slow effect")[number % 2]
        if number % 3:
            yield Moved(account=f"account-{number % 20}", mark=mark, kind=kind)
        else:
            yield Noted(mark=mark, kind=kind)


@pytest.mark.parametrize("database", DEATHS)
def test_a_handler_that_runs_longer_than_its_lease_is_called_once(
    database: str, scale: float, tmp_path: Path
) -> None:
    """The lease is renewed while the handler runs, so that no other worker takes it over (D6)."""
    lease, seconds = (5.0, 45.0) if scale == 1.0 else (1.0, 6.0)
    with a_ledger(database, tmp_path, lease=lease, seconds=seconds) as (ledger, engine):
        ledger.commit(engine, [Noted(mark="long:0", kind="slow call")])
        with Nursery("support.ledger") as nursery:
            workers = [nursery.start("work", ledger.arguments) for _ in range(3)]
            time.sleep(seconds + lease + 1.0)
            codes = [nursery.end(worker) for worker in workers]
        counts = count(ledger, engine)
    print(f"\n{database}, a handler of {seconds:g} s under a lease of {lease:g} s: {counts}")
    assert not any(counts.faults)
    assert counts.calls == 2  # of the two handlers
    assert codes == [0] * 3


def test_fifty_workers_share_one_database(tmp_path: Path) -> None:
    """Each event is handled once, and those of a key in their order."""
    options = {"lease": 60.0, "concurrency": 1, "notes": str(tmp_path / "notes")}
    with a_ledger("postgresql", tmp_path, **options) as (ledger, engine):
        with Nursery("support.ledger") as nursery:
            workers = [nursery.start("work", ledger.arguments) for _ in range(50)]
            for part in range(20):
                ledger.commit(engine, slow_contexts(part, 100))
            drain(ledger, engine)
            codes = [nursery.end(worker) for worker in workers]
        counts = count(ledger, engine)
    print(f"\npostgresql, 50 workers: {counts}")
    assert not any(counts.faults)
    assert counts.repeated == 0
    assert codes == [0] * 50
