"""Depth, ids and scopes of what a block held, and blocks of handlers (B4)."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EmissionDepthError,
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    SignalRegistry,
    current_event,
    event_scope,
)
from madcrow_events.emissions import ScopeFields
from support.blocks import LONG, Block, Failed, Happened, Way, in_both_forms, in_every_way

pytestmark = pytest.mark.guarantee("B4")


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
            await (await way.emit(other, outer, number=0)).wait_async()
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


def test_a_scope_that_emits_is_asked_once(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Its own event gets the fields around the block, and is held back as the others are."""
    asked: list[None] = []
    seen: list[tuple[str, str | None]] = []

    def note(emission: Emission[Any]) -> None:
        seen.append((emission.event, emission.fields.get("request_id")))

    def scope() -> ScopeFields:
        asked.append(None)
        dispatcher.emit("token_decoded")
        return {"request_id": "inner"}

    for name in ("order_placed", "token_decoded"):
        signals.signal(name)
        signals.subscribe(name, note)
    with event_scope(request_id="outer"), dispatcher.deferred(scope):
        dispatcher.emit("order_placed")
        assert not seen
    assert len(asked) == 1
    assert sorted(seen) == [("order_placed", "inner"), ("token_decoded", "outer")]
