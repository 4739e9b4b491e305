"""An awaited emission is cancelled at any of its handlers' await points (A1).

Whichever point it is: the handlers have ended when the emitter learns of it, no
task is left, nobody complains, and the next emission is whole.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madcrow_events import Emission, EventDispatcher, SignalRegistry, current_event

FAN_OUT = 10
AT_MOST = 0.1  # seconds until no task may be left
AT_LEAST = 50  # turns of the loop

pytestmark = pytest.mark.guarantee("A1")


class Script(NamedTuple):
    """What a handler does: how it awaits, again and again, and what it does when cancelled."""

    awaits: tuple[str, ...]
    clean_up: str
    timeout: float | None = None


AWAITS = ("turn", "future", "task", "gather", "limited", "nap", "shield")
CLEAN_UPS = ("nothing", "raises again", "finally", "swallows", "fails")

SCRIPTS = st.builds(
    Script,
    st.lists(st.sampled_from(AWAITS), min_size=2, max_size=5).map(tuple),
    st.sampled_from(CLEAN_UPS),
    st.sampled_from([None, 60.0]),
)
FAN_OUTS = st.lists(SCRIPTS, min_size=FAN_OUT, max_size=FAN_OUT)


class Failed(Exception):
    """What a handler raises whose clean-up fails."""


class Play:
    """Handlers that follow their scripts, and the emission that is cancelled under them.

    Args:
        scripts: one for each handler.
        cancel_at: the numbers of the await points at which the emitter is cancelled.
        nested: whether each handler first awaits an emission to others like it.
    """

    def __init__(
        self, scripts: list[Script], cancel_at: frozenset[int], *, nested: bool = False
    ) -> None:
        signals = SignalRegistry()
        self.dispatcher = EventDispatcher(signals)
        self.signal = signals.signal("thing_happened")
        self.inner = signals.signal("inner_thing")
        self.cancel_at = cancel_at
        self.points = 0
        self.cancels = 0
        self.entered: list[str] = []
        self.left: list[str] = []
        self.failed: list[str] = []
        self.emitter: asyncio.Task[Emission[Any]] | None = None
        self.signal.subscribe(self._inline)
        for number, script in enumerate(scripts):
            follow = self._follow(f"{number}", script, nested=nested)
            self.signal.subscribe(follow, timeout=script.timeout)
            if nested:
                follow = self._follow(f"inner {number}", script)
                self.inner.subscribe(follow, timeout=script.timeout)

    def _follow(self, name: str, script: Script, *, nested: bool = False) -> Any:
        async def handler() -> str:
            emission = current_event()
            self.entered.append(name)
            try:
                if nested:
                    await self.dispatcher.emit_async(self.inner)
                for way in script.awaits:
                    await self._await(way)
            except asyncio.CancelledError:
                if script.clean_up == "nothing":
                    raise
                for _ in range(2):
                    await self._await("turn")
                if script.clean_up == "fails":
                    self.failed.append(name)
                    raise Failed(name) from None
                if script.clean_up != "swallows":
                    raise
            finally:
                try:
                    if script.clean_up == "finally":
                        await self._await("nap")
                finally:  # the emitter may be cancelled during that nap, too
                    self.left.append(name)
                assert current_event() is emission
            return name

        return handler

    def _inline(self) -> str:
        """Be the first point, before any async handler begins."""
        self._pass()
        return "inline"

    def _pass(self) -> None:
        self.points += 1
        if self.points in self.cancel_at and self.emitter is not None:
            self.cancels += self.emitter.cancel()

    async def _await(self, way: str) -> None:
        """Suspend in one of several ways; at the chosen points, cancel the emitter before it."""
        self._pass()
        if way == "turn":
            await asyncio.sleep(0)
        elif way == "future":
            loop = asyncio.get_running_loop()
            future = loop.create_future()
            loop.call_soon(lambda: future.done() or future.set_result(None))
            await future
        elif way == "task":
            await asyncio.get_running_loop().create_task(asyncio.sleep(0))
        elif way == "gather":
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.0001))
        elif way == "limited":
            async with asyncio.timeout(60):
                await asyncio.sleep(0)
        elif way == "shield":
            await asyncio.shield(asyncio.sleep(0))
        else:
            await asyncio.sleep(0.0001)

    async def _emit(self) -> Emission[Any]:
        return await self.dispatcher.emit_async(self.signal)

    async def cancelled(self, outside: int | None = None) -> None:
        """Emit, and be cancelled: by a handler, or from outside after some turns of the loop."""
        self.emitter = asyncio.get_running_loop().create_task(self._emit())
        if outside is not None:
            for _ in range(outside):
                await asyncio.sleep(0)
            self.cancels += self.emitter.cancel()
        try:
            emission = await self.emitter
        except asyncio.CancelledError:
            assert self.cancels
        else:
            assert not self.cancels
            assert emission.ok
        assert sorted(self.left) == sorted(self.entered), "a handler outlives its emission"
        await nobody_is_left()

    async def whole(self) -> None:
        """Emit again, and see every handler to its end."""
        self.emitter = None
        self.entered.clear()
        self.left.clear()
        emission = await self.dispatcher.emit_async(self.signal)
        names = ["inline", *(str(number) for number in range(len(self.signal.subscriptions) - 1))]
        assert [result.value for result in emission.results] == names
        assert (emission.ok, emission.pending) == (True, 0)
        assert sorted(self.left) == sorted(self.entered)
        await nobody_is_left()


async def nobody_is_left() -> None:
    """Give what the handlers themselves left behind, such as a gathered child, its last turns."""
    deadline, turns = time.monotonic() + AT_MOST, 0
    # A machine that is busy elsewhere may let all that time pass between two turns.
    while len(asyncio.all_tasks()) > 1 and (time.monotonic() < deadline or turns < AT_LEAST):
        await asyncio.sleep(0)
        turns += 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Records(logging.Handler):
    """Collects what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def without_complaint(play: Play, story: Callable[[], Any]) -> None:
    """Run a story in a loop of its own; fail if Python, asyncio or the log complains of it."""
    complaints: list[Any] = []
    records = Records()
    logger = logging.getLogger("madcrow_events")
    hook = sys.unraisablehook
    logger.addHandler(records)
    sys.unraisablehook = lambda unraisable: complaints.append(str(unraisable.exc_value))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")

            async def main() -> None:
                asyncio.get_running_loop().set_exception_handler(
                    lambda _, problem: complaints.append(problem["message"])
                )
                await story()
                gc.collect()
                await asyncio.sleep(0)

            asyncio.run(main())
            gc.collect()
    finally:
        logger.removeHandler(records)
        sys.unraisablehook = hook
    assert complaints == []
    assert [str(warning.message) for warning in warned] == []
    failed = [record.getMessage() for record in records.records]
    assert len(failed) == len(play.failed), "a cancelled handler has not failed"
    assert all(line.endswith("failed: Failed") for line in failed)


