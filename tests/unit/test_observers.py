"""The observer that counts and times, by itself (B6)."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import math
import subprocess
import sys
import threading
import weakref
from contextlib import AbstractContextManager
from typing import Any, cast

import pytest

from madcrow_events import Emission, SignalRegistry, observers
from madcrow_events.observers import (
    LATENCY_BOUNDS,
    EventTiming,
    HandlerTiming,
    Observer,
    TimingObserver,
)
from support.inside import renew_after_fork


class Clock:
    """A clock that stands still unless a test puts it forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Named:
    """What the observer reads of an emission."""

    def __init__(self, event: str) -> None:
        self.event = event


def emission_of(event: str = "order_placed") -> Emission[Any]:
    return cast("Emission[Any]", Named(event))


def notify(sender: object, **context: object) -> None: ...


def other(sender: object, **context: object) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(observers, "perf_counter", clock)
    return clock


@pytest.fixture
def observer() -> TimingObserver:
    return TimingObserver()


def only_handler(observer: TimingObserver) -> HandlerTiming:
    (timing,) = observer.snapshot().handlers
    return timing


def only_event(observer: TimingObserver) -> EventTiming:
    (timing,) = observer.snapshot().events
    return timing


def counted_in(latency: tuple[int, ...]) -> list[float]:
    """Return the bound of each bucket, as often as it counts."""
    return [
        bound for bound, count in zip(LATENCY_BOUNDS, latency, strict=True) for _ in range(count)
    ]


def call(observer: TimingObserver, error: BaseException | None = None) -> None:
    with observer.handling(emission_of(), notify):
        if error is not None:
            raise error


def test_it_is_an_observer(observer: TimingObserver) -> None:
    """It has the two methods, and what they return are context managers."""
    as_observer: Observer = observer
    assert isinstance(as_observer.emission(emission_of()), AbstractContextManager)
    assert isinstance(as_observer.handling(emission_of(), notify), AbstractContextManager)


def test_an_emission_of_a_signal_is_counted_by_its_event(
    signals: SignalRegistry, observer: TimingObserver
) -> None:
    """The event's canonical name is what a real emission is known by."""
    seen: list[Emission[Any]] = []

    def keep(emission: Emission[Any]) -> None:
        seen.append(emission)

    signals.signal("order-placed").subscribe(keep)
    signals["order_placed"].send("shop")
    with observer.emission(seen[0]), observer.handling(seen[0], keep):
        pass
    assert only_event(observer).event == "order_placed"
    assert only_handler(observer).event == "order_placed"


def test_at_first_there_is_nothing(observer: TimingObserver) -> None:
    """No event and no handler is listed before it was seen."""
    assert observer.snapshot() == ((), ())


def test_emissions_are_counted_by_event(observer: TimingObserver, clock: Clock) -> None:
    """Each event has its own count and times, in the order in which they first came."""
    for event, seconds in [("b", 0.5), ("a", 1.0), ("b", 0.25)]:
        with observer.emission(emission_of(event)):
            clock.now += seconds
    second, first = observer.snapshot().events
    assert (first.event, first.emissions, counted_in(first.latency)) == ("a", 1, [1.0])
    assert (second.event, second.emissions, counted_in(second.latency)) == ("b", 2, [0.5, 0.5])
    assert observer.snapshot().handlers == ()


def test_calls_are_counted_by_event_and_handler(observer: TimingObserver, clock: Clock) -> None:
    """A handler of two events is counted for each, and each handler for itself."""
    for event, handler in [("a", notify), ("a", other), ("b", notify), ("a", notify)]:
        with observer.handling(emission_of(event), handler):
            clock.now += 0.25
    name, other_name = (f"{__name__}.{function}" for function in ("notify", "other"))
    timings = observer.snapshot().handlers
    assert [(timing.event, timing.handler, timing.calls) for timing in timings] == [
        ("a", name, 2),
        ("a", other_name, 1),
        ("b", name, 1),
    ]
    assert observer.snapshot().events == ()


