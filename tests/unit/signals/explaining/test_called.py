"""Who would be called for an event, in which order, and how (X1)."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    InvalidEventNameError,
    SignalRegistry,
    UnknownEventError,
    current_event,
    event_scope,
    madcrow_signals,
)
from madcrow_events.signals import CalledHandler
from support.explaining import called, handler, only, short
from support.subscribers import Sender
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("X1")


def test_the_called_stand_in_the_order_in_which_emit_calls_or_starts_them(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    async def awaited() -> None: ...
    async def awaited_first() -> None: ...

    signal.subscribe(lambda: None, background=True, id="background")
    signal.subscribe(lambda contexts: None, batch=Batch(), priority=1, id="batch")
    signal.subscribe(awaited)
    signal.subscribe(awaited_first, priority=1)
    signal.subscribe(lambda: None, priority=-1, id="last")
    signal.subscribe(lambda: None, id="second")
    signals.subscribe("thing_*", lambda: None, id="third")
    signal.subscribe(lambda: None, priority=9, id="first")

    explanation = signals.explain("thing_happened", number=1)

    assert [(short(it.name), it.mode) for it in explanation.called] == [
        ("first", "inline"),
        ("second", "inline"),
        ("third", "inline"),
        ("last", "inline"),
        ("awaited_first", "awaited"),
        ("awaited", "awaited"),
        ("batch", "batch"),
        ("background", "background"),
    ]
    assert explanation.left_out == ()
    assert explanation.has_context


def test_a_called_handler_shows_its_options(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    async def wait() -> None: ...

    signals.subscribe(
        "thing_*",
        wait,
        id="waits",
        priority=3,
        once=True,
        timeout=2.5,
        sender="web shop",
        on_error="raise",
    )

    (entry,) = signals.explain("thing_happened", sender="web shop", number=1).called

    assert entry == CalledHandler(
        name="waits",
        mode="awaited",
        priority=3,
        once=True,
        timeout=2.5,
        on_error="raise",
        id="waits",
        origin=None,
        sender="'web shop'",
        pattern="thing_*",
        depends_on_when=False,
    )


def test_a_group_is_named_as_the_origin(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    group = HandlerGroup("audit")
    group.on("thing_happened")(handler())
    group.register(signals)

    assert [it.origin for it in signals.explain(signal).called] == ["group audit"]


def test_nobody_is_called_claimed_or_logged(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []

    def note(number: int) -> None:
        seen.append(number)

    signal.subscribe(note, once=True)
    signal.subscribe(handler(), when=lambda context: context["lacking"])
    caplog.set_level(logging.DEBUG)
    caplog.clear()

    for _ in range(2):
        assert called(signals.explain("thing_happened", number=1)) == ["note"]

    assert seen == []
    assert caplog.records == []
    dispatcher.emit("thing_happened", number=1)
    assert seen == [1]


@pytest.mark.parametrize("event", ["thing_happened", "thing-happened"])
def test_an_event_is_given_by_its_name_in_any_spelling_or_by_its_signal(
    event: str, signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler())

    assert called(signals.explain(event)) == ["handle"]
    assert signals.explain(event) == signals.explain(signal)


def test_what_is_no_event_of_the_registry_is_the_usual_error(signals: SignalRegistry) -> None:
    with pytest.raises(UnknownEventError):
        signals.explain("unknown")
    with pytest.raises(InvalidEventNameError):
        signals.explain("thing_*")
    with pytest.raises(UnknownEventError, match="belongs to"):
        signals.explain(madcrow_signals["user_logged_in"])


def test_when_is_asked_with_the_context(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    signal.subscribe(handler(), when=lambda context: context["total"] > 3, id="big")
    signal.subscribe(handler(), when=lambda context: context["total"] <= 3, id="small")

    explanation = signals.explain(signal, total=5)

    assert called(explanation) == ["big"]
    assert not explanation.called[0].depends_on_when
    assert called(signals.explain(signal, total=3)) == ["small"]


def test_without_a_context_nothing_is_asked(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def take(number: int) -> None: ...

    def refuse(context: Mapping[str, Any]) -> bool:
        raise AssertionError

    signal.subscribe(take)
    signal.subscribe(handler(), when=refuse)

    with event_scope(request_id="r1"):
        explanation = signals.explain(signal)

    assert [it.depends_on_when for it in explanation.called] == [False, True]
    assert explanation.left_out == ()
    assert not explanation.has_context


@pytest.mark.guarantee("F6")
def test_no_lock_is_held_while_when_is_asked(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def subscribe_elsewhere(context: Mapping[str, Any]) -> bool:
        thread = threading.Thread(target=signals.subscribe, args=("thing_*", handler()))
        thread.start()
        thread.join(5)
        return not thread.is_alive()

    signal.subscribe(handler(), when=subscribe_elsewhere)

    assert called(signals.explain(signal, number=1)) == ["handle"]


@pytest.mark.usefixtures("threads_switch_often")
def test_other_threads_may_subscribe_and_cancel_meanwhile(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    over, has_begun = threading.Event(), threading.Barrier(5)

    def churn() -> None:
        for number in itertools.count():
            with signal.subscribe(handler()), signals.subscribe("thing_*", handler()):
                signal.subscribe(handler(), sender=Sender())
            if number == 4:  # then 60 subscriptions have ended
                has_begun.wait(LIMIT)
            if over.is_set():
                break

    signal.subscribe(handler(), id="stays")
    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    has_begun.wait(LIMIT)
    try:
        found = [signals.explain(signal, number=1) for _ in range(100)]
    finally:
        over.set()
        for thread in threads:
            thread.join()

    assert all("stays" in called(it) for it in found)
    assert max(len(it.left_out) for it in found) >= 16


def test_when_sees_the_emission_in_question_and_leaves_nothing_behind(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    seen: list[Any] = []

    def look(context: Mapping[str, Any]) -> bool:
        emission: Any = current_event()
        seen.append((emission.event, emission.sender, emission.context["number"], emission.parent))
        return True

    def ask(emission: Emission[Any]) -> None:
        assert called(signals.explain(signal, sender="shop", number=1)) == ["handle"]
        assert current_event() is emission

    signals.signal("outer").subscribe(ask)
    signal.subscribe(handler(), when=look)

    emission = dispatcher.emit("outer")

    emission.raise_for_failures()
    assert seen == [("thing_happened", "shop", 1, emission)]


def test_fields_of_a_scope_are_filled_in(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    def take(request_id: str) -> None: ...

    signal.subscribe(take)

    assert only(signals.explain(signal, number=1)).reason == "context"
    with event_scope(request_id="r1"):
        assert called(signals.explain(signal, number=1)) == ["take"]


def test_what_connect_takes_is_called_whatever_its_signature(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def receive(sender: Any, number: int) -> None: ...

    signal.connect(receive, weak=False)

    assert called(signals.explain(signal, other=1)) == ["receive"]
