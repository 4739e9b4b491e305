"""Why handlers of an event have ended, as far as the last of them tell (X1)."""

from __future__ import annotations

import gc
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from madcrow_events import EventDispatcher, EventSignal, SignalRegistry, madcrow_signals
from support.executions import RUNS, Run
from support.explaining import called, handler, left_out, only, short
from support.inside import table_of, tabling
from support.subscribers import Collector, Sender

pytestmark = pytest.mark.guarantee("X1")


def test_what_was_cancelled_is_told(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    with signal.subscribe(handler(), id="block"):
        pass
    signal.subscribe(handler(), id="cancelled").cancel()
    signals.subscribe("thing_*", handler(), id="pattern").cancel()
    receive = handler()
    signal.connect(receive)
    signal.disconnect(receive)
    signal.subscribe(handler(), id="cleared")
    signals.clear_handlers()

    explanation = signals.explain(signal)

    assert left_out(explanation) == dict.fromkeys(
        ["block", "cancelled", "pattern", "handle", "cleared"], "cancelled"
    )
    assert all(it.has_ended for it in explanation.left_out)
    assert explanation.left_out[0].detail == "it was cancelled"


def test_the_last_sixteen_are_told(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    for number in range(40):
        subscription = signal.subscribe(handler(), id=f"{number}")
        subscription.cancel()
        subscription.cancel()

    assert [it.name for it in signals.explain(signal).left_out] == [f"{n}" for n in range(24, 40)]


def test_a_once_that_is_used_up_is_told(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(handler(), once=True, id="own")
    signals.subscribe("thing_*", handler(), once=True, id="pattern")
    dispatcher.emit("thing_happened")

    assert left_out(signals.explain(signal)) == {"own": "once", "pattern": "once"}


class Owner:
    """Has methods, which are handlers."""

    def usual(self, **context: Any) -> None: ...

    def counted(self, number: int, **context: Any) -> None: ...

    first = partialmethod(counted, 1)


def test_what_was_collected_is_told_by_its_name(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    owner, receive = Owner(), handler()
    subscriptions = [signal.subscribe(owner.usual), signal.subscribe(owner.first)]
    signal.connect(receive)
    signals.subscribe("thing_*", Collector().handle, id="pattern")
    names = [it.name for it in subscriptions]
    del owner, receive
    gc.collect()

    explanation = signals.explain(signal)

    assert left_out(explanation) == dict.fromkeys(
        ["usual", "counted", "handle", "pattern"], "collected"
    )
    assert [it.name for it in subscriptions] == names, "a name stays when its handler is gone"
    assert [short(name) for name in names] == ["usual", "counted"]


def test_a_sender_that_is_gone_is_told(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    signal.subscribe(handler(), sender=Sender())

    assert only(signals.explain(signal)).reason == "sender_collected"


@pytest.mark.parametrize("kind", RUNS)
def test_what_a_later_execution_replaced_is_told(
    kind: type[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
from madcrow_events import madcrow_signals, on_event

madcrow_signals.signal("thing_happened")

@on_event("thing_happened")
def handle(**context): ...

@on_event("thing_*")
def handle_by_pattern(**context): ...
"""
    run = kind(tmp_path, monkeypatch)
    run(source)
    run(source)

    explanation = madcrow_signals.explain("thing_happened")

    assert called(explanation) == ["handle", "handle_by_pattern"]
    assert left_out(explanation) == {"handle": "replaced", "handle_by_pattern": "replaced"}


def test_what_an_isolated_block_ended_is_told_and_what_it_restored_is_not(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler(), id="before")
    signals.subscribe("thing_*", handler(), id="pattern before")
    with signals.isolated():
        signal.subscribe(handler(), id="cancelled")
        signals.subscribe("thing_*", handler(), id="pattern cancelled")
        signals.clear_handlers()
        signal.subscribe(handler(), id="to the end")
        signals.subscribe("thing_*", handler(), id="pattern to the end")

    explanation = signals.explain(signal)

    assert called(explanation) == ["before", "pattern before"]
    assert left_out(explanation) == {
        "cancelled": "cancelled",
        "pattern cancelled": "cancelled",
        "to the end": "isolated",
        "pattern to the end": "isolated",
    }


def test_what_a_block_leaves_in_place_pushes_nothing_out_of_the_record(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler(), id="old").cancel()
    for _ in range(20):
        signal.subscribe(handler())
        signals.subscribe("thing_*", handler())

    with signals.isolated():
        pass

    assert left_out(signals.explain(signal)) == {"old": "cancelled"}


def test_what_an_empty_isolated_block_began_without_is_told(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler(), id="before")
    signals.subscribe("thing_*", handler(), id="pattern before")
    with signals.isolated(empty=True):
        explanation = signals.explain(signals.signal("thing_happened"))
        assert left_out(explanation) == {"before": "isolated", "pattern before": "isolated"}
    explanation = signals.explain(signal)
    assert (called(explanation), explanation.left_out) == (["before", "pattern before"], ())


def test_what_is_kept_of_an_ended_handler_keeps_nothing_alive(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    gone: list[bool] = []

    class Handler:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            gone.append(True)

    signal.subscribe(Handler()).cancel()

    assert gone == [True]
    assert short(only(signals.explain(signal)).name) == "Handler"


def test_another_thread_may_add_an_ending_meanwhile(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    """Without the GIL, that disturbs the copy of a deque."""
    signal.subscribe(handler(), id="gone").cancel()
    table, changed = table_of(signal), {1: None}
    numbers = iter(changed)
    changed[2] = None
    copies: Any = map(next, iter([numbers, iter([table._endings])]))
    table._endings = SimpleNamespace(copy=copies.__next__)
    assert left_out(signals.explain(signal)) == {"gone": "cancelled"}


def test_an_interrupt_is_not_taken_for_that(
    signals: SignalRegistry, signal: EventSignal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabling, "is_interrupt", lambda error: True)
    table_of(signal)._endings = SimpleNamespace(copy=Mock(side_effect=RuntimeError))
    with pytest.raises(RuntimeError):
        signals.explain(signal)
