"""Which subscriptions an event has in calling order, as commands that list them ask for it."""

from __future__ import annotations

from typing import Any

from madcrow_events import Batch, EventSignal, HandlerGroup, SignalRegistry
from madcrow_events.signals._explaining import calling_order, origin_of
from madcrow_events.testing import record_events
from support.explaining import handler
from support.subscribers import Sender


def test_the_order_is_that_of_the_calls_for_all_senders(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    async def wait() -> None: ...

    sender = Sender()
    signal.subscribe(handler(), background=True, id="background")
    signal.subscribe(lambda contexts: None, batch=Batch(), priority=1, id="batch")
    signal.subscribe(wait, id="awaited")
    signals.subscribe("thing_*", handler(), id="pattern")
    signal.subscribe(handler(), sender=sender, priority=1, id="of one sender")
    signal.subscribe(handler(), id="ended").cancel()

    with record_events(signal, signals=signals):
        order = calling_order(signal)

    assert [(it.id, mode) for it, mode in order] == [
        ("of one sender", "inline"),
        ("pattern", "inline"),
        ("awaited", "awaited"),
        ("batch", "batch"),
        ("background", "background"),
    ]


def test_an_event_without_handlers_calls_nobody(signal: EventSignal[Any]) -> None:
    assert calling_order(signal) == []


def test_the_origin_of_a_subscription_is_its_group(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    group = HandlerGroup("audit")
    group.on("thing_happened", priority=1)(handler())
    group.register(signals)
    signal.subscribe(handler())

    origins = [origin_of(signals, it) for it, _ in calling_order(signal)]

    assert origins == ["group audit", None]
