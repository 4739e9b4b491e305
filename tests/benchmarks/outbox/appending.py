"""Transactions with an event, beside the same ones without it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext

from ..measuring import OURS, Measured
from .databases import Keyed, Row, Store, Unkeyed, a_store
from .rounds import Effort, compare

__all__ = ["append"]

TRANSACTIONS = 200
"""In each turn, of all producers."""


class Load(NamedTuple):
    """What one producer does in a turn.

    Attributes:
        transactions: how many transactions.
        keys: how many keys they share; 0 for events without a key.
        work: how many seconds of work follow the emission.
        emits: whether there is an event in each.
    """

    transactions: int
    keys: int
    work: float
    emits: bool


def produce(store: Store, engine: Engine, load: Load, first: int) -> None:
    """Commit rows, one in each transaction."""
    for number in range(first, first + load.transactions):
        key = str(number % load.keys) if load.keys else ""
        with Session(engine) as session:
            session.add(Row(number=number, key=key))
            if load.emits:
                event = Keyed if load.keys else Unkeyed
                store.outbox.emit(session, event(number=number, key=key))
            if load.work:
                session.flush()
                time.sleep(load.work)
            session.commit()


def ignore(context: BaseEventContext) -> None:
    """Do nothing; producers do not call durable handlers."""


def timed(store: Store, engine: Engine, load: Load) -> float:
    """Return how many microseconds a transaction of a single producer takes."""
    started = time.perf_counter()
    produce(store, engine, load, 0)
    return (time.perf_counter() - started) / load.transactions * 1e6


@contextmanager
def producers(store: Store, count: int) -> Iterator[Callable[[Load], float]]:
    """Yield a function that has several processes produce at once, and returns what that costs."""
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(count + 1)
    pipes = [fork.Pipe() for _ in range(count)]
    processes = [
        fork.Process(target=_serve, args=(store, barrier, theirs, place), daemon=True)
        for place, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()

    def run(load: Load) -> float:
        for ours, _ in pipes:
            ours.send(load)
        barrier.wait(60)
        started = time.perf_counter()
        barrier.wait(300)
        return (time.perf_counter() - started) / (load.transactions * count) * 1e6

    try:
        yield run
    finally:
        for ours, _ in pipes:
            ours.send(None)
        for process in processes:
            process.join(60)
            process.kill()


def _serve(store: Store, barrier: Any, pipe: Any, place: int) -> None:
    engine = store.engine()
    with engine.connect():
        pass
    while pipe.poll(600) and (load := pipe.recv()) is not None:  # the parent may have gone
        barrier.wait(60)
        produce(store, engine, load, place * load.transactions)
        barrier.wait(300)


def append(database: str, folder: Path, effort: Effort) -> Iterator[Measured]:
    """Commit a row, with and without an event."""
    one = effort.size(TRANSACTIONS)
    each = max(1, one // 8)
    with ExitStack() as stack:
        few, engine = stack.enter_context(a_store(database, folder))
        few.handlers(ignore)
        many, other = stack.enter_context(a_store(database, folder))
        many.handlers(ignore, 20)
        run = stack.enter_context(producers(few, 8))
        for store, of, handlers in (few, engine, 1), (many, other, 20):
            for keys in 0, 1000:
                yield _compared(
                    f"append, 1 producer, {_named(keys)}, handlers: {handlers}",
                    1.5,
                    effort,
                    partial(timed, store, of),
                    Load(one, keys, 0.0, emits=True),
                )
        is_bound = database == "postgresql"  # SQLite has one writer: who waits, waits for a turn
        for keys, work, bound in (1000, 0.0, 1.5), (1, 0.0, 2.5), (1, 0.005, 1.2):
            title = f"append, 8 producers, {_named(keys)}"
            yield _compared(
                f"{title}, 5 ms of work" if work else title,
                bound if is_bound else None,
                effort,
                run,
                Load(each, keys, work, emits=True),
            )


def _named(keys: int) -> str:
    return {0: "no key", 1: "one key"}.get(keys, f"{keys:,} keys")


def _compared(
    work: str, bound: float | None, effort: Effort, run: Callable[[Load], float], load: Load
) -> Measured:
    return compare(
        "append",
        work,
        bound,
        effort,
        {
            "without": lambda: run(load._replace(emits=False)),
            OURS: lambda: run(load),
        },
    )
