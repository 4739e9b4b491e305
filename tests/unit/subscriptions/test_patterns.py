"""Patterns: one handler for many events (N4)."""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    HandlerSignatureError,
    InvalidEventNameError,
    LoginEventContext,
    SignalRegistry,
    SubscriptionConflictError,
    on_event,
)
from madcrow_events.subscriptions import PatternSubscription
from support.inside import declared_in, table_of, tabling


@pytest.fixture
def heard() -> list[Any]:
    return []


@pytest.fixture
def shop(signals: SignalRegistry) -> SignalRegistry:
    for name in ("shop.order_placed", "shop.order_paid", "account_closed"):
        signals.signal(name)
    return signals


@pytest.mark.guarantee("N4")
def test_a_pattern_catches_present_and_later_events(
    shop: SignalRegistry, dispatcher: EventDispatcher, heard: list[Any]
) -> None:
    subscription = shop.subscribe("shop.*", lambda sender, **context: heard.append(str(sender)))
    assert isinstance(subscription, PatternSubscription)
    assert subscription.event == "shop.*"
    shop.signal("shop.back.returned")
    shop.signal("shopping")
    for name in list(shop):
        dispatcher.emit(name)
    assert heard == ["shop.order_placed", "shop.order_paid", "shop.back.returned"]


@pytest.mark.guarantee("N4")
def test_a_star_crosses_dots_and_skips_handler_failed(
    shop: SignalRegistry, dispatcher: EventDispatcher, heard: list[Any]
) -> None:
    @on_event("*", signals=shop)
    def handler(emission: Emission[Any]) -> None:
        heard.append(emission.event)
        raise ValueError

    shop.signal("handler_failed")
    for name in ("shop.order_placed", "account-closed"):
        assert len(dispatcher.emit(name).failures) == 1
    assert heard == ["shop.order_placed", "account_closed"]


@pytest.mark.guarantee("N4")
def test_once_is_once_over_all_events(
    shop: SignalRegistry, dispatcher: EventDispatcher, heard: list[Any]
) -> None:
    subscription = shop.subscribe("*", lambda sender, **_: heard.append(str(sender)), once=True)
    for name in list(shop):
        dispatcher.emit(name)
    assert heard == ["shop.order_placed"]
    assert not subscription.active
    assert not any(signal.subscriptions for signal in declared_in(shop))
    shop.signal("later")
    dispatcher.emit("later")
    assert len(heard) == 1


@pytest.mark.guarantee("N4")
def test_cancelling_a_pattern_ends_it_for_every_event(shop: SignalRegistry) -> None:
    with shop.subscribe("*", lambda: None) as subscription:
        assert all(signal.subscriptions for signal in declared_in(shop))
    assert not subscription.active
    assert not any(signal.subscriptions for signal in declared_in(shop))
    assert not shop._patterns.live()


@pytest.mark.guarantee("N4")
def test_a_pattern_is_unsubscribed_by_its_own_text(shop: SignalRegistry) -> None:
    def handler() -> None: ...

    shop.subscribe("shop-*", handler)
    assert shop.unsubscribe("shop.*", handler) is False
    assert shop.unsubscribe("shop_*", print) is False
    assert shop.unsubscribe("shop_*", handler) is True
    assert shop.unsubscribe("shop_*", handler) is False


