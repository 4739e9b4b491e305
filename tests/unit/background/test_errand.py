"""A thread that waits for a coroutine in the event loop of another one (K2, F3)."""

from __future__ import annotations

import asyncio
import signal as signals_of_the_system
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    DispatcherClosedError,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    Subscription,
    WouldDeadlockError,
    current_event,
)
from support.inside import BackgroundLoop
from support.waiting import LIMIT, elsewhere, eventually

pytestmark = pytest.mark.guarantee("K2")


@contextmanager
def serving() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop, as an application would, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    with suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT)
    loop.close()


@pytest.fixture
def begun() -> threading.Event:
    return threading.Event()


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def bound(signal: EventSignal[Any], begun: threading.Event, ended: list[str]) -> Subscription:
    """Return a bound handler that does not end by itself."""

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(LIMIT)
        finally:
            ended.append("ended")

    return signal.bind(wait, id="waiting")


def reasons(delivery: Any) -> list[str]:
    (failure,) = delivery.failures
    assert type(failure.exception) is HandlerCancelledError
    return str(failure.exception).split(" before ")[:1]


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_handler_whose_task_is_cancelled_has_failed(
    dispatcher: EventDispatcher,
    bound: Subscription,
    begun: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    is_begun: bool,
) -> None:
    """As by the end of `asyncio.run`; nobody has cancelled the thread that delivers."""

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    def begin_and_cancel(begin: Callable[[], None]) -> None:
        real(begin)
        real(cancel)  # before the task takes its first step

    with serving() as loop, dispatcher.bind_loop(loop):
        real = loop.call_soon_threadsafe
        if not is_begun:
            busy = threading.Event()
            real(busy.wait, LIMIT)
            monkeypatch.setattr(loop, "call_soon_threadsafe", begin_and_cancel)
            threading.Timer(0.05, busy.set).start()
        delivering = elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))
        if is_begun:
            assert begun.wait(LIMIT)
            real(cancel)
        delivery = delivering.result(LIMIT)
        monkeypatch.undo()
    assert reasons(delivery) == ["the event loop of waiting cancelled its task"]
    assert begun.is_set() is is_begun
    assert (delivery.pending, delivery.state) == (0, "done")


@pytest.mark.usefixtures("threads_switch_often")
def test_many_threads_deliver_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    """Each gets the outcome of its own delivery."""

    async def reply(emission: Emission[Any]) -> str:
        await asyncio.sleep(0)
        assert current_event() is emission
        request_id: str = emission.context.request_id
        return request_id

    def deliver(number: int) -> list[str]:
        made = [
            dispatcher.deliver(bound, BaseEventContext(request_id=f"{number}-{turn}"))
            for turn in range(50)
        ]
        return [delivery.results[0].value for delivery in made]

    bound = signal.bind(reply)
    working = [elsewhere(partial(deliver, number)) for number in range(8)]
    replies = [it.result(LIMIT) for it in working]
    assert replies == [[f"{number}-{turn}" for turn in range(50)] for number in range(8)]


def test_a_handler_whose_loop_is_closed_has_failed(
    dispatcher: EventDispatcher, bound: Subscription, begun: threading.Event
) -> None:
    with serving() as loop, dispatcher.bind_loop(loop):
        delivering = elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))
        assert begun.wait(LIMIT)
        loop.call_soon_threadsafe(loop.stop)
        assert eventually(lambda: not loop.is_running())
        loop.close()
        delivery = delivering.result(LIMIT)
    assert reasons(delivery) == ["the event loop of waiting was closed"]


