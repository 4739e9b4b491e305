"""Finding out what runs in the place of asyncio, or of threads, told by modules that stand in.

What these libraries really do is tried in `emissions/async_loop/test_other_loops.py`; not each of
them can be installed everywhere.
"""

from __future__ import annotations

import asyncio
import queue
import selectors
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventLoopError, EventSignal
from support.inside import NativeThread, other_library, other_loops


@pytest.fixture
def curio(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    meta = SimpleNamespace(curio_running=lambda: True)
    monkeypatch.setitem(sys.modules, "curio", SimpleNamespace(meta=meta))
    monkeypatch.setitem(sys.modules, "curio.meta", meta)
    return meta


@pytest.fixture
def eventlet(monkeypatch: pytest.MonkeyPatch) -> None:
    patcher = SimpleNamespace(is_monkey_patched=lambda name: name == "thread")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)


def start_new_thread(function: Any, arguments: Any) -> None:
    """Start one that coverage can look into."""
    threading.Thread(target=function, args=arguments, daemon=True).start()


ORIGINALS: dict[str, Any] = {
    "DefaultSelector": selectors.DefaultSelector,
    "start_new_thread": start_new_thread,
}


@pytest.fixture
def gevent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkey = SimpleNamespace(
        is_module_patched=lambda name: name == "threading",
        get_original=lambda module, name: ORIGINALS[name],
    )
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)


async def handler() -> str:
    return threading.current_thread().name


def plain() -> str:
    return "plain"


@pytest.mark.guarantee("A2")
def test_curio_is_known_by_its_own_word(
    signal: EventSignal[Any], dispatcher: EventDispatcher, curio: SimpleNamespace
) -> None:
    signal.subscribe(handler)
    with pytest.raises(EventLoopError, match="curio runs here"):
        dispatcher.emit(signal)
    curio.curio_running = lambda: False
    assert dispatcher.emit(signal).wait(10)


@pytest.mark.guarantee("A2")
@pytest.mark.parametrize("name", ["trio", "curio"])
def test_a_library_that_is_being_imported_does_not_run_yet(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    monkeypatch.delitem(sys.modules, f"{name}.lowlevel", raising=False)
    signal.subscribe(handler)
    assert dispatcher.emit(signal).wait(10)


@pytest.mark.guarantee("F3")
def test_an_interrupt_as_an_older_trio_is_asked_is_let_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def current_task() -> None:
        raise RuntimeError("not in a task, or interrupted")

    for name in ("trio", "trio.lowlevel"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(current_task=current_task))
    assert not other_library()
    monkeypatch.setattr(other_loops, "is_interrupt", lambda error: True)
    with pytest.raises(RuntimeError, match="interrupted"):
        other_library()


@pytest.mark.guarantee("A2")
@pytest.mark.usefixtures("eventlet")
def test_eventlet_has_no_place_for_async_handlers_and_one_for_plain_ones(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(plain, background=True)
    assert dispatcher.emit(signal).wait(10)
    signal.subscribe(handler)
    with pytest.raises(EventLoopError, match="eventlet runs here"):
        dispatcher.emit(signal)


@pytest.mark.guarantee("A2")
@pytest.mark.usefixtures("gevent")
def test_under_gevent_the_loop_has_a_thread_of_the_system_that_can_be_joined(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(handler)
    for _ in range(3):
        emission = dispatcher.emit(signal)
        assert emission.wait(10)
        assert [result.value for result in emission.results] != [threading.current_thread().name]
    assert dispatcher.close(10)
    assert dispatcher.close()


@pytest.mark.guarantee("A2")
@pytest.mark.usefixtures("gevent")
async def test_a_loop_that_runs_in_another_greenlet_does_not_run_here(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    await emission.wait_async()
    assert [result.value for result in emission.results] == [threading.current_thread().name]
    monkeypatch.setattr(asyncio.get_running_loop(), "_thread_id", -1)
    assert dispatcher.emit(signal).wait(10)


@pytest.mark.guarantee("B1")
@pytest.mark.usefixtures("gevent")
def test_a_queue_of_threads_before_greenlets_came_is_refused(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Queue:
        """Stands for that of gevent."""

    signal.subscribe(plain, background=True)
    monkeypatch.setattr(queue, "SimpleQueue", Queue)
    with pytest.raises(EventLoopError, match="before all imports"):
        dispatcher.emit(signal)


@pytest.mark.guarantee("B1")
@pytest.mark.usefixtures("gevent")
def test_plain_background_handlers_are_out_of_reach_for_the_thread_of_the_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def emits() -> None:
        dispatcher.emit("inner")

    dispatcher.signals.signal("inner").subscribe(plain, background=True)
    signal.subscribe(emits)
    emission = dispatcher.emit(signal)
    assert emission.wait(10)
    (failure,) = emission.failures
    assert isinstance(failure.exception, EventLoopError)
    assert failure.exception.library == "gevent"


def test_a_thread_of_the_system_is_not_waited_for_longer_than_asked() -> None:
    thread = NativeThread()
    thread._has_begun = True  # and does not end
    began = time.monotonic()
    thread.join(0.01)
    assert time.monotonic() - began >= 0.01
    assert thread.is_alive()
