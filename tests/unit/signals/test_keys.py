"""The ordering key of an event, a part of its declaration (N2, N7, N10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    EventSignal,
    HandlerGroup,
    SignalConflictError,
    SignalRegistry,
    madcrow_signals,
)
from madcrow_events.signals import _keys as keys
from support.executions import RUNS, Run

pytestmark = [pytest.mark.guarantee("N2"), pytest.mark.guarantee("K5")]


class OrderPlaced(BaseEventContext):
    order_id: int
    customer_id: int = 0


def by_customer(context: OrderPlaced) -> object:
    return context.customer_id


def by_order(context: OrderPlaced) -> object:
    return context.order_id


def test_a_signal_has_no_key_unless_one_is_declared(signals: SignalRegistry) -> None:
    assert EventSignal("thing_happened").key is None
    assert signals.signal("thing_happened").key is None


@pytest.mark.parametrize("key", ["customer_id", "request_id", by_customer])
def test_a_key_is_a_field_or_a_function(signals: SignalRegistry, key: Any) -> None:
    placed = signals.signal("order_placed", context=OrderPlaced, key=key)

    assert placed.key is key
    assert signals.signal("order_placed", key=key) is placed


@pytest.mark.guarantee("N10")
def test_a_decorated_class_may_have_a_key(signals: SignalRegistry) -> None:
    signals.event(key="customer_id")(OrderPlaced)

    assert signals[OrderPlaced].key == "customer_id"


def test_a_group_declares_the_key(signals: SignalRegistry) -> None:
    """And a signal that its handlers need is declared with the key that it has elsewhere."""
    group = HandlerGroup("orders")
    group.signal("order_placed", context=OrderPlaced, key="customer_id")
    group.on(SignalRegistry().signal("order_paid", context=OrderPlaced, key=by_order))(
        lambda **context: None
    )
    group.register(signals)

    assert signals["order_placed"].key == "customer_id"
    assert signals["order_paid"].key is by_order


def test_an_event_without_a_model_may_have_any_field_as_its_key(signals: SignalRegistry) -> None:
    assert signals.signal("order_placed", key="customer_id").key == "customer_id"


async def by_question(context: OrderPlaced) -> object: ...


def by_generator(context: OrderPlaced) -> Any:
    yield context.order_id


def by_nothing() -> object: ...


@pytest.mark.parametrize(
    ("key", "model", "said"),
    [
        ("customer", OrderPlaced, "a field of OrderPlaced (order_id, customer_id, timestamp, "),
        ("customer-id", None, "the name of a field, as in key='customer_id', or a plain function"),
        (7, OrderPlaced, "or a plain function of the context, not int"),
        (
            by_question,
            None,
            "not an async function: write key='customer_id' or key=lambda context: ",
        ),
        (
            by_generator,
            OrderPlaced,
            "not a generator function: write key='order_id' or key=lambda ",
        ),
        (
            OrderPlaced,
            OrderPlaced,
            "not the class OrderPlaced: write key='order_id' or key=lambda ",
        ),
        (
            by_nothing,
            OrderPlaced,
            "by_nothing, which cannot be called with the context alone: write",
        ),
        (
            lambda one, two: 0,
            None,
            "<lambda>, which cannot be called with the context alone: write",
        ),
        ("sender", None, "not 'sender': write key='customer_id' or key=lambda context: context."),
        ("self", None, "not 'self': write key='customer_id' or "),
    ],
)
def test_an_impossible_key_is_refused(
    signals: SignalRegistry, key: Any, model: Any, said: str
) -> None:
    with pytest.raises(ContextModelError) as caught:
        signals.signal("order_placed", context=model, key=key)

    assert str(caught.value).startswith("the key of order_placed must be ")
    assert said in str(caught.value)
    assert (caught.value.event, caught.value.model) == ("order_placed", model)
    assert "order_placed" not in signals


def test_a_key_is_compared_with_the_model_that_the_event_has(signals: SignalRegistry) -> None:
    signals.signal("order_placed", context=OrderPlaced)

    with pytest.raises(ContextModelError, match="must be a field of OrderPlaced"):
        signals.signal("order_placed", key="customer")


class Unreadable:
    """A key that is compared and looked at by nobody."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]

    @property
    def __signature__(self) -> Any:
        raise RuntimeError("read")

    def __call__(self, context: OrderPlaced) -> object: ...

    def method(self, context: OrderPlaced) -> object: ...


