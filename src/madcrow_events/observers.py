"""Watching emissions and handlers from outside: what an observer is, and one that takes times.

`dispatcher.add_observer(observer)` is the one place where tracing, timing and
metrics are attached; handlers know nothing of it.
"""

from __future__ import annotations

import copy
import math
import sys
from bisect import bisect_left
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from madcrow_events._copies import Unique
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._text import handler_name
from madcrow_events.emissions import Emission

__all__ = [
    "LATENCY_BOUNDS",
    "EventTiming",
    "HandlerTiming",
    "Observer",
    "TimingObserver",
    "TimingSnapshot",
]

LATENCY_BOUNDS: tuple[float, ...] = (
    *(0.000_01, 0.000_02, 0.000_05),
    *(0.000_1, 0.000_2, 0.000_5),
    *(0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0),
    *(10.0, math.inf),
)
"""The upper bound of each bucket of a latency histogram, in seconds."""


class Observer(Protocol):
    """What `dispatcher.add_observer` takes: two methods that return context managers.

    Both are called on whatever thread or event loop does the work, several at
    the same time too.
    """

    def emission(self, emission: Emission, /) -> AbstractContextManager[object]:
        """Return what is entered before an emission's first handler is called.

        It is left when `emit` is about to return, for `emit_async` when the
        awaited handlers have ended; what runs later does so outside of it.

        Args:
            emission: the emission that begins.
        """
        ...  # pragma: no cover  # the body of a protocol

    def handling(self, emission: Emission, handler: Any, /) -> AbstractContextManager[object]:
        """Return what is entered before a handler is called, and left after it has ended.

        What the handler raises is passed to `__exit__`. A batch is one call.

        Args:
            emission: the emission that is handled; of a batch, the last one.
            handler: the handler, as it was subscribed.
        """
        ...  # pragma: no cover  # the body of a protocol


class EventTiming(NamedTuple):
    """How often an event was emitted, and how long that took.

    Attributes:
        event: the name of the event.
        emissions: how many began, those included that have not ended.
        latency: those that have ended, counted by how long they took: at most
            the bound, in seconds, at the same place of `LATENCY_BOUNDS`, and
            more than the one before it.
    """

    event: str
    emissions: int
    latency: tuple[int, ...]


class HandlerTiming(NamedTuple):
    """How often a handler was called for an event, how long that took, and how often it failed.

    Attributes:
        event: the name of the event.
        handler: the dotted name of the handler; handlers of one name are counted together.
        calls: how many began, those included that have not ended.
        failures: how many ended with an exception, a cancellation not being one.
        total_seconds: how long those that have ended took together, in seconds.
        longest_seconds: how long the longest of them took, in seconds.
        latency: those that have ended, counted as in `EventTiming`.
    """

    event: str
    handler: str
    calls: int
    failures: int
    total_seconds: float
    longest_seconds: float
    latency: tuple[int, ...]


class TimingSnapshot(NamedTuple):
    """What a `TimingObserver` counted until now.

    Attributes:
        events: the events that were emitted, in the order in which they first were.
        handlers: the events' handlers, in the order in which they were first called.
    """

    events: tuple[EventTiming, ...]
    handlers: tuple[HandlerTiming, ...]


class _Record:
    __slots__ = ("begun", "failures", "latency", "longest", "total")

    def __init__(self) -> None:
        self.begun = 0
        self.failures = 0
        self.total = 0.0
        self.longest = 0.0
        self.latency = [0] * len(LATENCY_BOUNDS)


class TimingObserver(Unique):
    """Counts and times emissions and handlers, in the memory of the process.

    A handler has failed if it lets out any exception but `asyncio.CancelledError`:
    one that ends with that was most likely cancelled together with its emitter.

    Handlers are known by event and name, so what is remembered grows with the
    program, not with its running time; no handler, emission or context is kept.
    It may be added to several dispatchers, which are then counted together.
    """

    __slots__ = ("__weakref__", "_lock", "_records")

    _instead_of_pickling = "send its snapshot()"

    def __init__(self) -> None:
        # By event and handler; with None for the handler, it is of the emissions.
        self._records: dict[tuple[str, str | None], _Record] = {}
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        """Start with a free lock; a forked child does."""
        # Re-entrant: a signal handler or a finalizer may emit while the lock is held.
        self._lock = Lock()

    def emission(self, emission: Emission, /) -> AbstractContextManager[None]:
        """Return what times an emission; see `Observer.emission`.

        Args:
            emission: the emission.
        """
        return _Timing(self, (emission.event, None))

    def handling(self, emission: Emission, handler: object, /) -> AbstractContextManager[None]:
        """Return what times a call of a handler; see `Observer.handling`.

        Args:
            emission: the emission that is handled.
            handler: the handler.
        """
        # A stand-in for an emission, in somebody's test, may have no more than its event.
        name_of = getattr(emission, "name_of", handler_name)
        return _Timing(self, (emission.event, name_of(handler)))

    def snapshot(self) -> TimingSnapshot:
        """Return what was counted until now; later counting does not change it."""
        events: list[EventTiming] = []
        handlers: list[HandlerTiming] = []
        with self._lock:
            for (event, handler), record in self._records.copy().items():
                latency = tuple(record.latency)
                if handler is None:
                    events.append(EventTiming(event, record.begun, latency))
                else:
                    handlers.append(
                        HandlerTiming(
                            event,
                            handler,
                            record.begun,
                            record.failures,
                            record.total,
                            record.longest,
                            latency,
                        )
                    )
        return TimingSnapshot(tuple(events), tuple(handlers))

    def reset(self) -> None:
        """Count from 0; what is under way now will not be counted."""
        with self._lock:
            # What is under way holds the old records, and ends in them.
            self._records = {}

    def _isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy of the counts, or from 0; return what puts the present ones back."""
        with self._lock:
            saved = self._records
            self._records = {} if empty else copy.deepcopy(saved)

        def restore() -> None:
            with self._lock:
                self._records = saved

        return restore


class _Timing:
    """Times one emission or one call."""

    __slots__ = ("_key", "_observer", "_record", "_started")

    _record: _Record
    _started: float

    def __init__(self, observer: TimingObserver, key: tuple[str, str | None]) -> None:
        self._observer = observer
        self._key = key

    def __enter__(self) -> None:
        observer, key = self._observer, self._key
        with observer._lock:
            record = observer._records.get(key)
            if record is None:
                record = observer._records[key] = _Record()
            record.begun += 1
        self._record = record
        self._started = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = perf_counter() - self._started
        bucket = bisect_left(LATENCY_BOUNDS, seconds)
        failed = kind is not None and not _is_cancellation(kind)
        record = self._record
        with self._observer._lock:
            record.failures += failed
            record.total += seconds
            if seconds > record.longest:  # noqa: PLR1730  # a finalizer may run in a call of max()
                record.longest = seconds
            record.latency[bucket] += 1


def _is_cancellation(kind: type[BaseException]) -> bool:
    # Looked up, not imported: who never loaded asyncio cannot have raised its error.
    return issubclass(kind, getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", ()))
