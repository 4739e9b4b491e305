"""What a worker does, step by step: looking, expanding, claiming, calling and settling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from madcrow_events.outbox import Outbox
from madcrow_events.outbox._calling import Ended, Run
from madcrow_events.outbox._claiming import Claiming
from madcrow_events.outbox._database import SharedDatabase

FOR_EVER = 10 * 366 * 24 * 3600 * 1_000_000
"""In microseconds."""


class Steps:
    """A worker without threads.

    Args:
        outbox: the outbox, whose tables are there.
        engine: the engine.
        lease: for how many seconds a claim is good.
    """

    def __init__(self, outbox: Outbox, engine: Any, lease: float = 60.0) -> None:
        self.access = SharedDatabase(engine)
        self.statements = outbox._statements_for(engine)
        self.handlers = outbox._announce(self.access)
        self.claiming = Claiming(self.statements, self.handlers, lease)
        self.caller = outbox._caller(self.statements, engine, None)
        self.running: Counter[int] = Counter()

    def do(self, step: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
        """Call a function of a connection in a transaction."""
        return self.access.transaction(lambda connection: step(connection, *args, **keywords))

    def look(self) -> Any:
        return self.do(self.claiming.look)

    def expand(self) -> int:
        return int(self.do(self.claiming.expand, wait=True))  # other tests may hold the lock

    def claim(self, room: int = 16, *, ahead: bool = False) -> list[Run]:
        """Make deliveries, and lease what is due; with the clock ahead, everything."""
        self.expand()
        runs: list[Run] = self.do(
            self.claiming.claim,
            self.look(),
            room=room,
            running=self.running,
            ahead=FOR_EVER if ahead else 0,
        )
        return runs

    def call(self, run: Run) -> Ended:
        return self.caller.call(run)

    def settle(self, *ended: Ended) -> Any:
        """Settle runs in one transaction; return the leases that were lost."""
        settlements = [it.settlement for it in ended if it.settlement is not None]
        return self.do(self.caller.settle, settlements)

    def work(self) -> list[Ended]:
        """Call and settle what is due now."""
        ended = [self.call(it) for it in self.claim()]
        self.settle(*ended)
        return ended
