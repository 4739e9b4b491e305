"""A context class declares its event, and stands for it (N10)."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any, Generic

import pytest
from pydantic import BaseModel
from typing_extensions import TypeVar

from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    ContextTypeError,
    EventDispatcher,
    GenericEventContext,
    InvalidEventNameError,
    LoginEventContext,
    SignalConflictError,
    SignalRegistry,
    UnknownEventError,
    madcrow_signals,
    user_logged_in,
)
from madcrow_events.models import HandlerFailedEventContext
from support.subscribers import OrderPlaced

ValueT = TypeVar("ValueT")


class Gift(OrderPlaced):
    greeting: str = ""


class Changed(BaseEventContext, Generic[ValueT]):
    value: ValueT


@pytest.mark.guarantee("N10")
def test_a_class_declares_the_event_that_is_named_after_it(signals: SignalRegistry) -> None:
    @signals.event
    class OrderSent(OrderPlaced):
        """An order left the house.

        By whatever way.
        """

    signal = signals["order_sent"]
    assert issubclass(OrderSent, OrderPlaced)
    assert signal.context_model is OrderSent
    assert signal.doc == "An order left the house."
    assert signals[OrderSent] is signals.resolve(OrderSent) is signal
    assert signals.event(OrderSent) is OrderSent  # and once more


@pytest.mark.guarantee("N10")
def test_the_name_and_the_text_can_be_given(signals: SignalRegistry) -> None:
    @signals.event(name="shop.order-lost", doc="An order went astray.")
    class Lost(OrderPlaced):
        """Not this."""

    @signals.event()
    class Plain(OrderPlaced): ...

    assert signals[Lost].name == "shop.order_lost"
    assert signals[Lost].doc == "An order went astray."
    assert signals[Plain].name == "plain"
    assert signals[Plain].doc is None
    assert signals.event(doc="")(OrderPlaced) is OrderPlaced
    assert signals[OrderPlaced].doc == ""


@pytest.mark.guarantee("N10")
@pytest.mark.parametrize(
    ("name", "event"),
    [
        ("Paid", "paid"),
        ("OrderPlaced", "order_placed"),
        ("HTTPRequestFailed", "http_request_failed"),
        ("RequestOverHTTP", "request_over_http"),
        ("Order2Placed", "order2_placed"),
        ("Order_Placed", "order_placed"),
        ("order", "order"),
    ],
)
def test_capital_letters_begin_the_words_of_a_name(
    signals: SignalRegistry, name: str, event: str
) -> None:
    model = type(name, (BaseEventContext,), {})
    signals.event(model)
    assert list(signals) == [event]


@pytest.mark.guarantee("N10")
@pytest.mark.parametrize("model", [type("_Order", (OrderPlaced,), {}), Changed[int]])
def test_a_class_after_which_no_event_can_be_named_needs_a_name(
    signals: SignalRegistry, model: type[BaseEventContext]
) -> None:
    with pytest.raises(InvalidEventNameError, match=r"event\(name='order_placed'\)"):
        signals.event(model)
    signals.event(name="changed")(model)
    assert signals[model].name == "changed"
    with pytest.raises(InvalidEventNameError, match="'' is not the name of an event"):
        signals.event(name="")(model)


@pytest.mark.guarantee("N10")
@pytest.mark.parametrize("thing", [int, print, "order_placed", OrderPlaced(order_id=7)])
@pytest.mark.parametrize("keywords", [{}, {"name": "order_placed"}])
def test_only_a_context_class_is_decorated(
    signals: SignalRegistry, thing: Any, keywords: Any
) -> None:
    decorate: Callable[..., Any] = signals.event(**keywords) if keywords else signals.event
    with pytest.raises(ContextModelError, match="above a class that derives from BaseEventContext"):
        decorate(thing)
    assert not signals


@pytest.mark.guarantee("N10")
@pytest.mark.parametrize(
    ("thing", "fix"),
    [
        (
            type("Returned", (BaseModel,), {}),
            r"Returned derives from BaseModel, so write class Returned\(BaseEventContext\)",
        ),
        (type("Returned", (), {}), r"Returned does not, so write class Returned\(BaseEventContext"),
        ("order_placed", r"give the name as in @registry.event\(name='order_placed'\)"),
        (print, r"above a handler, write @on_event\(OrderPlaced\)"),
    ],
)
def test_what_is_decorated_by_mistake_is_told_what_to_write(
    signals: SignalRegistry, thing: Any, fix: str
) -> None:
    with pytest.raises(ContextModelError, match=fix):
        signals.event(thing)


@pytest.mark.guarantee("N10")
def test_a_declared_event_is_not_declared_with_another_class(signals: SignalRegistry) -> None:
    signals.signal("order_placed")
    with pytest.raises(SignalConflictError, match="declared already, with no context model"):
        signals.event(OrderPlaced)
    with pytest.raises(ContextModelError, match="with a GenericEventContext"):
        signals.event(GenericEventContext)
    fix = r"use the built-in event, as in @on_event\(LoginEventContext\), or choose another name"
    with pytest.raises(SignalConflictError, match=fix):
        madcrow_signals.event(name="user_logged_in")(OrderPlaced)


@pytest.mark.guarantee("N10")
def test_a_class_stands_for_the_event_whose_model_it_is(signals: SignalRegistry) -> None:
    placed = signals.signal("placed", context=OrderPlaced)
    assert signals[OrderPlaced] is placed
    for model in (Gift, BaseEventContext, GenericEventContext):
        with pytest.raises(UnknownEventError, match="the model of no event of <SignalRegistry"):
            signals[model]
    for model, fix in (
        (Gift, r"emitted as placed, the event of its base OrderPlaced, so give OrderPlaced, or wr"),
        (BaseEventContext, "it is the base of placed, so give one of these"),
        (GenericEventContext, r"write @registry.event above class GenericEventContext, or import"),
    ):
        with pytest.raises(UnknownEventError, match=fix):
            signals[model]
    with pytest.raises(UnknownEventError, match=r"the base of \w+, \w+, \w+ and others, so"):
        madcrow_signals[BaseEventContext]
    given = signals.signal("given", context=Gift)
    assert signals[Gift] is given
    assert signals[OrderPlaced] is placed
    assert madcrow_signals[LoginEventContext] is user_logged_in
    with pytest.raises(UnknownEventError, match=r"no event of madcrow_signals: write @madcrow_sig"):
        madcrow_signals[OrderPlaced]


@pytest.mark.guarantee("N10")
def test_the_model_of_two_events_stands_for_neither(signals: SignalRegistry) -> None:
    signals.signal("first", context=OrderPlaced)
    signals.signal("second", context=OrderPlaced)
    with pytest.raises(ContextTypeError, match="any of the events first, second: say which"):
        signals[OrderPlaced]
    signals.pop("first")
    assert signals[OrderPlaced].name == "second"


@pytest.mark.guarantee("N10")
def test_a_class_that_is_no_context_names_no_event(signals: SignalRegistry) -> None:
    with pytest.raises(InvalidEventNameError, match="the class int names no event: give the"):
        signals[int]
    with pytest.raises(InvalidEventNameError, match="not by a context: give OrderPlaced"):
        signals[OrderPlaced(order_id=7)]


@pytest.mark.guarantee("N10")
def test_the_base_of_all_contexts_can_be_the_model_of_an_event(signals: SignalRegistry) -> None:
    signals.signal("anything", context=BaseEventContext)
    assert signals[BaseEventContext].name == "anything"
    with pytest.raises(UnknownEventError):
        signals[OrderPlaced]
    assert signals.event(name="handler_failed")(HandlerFailedEventContext)
    assert signals[HandlerFailedEventContext].name == "handler_failed"


@pytest.mark.guarantee("N10")
@pytest.mark.parametrize(
    "take_out",
    [
        lambda signals: signals.pop("order_placed"),
        lambda signals: signals.__delitem__("order-placed"),
        lambda signals: signals.popitem(),
        lambda signals: signals.clear(),
    ],
)
def test_a_class_no_longer_stands_for_an_event_that_is_taken_out(
    signals: SignalRegistry, take_out: Callable[[SignalRegistry], object]
) -> None:
    signals.event(OrderPlaced)
    assert signals[OrderPlaced]
    take_out(signals)
    assert not signals
    with pytest.raises(UnknownEventError):
        signals[OrderPlaced]
    with signals.isolated():
        signals.event(OrderPlaced)
        assert signals[OrderPlaced]
    with pytest.raises(UnknownEventError):
        signals[OrderPlaced]


@pytest.mark.guarantee("N10")
@pytest.mark.parametrize("empty", [False, True])
def test_an_isolated_block_restores_what_a_class_stands_for(
    signals: SignalRegistry, *, empty: bool
) -> None:
    signals.event(OrderPlaced)
    placed = signals[OrderPlaced]
    with signals.isolated(empty=empty), signals.isolated(empty=empty):
        signals.pop("order_placed", None)
        with pytest.raises(UnknownEventError):
            signals[OrderPlaced]
        signals.signal("other", context=OrderPlaced)
        assert signals[OrderPlaced].name == "other"
        signals.signal("another", context=OrderPlaced)
    assert signals[OrderPlaced] is placed
    assert copy.copy(signals)[OrderPlaced] is placed


def test_a_class_whose_event_an_empty_block_has_set_aside_is_told_so(
    signals: SignalRegistry,
) -> None:
    signals.event(name="shop.placed")(OrderPlaced)
    placed = signals[OrderPlaced]
    with signals.isolated(empty=True):
        with pytest.raises(UnknownEventError, match=r"signal\('shop.placed', context=OrderPla"):
            signals[OrderPlaced]
        signals.signal("shop.placed", context=OrderPlaced)
        assert signals[OrderPlaced] is placed


@pytest.mark.guarantee("N3")
@pytest.mark.guarantee("N10")
def test_a_class_is_asked_for_without_an_error(signals: SignalRegistry) -> None:
    assert OrderPlaced not in signals
    assert signals.get(OrderPlaced, "none") == "none"
    signals.event(OrderPlaced)
    assert OrderPlaced in signals
    assert signals.get(OrderPlaced) is signals[OrderPlaced]
    signals.signal("other", context=OrderPlaced)
    assert OrderPlaced not in signals
    del signals["other"]
    assert signals.pop(OrderPlaced).name == "order_placed"
    assert signals.pop(OrderPlaced, None) is None
    with pytest.raises(KeyError):
        del signals[OrderPlaced]
    assert int not in signals


@pytest.mark.guarantee("N10")
@pytest.mark.guarantee("E4")
def test_each_class_of_one_parametrised_generic_stands_for_its_event(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Pydantic may make one for each thread."""
    signals.signal("changed", context=Changed[int])
    signals.signal("changed_somehow", context=Changed)
    of_thread: Any = type("Changed[int]", (Changed,), {})
    of_thread.__pydantic_generic_metadata__ = Changed[int].__pydantic_generic_metadata__
    derived = type("Derived", (of_thread,), {})
    for model in (Changed[int], of_thread, derived):
        assert dispatcher.emit(model(value=7)).event == "changed"
    assert signals[of_thread] is signals[Changed[int]] is signals["changed"]
    with pytest.raises(UnknownEventError):
        signals[derived]
    assert dispatcher.emit(Changed[str](value="7")).event == "changed_somehow"


def test_a_generic_whose_parameter_has_no_hash_stands_for_its_event(
    signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Changed[int]
    metadata = {**model.__pydantic_generic_metadata__, "args": ([],)}
    monkeypatch.setattr(model, "__pydantic_generic_metadata__", metadata)
    signals.signal("changed", context=model)
    assert signals[model].name == "changed"


@pytest.mark.guarantee("N10")
@pytest.mark.usefixtures("threads_switch_often")
def test_threads_emit_by_class_while_others_declare(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    models = [type(f"Model{number}", (BaseEventContext,), {}) for number in range(200)]
    wrong: list[Any] = []
    start = threading.Barrier(3)

    def declare() -> None:
        start.wait()
        for model in models:
            signals.event(model)
            if dispatcher.emit(model()).signal.context_model is not model:
                wrong.append(model)

    def emit() -> None:
        start.wait()
        for model in [model for model in models for _ in range(5)]:
            try:
                emission = dispatcher.emit(model())
            except UnknownEventError:
                continue
            if emission.signal.context_model is not model:
                wrong.append(model)

    threads = [threading.Thread(target=it) for it in (declare, emit, emit)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [signals[model].context_model for model in models] == models
