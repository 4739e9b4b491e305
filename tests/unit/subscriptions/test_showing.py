"""What a subscription shows of itself, also when its handler is gone (X2)."""

from __future__ import annotations

import gc
from functools import partial, partialmethod
from typing import Any

import pytest

from madcrow_events import BaseEventContext, Batch, EventSignal, SignalRegistry

pytestmark = pytest.mark.guarantee("X2")


class Owner:
    def handle(self, **context: Any) -> None: ...

    async def handle_async(self) -> None: ...


def plain() -> None: ...


class Callable:
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Owner().handle, "Owner.handle"),
        (lambda: Callable(), "Callable"),
        (lambda: lambda: None, "<lambda>.<locals>.<lambda>"),
    ],
)
def test_a_handler_that_is_gone_keeps_its_name(
    signal: EventSignal[Any], make: Any, name: str
) -> None:
    """And is not called by the name of `None`."""
    handler = make()
    subscription = signal.subscribe(handler, weak=True)
    before = subscription.name
    assert before == f"{__name__}.{name}"
    del handler
    gc.collect()
    assert subscription.handler is None
    assert subscription.name == before
    assert repr(subscription).startswith(f"<Subscription {before} on thing_happened")
    assert repr(subscription).endswith(" (ended)>")


def test_a_partial_method_that_is_gone_keeps_its_name(signal: EventSignal[Any]) -> None:
    class Service:
        def handle(self, number: int, **context: Any) -> None: ...

        handle_one = partialmethod(handle, 1)

    service = Service()
    subscription = signal.subscribe(service.handle_one)
    before = subscription.name
    assert subscription.weak
    assert before.endswith("Service.handle")
    del service
    assert subscription.name == before


def is_big(context: Any) -> bool:
    return bool(context["big"])


async def awaited(context: BaseEventContext) -> None: ...


async def in_batches(batch: list[BaseEventContext]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "options", "shown"),
    [
        (plain, {}, ""),
        (plain, {"weak": None, "timeout": None, "when": None, "batch": None, "id": None}, ""),
        (plain, {"sender": "shop"}, "sender='shop'"),
        (plain, {"sender": 7}, "sender=7"),
        (plain, {"sender": None}, "sender=None"),
        (plain, {"sender": "x" * 100}, f"sender='{'x' * 59}..."),
        (plain, {"sender": "a\nb"}, r"sender='a\nb'"),
        (plain, {"sender": b"secret"}, "sender=<bytes object>"),
        (plain, {"sender": Owner}, "sender=Owner"),
        (plain, {"sender": EventSignal("shop_opened")}, "sender=the signal shop_opened"),
        (plain, {"priority": -3}, "priority=-3"),
        (plain, {"once": True}, "once=True"),
        (plain, {"when": is_big}, f"when={__name__}.is_big"),
        (plain, {"weak": True}, "weak=True"),
        (plain, {"weak": False}, ""),
        (plain, {"background": True}, "background=True"),
        (plain, {"id": "it's"}, 'id="it\'s"'),
        (plain, {"on_error": "raise"}, "on_error='raise'"),
        (awaited, {"timeout": 2.5}, "timeout=2.5"),
        (
            in_batches,
            {"batch": Batch(7), "id": "x"},
            "batch=Batch(max_size=7, max_wait=1.0), id='x'",
        ),
        (
            awaited,
            {"id": "mail", "priority": 1, "sender": "shop", "timeout": 3},
            "sender='shop', priority=1, timeout=3, id='mail'",
        ),
    ],
)
@pytest.mark.parametrize("event", ["thing_happened", "thing_*"])
def test_a_subscription_shows_handler_event_and_options_that_are_not_the_default(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    handler: Any,
    options: dict[str, Any],
    shown: str,
    event: str,
) -> None:
    """Also the part of a pattern for an event."""
    subscription = signals.subscribe(event, handler, **options)
    options_shown = f", {shown}" if shown else ""
    name = f"{__name__}.{handler.__name__}"
    assert repr(subscription) == f"<Subscription {name} on {event}{options_shown}>"
    assert (
        repr(signal.subscriptions[0]) == f"<Subscription {name} on thing_happened{options_shown}>"
    )


def test_a_subscription_shows_how_it_holds_a_method_and_its_sender(
    signal: EventSignal[Any],
) -> None:
    """Only where that is not the default; of a sender that is an object, only the type."""
    owner, sender = Owner(), Owner()
    weak = signal.subscribe(owner.handle, sender=sender)
    held = signal.subscribe(owner.handle_async, weak=False)
    name = f"<Subscription {__name__}.Owner"
    assert repr(weak) == f"{name}.handle on thing_happened, sender=<Owner object>>"
    assert repr(held) == f"{name}.handle_async on thing_happened, weak=False>"
    del sender
    assert repr(weak) == f"{name}.handle on thing_happened, sender=<gone> (ended)>"
    del owner, held
    assert repr(weak) == f"{name}.handle on thing_happened, sender=<gone> (ended)>"


def test_the_sender_of_a_subscription_is_not_asked(signal: EventSignal[Any]) -> None:
    """Its class may be a proxy's, and its `repr` may show anything (L2)."""

    class Secretive:
        def __repr__(self) -> str:
            raise AssertionError

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError

    sender = Secretive()
    assert "sender=<Secretive object>" in repr(signal.subscribe(partial(plain), sender=sender))