def test_a_key_is_an_object_of_which_no_code_is_run(signals: SignalRegistry) -> None:
    key = Unreadable()
    placed = signals.signal("order_placed", key=key)

    assert signals.signal("order_placed", key=key) is placed
    with pytest.raises(SignalConflictError, match="Unreadable, not with another one of this name"):
        signals.signal("order_placed", key=Unreadable())
    with signals.isolated(empty=True):
        assert signals.signal("order_placed", key=Unreadable()) is not placed


def test_an_interrupt_is_let_through(
    signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "is_interrupt", lambda _error: True)

    with pytest.raises(RuntimeError):
        signals.signal("order_placed", key=Unreadable())


def key_of(field: Any, *defaults: Any, **named: Any) -> Any:
    """Return a new function with a variable of its closure, and with defaults."""

    def key(context: Any, default: Any = None, *, other: Any = None) -> object:
        return getattr(context, field, default)

    key.__defaults__ = defaults or (None,)
    key.__kwdefaults__ = {"other": None, **named}
    return key


def unset() -> Any:
    """Return a new function whose variable has no value yet."""

    def key(context: Any) -> object:
        return later

    if not key:
        later = 1
    return key


READABLE = Unreadable()


@pytest.mark.parametrize(
    "make",
    [
        lambda: lambda context: context.order_id,
        lambda: key_of("customer_id".lower(), 1.5, other="a".lower()),
        lambda: key_of(READABLE, READABLE),
        unset,
        lambda: READABLE.method,
    ],
)
def test_a_function_that_is_made_twice_is_one_key(signals: SignalRegistry, make: Any) -> None:
    """As by a function that makes the application, in each test."""
    first, second = make(), make()
    assert first is not second

    placed = signals.signal("order_placed", key=first)

    assert signals.signal("order_placed", key=second) is placed
    assert placed.key is first


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (key_of("a"), key_of("b")),
        (key_of(1), key_of(True)),
        (key_of(Unreadable()), key_of(Unreadable())),
        (key_of("a", 1), key_of("a", 2)),
        (key_of("a", 1), key_of("a", None, 1)),
        (key_of("a", other=1), key_of("a", other=2)),
        (Unreadable().method, Unreadable().method),
    ],
)
def test_functions_that_were_made_with_other_values_are_a_conflict(
    signals: SignalRegistry, first: Any, second: Any
) -> None:
    signals.signal("order_placed", key=first)

    line = (first.__func__ if first.__name__ == "method" else first).__code__.co_firstlineno
    said = rf" \(.*test_keys.py:{line}\), not with another one of this name: declare it once"
    with pytest.raises(SignalConflictError, match=said):
        signals.signal("order_placed", key=second)


def test_two_lambdas_are_told_apart_by_their_lines(signals: SignalRegistry) -> None:
    first, second = (
        lambda context: context.order_id,
        lambda context: context.customer_id,
    )
    signals.signal("order_placed", key=first)

    line = first.__code__.co_firstlineno
    said = rf"<lambda> \(.*test_keys.py:{line}\), not .*<lambda> \(.*test_keys.py:{line + 1}\): "
    with pytest.raises(SignalConflictError, match=said):
        signals.signal("order_placed", key=second)


def test_a_declaration_gives_the_key_and_doc_of_an_event_that_was_only_used() -> None:
    """Later declarations do not, and the end of a block takes them back."""
    lenient = SignalRegistry(strict=False)
    lenient.subscribe("order_placed", lambda **_context: None)
    with lenient.isolated():
        placed = lenient.signal("order_placed", "A customer placed an order.", key="order_id")
        lenient.signal("order_placed", "Another text.", key="order_id")
        assert (placed.doc, placed.key) == ("A customer placed an order.", "order_id")
        with pytest.raises(SignalConflictError, match="with the key 'order_id'"):
            lenient.signal("order_placed", key="customer_id")

    assert lenient["order_placed"] is placed
    assert (placed.doc, placed.key) == (None, None)


