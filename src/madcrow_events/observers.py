"""Observing emissions and handlers: the protocol `Observer`, and observers that take times.

Tracing, timing and metrics are attached with `dispatcher.add_observer(observer)` only; handlers
know nothing of them.
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import threading
from bisect import bisect_left
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from madcrow_events._copies import Unique
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._logs import log
from madcrow_events._text import handler_name
from madcrow_events.emissions import Emission
from madcrow_events.exceptions import InvalidOptionError

__all__ = [
    "LATENCY_BOUNDS",
    "EventTiming",
    "HandlerTiming",
    "Observer",
    "SlowHandlers",
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
"""The upper bounds of the buckets of a latency histogram, in seconds.

They go from 0.00001 to 10 seconds in steps of 1, 2 and 5. The last bound is infinity.
"""


class Observer(Protocol):
    """An object for `EventDispatcher.add_observer`: two methods that return context managers.

    A context manager is entered before an emission or a call, and left after it. The methods are
    called in the thread or event loop that does the work, and several threads may call them at the
    same time.

    Example:
        ```python
        from contextlib import contextmanager, nullcontext

        from madcrow_events import get_event_dispatcher


        class CallPrinter:
            def emission(self, emission):
                return nullcontext()

            @contextmanager
            def handling(self, emission, handler):
                print(emission.event, "calls", emission.name_of(handler))
                yield


        get_event_dispatcher().add_observer(CallPrinter())
        ```
    """

    def emission(self, emission: Emission, /) -> AbstractContextManager[object]:
        """Return a context manager that is entered before an emission calls its first handler.

        It is left when `emit` is about to return, or when the handlers that `emit_async` awaits
        have ended. Handlers that run later run outside of it.

        Args:
            emission: the emission that begins.

        Returns:
            The context manager.
        """
        ...

    def handling(self, emission: Emission, handler: Any, /) -> AbstractContextManager[object]:
        """Return a context manager that is entered before a handler is called.

        It is left when the handler has ended, and gets the handler's exception, if there is one. A
        batch is one call.

        Args:
            emission: the emission that is handled; for a batch, its last emission.
            handler: the handler, as it was subscribed. `emission.name_of(handler)` is its name.

        Returns:
            The context manager.
        """
        ...


class EventTiming(NamedTuple):
    """How often an event was emitted, and how long that took.

    Attributes:
        event: the name of the event.
        emissions: how many emissions have begun, including those that have not ended.
        latency: a histogram of the emissions that have ended. Each number belongs to the bound of
            `LATENCY_BOUNDS` in the same place. It counts the emissions that took at most that long,
            and longer than the bound before.
    """

    event: str
    emissions: int
    latency: tuple[int, ...]


class HandlerTiming(NamedTuple):
    """How often a handler was called for an event, how long that took, and how often it failed.

    Attributes:
        event: the name of the event.
        handler: the name of the handler: its `id`, or else the function's dotted name. Handlers of
            the same name are counted together.
        calls: how many calls have begun, including those that have not ended.
        failures: how many calls ended with an exception other than a cancellation.
        total_seconds: how long all calls that have ended took together, in seconds.
        longest_seconds: how long the longest of them took, in seconds.
        latency: a histogram of the calls that have ended, as in `EventTiming`.
    """

    event: str
    handler: str
    calls: int
    failures: int
    total_seconds: float
    longest_seconds: float
    latency: tuple[int, ...]


class TimingSnapshot(NamedTuple):
    """The counts and times of a `TimingObserver` at one moment.

    Attributes:
        events: the events that were emitted, in the order of their first emissions.
        handlers: the handlers that were called, in the order of their first calls.
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
    """Counts and times emissions and calls of handlers, in the memory of the process.

    Add it with `EventDispatcher.add_observer`. If you add it to several dispatchers, they are
    counted together.

    A call has failed if the handler raised any exception but `asyncio.CancelledError`. A handler
    that ends with that exception was most likely cancelled together with its emitter.

    The observer keeps numbers by event and handler name, and neither handlers nor contexts. So its
    memory does not grow with the number of emissions.

    Example:
        ```python
        from madcrow_events import TimingObserver, get_event_dispatcher, madcrow_signals

        order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")
        order_placed.subscribe(lambda: None, id="send-invoice")
        timings = TimingObserver()
        get_event_dispatcher().add_observer(timings)
        get_event_dispatcher().emit(order_placed)
        (handler,) = timings.snapshot().handlers
        print(handler.handler, handler.calls, handler.failures, handler.total_seconds < 1)
        ```

        ```text
        send-invoice 1 0 True
        ```
    """

    __slots__ = ("__weakref__", "_lock", "_records")

    _instead_of_pickling = "send its snapshot()"

    def __init__(self) -> None:
        # By event and handler; the records of emissions have None for the handler.
        self._records: dict[tuple[str, str | None], _Record] = {}
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        """Start with a free lock, in a forked child."""
        # Re-entrant: a signal handler or a finalizer may emit under the lock.
        self._lock = Lock()

    def emission(self, emission: Emission, /) -> AbstractContextManager[None]:
        """Return a context manager that times an emission. Dispatchers call this.

        Args:
            emission: the emission.

        Returns:
            The context manager.
        """
        return _Timing(self, (emission.event, None))

    def handling(self, emission: Emission, handler: object, /) -> AbstractContextManager[None]:
        """Return a context manager that times a call of a handler. Dispatchers call this.

        Args:
            emission: the emission that is handled.
            handler: the handler.

        Returns:
            The context manager.
        """
        # A fake emission in a test may have an `event`, and no `name_of`.
        name_of = getattr(emission, "name_of", handler_name)
        return _Timing(self, (emission.event, name_of(handler)))

    def snapshot(self) -> TimingSnapshot:
        """Return the counts and times so far. The snapshot does not change later."""
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
        """Begin again at 0. Emissions and calls that have not ended by now do not count."""
        with self._lock:
            # Emissions and calls that are under way have the old records.
            self._records = {}

    def _isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy of the counts, or from 0.

        Returns:
            A function that restores the present counts.
        """
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
    # Looked up, not imported: a program that never loaded asyncio cannot raise its error.
    return issubclass(kind, getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", ()))


class SlowHandlers:
    """An observer that logs a warning for each call of a handler that takes too long.

    The warning names the handler and its event, and says how many seconds the call took. The time
    of an async handler is that from its start to its end. A batch is one call.

    Args:
        seconds: how long a call may take, in seconds.

    Attributes:
        seconds: the argument.

    Raises:
        InvalidOptionError: the argument is not a positive, finite number.

    Example:
        ```python
        from madcrow_events import SlowHandlers, get_event_dispatcher

        get_event_dispatcher().add_observer(SlowHandlers(0.5))
        ```
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        given: object = seconds
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if not (is_number and 0 < seconds <= threading.TIMEOUT_MAX):
            raise InvalidOptionError(
                "seconds must be a number of seconds above 0, such as 0.5", option="seconds"
            )
        self.seconds: float = seconds

    def emission(self, _emission: Emission, /) -> AbstractContextManager[None]:
        """Return a context manager that does nothing: only calls are timed."""
        return nullcontext()

    def handling(self, emission: Emission, handler: object, /) -> AbstractContextManager[None]:
        """Return a context manager that times a call of a handler; see `Observer.handling`.

        Args:
            emission: the emission that is handled.
            handler: the handler.
        """
        return _Limit(self.seconds, emission, handler)

    def __repr__(self) -> str:
        """Show how long a call may take."""
        return f"SlowHandlers(seconds={self.seconds})"


class _Limit:
    """Warns if one call takes longer than it may."""

    __slots__ = ("_emission", "_handler", "_seconds", "_started")

    _started: float

    def __init__(self, seconds: float, emission: Emission, handler: object) -> None:
        self._seconds = seconds
        self._emission = emission
        self._handler = handler

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(self, *exc_info: object) -> None:
        taken = perf_counter() - self._started
        if taken > self._seconds:
            emission = self._emission
            log(
                logging.WARNING,
                "handler %s of %s took %.3f s, longer than %s s",
                emission.name_of(self._handler),
                emission.event,
                taken,
                self._seconds,
            )
