"""What a worker does from its start to its end: claim, have called, settle, wait."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from traceback import format_tb
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from madcrow_events._logs import log
from madcrow_events.outbox._claiming import Claiming
from madcrow_events.outbox._database import Database, access_for_claims
from madcrow_events.outbox._leases import Leases
from madcrow_events.outbox._reporting import Reporting, error_shown
from madcrow_events.outbox._threads import HandlerThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from madcrow_events.outbox._calling import Caller, Ended, Run
    from madcrow_events.outbox._durable import DurableHandler
    from madcrow_events.outbox._rows import Lease
    from madcrow_events.outbox._statements import Statements
    from madcrow_events.outbox._sweeping import Sweeping

__all__ = ["Shift"]

T = TypeVar("T")

_SETTLE_AFTER: Final = 0.02
"""After how many seconds what has ended is settled, although other handlers still run."""
_WITHDRAW_AFTER: Final = 1.0
"""After how many seconds a run that waits for a thread is left to other workers."""
_SEEN_EVERY: Final = 30.0
"""After how many seconds a worker says again that it is there."""
_LONGEST_WAIT: Final = 5.0
"""After how many seconds at most a database that is away is tried again."""
_DRIFT: Final = 2.0
"""From how many seconds on a clock has jumped."""


_AN_HOUR: Final = 3_600_000_000
"""In microseconds."""


class Employer(Protocol):
    """The worker whose shift it is."""

    engine: Any
    concurrency: int
    lease: float
    poll: float
    batch: int
    stops: int
    """How often it was told to stop."""
    wakes: SimpleQueue[None]
    """An entry for each time that there may be something to do."""

    def wake(self) -> None:
        """Say that there may be something to do."""

    def _is_idle(self) -> bool:
        """Whether nothing comes in from other services just now."""
        ...


class Shift:
    """The work of a worker from its start to its end."""

    def __init__(
        self,
        worker: Employer,
        database: Database,
        statements: Statements,
        handlers: Mapping[int, DurableHandler],
        caller: Caller,
        sweeping: Sweeping,
    ) -> None:
        self._worker = worker
        self._concurrency = worker.concurrency
        self._database = database
        self._claims = access_for_claims(database, worker.engine)
        self._statements = statements
        self._caller = caller
        self._handlers = handlers
        self._claiming = Claiming(statements, handlers, worker.lease)
        self._leases = Leases(
            lambda: Database(worker.engine, is_lasting=False), statements, worker.lease
        )
        self._threads = HandlerThreads(worker.concurrency, caller.call_all, worker.wake)
        self._reporting = Reporting(caller.dispatcher, worker.lease)
        self._sweeping = sweeping
        self._running: Counter[int] = Counter()
        """How many runs of each handler were claimed, and have not ended."""
        self._ended: list[Ended] = []
        """What has ended, and is yet to be settled."""
        self._settle_at = self._claim_at = 0.0
        self._seen_at = monotonic() + _SEEN_EVERY
        self._next_due = 0.0
        self._failures = 0
        self._idle_since = monotonic()
        self._clock = (database.transaction(statements.now) / 1_000_000, monotonic())

    def work(self, *, once: bool) -> None:
        """Work until the worker is told to stop.

        Args:
            once: whether to return as soon as nothing is due.
        """
        self._threads.start()
        self._leases.start()
        try:
            self._take_turns(once=once)
            self._finish()
        finally:
            self._leases.stop()
            self._threads.stop()
            self._claims.close()

    def _take_turns(self, *, once: bool) -> None:
        while self._worker.stops == 0:
            # Asked before the claim, so that the claim sees all that has come in by now.
            is_last = once and self._worker._is_idle()
            found = self._attempt(self._claim)
            if is_last and found is False and not self._in_hand:
                return
            self._collect(self._pause(found))
            self._tend()
            self._attempt(self._settle)

    @property
    def _in_hand(self) -> int:
        return self._running.total() + len(self._ended)

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """Do something with the database; return None if that is away, and wait for it."""
        if self._failures and monotonic() < self._claim_at:
            return None
        try:
            result = step()
        except Exception as error:  # whatever it is, the next attempt may succeed
            wait = min(_LONGEST_WAIT, 0.1 * 2**self._failures)
            if not self._failures:
                log(
                    logging.ERROR,
                    "the outbox cannot use its database, and tries again: %s",
                    error_shown(error),
                )
                log(logging.DEBUG, "".join(format_tb(error.__traceback__)))
            self._failures += 1
            self._claim_at = monotonic() + wait
            return None
        if self._failures:
            log(logging.WARNING, "the outbox can use its database again")
            self._failures = 0
        return result

    # Claiming

    def _claim(self) -> bool:
        """Lease what is due and give it to the threads; return whether there was anything."""
        room = self._worker.batch - self._in_hand
        if room <= 0 or monotonic() < self._claim_at or self._running.total() >= self._concurrency:
            return True  # what no thread is free for is left to other workers
        look = self._claims.transaction(self._claiming.look)
        if look.has_new:
            self._claims.transaction(self._claiming.expand)
            look = self._claims.transaction(self._claiming.look)
        if self._has_jumped(look.now / 1_000_000):
            return True
        wait = min(look.due.values(), default=look.now + _AN_HOUR) - look.now
        self._next_due = monotonic() + wait / 1_000_000
        runs: list[Run] = []
        if wait <= 0:
            runs = self._claims.transaction(
                lambda connection: self._claiming.claim(
                    connection, look, room=room, running=self._running
                )
            )
        self._leases.hold(runs)
        self._running.update(run.handler_id for run in runs)
        self._threads.give(runs)
        return bool(runs) or look.has_new

    def _has_jumped(self, now: float) -> bool:
        """Whether the clock of the leases was set; then nothing is claimed for a while.

        Leases of workers that live look as if they were over, until these have renewed them.
        """
        known, self._clock = self._clock, (now, monotonic())
        jump = (now - known[0]) - (self._clock[1] - known[1])
        if abs(jump) < _DRIFT:
            return False
        log(logging.WARNING, "the clock of the outbox has jumped by %+.0f seconds", jump)
        if jump > 0:
            self._claim_at = monotonic() + self._worker.lease / 2
        return jump > 0

    def _pause(self, found: bool | None) -> float:
        """Return for how many seconds to wait for what ends."""
        now = monotonic()
        if self._ended and found is not None:
            return max(0.0, self._settle_at - now) if self._running.total() else 0.0
        if now < self._claim_at:
            return min(self._claim_at - now, self._worker.poll)
        if self._running.total():
            self._idle_since = now
            return self._worker.poll
        if found:
            self._idle_since = now
            return 0.0 if self._next_due <= now else 0.01
        # The longer nothing comes, the rarer the looks, down to a quarter after three minutes.
        rarer = min(4.0, 1.0 + (now - self._idle_since) / 60)
        return min(max(0.01, self._next_due - now), self._worker.poll * rarer)

    # Settling

    def _collect(self, wait: float) -> None:
        """Take what has ended; wait for the first of it."""
        ended, wakes = self._threads.take(), self._worker.wakes
        if not ended and wait > 0:
            with suppress(Empty):
                wakes.get(timeout=wait)
            ended = self._threads.take()
        while not wakes.empty():
            wakes.get()
        for it in [*ended, *self._threads.take()]:
            self._end(it)

    def _end(self, ended: Ended) -> None:
        self._threads.forget(ended.run)
        self._running[ended.run.handler_id] -= 1
        if not self._ended:
            self._settle_at = monotonic() + _SETTLE_AFTER
        self._ended.append(ended)

    def _settle(self) -> None:
        """Write down what has ended, many runs at once."""
        if not self._ended or (self._running.total() and monotonic() < self._settle_at):
            return
        settlements = [it.settlement for it in self._ended if it.settlement is not None]
        lost: set[Lease] = set()
        if settlements:
            lost = self._database.transaction(
                lambda connection: self._caller.settle(connection, settlements)
            )
        ended, self._ended = self._ended, []
        self._threads.notice()
        self._leases.release(it.run for it in ended)
        self._sweeping.count(sum(it.done for it in ended))
        for it in ended:
            is_lost = it.settlement is not None and it.settlement.lease in lost
            self._reporting.report(it, is_lost=is_lost)

    def _tend(self) -> None:
        """Leave to others what waits too long, and end what runs too long."""
        self._give_back(self._threads.withdraw(_WITHDRAW_AFTER))
        for run in self._threads.give_up(overdue=True):
            self._end(self._caller.time_out(run))
        self._reporting.report_long(self._threads.running_for(self._worker.lease))
        if monotonic() >= self._seen_at and not self._failures:
            self._seen_at = monotonic() + _SEEN_EVERY
            self._attempt(self._note_seen)
        if self._sweeping.is_due and not self._failures:
            self._attempt(lambda: self._sweeping.sweep(self._database))

    def _note_seen(self) -> None:
        ids = [*self._handlers]
        self._claims.transaction(lambda connection: self._statements.note_seen(connection, ids))

    def _give_back(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._end(self._caller.give_back(run))

    def _finish(self) -> None:
        """Let what runs come to its end, and leave the rest to others."""
        self._give_back(self._threads.withdraw(0.0))
        while self._in_hand:
            is_told_twice = self._worker.stops > 1
            if is_told_twice:
                self._give_back(self._threads.give_up(overdue=False))
            self._collect(0.0 if self._ended and not self._running.total() else 0.1)
            self._attempt(self._settle)
            if is_told_twice and self._failures:
                return  # the database is away, and the leases end by themselves
