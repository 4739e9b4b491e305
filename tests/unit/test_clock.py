"""Waiting where a test has stopped the clock (B2)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import pytest

from madcrow_events import Batch, EventDispatcher, EventSignal, HandlerTimeoutError
from support.inside import calling_later

freezegun = pytest.importorskip("freezegun")  # it is part of the `dev` extra

REAL_CLOCK = partial(time.monotonic)
ENOUGH = 10  # seconds, in which each of these tests has long ended


STAND_INS = {
    "a mock": mock.Mock(return_value=5.0),
    "a method": [5.0].__len__,
    "a lambda": lambda: 5.0,
}


@pytest.fixture(
    params=["stopped", "stopped at the Epoch", "with asyncio's going on", *STAND_INS],
)
def stopped_clock(request: pytest.FixtureRequest) -> Any:
    """Return a block in which the clock stands still."""
    if request.param in STAND_INS:
        return mock.patch.object(time, "monotonic", STAND_INS[request.param])
    moment = "1970-01-01" if "Epoch" in request.param else "2020-01-01"
    return freezegun.freeze_time(moment, real_asyncio="asyncio" in request.param)


@pytest.fixture
def busy(signal: EventSignal[Any], dispatcher: EventDispatcher) -> Iterator[EventSignal[Any]]:
    """Return an event whose handler does not end before the test does."""
    ended = threading.Event()
    signal.subscribe(lambda: ended.wait(ENOUGH), background=True)
    yield signal
    ended.set()


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize("method", ["drain", "close"])
def test_a_timeout_is_one_while_the_clock_stands_still(
    busy: EventSignal[Any], dispatcher: EventDispatcher, method: str, stopped_clock: Any
) -> None:
    with stopped_clock:
        dispatcher.emit(busy)
        assert not getattr(dispatcher, method)(0.05)


@pytest.mark.guarantee("B2")
def test_so_it_is_for_one_emission(
    busy: EventSignal[Any], dispatcher: EventDispatcher, stopped_clock: Any
) -> None:
    with stopped_clock:
        assert not dispatcher.emit(busy).wait(0.05)


@pytest.mark.guarantee("B2")
async def test_so_it_is_in_an_event_loop(
    busy: EventSignal[Any], dispatcher: EventDispatcher, stopped_clock: Any
) -> None:
    with stopped_clock:
        dispatcher.emit(busy)
        assert not await dispatcher.drain_async(0.05)


@pytest.mark.guarantee("B2")
async def test_a_clock_that_is_stopped_meanwhile_ends_no_waiting(
    busy: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """What the stopped clock shows is another time by decades."""
    dispatcher.emit(busy)
    waiting = asyncio.create_task(dispatcher.drain_async(0.2))
    began = REAL_CLOCK()
    await asyncio.sleep(0)
    with freezegun.freeze_time("2020-01-01"):
        assert not await waiting
    assert REAL_CLOCK() - began >= 0.2


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("background", [False, True])
async def test_handlers_are_ended_after_their_timeout(
    signal: EventSignal[Any], dispatcher: EventDispatcher, background: bool, stopped_clock: Any
) -> None:
    async def never_ends() -> None:
        await asyncio.Event().wait()

    signal.subscribe(never_ends, timeout=0.05, background=background)
    with stopped_clock:
        emission = await dispatcher.emit_async(signal)
        assert await dispatcher.drain_async()
    assert [type(failure.exception) for failure in emission.failures] == [HandlerTimeoutError]


@pytest.mark.guarantee("A5")
async def test_who_is_in_time_is_not_ended(
    signal: EventSignal[Any], dispatcher: EventDispatcher, stopped_clock: Any
) -> None:
    async def ends() -> str:
        await asyncio.sleep(0)
        return "in time"

    signal.subscribe(ends, timeout=0.05)
    with stopped_clock:
        emission = await dispatcher.emit_async(signal)
        # Until after the timeout, which must end nothing any more.
        await asyncio.to_thread(threading.Event().wait, 0.1)
    assert [result.value for result in emission.results] == ["in time"]


@pytest.mark.guarantee("B3")
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_what_waits_for_a_batch_is_handled_after_max_wait(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool, stopped_clock: Any
) -> None:
    sizes: list[int] = []
    handled = threading.Event()

    def keep(batch: list[Any]) -> None:
        sizes.append(len(batch))
        handled.set()

    async def keep_async(batch: list[Any]) -> None:
        keep(batch)

    handler: Callable[..., Any] = keep_async if is_async else keep
    signal.subscribe(handler, batch=Batch(max_size=10, max_wait=0.05))
    with stopped_clock:
        dispatcher.emit(signal)
        assert handled.wait(ENOUGH)
    assert sizes == [1]


async def test_what_comes_when_the_block_has_ended_is_not_called(stopped_clock: Any) -> None:
    called: list[str] = []
    with stopped_clock:
        with calling_later(asyncio.get_running_loop(), 0.001, lambda: called.append("late")):
            threading.Event().wait(0.05)  # without a step of the loop
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert called == []