def test_a_declaration_without_a_key_keeps_it(signals: SignalRegistry) -> None:
    signals.signal("order_placed", context=OrderPlaced, key="customer_id")

    assert signals.signal("order_placed", context=OrderPlaced).key == "customer_id"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (None, "order_id", "with no key, not with the key 'order_id'"),
        ("customer_id", "order_id", "with the key 'customer_id', not with the key 'order_id'"),
        (by_customer, by_order, "by_customer, not with the key test_keys.by_order"),
        (by_customer, "order_id", "by_customer, not with the key 'order_id'"),
    ],
)
def test_another_key_is_a_conflict(
    signals: SignalRegistry, first: Any, second: Any, said: str
) -> None:
    placed = signals.signal("order_placed", context=OrderPlaced, key=first)

    with pytest.raises(SignalConflictError) as caught:
        signals.signal("order-placed", key=second, formerly="order_made")

    text = str(caught.value).replace(f"{__name__}.", "test_keys.")
    assert text.startswith("order_placed is declared already, ")
    assert said in text
    assert (caught.value.declared, caught.value.requested) == (OrderPlaced, None)
    assert placed.key == first
    assert placed.formerly == ()


ABOVE_A_CLASS = """
from madcrow_events import BaseEventContext, madcrow_signals

@madcrow_signals.event({})
class OrderPlaced(BaseEventContext):
    order_id: int
    customer_id: int = 0
"""

WITHOUT_A_MODEL = """
from madcrow_events import madcrow_signals

madcrow_signals.signal("order_placed", {})
"""


@pytest.mark.guarantee("N7")
@pytest.mark.parametrize("source", [ABOVE_A_CLASS, WITHOUT_A_MODEL])
@pytest.mark.parametrize("kind", RUNS)
def test_a_later_execution_replaces_the_key(
    kind: type[Run], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = kind(tmp_path, monkeypatch)
    with madcrow_signals.isolated():
        run(source.format("key='customer_id'"))
        signal = madcrow_signals["order_placed"]
        run(source.format("key='customer_id'"))
        assert signal.key == "customer_id"
        with madcrow_signals.isolated():
            run(source.format("key=lambda context: context.order_id"))
            first: Any = signal.key
            run(source.format("key=lambda context: context.order_id"))
            second: Any = signal.key
            assert first is not second
            assert callable(second)
        assert signal.key == "customer_id", "the block restores it"


@pytest.mark.guarantee("N7")
@pytest.mark.parametrize("kind", RUNS)
def test_two_keys_in_one_execution_are_a_conflict(
    kind: type[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = kind(tmp_path, monkeypatch)
    twice = WITHOUT_A_MODEL.format("key='customer_id'") + (
        "madcrow_signals.signal('order_placed', key='order_id')"
    )

    for _ in range(2):
        with pytest.raises(SignalConflictError, match="with the key 'customer_id'"):
            run(twice)


@pytest.mark.guarantee("N7")
@pytest.mark.parametrize("kind", RUNS)
def test_a_replaced_model_has_the_key_that_it_is_declared_with(
    kind: type[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no key is left that the new model has no field for."""
    run = kind(tmp_path, monkeypatch)
    run(ABOVE_A_CLASS.format("key='customer_id'"))
    run(ABOVE_A_CLASS.format("").replace("customer_id", "buyer"))

    assert madcrow_signals["order_placed"].key is None


def test_an_event_that_an_empty_block_set_aside_is_the_same_only_with_its_key(
    signals: SignalRegistry,
) -> None:
    placed = signals.signal("order_placed", key="customer_id")
    with signals.isolated(empty=True):
        assert signals.signal("order_placed") is placed
    with signals.isolated(empty=True):
        assert signals.signal("order_placed", key="order_id") is not placed
    assert signals["order_placed"].key == "customer_id"
