"""What annotations mean, names in quotes included (H9)."""

# No `from __future__ import annotations`: these are annotations as Python evaluates them.

import sys
from collections.abc import Sequence
from typing import Annotated, Any, List, NewType, Optional, TypeAlias, TypeVar, Union  # noqa: UP035  # those that are older

import pytest
from typing_extensions import TypeAliasType

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    HandlerSignatureError,
    SignalRegistry,
)


class Order(BaseEventContext):
    number: int


class Refund(BaseEventContext):
    number: int


Bounded = TypeVar("Bounded", bound="Order")
Constrained = TypeVar("Constrained", Order, Refund)
Free = TypeVar("Free")
New = NewType("New", Order)
InQuotes: TypeAlias = "Order"
OfOrder = Emission["Order"]
Maybe = Optional[Emission[Free]]  # noqa: UP045  # an alias with a parameter
Alias = TypeAliasType("Alias", "Order")
Parametrised = TypeAliasType("Parametrised", Emission[Free], type_params=(Free,))
Itself: TypeAlias = "Itself"  # type: ignore[misc]
One: TypeAlias = "Other"  # type: ignore[misc]
Other: TypeAlias = "One"  # type: ignore[misc]
Round = TypeAliasType("Round", "Round")  # type: ignore[misc]


def received(annotation: Any, *, is_list: bool = False) -> Any:
    """Subscribe a handler with this annotation, emit loosely, and return what it was given."""

    def handler(it: Any) -> Any:
        return it[0] if is_list else it

    handler.__annotations__["it"] = annotation
    return handler


@pytest.fixture
def order(signals: SignalRegistry) -> Any:
    """Return an event with a model."""
    return signals.signal("order", context=Order)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "annotation",
    [
        "Order",
        "'Order'",
        Optional["Order"],
        "Order | None",
        Union["Order", "Refund", None],
        Annotated["Order", "why not"],
        Bounded,
        "Bounded",
        Constrained,
        New,
        InQuotes,
        "InQuotes",
        Alias,
    ],
)
def test_a_model_in_quotes_is_found_at_any_depth(
    order: Any, dispatcher: EventDispatcher, annotation: Any
) -> None:
    order.subscribe(received(annotation))
    (result,) = dispatcher.emit("order", number="3").results
    assert isinstance(result.value, Order)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "annotation",
    [
        Emission["Order"],
        "Emission['Order']",
        Optional[Emission["Order"]],  # noqa: UP045
        Emission[Optional["Order"]],
        Emission["Order | Refund"],
        Annotated[Emission["Order"], "why not"],
        Emission["InQuotes"],
        Emission[Bounded],
        OfOrder,
        "OfOrder",
        Maybe["Order"],
        Parametrised["Order"],
    ],
)
def test_an_emission_of_a_model_in_quotes_has_that_model(
    order: Any, dispatcher: EventDispatcher, annotation: Any
) -> None:
    order.subscribe(received(annotation))
    (result,) = dispatcher.emit("order", number="3").results
    assert isinstance(result.value.context, Order)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "annotation",
    [
        List["Order"],  # noqa: UP006
        list["Order"],
        "list['Order']",
        Sequence["Order"],
        Optional[List["Order"]],  # noqa: UP006, UP045
        List[Optional["Order"]],  # noqa: UP006
        list[New],
    ],
)
def test_a_list_of_a_model_in_quotes_is_a_batch_of_that_model(
    order: Any, dispatcher: EventDispatcher, annotation: Any
) -> None:
    order.subscribe(received(annotation, is_list=True), batch=Batch(max_size=1))
    emission = dispatcher.emit("order", number="3")
    assert emission.wait(5)
    assert isinstance(emission.results[0].value, Order)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "annotation",
    [Emission["Nowhere"], "Emission[Nowhere]", Emission["Order | no.where"], Emission["1 / 0"]],  # type: ignore[name-defined]
)
def test_an_emission_of_a_model_that_cannot_be_found_is_refused(
    signals: SignalRegistry, order: Any, annotation: Any
) -> None:
    with pytest.raises(HandlerSignatureError, match=r"not for type checkers only, .*\[Order\]"):
        order.subscribe(received(annotation))
    with pytest.raises(HandlerSignatureError, match=r"write Emission\[BaseEventContext\]"):
        signals.signal("anything").subscribe(received(annotation))


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "annotation",
    ["Nowhere", "Itself", One, Round, "1 / 0", Optional["Nowhere"]],  # type: ignore[name-defined]  # noqa: F821
)
def test_a_name_that_cannot_be_found_is_no_model(order: Any, annotation: Any) -> None:
    with pytest.raises(HandlerSignatureError, match="annotate it, as in it: Order, or take one"):
        order.subscribe(received(annotation))


def written(source: str, **names: Any) -> Any:
    """Return the handler of a module in which these names exist."""
    scope = {"Emission": Emission, "__name__": "elsewhere", **names}
    exec(source, scope)  # noqa: S102  # newer syntax, or missing names
    return scope["handler"]


@pytest.mark.guarantee("H9")
@pytest.mark.skipif(sys.version_info < (3, 12), reason="type parameters came with 3.12")
@pytest.mark.parametrize(
    "source",
    [
        "type Login = Emission[Order]\ndef handler(it: Login): return it.context",
        "type Of[T] = Emission[T]\ndef handler(it: Of['Order']): return it.context",
        "def handler[T: Order](it: T): return it",
        "def handler[T: Order](it: 'Emission[T]'): return it.context",
    ],
)
def test_aliases_and_type_parameters_are_read(
    order: Any, dispatcher: EventDispatcher, source: str
) -> None:
    order.subscribe(written(source, Order=Order))
    assert isinstance(dispatcher.emit("order", number="3").results[0].value, Order)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "future", ["", pytest.param("from __future__ import annotations\n", id="future")]
)
@pytest.mark.parametrize(
    "annotation", ["Emission[Order]", "Emission[Order] | None", "Emission[Any]"]
)
def test_the_signals_model_is_known_where_it_is_imported_for_checkers_only(
    order: Any, dispatcher: EventDispatcher, future: str, annotation: str
) -> None:
    if not future and sys.version_info < (3, 14):
        annotation = f"{annotation!r}"  # without quotes Python would look for it
    order.subscribe(written(f"{future}def handler(it: {annotation}): return it.context"))
    (result,) = dispatcher.emit_typed("order", Order(number=3)).results
    assert isinstance(result.value, Order)


@pytest.mark.guarantee("H9")
def test_an_alias_whose_value_cannot_be_found_is_no_model(order: Any) -> None:
    class TypeAliasType:
        """As the `type` statement makes one, whose names are looked up only when it is asked."""

        __name__ = "Login"

        @property
        def __value__(self) -> Any:
            raise NameError

    with pytest.raises(HandlerSignatureError, match="annotate it, as in it: Order, or take one"):
        order.subscribe(received(TypeAliasType()))


class Interrupted:
    """Whatever asks it for something is interrupted by a time limit, as a signal's handler does."""

    def __call__(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        end_in_time(14, sys._getframe())


def end_in_time(_number: int, _frame: Any) -> None:
    raise TimeoutError


INTERRUPTED = Interrupted()


@pytest.mark.guarantee("F3")
def test_a_time_limit_goes_through_whatever_is_read_of_a_handler(order: Any) -> None:
    alias = type("TypeAliasType", (Interrupted,), {})()  # known by its name
    for handler in (INTERRUPTED, received("INTERRUPTED.name"), received(alias)):
        with pytest.raises(TimeoutError):
            order.subscribe(handler)
    with pytest.raises(TimeoutError):
        order.connect(INTERRUPTED)
