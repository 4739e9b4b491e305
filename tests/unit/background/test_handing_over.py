"""What a finalizer emits as it interrupts an emitter that hands handlers over (F6).

A call in the place of such a finalizer emits between two steps of the emitter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    EventDispatcher,
    QueueFullError,
    SignalRegistry,
    WouldDeadlockError,
)
from support.inside import BatchBuffer, admitting, working
from support.waiting import LIMIT, elsewhere, eventually

pytestmark = pytest.mark.guarantee("F6")


@pytest.fixture
def emit_within(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Let a method emit once before it does anything; return the texts of the errors."""

    def patch(owner: Any, method: str, emit: Callable[[], object]) -> list[str]:
        real, left, told = getattr(owner, method), [True], []

        def emit_first(*arguments: Any) -> Any:
            if left:
                left.clear()
                try:
                    emit()
                except (QueueFullError, WouldDeadlockError) as error:
                    told.append(str(error))
            return real(*arguments)

        monkeypatch.setattr(owner, method, emit_first)
        return told

    return patch


@pytest.mark.parametrize("number", [1, 2])
def test_it_waits_for_no_place_that_the_emitter_has(
    signals: SignalRegistry, emit_within: Callable[..., list[str]], number: int
) -> None:
    signal = signals.signal("thing_happened")
    for _ in range(number):  # a single handler has a shorter way
        signal.subscribe(lambda: None, background=True)
    with EventDispatcher(signals, queue_size=number) as dispatcher:
        assert dispatcher.emit(signal).wait(LIMIT)
        told = emit_within(working.WorkerThreads, "put", lambda: dispatcher.emit(signal))
        emission = elsewhere(lambda: dispatcher.emit(signal)).result(LIMIT)
        assert emission.wait(LIMIT)
    (text,) = told
    assert "a finalizer cannot wait" in text


def test_it_waits_for_no_batch_whose_turn_the_emitter_has(
    signals: SignalRegistry, emit_within: Callable[..., list[str]]
) -> None:
    signal, batches = signals.signal("thing_happened"), []
    signal.subscribe(batches.append, batch=Batch(2, LIMIT))
    with EventDispatcher(signals, queue_size=2) as dispatcher:
        told = emit_within(BatchBuffer, "_hand_over", lambda: dispatcher.emit(signal))
        elsewhere(lambda: [dispatcher.emit(signal) for _ in range(2)]).result(LIMIT)
        assert eventually(lambda: batches)
    (text,) = told
    assert "a finalizer cannot wait" in text


def test_it_is_told_if_the_last_place_goes_after_it_was_admitted(
    signals: SignalRegistry,
    emit_within: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal = signals.signal("thing_happened")
    signal.subscribe(lambda: None, background=True)
    monkeypatch.setattr(admitting.Admission, "_why_not_wait", lambda *_, **__: None)
    with EventDispatcher(signals, queue_size=1) as dispatcher:
        told = emit_within(working.WorkerThreads, "put", lambda: dispatcher.emit(signal))
        assert elsewhere(lambda: dispatcher.emit(signal)).result(LIMIT).wait(LIMIT)
    (text,) = told
    assert "a finalizer cannot wait for a place" in text


def test_it_waits_for_a_place_in_another_queue(
    signals: SignalRegistry, emit_within: Callable[..., list[str]]
) -> None:
    signal, other = signals.signal("thing_happened"), signals.signal("other_thing")
    started, go_on = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        started.release()
        assert go_on.wait(LIMIT)

    for it in (signal, other):
        it.subscribe(hold, background=True)
    with EventDispatcher(signals) as dispatcher, EventDispatcher(signals, queue_size=1) as full:
        for _ in range(4):  # one for each of its threads
            full.emit(other)
            assert started.acquire(timeout=LIMIT)
        full.emit(other)
        told = emit_within(working.WorkerThreads, "put", lambda: full.emit(other))
        emitting = elsewhere(lambda: dispatcher.emit(signal))
        time.sleep(0.05)
        assert not emitting.done()
        go_on.set()
        assert emitting.result(LIMIT).wait(LIMIT)
    assert not told


def test_a_predicate_waits_because_it_is_asked_before_a_place_is_taken(
    signals: SignalRegistry,
) -> None:
    signal, other = signals.signal("thing_happened"), signals.signal("other_thing")
    started, go_on, waits = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert go_on.wait(LIMIT)

    def emit_other(_context: object) -> bool:
        waits.set()
        return dispatcher.emit(other).wait(LIMIT)

    other.subscribe(hold, background=True)
    signal.subscribe(lambda: "called", background=True, when=emit_other)
    with EventDispatcher(signals, queue_size=1, max_workers=1) as dispatcher:
        dispatcher.emit(other)
        assert started.wait(LIMIT)
        dispatcher.emit(other)  # which takes the only place
        threading.Timer(0.05, lambda: waits.wait(LIMIT) and go_on.set()).start()
        emission = elsewhere(lambda: dispatcher.emit(signal)).result(LIMIT)
        assert emission.wait(LIMIT)
    assert [it.value for it in emission.results] == ["called"]