@settings(max_examples=50)
@given(
    scripts=FAN_OUTS, at=st.integers(min_value=1, max_value=1 + 5 * FAN_OUT), outside=st.booleans()
)
def test_cancelled_at_any_await_point_an_emission_leaves_nothing_behind(
    scripts: list[Script], at: int, outside: bool
) -> None:
    total = 1 + sum(len(script.awaits) for script in scripts)
    at = 1 + (at - 1) % total
    play = Play(scripts, frozenset() if outside else frozenset([at]))

    async def story() -> None:
        await play.cancelled(at // 2 if outside else None)
        assert outside or play.cancels == 1
        await play.whole()

    without_complaint(play, story)


@pytest.mark.parametrize("clean_up", CLEAN_UPS)
def test_cancelled_at_every_await_point_of_one_fan_out(clean_up: str) -> None:
    """All of its points, one after the other, not a sample."""
    awaits = ("turn", "future", "gather")
    scripts = [
        Script(awaits, clean_up if number % 2 else "nothing", None) for number in range(FAN_OUT)
    ]
    for at in range(1, 2 + len(awaits) * FAN_OUT):
        play = Play(scripts, frozenset([at]))

        async def story() -> None:
            await play.cancelled()
            assert play.cancels == 1
            await play.whole()

        without_complaint(play, story)


@settings(max_examples=50)
@given(
    scripts=FAN_OUTS,
    at=st.frozensets(st.integers(min_value=1, max_value=60), min_size=2, max_size=12),
)
def test_cancelled_again_and_again_an_emission_still_waits_for_its_handlers(
    scripts: list[Script], at: frozenset[int]
) -> None:
    """Also in the middle of their clean-up, which is not cut short."""
    play = Play(scripts, at)

    async def story() -> None:
        await play.cancelled()
        play.cancel_at = frozenset()
        await play.whole()

    without_complaint(play, story)


@settings(max_examples=50)
@given(
    scripts=st.lists(SCRIPTS, min_size=3, max_size=4),
    at=st.frozensets(st.integers(min_value=1, max_value=60), min_size=1, max_size=3),
)
def test_cancelled_emissions_cancel_those_nested_in_them(
    scripts: list[Script], at: frozenset[int]
) -> None:
    play = Play(scripts, at, nested=True)

    async def story() -> None:
        await play.cancelled()
        await play.whole()

    without_complaint(play, story)


@settings(max_examples=50)
@given(scripts=FAN_OUTS, at=st.integers(min_value=1, max_value=20))
def test_the_cancellation_of_one_emission_is_none_of_anothers(
    scripts: list[Script], at: int
) -> None:
    play = Play(scripts, frozenset([at]))

    async def story() -> None:
        bystander = asyncio.get_running_loop().create_task(
            play.dispatcher.emit_async("other_thing")
        )
        await asyncio.sleep(0)
        await _cancelled_beside(play)
        go.set()
        emission = await bystander
        assert [result.value for result in emission.results] == ["untouched"] * 3
        await nobody_is_left()
        await play.whole()

    async def untouched() -> str:
        await go.wait()
        return "untouched"

    go = asyncio.Event()
    other = play.dispatcher.signals.signal("other_thing")
    for _ in range(3):
        other.subscribe(_copy(untouched))
    without_complaint(play, story)


def _copy(handler: Any) -> Any:
    async def copy() -> Any:
        return await handler()

    return copy


async def _cancelled_beside(play: Play) -> None:
    play.emitter = asyncio.get_running_loop().create_task(play._emit())
    with pytest.raises(asyncio.CancelledError):
        await play.emitter
    assert sorted(play.left) == sorted(play.entered)
