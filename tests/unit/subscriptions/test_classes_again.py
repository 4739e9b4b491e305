"""A context class whose module runs again stands for its event as before (N7, H8, N10)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    HandlerGroup,
    emit_event,
    madcrow_signals,
    register_handler,
    unregister_handler,
)
from madcrow_events.testing import fake_events, record_events
from support.executions import RUNS, Run
from support.subscribers import OrderPlaced

pytestmark = [
    pytest.mark.guarantee("N7"),
    pytest.mark.guarantee("N10"),
    pytest.mark.guarantee("H8"),
]

EVENTS = """
from madcrow_events import *
class Ordered(BaseEventContext):
    order_id: int
@madcrow_signals.event
class Placed(Ordered):
    total: int = 0
"""

HANDLER = """
@on_event({0})
def handler(context: {0}):
    return type(context)
"""

of_both = pytest.mark.parametrize("class_", ["Placed", "Ordered"])


@pytest.fixture(params=RUNS, ids=lambda kind: kind.__name__)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    made: Run = request.param(tmp_path, monkeypatch)
    return made


def values(context: BaseEventContext) -> list[Any]:
    """Return what the handlers of a context return."""
    emission = emit_event(context)
    assert emission.ok, emission.failures
    return [result.value for result in emission.results]


def order_id(sender: object, **context: Any) -> Any:
    """Handle an event, in a module that does not run again."""
    return context["order_id"]


@of_both
def test_a_handler_that_is_defined_again_for_a_class_runs_once(run: Run, class_: str) -> None:
    for _ in range(3):
        namespace = run(EVENTS + HANDLER.format(class_))
        placed = namespace["Placed"]
        assert values(placed(order_id=7)) == [placed]
    assert unregister_handler(namespace[class_], namespace["handler"])
    assert not madcrow_signals.subscriptions


@of_both
def test_so_does_one_that_is_subscribed_before_its_events_are_declared(
    run: Run, class_: str
) -> None:
    base, model = EVENTS.split("@madcrow_signals.event\n")
    handler = HANDLER.format(class_)
    source = base + handler + model if class_ == "Ordered" else base + model + handler
    for _ in range(3):
        placed = run(source + "madcrow_signals.event(Placed)\n")["Placed"]
        assert values(placed(order_id=7)) == [placed]


def test_a_handler_that_is_subscribed_to_both_classes_runs_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the events of the second are declared, nothing shows that it replaces the first."""
    monkeypatch.setattr(madcrow_signals, "handler", order_id, raising=False)
    base, events = EVENTS.split("@madcrow_signals.event\n")
    subscribe = "on_event(Ordered)(madcrow_signals.handler)\n@madcrow_signals.event\n"
    for _ in range(3):
        placed = run(base + subscribe + events)["Placed"]
        assert values(placed(order_id=7)) == [7]
    assert len(madcrow_signals.subscriptions) == 2, "to the class, and its part"


@of_both
def test_a_handler_of_another_module_follows_the_class(run: Run, class_: str) -> None:
    """Also to an event that the module has declared only since."""
    first = run(EVENTS)
    subscription = register_handler(first[class_], order_id, id="note")
    second = run(EVENTS + "@madcrow_signals.event\nclass Gift(Placed): ...\n")
    assert second[class_] is not first[class_]
    for model in (second["Placed"], second["Gift"], first["Placed"]):
        assert values(model(order_id=7)) == [7]
    for known in (first, second):
        assert register_handler(known[class_], order_id, id="note") is subscription
    assert unregister_handler(first[class_], order_id) is True
    assert unregister_handler(second[class_], order_id) is False
    assert not madcrow_signals.subscriptions


@of_both
def test_a_handler_may_still_name_the_class_of_before(run: Run, class_: str) -> None:
    first, second = run(EVENTS), run(EVENTS)

    def by_context(context: Any) -> type:
        return type(context)

    def with_sender(sender: object, context: Any) -> type:
        return type(context)

    for handler in (by_context, with_sender):
        handler.__annotations__["context"] = first[class_]
        register_handler(second[class_], handler)
    group = HandlerGroup("shop")
    group.on(first[class_])(by_context)
    group.register()
    assert values(second["Placed"](order_id=7)) == [second["Placed"]] * 2


