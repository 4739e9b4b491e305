"""A wrong first line is told what to write instead (E4, E5, H1, H8, N9, N10)."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import madcrow_events
from madcrow_events import MadcrowEventsError

RIGHT = """
from madcrow_events import *

@madcrow_signals.event
class OrderPlaced(BaseEventContext):
    order_id: int

class Seen(BaseEventContext):
    order_id: int

order_placed = madcrow_signals[OrderPlaced]
first_seen = madcrow_signals.signal("first_seen", context=Seen)
last_seen = madcrow_signals.signal("last_seen", context=Seen)
others = SignalRegistry()
foreign = others.signal("order_placed", context=OrderPlaced)
dispatcher = get_event_dispatcher()
"""

WRONG = {
    # A class in the place of an instance.
    "emit_event(OrderPlaced)": "in the place of a context: write OrderPlaced(...)",
    "order_placed.emit(OrderPlaced)": "emit_typed('order_placed', OrderPlaced(...))",
    # A context beside the name.
    "emit_event('order_placed', OrderPlaced(order_id=7))": "or emit(context) without the name",
    "emit_event('order_placed', context=OrderPlaced(order_id=7))": (
        "write emit_event(OrderPlaced(...)) without the name"
    ),
    # Keywords beside the context.
    "emit_event(OrderPlaced(order_id=7), order_id=8)": (
        "write all that it carries into the context, OrderPlaced(...)"
    ),
    # A context of several events, or of none.
    "emit_event(Seen(order_id=7))": "say which, as in emit_typed('first_seen', Seen(...))",
    "emit_event(BaseEventContext())": "put the registry's decorator above the class, as in @madcr",
    "madcrow_signals[Seen]": "say which, as in emit_typed('first_seen', Seen(...))",
    # A signal without its context.
    "order_placed.emit()": "write order_placed.emit(OrderPlaced(...))",
    "order_placed.emit(order_id=7)": "write order_placed.emit(OrderPlaced(...))",
    "order_placed.emit('order_placed', order_id=7)": "write order_placed.emit(OrderPlaced(...))",
    # A signal of another registry.
    "dispatcher.emit(foreign, order_id=7)": "use the signal with its own registry, or give the na",
    "dispatcher.emit_typed(foreign, OrderPlaced(order_id=7))": "use the signal with its own regis",
    "on_event(foreign)": "use the signal with its own registry, or give the name",
    # A decorator without its parentheses.
    "@order_placed.on\ndef handler(): ...": "write @...on()",
    "@on_event\ndef handler(): ...": "as a decorator, write @...('event_name')",
    "@on_event\nclass Sent(BaseEventContext): ...\nSent()": (
        "write @madcrow_signals.event to declare its event"
    ),
    # A decorator above the wrong thing.
    "@on_event(OrderPlaced)\nclass Sent(BaseEventContext): ...": (
        "to declare the event that it stands for, write @madcrow_signals.event above it"
    ),
    "@madcrow_signals.event\ndef handler(): ...": "stands above a class that derives from BaseEv",
    "@madcrow_signals.event\nclass Sent: ...": "stands above a class that derives from BaseEventC",
    "@madcrow_signals.event('sent')\nclass Sent(BaseEventContext): ...": (
        "@madcrow_signals.event(name='order_placed')"
    ),
    # An instance in the place of a class.
    "on_event(OrderPlaced(order_id=7))": "not by a context: give OrderPlaced",
}

ASYNC = [line for line in WRONG if "emit" in line.partition("(")[0]]


@pytest.fixture
def namespace() -> dict[str, Any]:
    known: dict[str, Any] = {"__name__": "shop"}
    exec(RIGHT, known)  # noqa: S102  # it stands above
    return known


@pytest.mark.guarantee("E4")
@pytest.mark.guarantee("E5")
@pytest.mark.guarantee("H1")
@pytest.mark.guarantee("N9")
@pytest.mark.guarantee("N10")
@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_first_line_is_told_what_to_write(namespace: dict[str, Any], line: str) -> None:
    with pytest.raises(MadcrowEventsError, match=re.escape(WRONG[line])) as caught:
        exec(line.replace("=7", "=98765"), namespace)  # noqa: S102  # it stands above
    assert "98765" not in str(caught.value), "a value is shown"


@pytest.mark.guarantee("E4")
@pytest.mark.parametrize("line", ASYNC)
def test_so_it_is_where_async_handlers_are_awaited(namespace: dict[str, Any], line: str) -> None:
    called, parenthesis, rest = line.partition("(")
    with pytest.raises(MadcrowEventsError, match=re.escape(WRONG[line])):
        asyncio.run(eval(f"{called}_async{parenthesis}{rest}", namespace))  # noqa: S307  # as above


def test_the_right_lines_are_right(namespace: dict[str, Any]) -> None:
    for line in (
        "emit_event(OrderPlaced(order_id=7))",
        "order_placed.emit(OrderPlaced(order_id=7))",
    ):
        assert eval(line, namespace).ok  # noqa: S307  # it stands here
    assert madcrow_events.madcrow_signals["order_placed"].doc is None
