"""An event that was declared under an old name hands all that it had over to the new one (N8)."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    SignalConflictError,
    SignalRegistry,
    SubscriptionConflictError,
    UnknownEventError,
)
from madcrow_events.testing import record_events
from support.inside import declared_in, renaming, senders_of, table_of
from support.subscribers import Collector, OrderPlaced, Sender

pytestmark = [
    pytest.mark.guarantee("N8"),
    pytest.mark.filterwarnings("ignore:the event .* is called .* now:DeprecationWarning"),
]


@pytest.fixture
def made(signals: SignalRegistry) -> EventSignal[Any]:
    """Return an event of its own, whose name becomes an old one."""
    return signals.signal("order_made", "An order came in.")


def rename(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("order_placed", context=OrderPlaced, formerly="order_made")


def values(emission: Emission[Any]) -> list[Any]:
    assert emission.ok, emission.failures
    return [it.value for it in emission.results]


# What is handed over


@pytest.mark.parametrize("is_declared_first", [True, False])
def test_the_handlers_of_the_old_name_hear_the_event(
    signals: SignalRegistry, dispatcher: EventDispatcher, is_declared_first: bool
) -> None:
    if is_declared_first:
        signals.signal("order_placed", context=OrderPlaced).subscribe(lambda: "new")
    signals.signal("order_made").subscribe(lambda order_id: order_id)
    placed = rename(signals)
    placed.subscribe(lambda: "newer")
    expected = ["new", 7, "newer"] if is_declared_first else [7, "newer"]
    for name in ("order_made", "order_placed"):
        assert values(dispatcher.emit(name, order_id=7)) == expected
        assert values(dispatcher.emit_typed(name, OrderPlaced(order_id=7))) == expected
    assert list(signals) == ["order_placed"]
    assert [it.event for it in placed.subscriptions] == ["order_placed"] * len(expected)


def test_subscriptions_keep_their_options_and_their_order(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    calls: list[str] = []
    placed, sender, group = signals.signal("order_placed"), Sender(), HandlerGroup("shop")

    def handler(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    made.subscribe(handler("first"))
    placed.subscribe(handler("second"))
    made.subscribe(handler("third"))
    urgent = made.subscribe(handler("urgent"), priority=9, id="urgent")
    once = made.subscribe(handler("once"), once=True)
    mine = made.subscribe(handler("mine"), sender=sender)
    never = made.subscribe(handler("never"), when=lambda context: False)
    group.on("order_made")(grouped := handler("grouped"))
    group.register(signals)
    made.connect(connected := lambda sender: calls.append("connected"))
    batch = made.subscribe(lambda contexts: calls.append("batch"), batch=Batch(1))
    before = {it: (it.priority, it.once, it.when, it.id, it.weak, it.batch, it.origin, it.sender)
              for it in made.subscriptions}  # fmt: skip

    placed_now = signals.signal("order_placed", formerly="order_made")

    assert placed_now is placed
    assert set(before) < set(placed.subscriptions)
    for it, options in before.items():
        assert options == (
            it.priority, it.once, it.when, it.id, it.weak, it.batch, it.origin, it.sender
        )  # fmt: skip
    assert dispatcher.emit("order_placed", sender).ok
    assert dispatcher.drain(5)
    in_place = ["urgent", "first", "second", "third", "once", "mine", "grouped", "connected"]
    assert calls == [*in_place, "batch"]
    calls.clear()
    urgent.cancel()
    batch.cancel()
    made.disconnect(connected)
    assert not once.active
    assert dispatcher.emit("order_made").ok
    assert calls == ["first", "second", "third", "grouped"]
    group.unregister(signals)
    assert not placed.unsubscribe(grouped)
    assert {never, mine} < set(placed.subscriptions)


def test_a_once_that_was_called_is_not_called_again(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    made.subscribe(lambda: "once", once=True)
    kept = made.subscribe(lambda: "twice", once=True)
    with kept:
        assert values(dispatcher.emit("order_made")) == ["once", "twice"]
    made.subscribe(lambda: "again", once=True)
    placed = rename(signals)
    assert values(dispatcher.emit("order_placed", order_id=1)) == ["again"]
    assert not placed.subscriptions


def test_weak_handlers_and_senders_end_as_before_and_leave_nothing(
    signals: SignalRegistry, made: EventSignal[Any]
) -> None:
    owner, sender = Collector(), Sender()
    weak = made.subscribe(owner.handle)
    of_sender = made.subscribe(lambda: None, sender=sender)
    placed = rename(signals)
    assert weak.active
    assert of_sender.active
    del owner, sender
    gc.collect()
    assert not weak.active
    assert not of_sender.active
    placed.subscribe(lambda: None).cancel()
    assert not senders_of(placed)


def test_a_cancelled_subscription_is_not_revived(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    made.subscribe(lambda: "gone").cancel()
    rename(signals)
    assert values(dispatcher.emit("order_placed", order_id=1)) == []


def test_several_events_become_one(signals: SignalRegistry, dispatcher: EventDispatcher) -> None:
    for name in ("order_updated", "order_modified"):
        signals.signal(name).subscribe(lambda name=name: name)

    changed = signals.signal(
        "order_changed", formerly=("order_updated", "order_modified", "edited")
    )

    for name in ("order_changed", "order_updated", "order_modified", "edited"):
        assert values(dispatcher.emit(name)) == ["order_updated", "order_modified"]
    assert changed.formerly == ("order_updated", "order_modified", "edited")


def test_an_event_that_has_old_names_itself_brings_them_along(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    bought = signals.signal("bought")
    bought.subscribe(lambda: "heard")
    signals.signal("order_made", formerly="bought")

    placed = rename(signals)

    assert placed.formerly == ("bought", "order_made")
    for name in ("bought", "order_made", bought, made, placed):
        emission = dispatcher.emit(name, order_id=1)
        assert values(emission) == ["heard"]
        assert emission.signal is placed
    with pytest.raises(SignalConflictError):
        signals.signal("other", formerly="bought")
    del signals["order_placed"]
    assert "bought" not in signals


@pytest.mark.parametrize("order", [["bought", "order_made"], ["order_made", "bought"]])
def test_events_that_became_one_come_apart_in_any_order(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any], order: list[str]
) -> None:
    """As where several plugins have renamed them, which are unloaded one by one."""
    made.subscribe(lambda: "made")
    signals.signal("bought").subscribe(lambda: "bought")
    signals.signal("order_made", formerly="bought")
    placed = rename(signals)
    placed.subscribe(lambda: "placed")
    for name in order:
        renaming.take_back(signals, [name])
    assert values(dispatcher.emit("bought")) == ["bought"]
    assert values(dispatcher.emit("order_made")) == ["made"]
    assert values(dispatcher.emit("order_placed", order_id=1)) == ["placed"]


# Handlers that both have


def test_a_handler_of_both_is_called_once(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    def handler() -> str:
        return "heard"

    of_old = made.subscribe(handler, priority=1)
    of_new = signals.signal("order_placed").subscribe(handler, priority=1)
    signals.signal("order_placed", formerly="order_made")
    assert values(dispatcher.emit("order_made")) == ["heard"]
    assert signals["order_placed"].subscriptions == (of_new,)
    assert not of_old.active
    of_new.cancel()
    assert values(dispatcher.emit("order_made")) == []


@pytest.mark.parametrize("names", [["order_placed", "order_made"], ["order_made", "bought"]])
def test_a_handler_of_both_with_other_options_is_a_conflict_that_changes_nothing(
    signals: SignalRegistry, names: list[str]
) -> None:
    def handler() -> None: ...

    for priority, name in enumerate(names):
        signals.signal(name).subscribe(handler, priority=priority)
    with pytest.raises(SubscriptionConflictError, match=r"handler is subscribed to .* already"):
        signals.signal("order_placed", formerly=("order_made", "bought", "new_old"))
    assert list(signals) == names
    assert all(len(it.subscriptions) == 1 for it in declared_in(signals))
    assert "new_old" not in signals


def test_one_id_of_two_handlers_is_a_conflict_too(
    signals: SignalRegistry, made: EventSignal[Any]
) -> None:
    made.subscribe(lambda: None, id="mail")
    signals.signal("order_placed").subscribe(lambda: None, id="mail")
    with pytest.raises(SubscriptionConflictError, match="id 'mail' of order_placed"):
        signals.signal("order_placed", formerly="order_made")
    assert list(signals) == ["order_made", "order_placed"]


def test_the_id_of_a_handler_comes_along(signals: SignalRegistry, made: EventSignal[Any]) -> None:
    subscription = made.subscribe(lambda: None, id="mail")
    placed = rename(signals)
    with pytest.raises(SubscriptionConflictError, match="id 'mail' of order_placed"):
        placed.subscribe(lambda: None, id="mail")
    subscription.cancel()
    assert placed.subscribe(lambda: None, id="mail").active


# Who holds the signal of the old name


def test_the_signal_of_the_old_name_acts_as_that_of_the_event(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    placed = rename(signals)

    @made.on()
    def handler(context: OrderPlaced) -> int:
        return context.order_id

    made.subscribe(lambda order_id: order_id + 1, priority=-1)
    for emission in (dispatcher.emit(made, order_id=7), dispatcher.emit("order_made", order_id=7)):
        assert values(emission) == [7, 8]
        assert (emission.event, emission.signal, emission.sender) == (
            "order_placed",
            placed,
            placed,
        )
    assert [value for _, value in made.send(None, order_id=7)] == [7, 8]
    assert (made.name, str(made), made.formerly) == (
        "order_placed",
        "order_placed",
        ("order_made",),
    )
    assert made.context_model is OrderPlaced
    assert made.subscriptions == placed.subscriptions
    assert made in signals
    assert signals[made] is placed
    assert signals.get(made) is placed
    assert "order_placed" in repr(made)
    with made.muted():
        assert placed.is_muted
    with record_events(made, signals=signals) as events:
        dispatcher.emit(made, order_id=1)
    events.assert_emitted(made, order_id=1)
    assert made.unsubscribe(handler)
    assert signals.pop(made) is placed
    assert not signals


def test_who_emits_with_the_signal_of_the_old_name_is_told(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    rename(signals)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            dispatcher.emit(made, order_id=1)
    (told,) = caught
    assert told.filename == __file__
    assert str(told.message) == "the event order_made is called order_placed now: use that name"


def test_an_emission_under_the_old_name_is_one_of_the_event(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    """Also if it was emitted before, so that whoever asks for it finds it."""
    with record_events(signals=signals) as events, dispatcher.deferred():
        deferred = dispatcher.emit("order_made", order_id=1)
        made.subscribe(lambda order_id: order_id)
        rename(signals)
        assert deferred.event == "order_placed"
    assert values(deferred) == [1]
    events.assert_emitted("order_placed", order_id=1)
    events.assert_emitted("order_made", order_id=1)


def test_a_model_that_comes_again_is_that_of_the_old_signal_too(
    signals: SignalRegistry, made: EventSignal[Any]
) -> None:
    placed = signals.signal("order_placed", formerly="order_made")
    assert made.context_model is None
    placed._carry(OrderPlaced, None)
    assert made.context_model is OrderPlaced


# Patterns


def events_of(subscription: Any, signals: SignalRegistry) -> list[str]:
    """Return the events that a pattern has a part for, once for each part."""
    parts = [it for signal in declared_in(signals) for it in signal.subscriptions]
    return [it.event for it in parts if it.handler is subscription.handler]


@pytest.mark.guarantee("N4")
@pytest.mark.parametrize("pattern", ["*", "order_*", "order_m*", "*made", "order_p*"])
@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("is_own", [True, False])
def test_a_pattern_matches_each_name_of_an_event_and_subscribes_once(
    signals: SignalRegistry, dispatcher: EventDispatcher, pattern: str, when: str, is_own: bool
) -> None:
    def subscribe(moment: str) -> Any:
        return signals.subscribe(pattern, lambda: "heard") if when == moment else None

    if is_own:
        signals.signal("order_made")
    subscription = subscribe("before")
    placed = signals.signal("order_placed")
    subscription = subscribe("between") or subscription
    signals.signal("order_placed", formerly="order_made")
    subscription = subscribe("after") or subscription
    assert events_of(subscription, signals) == ["order_placed"]
    assert values(dispatcher.emit("order_made")) == ["heard"]
    assert values(dispatcher.emit(placed)) == ["heard"]
    subscription.cancel()
    assert values(dispatcher.emit(placed)) == []
    assert not table_of(placed).live()


@pytest.mark.guarantee("N4")
def test_a_pattern_with_once_is_called_once_under_whatever_name(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    signals.subscribe("order_m*", lambda: "once", once=True)
    rename(signals)
    assert values(dispatcher.emit("order_placed", order_id=1)) == ["once"]
    assert values(dispatcher.emit("order_made", order_id=1)) == []


@pytest.mark.guarantee("N4")
def test_a_pattern_that_fits_no_name_of_an_event_is_not_called(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    signals.subscribe("order_s*", lambda: "heard")
    rename(signals)
    assert values(dispatcher.emit("order_made", order_id=1)) == []


# Isolation


@pytest.mark.parametrize("empty", [True, False])
def test_an_isolated_block_restores_old_names(
    signals: SignalRegistry, dispatcher: EventDispatcher, empty: bool
) -> None:
    placed = signals.signal("order_placed", formerly="order_made")
    with signals.isolated(empty=empty):
        assert ("order_made" in signals) is not empty
        if empty:
            assert signals.signal("order_placed") is placed
            assert placed.formerly == ()
            made = signals.signal("order_made", context=OrderPlaced)
            assert signals["order_made"] is made
        signals.signal("order_sent", formerly="sent")
        signals.signal("order_placed", formerly="bought")
        if not empty:
            del signals["order_placed"]
    assert signals["order_made"] is placed
    assert placed.formerly == ("order_made",)
    assert list(signals) == ["order_placed"]
    for name in ("sent", "bought", "order_sent"):
        assert name not in signals


@pytest.mark.parametrize("deletes", [True, False])
def test_an_isolated_block_gives_the_old_event_its_handlers_back(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any], deletes: bool
) -> None:
    kept = made.subscribe(lambda: "kept")
    cancelled = made.subscribe(lambda: "cancelled")
    once = made.subscribe(lambda: "once", once=True)
    signals.subscribe("*", lambda: "pattern")
    with signals.isolated():
        placed = rename(signals)
        added = made.subscribe(lambda: "added")
        cancelled.cancel()
        dispatcher.emit("order_made", order_id=1)
        if deletes:
            del signals["order_placed"]
    assert list(signals) == ["order_made"]
    assert signals["order_made"] is made
    assert made.name == "order_made"
    assert made.formerly == ()
    assert made.context_model is None
    assert [kept.event, once.event] == ["order_made"] * 2
    assert values(dispatcher.emit(made)) == ["kept", "cancelled", "once", "pattern"]
    # Whoever has forgotten an event in a block keeps what was subscribed to it since.
    assert added.active is deletes
    assert values(dispatcher.emit(placed, order_id=1)) == ["added"] * deletes
    kept.cancel()
    cancelled.cancel()
    assert values(dispatcher.emit("order_made")) == ["pattern"]
    with pytest.raises(UnknownEventError):
        signals["order_placed"]


def test_an_isolated_block_restores_what_a_forgotten_event_had_taken_over(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    signals.signal("order_placed")
    with signals.isolated(empty=True):
        assert signals.signal("order_made") is made
        placed = signals.signal("order_placed", formerly="order_made")
        del signals["order_placed"]
        with signals.isolated():
            assert signals.signal("order_made") is made
            assert dispatcher.emit(made).event == "order_made"
        assert signals.signal("order_placed") is placed
        assert dispatcher.emit(made).event == "order_placed"
    assert dispatcher.emit(made).event == "order_made"


def test_an_isolated_block_restores_an_event_that_had_handed_its_handlers_over(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    made.subscribe(lambda: "kept")
    placed = rename(signals)
    with signals.isolated(empty=True):
        signals.signal("order_made").subscribe(lambda: "of the block")
        signals.signal("order_placed", context=OrderPlaced, formerly="order_made")
    for it in (made, placed, "order_made", "order_placed"):
        assert values(dispatcher.emit(it, order_id=1)) == ["kept"]
    assert placed.formerly == ("order_made",)
    assert signals["order_made"] is placed


# Threads


def test_what_is_subscribed_just_as_the_event_is_renamed_comes_along(
    signals: SignalRegistry, dispatcher: EventDispatcher, made: EventSignal[Any]
) -> None:
    """As by another thread, between any two of its steps."""

    class Handler:
        @property
        def __signature__(self) -> Any:
            rename(signals)
            raise AttributeError

        def __call__(self, sender: Any, **context: Any) -> str:
            return "heard"

    late = made.subscribe(Handler())
    assert late.event == "order_placed"
    assert values(dispatcher.emit("order_placed", order_id=1)) == ["heard"]
    late.cancel()
    assert values(dispatcher.emit("order_placed", order_id=1)) == []


def test_what_ends_just_as_the_event_is_renamed_is_not_called_again(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    made: EventSignal[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor is what was subscribed to the new name in the same moment called twice."""

    def handler() -> str:
        return "heard"

    def share(moving: Any, table: Any) -> None:
        real(moving, table)
        if ending.active:
            ending.cancel()
            placed.unsubscribe(handler)
            placed.subscribe(handler)
            dispatcher.emit(placed)  # makes the plan

    placed, real = signals.signal("order_placed"), renaming.share
    ending = made.subscribe(lambda: "ended")
    doubled = made.subscribe(handler)
    monkeypatch.setattr(renaming, "share", share)
    signals.signal("order_placed", formerly="order_made")
    assert not doubled.active
    assert values(dispatcher.emit("order_made")) == ["heard"]


