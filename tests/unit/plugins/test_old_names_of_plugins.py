"""Groups and plugins declare old names, and take them along when they go (N8)."""

from __future__ import annotations

import sys
import textwrap
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    HandlerGroup,
    LoginEventContext,
    SignalConflictError,
    SignalRegistry,
    UnknownEventError,
    madcrow_signals,
)
from madcrow_events.plugins import load_plugins, unload_plugin
from madcrow_events.testing import assert_plugin_works
from support.inside import renaming
from support.plugins import Install

pytestmark = [
    pytest.mark.guarantee("N8"),
    pytest.mark.filterwarnings("ignore:the event .* is called .* now:DeprecationWarning"),
]


def values(dispatcher: EventDispatcher, event: Any) -> list[Any]:
    emission = dispatcher.emit(event)
    assert emission.ok, emission.failures
    return [it.value for it in emission.results]


OURS = """
    from madcrow_events import HandlerGroup

    group = HandlerGroup("ours")
    group.signal("order_placed", formerly=("order_made", "bought"))


    @group.on("order_made")
    def note(**context):
        return "ours"
"""


# Groups


def test_a_group_declares_old_names_and_may_use_them(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    group = HandlerGroup("shop")
    group.signal("order-placed", formerly="order-made")
    group.on("order_made")(lambda: "group")
    made = signals.signal("order_made")
    made.subscribe(lambda: "ours")
    for _ in range(2):
        group.register(signals)
        assert signals["order_placed"].formerly == ("order_made",)
        assert values(dispatcher, "order_made") == ["ours", "group"]
    group.unregister(signals)
    assert values(dispatcher, "order_made") == ["ours"]


@pytest.mark.parametrize("is_declared", [True, False])
def test_a_group_that_cannot_be_registered_leaves_old_names_as_they_were(
    signals: SignalRegistry, dispatcher: EventDispatcher, is_declared: bool
) -> None:
    if is_declared:
        signals.signal("order_placed", formerly="kept").subscribe(lambda: "placed")
    made = signals.signal("order_made", "As it was.")
    subscription = made.subscribe(lambda: "made", id="made")
    ended = made.subscribe(lambda: "ended")
    signals.subscribe("order_m*", lambda: "pattern")
    before = list(signals)
    group = HandlerGroup("shop")
    group.signal("order_placed", formerly=("order_made", "kept", "bought"))
    group.on("order_made")(lambda: "group")
    group.on("order_made")(lambda: ended.cancel())
    group.on("undeclared")(lambda: None)
    with pytest.raises(UnknownEventError):
        group.register(signals)
    assert sorted(signals) == sorted(before)
    assert signals["order_made"] is made
    assert (made.name, made.doc, made.formerly) == ("order_made", "As it was.", ())
    assert subscription.event == "order_made"
    assert values(dispatcher, "order_made") == ["made", "ended", "pattern"]
    assert values(dispatcher, made) == ["made", "ended", "pattern"]
    assert "bought" not in signals
    if is_declared:
        assert signals["order_placed"].formerly == ("kept",)
        assert values(dispatcher, "order_placed") == ["placed"]
    subscription.cancel()
    assert values(dispatcher, "order_made") == ["ended", "pattern"]


def test_a_group_that_fails_forgets_no_event_that_it_names_by_an_old_name(
    signals: SignalRegistry,
) -> None:
    placed = signals.signal("order_placed", formerly="order_made")
    group = HandlerGroup("shop")
    group.signal("order_made")
    group.signal("order_sent")
    group.on("undeclared")(lambda: None)
    with pytest.raises(UnknownEventError):
        group.register(signals)
    assert list(signals) == ["order_placed"]
    assert signals["order_made"] is placed


def test_a_group_whose_old_name_is_another_events_is_refused(signals: SignalRegistry) -> None:
    signals.signal("order_made", context=LoginEventContext)
    group = HandlerGroup("shop")
    group.signal("own", formerly="own_formerly")
    group.signal("order_placed", formerly="order_made")
    with pytest.raises(SignalConflictError):
        group.register(signals)
    assert list(signals) == ["order_made"]
    assert "own_formerly" not in signals


# Plugins


def test_a_plugin_takes_its_old_names_along_each_time(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", OURS)
    for _ in range(3):
        (report,) = load_plugins(signals=signals)
        assert report.ok, report
        assert report.signals == ("order_placed",)
        assert values(dispatcher, "order_made") == values(dispatcher, "bought") == ["ours"]
        assert unload_plugin("ours", signals=signals)
        assert not signals
        for name in ("order_made", "bought"):
            assert name not in signals


def test_an_event_of_its_own_comes_back_with_its_handlers_when_the_plugin_goes(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """The application, or a registry that is not strict, had declared it before."""
    made = signals.signal("order_made")
    made.subscribe(lambda: "mine")
    install("ours", OURS)
    for _ in range(2):
        assert load_plugins(signals=signals)[0].ok
        assert values(dispatcher, made) == values(dispatcher, "bought") == ["mine", "ours"]
        assert unload_plugin("ours", signals=signals)
        assert list(signals) == ["order_made"]
        assert signals["order_made"] is made
        assert values(dispatcher, "order_made") == ["mine"]


def test_old_names_that_a_plugin_gave_to_an_event_of_others_go_with_the_plugin(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    placed = signals.signal("order_placed", formerly="kept")
    signals.subscribe("order_ma*", lambda: "pattern")
    install("ours", OURS)
    assert load_plugins(signals=signals)[0].ok
    assert placed.formerly == ("kept", "order_made", "bought")
    assert values(dispatcher, placed) == ["pattern", "ours"]
    assert unload_plugin("ours", signals=signals)
    assert placed.formerly == ("kept",)
    assert values(dispatcher, placed) == []


def test_an_event_stays_for_a_handler_of_the_application(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", OURS)
    assert load_plugins(signals=signals)[0].ok
    with signals.subscribe("order_made", lambda: "mine"):
        assert unload_plugin("ours", signals=signals)
        assert values(dispatcher, "order_placed") == ["mine"]
        assert signals["order_placed"].formerly == ()


def test_names_that_another_plugin_declares_too_stay(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", OURS)
    install("theirs", OURS)
    install("zzz", OURS.replace('"order_placed", formerly=("order_made", "bought")', '"bought"'))
    assert all(it.ok for it in load_plugins(signals=signals))
    assert unload_plugin("ours", signals=signals)
    assert signals["order_placed"].formerly == ("order_made", "bought")
    assert unload_plugin("theirs", signals=signals)
    assert signals["order_placed"].formerly == ("order_made", "bought")


def test_a_plugin_that_knows_an_event_by_its_old_name_keeps_it_declared(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    install("ours", OURS)
    install("theirs", OURS.replace('"order_placed", formerly=("order_made", "bought")', '"bought"')
            .replace('"order_made"', '"bought"'))  # fmt: skip
    assert all(it.ok for it in load_plugins(signals=signals))
    signals["order_placed"].unsubscribe(sys.modules["theirs"].note)
    assert unload_plugin("ours", signals=signals)
    assert signals["bought"] is signals["order_placed"]
    assert "order_made" not in signals


MODULES_OWN = """
    from madcrow_events import BaseEventContext, HandlerGroup, madcrow_signals


    class Paid(BaseEventContext):
        pass


    paid = madcrow_signals.signal("ours.paid", context=Paid, formerly="ours.bought")
    group = HandlerGroup("ours")
    FAILURE


    @group.on("ours.bought")
    def note(context: Paid):
        return "ours"
"""


def test_old_names_that_a_module_declares_come_with_each_load(install: Install) -> None:
    """A module is imported once, and may have failed, been unloaded, or isolated since."""
    failing = MODULES_OWN.replace("FAILURE", "group.on('zzz.done')(lambda: None)")
    install("ours", failing)
    dispatcher = EventDispatcher()
    bought = madcrow_signals.signal("ours.bought")
    bought.subscribe(lambda: "mine")
    for _ in range(2):
        assert load_plugins()[0].status == "failed"
        assert values(dispatcher, "ours.bought") == ["mine"]
        assert madcrow_signals["ours.bought"] is bought
        assert "ours.paid" not in madcrow_signals
    madcrow_signals.signal("zzz.done")
    with madcrow_signals.isolated():
        assert load_plugins()[0].ok
        assert values(dispatcher, "ours.bought") == ["mine", "ours"]
    assert values(dispatcher, bought) == ["mine"]
    assert load_plugins()[0].ok
    assert sys.modules["ours"].paid.formerly == ("ours.bought",)
    assert values(dispatcher, "ours.paid") == ["mine", "ours"]
    assert unload_plugin("ours")
    assert sys.modules["ours"].paid.name in madcrow_signals, "a handler is subscribed to it"
    madcrow_signals.unsubscribe("ours.paid", madcrow_signals["ours.paid"].subscriptions[0].handler)


def test_a_plugin_whose_event_took_the_place_of_anothers_leaves_that_alone(
    install: Install, signals: SignalRegistry
) -> None:
    """The application may give a plugin's event a new name."""
    source = """
        from madcrow_events import HandlerGroup
        group = HandlerGroup("ours")
        group.signal("order_made")
        group.on("order_made")(lambda: "ours")
        """
    install("ours", textwrap.dedent(source))
    assert load_plugins(signals=signals)[0].ok
    placed = signals.signal("order_placed", formerly="order_made")
    assert len(placed.subscriptions) == 1
    assert unload_plugin("ours", signals=signals)
    assert signals["order_made"] is placed
    assert not placed.subscriptions


def test_unloading_in_an_isolated_block_is_undone(
    install: Install, signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    made = signals.signal("order_made")
    made.subscribe(lambda: "mine")
    install("ours", OURS)
    assert load_plugins(signals=signals)[0].ok
    placed = signals["order_placed"]
    with signals.isolated():
        assert unload_plugin("ours", signals=signals)
        assert signals["order_made"] is made
    assert signals["order_made"] is placed
    for event in ("order_placed", "order_made", "bought", made, placed):
        assert values(dispatcher, event) == ["mine", "ours"]
    assert unload_plugin("ours", signals=signals)
    assert values(dispatcher, "order_made") == values(dispatcher, made) == ["mine"]


def test_a_name_is_taken_back_wholly_after_an_interrupt(
    signals: SignalRegistry, dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = signals.signal("order_made")
    made.subscribe(lambda: "mine")
    signals.signal("order_placed", formerly="order_made")
    real, left = renaming.move, [KeyboardInterrupt]

    def move(*arguments: Any) -> None:
        real(*arguments)
        if left:
            raise left.pop()

    monkeypatch.setattr(renaming, "move", move)
    with pytest.raises(KeyboardInterrupt):
        renaming.take_back(signals, ["order_made"])
    assert signals["order_made"] is made
    assert values(dispatcher, "order_made") == ["mine"]
    left.append(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        signals.signal("order_placed", formerly="order_made")
    assert values(dispatcher, "order_placed") == values(dispatcher, "order_made") == ["mine"]
    assert list(signals) == ["order_placed"]


# The test of a plugin


@pytest.mark.parametrize("heard", ["order_made", "order_m*", "order_placed"])
@pytest.mark.parametrize("named", ["order_made", "order_placed"])
def test_a_plugin_that_declares_old_names_works(heard: str, named: str) -> None:
    group = HandlerGroup("shop")
    group.signal("order_placed", formerly="order_made")

    @group.on(heard)
    def note(sender: Any, **context: Any) -> None:
        assert context["number"] == 7

    assert_plugin_works(group, examples={named: {"number": 7}})
