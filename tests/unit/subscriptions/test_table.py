"""A handler may have an id, unique within its event or pattern (H7)."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    SignalRegistry,
    SubscriptionConflictError,
    TimingObserver,
)
from support.inside import table_of, tabling
from support.outcomes import logged
from support.ways import Way, in_every_way


def first() -> None: ...


def second() -> None: ...


@pytest.mark.guarantee("H7")
@pytest.mark.parametrize("event", ["ping", "pi*"])
def test_an_id_is_unique_within_its_event_or_pattern(signals: SignalRegistry, event: str) -> None:
    signals.signal("ping")
    signals.signal("pong")
    subscription = signals.subscribe(event, first, id="mail")
    assert subscription.id == subscription.name == "mail"
    assert repr(subscription) == f"<Subscription {__name__}.first on {event}, id='mail'>"
    assert signals.subscribe(event, first, id="mail") is subscription
    whose = rf"^id 'mail' of {re.escape(event)} is that of {__name__}\.first"
    with pytest.raises(
        SubscriptionConflictError,
        match=rf"{whose}: give {__name__}\.second another, or cancel that subscription first$",
    ):
        signals.subscribe(event, second, id="mail")
    with pytest.raises(
        SubscriptionConflictError,
        match=f"{whose} for another sender: give it another id for this sender, or cancel that",
    ):
        signals.subscribe(event, first, id="mail", sender="me")
    for other in ("letter", None):
        with pytest.raises(SubscriptionConflictError, match="with other options"):
            signals.subscribe(event, first, id=other)
    assert signals.subscribe(event, second, id="letter").active
    assert signals.subscribe("pong", second, id="mail").active
    assert signals.subscribe("po*", second, id="mail").active
    subscription.cancel()
    assert signals.subscribe(event, second, id="mail", sender="me").active


@pytest.mark.guarantee("H7")
def test_a_pattern_and_an_event_may_have_one_id(signals: SignalRegistry) -> None:
    signals.signal("ping")
    signals.subscribe("ping", first, id="mail")
    signals.subscribe("*", second, id="mail")
    signals.subscribe("p*", second, id="mail")
    assert [it.id for it in signals["ping"].subscriptions] == ["mail"] * 3


@pytest.mark.guarantee("H7")
@pytest.mark.parametrize("event", ["ping", "pi*"])
def test_an_isolated_block_gives_ids_back(signals: SignalRegistry, event: str) -> None:
    signals.signal("ping")
    subscription = signals.subscribe(event, first, id="mail")
    with signals.isolated():
        subscription.cancel()
        signals.subscribe(event, second, id="mail")
    assert signals.subscribe(event, first, id="mail") is subscription
    with pytest.raises(SubscriptionConflictError):
        signals.subscribe(event, second, id="mail")


@pytest.mark.guarantee("H7")
def test_an_id_is_free_again_once_its_handler_was_called(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signal = signals.signal("ping")
    for handler in (first, second):
        signal.subscribe(handler, id="mail", once=True)
        assert dispatcher.emit("ping").results


@pytest.mark.guarantee("H7")
@in_every_way
async def test_the_log_names_a_handler_by_its_id(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    way.signal.subscribe(way.failing(), id="mail")
    emission = await way.emit()
    assert [emission.name_of(failure.handler) for failure in emission.failures] == ["mail"]
    assert logged(caplog)[0].startswith(f"handler mail of {way.signal.name} ")


@pytest.mark.guarantee("H7")
def test_records_and_metrics_name_a_handler_by_its_id(
    signals: SignalRegistry, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    timing = TimingObserver()
    dispatcher.add_observer(timing)
    signals.signal("ping")
    told: list[str] = []

    def fail(*_: Any) -> None:
        raise ValueError

    signals.subscribe("ping", fail, id="mail")
    signals.subscribe("ping", lambda contexts: fail(), id="digest", batch=Batch(max_wait=0.01))
    signals.subscribe("handler_failed", lambda handler_name: told.append(handler_name), id="note")
    dispatcher.emit("ping")
    assert dispatcher.drain(timeout=10)
    assert sorted(told) == ["digest", "mail"]
    assert {it.handler for it in timing.snapshot().handlers} == {"mail", "digest", "note"}
    messages = [record.getMessage() for record in caplog.records]
    assert "mail subscribed to ping" in messages
    assert any(it.startswith("handler mail of ping raised after") for it in messages)
    assert any(it.startswith("handler digest of ping in a batch of 1") for it in messages)


@pytest.mark.guarantee("H7")
@pytest.mark.parametrize("value", ["", "a\nb", "x" * 129, 7, b"mail"])
def test_an_id_that_no_log_could_show_is_refused(signals: SignalRegistry, value: Any) -> None:
    signals.signal("ping")
    with pytest.raises(InvalidOptionError, match="such as 'welcome-mail'"):
        signals.subscribe("ping", first, id=value)


@pytest.mark.guarantee("H6")
def test_a_handler_that_is_cancelled_while_a_plan_is_made_is_not_in_the_next(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, or a finalizer: neither waits for the table's lock."""

    def plan_calls(subscriptions: Any) -> Any:
        plan = real(subscriptions)
        subscription.cancel()
        return plan

    real = tabling.plan_calls
    monkeypatch.setattr(tabling, "plan_calls", plan_calls)
    subscription = signal.subscribe(first)
    dispatcher.emit(signal)
    assert dispatcher.emit(signal).results == ()


@pytest.mark.guarantee("F3")
def test_a_cancelled_subscription_whose_taking_out_is_broken_off_is_taken_out_later(
    signal: EventSignal[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget_id(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    subscription = signal.subscribe(first, id="mail")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tabling, "forget_id", forget_id)
        subscription.cancel()
    assert signal.subscriptions == ()
    assert not table_of(signal)._ids


def test_a_note_about_a_subscription_that_is_active_again_changes_nothing(
    signals: SignalRegistry,
) -> None:
    """An `isolated` block may restore what was noted in it, before the note is read."""
    subscription = signals.subscribe(signals.signal("ping"), first)
    table = table_of(signals["ping"])
    table._stale.append(subscription)
    table._sweep_if_free()
    assert not table._stale
    assert signals["ping"].subscriptions == (subscription,)
