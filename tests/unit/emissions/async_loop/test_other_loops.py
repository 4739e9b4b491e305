"""Where something else runs than asyncio, or in the place of threads (A1, A2, B1)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventLoopError, EventSignal, QueueFullError

trio = pytest.importorskip("trio")  # it is part of the `dev` extra
del sys.modules[
    "trio"
]  # as long as it counts as loaded, each async handler is asked whether it runs

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def run_as_guest(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run trio in an event loop of asyncio's, which then runs in the thread of its tasks, too."""

    async def host() -> Any:
        ended = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            main,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        return (await ended).unwrap()

    return asyncio.run(host())


def run_by_hand(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine that never waits, by no library at all."""
    with pytest.raises(StopIteration) as ended:
        main().send(None)
    return ended.value.value


everywhere = pytest.mark.parametrize("run", [trio.run, run_as_guest, run_by_hand])
in_trio = pytest.mark.parametrize("run", [trio.run, run_as_guest])


@pytest.fixture(autouse=True)
def _trio_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", trio)


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
def mixed(signal: EventSignal[Any], ran: list[str]) -> EventSignal[Any]:
    """Return an event with a plain handler and an async one."""

    async def async_handler() -> None:
        ran.append("async")

    signal.subscribe(lambda: ran.append("plain"), priority=1)
    signal.subscribe(async_handler)
    return signal


@pytest.mark.guarantee("B2")
@everywhere
def test_a_dispatcher_is_not_closed_where_that_cannot_be_awaited(
    signal: EventSignal[Any], dispatcher: EventDispatcher, ran: list[str], run: Run
) -> None:
    async def main() -> None:
        with pytest.raises(EventLoopError, match=r"needs asyncio.* close\(\)"):
            async with dispatcher:
                pass

    signal.subscribe(lambda: ran.append("later"), background=True)
    run(main)
    assert dispatcher.emit(signal).wait(10)
    assert ran == ["later"]


@pytest.mark.guarantee("A1")
@everywhere
@pytest.mark.parametrize("kind", ["async", "plain and async", "with one in the background"])
def test_async_handlers_are_refused_before_any_handler_runs(
    signal: EventSignal[Any], dispatcher: EventDispatcher, ran: list[str], run: Run, kind: str
) -> None:
    async def async_handler() -> None:
        ran.append("async")

    async def main() -> None:
        with pytest.raises(EventLoopError, match="need asyncio, and") as caught:
            await dispatcher.emit_async(signal)
        assert caught.value.event == "thing_happened"
        assert caught.value.library == ("" if run is run_by_hand else "trio")

    signal.subscribe(async_handler)
    if kind == "plain and async":
        signal.subscribe(lambda: ran.append("plain"), priority=1)
    elif kind == "with one in the background":
        signal.subscribe(lambda: ran.append("background"), background=True)
    run(main)
    assert dispatcher.drain(10)
    assert ran == []


@pytest.mark.guarantee("A1")
@everywhere
def test_plain_handlers_are_called_everywhere(
    signal: EventSignal[Any], dispatcher: EventDispatcher, ran: list[str], run: Run
) -> None:
    async def main() -> None:
        assert (await dispatcher.emit_async(signal)).ok
        assert dispatcher.emit(signal).ok

    signal.subscribe(lambda: ran.append("plain"))
    run(main)
    assert ran == ["plain", "plain"]


@pytest.mark.guarantee("A2")
@in_trio
@pytest.mark.parametrize("background", [False, True])
def test_emit_refuses_them_in_trio_for_they_would_run_in_asyncio(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    ran: list[str],
    run: Run,
    background: bool,
) -> None:
    async def sleeps() -> None:
        await trio.sleep(0)

    async def main() -> None:
        with pytest.raises(EventLoopError, match="trio runs here"):
            dispatcher.emit(signal)

    signal.subscribe(lambda: ran.append("plain"), priority=1)
    signal.subscribe(sleeps, background=background)
    run(main)
    assert ran == []


@pytest.mark.guarantee("A2")
def test_a_thread_of_trio_emits_for_them(
    mixed: EventSignal[Any], dispatcher: EventDispatcher, ran: list[str]
) -> None:
    async def main() -> None:
        emission = await trio.to_thread.run_sync(dispatcher.emit, mixed)
        assert await trio.to_thread.run_sync(emission.wait, 10)

    trio.run(main)
    assert ran == ["plain", "async"]


@pytest.mark.guarantee("B1")
@in_trio
@pytest.mark.parametrize("awaits", [False, True])
def test_plain_handlers_in_the_background_run_and_a_full_queue_stops_no_loop(
    dispatcher: EventDispatcher, signal: EventSignal[Any], run: Run, awaits: bool
) -> None:
    async def emit() -> Any:
        return await small.emit_async(signal) if awaits else small.emit(signal)

    async def main() -> None:
        await emit()
        assert began.wait(10)
        second = await emit()  # it waits in the queue
        with pytest.raises(QueueFullError, match=r"trio|running event loop"):
            await emit()
        with pytest.raises(EventLoopError, match="trio runs here"):
            await second.wait_async()
        with pytest.raises(EventLoopError, match="wait in a thread"):
            await small.drain_async()
        release.set()
        assert await trio.to_thread.run_sync(small.drain, 10)
        await small.drain_async()

    def waits() -> None:
        began.set()
        release.wait(10)

    began, release = threading.Event(), threading.Event()
    signal.subscribe(waits, background=True)
    with EventDispatcher(dispatcher.signals, queue_size=1, max_workers=1) as small:
        run(main)


@pytest.mark.guarantee("A2")
async def test_a_bound_loop_takes_what_trio_emits(
    mixed: EventSignal[Any], dispatcher: EventDispatcher, ran: list[str]
) -> None:
    async def main() -> None:
        emission = dispatcher.emit(mixed)
        assert await trio.to_thread.run_sync(emission.wait, 10)

    with dispatcher.bind_loop():
        await asyncio.to_thread(trio.run, main)
    assert ran == ["plain", "async"]


@pytest.mark.guarantee("N5")
@pytest.mark.parametrize("timeout", [None, 10])
def test_send_async_awaits_in_trio_what_needs_no_timeout(
    signal: EventSignal[Any], ran: list[str], timeout: float | None
) -> None:
    async def handler(sender: Any, **context: Any) -> None:
        await trio.sleep(0)
        ran.append("async")

    async def main() -> None:
        if timeout is None:
            await signal.send_async(None)
        else:
            with pytest.raises(EventLoopError):
                await signal.send_async(None)

    signal.subscribe(handler, timeout=timeout)
    trio.run(main)
    assert ran == (["async"] if timeout is None else [])


@pytest.mark.guarantee("A1")
def test_asyncio_may_be_gone(
    mixed: EventSignal[Any],
    dispatcher: EventDispatcher,
    ran: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        with pytest.raises(EventLoopError, match="no event loop runs here"):
            await dispatcher.emit_async(mixed)

    monkeypatch.delitem(sys.modules, "asyncio")
    run_by_hand(main)
    assert ran == []


# What replaces threads does so in the whole process.


def told(script: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


BEGINNING = """
    import asyncio, sys, threading
    from madcrow_events import Batch, EventDispatcher, EventLoopError, SignalRegistry
    signals = SignalRegistry(); dispatcher = EventDispatcher(signals)
    signal = signals.signal("ping")
    ran = []
    async def handler(): await asyncio.sleep(0.01); ran.append("async")
    def plain(): ran.append("plain")
"""


@pytest.mark.guarantee("A2")
@pytest.mark.parametrize("options", ["", ", background=True", ", batch=Batch(max_wait=0.01)"])
def test_under_gevent_async_handlers_run_and_are_waited_for(options: str) -> None:
    pytest.importorskip("gevent")
    script = f"""
        from gevent import monkey; monkey.patch_all()
        import gevent
        {textwrap.indent(textwrap.dedent(BEGINNING), "        ").strip()}
        async def batch(batch: list): ran.extend(["async"] * len(batch))
        signal.subscribe({"batch" if "batch" in options else "handler"}{options})
        signal.subscribe(plain, background=True)
        ticks = []
        def tick():
            while True: ticks.append(1); gevent.sleep(0.001)
        gevent.spawn(tick)
        for _ in range(3):
            emission = dispatcher.emit("ping")
            assert emission.wait(10), emission
        others = [gevent.spawn(dispatcher.emit, "ping") for _ in range(10)]
        gevent.joinall(others)
        assert dispatcher.drain(10)
        assert sorted(ran) == ["async"] * 13 + ["plain"] * 13, ran
        assert len(ticks) > 3, "other greenlets go on"
        try: asyncio.get_running_loop()
        except RuntimeError: print("no loop seems to run here")
        async def main():
            await dispatcher.emit_async("ping")
            await dispatcher.drain_async(10)
        asyncio.run(main())
        assert dispatcher.close(10)
        print(len(ran))
    """
    assert told(script) == "no loop seems to run here\n28\n"


@pytest.mark.guarantee("B1")
def test_under_gevent_what_cannot_work_is_refused_in_words() -> None:
    pytest.importorskip("gevent")
    script = f"""
        from gevent import monkey; monkey.patch_all()
        {textwrap.indent(textwrap.dedent(BEGINNING), "        ").strip()}
        inner = signals.signal("inner")
        inner.subscribe(plain, background=True)
        async def emits(): dispatcher.emit("inner")
        signal.subscribe(emits)
        emission = dispatcher.emit("ping")
        assert emission.wait(10)
        print(emission.failures[0].exception)
    """
    assert "emit it from a greenlet" in told(script)
    script = f"""
        {textwrap.indent(textwrap.dedent(BEGINNING), "        ").strip()}
        from gevent import monkey; monkey.patch_all()
        signal.subscribe(plain); signal.subscribe(handler)
        try: dispatcher.emit("ping")
        except EventLoopError as error: print(error, ran)
    """
    answer = told(script)
    assert "before all imports" in answer
    assert answer.endswith(" []\n")
