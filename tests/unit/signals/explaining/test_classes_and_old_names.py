"""Explanations name context classes, and know the old names of events (X1, H8, N8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    EventDispatcher,
    GenericEventContext,
    HandlerFailedEventContext,
    SignalRegistry,
    UnknownEventError,
    event_scope,
    madcrow_signals,
    on_event,
)
from madcrow_events.testing import fake_events
from support.executions import RUNS, Run
from support.explaining import called, handler, left_out, only

pytestmark = pytest.mark.guarantee("X1")

old_name = pytest.mark.filterwarnings("ignore:the event .* is called .* now:DeprecationWarning")


class Ordered(BaseEventContext):
    order_id: int


class Placed(Ordered):
    total: float = 0


def take_base(context: Ordered) -> None: ...


# Classes


@pytest.mark.guarantee("H8")
def test_who_listens_to_a_class_is_named_with_it(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """And the event may be named by its class."""
    signals.event(Placed)
    signals.subscribe(Ordered, take_base, id="base")
    signals.subscribe("pla*", handler(), id="pattern")
    signals.subscribe("placed", handler(), id="own", when=lambda context: "total" in context)

    explanation = signals.explain(Placed, order_id=7)

    assert [(it.name, it.pattern) for it in explanation.called] == [
        ("base", "Ordered"),
        ("pattern", "pla*"),
    ]
    assert left_out(explanation) == {"own": "when"}
    assert "  1. base: inline, by the class Ordered\n" in str(explanation)
    assert "  2. pattern: inline, by the pattern pla*\n" in str(explanation)
    emission = dispatcher.emit("placed", order_id=7)
    assert [emission.name_of(it.handler) for it in emission.results] == ["base", "pattern"]


@pytest.mark.guarantee("H8")
def test_a_context_that_does_not_fit_the_class_is_told(signals: SignalRegistry) -> None:
    signals.event(Placed)
    signals.subscribe(Ordered, take_base, id="base")

    entry = only(signals.explain("placed", total=3))

    assert (entry.reason, entry.pattern) == ("context", "Ordered")
    assert "order_id: missing" in entry.detail
    assert str(entry).startswith("base (by the class Ordered): the context does not fit it: ")


@pytest.mark.guarantee("E4")
def test_a_context_is_explained_as_it_is_emitted(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """A class derived from the model, and a generic context, stand for their events, too."""

    class Late(Placed): ...

    signals.event(Placed)
    signals.subscribe(Placed, handler(), id="big", when=lambda context: context["total"] > 1)
    signals.subscribe(Placed, lambda request_id: seen.append(request_id), id="scoped")
    seen: list[str] = []

    with event_scope(request_id="r1"):
        for context, names in (
            (Placed(order_id=7), ["scoped"]),
            (Late(order_id=7, total=2), ["big", "scoped"]),
            (GenericEventContext(event_type="placed", data={"total": 2}), ["big", "scoped"]),
        ):
            assert called(signals.explain(context, sender=None)) == names
            assert not seen
            emission = dispatcher.emit(context)
            assert [emission.name_of(it.handler) for it in emission.results] == names
            seen.clear()
    assert signals.explain(Placed(order_id=7)).has_context


@pytest.mark.guarantee("E4")
def test_a_context_that_cannot_be_emitted_is_not_explained(signals: SignalRegistry) -> None:
    with pytest.raises(UnknownEventError, match="Placed is the model of no event"):
        signals.explain(Placed(order_id=7))
    signals.event(Placed)
    with pytest.raises(ContextTypeError, match="the keyword 'total' beside its context"):
        signals.explain(Placed(order_id=7), total=3)


@pytest.mark.guarantee("C2")
@pytest.mark.guarantee("H8")
def test_a_failure_is_an_event_that_its_class_stands_for(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """It is declared when its class is first used."""
    told: list[str] = []

    def tell(context: HandlerFailedEventContext) -> None:
        told.append(context.handler_name)

    def fail() -> None:
        raise ValueError

    signals.event(Placed)
    signals.subscribe(Placed, fail, id="broken")
    signals.subscribe(HandlerFailedEventContext, tell, id="tell")

    dispatcher.emit(Placed(order_id=7))

    assert told == ["broken"]
    assert called(signals.explain(HandlerFailedEventContext)) == ["tell"]
    assert SignalRegistry()[HandlerFailedEventContext].name == "handler_failed"


@pytest.mark.guarantee("H8")
def test_a_class_that_no_event_carries_is_told(signals: SignalRegistry) -> None:
    signal = signals.signal("thing_happened")
    signals.subscribe(Placed, handler(), id="waits")

    entry = only(signals.explain(signal))

    assert (entry.reason, entry.pattern, entry.has_ended) == ("unmatched", "Placed", False)
    assert str(entry) == "waits (by the class Placed): no declared event has a model of its class"
    signals.event(Placed)
    assert left_out(signals.explain(signal)) == {}
    assert called(signals.explain(Placed)) == ["waits"]


@pytest.mark.guarantee("H8")
def test_who_listened_to_a_class_is_told_after_the_end(signals: SignalRegistry) -> None:
    signals.event(Placed)
    signals.subscribe(Ordered, handler(), id="gone").cancel()
    signals.subscribe(Ordered, handler(), id="once", once=True)
    with signals.isolated():
        signals.subscribe(Placed, handler(), id="inner")
        with fake_events(Ordered, signals=signals):
            assert left_out(signals.explain(Placed)) == {
                "once": "faked",
                "inner": "faked",
                "gone": "cancelled",
            }

    ended = signals.explain(Placed).left_out

    assert [(it.name, it.reason, it.pattern) for it in ended] == [
        ("gone", "cancelled", "Ordered"),
        ("inner", "isolated", "Placed"),
    ]
    assert str(ended[1]).startswith("inner (by the class Placed): ")


EVENTS = """
from madcrow_events import *
@madcrow_signals.event
class Placed(BaseEventContext): ...
"""


@pytest.mark.guarantee("H8")
@pytest.mark.parametrize("kind", RUNS)
def test_a_handler_that_came_before_its_classes_became_one_is_told_as_replaced(
    kind: type[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is subscribed to the class of each execution, before the event has the second one."""
    run = kind(tmp_path, monkeypatch)
    monkeypatch.setattr(madcrow_signals, "handler", handler(), raising=False)
    subscribe = "on_event(Placed)(madcrow_signals.handler)\n"
    source = EVENTS.replace("@madcrow_signals.event\n", "")
    for _ in range(2):
        run(source + subscribe + "madcrow_signals.event(Placed)\n")

    explanation = madcrow_signals.explain("placed")

    assert called(explanation) == ["handle"]
    assert left_out(explanation) == {"handle": "replaced"}


