"""What a plugin's handlers pass through until the plugin is unloaded."""

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from madcrow_events import EventDispatcher, HandlerGroup, LoginEventContext, SignalRegistry
from madcrow_events.exceptions import HandlerTimeoutError
from support.inside import Gate, register_wrapped

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def group(signals: SignalRegistry) -> HandlerGroup:
    signals.signal("happened")
    return HandlerGroup("gated")


@pytest.fixture
def blocked(gate: Gate, group: HandlerGroup, signals: SignalRegistry) -> Iterator[threading.Event]:
    """Let a handler wait in a thread of its own, until the event is set."""
    over, inside = threading.Event(), threading.Event()

    @group.on("happened")
    def wait() -> None:
        inside.set()
        over.wait(10)

    register_wrapped(group, signals, gate.around)
    thread = threading.Thread(target=EventDispatcher(signals).emit, args=("happened",))
    thread.start()
    inside.wait(10)
    yield over
    over.set()
    thread.join()


def test_a_closed_gate_lets_nothing_through_and_tells_so_once(
    gate: Gate,
    group: HandlerGroup,
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[str] = []

    @group.on("happened", priority=1)
    def first() -> None:
        called.append("first")
        gate.close()

    @group.on("happened")
    def second() -> None:
        called.append("second")

    @group.on("happened", when=lambda context: called.append("when"))
    def third() -> None:
        called.append("third")

    @group.on("happened", once=True, weak=False)
    async def fourth() -> None:
        called.append("fourth")

    register_wrapped(group, signals, gate.around)
    emission = dispatcher.emit("happened")
    assert dispatcher.drain(5)
    assert called == ["first"]
    assert [it.handler for it in emission.results] == [first]
    assert emission.ok
    # Only what was to run later is dropped: here the async handler, and not the second.
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "fourth is not called any more, because its plugin is unloaded" in warning
    gate.open()
    assert [it.handler for it in dispatcher.emit("happened").results] == [first]


async def test_send_and_send_async_leave_out_what_is_not_called(
    gate: Gate, group: HandlerGroup, signals: SignalRegistry
) -> None:
    @group.on("happened")
    async def note(sender: object, **context: object) -> int:
        return 1

    register_wrapped(group, signals, gate.around)
    signal = signals.resolve("happened")
    assert await signal.send_async() == [(note, 1)]
    gate.close()
    assert await signal.send_async() == []


async def test_an_async_handler_that_has_begun_goes_on_to_its_end(
    gate: Gate, group: HandlerGroup, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    begun = asyncio.Event()

    @group.on("happened")
    async def note(login: LoginEventContext) -> Any:
        begun.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return login.email

    register_wrapped(group, signals, gate.around)
    task = asyncio.create_task(
        dispatcher.emit_async("happened", user_id=1, email="ada@example.com")
    )
    await begun.wait()
    assert gate.wait(5) == 0
    emission = await task
    assert [it.value for it in emission.results] == ["ada@example.com"]


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("swallows", [False, True])
async def test_an_async_handler_is_cancelled_as_any_other(
    gate: Gate,
    group: HandlerGroup,
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    steps: int,
    swallows: bool,
) -> None:
    told: list[str] = []

    @group.on("happened", timeout=0.01 if steps == 2 else None)
    async def wait() -> str:
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            told.append("cancelled")
            if not swallows:
                raise
            await asyncio.sleep(0)
            told.append("went on")
        return "done"

    register_wrapped(group, signals, gate.around)
    task = asyncio.create_task(dispatcher.emit_async("happened"))
    for _ in range(3 + steps):
        await asyncio.sleep(0)
    if steps == 2:
        emission = await task
        assert [type(it.exception) for it in emission.failures] == [HandlerTimeoutError]
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert told == ["cancelled", "went on"][: 1 + swallows]
    assert gate.wait(0) == 0


async def test_a_handler_that_ends_in_its_first_step_raises_or_returns(
    gate: Gate, group: HandlerGroup, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    @group.on("happened")
    async def returns() -> int:
        return 1

    @group.on("happened")
    async def raises() -> None:
        raise ZeroDivisionError

    @group.on("happened")
    async def awaits_what_is_done() -> int:
        future = asyncio.get_running_loop().create_future()
        future.set_result(2)
        return await future

    register_wrapped(group, signals, gate.around)
    emission = await dispatcher.emit_async("happened")
    assert sorted(it.value for it in emission.results) == [1, 2]
    assert [type(it.exception) for it in emission.failures] == [ZeroDivisionError]


def test_a_coroutine_that_is_thrown_away_is_closed(
    gate: Gate, group: HandlerGroup, signals: SignalRegistry
) -> None:
    told: list[str] = []

    @group.on("happened")
    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            told.append("closed")

    register_wrapped(group, signals, gate.around)
    (subscription,) = signals.subscriptions
    coroutine = subscription._call_spec.invoke(wait, None)
    coroutine.send(None)
    coroutine.close()
    assert told == ["closed"]


def test_a_first_step_that_swallows_what_is_thrown_into_it_ends(
    gate: Gate, group: HandlerGroup, signals: SignalRegistry
) -> None:
    @group.on("happened")
    async def wait() -> str:
        try:
            await asyncio.sleep(0)
        except ZeroDivisionError:
            return "swallowed"
        return "done"

    register_wrapped(group, signals, gate.around)
    (subscription,) = signals.subscriptions
    coroutine = subscription._call_spec.invoke(wait, None)
    coroutine.send(None)
    with pytest.raises(StopIteration) as ended:
        coroutine.throw(ZeroDivisionError())
    assert ended.value.value == "swallowed"


@pytest.mark.guarantee("F4")
def test_closing_waits_for_calls_in_other_threads(gate: Gate, blocked: threading.Event) -> None:
    assert gate.wait(0.01) == 1
    threading.Timer(0.05, blocked.set).start()
    assert gate.wait(None) == 0


def test_closing_from_inside_does_not_wait_for_itself(
    gate: Gate, group: HandlerGroup, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    group.on("happened")(lambda: gate.wait(10))
    register_wrapped(group, signals, gate.around)
    assert [it.value for it in dispatcher.emit("happened").results] == [0]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_threads(
    gate: Gate, blocked: threading.Event
) -> None:
    child = os.fork()
    if child == 0:
        os._exit(gate.wait(5))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gate.wait(0) == 1
