"""Handlers are recognised again, and senders are told apart (H6, L2)."""

from __future__ import annotations

import gc
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    EventDispatcher,
    SignalRegistry,
    SubscriptionConflictError,
    register_handler,
)
from support.inside import senders_of, table_of
from support.subscribers import Collector, Sender, emitted


class Slotted:
    """A sender that cannot."""

    __slots__ = ()


@pytest.mark.guarantee("H6")
def test_the_same_handler_again_is_the_same_subscription(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    def handler() -> str:
        return "once"

    first = signal.subscribe(handler, priority=3)
    assert signal.subscribe(handler, priority=3) is first
    assert (
        register_handler("thing_happened", handler, signals=_registry(dispatcher), priority=3)
        is first
    )
    assert emitted(dispatcher) == ["once"]


def _registry(dispatcher: EventDispatcher) -> SignalRegistry:
    return dispatcher.signals


@pytest.mark.guarantee("H6")
@pytest.mark.parametrize(
    "options", [{"priority": 1}, {"once": True}, {"when": bool}, {"weak": True}]
)
def test_the_same_handler_with_other_options_is_a_conflict(
    signal: Any, dispatcher: EventDispatcher, options: Any
) -> None:
    def handler() -> str:
        return "as before"

    subscription = signal.subscribe(handler)
    with pytest.raises(SubscriptionConflictError, match="cancel that subscription first") as caught:
        signal.subscribe(handler, **options)
    assert caught.value.event == "thing_happened"
    assert caught.value.handler is handler
    assert emitted(dispatcher) == ["as before"]
    subscription.cancel()
    assert signal.subscribe(handler, **options).active


@pytest.mark.guarantee("H6")
def test_one_handler_may_listen_to_several_senders(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    def handler(sender: Any) -> Any:
        return sender

    signal.subscribe(handler, sender="a", priority=1)
    signal.subscribe(handler, sender="b")
    assert emitted(dispatcher, "a") == ["a"]
    assert emitted(dispatcher, "b") == ["b"]
    assert emitted(dispatcher, "c") == []
    assert signal.unsubscribe(handler) is True
    assert signal.unsubscribe(handler) is False
    assert emitted(dispatcher, "a") == []


@pytest.mark.guarantee("H6")
def test_bound_and_builtin_methods_are_recognised_again(signal: Any) -> None:
    collector, senders = Collector(), []  # type: ignore[var-annotated]
    assert signal.subscribe(collector.handle) is signal.subscribe(collector.handle)
    assert signal.subscribe(senders.append) is signal.subscribe(senders.append)
    assert signal.subscribe(senders.append) is not signal.subscribe([].append)
    assert signal.unsubscribe(collector.handle)
    assert signal.unsubscribe(senders.append)


@pytest.mark.guarantee("L2")
def test_senders_are_matched_by_identity(signal: Any, dispatcher: EventDispatcher) -> None:
    class Equal(Sender):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 1

    one, other = Equal(), Equal()
    signal.subscribe(lambda: "one", sender=one)
    assert emitted(dispatcher, one) == ["one"]
    assert emitted(dispatcher, other) == []
    listed: list[int] = []
    signal.subscribe(lambda: "list", sender=listed)
    assert emitted(dispatcher, listed) == ["list"]
    assert emitted(dispatcher, []) == []


@pytest.mark.guarantee("L2")
@pytest.mark.parametrize(
    ("plain", "equal", "others"),
    [
        (0, int("0"), [False, 0.0, "0", None]),
        (True, 1 == 1, [1, 1.0]),
        ("name", "".join(["na", "me"]), [b"name"]),
        (("tenant", 1), ("tenant", int("1")), [("tenant", True), ["tenant", 1]]),
        (UUID(int=1), UUID(int=1), [1]),
        (None, None, [0, False, ""]),
        (123456789, int("123456789"), [123456789.0]),
    ],
)
def test_plain_senders_are_matched_by_type_and_value(
    signal: Any, dispatcher: EventDispatcher, plain: Any, equal: Any, others: list[Any]
) -> None:
    signal.subscribe(lambda: "mine", sender=plain)
    signal.subscribe(lambda: "all")
    if plain is None:
        assert [value for _, value in signal.send(None)] == ["mine", "all"]
    else:
        assert emitted(dispatcher, equal) == ["mine", "all"]
    for other in others:
        assert [value for _, value in signal.send(other)] == (
            ["mine", "all"] if other is plain else ["all"]
        )


@pytest.mark.guarantee("L2")
def test_the_order_holds_between_handlers_of_one_sender_and_of_all(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "1 all")
    signal.subscribe(lambda: "2 mine", sender="me")
    signal.subscribe(lambda: "3 all")
    signal.subscribe(lambda: "0 mine", sender="me", priority=1)
    assert emitted(dispatcher, "me") == ["0 mine", "1 all", "2 mine", "3 all"]
    assert emitted(dispatcher, "you") == ["1 all", "3 all"]


@pytest.mark.guarantee("L2")
def test_a_dead_senders_handlers_are_forgotten_and_its_id_is_nobody_elses(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "all")
    reused = 0
    for attempt in range(10_000):
        if reused and attempt >= 200:  # without the GIL an id is used again once in 50 times or so
            break
        sender = Sender()
        number = id(sender)
        subscription = signal.subscribe(lambda: "mine", sender=sender)
        assert emitted(dispatcher, sender) == ["all", "mine"]
        del sender
        assert not subscription.active
        assert subscription.sender is None
        newcomer = Sender()
        reused += id(newcomer) == number
        assert emitted(dispatcher, newcomer) == ["all"]
        del newcomer
    assert reused, "no id was used again, so nothing was tested"
    assert len(signal.subscriptions) == 1
    assert len(senders_of(signal)) == 1


@pytest.mark.guarantee("L2")
def test_a_plan_of_a_dead_sender_is_not_followed(signal: Any) -> None:
    """Even if a plan is stale, as it can be for an instant while another thread rebuilds it."""
    sender = Sender()
    signal.subscribe(lambda: "mine", sender=sender)
    stale = table_of(signal).plan_for(sender)
    key = id(sender)
    buckets = {key: dict(senders_of(signal)[key])}
    del sender
    senders_of(signal).update(buckets)
    table_of(signal).plan_for(None)  # so that there are plans
    table_of(signal).plans.by_sender[key] = stale

    class Impostor:
        """Has the dead sender's id, as far as the table can tell."""

    impostor = Impostor()
    senders_of(signal)[id(impostor)] = buckets[key]
    table_of(signal).plans.by_sender[id(impostor)] = stale
    assert table_of(signal).plan_for(impostor).subscriptions == ()


@pytest.mark.guarantee("L2")
def test_senders_that_cannot_be_held_weakly_are_held(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    sender = Slotted()
    subscription = signal.subscribe(lambda: "mine", sender=sender)
    assert emitted(dispatcher, sender) == ["mine"]
    assert subscription.sender is sender
    assert emitted(dispatcher, Slotted()) == []


@pytest.mark.guarantee("L2")
def test_a_bound_method_can_be_a_sender(signal: Any, dispatcher: EventDispatcher) -> None:
    collector = Collector()
    signal.subscribe(lambda: "mine", sender=collector.handle)
    gc.collect()
    assert emitted(dispatcher, collector.handle) == ["mine"]
    assert emitted(dispatcher, Collector().handle) == []
    del collector
    gc.collect()
    assert not signal.subscriptions
