"""Blocks that hold emissions back until what they announce has succeeded (B4).

What holds for every form of the block and every way of emitting is told in each:
`with` and `async with`, `emit` and `emit_async`.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    Deferral,
    DispatcherClosedError,
    Emission,
    EmissionDepthError,
    EventDispatcher,
    EventSignal,
    HandlerErrors,
    InvalidOptionError,
    LoginEventContext,
    QueueFullError,
    SignalRegistry,
    UnknownEventError,
    WouldDeadlockError,
    current_event,
    emit_event,
    emit_event_async,
    emit_login_event,
    event_scope,
    get_event_dispatcher,
    on_event,
)
from madcrow_events._frames import CURRENT

pytestmark = pytest.mark.guarantee("B4")

LONG = 10.0
"""Seconds that no test takes, unless it fails."""


class Happened(BaseEventContext):
    number: int = 0


class Failed(Exception):
    """What a block or a handler raises."""


class Block:
    """A deferral in one of its two forms, for stories that are coroutines in both."""

    def __init__(self, deferral: Deferral, *, is_async: bool) -> None:
        self.deferral = deferral
        self.is_async = is_async

    async def __aenter__(self) -> Deferral:
        if self.is_async:
            return await self.deferral.__aenter__()
        return self.deferral.__enter__()

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036  # passed on
        if self.is_async:
            await self.deferral.__aexit__(*error)
        else:
            self.deferral.__exit__(*error)


class Way(NamedTuple):
    """A form of the block, and a way to emit in it."""

    is_async: bool
    awaits: bool

    def __str__(self) -> str:
        return f"{'async with' if self.is_async else 'with'}-{'emit_async' * self.awaits or 'emit'}"

    def block(self, dispatcher: EventDispatcher) -> Block:
        return Block(dispatcher.deferred(), is_async=self.is_async)

    async def emit(
        self, dispatcher: EventDispatcher, event: Any, /, *sender: Any, **context: Any
    ) -> Emission[Any]:
        if self.awaits:
            return await dispatcher.emit_async(event, *sender, **context)
        return dispatcher.emit(event, *sender, **context)

    async def emit_typed(
        self, dispatcher: EventDispatcher, event: Any, context: BaseEventContext
    ) -> Emission[Any]:
        if self.awaits:
            return await dispatcher.emit_typed_async(event, context)
        return dispatcher.emit_typed(event, context)

    async def flush(self, deferral: Deferral) -> None:
        if self.is_async:
            await deferral.flush_async()
        else:
            deferral.flush()


in_every_way = pytest.mark.parametrize(
    "way", [Way(a, b) for a in (False, True) for b in (False, True)], ids=str
)
in_both_forms = pytest.mark.parametrize("way", [Way(False, False), Way(True, True)], ids=str)


@pytest.fixture
def heard(signal: EventSignal[Any]) -> list[Any]:
    """Return the numbers that a plain handler of `thing_happened` has been called with."""
    numbers: list[Any] = []

    @signal.on()
    def hear(sender: Any, **context: Any) -> None:
        numbers.append(context["number"])

    return numbers


@pytest.fixture
def raising(dispatcher: EventDispatcher) -> EventDispatcher:
    return dispatcher.with_options(on_error="raise")


def run_in_thread(work: Callable[[], Any]) -> None:
    """Do the work in a thread with an empty context, and raise what it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


# The block


