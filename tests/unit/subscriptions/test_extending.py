"""A plan to which one subscription is added at the end is extended, and not built again (N6)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import EventDispatcher, SignalRegistry
from madcrow_events.testing import fake_events
from support.inside import table_of, tabling
from support.subscribers import Collector, OrderPlaced


def plain(sender: Any, **_context: Any) -> str:
    return "plain"


async def awaited() -> str:
    return "awaited"


WAYS: dict[str, Callable[[Any], Any]] = {
    "keywords": lambda signal: signal.subscribe(lambda sender, **context: None),
    "nothing": lambda signal: signal.subscribe(lambda: None),
    "method": lambda signal: signal.subscribe(Collector().handle, weak=False),
    "first": lambda signal: signal.subscribe(lambda: None, priority=5),
    "last": lambda signal: signal.subscribe(lambda: None, priority=-5),
    "once": lambda signal: signal.subscribe(lambda: None, once=True, when=lambda _: False),
    "named": lambda signal: signal.subscribe(lambda: None, id=f"n{len(signal.subscriptions)}"),
    "async": lambda signal: signal.subscribe(lambda: awaited(), background=True),
    "awaited": lambda signal: signal.subscribe(made_async()),
    "background": lambda signal: signal.subscribe(lambda: None, background=True),
    "sender": lambda signal: signal.subscribe(lambda: None, sender="me"),
    "connected": lambda signal: signal.connect(lambda sender, **context: None, weak=False),
}


def made_async() -> Any:
    async def handler() -> None:
        return None

    return handler


def shown(plan: Any) -> Any:
    return (
        [it._order for it in plan.subscriptions],
        [it._order for it in plan.by_priority],
        [(style, len(calls)) for style, calls in plan.segments],
        [(style, len(calls)) for style, calls in plan.to_await],
        (plan.inline, plan.awaited, plan.queued, len(plan.pending), plan.later),
        [entry.subscription._order for entry in plan.entries],
        [plan.name_of(it.handler) for it in plan.subscriptions],
    )


@pytest.mark.guarantee("N6")
@pytest.mark.parametrize("ways", [*itertools.permutations(WAYS, 2)], ids="-".join)
def test_an_extended_plan_is_the_one_that_would_be_built(
    signals: SignalRegistry, ways: tuple[str, ...]
) -> None:
    signal = signals.signal("order_placed", context=OrderPlaced)
    table = table_of(signal)
    signal.subscribe(plain)

    for way in (*ways, *ways):
        table.plan_for("you")
        WAYS[way](signal)
        found = table.plan_for("you")
        table.plans = tabling.STALE

        assert shown(found) == shown(table.plan_for("you")), way


def test_it_is_extended_indeed(signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else thousands of subscriptions in turn with emissions would take minutes."""
    calls: list[int] = []
    signal = signals.signal("order_placed")
    emit = EventDispatcher(signals).emit
    signal.subscribe(lambda: calls.append(0))
    emit("order_placed")
    monkeypatch.setattr(tabling, "plan_calls", None)

    for number in range(1, 4):
        signal.subscribe(lambda number=number: calls.append(number))  # type: ignore[call-overload]
        calls.clear()
        emit("order_placed")

    assert calls == [0, 1, 2, 3]


@pytest.mark.guarantee("F4")
def test_one_that_ends_while_another_is_added_is_called_no_more(
    signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    signal = signals.signal("order_placed")
    emit = EventDispatcher(signals).emit
    ending = signal.subscribe(lambda: calls.append("ended"))
    emit("order_placed")
    calls.clear()
    comes_last = tabling.comes_last

    def end_meanwhile(*arguments: Any) -> bool:
        """Do the first steps of a `cancel` in another thread, which take no lock."""
        ending._active = False
        table_of(signal).plans = tabling.STALE
        return comes_last(*arguments)

    monkeypatch.setattr(tabling, "comes_last", end_meanwhile)
    signal.subscribe(lambda: calls.append("added"))
    emit("order_placed")

    assert calls == ["added"]


@pytest.mark.guarantee("F4")
def test_one_that_ends_after_another_was_added_is_called_no_more(signals: SignalRegistry) -> None:
    calls: list[str] = []
    signal = signals.signal("order_placed")
    emit = EventDispatcher(signals).emit
    first = signal.subscribe(lambda: calls.append("first"))
    emit("order_placed")
    added = signal.subscribe(lambda: calls.append("added"))
    calls.clear()

    first.cancel()
    emit("order_placed")
    assert calls == ["added"]

    added.cancel()
    emit("order_placed")
    assert calls == ["added"]


def test_a_block_that_fakes_the_event_begins_between_the_two(signals: SignalRegistry) -> None:
    calls: list[str] = []
    signal = signals.signal("order_placed")
    emit = EventDispatcher(signals).emit
    signal.subscribe(lambda: calls.append("first"))
    emit("order_placed")
    signal.subscribe(lambda: calls.append("second"))
    calls.clear()

    with fake_events(signals=signals):
        emit("order_placed")
        signal.subscribe(lambda: calls.append("third"))
        emit("order_placed")
    assert calls == []

    emit("order_placed")
    assert calls == ["first", "second", "third"]


def test_a_block_after_an_addition_restores_nothing_if_nothing_has_changed(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signal = signals.signal("thing_happened")
    for _ in range(2):
        signal.subscribe(lambda: None)
        dispatcher.emit(signal)
    signal.subscribe(lambda: None)
    saved = table_of(signal).saved()
    dispatcher.emit(signal)
    assert table_of(signal).plans is saved.plans
