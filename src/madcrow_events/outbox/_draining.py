"""Calling the durable handlers for all that is committed, without a worker and without waiting."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from madcrow_events._text import close_matches, printable
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox._claiming import Claiming
from madcrow_events.outbox._database import access_to
from madcrow_events.outbox._reporting import Reporting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from madcrow_events.outbox._calling import Caller, Ended, Run
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._outbox import Outbox

__all__ = ["drain"]

_FOR_EVER: Final = 100 * 366 * 24 * 3600 * 1_000_000
"""In microseconds."""


def drain(
    outbox: Outbox,
    engine: Engine | AsyncEngine,
    fail: Mapping[str, Exception],
    *,
    until_dead: bool,
) -> tuple[int, int, int]:
    """Call handlers, and return how many deliveries were done, dead and tried again.

    Args:
        outbox: the outbox.
        engine: the engine of its database.
        fail: exceptions that handlers raise instead of being called, by the ids of the handlers.
        until_dead: whether deliveries that failed are tried again until they are done or dead.
    """
    _check_names(fail, set(outbox.handlers))
    access, statements = access_to(engine), outbox._statements_for(engine)
    try:
        outbox._check_sessions(engine, None)
        outbox._check_schema(access)
        claiming = Claiming(statements, outbox._announce(access), _FOR_EVER / 1_000_000)
        caller = outbox._caller(statements, engine, None)
        caller.fail = fail
        reporting = Reporting(outbox._dispatcher, _FOR_EVER)
        draining = _Draining(access, claiming, caller, reporting, until_dead=until_dead)
        for companion in outbox._companions:
            companion._drain(access)
        try:
            draining.run()
        finally:
            draining.give_back()
        return draining.done, draining.dead, draining.retried
    finally:
        access.close()


def _check_names(fail: Mapping[str, Exception], known: set[str]) -> None:
    """Refuse handlers that are not there, for which a test would pass in vain.

    Raises:
        InvalidOptionError: there is one.
    """
    for name in fail:
        if name not in known:
            near = close_matches(name, sorted(known), 1)
            hint = f"did you mean '{near[0]}'?" if near else "give the id of one"
            raise InvalidOptionError(
                f"fail names '{printable(name)}', which is no durable handler of the outbox: "
                f"{hint}",
                option="fail",
            )


@dataclass
class _Draining:
    access: Access
    claiming: Claiming
    caller: Caller
    reporting: Reporting
    until_dead: bool

    def __post_init__(self) -> None:
        self.done = self.dead = self.retried = 0
        self._ahead = 0
        self._failed: dict[tuple[int, int], float] = {}
        """After how many seconds the deliveries that have failed are due."""
        self._held: list[Run] = []

    def run(self) -> None:
        """Handle all there is."""
        while self.step():
            pass

    def step(self) -> bool:
        """Handle what is due, or move the time; return whether there may be more."""
        look = self.access.transaction(self.claiming.look)
        if look.has_new:
            self.access.transaction(lambda connection: self.claiming.expand(connection, wait=True))
            return True
        if any(moment <= look.now + self._ahead for moment in look.due.values()):
            runs = self.access.transaction(
                lambda connection: self.claiming.claim(
                    connection, look, room=1, running=Counter(), ahead=self._ahead
                )
            )
            for run in runs:
                self._call(run)
            return True
        later = min(look.due.values(), default=look.now + _FOR_EVER) - look.now
        self._ahead = later
        return later < _FOR_EVER // 2

    def _call(self, run: Run) -> None:
        if (run.handler_id, run.rows[0].event_seq) in self._failed:
            self._held.append(run)
            return
        (ended,) = self.caller.call_all([run])
        self._settle(ended)
        self.done += ended.done
        failed = None if ended.settlement is None else ended.settlement.failed
        if failed is None or failed.error_type is None:
            return
        if failed.is_dead:
            self.dead += 1
            return
        self.retried += 1
        if not self.until_dead:
            self._failed[run.handler_id, failed.event_seq] = failed.delay / 1_000_000

    def _settle(self, ended: Ended) -> None:
        settlement = ended.settlement
        if settlement is not None:
            self.access.transaction(lambda connection: self.caller.settle(connection, [settlement]))
        self.reporting.report(ended, is_lost=False)

    def give_back(self) -> None:
        """Leave the deliveries that have failed as they were."""
        for run in self._held:
            delay = self._failed[run.handler_id, run.rows[0].event_seq]
            self._settle(self.caller.give_back(run, delay))
