"""Blocks hold emissions back until what they announce has succeeded (B4)."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    LoginEventContext,
    SignalRegistry,
    UnknownEventError,
    WouldDeadlockError,
    emit_event,
    emit_event_async,
    emit_login_event,
    get_event_dispatcher,
    on_event,
)
from support.blocks import LONG, Failed, Happened, Way, in_both_forms, in_every_way
from support.inside import current_frame

pytestmark = pytest.mark.guarantee("B4")


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
    assert current_frame() is None


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
    assert current_frame() is None


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
    await emission.wait_async()


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
            await emission.wait_async()
        assert not emission.wait(0)
    assert emission.wait(0)
    assert emission.wait()
    await emission.wait_async()


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
        emission._values.waiters._look_every = 2 * LONG  # it is told, and does not find out
        thread = threading.Thread(target=wait)
        thread.start()
        while not emission._values.waiters._callbacks:
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
        await emission.wait_async()
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
        emission._values.waiters._look_every = 2 * LONG  # as above
        thread = threading.Thread(target=lambda: waited.append(emission.wait(2 * LONG)))
        thread.start()
        while not emission._values.waiters._callbacks:
            pass
        deferral.discard()
        thread.join(LONG)
        assert waited == [True]
