"""Print what scopes, ids, deferral, observers and batches add to an emission where they are used.

Run it from a clone with the `dev` extra installed::

    python tests/benchmarks/cost_of_surroundings.py

Every figure of a run is taken in turns, round by round; the ratio is to a plain emission to one
handler, between the medians of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from compare_emit import CONTEXT, KEYWORDS, NAME, registry

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    LoginEventContext,
    TimingObserver,
    event_scope,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 200


class Nothing:
    """An observer that does nothing."""

    def emission(self, emission: Emission[Any]) -> AbstractContextManager[None]:
        """Watch nothing."""
        return nullcontext()

    def handling(self, emission: Emission[Any], handler: Any) -> AbstractContextManager[None]:
        """Watch nothing."""
        return nullcontext()


def handler(context: LoginEventContext) -> None:
    """Do nothing with a context."""


def loose_handler(sender: Any, **context: Any) -> None:
    """Do nothing with keywords."""


def gathered(contexts: list[LoginEventContext]) -> None:
    """Do nothing with a batch."""


def candidates() -> dict[str, Callable[[], None]]:
    """Return what is measured: each makes `CALLS` emissions."""
    plain, _ = registry([handler])
    loose, _ = registry([loose_handler])
    observed, _ = registry([handler])
    observed.add_observer(Nothing())
    timed, _ = registry([handler])
    timed.add_observer(TimingObserver())
    background, background_signal = registry([])
    background_signal.subscribe(handler, background=True)
    batching, batching_signal = registry([])
    batching_signal.subscribe(gathered, batch=Batch(100, 1.0))

    def repeat(emit: Callable[[], Emission[Any]]) -> None:
        for _ in range(CALLS):
            emit()

    def typed(dispatcher: EventDispatcher) -> Callable[[], Emission[Any]]:
        return lambda: dispatcher.emit_typed(NAME, CONTEXT)

    def in_scope() -> None:
        with event_scope(request_id="request 7"):
            repeat(typed(plain))

    def loose_in_scope() -> None:
        with event_scope(request_id="request 7"):
            repeat(lambda: loose.emit(NAME, **KEYWORDS))

    def in_deferral() -> None:
        with plain.deferred():
            repeat(typed(plain))

    def with_drain(dispatcher: EventDispatcher) -> None:
        repeat(typed(dispatcher))
        dispatcher.drain()

    return {
        "plain, typed": lambda: repeat(typed(plain)),
        "plain, loose": lambda: repeat(lambda: loose.emit(NAME, **KEYWORDS)),
        "scope, typed": in_scope,
        "scope, loose": loose_in_scope,
        "id": lambda: repeat_id(typed(plain)),
        "deferred": in_deferral,
        "observer": lambda: repeat(typed(observed)),
        "TimingObserver": lambda: repeat(typed(timed)),
        "background": lambda: with_drain(background),
        "batch": lambda: with_drain(batching),
    }


def repeat_id(emit: Callable[[], Emission[Any]]) -> None:
    """Emit, and ask each emission for its id."""
    for _ in range(CALLS):
        _ = emit().id


def main() -> int:
    """Print all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=101, help="rounds of each figure")
    rounds = parser.parse_args().rounds
    measured = candidates()
    times: dict[str, list[float]] = {name: [] for name in measured}
    for run in measured.values():
        run()
    gc.disable()
    for _ in range(rounds):
        for name, run in measured.items():
            started = time.perf_counter_ns()
            run()
            times[name].append((time.perf_counter_ns() - started) / CALLS)
    gc.enable()
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"Python {platform.python_version()}, an emission to one handler, medians of {rounds}")
    for name, median in medians.items():
        print(f"{name:16} {median:8.0f} ns  {median / medians['plain, typed']:6.2f} x plain, typed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
