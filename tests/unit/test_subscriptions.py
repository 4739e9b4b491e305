"""A subscription's options, lifetime and sender (H5, H6, L1, L2)."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    ANY,
    EventDispatcher,
    InvalidOptionError,
    SignalRegistry,
    Subscription,
    SubscriptionConflictError,
    register_handler,
    user_logged_in,
)


class Collector:
    """An object whose method is a handler."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def handle(self, sender: Any, **context: Any) -> None:
        self.seen.append(sender)


class Sender:
    """A sender that can be held weakly."""


class Slotted:
    """A sender that cannot."""

    __slots__ = ()


@pytest.fixture
def signal(signals: SignalRegistry) -> Any:
    return signals.signal("thing_happened")


def emitted(dispatcher: EventDispatcher, sender: Any = None, **context: Any) -> list[Any]:
    emission = dispatcher.emit("thing_happened", sender, **context)
    assert emission.ok, emission.failures
    return [result.value for result in emission.results]


@pytest.mark.guarantee("H5")
def test_higher_priorities_run_first_and_equals_in_order_of_registration(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "b")
    signal.subscribe(lambda: "last", priority=-1)
    signal.subscribe(lambda: "first", priority=10)
    signal.subscribe(lambda: "c")
    assert emitted(dispatcher) == ["first", "b", "c", "last"]


@pytest.mark.guarantee("H5")
def test_once_is_called_once(signal: Any, dispatcher: EventDispatcher) -> None:
    subscription = signal.subscribe(lambda: "now", once=True)
    assert emitted(dispatcher) == ["now"]
    assert emitted(dispatcher) == []
    assert not subscription.active
    assert not signal.subscriptions


@pytest.mark.guarantee("H5")
def test_once_waits_for_its_sender_and_its_when(signal: Any, dispatcher: EventDispatcher) -> None:
    signal.subscribe(lambda: "now", once=True, sender="me", when=lambda context: context["ready"])
    assert emitted(dispatcher, "you", ready=True) == []
    assert emitted(dispatcher, "me", ready=False) == []
    assert emitted(dispatcher, "me", ready=True) == ["now"]
    assert emitted(dispatcher, "me", ready=True) == []


