"""A tree of a thousand emissions is rebuilt from their ids (B5).

Each node of a random tree is emitted, and its children by its handler: inline, in tasks, in the
background, in what the handler left behind, when it has failed, and so on. The full count runs
under `-m soak`.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    SignalRegistry,
    current_event,
    event_scope,
)
from support.inside import making_ids

NODES = 1_000
LIMIT = 60  # seconds
WAYS = (
    "inline",
    "at_once",
    "suspending",
    "in_background",
    "in_background_loop",
    "left_behind",
    "left_behind_async",
    "deferred",
    "deferred_async",
    "elsewhere",
    "failing",
    "failing_async",
    "failing_in_background",
    "batch",
    "batch_async",
    "batch_of_contexts",
)

pytestmark = [
    pytest.mark.soak,
    pytest.mark.guarantee("B5"),
    pytest.mark.usefixtures("threads_switch_often"),
]

Key = int | str
"""A number of the tree's, or `failed 17` for the announcement that its handler has failed."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Return the ids that are made from now on."""
    ids: list[UUID] = []
    make = making_ids._uuid7

    def noting(moment: int) -> UUID:
        own = make(moment)
        ids.append(own)
        return own

    monkeypatch.setattr(making_ids, "_uuid7", noting)
    return ids


class Tree:
    """A random tree, and the handlers that emit it.

    Args:
        signals: where the events are declared, two for each way to emit.
        dispatcher: what emits.
        nodes: how many nodes it has.
        seed: what decides on all that is random in it.
        at_once: whether each handler reads the ids of its emission.
    """

    def __init__(
        self,
        signals: SignalRegistry,
        dispatcher: EventDispatcher,
        nodes: int,
        seed: int,
        *,
        at_once: bool,
    ) -> None:
        self.dispatcher = dispatcher
        self.is_read_at_once = at_once
        self.children: dict[int, list[int]] = defaultdict(list)
        random.seed(seed)
        self.way: dict[int, str] = {}
        # Below a failure none is announced (F1), nor that of a batch with anything from there.
        self.below_failure: set[int] = set()
        for number in range(nodes):
            way = random.choice(WAYS) if number else "suspending"  # noqa: S311  # no secret
            if number:
                parent = random.randrange(max(0, number - 150), number)  # noqa: S311  # likewise
                self.children[parent].append(number)
                if parent in self.below_failure or self.way[parent].startswith("failing"):
                    self.below_failure.add(number)
                    way = "inline" if way.startswith("failing") else way
            self.way[number] = way
        self.emissions: dict[Key, Emission[Any]] = {}
        self.causes: dict[Key, Emission[Any] | None] = {}
        self.expected = nodes + sum(way.startswith("failing") for way in self.way.values())
        self.is_complete = threading.Event()
        self.handed_on: queue.SimpleQueue[Emission[Any] | None] = queue.SimpleQueue()
        self.left: list[Any] = []
        self.read: dict[Key, Any] = {}
        self.wrong: list[str] = []
        for way in WAYS:
            options: dict[str, Any] = {}
            if "background" in way:
                options["background"] = True
            if "batch" in way:
                options["batch"] = Batch(3, 0.01)
            handler: Any = getattr(self, way)
            for place in ("above", "below"):
                signals.signal(f"{way}_{place}").subscribe(handler, weak=False, **options)
        signals.subscribe("handler_failed", self.hear_failure)

    def look(self, key: Key, emission: Emission[Any]) -> None:
        """Read the ids of a node, and compare them with those read before, if any were."""
        readings: list[Callable[[], UUID | None]] = [
            lambda: emission.id,
            lambda: emission.causation_id,
            lambda: emission.correlation_id,
        ]
        order = [0, 1, 2]
        random.shuffle(order)
        read = {place: readings[place]() for place in order}
        ids = (read[0], read[1], read[2])
        if self.read.setdefault(key, ids) != ids:
            self.wrong.append(f"{key}: its ids have changed")

    def check(self) -> None:
        """Rebuild the tree from the ids."""
        ids = {key: own for key, (own, _, _) in self.read.items()}
        by_id = {own: key for key, own in ids.items()}
        assert len(by_id) == len(self.read) == self.expected
        assert {own.version for own in by_id} == {7}
        rebuilt = {
            key: None if cause is None else by_id[cause] for key, (_, cause, _) in self.read.items()
        }
        keys = {id(emission): key for key, emission in self.emissions.items()}
        expected: dict[Key, Key | None] = {
            key: None if cause is None else keys[id(cause)] for key, cause in self.causes.items()
        }
        for number, way in self.way.items():
            if way.startswith("failing"):
                expected[f"failed {number}"] = number
        assert rebuilt == expected
        assert {root for _, _, root in self.read.values()} == {ids[0]}
        assert [key for key, cause in rebuilt.items() if cause is None] == [0]
        assert all(ids[key] > ids[cause] for key, cause in rebuilt.items() if cause is not None)

    # Emitting

    def note(self, key: Key, emission: Emission[Any], cause: Emission[Any] | None) -> None:
        self.causes[key] = cause
        if self.is_read_at_once:
            self.look(key, emission)
        self.emissions[key] = emission
        if len(self.emissions) == self.expected:
            self.is_complete.set()

    def event(self, number: int) -> str:
        return f"{self.way[number]}_{'below' if number in self.below_failure else 'above'}"

    def emit(self, number: int, cause: Emission[Any] | None) -> None:
        # By its scope is known what a `handler_failed` announces.
        with event_scope(request_id=str(number)):
            emission = self.dispatcher.emit(self.event(number), number=number)
        self.note(number, emission, cause)

    async def emit_async(self, number: int, cause: Emission[Any] | None) -> None:
        if number % 2:
            self.emit(number, cause)
            return
        with event_scope(request_id=str(number)):
            emission = await self.dispatcher.emit_async(self.event(number), number=number)
        self.note(number, emission, cause)

    def go_on(self, emission: Emission[Any], cause: Emission[Any] | None = None) -> None:
        """Emit the children of a node."""
        for child in self.children[emission.context["number"]]:
            self.emit(child, cause or emission)

    async def go_on_async(self, emission: Emission[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            for child in self.children[emission.context["number"]]:
                if child % 3:
                    await self.emit_async(child, emission)
                else:
                    group.create_task(self.emit_async(child, emission))

    # Handlers, one for each way

    def inline(self, emission: Emission[Any]) -> None:
        self.go_on(emission)

    async def at_once(self, emission: Emission[Any]) -> None:
        self.go_on(emission)

    async def suspending(self, emission: Emission[Any]) -> None:
        await asyncio.sleep(0)
        await self.go_on_async(emission)

    def in_background(self, emission: Emission[Any]) -> None:
        self.go_on(emission)

    async def in_background_loop(self, emission: Emission[Any]) -> None:
        await self.go_on_async(emission)

    def left_behind(self, emission: Emission[Any]) -> None:
        """Leave a thread behind, which begins with a copy of the context variables."""

        def later() -> None:
            while emission.state != "done":
                time.sleep(0.0001)
            self.go_on(emission)

        context = contextvars.copy_context()
        self.left.append(threading.Thread(target=context.run, args=(later,)))
        self.left[-1].start()

    async def left_behind_async(self, emission: Emission[Any]) -> None:
        """Leave a task behind."""

        async def later() -> None:
            while emission.state != "done":  # noqa: ASYNC110  # no one tells of it
                await asyncio.sleep(0)
            await self.go_on_async(emission)

        self.left.append(asyncio.create_task(later()))

    def deferred(self, emission: Emission[Any]) -> None:
        with self.dispatcher.deferred():
            self.go_on(emission)

    async def deferred_async(self, emission: Emission[Any]) -> None:
        async with self.dispatcher.deferred():
            await self.go_on_async(emission)

    def elsewhere(self, emission: Emission[Any]) -> None:
        """Hand the emission on to a thread that knows nothing else of it."""
        self.handed_on.put(emission)

    def serve(self) -> None:
        """Be that thread."""
        while (emission := self.handed_on.get()) is not None:
            with emission.as_cause():
                self.go_on(emission)

    def failing(self, emission: Emission[Any]) -> None:
        raise LookupError

    async def failing_async(self, emission: Emission[Any]) -> None:
        await asyncio.sleep(0)
        raise LookupError

    def failing_in_background(self, emission: Emission[Any]) -> None:
        raise LookupError

    def hear_failure(self, emission: Emission[Any]) -> None:
        """Emit the children of a node whose handler has failed."""
        failed = int(emission.context.request_id)
        if not self.way[failed].startswith("failing"):
            self.wrong.append(f"{failed}, {self.way[failed]}: {emission.context.exception_type}")
            self.is_complete.set()
            return
        for child in self.children[failed]:
            self.emit(child, emission)
        self.note(f"failed {failed}", emission, None)

    def batch(self, emissions: list[Emission[Any]]) -> None:
        for emission in emissions:
            with emission.as_cause():
                self.go_on(emission)

    async def batch_async(self, emissions: list[Emission[Any]]) -> None:
        for emission in emissions:
            with emission.as_cause():
                await self.go_on_async(emission)

    def batch_of_contexts(self, contexts: list[Any]) -> None:
        """Emit the children of all with the last emission as their cause."""
        last = current_event()
        assert last is not None
        assert last.context["number"] == contexts[-1]["number"]
        for context in contexts:
            for child in self.children[context["number"]]:
                self.emit(child, last)


def read_in_random_order(tree: Tree) -> None:
    keys = list(tree.emissions)
    random.shuffle(keys)
    for key in keys:
        tree.look(key, tree.emissions[key])


def read_in_threads(tree: Tree) -> None:
    """Each of them reads all, in an order of its own."""
    start = threading.Barrier(8)

    def read(_: int) -> None:
        start.wait(LIMIT)
        read_in_random_order(tree)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))