def test_a_handler_whose_loop_stops_has_failed_and_does_not_go_on(
    dispatcher: EventDispatcher,
    bound: Subscription,
    begun: threading.Event,
    ended: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is cancelled if the loop runs once more."""
    with serving() as loop, dispatcher.bind_loop(loop):
        delivering = elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))
        assert begun.wait(LIMIT)
        loop.call_soon_threadsafe(loop.stop)
        delivery = delivering.result(LIMIT)
        assert ended == []
        assert eventually(lambda: not loop.is_running())
        loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop)))
    assert ended == ["ended"]
    assert reasons(delivery) == ["the event loop of waiting stopped"]
    assert len(caplog.records) == 1


def test_a_loop_may_be_run_in_parts(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.2)
        return "done"

    loop = asyncio.new_event_loop()
    bound = signal.bind(handler)

    async def deliver() -> Any:
        return elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))

    with dispatcher.bind_loop(loop):
        delivering = loop.run_until_complete(deliver())
        while not delivering.done():
            loop.run_until_complete(asyncio.sleep(0.001))
        assert delivering.result(LIMIT).results[0].value == "done"
    loop.close()


@pytest.mark.guarantee("B2")
def test_drain_and_close_wait_for_a_handler_that_a_thread_waits_for(
    dispatcher: EventDispatcher, signal: EventSignal[Any], begun: threading.Event
) -> None:
    """So does the exit of the program."""
    release = threading.Event()

    async def handler() -> str:
        begun.set()
        while not release.is_set():  # noqa: ASYNC110  # another thread releases it
            await asyncio.sleep(0.01)
        return "done"

    bound = signal.bind(handler)
    delivering = elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))
    assert begun.wait(LIMIT)
    assert not dispatcher.drain(0)
    assert not dispatcher.drain(0.01)
    assert not dispatcher._admission.backlog.is_hopeless()
    draining, closing = elsewhere(dispatcher.drain), elsewhere(dispatcher.close)
    assert not wait_for_futures([draining, closing], 0.05).done
    release.set()
    assert draining.result(LIMIT)
    assert closing.result(LIMIT)
    assert delivering.result(LIMIT).results[0].value == "done"


@pytest.mark.guarantee("B2")
async def test_a_loop_is_not_stopped_for_a_handler_that_runs_in_it(
    dispatcher: EventDispatcher, bound: Subscription, begun: threading.Event
) -> None:
    with dispatcher.bind_loop():
        delivering = elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))
        while not begun.is_set():  # noqa: ASYNC110  # another thread begins
            await asyncio.sleep(0.01)
        with pytest.raises(WouldDeadlockError, match="would stop the event loop"):
            dispatcher.drain()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        assert await dispatcher.drain_async(LIMIT)
    assert not delivering.result(LIMIT).ok


def test_a_dispatcher_that_is_closed_meanwhile_calls_nobody(
    dispatcher: EventDispatcher,
    bound: Subscription,
    begun: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def close_and_get(self: BackgroundLoop) -> Any:
        loop = get(self)
        dispatcher.close()
        return loop

    get = BackgroundLoop.get
    monkeypatch.setattr(BackgroundLoop, "get", close_and_get)
    with pytest.raises(DispatcherClosedError):
        dispatcher.deliver(bound, BaseEventContext())
    assert not begun.is_set()


def test_what_a_handler_has_done_counts_though_its_task_is_cancelled(
    dispatcher: EventDispatcher, signal: EventSignal[Any], begun: threading.Event
) -> None:
    async def insist() -> str:
        begun.set()
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            return "done"
        raise AssertionError

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    bound = signal.bind(insist)
    with serving() as loop, dispatcher.bind_loop(loop):
        delivering = elsewhere(lambda: dispatcher.deliver(bound, BaseEventContext()))
        assert begun.wait(LIMIT)
        loop.call_soon_threadsafe(cancel)
        delivery = delivering.result(LIMIT)
    assert delivery.ok
    assert delivery.results[0].value == "done"


@pytest.mark.parametrize("fails", [False, True])
def test_where_no_thread_can_be_started_the_handler_runs_in_this_one(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    """As at the exit of the program."""
    monkeypatch.setattr(BackgroundLoop, "get", lambda _: None)

    async def name_thread() -> str:
        await asyncio.sleep(0)
        if fails:
            raise ValueError("on purpose")
        return threading.current_thread().name

    delivery = dispatcher.deliver(signal.bind(name_thread), BaseEventContext())
    assert [it.value for it in delivery.results] == (
        [] if fails else [threading.current_thread().name]
    )
    assert [type(it.exception) for it in delivery.failures] == [ValueError][: int(fails)]


def test_so_does_one_whose_task_is_cancelled_there(
    dispatcher: EventDispatcher, signal: EventSignal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BackgroundLoop, "get", lambda _: None)

    async def cancel_all() -> None:
        await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(LIMIT)

    delivery = dispatcher.deliver(signal.bind(cancel_all, id="waiting"), BaseEventContext())
    assert reasons(delivery) == ["the event loop of waiting cancelled its task"]


class Interrupt(BaseException):
    """As KeyboardInterrupt, which pytest keeps for itself."""


@pytest.fixture
def alarm() -> Iterator[Callable[[], None]]:
    """Return a function that interrupts the main thread, as Ctrl-C does."""
    if not hasattr(signals_of_the_system, "pthread_kill"):
        pytest.skip("Windows has no such signal")

    def interrupt(*_arguments: object) -> None:
        raise Interrupt

    main = threading.main_thread().ident
    assert main is not None
    before = signals_of_the_system.signal(signals_of_the_system.SIGUSR1, interrupt)
    yield lambda: signals_of_the_system.pthread_kill(main, signals_of_the_system.SIGUSR1)
    signals_of_the_system.signal(signals_of_the_system.SIGUSR1, before)


@pytest.mark.guarantee("F3")
def test_an_interrupt_of_the_wait_cancels_the_handler(
    dispatcher: EventDispatcher,
    bound: Subscription,
    begun: threading.Event,
    ended: list[str],
    alarm: Callable[[], None],
) -> None:
    """And it has ended when the interrupt is raised: nothing goes on behind the caller."""
    threading.Thread(target=lambda: begun.wait(LIMIT) and alarm(), daemon=True).start()
    with pytest.raises(Interrupt):
        dispatcher.deliver(bound, BaseEventContext())
    assert ended == ["ended"]


@pytest.mark.guarantee("F3")
def test_a_second_interrupt_ends_the_wait_for_a_handler_that_goes_on(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    begun: threading.Event,
    alarm: Callable[[], None],
) -> None:
    release = threading.Event()

    async def insist() -> None:
        begun.set()
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                begun.set()

    def interrupt_twice() -> None:
        for _ in range(2):
            begun.wait(LIMIT)
            begun.clear()
            alarm()

    bound = signal.bind(insist)
    threading.Thread(target=interrupt_twice, daemon=True).start()
    with pytest.raises(Interrupt) as raised:
        dispatcher.deliver(bound, BaseEventContext())
    release.set()
    assert isinstance(raised.value.__context__, Interrupt)


@pytest.mark.guarantee("F3")
def test_an_interrupt_before_the_loop_is_told_ends_nothing_there(
    dispatcher: EventDispatcher,
    bound: Subscription,
    begun: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call_soon_threadsafe(*arguments: Any) -> Any:
        if not interrupted:
            interrupted.append(True)
            raise Interrupt
        return real(*arguments)

    interrupted: list[bool] = []
    with serving() as loop, dispatcher.bind_loop(loop):
        real = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", call_soon_threadsafe)
        with pytest.raises(Interrupt):
            dispatcher.deliver(bound, BaseEventContext())
        assert not begun.is_set()


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("raises", [KeyboardInterrupt, Interrupt])
def test_an_exit_in_the_loop_of_the_program_is_raised_there_too(
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    raises: type[BaseException],
) -> None:
    """By the handler of a signal, which Python runs in the main thread."""

    def interrupt(*_arguments: object) -> None:
        raise raises

    async def handler() -> None:
        await asyncio.sleep(0)
        signals_of_the_system.raise_signal(signals_of_the_system.SIGTERM)

    async def main() -> None:
        delivering.append(
            elsewhere(lambda: dispatcher.deliver(signal.bind(handler), BaseEventContext()))
        )
        while not delivering[0].done():  # noqa: ASYNC110  # another thread waits
            await asyncio.sleep(0.01)

    delivering: list[Any] = []
    reported: list[Any] = []
    before = signals_of_the_system.signal(signals_of_the_system.SIGTERM, interrupt)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, problem: reported.append(problem))
    try:
        with dispatcher.bind_loop(loop):
            # asyncio itself lets only those two out of its loop.
            with pytest.raises(KeyboardInterrupt) if raises is KeyboardInterrupt else nullcontext():
                loop.run_until_complete(main())
            loop.run_until_complete(asyncio.sleep(0))
    finally:
        signals_of_the_system.signal(signals_of_the_system.SIGTERM, before)
        loop.close()
    with pytest.raises(raises):
        delivering[0].result(LIMIT)
    assert reported == []


def test_a_program_that_only_delivers_ends(tmp_path: Any) -> None:
    """The thread of the loop does not keep it, and what is no longer held stops."""
    import subprocess

    script = tmp_path / "program.py"
    script.write_text(
        "import asyncio, threading, gc, time\n"
        "from madcrow_events import *\n"
        "signals = SignalRegistry()\n"
        "async def handler():\n"
        "    await asyncio.sleep(0)\n"
        "bound = signals.signal('thing_happened').bind(handler)\n"
        "dispatcher = EventDispatcher(signals)\n"
        "assert dispatcher.deliver(bound, BaseEventContext()).ok\n"
        "assert dispatcher.deliver(bound, BaseEventContext()).ok\n"
        "(thread,) = [it for it in threading.enumerate() if 'madcrow' in it.name]\n"
        "del dispatcher, bound, signals\n"
        "gc.collect()\n"
        "thread.join(10)\n"
        "print(thread.is_alive())\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


@pytest.mark.guarantee("B2")
def test_the_exit_waits_for_a_delivery(tmp_path: Any) -> None:
    """Even if the thread that delivers does not keep the program."""
    import subprocess

    script = tmp_path / "program.py"
    script.write_text(
        "import asyncio, threading\n"
        "from madcrow_events import *\n"
        "signals = SignalRegistry()\n"
        "begun = threading.Event()\n"
        "async def handler():\n"
        "    begun.set()\n"
        "    await asyncio.sleep(0.2)\n"
        "    print('done')\n"
        "bound = signals.signal('thing_happened').bind(handler)\n"
        "deliver, context = EventDispatcher(signals).deliver, BaseEventContext()\n"
        "threading.Thread(target=deliver, args=(bound, context), daemon=True).start()\n"
        "begun.wait(10)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