def test_total_and_longest_are_in_seconds(observer: TimingObserver, clock: Clock) -> None:
    """All times together, and the greatest one, wherever it came."""
    for seconds in (0.5, 2.0, 0.25):
        with observer.handling(emission_of(), notify):
            clock.now += seconds
    timing = only_handler(observer)
    assert timing.total_seconds == 2.75
    assert timing.longest_seconds == 2.0


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), ExceptionGroup("x", [ValueError()]), SystemExit(), KeyboardInterrupt()],
)
def test_what_a_handler_lets_out_is_a_failure_and_goes_on(
    observer: TimingObserver, error: BaseException
) -> None:
    """The exception is counted and not swallowed, and the time of the call is taken."""
    with pytest.raises(type(error)) as caught:
        call(observer, error)
    assert caught.value is error
    call(observer)
    timing = only_handler(observer)
    assert (timing.calls, timing.failures, sum(timing.latency)) == (2, 1, 2)


def test_a_cancelled_handler_has_not_failed(observer: TimingObserver) -> None:
    """Its `CancelledError` goes on, the call is timed, no failure is counted."""
    with pytest.raises(asyncio.CancelledError):
        call(observer, asyncio.CancelledError())
    timing = only_handler(observer)
    assert (timing.calls, timing.failures, sum(timing.latency)) == (1, 0, 1)


def test_a_failure_is_told_without_loading_asyncio() -> None:
    """Who never loaded asyncio does not pay for it when a handler fails."""
    script = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from madcrow_events.observers import TimingObserver\n"
        "observer = TimingObserver()\n"
        "try:\n"
        "    with observer.handling(SimpleNamespace(event='a'), print):\n"
        "        raise ValueError\n"
        "except ValueError:\n"
        "    print(observer.snapshot().handlers[0].failures, 'asyncio' in sys.modules)\n"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert shown.stdout.split() == [b"1", b"False"]


def test_an_exception_around_an_emission_goes_on(observer: TimingObserver) -> None:
    """An emission that raises is an emission like any other."""
    with pytest.raises(ValueError), observer.emission(emission_of()):
        raise ValueError
    assert only_event(observer).emissions == sum(only_event(observer).latency) == 1


def test_what_is_nested_is_timed_for_itself(observer: TimingObserver, clock: Clock) -> None:
    """The outer time has the inner one in it, of the same handler too."""
    with observer.handling(emission_of(), notify):
        clock.now += 1.0
        with observer.handling(emission_of(), notify):
            clock.now += 0.5
        clock.now += 1.0
    timing = only_handler(observer)
    assert (timing.total_seconds, timing.longest_seconds) == (3.0, 2.5)
    assert counted_in(timing.latency) == [0.5, 5.0]


def test_what_overlaps_is_timed_for_itself(observer: TimingObserver, clock: Clock) -> None:
    """Two calls may end in the order in which they began, as those of two tasks do."""
    first, second = (observer.handling(emission_of(), notify) for _ in range(2))
    first.__enter__()
    clock.now += 1.0
    second.__enter__()
    clock.now += 1.0
    first.__exit__(None, None, None)
    clock.now += 3.0
    second.__exit__(None, None, None)
    timing = only_handler(observer)
    assert (timing.total_seconds, timing.longest_seconds) == (6.0, 4.0)


def test_what_has_begun_is_counted_and_not_yet_timed(
    observer: TimingObserver, clock: Clock
) -> None:
    """An emission that has not ended is one of the emissions, and in no bucket."""
    with observer.emission(emission_of()), observer.handling(emission_of(), notify):
        assert (only_event(observer).emissions, sum(only_event(observer).latency)) == (1, 0)
        assert (only_handler(observer).calls, sum(only_handler(observer).latency)) == (1, 0)


@pytest.mark.parametrize("bound", LATENCY_BOUNDS[:-1])
def test_a_time_that_equals_a_bound_is_counted_under_it(
    observer: TimingObserver, clock: Clock, bound: float
) -> None:
    """A bound is the longest time of its bucket; the next longer time is in the next bucket."""
    index = LATENCY_BOUNDS.index(bound)
    for seconds, place in [(bound, index), (math.nextafter(bound, math.inf), index + 1)]:
        observer.reset()
        clock.now = 0.0
        with observer.handling(emission_of(), notify):
            clock.now = seconds
        assert counted_in(only_handler(observer).latency) == [LATENCY_BOUNDS[place]]