def test_two_events_that_want_one_name_at_once_do_not_share_it(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    made: EventSignal[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def share(moving: Any, table: Any) -> None:
        with pytest.raises(SignalConflictError, match="a former name of order_placed already"):
            signals.signal("order_sent", formerly="order_made")
        real(moving, table)

    real = renaming.share
    made.subscribe(lambda: "heard")
    monkeypatch.setattr(renaming, "share", share)
    placed = rename(signals)
    assert list(signals) == ["order_placed"]
    assert signals["order_made"] is placed
    assert values(dispatcher.emit("order_made", order_id=1)) == ["heard"]


@pytest.mark.usefixtures("threads_switch_often")
def test_no_emission_is_lost_while_an_event_is_renamed(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Whatever name it is emitted by, and each handler is called once."""
    for number in range(20):
        made, done = signals.signal(f"made_{number}"), threading.Event()
        calls: list[int] = []
        made.subscribe(lambda n: calls.append(n))
        sent: list[int] = []

        def emit(base: int, number: int = number, sent: list[int] = sent, done: Any = done) -> None:
            while not done.is_set() or len(sent) < 50:
                n = base + len(sent)
                dispatcher.emit(f"made_{number}", n=n)
                sent.append(n)

        thread = threading.Thread(target=emit, args=(0,))
        thread.start()
        while len(sent) < 20:
            pass
        signals.signal(f"placed_{number}", formerly=f"made_{number}")
        done.set()
        thread.join()
        assert calls == sent