def test_the_class_of_before_stands_for_the_event_and_is_told_of_once(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = run(EVENTS), run(EVENTS)
    caplog.set_level(logging.WARNING, logger="madcrow_events")
    assert madcrow_signals[first["Placed"]] is madcrow_signals[second["Placed"]]
    derived = type("Gift", (first["Placed"],), {})
    for model in (first["Placed"], first["Placed"], derived):
        emission = emit_event(model(order_id=7))
        assert type(emission.context) is second["Placed"]
    assert [record.getMessage().partition(" as it was")[2] for record in caplog.records] == [
        " before its module ran again: import it again"
    ]


@of_both
def test_an_isolated_block_gives_the_class_back(run: Run, class_: str) -> None:
    first = run(EVENTS)
    subscription: Any = register_handler(first[class_], order_id, id="note")
    with madcrow_signals.isolated():
        second = run(EVENTS)
        assert values(second["Placed"](order_id=1)) == [1]
        assert subscription.pattern is second[class_]
    assert subscription.pattern is first[class_]
    assert madcrow_signals[first["Placed"]].context_model is first["Placed"]
    assert values(first["Placed"](order_id=2)) == [2]
    assert register_handler(first[class_], order_id, id="note") is subscription


@of_both
def test_what_records_a_class_goes_on(run: Run, class_: str) -> None:
    first = run(EVENTS)
    with record_events(first[class_]) as events, fake_events(first[class_]) as faked:
        second = run(EVENTS + HANDLER.format(class_))
        emission = emit_event(second["Placed"](order_id=7))
    assert not emission.results
    for recorder in (events, faked):
        for known in (first, second):
            assert recorder.assert_emitted(known[class_], order_id=7) is emission


def test_a_model_that_gets_another_base_is_caught_by_that(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Noted(BaseEventContext): ...

    monkeypatch.setattr(madcrow_signals, "noted", Noted, raising=False)
    register_handler(Noted, order_id)
    with fake_events(Noted) as faked:
        assert values(run(EVENTS)["Placed"](order_id=1)) == []
        noted = run(EVENTS.replace("Ordered(BaseEventContext)", "Ordered(madcrow_signals.noted)"))
        assert values(noted["Placed"](order_id=2)) == []
    faked.assert_emitted(Noted, times=1)
    assert values(noted["Placed"](order_id=3)) == [3]


def test_a_class_that_is_no_longer_a_base_is_heard_until_it_is_unsubscribed(run: Run) -> None:
    """As a handler that is annotated with it."""
    first = run(EVENTS)
    register_handler(first["Ordered"], order_id)
    second = run(
        EVENTS.replace("Placed(Ordered)", "Placed(BaseEventContext)") + "    order_id: int\n"
    )
    assert values(second["Placed"](order_id=7)) == [7]
    assert unregister_handler(first["Ordered"], order_id)
    register_handler(second["Ordered"], order_id)
    assert values(second["Placed"](order_id=7)) == []


def test_an_old_context_of_a_derived_class_is_not_that_of_its_base(run: Run) -> None:
    """Only the derived class is defined again, here below a base of another module."""
    source = """
from madcrow_events import *
from support.subscribers import OrderPlaced
@madcrow_signals.event
class Gift(OrderPlaced):
    "What it says: {0}."
    greeting: str = ""
"""
    madcrow_signals.event(OrderPlaced)
    old = run(source.format("the first"))["Gift"](order_id=7)
    gift = run(source.format("the second"))["Gift"]

    @madcrow_signals["gift"].on()
    def handle(context: BaseEventContext) -> type[BaseEventContext]:
        return type(context)

    assert values(old) == [gift]
    assert madcrow_signals[type(old)].name == madcrow_signals.explain(old).event == "gift"
    assert madcrow_signals["gift"].doc == "What it says: the second."


def test_an_old_context_of_a_model_of_two_events_is_that_of_neither(run: Run) -> None:
    source = """
from madcrow_events import *
class Seen(BaseEventContext): ...
for name in ("first_seen", "last_seen"):
    madcrow_signals.signal(name, context=Seen)
"""
    old = run(source)["Seen"]()
    run(source)
    with pytest.raises(ContextTypeError, match="may be any of the events first_seen, last_seen"):
        emit_event(old)


def test_an_old_context_is_explained_as_it_is_emitted(run: Run) -> None:
    """With the new defaults, or not at all if it does not fit the new class."""
    old = run(EVENTS)["Placed"](order_id=7)
    named = EVENTS.replace("total: int = 0", "total: int = 0\n    name: str = 'Ada'")
    run(named)
    madcrow_signals.subscribe("placed", order_id, when=lambda context: context["name"] == "Ada")

    assert [it.mode for it in madcrow_signals.explain(old).called] == ["inline"]
    assert values(old) == [7]
    run(named.replace(" = 'Ada'", ""))
    with pytest.raises(ContextValidationError, match="name: missing"):
        madcrow_signals.explain(old)


def test_a_block_restores_what_an_event_says(run: Run) -> None:
    says = EVENTS.replace("    total", '    "It says one."\n    total')
    run(says)
    with madcrow_signals.isolated():
        run(says.replace("one", "two"))
        assert madcrow_signals["placed"].doc == "It says two."
    assert madcrow_signals["placed"].doc == "It says one."