def test_the_first_and_the_last_bucket_take_what_is_beyond(
    observer: TimingObserver, clock: Clock
) -> None:
    """No time at all is in the first bucket, an hour in the last."""
    with observer.emission(emission_of()):
        pass
    with observer.emission(emission_of()):
        clock.now += 3600.0
    assert counted_in(only_event(observer).latency) == [LATENCY_BOUNDS[0], math.inf]


def test_the_bounds_rise_from_10_microseconds_to_10_seconds_and_infinity() -> None:
    """In steps of 1, 2 and 5."""
    steps = [float(f"{step}e{power}") for power in range(-5, 1) for step in (1, 2, 5)]
    assert list(LATENCY_BOUNDS) == [*steps, 10.0, math.inf]


def test_a_snapshot_does_not_change(observer: TimingObserver) -> None:
    """Later counting and a reset leave it as it is, and nothing in it can be set."""
    with observer.emission(emission_of()):
        call(observer)
    snapshot = observer.snapshot()
    before = copy.deepcopy(snapshot)
    with observer.emission(emission_of()):
        call(observer)
    observer.reset()
    assert snapshot == before
    assert hash(snapshot) == hash(before)
    for row in (*snapshot.events, *snapshot.handlers):
        with pytest.raises(AttributeError):
            row.event = "other"  # type: ignore[misc]


def test_a_reset_counts_from_0(observer: TimingObserver) -> None:
    """Nothing is listed after it, and the next call is the first."""
    for _ in range(2):
        call(observer)
    observer.reset()
    assert observer.snapshot() == ((), ())
    call(observer)
    assert only_handler(observer).calls == 1


def test_what_was_under_way_at_a_reset_is_not_counted(
    observer: TimingObserver, clock: Clock
) -> None:
    """Neither its end nor its failure shows; what begins after the reset does."""
    with pytest.raises(ValueError), observer.handling(emission_of(), notify):
        clock.now += 1.0
        observer.reset()
        call(observer)
        raise ValueError
    timing = only_handler(observer)
    assert (timing.calls, timing.failures, timing.total_seconds) == (1, 0, 0.0)


def test_a_partial_has_the_name_of_its_function(observer: TimingObserver) -> None:
    """Handlers are named as in the log, never by a `repr` that may show values."""
    with observer.handling(emission_of(), functools.partial(notify, password="canary")):
        pass
    assert only_handler(observer).handler == f"{__name__}.notify"


def test_it_keeps_neither_handlers_nor_emissions(observer: TimingObserver) -> None:
    """What it has seen can go; its name and its numbers stay."""

    class Handler:
        def __call__(self, sender: object, **context: object) -> None: ...

    handler, emission = Handler(), emission_of()
    with observer.emission(emission), observer.handling(emission, handler):
        pass
    gone = [weakref.ref(handler), weakref.ref(emission)]
    del handler, emission
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert only_handler(observer).calls == 1


def test_threads_lose_no_count(observer: TimingObserver) -> None:
    """Calls on many threads, snapshots among them, are all counted."""
    threads, rounds = 8, 500
    start = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        start.wait(10)
        for turn in range(rounds):
            with observer.emission(emission_of(f"event_{turn}")):
                try:
                    call(observer, ValueError() if number % 2 else None)
                except ValueError:
                    pass

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in running:
            thread.start()
        start.wait(10)
        while any(thread.is_alive() for thread in running):
            observer.snapshot()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    snapshot = observer.snapshot()
    assert [timing.emissions for timing in snapshot.events] == [threads] * rounds
    timing = only_handler(observer)
    assert timing.calls == sum(timing.latency) == threads * rounds
    assert timing.failures == threads * rounds // 2


def test_who_emits_while_the_lock_is_held_does_not_wait_for_itself(
    observer: TimingObserver,
) -> None:
    """A finalizer or a signal handler may do so at any place."""
    with observer._lock:
        call(observer)
    assert only_handler(observer).calls == 1


def test_the_lock_is_free_in_a_forked_child(observer: TimingObserver) -> None:
    """Though a thread of the parent held it; the child goes on counting where it was."""
    held, finish = threading.Event(), threading.Event()

    def hold() -> None:
        with observer._lock:
            held.set()
            finish.wait(5)

    call(observer)
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    try:
        renew_after_fork()
        call(observer)
        assert only_handler(observer).calls == 2
    finally:
        finish.set()
        thread.join()