@pytest.mark.guarantee("N4")
def test_a_pattern_keeps_its_place_in_the_order(
    shop: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    shop.subscribe("*", lambda: "first pattern")
    shop.subscribe("*", lambda: "urgent", priority=1)
    late = shop.signal("late")
    late.subscribe(lambda: "direct")
    shop.subscribe("l*", lambda: "second pattern")
    values = [result.value for result in dispatcher.emit("late").results]
    assert values == ["urgent", "first pattern", "direct", "second pattern"]


@pytest.mark.guarantee("N4")
def test_a_pattern_handler_takes_what_every_event_has(
    shop: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def of_context(context: BaseEventContext) -> Any:
        return context.request_id

    def of_emission(emission: Emission[BaseEventContext]) -> Any:
        return emission.context.request_id

    shop.signal("user_logged_in", context=LoginEventContext)
    for handler in (of_context, of_emission, lambda **rest: rest["request_id"], lambda: "r"):
        shop.subscribe("*", handler)
    loose = dispatcher.emit("user_logged_in", user_id=1, email="e", request_id="r")
    assert [result.value for result in loose.results] == ["r"] * 4
    untyped = dispatcher.emit("account_closed", why="bored", request_id="r")
    assert [result.value for result in untyped.results] == ["r"] * 4


@pytest.mark.guarantee("N4")
@pytest.mark.parametrize(
    ("handler", "fix"),
    [
        (lambda email: None, r"write \(sender, \*\*context\), or take an Emission"),
        (lambda sender, email: None, r"write \(sender, \*\*context\)"),
    ],
)
def test_a_pattern_handler_takes_no_field_by_name(
    shop: SignalRegistry, handler: Any, fix: str
) -> None:
    with pytest.raises(HandlerSignatureError, match=fix):
        shop.subscribe("account_*", handler)
    assert not shop["account_closed"].subscriptions


@pytest.mark.guarantee("N4")
def test_a_pattern_handler_takes_no_single_events_model(shop: SignalRegistry) -> None:
    def handler(context: LoginEventContext) -> None: ...

    with pytest.raises(
        HandlerSignatureError,
        match=r"with @on_event\(LoginEventContext\), or annotate it with BaseEventContext or Emi",
    ):
        shop.subscribe("*", handler)


@pytest.mark.guarantee("N4")
@pytest.mark.parametrize("pattern", ["Account_*", "a b*", "*\n", "x" * 128 + "*"])
def test_a_malformed_pattern_is_refused(shop: SignalRegistry, pattern: str) -> None:
    with pytest.raises(InvalidEventNameError):
        shop.subscribe(pattern, lambda: None)


@pytest.mark.guarantee("N4")
def test_a_pattern_of_many_stars_takes_no_time(shop: SignalRegistry) -> None:
    """One that backtracks would take minutes."""
    shop.signal("a" * 100)
    subscription = shop.subscribe("*a" * 40 + "*b", lambda: None)
    shop.signal("a" * 120)
    assert subscription.active
    assert not shop["a" * 120].subscriptions


@pytest.mark.guarantee("N6")
def test_patterns_end_wholly_while_another_thread_declares(shop: SignalRegistry) -> None:
    stop = threading.Event()
    interval = sys.getswitchinterval()

    def declare() -> None:
        number = 0
        while not stop.is_set() and number < 400:
            number += 1
            shop.signal(f"event_{number}")

    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=declare)
    thread.start()
    try:
        while thread.is_alive():
            shop.subscribe("*", lambda: None).cancel()
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert len(shop) > 3, "nothing was declared meanwhile"
    assert not shop.subscriptions


@pytest.mark.guarantee("F6")
def test_a_pattern_is_not_extended_under_the_registrys_lock(shop: SignalRegistry) -> None:
    """Else a finalizer that runs under a signal's lock and declares an event could deadlock."""
    reached: list[bool] = []
    table = table_of(shop["account_closed"])

    def declare() -> None:
        shop.signal("declared_meanwhile")
        reached.append(True)

    with table._lock:
        subscribing = threading.Thread(target=lambda: shop.subscribe("*", lambda: None))
        subscribing.start()
        subscribing.join(timeout=0.2)
        assert subscribing.is_alive()
        declaring = threading.Thread(target=declare)
        declaring.start()
        declaring.join(timeout=5)
        assert reached == [True]
    subscribing.join(timeout=5)
    assert shop["declared_meanwhile"].subscriptions


@pytest.mark.guarantee("H6")
def test_the_same_handler_and_pattern_again_is_the_same_subscription(
    shop: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def handler() -> None: ...

    first = shop.subscribe("*", handler)
    assert shop.subscribe("*", handler) is first
    assert len(dispatcher.emit("account_closed").results) == 1
    with pytest.raises(SubscriptionConflictError):
        shop.subscribe("*", handler, priority=1)
    first.cancel()
    second = shop.subscribe("*", handler)
    first.cancel()
    assert second.active
    assert shop.subscribe("*", handler) is second


@pytest.mark.guarantee("L1")
def test_a_pattern_goes_away_with_the_object_whose_method_it_calls(shop: SignalRegistry) -> None:
    class Owner:
        def handle(self, sender: Any, **context: Any) -> None: ...

    owner = Owner()
    subscription = shop.subscribe("*", owner.handle)
    handler_is_gone = shop.subscribe("*", lambda: None)
    assert subscription.weak
    del owner
    gc.collect()
    assert not subscription.active
    assert len(shop._patterns.live()) == 1
    shop.signal("later")
    handler_is_gone.cancel()
    assert not any(signal.subscriptions for signal in declared_in(shop))


def test_a_pattern_that_ends_while_it_is_extended_leaves_nothing(shop: SignalRegistry) -> None:
    subscription = shop.subscribe("*", lambda: None)
    assert isinstance(subscription, PatternSubscription)
    subscription.cancel()
    table = table_of(shop.signal("later"))
    subscription._extend_to(table, "later")
    assert not table.live()


def test_a_pattern_whose_handler_is_gone_is_not_extended(shop: SignalRegistry) -> None:
    class Owner:
        def handle(self) -> None: ...

    owner = Owner()
    subscription = shop.subscribe("*", owner.handle)
    assert isinstance(subscription, PatternSubscription)
    del owner
    gc.collect()
    table = table_of(shop.signal("later"))
    subscription._extend_to(table, "later")
    assert not table.live()


def test_a_pattern_whose_handler_goes_away_while_it_is_extended_calls_nothing_else(
    shop: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment, in which another thread could emit."""

    class Owner:
        def handle(self) -> None: ...

    def active(subscription: PatternSubscription) -> bool:
        was_active = super(PatternSubscription, subscription).active
        owners.clear()
        return was_active

    def add(table: Any, subscription: Any) -> Any:
        handlers.append(subscription.handler)
        return real(table, subscription)

    real = tabling.SubscriptionTable.add
    owners, handlers = [Owner()], list[Any]()
    subscription: Any = shop.subscribe("*", owners[0].handle)
    monkeypatch.setattr(PatternSubscription, "active", property(active))
    monkeypatch.setattr(tabling.SubscriptionTable, "add", add)
    subscription._extend_to(tabling.SubscriptionTable(), "later")
    assert not owners
    assert None not in handlers


def test_a_pattern_of_one_sender_hears_that_sender_only(
    shop: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Sender: ...

    shop.subscribe("*", lambda: "mine", sender="me")
    sender = Sender()
    of_object = shop.subscribe("*", lambda: "its own", sender=sender)
    shop.signal("later")
    assert len(dispatcher.emit("later", sender).results) == 1
    assert len(dispatcher.emit("later", Sender()).results) == 0
    del sender
    gc.collect()
    assert not of_object.active
    assert len(dispatcher.emit("account_closed", "me").results) == 1
    assert len(dispatcher.emit("account_closed", "you").results) == 0
