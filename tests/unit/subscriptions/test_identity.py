"""Handlers are recognised again, and senders are told apart (H6, L2)."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    ContextTypeError,
    EventDispatcher,
    SignalRegistry,
    SubscriptionConflictError,
    register_handler,
)
from support.inside import senders_of, table_of
from support.proxies import InThread, Passing, Unreadable, dead_proxy, decorator
from support.subscribers import Collector, Sender, emitted


class Slotted:
    """A sender that cannot."""

    __slots__ = ()


class Unhashable(type):
    """Makes classes without a hash."""

    def __eq__(cls, other: object) -> bool:
        return cls is other

    __hash__ = None  # type: ignore[assignment]


class Shop(metaclass=Unhashable):
    def __call__(self, sender: Any) -> str:
        return "opened"


@pytest.mark.guarantee("L2")
def test_a_class_without_a_hash_may_make_senders_and_handlers(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    shop, other = Shop(), Shop()
    signal.subscribe(shop, sender=shop)
    signal.connect(other, sender=other)
    for sender in (shop, other):
        assert emitted(dispatcher, sender) == ["opened"]
        assert signal.send(sender) == [(sender, "opened")]
    assert signal.unsubscribe(shop)
    with pytest.raises(ContextTypeError, match=r"the sender: write .*\*\*fields"):
        dispatcher.emit(signal, Unhashable("Values", (dict,), {})())


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


@decorator
def passing_on(wrapped: Any, *arguments: Any, **keywords: Any) -> Any:
    return wrapped(*arguments, **keywords)


class Service:
    def _on(self, kind: str, sender: Any) -> Any:
        return self, kind

    async def _on_awaited(self, sender: Any, kind: str) -> Any:
        return self, kind

    partial = functools.partialmethod(_on, "partial")
    partial_awaited = functools.partialmethod(_on_awaited, kind="partial")

    @functools.singledispatchmethod
    def dispatched(self, sender: Any) -> Any:
        return self, "dispatched"

    @functools.singledispatchmethod
    @classmethod
    def dispatched_by_class(cls, sender: Any) -> Any:
        return cls, "dispatched"

    @functools.singledispatchmethod
    @staticmethod
    def dispatched_static(sender: Any) -> Any:
        return "static", "dispatched"

    @passing_on
    @passing_on
    def decorated(self, sender: Any) -> Any:
        return self, "decorated"

    @passing_on
    @classmethod
    def decorated_by_class(cls, sender: Any) -> Any:
        return cls, "decorated"

    @passing_on
    @staticmethod
    def decorated_static(sender: Any) -> Any:
        return "static", "decorated"

    @InThread
    def in_thread(self, sender: Any) -> Any:
        return self, "in a thread"

    @Passing
    def passed(self, sender: Any) -> Any:
        return self, "passed"


def in_a_loop(handler: Any) -> Callable[..., Any]:
    return lambda sender: asyncio.run(handler(sender))


MADE_ANEW: list[Callable[[Any], Any]] = [
    lambda service: service.partial,
    lambda service: service.partial_awaited,
    lambda service: service.dispatched,
    lambda service: service.dispatched_by_class,
    lambda service: service.dispatched_static,
    lambda service: service.decorated,
    lambda service: service.decorated_by_class,
    lambda service: service.decorated_static,
    lambda service: service.in_thread,
    lambda service: service.passed,
]


@pytest.mark.guarantee("H6")
@pytest.mark.parametrize("access", MADE_ANEW)
def test_a_method_that_each_access_makes_anew_is_recognised_again(
    signal: Any, dispatcher: EventDispatcher, access: Any
) -> None:
    service = Service()
    subscription = signal.subscribe(access(service))
    assert signal.subscribe(access(service)) is subscription
    emission = asyncio.run(dispatcher.emit_async("thing_happened"))
    emission.raise_for_failures()
    assert len(emission.results) == 1
    assert signal.unsubscribe(access(service))
    assert not subscription.active


@pytest.mark.guarantee("L1")
@pytest.mark.parametrize("access", MADE_ANEW)
def test_a_connected_method_that_each_access_makes_anew_is_not_lost(
    signal: Any, access: Any
) -> None:
    service = Service()
    signal.connect(access(service))
    gc.collect()
    ((handler, _),) = signal.send("me", _async_wrapper=in_a_loop)
    assert signal.subscriptions
    signal.disconnect(handler)
    assert not signal.subscriptions


@pytest.mark.guarantee("H6")
def test_a_static_method_is_the_function_that_its_class_gives(
    signals: SignalRegistry, signal: Any
) -> None:
    class Handlers:
        @signal.on()
        @staticmethod
        def handle(sender: Any, **context: Any) -> None: ...

    assert signal.unsubscribe(Handlers.handle)
    assert not signal.subscriptions


@pytest.mark.guarantee("L2")
@pytest.mark.parametrize("make", [dead_proxy, Unreadable])
def test_a_sender_of_which_nothing_can_be_asked_stops_no_emission(
    signal: Any, dispatcher: EventDispatcher, make: Any
) -> None:
    sender = make()
    signal.subscribe(lambda: "all")
    signal.subscribe(lambda: "another's", sender="another")
    assert len(dispatcher.emit("thing_happened", sender).results) == 1
    signal.subscribe(lambda: "mine", sender=sender)
    assert emitted(dispatcher, sender) == ["all", "mine"]
    assert signal.has_receivers_for(sender)
    assert [value for _, value in signal.send(sender)] == ["all", "mine"]
    assert emitted(dispatcher, make()) == ["all"]


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
    for _ in range(200):
        sender = Sender()
        number = id(sender)
        subscription = signal.subscribe(lambda: "mine", sender=sender)
        assert emitted(dispatcher, sender) == ["all", "mine"]
        del sender
        assert not subscription.active
        assert subscription.sender is None
        newcomers = [Sender()]
        # Without the GIL an id is used again only when others have been.
        while id(newcomers[-1]) != number and len(newcomers) < 1_000:
            newcomers.append(Sender())
        reused += id(newcomers[-1]) == number
        assert emitted(dispatcher, newcomers[-1]) == ["all"]
    assert reused, "no id was used again, so nothing was tested"
    assert len(signal.subscriptions) == 1
    assert len(senders_of(signal)) == 1


@pytest.mark.guarantee("L2")
@pytest.mark.parametrize("background", [False, True])
def test_a_plan_of_a_dead_sender_is_not_followed(signal: Any, background: bool) -> None:
    """Even if a plan is stale, as it can be for an instant while another thread rebuilds it."""
    sender = Sender()
    signal.subscribe(lambda: "mine", sender=sender, background=background)
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