def read_at_once(tree: Tree) -> None:
    """Read once more what was read as it was emitted."""
    read_in_random_order(tree)


async def grow(tree: Tree) -> None:
    """Emit the whole tree."""
    server = threading.Thread(target=tree.serve)
    server.start()
    try:
        await tree.emit_async(0, None)
        assert await asyncio.to_thread(tree.is_complete.wait, LIMIT)
        for one in tree.left:
            await (
                asyncio.to_thread(one.join) if isinstance(one, threading.Thread) else finish(one)
            )
        assert await tree.dispatcher.drain_async(LIMIT)
    finally:
        tree.handed_on.put(None)
        server.join()


async def finish(task: asyncio.Task[None]) -> None:
    """Wait for a task of whatever loop, and raise what it raised."""
    while not task.done():  # noqa: ASYNC110  # another loop's task tells this one nothing
        await asyncio.sleep(0.001)
    task.result()


@pytest.mark.parametrize("read", [read_in_random_order, read_in_threads, read_at_once])
@pytest.mark.parametrize("seed", range(3))
def test_the_ids_of_a_thousand_emissions_are_those_of_the_tree_that_they_are(
    signals: SignalRegistry, scale: float, made: list[UUID], read: Any, seed: int
) -> None:
    """Causes are the parents in it, the correlation its root, and ids are made as they are read."""
    started = time.monotonic()
    with EventDispatcher(signals, queue_size=10_000, log_tracebacks=False) as dispatcher:
        at_once = read is read_at_once
        tree = Tree(signals, dispatcher, int(NODES * scale), seed, at_once=at_once)
        asyncio.run(grow(tree))
    assert tree.wrong == []
    if not at_once:
        assert made == []
    read(tree)
    assert tree.wrong == []
    tree.check()
    if read is read_in_random_order:
        assert len(made) == tree.expected
    else:  # threads that ask at the same time may make one to spare
        assert len(made) >= tree.expected
    seconds = time.monotonic() - started
    print(f"{tree.expected} emissions, {len(tree.left)} left behind, {seconds:.1f} s")
