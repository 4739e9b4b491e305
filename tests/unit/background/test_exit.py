"""The exit of the interpreter, forks, and a system that gives no thread, without leaving pytest.

Real exits and real forks are in `tests/soak`.
"""

from __future__ import annotations

import asyncio
import multiprocessing.process
import multiprocessing.util
import sys
import threading
import time
from typing import Any

import pytest

from madcrow_events import Batch, EventDispatcher, EventSignal, SignalRegistry
from support.inside import Waiters, backlog_of, ending, running_loop
from support.waiting import eventually


@pytest.fixture
def an_exit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what the interpreter calls as it exits, with little patience."""
    monkeypatch.setattr(ending, "over", [])
    monkeypatch.setattr(ending, "_waited_for", {})
    monkeypatch.setattr(ending, "EXIT_SECONDS", 0.2)
    return ending._wait


def where() -> str:
    return threading.current_thread().name


@pytest.mark.guarantee("B2")
def test_the_exit_waits_and_says_how_many_calls_are_lost(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    an_exit: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    never = threading.Event()
    signal.subscribe(never.wait, background=True)
    signal.subscribe(lambda: "done", background=True)
    emission = dispatcher.emit(signal)
    an_exit()
    an_exit()
    assert [result.value for result in emission.results] == ["done"]
    assert [record.getMessage() for record in caplog.records] == [
        "calls of handlers that were pending at exit and are lost: 1"
    ]
    never.set()
    assert emission.wait(10)


@pytest.mark.guarantee("B2")
def test_who_does_not_want_to_wait_for_the_exit_still_learns_what_is_lost(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    an_exit: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    never = threading.Event()
    signal.subscribe(never.wait, background=True)
    emission = dispatcher.emit(signal)
    monkeypatch.setattr(Waiters, "wait", interrupted)
    an_exit()
    assert caplog.messages == ["calls of handlers that were pending at exit and are lost: 1"]
    monkeypatch.undo()
    never.set()
    assert emission.wait(10)


@pytest.mark.guarantee("B2")
def test_what_is_emitted_after_the_wait_is_done_by_its_emitter(
    signal: EventSignal[Any], dispatcher: EventDispatcher, an_exit: Any
) -> None:
    async def on_a_loop() -> str:
        return where()

    signal.subscribe(lambda: where(), background=True)
    signal.subscribe(on_a_loop, background=True)
    an_exit()
    emission = dispatcher.emit(signal)
    assert [result.value for result in emission.results] == ["MainThread"] * 2


@pytest.mark.guarantee("B2", "B3")
def test_what_is_emitted_for_a_batch_after_the_wait_is_a_batch_of_one(
    signal: EventSignal[Any], dispatcher: EventDispatcher, an_exit: Any
) -> None:
    signal.subscribe(lambda batch: (where(), len(batch)), batch=Batch(3, 3600))
    an_exit()
    emission = dispatcher.emit(signal)
    assert [result.value for result in emission.results] == [("MainThread", 1)]


@pytest.mark.guarantee("B2", "B3")
def test_the_exit_also_waits_for_what_work_begins_in_another_dispatcher(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    an_exit: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which had none until then, and whose batch would wait for an hour."""

    def pass_on() -> None:
        while not backlog_of(dispatcher).batches.flushing:  # until the exit waits
            time.sleep(0.001)
        other.emit("other_thing")

    monkeypatch.setattr(ending, "EXIT_SECONDS", 10)
    batches: list[int] = []
    signal.subscribe(pass_on, background=True)
    signals.signal("other_thing").subscribe(
        lambda batch: batches.append(len(batch)), batch=Batch(3, 3600)
    )
    with EventDispatcher(signals) as other:
        dispatcher.emit(signal)
        an_exit()
        assert batches == [1]


@pytest.mark.guarantee("B2")
async def test_a_loop_that_runs_then_does_what_is_emitted_in_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher, an_exit: Any
) -> None:
    async def on_a_loop() -> str:
        return "done"

    signal.subscribe(on_a_loop, background=True)
    an_exit()
    emission = dispatcher.emit(signal)
    await emission.wait_async()
    assert [result.value for result in emission.results] == ["done"]


