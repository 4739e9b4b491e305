"""Subscriptions that no emission reaches (K1)."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import pytest

from madcrow_events import (
    ANY,
    Batch,
    EventDispatcher,
    HandlerSignatureError,
    InvalidOptionError,
    SignalRegistry,
)
from support.subscribers import Collector, OrderPlaced, Sender

pytestmark = pytest.mark.guarantee("K1")


@pytest.fixture
def signal(signals: SignalRegistry) -> Any:
    """Return an event with a model, which here takes the place of the one without."""
    return signals.signal("order_placed", context=OrderPlaced)


def send(order_id: int) -> None:
    """Send an invoice."""


async def send_async(order_id: int) -> None:
    """Send an invoice."""


def test_no_emission_reaches_it(signal: Any, dispatcher: EventDispatcher) -> None:
    """Nor does anything that lists handlers, or ends their subscriptions."""
    bound = signal.bind(send)
    told: list[Any] = []
    signal.receiver_connected.connect(lambda *_, **given: told.append(given), weak=False)

    emission = dispatcher.emit(OrderPlaced(order_id=7))

    assert (emission.results, emission.pending) == ((), 0)
    assert signal.subscriptions == ()
    assert not signal.receivers
    assert not signal.has_receivers_for(ANY)
    assert dispatcher.signals.explain("order_placed", order_id=7).called == ()
    assert not signal.unsubscribe(send)
    dispatcher.signals.clear_handlers()
    with dispatcher.signals.isolated():
        assert bound.active
    assert bound.active
    signal.bind(send)
    assert told == []


def test_its_id_and_options_conflict_with_nothing(signal: Any) -> None:
    subscribed = signal.subscribe(send, id="invoice")
    bound = [signal.bind(send, id="invoice", priority=number) for number in range(2)]
    assert [it.id for it in bound] == ["invoice", "invoice"]
    assert bound[0] is not bound[1]
    assert signal.subscriptions == (subscribed,)


def test_it_keeps_its_options_for_those_who_deliver(signal: Any) -> None:
    sender = Sender()

    def when(fields: Any) -> bool:
        return True

    options = {"priority": 3, "once": True, "timeout": 2.5, "id": "invoice", "on_error": "raise"}
    bound = signal.bind(send_async, sender=sender, when=when, weak=True, **options)

    assert {name: getattr(bound, name) for name in options} == options
    assert (bound.sender, bound.when, bound.weak) == (sender, when, True)
    assert (bound.handler, bound.name, bound.event) == (send_async, "invoice", "order_placed")
    assert (bound.background, bound.batch, bound.origin) == (False, None, None)
    assert signal.bind(send).sender is ANY


@pytest.mark.parametrize(
    ("handler", "options"),
    [
        (lambda total: None, {}),
        (lambda sender, other: None, {}),
        (7, {}),
        (send, {"timeout": 1}),
        (send, {"priority": "high"}),
        (send, {"when": 7}),
        (send, {"id": ""}),
        (send, {"prority": 7}),
        (partial(send), {"weak": "yes"}),
    ],
)
def test_it_is_checked_as_any_other(signal: Any, handler: Any, options: Any) -> None:
    """With the same errors."""
    with pytest.raises((HandlerSignatureError, InvalidOptionError)) as subscribing:
        signal.subscribe(handler, **options)
    with pytest.raises(type(subscribing.value)) as binding:
        signal.bind(handler, **options)
    assert str(binding.value) == str(subscribing.value)


@pytest.mark.parametrize("options", [{"background": True}, {"batch": ...}])
def test_it_cannot_run_later(signal: Any, options: dict[str, Any]) -> None:
    """It runs when somebody delivers to it."""
    (option,) = options
    given = {"batch": Batch(max_size=2)} if option == "batch" else options
    with pytest.raises(InvalidOptionError, match=f"leave out {option}") as refused:
        signal.bind(send, **given)
    assert refused.value.option == option
    assert signal.bind(send, background=False, batch=None).active


def test_it_ends_when_it_is_cancelled_or_its_handler_is_gone(signal: Any) -> None:
    """No table records that, because none knows of it."""
    with signal.bind(send, id="invoice") as bound:
        assert bound.active
        assert repr(bound).endswith(".send on order_placed, id='invoice' (bound)>")
    assert not bound.active
    assert repr(bound).endswith(".send on order_placed, id='invoice' (ended)>")
    bound.cancel()

    collector = Collector()
    method = signal.bind(collector.handle)
    assert (method.weak, method.active) == (True, True)
    del collector
    gc.collect()
    assert (method.handler, method.active) == (None, False)
    assert method.name.endswith("Collector.handle")
    assert signal._registry.explain("order_placed", order_id=7).left_out == ()


def test_it_holds_its_sender(signal: Any) -> None:
    """No emission asks for the sender, so its end is not that of the subscription."""
    bound = signal.bind(send, sender=Sender())
    gc.collect()
    assert bound.active
    assert type(bound.sender) is Sender
