"""Where an event was declared, as commands that list events ask for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    SignalRegistry,
    madcrow_signals,
)
from madcrow_events._places import Place
from madcrow_events.signals._registry import declared_at, is_declared_on_first_use
from support.executions import RUNS, Run
from support.explaining import handler

HERE = Path(__file__)


def line_of(signal: EventSignal[Any]) -> str:
    """Return the line of this file where an event was declared."""
    place = declared_at(signal)
    assert place is not None
    assert (place.file, place.module) == (str(HERE), __name__)
    return HERE.read_text().splitlines()[place.line - 1].strip()


def test_the_place_is_the_line_that_declares_it_first(signals: SignalRegistry) -> None:
    first = signals.signal("order_placed")
    again = signals.signal("order_placed")

    assert first is again
    assert line_of(first) == 'first = signals.signal("order_placed")'
    assert not is_declared_on_first_use(first)


def test_the_place_of_a_class_is_its_decorator(signals: SignalRegistry) -> None:
    @signals.event
    class OrderPlaced(BaseEventContext): ...

    @signals.event(name="order_lost")
    class Lost(BaseEventContext): ...

    assert line_of(signals[OrderPlaced]) == "@signals.event"
    assert line_of(signals[Lost]) == '@signals.event(name="order_lost")'


def test_the_place_of_an_event_of_a_group_is_in_the_group(signals: SignalRegistry) -> None:
    group = HandlerGroup("orders")
    group.signal("order_placed")
    group.register(signals)

    assert line_of(signals["order_placed"]) == 'group.signal("order_placed")'


def test_built_in_events_and_signals_made_by_hand_have_no_place(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed").subscribe(lambda: 1 / 0)
    signals.subscribe("handler_failed", handler())
    dispatcher.emit("order_placed")
    madcrow_signals.signal("user_logged_in")

    for signal in (
        *(madcrow_signals[name] for name in ("user_logged_in", "system_shutdown")),
        signals["handler_failed"],
        EventSignal("order_placed"),
    ):
        assert declared_at(signal) is None
        assert not is_declared_on_first_use(signal)


def test_an_event_that_was_only_used_is_known_as_such() -> None:
    """Until somebody declares it; an `isolated` block forgets that."""
    lenient = SignalRegistry(strict=False)
    EventDispatcher(lenient).emit("order_placed")
    lenient.subscribe("order_lost", handler())
    assert all(map(is_declared_on_first_use, lenient.values()))
    assert declared_at(lenient["order_placed"]) is None

    with lenient.isolated():
        declared = lenient.signal("order_placed")
        lenient.subscribe("order_placed", handler())
        assert line_of(declared) == 'declared = lenient.signal("order_placed")'
        assert not is_declared_on_first_use(declared)
    assert is_declared_on_first_use(declared)


def test_an_event_that_an_empty_block_set_aside_keeps_its_place(signals: SignalRegistry) -> None:
    placed = signals.signal("order_placed")
    with signals.isolated(empty=True):
        assert signals.signal("order_placed") is placed
        assert line_of(placed) == 'placed = signals.signal("order_placed")'


@pytest.mark.guarantee("N7")
@pytest.mark.parametrize("kind", RUNS)
def test_a_model_that_is_replaced_has_a_new_place(
    kind: type[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
from madcrow_events import BaseEventContext, madcrow_signals

@madcrow_signals.event
class OrderPlaced(BaseEventContext): ...
"""
    run = kind(tmp_path, monkeypatch)
    with madcrow_signals.isolated():
        run(source)
        first = declared_at(madcrow_signals["order_placed"])
        run("\n" + source)
        second = declared_at(madcrow_signals["order_placed"])

    assert isinstance(first, Place)
    assert isinstance(second, Place)
    assert (first.line, second.line) == (4, 5)
