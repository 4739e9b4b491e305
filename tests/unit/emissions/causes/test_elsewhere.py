"""Causes in other threads and in forks, and what they keep in memory (B5)."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import Emission, EventDispatcher, EventSignal, event_scope
from support.inside import finding_causes, making_ids
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B5")


def test_threads_that_ask_at_the_same_time_get_the_same_ids(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """One thread makes what all of them get, in a chain of causes too."""
    threads = 8
    seen: list[Emission[Any]] = []
    signal.subscribe(lambda: seen.append(dispatcher.emit(inner)))
    results: list[list[tuple[UUID, UUID, UUID | None]]] = [[] for _ in range(threads)]
    seen += [dispatcher.emit(signal) for _ in range(200)]
    start = threading.Barrier(threads)

    def read(number: int) -> None:
        for emission in seen:
            start.wait(LIMIT)
            ids = (emission.id, emission.correlation_id, emission.causation_id)
            results[number].append(ids)

    running = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    expected = [(it.id, it.correlation_id, it.causation_id) for it in seen]
    assert results == [expected] * threads


@pytest.mark.parametrize("has_ids", [False, True])
def test_who_is_overtaken_gets_the_id_of_who_was_faster(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    has_ids: bool,
) -> None:
    """Another thread made it while this one was about to."""
    emission = dispatcher.emit(signal)
    seen: list[UUID] = []
    if has_ids:
        with emission.as_cause():
            pass

    def overtake() -> None:
        thread = threading.Thread(target=lambda: seen.append(emission.id))
        thread.start()
        thread.join()

    module, name = (making_ids, "_uuid7") if has_ids else (finding_causes, "_give_ids")
    function = getattr(module, name)

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(module, name, function)
        overtake()
        return function(*arguments)

    monkeypatch.setattr(module, name, overtaken)
    assert [emission.id] == seen
    assert [emission.id] == seen


def test_the_cause_of_a_cause_is_read_in_a_chain_of_any_length(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Read by the innermost of 64, the others get theirs first, outermost first."""
    chain: list[Emission[Any]] = []

    def handler(emission: Emission[Any]) -> None:
        chain.append(emission)
        if len(chain) < 64:
            dispatcher.emit(signal)
        else:
            assert emission.id

    signal.subscribe(handler)
    assert dispatcher.emit(signal).ok
    ids = [emission.id for emission in chain]
    assert len(ids) == 64
    assert ids == sorted(set(ids))
    assert [emission.causation_id for emission in chain] == [None, *ids[:-1]]
    assert {emission.correlation_id for emission in chain} == {ids[0]}


def in_a_thread(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    signal.subscribe(emit_next, background=True)


def in_a_loop(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    @signal.on(background=True)
    async def handler() -> None:
        emit_next()


def in_an_awaiting_loop(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    @signal.on(background=True)
    async def handler() -> None:
        await asyncio.sleep(0)
        emit_next()


def in_tasks(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    left: set[asyncio.Task[None]] = set()

    async def later() -> None:
        await asyncio.sleep(0)
        with event_scope(request_id="1"):
            emit_next()

    @signal.on(background=True)
    async def handler() -> None:
        task = asyncio.create_task(later())
        left.add(task)
        task.add_done_callback(left.discard)


def in_tasks_of_inline_handlers(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    """Of which the first is called where there is a loop."""
    left: set[asyncio.Task[None]] = set()

    async def later() -> None:
        await asyncio.sleep(0)
        emit_next()

    @signal.on(background=True, once=True)
    async def first() -> None:
        emit_next()

    @signal.on()
    def handler() -> None:
        try:
            with event_scope(request_id="1"):
                coroutine = later()
                task = asyncio.create_task(coroutine)
        except RuntimeError:
            coroutine.close()
            return
        left.add(task)
        task.add_done_callback(left.discard)


class Sender:
    """One for each emission, by whose end that of the emission is known."""


@pytest.mark.parametrize(
    "subscribe",
    [in_a_thread, in_a_loop, in_an_awaiting_loop, in_tasks, in_tasks_of_inline_handlers],
)
@pytest.mark.parametrize("asked", [False, True], ids=["", "ids are read"])
def test_an_endless_chain_does_not_keep_its_beginning(
    signal: EventSignal[Any], dispatcher: EventDispatcher, subscribe: Any, asked: bool
) -> None:
    """Only the id of the first one, and the last few that are under way."""
    links = 50
    senders: list[weakref.ref[Sender]] = []
    ids: list[tuple[UUID, UUID, UUID | None]] = []
    enough, finish = threading.Event(), threading.Event()

    def emit_next() -> None:
        if len(senders) >= links:
            enough.set()
            return
        sender = Sender()
        senders.append(weakref.ref(sender))
        dispatcher.emit(signal, sender)

    def note(emission: Emission[Any]) -> None:
        if asked:
            ids.append((emission.id, emission.correlation_id, emission.causation_id))

    signal.subscribe(note, priority=1)
    subscribe(signal, emit_next)
    emit_next()
    assert enough.wait(LIMIT)
    finish.set()
    assert dispatcher.drain(LIMIT)
    gc.collect()
    alive = [number for number, sender in enumerate(senders) if sender() is not None]
    assert len(senders) == links
    assert [number for number in alive if number < links - 5] == []
    if asked:
        assert [causation for _, _, causation in ids] == [None, *(own for own, _, _ in ids[:-1])]
        assert {root for _, root, _ in ids} == {ids[0][0]}


def test_a_trace_keeps_no_trace_but_that_of_the_root(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Causes one after the other, without end, leave the first and the last."""
    emission = first = dispatcher.emit(signal)
    senders: list[weakref.ref[Sender]] = []
    for _ in range(100):
        sender = Sender()
        senders.append(weakref.ref(sender))
        with emission.as_cause():
            emission = dispatcher.emit(signal, sender)
    del sender
    gc.collect()
    assert sum(sender() is not None for sender in senders) == 1
    assert emission.correlation_id == first.id


FORKING = """
import os
from madcrow_events import EventDispatcher, SignalRegistry

signals = SignalRegistry()
signal = signals.signal("first_thing")
inner = signals.signal("inner_thing")
dispatcher = EventDispatcher(signals)
seen = []
signal.subscribe(lambda: seen.append(dispatcher.emit(inner)))
before = dispatcher.emit(signal)
known = dispatcher.emit(signal)
identity = known.id
read, write = os.pipe()
child = os.fork()
if child == 0:
    own = dispatcher.emit(signal)
    good = (
        known.id == identity < before.id < seen[0].id < own.id
        and seen[0].causation_id == before.id
        and seen[2].causation_id == own.id
    )
    os.write(write, str(own.id if good else None).encode())
    os._exit(0)
os.waitpid(child, 0)
of_child = os.read(read, 100).decode()
own = dispatcher.emit(signal).id
print(known.id == identity < before.id, of_child != "None", of_child != str(own))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_ids_are_made_in_a_forked_child() -> None:
    """Those that were made stay the same."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ran.stdout == "True True True\n", ran.stdout + ran.stderr