@in_every_way
async def test_a_block_holds_back_until_it_ends_and_keeps_the_order(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        for number in range(5):
            await way.emit(dispatcher, "thing_happened", number=number)
        assert heard == []
        assert deferral.pending == 5
    assert heard == [0, 1, 2, 3, 4]
    assert deferral.pending == 0


def test_a_block_needs_no_event_loop(dispatcher: EventDispatcher, heard: list[int]) -> None:
    with dispatcher.deferred():
        dispatcher.emit("thing_happened", number=1)
        assert heard == []
    assert heard == [1]


@in_every_way
async def test_an_empty_block_ends_well(dispatcher: EventDispatcher, way: Way) -> None:
    async with way.block(dispatcher) as deferral:
        pass
    assert deferral.pending == 0


@in_every_way
@pytest.mark.parametrize(
    "error", [Failed, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError]
)
async def test_a_block_that_raises_drops_its_emissions_and_lets_the_exception_through(
    dispatcher: EventDispatcher, heard: list[int], way: Way, error: type[BaseException]
) -> None:
    raised = error()
    with pytest.raises(error) as caught:
        async with way.block(dispatcher) as deferral:
            first = await way.emit(dispatcher, "thing_happened", number=1)
            second = await way.emit(dispatcher, "thing_happened", number=2)
            raise raised
    assert caught.value is raised
    assert heard == []
    assert (first.state, second.state) == ("dropped", "dropped")
    assert deferral.pending == 0


@in_every_way
async def test_after_a_block_emissions_go_out_at_once(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher):
        pass
    assert (await way.emit(dispatcher, "thing_happened", number=1)).state == "done"
    with pytest.raises(Failed):
        async with way.block(dispatcher):
            raise Failed
    assert (await way.emit(dispatcher, "thing_happened", number=2)).state == "done"
    assert heard == [1, 2]
    assert CURRENT.get(None) is None


@in_every_way
async def test_a_typed_emission_is_held_back_with_its_context(
    signals: SignalRegistry, dispatcher: EventDispatcher, way: Way
) -> None:
    seen: list[Happened] = []

    def typed(context: Happened) -> None:
        seen.append(context)

    signals.signal("typed_thing", context=Happened).subscribe(typed)
    context = Happened(number=7)
    async with way.block(dispatcher):
        emission = await way.emit_typed(dispatcher, "typed_thing", context)
        assert emission.context is context
        assert seen == []
    assert seen == [context]
    assert seen[0] is context


@in_every_way
async def test_an_emission_keeps_its_sender_and_returns_its_results(
    signal: EventSignal[Any], dispatcher: EventDispatcher, way: Way
) -> None:
    sender = object()
    signal.subscribe(lambda sender: sender, sender=sender)
    async with way.block(dispatcher):
        mine = await way.emit(dispatcher, signal, sender)
        other = await way.emit(dispatcher, signal)
    assert [result.value for result in mine.results] == [sender]
    assert other.results == ()


async def test_the_default_dispatcher_defers_what_the_functions_emit() -> None:
    heard: list[str] = []

    @on_event("user_logged_in")
    def hear(email: str) -> None:
        heard.append(email)

    with get_event_dispatcher().deferred():
        emit_event("user_logged_in", user_id=1, email="1@b.c")
        await emit_event_async("user_logged_in", user_id=2, email="2@b.c")
        emit_login_event(LoginEventContext(user_id=3, email="3@b.c"))
        assert heard == []
    assert heard == ["1@b.c", "2@b.c", "3@b.c"]


@in_both_forms
async def test_a_deferral_is_good_for_one_block(dispatcher: EventDispatcher, way: Way) -> None:
    block = way.block(dispatcher)
    async with block:
        with pytest.raises(RuntimeError, match=r"call deferred\(\) again"):
            await block.__aenter__()
    with pytest.raises(RuntimeError, match=r"call deferred\(\) again"):
        await block.__aenter__()


def test_a_deferral_that_is_not_entered_holds_nothing_back(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    deferral = dispatcher.deferred()
    dispatcher.emit("thing_happened", number=1)
    deferral.flush()
    assert (deferral.pending, deferral.discard(), heard) == (0, 0, [1])


def test_a_deferral_shows_whether_it_is_open_and_how_much_it_holds(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    deferral = dispatcher.deferred()
    assert repr(deferral) == "<Deferral closed, pending: 0>"
    with deferral:
        dispatcher.emit("thing_happened", number="secret")
        assert repr(deferral) == "<Deferral open, pending: 1>"
    assert repr(deferral) == "<Deferral closed, pending: 0>"


# Nested blocks


@in_every_way
async def test_a_nested_block_that_fails_loses_its_own_emissions_only(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher):
        await way.emit(dispatcher, "thing_happened", number=1)
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=2)
        with pytest.raises(Failed):
            async with way.block(dispatcher):
                await way.emit(dispatcher, "thing_happened", number=3)
                raise Failed
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=4)
        await way.emit(dispatcher, "thing_happened", number=5)
        assert heard == []
    assert heard == [1, 2, 4, 5]


@in_every_way
async def test_a_nested_block_that_ended_well_is_lost_with_the_outer_one(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    with pytest.raises(Failed):
        async with way.block(dispatcher) as outer:
            async with way.block(dispatcher):
                emission = await way.emit(dispatcher, "thing_happened", number=1)
            assert outer.pending == 1
            assert emission.state == "deferred"
            raise Failed
    assert heard == []
    assert emission.state == "dropped"


@in_every_way
@pytest.mark.parametrize(
    ("failing", "survivors"),
    [(None, [1, 2, 3, 4, 5]), (3, [1, 2, 4, 5]), (2, [1, 5]), (1, [])],
)
async def test_three_levels_lose_what_is_at_and_below_the_level_that_fails(
    dispatcher: EventDispatcher,
    heard: list[int],
    way: Way,
    failing: int | None,
    survivors: list[int],
) -> None:
    def level(number: int) -> Any:
        return pytest.raises(Failed) if failing == number else nullcontext()

    def end_of(number: int) -> None:
        if failing == number:
            raise Failed

    with level(1):
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=1)
            with level(2):
                async with way.block(dispatcher):
                    await way.emit(dispatcher, "thing_happened", number=2)
                    with level(3):
                        async with way.block(dispatcher):
                            await way.emit(dispatcher, "thing_happened", number=3)
                            end_of(3)
                    await way.emit(dispatcher, "thing_happened", number=4)
                    end_of(2)
            await way.emit(dispatcher, "thing_happened", number=5)
            assert heard == []
            end_of(1)
    assert heard == survivors
    assert CURRENT.get(None) is None


# Whose emissions


@in_every_way
async def test_emissions_of_siblings_are_held_back_and_keep_their_own_policy(
    signal: EventSignal[Any], dispatcher: EventDispatcher, raising: EventDispatcher, way: Way
) -> None:
    @signal.on()
    def fail(number: int) -> None:
        raise Failed(number)

    with pytest.raises(Failed, match="2"):
        async with way.block(dispatcher):
            await way.emit(dispatcher, signal, number=1)
            sibling = await way.emit(raising, signal, number=2)
            assert sibling.state == "deferred"
    assert sibling.dispatcher is raising


@in_every_way
async def test_emissions_of_other_dispatchers_are_not_held_back(
    signals: SignalRegistry, dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    other = EventDispatcher(signals)
    async with way.block(dispatcher):
        await way.emit(other, "thing_happened", number=1)
        assert heard == [1]


@in_every_way
async def test_the_blocks_of_two_dispatchers_know_nothing_of_each_other(
    signals: SignalRegistry, dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    other = EventDispatcher(signals)
    with pytest.raises(Failed):
        async with way.block(dispatcher):
            async with way.block(other):
                await way.emit(dispatcher, "thing_happened", number=1)
                await way.emit(other, "thing_happened", number=2)
                assert heard == []
            assert heard == [2]
            raise Failed
    assert heard == [2]


def test_what_a_signal_sends_is_not_held_back(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    with dispatcher.deferred():
        signal.send(number=1)
        assert heard == [1]


@in_every_way
async def test_a_muted_signal_has_nothing_to_hold_back(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        with signal.muted():
            emission = await way.emit(dispatcher, signal, number=1)
        assert deferral.pending == 0
        assert emission.state == "done"
    assert heard == []


@in_every_way
async def test_a_signal_that_is_muted_when_the_block_ends_reaches_nobody(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    with signal.muted():
        block = way.block(dispatcher)
        await block.__aenter__()
    emission = await way.emit(dispatcher, signal, number=1)
    with signal.muted():
        await block.__aexit__(None, None, None)
    assert heard == []
    assert emission.state == "done"


# What is checked inside


@in_every_way
async def test_an_unknown_event_is_refused_inside_of_the_block(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        with pytest.raises(UnknownEventError):
            await way.emit(dispatcher, "thing_hapened", number=1)
        assert deferral.pending == 0


@in_every_way
async def test_the_wrong_context_is_refused_inside_of_the_block(
    dispatcher: EventDispatcher, signals: SignalRegistry, way: Way
) -> None:
    signals.signal("typed_thing", context=Happened)
    async with way.block(dispatcher) as deferral:
        with pytest.raises(ContextTypeError):
            await way.emit_typed(dispatcher, "typed_thing", BaseEventContext())
        with pytest.raises(ContextTypeError):
            await way.emit(dispatcher, "typed_thing", Happened())
        assert deferral.pending == 0


@in_every_way
async def test_keywords_that_do_not_fit_are_refused_inside_of_the_block(
    dispatcher: EventDispatcher, signals: SignalRegistry, way: Way
) -> None:
    signals.signal("typed_thing", context=Happened)
    strict = dispatcher.with_options(validate=True)
    async with way.block(dispatcher) as deferral:
        with pytest.raises(ContextValidationError):
            await way.emit(strict, "typed_thing", number="many")
        assert deferral.pending == 0
        await way.emit(strict, "typed_thing", number=1)
        assert deferral.pending == 1


@in_every_way
async def test_an_error_of_an_emission_inside_drops_what_was_held_back_if_it_leaves_the_block(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    with pytest.raises(UnknownEventError):
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=1)
            await way.emit(dispatcher, "thing_hapened", number=2)
    assert heard == []


# What an emission tells of itself


@in_every_way
async def test_an_emission_is_deferred_then_done(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    states: list[str] = []
    signal.subscribe(lambda emission: states.append(emission.state), weak=False)

    @signal.on()
    def look(emission: Emission[Any]) -> None:
        states.append(emission.state)

    async with way.block(dispatcher):
        emission = await way.emit(dispatcher, signal, emission=None)
        assert emission.state == "deferred"
        assert repr(emission) == "<Emission thing_happened, deferred>"
        assert (emission.pending, emission.results, emission.failures) == (0, (), ())
        assert emission.ok
    assert states == ["running"]
    assert emission.state == "done"
    assert repr(emission) == "<Emission thing_happened, results: 1, failures: 1>"


@in_every_way
async def test_an_emission_is_deferred_then_dropped(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    with pytest.raises(Failed):
        async with way.block(dispatcher):
            emission = await way.emit(dispatcher, "thing_happened", number="secret")
            raise Failed
    assert emission.state == "dropped"
    assert repr(emission) == "<Emission thing_happened, dropped>"
    assert (emission.pending, emission.results, emission.failures) == (0, (), ())
    assert emission.wait(LONG)
    await emission.done()


@in_every_way
async def test_an_emission_without_handlers_is_deferred_then_done(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    async with way.block(dispatcher):
        emission = await way.emit(dispatcher, signal)
        assert emission.state == "deferred"
    assert emission.state == "done"


@in_every_way
@pytest.mark.parametrize("nested", [False, True])
async def test_waiting_inside_of_the_block_would_never_end(
    dispatcher: EventDispatcher, heard: list[int], way: Way, nested: bool
) -> None:
    async with way.block(dispatcher):
        async with way.block(dispatcher) if nested else nullcontext():
            emission = await way.emit(dispatcher, "thing_happened", number=1)
            with pytest.raises(WouldDeadlockError, match="wait after the block"):
                emission.wait(LONG)
        with pytest.raises(WouldDeadlockError, match="wait after the block"):
            emission.wait()
        with pytest.raises(WouldDeadlockError, match="wait after the block"):
            await emission.done()
        assert not emission.wait(0)
    assert emission.wait(0)
    assert emission.wait()
    await emission.done()


@pytest.mark.parametrize("fails", [False, True])
def test_another_thread_may_wait_for_the_end_of_the_block(
    dispatcher: EventDispatcher, heard: list[int], fails: bool
) -> None:
    waited: list[Any] = []

    def wait() -> None:
        # It takes no part in the block, for its context is empty.
        waited.append(emission.wait(2 * LONG))
        waited.append(emission.state)

    with pytest.raises(Failed) if fails else nullcontext(), dispatcher.deferred():
        emission = dispatcher.emit("thing_happened", number=1)
        emission._values.listeners._look_every = 2 * LONG  # it is told, and does not find out
        thread = threading.Thread(target=wait)
        thread.start()
        while not emission._values.listeners._callbacks:
            pass
        assert waited == []
        if fails:
            raise Failed
    thread.join(LONG)
    assert waited == [True, "dropped" if fails else "done"]


@in_every_way
@pytest.mark.parametrize("fails", [False, True])
async def test_another_task_may_await_the_end_of_the_block(
    dispatcher: EventDispatcher, heard: list[int], way: Way, fails: bool
) -> None:
    emitted: asyncio.Future[Emission[Any]] = asyncio.get_running_loop().create_future()

    async def wait() -> str:
        emission = await emitted
        await emission.done()
        return emission.state

    waiting = asyncio.create_task(wait())
    with pytest.raises(Failed) if fails else nullcontext():
        async with way.block(dispatcher):
            emitted.set_result(await way.emit(dispatcher, "thing_happened", number=1))
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            if fails:
                raise Failed
    async with asyncio.timeout(LONG):
        assert await waiting == ("dropped" if fails else "done")


def test_discarding_wakes_who_waits(dispatcher: EventDispatcher, heard: list[int]) -> None:
    with dispatcher.deferred() as deferral:
        emission = dispatcher.emit("thing_happened", number=1)
        waited: list[bool] = []
        emission._values.listeners._look_every = 2 * LONG  # as above
        thread = threading.Thread(target=lambda: waited.append(emission.wait(2 * LONG)))
        thread.start()
        while not emission._values.listeners._callbacks:
            pass
        deferral.discard()
        thread.join(LONG)
        assert waited == [True]


# Transactions that are no block


@in_every_way
async def test_what_is_discarded_is_dropped_and_the_block_goes_on(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        dropped = [await way.emit(dispatcher, "thing_happened", number=n) for n in range(3)]
        assert deferral.discard() == 3
        assert [emission.state for emission in dropped] == ["dropped"] * 3
        assert deferral.discard() == 0
        await way.emit(dispatcher, "thing_happened", number=3)
        assert deferral.pending == 1
    assert heard == [3]


@in_every_way
async def test_what_is_flushed_goes_out_and_the_block_goes_on(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    with pytest.raises(Failed):
        async with way.block(dispatcher) as deferral:
            for number in range(3):
                await way.emit(dispatcher, "thing_happened", number=number)
            await way.flush(deferral)
            assert heard == [0, 1, 2]
            assert deferral.pending == 0
            await way.emit(dispatcher, "thing_happened", number=3)
            assert deferral.pending == 1
            raise Failed
    assert heard == [0, 1, 2]


@in_every_way
async def test_a_nested_block_is_flushed_past_the_outer_one(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as outer:
        await way.emit(dispatcher, "thing_happened", number=1)
        async with way.block(dispatcher) as inner:
            await way.emit(dispatcher, "thing_happened", number=2)
            await way.flush(inner)
            assert heard == [2]
            assert (inner.pending, outer.pending) == (0, 1)
    assert heard == [2, 1]


@in_both_forms
async def test_what_a_flush_raises_it_raises_after_the_last(
    raising: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    @signal.on()
    def fail(number: int) -> None:
        if number == 1:
            raise Failed

    async with way.block(raising) as deferral:
        for number in range(3):
            await way.emit(raising, signal, number=number)
        with pytest.raises(Failed):
            await way.flush(deferral)
        assert heard == [0, 1, 2]


@in_both_forms
async def test_a_flush_of_a_closed_block_does_nothing(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async with way.block(dispatcher) as deferral:
        await way.emit(dispatcher, "thing_happened", number=1)
    await way.flush(deferral)
    assert heard == [1]


# The flush


@in_every_way
async def test_what_handlers_emit_during_the_flush_goes_out_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    inner: list[Emission[Any]] = []

    @signal.on(priority=1)
    def emit_more(number: int) -> None:
        if number < 10:
            inner.append(dispatcher.emit(signal, number=number + 10))
            assert inner[-1].state == "done"

    async with way.block(dispatcher):
        for number in range(3):
            await way.emit(dispatcher, signal, number=number)
    assert heard == [10, 0, 11, 1, 12, 2]
    assert all(emission.parent is not None for emission in inner)


@in_both_forms
async def test_what_handlers_emit_during_a_flush_in_an_open_block_goes_out_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    @signal.on(priority=1)
    def emit_more(number: int) -> None:
        if number < 10:
            dispatcher.emit(signal, number=number + 10)

    async with way.block(dispatcher), way.block(dispatcher) as inner:
        await way.emit(dispatcher, signal, number=1)
        await way.flush(inner)
        assert heard == [11, 1]


async def test_what_async_handlers_emit_during_the_flush_goes_out_at_once(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    @signal.on()
    async def emit_more(number: int) -> None:
        await asyncio.sleep(0)
        if number < 10:
            assert (await dispatcher.emit_async(signal, number=number + 10)).state == "done"

    async with dispatcher.deferred():
        await dispatcher.emit_async(signal, number=1)
        await dispatcher.emit_async(signal, number=2)
    assert heard == [1, 11, 2, 12]


@in_every_way
async def test_a_failing_handler_is_isolated_and_announced_at_the_flush(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    announced: list[str] = []

    def announce(sender: Any, **context: Any) -> None:
        announced.append(context["exception_type"])

    dispatcher.signals.signal("handler_failed").subscribe(announce)

    @signal.on(priority=1)
    def fail() -> None:
        raise Failed

    async with way.block(dispatcher):
        first = await way.emit(dispatcher, signal, number=1)
        await way.emit(dispatcher, signal, number=2)
        assert announced == []
    assert heard == [1, 2]
    assert announced == ["Failed", "Failed"]
    assert [type(failure.exception) for failure in first.failures] == [Failed]


@in_every_way
async def test_one_exception_of_a_flush_is_raised_as_it_is_after_the_last_emission(
    raising: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    error = Failed()

    @signal.on(priority=1)
    def fail(number: int) -> None:
        if number == 1:
            raise error

    with pytest.raises(Failed) as caught:
        async with way.block(raising):
            for number in range(4):
                await way.emit(raising, signal, number=number)
    assert caught.value is error
    assert heard == [0, 1, 2, 3]


@in_every_way
async def test_several_exceptions_of_a_flush_are_raised_as_a_group(
    raising: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    errors = [Failed(number) for number in range(4)]

    @signal.on(priority=1)
    def fail(number: int) -> None:
        if number:
            raise errors[number]

    with pytest.raises(HandlerErrors, match="3 of the emissions that were held back") as caught:
        async with way.block(raising):
            for number in range(4):
                await way.emit(raising, signal, number=number)
    assert caught.value.exceptions == tuple(errors[1:])
    assert heard == [0, 1, 2, 3]


@in_every_way
async def test_an_exit_from_a_handler_is_raised_after_the_last_emission(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    heard: list[int] = []
    interrupts = [KeyboardInterrupt("first"), SystemExit("second")]

    @signal.on()
    def interrupt(number: int) -> None:
        heard.append(number)
        if number % 2:
            raise interrupts[number // 2]

    signal.subscribe(lambda number: heard.append(number + 10))
    emissions: list[Emission[Any]] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        async with way.block(dispatcher):
            emissions += [await way.emit(dispatcher, signal, number=number) for number in range(5)]
    assert caught.value is interrupts[0]
    assert heard == [0, 10, 1, 2, 12, 3, 4, 14]
    assert [emission.state for emission in emissions] == ["done"] * 5


@in_every_way
async def test_an_exit_keeps_its_own_cause(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    cause = Failed()

    @signal.on()
    def interrupt() -> None:
        raise KeyboardInterrupt from cause

    with pytest.raises(KeyboardInterrupt) as caught:
        async with way.block(dispatcher):
            await way.emit(dispatcher, signal)
    assert caught.value.__cause__ is cause


@in_every_way
async def test_an_exit_shows_what_else_the_flush_raised(
    raising: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    error = Failed()

    @signal.on()
    def interrupt(number: int) -> None:
        raise (KeyboardInterrupt if number else error)

    with pytest.raises(KeyboardInterrupt) as caught:
        async with way.block(raising):
            await way.emit(raising, signal, number=0)
            await way.emit(raising, signal, number=1)
    assert caught.value.__cause__ is error


async def test_async_with_awaits_what_was_emitted_by_emit_async(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    story: list[str] = []

    @signal.on()
    async def work(number: int) -> None:
        story.append(f"begin {number}")
        await asyncio.sleep(0)
        story.append(f"end {number}")

    async with dispatcher.deferred():
        first = await dispatcher.emit_async(signal, number=1)
        second = await dispatcher.emit_async(signal, number=2)
        assert story == []
        assert first.state == "deferred"
    assert story == ["begin 1", "end 1", "begin 2", "end 2"]
    assert (first.state, second.state) == ("done", "done")
    assert (first.pending, len(first.results)) == (0, 1)


async def test_async_with_awaits_typed_emissions_too(
    dispatcher: EventDispatcher, signals: SignalRegistry
) -> None:
    seen: list[Happened] = []
    signal = signals.signal("typed_thing", context=Happened)

    @signal.on()
    async def work(context: Happened) -> None:
        await asyncio.sleep(0)
        seen.append(context)

    context = Happened(number=1)
    async with dispatcher.deferred():
        await dispatcher.emit_typed_async(signal, context)
    assert seen == [context]


@pytest.mark.parametrize("way", [Way(False, False), Way(False, True), Way(True, False)], ids=str)
async def test_other_async_handlers_are_started_as_by_emit(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    go_on = asyncio.Event()

    @signal.on()
    async def work(number: int) -> int:
        await go_on.wait()
        return number

    async with asyncio.timeout(LONG), way.block(dispatcher):
        emissions = [await way.emit(dispatcher, signal, number=number) for number in range(2)]
    assert [(emission.state, emission.pending) for emission in emissions] == [("running", 1)] * 2
    go_on.set()
    assert await dispatcher.drain_async(LONG)
    assert [emission.results[0].value for emission in emissions] == [0, 1]
    assert [emission.state for emission in emissions] == ["done"] * 2


def test_async_handlers_run_in_the_background_where_no_loop_runs(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    @signal.on()
    async def work() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    with dispatcher, dispatcher.deferred():
        emission = dispatcher.emit(signal)
    assert emission.wait(LONG)
    assert [result.value for result in emission.results] == ["madcrow-events-loop"]


@in_every_way
async def test_background_handlers_start_at_the_flush(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    heard: list[int] = []
    signal.subscribe(lambda number: heard.append(number), background=True)

    @signal.on(background=True)
    async def work(number: int) -> None:
        heard.append(number)

    async with way.block(dispatcher):
        emission = await way.emit(dispatcher, signal, number=1)
        assert await dispatcher.drain_async(LONG)
        assert heard == []
    await emission.done()
    assert heard == [1, 1]
    assert len(emission.results) == 2


@in_every_way
async def test_what_background_handlers_emit_is_not_held_back(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    flushed = threading.Event()
    states: list[str] = []

    @signal.on(background=True)
    def emit_more(number: int) -> None:
        if number < 10:
            states.append(dispatcher.emit(signal, number=number + 10).state)
            flushed.set()

    async with way.block(dispatcher) as deferral:
        await way.emit(dispatcher, signal, number=1)
        await way.flush(deferral)
        await asyncio.to_thread(flushed.wait, LONG)
        assert heard == [1, 11]
    assert "deferred" not in states
    assert await dispatcher.drain_async(LONG)


@in_every_way
async def test_a_full_queue_is_told_after_all_went_out_and_drops_that_emission(
    signals: SignalRegistry, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    dispatcher = EventDispatcher(signals, queue_size=1, overflow="raise")
    crowded = signals.signal("crowded")
    crowded_heard: list[int] = []
    crowded.subscribe(lambda number: crowded_heard.append(number))
    for _ in range(2):
        crowded.subscribe(lambda: None, background=True)
    with pytest.raises(QueueFullError):
        async with way.block(dispatcher):
            first = await way.emit(dispatcher, signal, number=1)
            refused = await way.emit(dispatcher, crowded, number=2)
            last = await way.emit(dispatcher, signal, number=3)
            assert refused.state == "deferred"
    assert heard == [1, 3]
    assert crowded_heard == []
    assert (first.state, refused.state, last.state) == ("done", "dropped", "done")
    assert (refused.pending, refused.results, refused.failures) == (0, (), ())
    assert refused.wait(LONG)


@in_every_way
async def test_a_dispatcher_that_was_closed_meanwhile_drops_what_would_run_later(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    signal.subscribe(lambda: None, background=True)
    with pytest.raises(DispatcherClosedError):
        async with way.block(dispatcher):
            emission = await way.emit(dispatcher, signal)
            dispatcher.close()
    assert emission.state == "dropped"


@in_every_way
async def test_who_subscribed_before_the_block_ended_is_called(
    dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    early: list[int] = []
    late: list[int] = []
    subscription = signal.subscribe(lambda number: early.append(number))
    async with way.block(dispatcher):
        await way.emit(dispatcher, signal, number=1)
        await way.emit(dispatcher, signal, number=2)
        subscription.cancel()
        signal.subscribe(lambda number: late.append(number), once=True)
    assert early == []
    assert late == [1]


@in_every_way
async def test_observers_are_entered_when_the_emission_goes_out(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int], way: Way
) -> None:
    class Observer:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @contextmanager
        def emission(self, emission: Emission[Any]) -> Iterator[None]:
            self.seen.append(f"begin {emission.context['number']}")
            yield
            self.seen.append(f"end {emission.context['number']}")

        @contextmanager
        def handling(self, emission: Emission[Any], handler: Any) -> Iterator[None]:
            self.seen.append(f"handler {emission.context['number']}")
            yield

    observer = Observer()
    dispatcher.add_observer(observer)
    with pytest.raises(Failed):
        async with way.block(dispatcher):
            await way.emit(dispatcher, signal, number=1)
            raise Failed
    async with way.block(dispatcher):
        await way.emit(dispatcher, signal, number=2)
        assert observer.seen == []
    assert observer.seen == ["begin 2", "handler 2", "end 2"]


# Cancellation


@in_every_way
async def test_cancellation_inside_of_the_block_drops_its_emissions(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    emissions: list[Emission[Any]] = []
    begun = asyncio.Event()

    async def work() -> None:
        async with way.block(dispatcher):
            emissions.append(await way.emit(dispatcher, "thing_happened", number=1))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard == []
    assert emissions[0].state == "dropped"


async def test_cancellation_during_the_flush_lets_the_rest_go_out(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()
    story: list[str] = []
    emissions: list[Emission[Any]] = []

    @signal.on()
    async def work(number: int) -> None:
        begun.set()
        try:
            await go_on.wait()
            story.append(f"end {number}")
        except asyncio.CancelledError:
            story.append(f"cancelled {number}")
            raise

    async def transact() -> None:
        async with dispatcher.deferred():
            emissions.extend([await dispatcher.emit_async(signal, number=n) for n in range(3)])

    task = asyncio.create_task(transact())
    await begun.wait()
    assert heard == [0]
    task.cancel()
    await asyncio.wait([task], timeout=LONG)
    pending = [emission.pending for emission in emissions]
    go_on.set()
    assert task.cancelled()
    assert heard == [0, 1, 2]
    # Those that nobody awaits any more run by themselves, as after `emit`.
    assert pending == [0, 1, 1]
    assert await dispatcher.drain_async(LONG)
    assert story == ["cancelled 0", "end 1", "end 2"]


async def test_a_timeout_around_the_block_is_a_timeout(
    dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    @signal.on()
    async def work(number: int) -> None:
        if number == 0:
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), dispatcher.deferred():
            for number in range(3):
                await dispatcher.emit_async(signal, number=number)
    assert heard == [0, 1, 2]
    assert await dispatcher.drain_async(LONG)


# Depth, ids and scopes


@in_both_forms
async def test_chains_through_blocks_are_as_deep_as_others(
    raising: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    depths: list[int] = []

    @signal.on()
    async def ask_for_more(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if len(depths) < 1000:
            async with way.block(raising):
                await raising.emit_async(signal)

    @signal.on()
    def ask_for_more_inline(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if len(depths) < 1000:
            with raising.deferred():
                raising.emit(signal)

    ask = ask_for_more if way.is_async else ask_for_more_inline
    signal.unsubscribe(ask_for_more_inline if way.is_async else ask_for_more)
    with pytest.raises(EmissionDepthError):
        await raising.emit_async(signal)
    assert depths == list(range(64))
    signal.unsubscribe(ask)
    assert (await raising.emit_async(signal)).depth == 0


def test_an_emission_that_is_too_deep_when_it_goes_out_is_dropped(
    signals: SignalRegistry, raising: EventDispatcher, signal: EventSignal[Any]
) -> None:
    """It was held back by another thread's block, whose handlers have gone deeper meanwhile."""
    inner = signals.signal("inner_thing")
    held: list[Emission[Any]] = []

    @signal.on()
    def break_the_chain(emission: Emission[Any]) -> None:
        if emission.depth == 0:
            with raising.deferred():
                held.append(raising.emit(inner))
                with pytest.raises(EmissionDepthError):
                    raising_elsewhere.emit(signal)
        else:
            raising_elsewhere.emit(signal)

    raising_elsewhere = EventDispatcher(signals, on_error="raise")
    with pytest.raises(EmissionDepthError):
        raising.emit(signal)
    assert held[0].state == "dropped"


@in_every_way
async def test_what_was_held_back_begins_a_chain_of_its_own(
    signals: SignalRegistry, dispatcher: EventDispatcher, signal: EventSignal[Any], way: Way
) -> None:
    """Its emitter was a handler of another dispatcher, which has ended."""
    inner = signals.signal("inner_thing")
    held: list[Emission[Any]] = []

    @signal.on()
    def emit_inner() -> None:
        held.append(dispatcher.emit(inner))

    async with way.block(dispatcher):
        outer = await way.emit(EventDispatcher(signals), signal)
        assert held[0].state == "deferred"
        assert held[0].causation_id == outer.id
    assert held[0].state == "done"
    assert (held[0].depth, held[0].parent) == (0, None)


@in_every_way
@pytest.mark.parametrize("asked", ["inside", "after"])
@pytest.mark.guarantee("B5")
async def test_ids_hold_across_the_hold(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    way: Way,
    asked: str,
) -> None:
    inner = signals.signal("inner_thing")
    held: list[Emission[Any]] = []
    ids: list[Any] = []
    seen: list[Any] = []

    def ids_of(emission: Emission[Any]) -> tuple[Any, Any, Any]:
        return emission.id, emission.causation_id, emission.correlation_id

    @signal.on()
    def emit_inner() -> None:
        held.append(dispatcher.emit(inner))
        if asked == "inside":
            ids.append(ids_of(held[0]))

    @inner.on()
    def look(emission: Emission[Any]) -> None:
        seen.append(ids_of(emission))

    async with way.block(dispatcher):
        outer = await way.emit(EventDispatcher(signals), signal)
        if asked == "inside":
            ids.append(ids_of(held[0]))
    ids.append(ids_of(held[0]))
    assert set(ids + seen) == {(held[0].id, outer.id, outer.id)}
    assert held[0].id > outer.id


@in_every_way
@pytest.mark.guarantee("B5")
async def test_what_a_scope_filled_in_holds_across_the_hold(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    heard: list[int],
    way: Way,
) -> None:
    typed = signals.signal("typed_thing", context=Happened)
    inner: list[Emission[Any]] = []

    @typed.on()
    def emit_inner(context: Happened) -> None:
        inner.append(dispatcher.emit(signal, number=3))

    async with way.block(dispatcher):
        with event_scope(request_id="mine"):
            loose = await way.emit(dispatcher, signal, number=1)
            model = await way.emit_typed(dispatcher, typed, Happened(number=2))
            assert loose.context == {"number": 1, "request_id": "mine"}
            context = model.context
            assert context.request_id == "mine"
    assert loose.context == {"number": 1, "request_id": "mine"}
    assert model.context is context
    assert inner[0].context == {"number": 3, "request_id": "mine"}


# Handlers with blocks


@in_every_way
async def test_a_block_in_a_handler_ends_with_that_block(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    heard: list[int],
    way: Way,
) -> None:
    outer = signals.signal("outer_thing")
    held: list[Emission[Any]] = []

    @outer.on()
    async def transact(number: int) -> None:
        async with way.block(dispatcher):
            held.append(await way.emit(dispatcher, signal, number=number))
            assert heard == []
            if number < 0:
                raise Failed
        assert heard == [number]

    failed = await dispatcher.emit_async(outer, number=-1)
    assert [type(failure.exception) for failure in failed.failures] == [Failed]
    assert heard == []
    emission = await dispatcher.emit_async(outer, number=1)
    assert emission.ok
    assert held[1].parent is emission
    assert held[1].depth == 1
    assert held[0].state == "dropped"


def test_a_block_in_a_plain_handler_ends_with_that_block(
    signals: SignalRegistry, raising: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    outer = signals.signal("outer_thing")

    @outer.on()
    def transact() -> None:
        with raising.deferred():
            emission = raising.emit(signal, number=1)
            assert (heard, emission.parent, emission.depth) == ([], current_event(), 1)
        assert heard == [1]

    raising.emit(outer)
    assert heard == [1]


@in_every_way
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_of_another_dispatcher_takes_part_in_the_block(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    heard: list[int],
    way: Way,
    is_async: bool,
) -> None:
    outer = signals.signal("outer_thing")
    other = EventDispatcher(signals)

    @outer.on()
    async def emit_async() -> None:
        await asyncio.sleep(0)
        await way.emit(dispatcher, signal, number=1)

    @outer.on()
    def emit() -> None:
        dispatcher.emit(signal, number=1)

    outer.unsubscribe(emit if is_async else emit_async)
    with pytest.raises(Failed):
        async with way.block(dispatcher):
            await other.emit_async(outer)
            raise Failed
    assert heard == []
    async with way.block(dispatcher):
        await other.emit_async(outer)
        assert heard == []
    assert heard == [1]


@in_every_way
async def test_a_background_handler_of_another_dispatcher_takes_part_until_the_block_closes(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    signal: EventSignal[Any],
    heard: list[int],
    way: Way,
) -> None:
    outer = signals.signal("outer_thing")
    closed = threading.Event()
    states: list[str] = []

    @outer.on(background=True)
    def emit(number: int) -> None:
        if number:
            assert closed.wait(LONG)
        states.append(dispatcher.emit(signal, number=number).state)

    with EventDispatcher(signals) as other:
        async with way.block(dispatcher):
            await (await way.emit(other, outer, number=0)).done()
            assert heard == []
            await way.emit(other, outer, number=1)
        assert heard == [0]
        closed.set()
    assert heard == [0, 1]
    assert states == ["deferred", "done"]


def test_a_receiver_of_send_takes_part_in_the_block(
    signals: SignalRegistry, dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    outer = signals.signal("outer_thing")
    outer.subscribe(lambda: dispatcher.emit(signal, number=1))
    with dispatcher.deferred():
        outer.send()
        assert heard == []
    assert heard == [1]


# Tasks and threads


@in_every_way
@pytest.mark.parametrize("fails", [False, True])
async def test_a_child_task_shares_the_block_until_it_closes(
    dispatcher: EventDispatcher, heard: list[int], way: Way, fails: bool
) -> None:
    closed = asyncio.Event()
    held = asyncio.Event()

    async def child() -> None:
        assert (await way.emit(dispatcher, "thing_happened", number=1)).state == "deferred"
        held.set()
        await closed.wait()
        assert (await way.emit(dispatcher, "thing_happened", number=2)).state == "done"

    with pytest.raises(Failed) if fails else nullcontext():
        async with way.block(dispatcher) as deferral:
            task = asyncio.create_task(child())
            await held.wait()
            assert deferral.pending == 1
            assert heard == []
            if fails:
                raise Failed
    closed.set()
    await task
    assert heard == ([2] if fails else [1, 2])


@in_every_way
async def test_a_thread_of_the_loop_shares_the_block_until_it_closes(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    held, closed = threading.Event(), threading.Event()

    def child() -> list[str]:
        states = [dispatcher.emit("thing_happened", number=1).state]
        held.set()
        assert closed.wait(LONG)
        return [*states, dispatcher.emit("thing_happened", number=2).state]

    async with way.block(dispatcher):
        working = asyncio.create_task(asyncio.to_thread(child))
        assert await asyncio.to_thread(held.wait, LONG)
        assert heard == []
    assert heard == [1]
    closed.set()
    assert await working == ["deferred", "done"]
    assert heard == [1, 2]


@pytest.mark.parametrize("fails", [False, True])
def test_a_thread_with_a_copy_of_the_context_shares_the_block_until_it_closes(
    dispatcher: EventDispatcher, heard: list[int], fails: bool
) -> None:
    with pytest.raises(Failed) if fails else nullcontext(), dispatcher.deferred() as deferral:
        context = contextvars.copy_context()
        run_in_thread(lambda: context.run(dispatcher.emit, "thing_happened", number=1))
        assert deferral.pending == 1
        if fails:
            raise Failed
    run_in_thread(lambda: context.run(dispatcher.emit, "thing_happened", number=2))
    assert heard == ([2] if fails else [1, 2])


def test_a_thread_without_a_copy_of_the_context_does_not_share_the_block(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    with dispatcher.deferred():
        run_in_thread(lambda: dispatcher.emit("thing_happened", number=1))
        assert heard == [1]


@in_every_way
async def test_a_nested_block_of_a_child_task_joins_the_block(
    dispatcher: EventDispatcher, heard: list[int], way: Way
) -> None:
    async def child(number: int) -> None:
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=number)
            await asyncio.sleep(0)
            if number == 2:
                raise Failed

    async with way.block(dispatcher) as deferral:
        await asyncio.gather(*(child(number) for number in range(4)), return_exceptions=True)
        assert heard == []
        assert deferral.pending == 3
    assert heard == [0, 1, 3]


@in_every_way
@pytest.mark.parametrize("outer_fails", [False, True])
async def test_a_nested_block_that_outlives_the_outer_one_goes_out_by_itself(
    dispatcher: EventDispatcher, heard: list[int], way: Way, outer_fails: bool
) -> None:
    held, closed = asyncio.Event(), asyncio.Event()

    async def child() -> None:
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=1)
            held.set()
            await closed.wait()
            await way.emit(dispatcher, "thing_happened", number=2)
            assert heard == []
        assert heard == [1, 2]

    with pytest.raises(Failed) if outer_fails else nullcontext():
        async with way.block(dispatcher):
            task = asyncio.create_task(child())
            await held.wait()
            if outer_fails:
                raise Failed
    assert heard == []
    closed.set()
    await task


@in_every_way
@pytest.mark.parametrize("middle_fails", [False, True])
async def test_a_nested_block_that_outlives_the_next_one_joins_that_around_both(
    dispatcher: EventDispatcher, heard: list[int], way: Way, middle_fails: bool
) -> None:
    held, closed = asyncio.Event(), asyncio.Event()

    async def child() -> None:
        async with way.block(dispatcher):
            await way.emit(dispatcher, "thing_happened", number=1)
            held.set()
            await closed.wait()
        await way.emit(dispatcher, "thing_happened", number=2)

    async with way.block(dispatcher) as outer:
        with pytest.raises(Failed) if middle_fails else nullcontext():
            async with way.block(dispatcher):
                task = asyncio.create_task(child())
                await held.wait()
                if middle_fails:
                    raise Failed
        closed.set()
        await task
        assert heard == []
        assert outer.pending == 2
    assert heard == [1, 2]


@in_every_way
async def test_a_block_that_closes_while_a_nested_one_hands_over_loses_nothing(
    dispatcher: EventDispatcher, heard: list[int], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outer one's end, in another thread, comes after the nested one has looked for it."""
    outermost, outer, inner = (way.block(dispatcher) for _ in range(3))
    await outermost.__aenter__()
    await outer.__aenter__()
    await inner.__aenter__()
    for number in range(3):
        await way.emit(dispatcher, "thing_happened", number=number)
    take = Deferral._next

    def close_then_take(self: Deferral) -> Emission[Any] | None:
        if self is inner.deferral and len(self._held) == 2:
            outer.deferral.__exit__(None, None, None)
        return take(self)

    monkeypatch.setattr(Deferral, "_next", close_then_take)
    await inner.__aexit__(None, None, None)
    assert heard == []
    assert outermost.deferral.pending == 3
    await outermost.__aexit__(None, None, None)
    assert heard == [0, 1, 2]


@pytest.mark.parametrize("taken_along", [False, True])
def test_an_emission_that_comes_while_the_block_closes_goes_out_once(
    dispatcher: EventDispatcher,
    heard: list[int],
    monkeypatch: pytest.MonkeyPatch,
    taken_along: bool,
) -> None:
    """It is put among the others after another thread has closed the block."""
    deferral = dispatcher.deferred()

    class Closing(deque[Emission[Any]]):
        """Closes the block when the emitter has seen that it is open."""

        def append(self, emission: Emission[Any]) -> None:
            super().append(emission)
            deferral._open = False
            if taken_along:
                deferral.flush()

    deferral._held = Closing()
    with deferral:
        emission = dispatcher.emit("thing_happened", number=1)
        assert heard == [1]
        assert emission.state == "done"
        assert len(emission.results) == 1
    assert heard == [1]


@in_every_way
async def test_a_process_that_was_forked_in_the_block_leaves_the_emissions_to_its_parent(
    dispatcher: EventDispatcher, heard: list[int], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with way.block(dispatcher):
        inherited = await way.emit(dispatcher, "thing_happened", number=1)
        process = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: process + 1)
        await way.emit(dispatcher, "thing_happened", number=2)
    assert heard == [2]
    assert inherited.state == "dropped"


# Generators, which end when and where somebody else wants


def page(dispatcher: EventDispatcher, *numbers: int) -> Generator[int]:
    """Answer a request bit by bit, as a streaming web handler does."""
    with dispatcher.deferred():
        for number in numbers:
            dispatcher.emit("thing_happened", number=number)
            yield number


async def page_async(dispatcher: EventDispatcher, *numbers: int) -> AsyncIterator[int]:
    async with dispatcher.deferred():
        for number in numbers:
            await dispatcher.emit_async("thing_happened", number=number)
            yield number


def check_clean(dispatcher: EventDispatcher, heard: list[int], before: list[int]) -> None:
    """Others are not held back any more, and nothing is left in this context."""
    assert heard == before
    assert dispatcher.emit("thing_happened", number=-1).state == "done"
    assert heard == [*before, -1]
    assert CURRENT.get(None) is None
    assert current_event() is None


def test_a_generator_that_is_exhausted_sends_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    assert list(page(dispatcher, 1, 2)) == [1, 2]
    check_clean(dispatcher, heard, [1, 2])


def test_a_generator_that_is_closed_early_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator = page(dispatcher, 1, 2)
    assert next(generator) == 1
    generator.close()
    check_clean(dispatcher, heard, [])


def test_a_generator_that_is_collected_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator = page(dispatcher, 1, 2)
    assert next(generator) == 1
    del generator
    gc.collect()
    check_clean(dispatcher, heard, [])


@pytest.mark.parametrize("how", ["close", "collect"])
@pytest.mark.parametrize("where", ["copied before", "copied after", "empty", "thread"])
def test_a_generator_that_ends_in_another_context_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int], how: str, where: str
) -> None:
    begins = contextvars.copy_context()
    generators = [page(dispatcher, 1, 2)]
    assert begins.run(next, generators[0]) == 1
    ends = {"copied before": contextvars.copy_context(), "copied after": begins.copy()}.get(
        where, contextvars.Context()
    )

    def end() -> None:
        if how == "close":
            generators.pop().close()
        else:
            generators.clear()
            gc.collect()
        assert dispatcher.emit("thing_happened", number=3).state == "done"
        assert CURRENT.get(None) is None

    if where == "thread":
        run_in_thread(end)
    else:
        ends.run(end)
    # Where it began it cannot be undone, but the block is closed there, too.
    assert begins.run(dispatcher.emit, "thing_happened", number=4).state == "done"
    check_clean(dispatcher, heard, [3, 4])


def test_a_generator_that_is_exhausted_in_another_context_sends_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator = page(dispatcher, 1)
    assert contextvars.copy_context().run(next, generator) == 1
    assert contextvars.Context().run(next, generator, None) is None
    check_clean(dispatcher, heard, [1])


def test_generators_that_end_in_the_order_of_their_begin_leave_no_block_open(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    def interleave() -> None:
        first, second = page(dispatcher, 1), page(dispatcher, 2)
        next(first)
        next(second)
        first.close()
        assert heard == []
        assert next(second, None) is None
        assert heard == [2]
        check_clean(dispatcher, heard, [2])

    contextvars.copy_context().run(interleave)


def test_a_generator_that_is_collected_in_a_handler_disturbs_nobody(
    signals: SignalRegistry, dispatcher: EventDispatcher, signal: EventSignal[Any], heard: list[int]
) -> None:
    other = EventDispatcher(signals)
    outer = signals.signal("outer_thing")
    generators: list[Generator[int]] = []

    @outer.on()
    def collect(emission: Emission[Any]) -> None:
        generators.clear()
        gc.collect()
        assert current_event() is emission
        assert dispatcher.emit(signal, number=2).state == "done"

    def begin_and_collect() -> None:
        generators.append(page(dispatcher, 1))
        next(generators[0])
        assert other.emit(outer).ok
        assert dispatcher.emit(signal, number=3).state == "done"

    contextvars.copy_context().run(begin_and_collect)
    check_clean(dispatcher, heard, [2, 3])


async def test_an_async_generator_that_is_exhausted_sends_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    assert [number async for number in page_async(dispatcher, 1, 2)] == [1, 2]
    check_clean(dispatcher, heard, [1, 2])


@pytest.mark.parametrize("where", ["same", "task", "empty"])
async def test_an_async_generator_that_is_closed_early_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int], where: str
) -> None:
    contexts = {"task": None, "empty": contextvars.Context()}
    generator: Any = page_async(dispatcher, 1, 2)
    if where == "same":
        assert await anext(generator) == 1
        await generator.aclose()
    else:
        # Begun in a task of its own, so that its context ends with it.
        assert await asyncio.create_task(anext(generator)) == 1

        async def close() -> None:
            await generator.aclose()
            assert dispatcher.emit("thing_happened", number=3).state == "done"
            assert CURRENT.get(None) is None

        await asyncio.create_task(close(), context=contexts[where])
    check_clean(dispatcher, heard, [] if where == "same" else [3])


async def test_an_async_generator_that_began_here_may_be_closed_elsewhere(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    generator: Any = page_async(dispatcher, 1, 2)
    assert await anext(generator) == 1

    async def close() -> None:
        await generator.aclose()
        assert dispatcher.emit("thing_happened", number=3).state == "done"
        assert CURRENT.get(None) is None

    await asyncio.create_task(close())
    # Here it cannot be undone, but the block is closed.
    assert dispatcher.emit("thing_happened", number=4).state == "done"
    assert heard == [3, 4]


async def test_an_async_generator_that_is_left_to_the_loop_drops_its_events(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    async def read_one() -> Emission[Any]:
        async for number in page_async(dispatcher, 1, 2):
            assert number == 1
            return dispatcher.emit("thing_happened", number=3)
        raise AssertionError

    emission = await asyncio.create_task(read_one())
    gc.collect()
    async with asyncio.timeout(LONG):
        await emission.done()
    assert emission.state == "dropped"
    check_clean(dispatcher, heard, [])


@pytest.mark.guarantee("B4")
@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("kind", ["background", "fails", "async"])
async def test_an_emission_that_another_thread_flushes_at_once_is_not_begun_twice(
    monkeypatch: pytest.MonkeyPatch, awaits: bool, kind: str
) -> None:
    """Its emitter leaves all that is left of it to whoever flushes it."""
    signals = SignalRegistry()
    dispatcher = EventDispatcher(signals)
    signal = signals.signal("thing_happened")
    calls: list[str] = []
    announced: list[str] = []
    signals.subscribe("handler_failed", lambda event_name: announced.append(event_name))

    def handler() -> None:
        calls.append(kind)
        if kind == "fails":
            raise ValueError

    async def handler_async() -> None:
        calls.append(kind)

    signals.subscribe(
        signal, handler_async if kind == "async" else handler, background=kind == "background"
    )
    hold = Deferral._hold

    def hold_then_flush(deferral: Deferral, *arguments: Any, **options: Any) -> bool:
        held = hold(deferral, *arguments, **options)
        thread = threading.Thread(target=deferral.flush)
        thread.start()
        thread.join()
        return held

    with dispatcher.deferred():
        monkeypatch.setattr(Deferral, "_hold", hold_then_flush)
        if awaits:
            await dispatcher.emit_async(signal)
        else:
            dispatcher.emit(signal)
    assert await dispatcher.drain_async(10)
    assert calls == [kind]
    assert announced == ["thing_happened"] * (kind == "fails")


@pytest.mark.guarantee("A3")
def test_a_handler_cannot_wait_for_what_goes_out_after_it() -> None:
    """The flush calls one after the other, so it would wait for ever."""
    signals = SignalRegistry()
    dispatcher = EventDispatcher(signals)
    first, second = signals.signal("first_thing"), signals.signal("second_thing")
    errors: list[Exception] = []
    later: list[Emission[Any]] = []

    def handler() -> None:
        with event_scope(request_id="r"):
            try:
                later[0].wait()
            except WouldDeadlockError as error:
                errors.append(error)

    signals.subscribe(first, handler)
    with dispatcher.deferred():
        dispatcher.emit(first)
        later.append(dispatcher.emit(second))
    assert len(errors) == 1
    assert later[0].state == "done"


async def test_an_async_handler_that_does_not_suspend_is_done_with_the_block(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    numbers: list[int] = []
    signals.signal("paid")

    async def note(number: int) -> None:
        numbers.append(number)

    signals.subscribe("paid", note)
    async with dispatcher.deferred():
        emission = await dispatcher.emit_async("paid", number=1)
        assert numbers == []
    assert numbers == [1]
    assert emission.state == "done"


# A scope for what a block emits, asked for by its first event


def scoped_block(way: Way, dispatcher: EventDispatcher, scope: Callable[[], Any]) -> Block:
    return Block(dispatcher.deferred(scope), is_async=way.is_async)


@pytest.mark.guarantee("B5")
@in_every_way
async def test_its_scope_is_asked_for_once_and_only_if_something_is_emitted(
    way: Way, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Then it is filled in where the emitter left it out, in threads of the block too."""
    asked: list[str] = []
    seen: list[tuple[Any, ...]] = []

    def scope() -> Any:
        asked.append("once")
        return {"request_id": f"r-{len(asked)}", "user_agent": None}

    @signals.signal("happened", context=Happened).on()
    def note(context: Happened) -> None:
        seen.append((context.request_id, context.ip_address, context.user_agent))

    async with scoped_block(way, dispatcher, scope):
        pass
    assert asked == []
    with event_scope(user_agent="around", ip_address="192.0.2.1"):
        async with scoped_block(way, dispatcher, scope):
            await way.emit(dispatcher, "happened")
            await way.emit_typed(dispatcher, "happened", Happened(request_id="given"))
            await asyncio.to_thread(dispatcher.emit, "happened")
            with event_scope(request_id="inner"):
                await way.emit(dispatcher, "happened")
        await way.emit(dispatcher, "happened")
    assert asked == ["once"]
    assert seen == [
        ("r-1", "192.0.2.1", None),
        ("given", "192.0.2.1", None),
        ("r-1", "192.0.2.1", None),
        ("inner", "192.0.2.1", None),
        (None, "192.0.2.1", "around"),
    ]


@pytest.mark.guarantee("B5")
def test_a_block_in_a_block_has_the_scopes_of_both(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """The inner one adds to the outer one, and overrides it; each is asked once."""
    signals.signal("happened", context=Happened)
    asked: list[str] = []

    def outer() -> Any:
        asked.append("outer")
        return {"request_id": "outer", "ip_address": "192.0.2.1"}

    with dispatcher.deferred(outer), dispatcher.deferred():
        for _ in range(2):
            with dispatcher.deferred(lambda: {"request_id": "inner"}):
                context = dispatcher.emit_typed("happened", Happened()).context
            assert (context.request_id, context.ip_address) == ("inner", "192.0.2.1")
    assert asked == ["outer"]


@pytest.mark.guarantee("B5")
def test_threads_that_ask_at_the_same_time_are_told_the_same(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Each asks, as nobody waits for another; the first answer counts."""
    signals.signal("happened", context=Happened)
    numbers = iter(range(8))
    together = threading.Barrier(8, timeout=LONG)

    def scope() -> Any:
        together.wait()
        return {"request_id": str(next(numbers))}

    emissions: list[Emission[Any]] = []
    with dispatcher.deferred(scope):
        threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(lambda: emissions.append(dispatcher.emit_typed("happened", Happened())),),
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({emission.context.request_id for emission in emissions}) == 1


@pytest.mark.guarantee("B5")
@pytest.mark.parametrize(
    "fields", [{"request": "1"}, {"request_id": 1}, None, [("request_id", "1")]]
)
def test_a_scope_that_does_not_fit_is_told_to_the_emitter(
    signals: SignalRegistry, dispatcher: EventDispatcher, fields: Any
) -> None:
    """Nothing is held back of that emission."""
    signals.signal("happened")
    with dispatcher.deferred(lambda: fields) as deferral:
        with pytest.raises(InvalidOptionError):
            dispatcher.emit("happened")
        assert deferral.pending == 0


@in_every_way
async def test_a_block_leaves_nothing_for_the_garbage_collector(
    way: Way, dispatcher: EventDispatcher
) -> None:
    """A server enters one for each of its requests."""
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            with event_scope(request_id="1"):
                async with scoped_block(way, dispatcher, dict):
                    pass
        assert gc.collect() == 0
    finally:
        gc.enable()


# A queue that is full


class Slow:
    """A background handler that works when it is let, and has begun with one event already."""

    def __init__(self, signals: SignalRegistry) -> None:
        self.has_begun = threading.Event()
        self.may_work = threading.Event()
        self.numbers: list[int] = []
        signals.signal("happened").subscribe(self.work, background=True)

    def work(self, number: int) -> None:
        self.has_begun.set()
        assert self.may_work.wait(LONG)
        self.numbers.append(number)

    def busy(self, signals: SignalRegistry, **options: Any) -> EventDispatcher:
        """Return a dispatcher whose only thread is at work, and whose queue has two places."""
        dispatcher = EventDispatcher(signals, queue_size=2, max_workers=1, **options)
        dispatcher.emit("happened", number=0)
        assert self.has_begun.wait(LONG)
        return dispatcher


@pytest.fixture
def slow(signals: SignalRegistry) -> Iterator[Slow]:
    slow = Slow(signals)
    yield slow
    slow.may_work.set()


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("ends", [True, False], ids=["at the end", "by flush_async"])
async def test_the_loop_waits_for_places_in_the_queue(
    signals: SignalRegistry, slow: Slow, ends: bool
) -> None:
    """Nothing is lost of what threads have emitted by `emit`, as a server's endpoints do."""
    dispatcher = slow.busy(signals)
    asyncio.get_running_loop().call_later(0.05, slow.may_work.set)
    async with dispatcher.deferred() as deferral:
        for number in range(1, 10):
            await asyncio.to_thread(dispatcher.emit, "happened", number=number)
        assert deferral.pending == 9
        if not ends:
            await deferral.flush_async()
            assert deferral.pending == 0
    assert await dispatcher.drain_async(LONG)
    assert slow.numbers == list(range(10))


@pytest.mark.guarantee("B1")
async def test_who_is_cancelled_while_waiting_for_places_is_cancelled(
    signals: SignalRegistry, slow: Slow
) -> None:
    """What finds no place by then is refused, as by `flush`, and no place is lost."""
    dispatcher = slow.busy(signals)

    async def work() -> None:
        async with dispatcher.deferred():
            for number in range(1, 6):
                dispatcher.emit("happened", number=number)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, HandlerErrors)
    slow.may_work.set()
    assert await dispatcher.drain_async(LONG)
    assert slow.numbers == [0, 1, 2]
    assert dispatcher._workers._backlog.take(2)


@pytest.mark.guarantee("B1")
async def test_places_for_handlers_that_went_away_while_it_waited_are_given_back(
    signals: SignalRegistry, slow: Slow
) -> None:
    """The queue is as large as ever, and nothing is called."""
    dispatcher = slow.busy(signals)
    for number in (1, 2):
        await dispatcher.emit_async("happened", number=number)

    async def work() -> None:
        async with dispatcher.deferred():
            dispatcher.emit("happened", number=3)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.1)
    signals["happened"].unsubscribe(slow.work)
    slow.may_work.set()
    await task
    assert await dispatcher.drain_async(LONG)
    assert 3 not in slow.numbers
    assert dispatcher._workers._backlog.take(2)


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("overflow", ["raise", "drop"])
async def test_only_a_queue_that_blocks_is_waited_for(
    signals: SignalRegistry, slow: Slow, overflow: Any
) -> None:
    """The other two do with what is too much what they always do."""
    dispatcher = slow.busy(signals, overflow=overflow)
    with pytest.raises(HandlerErrors) if overflow == "raise" else nullcontext():
        async with dispatcher.deferred():
            for number in range(1, 6):
                dispatcher.emit("happened", number=number)
    slow.may_work.set()
    assert await dispatcher.drain_async(LONG)
    assert slow.numbers == [0, 1, 2]


# A block that outlives its `with`


def test_a_detached_block_goes_on_in_its_context(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """Outside of that nothing is held back; its end lets out what was emitted before and in it."""
    with event_scope(request_id="1"):
        with dispatcher.deferred(lambda: {"ip_address": "192.0.2.1"}) as deferral:
            dispatcher.emit("thing_happened", number=1)
            context = deferral.detach()
            dispatcher.emit("thing_happened", number=2)
        assert heard == [2]
    assert CURRENT.get(None) is None
    emission = context.run(dispatcher.emit, "thing_happened", number=3)
    assert (emission.state, deferral.pending) == ("deferred", 2)
    assert emission.context["request_id"] == "1"
    assert emission.context["ip_address"] == "192.0.2.1"
    context.run(deferral.end)
    assert heard == [2, 1, 3]
    context.run(dispatcher.emit, "thing_happened", number=4)
    context.run(deferral.end)
    assert heard == [2, 1, 3, 4]
    assert CURRENT.get(None) is None


def test_a_detached_block_may_end_in_another_thread(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """As where one thread makes a response, and another sends it."""
    with dispatcher.deferred() as deferral:
        dispatcher.emit("thing_happened", number=1)
        context = deferral.detach()
    run_in_thread(lambda: context.run(deferral.end))
    assert heard == [1]


def test_several_detached_blocks_end_in_any_order(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """Each by itself, though one thread has begun them all."""
    blocks = []
    for number in (1, 2):
        with dispatcher.deferred() as deferral:
            dispatcher.emit("thing_happened", number=number)
            blocks.append((deferral, deferral.detach()))
    (first, first_context), (second, second_context) = blocks
    second_context.run(second.end)
    assert heard == [2]
    assert first.discard() == 1
    first_context.run(first.end)
    assert heard == [2]


async def test_a_block_that_raises_after_it_was_detached_has_failed(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """Whoever was to end it will not, it seems; in both forms of the block."""
    for is_async in (False, True):
        block = Block(dispatcher.deferred(), is_async=is_async)
        with pytest.raises(Failed):
            async with block as deferral:
                dispatcher.emit("thing_happened", number=1)
                deferral.detach()
                raise Failed
        assert (heard, deferral.pending) == ([], 0)


async def test_an_async_block_may_be_detached(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    async with dispatcher.deferred() as deferral:
        dispatcher.emit("thing_happened", number=1)
        context = deferral.detach()
    assert heard == []
    context.run(deferral.end)
    assert heard == [1]


def test_only_an_open_block_can_be_detached(dispatcher: EventDispatcher) -> None:
    """Not one that has not begun, has ended, is detached, or has another block in it."""
    deferral = dispatcher.deferred()
    refused = pytest.raises(RuntimeError, match="directly in its block")
    with refused:
        deferral.detach()
    with deferral:
        with event_scope(request_id="1"), refused:
            deferral.detach()
        context = deferral.detach()
        with refused:
            deferral.detach()
        with refused:
            context.run(deferral.detach)
    context.run(deferral.end)
    with refused:
        deferral.detach()


def test_a_block_that_was_ended_within_is_over(
    dispatcher: EventDispatcher, heard: list[int]
) -> None:
    """Its `with` has nothing more to do."""
    with dispatcher.deferred() as deferral:
        dispatcher.emit("thing_happened", number=1)
        deferral.end()
        assert heard == [1]
        dispatcher.emit("thing_happened", number=2)
        assert heard == [1, 2]
    assert CURRENT.get(None) is None


def test_what_its_scope_was_asked_of_is_not_kept(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Whoever keeps an emission keeps no request with it."""

    class Request: ...

    signals.signal("happened", context=Happened)
    request = Request()
    kept = weakref.ref(request)
    with dispatcher.deferred(lambda of=request: {"request_id": type(of).__name__}):
        emission = dispatcher.emit_typed("happened", Happened())
        del request
    assert kept() is None
    assert emission.context.request_id == "Request"