@pytest.mark.guarantee("B2")
def test_where_no_thread_can_start_the_emitter_does_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def on_a_loop() -> str:
        return where()

    signal.subscribe(lambda: where(), background=True)
    signal.subscribe(on_a_loop, background=True)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    emission = dispatcher.emit(signal)
    assert [result.value for result in emission.results] == ["MainThread"] * 2
    monkeypatch.undo()
    emission = dispatcher.emit(signal)
    assert emission.wait(10)
    assert "MainThread" not in [result.value for result in emission.results]


@pytest.mark.guarantee("F2")
def test_what_keeps_a_handler_from_starting_is_its_failure(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise OSError("too many open files")

    async def on_a_loop() -> None: ...

    signal.subscribe(on_a_loop, background=True)
    monkeypatch.setattr(asyncio, "new_event_loop", fail)
    (failure,) = dispatcher.emit(signal).failures
    assert isinstance(failure.exception.__cause__, OSError)
    assert dispatcher.drain(10)
    monkeypatch.setattr(asyncio, "new_event_loop", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal)
    assert dispatcher.drain(10)


def interrupt() -> Any:
    raise KeyboardInterrupt


@pytest.mark.guarantee("B2")
def test_two_threads_that_need_the_first_loop_share_one(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def on_a_loop() -> str:
        return where()

    def slow() -> Any:
        """Make a loop while another thread is faster."""
        monkeypatch.undo()
        assert dispatcher.emit(signal).wait(10)
        return asyncio.new_event_loop()

    before = set(threading.enumerate())
    signal.subscribe(on_a_loop, background=True)
    monkeypatch.setattr(asyncio, "new_event_loop", slow)
    assert dispatcher.emit(signal).wait(10)
    # That of the other loop ends in a moment.
    assert eventually(lambda: len(set(threading.enumerate()) - before) == 1)
    (started,) = set(threading.enumerate()) - before
    assert started.name == "madcrow-events-loop"
    dispatcher.close()


@pytest.mark.guarantee("B2")
def test_a_task_that_exits_does_not_end_the_background_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def exits() -> None:
        raise SystemExit

    async def on_a_loop() -> str:
        tasks.append(asyncio.ensure_future(exits()))
        await asyncio.sleep(0.01)
        return "went on"

    tasks: list[Any] = []
    signal.subscribe(on_a_loop, background=True)
    for _ in range(2):
        emission = dispatcher.emit(signal)
        assert emission.wait(10)
        assert [result.value for result in emission.results] == ["went on"]
    assert dispatcher.close(10)
    assert "a task in the background loop ended with SystemExit" in caplog.messages
    assert isinstance(tasks[0].exception(), SystemExit)
    assert isinstance(tasks[1].exception(), SystemExit)


@pytest.mark.guarantee("B2")
def test_a_forked_child_has_nothing_pending(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """What the interpreter calls in the child, called here."""
    never = threading.Event()

    async def on_a_loop() -> None: ...

    signal.subscribe(never.wait, background=True)
    signal.subscribe(on_a_loop, background=True)
    emission = dispatcher.emit(signal)
    parents = backlog_of(dispatcher)
    dispatcher._admission._renew_after_fork()
    assert emission.pending == 0
    assert emission.wait()
    assert dispatcher.drain(0)
    never.set()
    assert parents.changed.wait(parents.is_done, 10)
    parents.stop()
    assert dispatcher.emit(signal).wait(10)
    EventDispatcher(SignalRegistry())._admission._renew_after_fork()


@pytest.mark.guarantee("B2")
def test_a_child_of_multiprocessing_waits_at_its_end(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    an_exit: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finalizers: list[Any] = []
    monkeypatch.setattr(multiprocessing.process, "parent_process", lambda: "the parent")
    monkeypatch.setattr(
        multiprocessing.util, "Finalize", lambda _, call, exitpriority: finalizers.append(call)
    )
    signal.subscribe(lambda: "done", background=True)
    emission = dispatcher.emit(signal)
    assert finalizers == [an_exit]
    finalizers[0]()
    assert emission.pending == 0


def test_who_has_not_loaded_asyncio_runs_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert running_loop() is None
    monkeypatch.delitem(sys.modules, "asyncio")
    assert running_loop() is None