# Old names


@old_name
@pytest.mark.guarantee("N8")
def test_an_old_name_is_explained_as_the_event_that_it_means(signals: SignalRegistry) -> None:
    made = signals.signal("order_made")
    signals.subscribe("order_made", handler(), id="by old name")
    signals.subscribe("*_made", handler(), id="by pattern")
    signals.subscribe("order_*", handler(), id="by both")
    placed = signals.signal("order_placed", formerly="order_made")

    explanation = signals.explain("order_made")

    assert explanation.event == "order_placed"
    assert explanation == signals.explain(placed) == signals.explain(made)
    assert [(it.name, it.pattern) for it in explanation.called] == [
        ("by old name", None),
        ("by pattern", "*_made"),
        ("by both", "order_*"),
    ]
    assert explanation.left_out == ()


@old_name
@pytest.mark.guarantee("N8")
def test_who_is_subscribed_to_both_names_is_called_once_and_not_told_as_ended(
    signals: SignalRegistry,
) -> None:
    receive = handler()
    signals.subscribe(signals.signal("order_made"), receive)
    signals.subscribe(signals.signal("order_placed"), receive)
    signals.signal("order_placed", formerly="order_made")

    explanation = signals.explain("order_placed")

    assert called(explanation) == ["handle"]
    assert explanation.left_out == ()


@old_name
@pytest.mark.guarantee("N8")
@pytest.mark.guarantee("N10")
def test_a_class_may_stand_for_an_event_with_old_names(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    heard: list[Any] = []
    signals.signal("order_made").subscribe(lambda order_id: heard.append(order_id))

    @on_event(Ordered, signals=signals)
    def note(context: Ordered) -> None:
        heard.append(type(context))

    @signals.event(formerly=["order_made", "order.made"])
    class OrderPlaced(Ordered):
        """An order came in."""

    assert signals[OrderPlaced].formerly == ("order_made", "order.made")
    assert signals["order_made"] is signals[OrderPlaced] is signals["order_placed"]
    assert dispatcher.emit(OrderPlaced(order_id=7)).ok
    assert dispatcher.emit("order_made", order_id=8).ok
    assert heard == [7, OrderPlaced, 8, OrderPlaced]
    with fake_events(Ordered, signals=signals) as faked:
        dispatcher.emit("order.made", order_id=9)
    faked.assert_emitted("order_made", order_id=9)
    faked.assert_emitted(Ordered, order_id=9)
    assert len(heard) == 4


def test_what_is_forgotten_at_once_takes_its_old_names_along(signals: SignalRegistry) -> None:
    signals.signal("order_placed", formerly="order_made")
    signals.signal("order_paid", formerly="order_billed")
    assert signals.popitem()[0] == "order_paid"
    assert "order_billed" not in signals
    assert signals.signal("order_billed").name == "order_billed"
    signals.clear()
    assert not signals
    assert signals.signal("order_made").name == "order_made"
