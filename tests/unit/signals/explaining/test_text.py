"""An explanation reads well, and can be written as JSON (X1)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from madcrow_events import EventSignal, SignalRegistry
from support.explaining import handler
from support.subscribers import Sender

pytestmark = pytest.mark.guarantee("X1")


async def wait() -> None: ...


def test_an_explanation_reads_well(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    signal.subscribe(handler(), id="reserve", priority=10)
    signal.subscribe(wait, id="mail", once=True, timeout=5, on_error="raise", sender="web shop")
    signals.subscribe("thing_*", handler(), id="index", background=True)
    signals.subscribe("orders_*", handler(), id="orders")
    signal.subscribe(handler(), id="vip", when=lambda context: False)
    signal.subscribe(lambda total: total, id="count")
    signal.subscribe(handler(), id="old").cancel()

    explanation = signals.explain(signal, order_id=7)

    assert (
        str(explanation)
        == """\
thing_happened would call, in this order:
  1. reserve: inline, priority 10
  2. mail: async (awaited by emit_async, started by emit), once, timeout 5 s,
      failures are raised, for 'web shop' only
  3. index: background, by the pattern thing_*
Left out:
  - vip: its `when` says no
  - count: the context does not fit it: total: missing
  - orders (by the pattern orders_*): its pattern matches no declared event
Ended:
  - old: it was cancelled"""
    )
    assert repr(explanation) == "<Explanation of thing_happened, called: 3, left out: 4>"


def test_an_explanation_without_a_context_says_so(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    assert str(signals.explain(signal)) == "thing_happened would call nobody."
    signal.subscribe(handler(), id="vip", when=lambda context: False)
    assert str(signals.explain(signal)) == (
        "thing_happened would call, in this order:\n"
        "  1. vip: inline, depends on `when`\n"
        "Without a context, no `when` was asked, and no parameters were compared: give\n"
        "the context, as in explain(OrderPlaced(...)), to ask them."
    )


def test_the_lines_have_eighty_columns_and_no_value_of_the_context(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler(), id="n" * 128, sender="s" * 1000)
    signal.subscribe(lambda number, other: None)
    signal.subscribe(handler(), sender="t" * 1000).cancel()

    text = str(signals.explain(signal, number="hunter2"))

    assert max(map(len, text.splitlines())) <= 80
    assert "hunter2" not in text


def test_the_entries_can_be_written_as_json(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler(), id="counts", sender=Sender)
    signal.subscribe(handler(), id="old").cancel()
    explanation = signals.explain(signal)

    assert json.loads(json.dumps([it._asdict() for it in explanation.called])) == [
        {
            "name": "counts",
            "mode": "inline",
            "priority": 0,
            "once": False,
            "timeout": None,
            "on_error": None,
            "id": "counts",
            "origin": None,
            "sender": "Sender",
            "pattern": None,
            "depends_on_when": False,
        }
    ]
    assert json.loads(json.dumps([it._asdict() for it in explanation.left_out])) == [
        {
            "name": "old",
            "reason": "cancelled",
            "detail": "it was cancelled",
            "pattern": None,
            "has_ended": True,
        }
    ]
