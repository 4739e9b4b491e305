"""How long it takes from a commit to the call of a handler."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from madcrow_events.outbox import Worker

from ..measuring import Measured
from .databases import Store, Unkeyed, a_store
from .rounds import Effort, report

__all__ = ["latency"]

EVENTS = 200


def commit(store: Store, engine: Engine, number: int) -> float:
    """Commit an event; return when."""
    with Session(engine) as session:
        store.outbox.emit(session, Unkeyed(number=number, key=""))
        session.commit()
    return time.time()


def here(store: Store, engine: Engine, events: int) -> list[float]:
    """Return the waits in the process that commits, in milliseconds."""
    called: SimpleQueue[float] = SimpleQueue()

    def handle(context: Unkeyed) -> None:
        called.put(time.time())

    store.outbox.on(store.unkeyed, id="unkeyed")(handle)
    waits = []
    with Worker(store.outbox, engine, poll=0.5):
        for number in range(events):
            time.sleep(0.02)
            committed = commit(store, engine, number)
            waits.append((called.get(timeout=60) - committed) * 1000)
    return waits


def elsewhere(store: Store, engine: Engine, events: int) -> list[float]:
    """Return the waits in another process, in milliseconds."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    stop = fork.Event()
    process = fork.Process(target=_serve, args=(store, theirs, stop), daemon=True)
    process.start()
    chance = random.Random(1)  # noqa: S311  # no secret
    waits = []
    try:
        ours.recv()
        for number in range(events):
            time.sleep(chance.uniform(0.1, 0.9))
            committed = commit(store, engine, number)
            if not ours.poll(60):
                raise TimeoutError("no handler was called")
            waits.append((ours.recv() - committed) * 1000)
    finally:
        stop.set()
        process.join(60)
        process.kill()
    return waits


def _serve(store: Store, pipe: Any, stop: Any) -> None:
    def handle(context: Unkeyed) -> None:
        pipe.send(time.time())

    store.outbox.on(store.unkeyed, id="unkeyed")(handle)
    with Worker(store.outbox, store.engine(), poll=0.5):
        pipe.send("ready")
        stop.wait(600)


def latency(database: str, folder: Path, effort: Effort) -> Iterator[Measured]:
    """Commit events one by one, and wait for the call."""
    ways = [("in this process", here, False), ("in another process", elsewhere, False)]
    if database == "postgresql":
        ways.append(("in another process, notify", elsewhere, True))
    for name, way, notify in ways:
        with a_store(database, folder, notify=notify) as (store, engine):
            waits = way(store, engine, effort.size(EVENTS))
            engine.dispose()
        ordered = sorted(waits)
        yield report("latency", f"commit to call, {name}, median", statistics.median(waits))
        at = min(len(ordered) - 1, round(len(ordered) * 0.99))
        yield report("latency", f"commit to call, {name}, 99th", ordered[at])