@pytest.mark.guarantee("H5")
def test_once_is_claimed_by_one_of_many_threads(signal: Any, dispatcher: EventDispatcher) -> None:
    for _ in range(50):
        calls: list[int] = []
        barrier = threading.Barrier(4)

        def emit(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            dispatcher.emit("thing_happened")

        signal.subscribe(lambda calls=calls: calls.append(1), once=True)
        threads = [threading.Thread(target=emit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == [1]


@pytest.mark.guarantee("H5")
def test_an_emission_that_began_before_the_claim_finds_once_claimed(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []

    def early() -> None:
        if not calls:
            calls.append("early")
            dispatcher.emit("thing_happened")

    signal.subscribe(early)
    signal.subscribe(lambda: calls.append("once"), once=True)
    dispatcher.emit("thing_happened")
    assert calls == ["early", "once"]


@pytest.mark.guarantee("L1")
def test_an_object_that_goes_away_during_an_emission_is_not_called(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    owners = [Collector()]
    seen = owners[0].seen
    signal.subscribe(owners.clear)
    signal.subscribe(owners[0].handle)
    signal.connect(owners[0].handle, sender="me")
    emission = dispatcher.emit("thing_happened", "you")
    assert emission.ok
    assert len(emission.results) == 1
    assert seen == []


@pytest.mark.guarantee("H5")
def test_a_nested_emission_finds_once_claimed(signal: Any, dispatcher: EventDispatcher) -> None:
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        dispatcher.emit("thing_happened")

    signal.subscribe(handler, once=True)
    dispatcher.emit("thing_happened")
    assert calls == [1]


@pytest.mark.guarantee("H5")
def test_when_sees_the_context_read_only(signal: Any, dispatcher: EventDispatcher) -> None:
    seen: list[Any] = []

    def when(context: Mapping[str, Any]) -> bool:
        seen.append(context)
        return bool(context["is_admin"])

    signal.subscribe(lambda: "admin", when=when)
    assert emitted(dispatcher, is_admin=False) == []
    assert emitted(dispatcher, is_admin=True) == ["admin"]
    with pytest.raises(TypeError):
        seen[0]["is_admin"] = True


@pytest.mark.guarantee("H5")
def test_a_when_that_raises_is_that_handlers_failure(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []
    subscription = signal.subscribe(
        lambda: calls.append("guarded"), when=lambda context: context["missing"], once=True
    )
    signal.subscribe(lambda: calls.append("other"))
    emission = dispatcher.emit("thing_happened")
    (failure,) = emission.failures
    assert failure.handler is subscription.handler
    assert isinstance(failure.exception, KeyError)
    assert calls == ["other"]
    assert subscription.active


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"priority": "high"}, "must be an int, such as 10"),
        ({"priority": True}, "must be an int"),
        ({"priority": 1.5}, "must be an int"),
        ({"when": "is_admin"}, "must be a plain function"),
        ({"once": 1}, "once must be True or False"),
        ({"once": None}, "once must be True or False"),
        ({"weak": "yes"}, "weak must be True, False or None"),
        (
            {"prority": 1},
            "'prority': did you mean 'priority'. The options are background, batch, once",
        ),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: Any, fix: str) -> None:
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        user_logged_in.subscribe(lambda: None, **options)
    assert caught.value.option in options
    assert not user_logged_in.subscriptions


def test_an_async_when_is_refused(signal: Any) -> None:
    async def when(context: Any) -> bool:
        return True

    with pytest.raises(InvalidOptionError, match="plain function"):
        signal.subscribe(lambda: None, when=when)


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


@pytest.mark.guarantee("H3")
def test_a_subscription_can_be_cancelled_and_used_in_a_with(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    subscription = signal.subscribe(lambda: "here")
    assert subscription.active
    assert "ended" not in repr(subscription)
    subscription.cancel()
    subscription.cancel()
    assert not subscription.active
    assert "ended" in repr(subscription)
    with signal.subscribe(lambda: "for a while") as temporary:
        assert isinstance(temporary, Subscription)
        assert temporary.sender is ANY
        assert repr(temporary.sender) == "ANY"
        assert emitted(dispatcher) == ["for a while"]
    assert emitted(dispatcher) == []


@pytest.mark.guarantee("L1")
def test_a_method_goes_away_with_its_object(signal: Any, dispatcher: EventDispatcher) -> None:
    collector = Collector()
    seen = collector.seen
    subscription = signal.subscribe(collector.handle)
    assert subscription.weak
    dispatcher.emit("thing_happened", "first")
    del collector
    gc.collect()
    dispatcher.emit("thing_happened", "second")
    assert seen == ["first"]
    assert not subscription.active
    assert subscription.handler is None
    assert not signal.subscriptions


@pytest.mark.guarantee("L1")
def test_lambdas_closures_partials_and_callable_objects_stay(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    class Callable:
        def __call__(self, **context: Any) -> str:
            return "object"

    def make(what: str) -> Any:
        def closure() -> str:
            return what

        return closure

    signal.subscribe(lambda: "lambda")
    signal.subscribe(make("closure"))
    signal.subscribe(functools.partial(lambda what, **context: what, "partial"))
    signal.subscribe(Callable())
    gc.collect()
    assert emitted(dispatcher) == ["lambda", "closure", "partial", "object"]


@pytest.mark.guarantee("L1")
def test_weak_decides_otherwise(signal: Any, dispatcher: EventDispatcher) -> None:
    collector = Collector()
    seen = collector.seen

    def function() -> str:
        return "function"

    signal.subscribe(collector.handle, weak=False)
    signal.subscribe(function, weak=True)
    assert emitted(dispatcher) == [None, "function"]
    del collector, function
    gc.collect()
    assert emitted(dispatcher) == [None]
    assert len(seen) == 2


@pytest.mark.guarantee("L1")
def test_a_method_of_an_object_that_cannot_be_held_weakly_is_held(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    class Stiff:
        __slots__ = ()

        def handle(self) -> str:
            return "here"

    signal.subscribe(Stiff().handle)
    gc.collect()
    assert emitted(dispatcher) == ["here"]
    with pytest.raises(InvalidOptionError, match="cannot be held weakly: leave out weak=True"):
        signal.subscribe(Stiff().handle, weak=True)


def test_the_results_of_a_weakly_held_handler_name_it(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    collector = Collector()
    signal.subscribe(collector.handle)
    (result,) = dispatcher.emit("thing_happened").results
    assert result.handler == collector.handle


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
    assert len(signal._table._by_sender) == 1


@pytest.mark.guarantee("L2")
def test_a_plan_of_a_dead_sender_is_not_followed(signal: Any) -> None:
    """Even if a plan is stale, as it can be for an instant while another thread rebuilds it."""
    sender = Sender()
    signal.subscribe(lambda: "mine", sender=sender)
    stale = signal._table.plan_for(sender)
    key = id(sender)
    buckets = {key: dict(signal._table._by_sender[key])}
    del sender
    signal._table._by_sender.update(buckets)
    signal._table.plans.by_sender[key] = stale

    class Impostor:
        """Has the dead sender's id, as far as the table can tell."""

    impostor = Impostor()
    signal._table._by_sender[id(impostor)] = buckets[key]
    signal._table.plans.by_sender[id(impostor)] = stale
    assert signal._table.plan_for(impostor).subscriptions == ()


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


@pytest.mark.guarantee("L2")
def test_nothing_is_left_behind(signal: Any, dispatcher: EventDispatcher) -> None:
    handlers: list[weakref.ref[Any]] = []
    for number in range(100):
        sender, collector = Sender(), Collector()

        def handler(number: int = number) -> int:
            return number

        handlers.append(weakref.ref(handler))
        signal.subscribe(handler, sender=sender)
        signal.subscribe(collector.handle, sender=str(number))
        temporary = signal.subscribe(lambda: None, sender=number)
        dispatcher.emit("thing_happened", sender)
        temporary.cancel()
        del handler, temporary
    del sender, collector
    gc.collect()
    assert not signal.subscriptions
    assert not signal._table._by_sender
    assert not signal._table._notes
    assert not any(reference() for reference in handlers)


@pytest.mark.guarantee("N6")
def test_finalizers_may_cancel_and_subscribe_while_the_table_is_changed(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    """A collection may start in the middle of any change, and run anybody's finalizer."""
    outcomes: list[str] = []

    class Owner:
        def __init__(self) -> None:
            self.me = self
            self.subscription = signal.subscribe(lambda: "owned", sender=len(outcomes))

        def __del__(self) -> None:
            self.subscription.cancel()
            signal.subscribe(print, sender="finalizer").cancel()
            outcomes.append("finalized")

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(300):
            Owner()
            signal.subscribe(lambda number=number: number).cancel()
            dispatcher.emit("thing_happened")
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert outcomes
    assert not signal.subscriptions
    assert not signal._table._by_sender


@pytest.mark.guarantee("F6")
def test_no_lock_is_held_while_a_finalizer_runs(signal: Any) -> None:
    """The last reference to a handler goes away after the lock was released."""
    reached: list[bool] = []

    class Handler:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            def subscribe() -> None:
                signal.subscribe(lambda: None)
                reached.append(True)

            thread = threading.Thread(target=subscribe)
            thread.start()
            thread.join(timeout=5)

    subscription = signal.subscribe(Handler())
    subscription.cancel()
    del subscription
    assert reached == [True]
    weakly = Sender()
    signal.subscribe(Handler(), sender=weakly)
    del weakly
    assert reached == [True, True]


@pytest.mark.guarantee("N6")
def test_a_note_that_finds_the_lock_taken_is_acted_on_when_it_is_free(signal: Any) -> None:
    subscription = signal.subscribe(lambda: None)
    with signal._table._exclusive():
        thread = threading.Thread(target=subscription.cancel)
        thread.start()
        thread.join(timeout=5)
        assert not thread.is_alive()
        assert signal._table._notes
    assert not signal._table._notes
    assert not signal._table._by_sender
    again = signal.subscribe(lambda: None)
    with signal._table._exclusive():
        again.cancel()
        nested = signal.subscribe(lambda: None)
        assert signal._table._notes
    assert signal.subscriptions == (nested,)
    assert not signal._table._notes


@pytest.mark.guarantee("N6")
def test_a_forked_child_starts_with_free_locks(signals: SignalRegistry, signal: Any) -> None:
    """Shown here without a fork; the trap's test has one."""
    from madcrow_events._forks import _renew_all

    held, finish = threading.Event(), threading.Event()

    def hold() -> None:
        with signals._lock, signal._table._exclusive():
            held.set()
            finish.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    try:
        _renew_all()
        signals.signal("another").subscribe(lambda: None)
        assert signal.subscribe(lambda: None).active
    finally:
        finish.set()
        thread.join()


def test_a_reference_that_outlives_its_subscription_ends_nothing(signal: Any) -> None:
    from madcrow_events.subscriptions._subscription import _leave_note

    subscription = signal.subscribe(lambda: None)
    gone = _leave_note(subscription)
    subscription.cancel()
    del subscription
    assert gone(None) is None
