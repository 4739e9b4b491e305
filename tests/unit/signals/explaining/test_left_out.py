"""Who would not be called for an event although it is subscribed, and why (X1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import blinker
import pytest
from pydantic import field_validator

from madcrow_events import (
    ANY,
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerGroup,
    SignalRegistry,
    current_event,
)
from madcrow_events.testing.recorder import fake_events, record_events
from support.explaining import called, handler, left_out, only
from support.inside import Gate, register_wrapped
from support.subscribers import Collector, Sender

pytestmark = pytest.mark.guarantee("X1")


# Senders


def test_without_a_sender_those_of_all_senders_are_listed_with_the_one_that_each_needs(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    sender = Sender()
    for number, wanted in enumerate([ANY, sender, Sender, 7, signal, ("shop", 1)]):
        signal.subscribe(handler(), sender=wanted, id=f"{number}")

    assert [(it.name, it.sender) for it in signals.explain(signal, number=1).called] == [
        ("0", None),
        ("1", "<Sender object>"),
        ("2", "Sender"),
        ("3", "7"),
        ("4", "the signal thing_happened"),
        ("5", "<tuple object>"),
    ]
    assert signals.explain(signal, sender=blinker.ANY) == signals.explain(signal)


def test_with_a_sender_those_of_others_are_left_out(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    sender, other = Sender(), Sender()
    for name, wanted in {"mine": sender, "theirs": other, "zero": 0, "nobody's": signal}.items():
        signal.subscribe(handler(), sender=wanted, id=name)

    explanation = signals.explain(signal, sender=sender)

    assert called(explanation) == ["mine"]
    assert left_out(explanation) == dict.fromkeys(["theirs", "zero", "nobody's"], "sender")
    assert explanation.left_out[1].detail == "it listens to another sender: 0"
    assert called(signals.explain(signal, sender=False)) == []
    assert called(signals.explain(signal, sender=None)) == ["nobody's"]


def test_no_attribute_of_a_sender_is_read(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    proxy = Proxy()
    signal.subscribe(handler(), sender=proxy)

    assert [it.sender for it in signals.explain(signal).called] == ["<Proxy object>"]
    assert only(signals.explain(signal, sender=1)).reason == "sender"
    assert signals.explain(signal, sender=proxy, number=1).left_out == ()


@pytest.mark.parametrize("sender", [ANY, "shop"])
def test_who_is_connected_to_a_sender_and_to_all_is_called_once(
    sender: Any, signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    receive = handler()
    signal.connect(receive, weak=False)
    signal.connect(receive, sender="shop", weak=False)

    explanation = signals.explain(signal, sender=sender)

    assert [it.sender for it in explanation.called] == [None]
    assert left_out(explanation) == {"handle": "connected_twice"}


# Conditions and contexts


def test_when_may_say_no(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    signal.subscribe(handler(), when=lambda context: context["total"] > 3)

    assert only(signals.explain(signal, total=1)).detail == "its `when` says no"


def test_when_may_raise_and_its_text_is_not_shown(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def fail(context: Mapping[str, Any]) -> bool:
        raise ValueError(context["secret"])

    class NoAnswer:
        def __bool__(self) -> bool:
            raise LookupError

    signal.subscribe(handler(), when=fail, id="fails")
    signal.subscribe(handler(), when=lambda context: NoAnswer(), id="no answer")

    explanation = signals.explain(signal, secret="hunter2")

    assert called(explanation) == []
    assert [it.detail for it in explanation.left_out] == [
        "its `when` raised an exception: ValueError",
        "its `when` raised an exception: LookupError",
    ]


def test_an_exit_that_when_raises_goes_through(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def leave(context: Mapping[str, Any]) -> bool:
        raise SystemExit

    signal.subscribe(handler(), when=leave)

    with pytest.raises(SystemExit):
        signals.explain(signal, total=5)
    assert current_event() is None


class Counted(BaseEventContext):
    count: int

    @field_validator("count")
    @classmethod
    def check(cls, count: int) -> int:
        if count < 0:
            raise RuntimeError(count)  # no ValueError, which pydantic expects
        return count


def take_model(context: Counted) -> None: ...
def take_emission(emission: Emission[Counted]) -> None: ...
def take_name(count: int) -> None: ...
def take_name_and_rest(sender: Any, *, count: int, **rest: Any) -> None: ...
async def take_async(context: Counted) -> None: ...
def take_list(contexts: list[Counted]) -> None: ...


@pytest.mark.parametrize(
    ("take", "options"),
    [
        (take_model, {}),
        (take_model, {"once": True}),
        (take_model, {"background": True}),
        (take_emission, {}),
        (take_name, {}),
        (take_name_and_rest, {}),
        (take_async, {}),
        (take_list, {"batch": Batch()}),
    ],
)
def test_a_context_that_does_not_fit_the_handler_is_told_as_its_failure_tells_it(
    take: Callable[..., Any],
    options: dict[str, Any],
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
) -> None:
    counted = signals.signal("counted", context=Counted)
    counted.subscribe(take, **options)

    entry = only(signals.explain("counted", other="hunter2"))

    emission = dispatcher.emit("counted", other="hunter2")
    assert dispatcher.drain(5)
    (failure,) = emission.failures
    assert (entry.name, entry.reason) == (f"{__name__}.{take.__name__}", "context")
    problems: Any = failure.exception
    told = "; ".join(f"{field}: {problem}" for field, problem in problems.problems)
    assert entry.detail == f"the context does not fit it: {told}"
    assert "count: missing" in entry.detail
    assert "hunter2" not in entry.detail


def test_a_model_may_fail_in_any_way(signals: SignalRegistry) -> None:
    signals.signal("counted", context=Counted).subscribe(take_model)

    assert only(signals.explain("counted", count=-5)).detail == (
        "the context does not fit it: making it raised RuntimeError"
    )


def test_of_many_problems_the_first_are_told(signals: SignalRegistry) -> None:
    signals.signal("counted", context=Counted).subscribe(take_model)

    detail = only(signals.explain("counted", **dict.fromkeys("abcdefgh"))).detail

    assert detail.count("not a field") == 4
    assert detail.endswith("; and more")


# What other code does meanwhile


def test_a_once_whose_call_is_just_being_claimed_is_told(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    subscription: Any = signal.subscribe(handler(), once=True)
    subscription._ticket.pop()  # as another thread does, before it ends the subscription

    entry = only(signals.explain(signal))

    assert (entry.reason, entry.has_ended) == ("once", False)


def test_an_object_that_goes_away_while_others_are_asked_is_told(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    owners = [Collector()]

    def drop(context: Mapping[str, Any]) -> bool:
        owners.clear()
        return True

    signal.subscribe(handler(), when=drop)
    signal.subscribe(owners[0].handle)

    explanation = signals.explain(signal, number=1)

    assert called(explanation) == ["handle"]
    assert [(it.reason, it.has_ended) for it in explanation.left_out] == [
        ("collected", False),
        ("collected", True),
    ]


def test_a_plugin_that_is_just_being_unloaded_is_not_asked(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    group, gate = HandlerGroup("gated"), Gate()
    group.on("thing_happened", when=lambda context: context["number"] > 1)(handler())
    register_wrapped(group, signals, gate.around)
    assert called(signals.explain(signal, number=2)) == ["handle"]

    gate.close()

    assert only(signals.explain(signal, number=2)).reason == "unloaded"
    assert only(signals.explain(signal)).reason == "unloaded"


# Blocks


def test_muted_handlers_are_told_and_not_asked(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def refuse(context: Mapping[str, Any]) -> bool:
        raise AssertionError

    signal.subscribe(handler(), when=refuse)

    with signal.muted():
        entry = only(signals.explain(signal, number=1))

    assert (entry.reason, entry.detail) == ("muted", "the signal is muted here")


def test_faked_handlers_are_told_and_recorders_are_nobodys_handlers(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signal.subscribe(handler())

    with record_events(signals=signals):
        assert called(signals.explain(signal)) == ["handle"]
        for event in ("thing_happened", "thing_*"):
            with fake_events(event, signals=signals):
                assert only(signals.explain(signal)).reason == "faked"

    explanation = signals.explain(signal)
    assert (called(explanation), explanation.left_out) == (["handle"], ())


# Patterns


def test_a_pattern_that_matches_no_event_is_told_wherever_one_asks(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signals.subscribe("orders_*", handler())
    signals.subscribe("thing_*", handler(), id="matches")
    signals.signal("other")

    for event in ("thing_happened", "other"):
        (entry,) = signals.explain(event).left_out
        assert (entry.pattern, entry.reason) == ("orders_*", "unmatched")
    signals.signal("orders_placed")

    assert signals.explain("other").left_out == ()


def test_a_pattern_whose_event_is_forgotten_matches_nothing(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    signals.subscribe("orders_*", handler())
    with signals.isolated():
        held = signals.signal("orders_placed").subscriptions
        assert signals.explain(signal).left_out == ()

    assert only(signals.explain(signal)).reason == "unmatched"
    assert [it.active for it in held] == [False]


def test_the_part_of_a_pattern_is_told_with_the_pattern(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    pattern = signals.subscribe("thing_*", handler(), sender="shop")

    assert [it.pattern for it in signals.explain(signal).called] == ["thing_*"]
    assert only(signals.explain(signal, sender="other")).pattern == "thing_*"
    pattern.cancel()
    assert only(signals.explain(signal)).pattern == "thing_*"
