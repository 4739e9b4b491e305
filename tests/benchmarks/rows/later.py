"""Emitting to handlers that run later, in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Thread
from typing import Any

from madcrow_events import Batch

from ..measuring import OURS, Act, Contender, Effort, Line
from ..ours import CONTEXT, NAME, context_handler, dispatcher_of

BURST = 200
WORKERS = 4


def burst(emit: Act, finish: Act, *, to_the_end: bool) -> Contender:
    """Return what emits a burst, and waits until all handlers have run.

    Args:
        emit: emits once.
        finish: waits.
        to_the_end: whether the waiting counts, too.
    """

    def run(calls: int) -> float:
        spent = 0
        for _ in range(calls):
            started = time.perf_counter_ns()
            for _ in range(BURST):
                emit()
            emitted = time.perf_counter_ns()
            finish()
            spent += (time.perf_counter_ns() if to_the_end else emitted) - started
        return spent / (calls * BURST)

    return run


def simple_queue(stack: ExitStack) -> tuple[Act, Act]:
    """Return what puts calls into a queue that one thread reads: the least that is possible."""
    calls: SimpleQueue[Any] = SimpleQueue()
    done: SimpleQueue[None] = SimpleQueue()

    def work() -> None:
        while call := calls.get():
            call()

    def finish() -> None:
        calls.put(lambda: done.put(None))
        done.get()

    thread = Thread(target=work)
    thread.start()
    stack.callback(thread.join)
    stack.callback(calls.put, None)
    handler = context_handler()
    return lambda: calls.put(lambda: handler(CONTEXT)), finish


def executor(stack: ExitStack) -> tuple[Act, Act]:
    """Return what submits calls to a pool of threads."""
    pool = stack.enter_context(ThreadPoolExecutor(WORKERS))
    handler = context_handler()
    futures: list[Any] = []

    def finish() -> None:
        for future in futures:
            future.result()
        futures.clear()

    return lambda: futures.append(pool.submit(handler, CONTEXT)), finish


def ours(stack: ExitStack, handler: Any, **options: Any) -> tuple[Act, Act]:
    """Return what emits to a handler that runs later."""
    dispatcher, _ = dispatcher_of([handler], **options)
    stack.enter_context(dispatcher)
    return lambda: dispatcher.emit_typed(NAME, CONTEXT), dispatcher.drain


def lines(title: str, bound: float, make: Callable[[ExitStack], tuple[Act, Act]]) -> Iterator[Line]:
    """Yield a line for the emitter's time, and one for the time until all have run."""
    for to_the_end, until in (False, "emitted"), (True, "all have run"):
        with ExitStack() as stack:
            made = {
                "executor.submit": executor(stack),
                OURS: make(stack),
                "SimpleQueue": simple_queue(stack),
            }
            yield Line(
                work=f"{title}, a burst of {BURST}, until {until}",
                contenders={
                    name: burst(emit, finish, to_the_end=to_the_end)
                    for name, (emit, finish) in made.items()
                },
                base="executor.submit",
                bound=bound,
                calls=5,
            )


def background(effort: Effort) -> Iterator[Line]:
    """Emit to a handler that runs in the background."""
    yield from lines(
        "background", 1.0, lambda stack: ours(stack, context_handler(), background=True)
    )


def take_batch(contexts: list[Any]) -> None:
    """Do nothing with a batch."""


def batch(effort: Effort) -> Iterator[Line]:
    """Emit to a handler that takes batches."""
    yield from lines("batch", 0.8, lambda stack: ours(stack, take_batch, batch=Batch(100, 1.0)))
