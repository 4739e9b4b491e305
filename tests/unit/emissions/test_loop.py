"""Order, results, snapshots and locks, in every way of emitting (E2, F4, F6, H5)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from types import MappingProxyType
from typing import Any

import pytest

from madcrow_events import Emission, EventSignal, SignalRegistry, current_event
from support.outcomes import values
from support.ways import Happened, Way, finished, in_every_way

# Order, results and what an emission tells


@pytest.mark.guarantee("H5")
@in_every_way
async def test_handlers_run_by_priority_and_then_in_order_of_registration(way: Way) -> None:
    calls: list[str] = []

    def noting(name: str) -> Any:
        async def body(emission: Emission[Any]) -> str:
            calls.append(name)
            return name

        return way.handler(body)

    way.signal.subscribe(noting("b"))
    way.signal.subscribe(noting("last"), priority=-1)
    way.signal.subscribe(noting("first"), priority=10)
    way.signal.subscribe(noting("c"))
    emission = await way.emit()
    assert calls == values(emission) == ["first", "b", "c", "last"]


@pytest.mark.guarantee("A1")
@in_every_way
async def test_plain_handlers_come_first_whatever_their_priority(way: Way) -> None:
    calls: list[str] = []

    def noting(name: str) -> Any:
        async def body(emission: Emission[Any]) -> str:
            calls.append(name)
            return name

        return way.handler(body)

    def plain(name: str) -> Any:
        return lambda: calls.append(name) or name

    way.signal.subscribe(noting("low"))
    way.signal.subscribe(plain("plain low"))
    way.signal.subscribe(plain("plain middle"), priority=5)
    way.signal.subscribe(noting("high"), priority=10)
    emission = await way.emit()
    assert calls == values(emission)
    if way.kind.is_async:
        assert calls == ["plain middle", "plain low", "high", "low"]
    else:
        assert calls == ["high", "plain middle", "low", "plain low"]


@pytest.mark.guarantee("E2")
@in_every_way
async def test_an_emission_tells_all_about_itself(way: Way) -> None:
    seen: list[Emission[Any]] = []

    async def body(emission: Emission[Any]) -> str:
        seen.append(emission)
        assert current_event() is emission
        return "value"

    handler = way.handler(body)
    way.signal.subscribe(handler)
    emission = await way.emit(number=7)
    assert seen == [emission]
    assert emission.event == "thing_happened"
    assert emission.signal is way.signal
    assert emission.sender is way.signal
    assert emission.dispatcher is way.dispatcher
    assert (emission.parent, emission.depth) == (None, 0)
    assert emission.ok
    assert emission.results == ((handler, "value"),)
    assert emission.results[0].handler is handler
    assert emission.failures == ()
    assert emission.pending == 0
    assert emission.wait(timeout=5)
    assert current_event() is None
    if way.kind.typed:
        assert isinstance(emission.context, Happened)
        assert emission.context.number == 7
    else:
        assert type(emission.context) is MappingProxyType
        assert emission.context == {"number": 7}
    assert repr(emission) == "<Emission thing_happened, results: 1, failures: 0>"


@pytest.mark.guarantee("E2")
@in_every_way
async def test_an_emission_that_nobody_hears_is_whole_too(way: Way) -> None:
    emission = await way.emit(sender="me")
    assert emission.ok
    assert (emission.results, emission.failures, emission.pending) == ((), (), 0)
    assert emission.sender == "me"
    way.signal.subscribe(way.returning("muted"))
    with way.signal.muted():
        assert (await way.emit()).results == ()


@pytest.mark.guarantee("E2")
@in_every_way
async def test_nested_emissions_know_their_parents(way: Way) -> None:
    seen: list[Any] = []

    async def inner(emission: Emission[Any]) -> None:
        seen.append((emission.event, emission.depth, emission.parent))
        assert current_event() is emission

    async def outer(emission: Emission[Any]) -> Any:
        nested = await way.emit_inside("other_thing")
        assert current_event() is emission
        assert nested.parent is emission
        return "outer"

    way.other.subscribe(way.handler(inner))
    way.signal.subscribe(way.handler(outer))
    way.signal.subscribe(way.handler(outer))
    emission = await way.emit()
    assert values(emission) == ["outer", "outer"]
    assert seen == [("other_thing", 1, emission)] * 2
    assert current_event() is None


@pytest.mark.guarantee("F5")
@in_every_way
async def test_depth_counts_unfinished_ancestors_only(way: Way) -> None:
    contexts: list[contextvars.Context] = []

    async def body(emission: Emission[Any]) -> None:
        contexts.append(contextvars.copy_context())

    way.signal.subscribe(way.handler(body))
    await way.emit()
    inherited = contexts[0]
    assert inherited.run(current_event) is None
    if way.kind.awaits:
        task = asyncio.get_running_loop().create_task(way.emit(), context=inherited)
        later = await task
    else:
        later = inherited.run(finished, way.emit())
    assert (later.depth, later.parent) == (0, None)


# Snapshots


@pytest.mark.guarantee("F4")
@in_every_way
async def test_an_emission_calls_nobody_who_came_after_it_began(way: Way) -> None:
    late = way.returning("late")

    async def first(emission: Emission[Any]) -> str:
        way.signal.subscribe(late)
        return "first"

    way.signal.subscribe(way.handler(first))
    assert values(await way.emit()) == ["first"]
    assert values(await way.emit()) == ["first", "late"]


@pytest.mark.guarantee("F4")
@in_every_way
async def test_a_handler_may_cancel_itself_and_others(way: Way) -> None:
    async def first(emission: Emission[Any]) -> str:
        mine.cancel()
        other.cancel()
        return "first"

    mine = way.signal.subscribe(way.handler(first))
    other = way.signal.subscribe(way.returning("other"))
    emission = await way.emit()
    assert values(emission)[0] == "first"
    assert emission.ok
    assert (await way.emit()).results == ()


# Locks


def locks_are_free(signals: SignalRegistry) -> bool:
    """Tell whether another thread can change what is subscribed and declared."""

    def use() -> None:
        signals.subscribe("thing_happened", lambda: None, sender="nobody").cancel()
        signals.signal("declared_meanwhile")
        signals.subscribe("z*", lambda: None).cancel()
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=use)
    thread.start()
    thread.join(timeout=5)
    return bool(done)


@pytest.mark.guarantee("F6")
@in_every_way
async def test_no_lock_is_held_while_a_handler_or_a_predicate_runs(way: Way) -> None:
    async def body(emission: Emission[Any]) -> bool:
        return locks_are_free(way.signals)

    way.signal.subscribe(way.handler(body), when=lambda context: locks_are_free(way.signals))
    way.signal.subscribe(way.handler(body), once=True)
    assert values(await way.emit()) == [True, True]


@pytest.mark.guarantee("F6")
def test_no_lock_is_held_while_a_send_runs(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(lambda: locks_are_free(signals), when=lambda context: locks_are_free(signals))
    signal.subscribe(lambda: locks_are_free(signals), once=True)
    assert [value for _, value in signal.send()] == [True, True]
