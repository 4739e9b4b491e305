"""How costs grow: each line is one point of a curve."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Barrier, Thread

from madcrow_events import Batch

from ..measuring import OURS, Contender, Effort, Line, timed
from ..ours import CONTEXT, KEYWORDS, NAME, dispatcher_of, keyword_handler, many
from .around import nested_line
from .emitting import loose_line
from .footprint import recording
from .later import burst, take_batch
from .registries import emitting_at_random, filled
from .subscribing import turns

TEN_FOLD = (1, 10, 100, 1000, 10_000)
DEPTHS = (1, 2, 4, 8, 16, 32, 60)
THREADS = (1, 2, 4, 8)
BATCHES = (1, 10, 100, 1000)


def growth(effort: Effort) -> Iterator[Line]:
    """Tell how costs grow."""
    yield from over_handlers(effort)
    yield from over_signals(effort)
    yield from over_subscriptions(effort)
    yield from over_depth(effort)
    yield from over_threads(effort)
    yield from over_batches(effort)
    yield from over_recorded(effort)


def over_handlers(effort: Effort) -> Iterator[Line]:
    """Emit to more and more handlers."""
    for number in TEN_FOLD:
        line = loose_line(effort.size(number), None)
        yield replace(
            line,
            work="an emission, by its handlers",
            base=None,
            is_hot=False,
            leads=False,
            at=number,
        )


def over_signals(effort: Effort) -> Iterator[Line]:
    """Emit one of more and more events."""
    for number in TEN_FOLD:
        dispatcher = filled(effort.size(number), 1)
        yield Line(
            work="an emission to one handler, by the events of the registry",
            contenders={OURS: timed(emitting_at_random(dispatcher))},
            at=number,
        )


def over_subscriptions(effort: Effort) -> Iterator[Line]:
    """Subscribe one handler more, and cancel it."""
    for number in TEN_FOLD:
        _, signal = dispatcher_of(many(keyword_handler, effort.size(number)))
        turn = turns(lambda it: signal.subscribe(it).cancel(), keyword_handler, are_new=False)
        yield Line(
            work="subscribing and cancelling, by the handlers that are there",
            contenders={OURS: turn},
            calls=50,
            at=number,
        )


def over_depth(effort: Effort) -> Iterator[Line]:
    """Emit in handlers of handlers."""
    for depth in DEPTHS:
        line = nested_line(depth, None)
        contenders = {name: it for name, it in line.contenders.items() if name != line.base}
        work = "a level of nested emissions, by their depth"
        yield replace(line, work=work, contenders=contenders, base=None, is_hot=False, at=depth)


def in_threads(number: int) -> Contender:
    """Return what emits the same event in so many threads."""
    dispatcher, _ = dispatcher_of([keyword_handler()])

    def run(calls: int) -> float:
        barrier = Barrier(number + 1)

        def work() -> None:
            barrier.wait()
            for _ in range(calls):
                dispatcher.emit(NAME, **KEYWORDS)

        threads = [Thread(target=work) for _ in range(number)]
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.perf_counter_ns()
        for thread in threads:
            thread.join()
        return (time.perf_counter_ns() - started) / (calls * number)

    return run


def over_threads(effort: Effort) -> Iterator[Line]:
    """Emit in several threads at once."""
    for number in THREADS:
        yield Line(
            work="an emission, by the threads that emit at once",
            contenders={OURS: in_threads(number)},
            calls=2000,
            at=number,
        )


def over_batches(effort: Effort) -> Iterator[Line]:
    """Emit to batches of several sizes."""
    for size in BATCHES:
        dispatcher, _ = dispatcher_of([take_batch], batch=Batch(size, 1.0))
        with dispatcher:

            def emit(emit: Callable[..., object] = dispatcher.emit_typed) -> object:
                return emit(NAME, CONTEXT)

            yield Line(
                work="an emission to a batch, until delivered, by the size of the batch",
                contenders={OURS: burst(emit, dispatcher.drain, to_the_end=True)},
                calls=5,
                at=size,
            )


def over_recorded(effort: Effort) -> Iterator[Line]:
    """Record more and more emissions."""
    for number in (*TEN_FOLD[1:], 100_000):
        made = effort.size(number)
        yield Line(
            work="a recorded emission, by their number",
            contenders={OURS: recording(made)},
            rounds=5,
            at=number,
        )
