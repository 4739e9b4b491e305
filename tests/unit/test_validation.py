"""What is said of keywords and contexts that do not fit a model (C4)."""

from __future__ import annotations

import asyncio
import re
from itertools import product
from typing import Any, ClassVar, Literal, Self

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, model_validator

from madcrow_events import (
    BaseEventContext,
    Batch,
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    GenericEventContext,
    SignalRegistry,
    event_scope,
)
from support.aliases import BY_ALIAS

pytestmark = pytest.mark.guarantee("C4")


class Aliased(BaseEventContext):
    order_id: int = Field(alias="orderId")


class ByAliasOnly(BaseEventContext):
    model_config: ClassVar[Any] = BY_ALIAS
    order_id: int = Field(alias="orderId")


class Choices(BaseEventContext):
    order_id: int = Field(validation_alias=AliasChoices("orderId", "id"))


class ChoicesOnly(BaseEventContext):
    model_config: ClassVar[Any] = BY_ALIAS
    order_id: int = Field(validation_alias=AliasChoices(AliasPath("order", "id"), "id"))


class NameOnly(BaseEventContext):
    model_config: ClassVar[Any] = {"validate_by_alias": False}  # unknown before pydantic 2.11
    order_id: int = Field(alias="orderId")


class PathOnly(BaseEventContext):
    model_config: ClassVar[Any] = BY_ALIAS
    order_id: int = Field(validation_alias=AliasPath("order", "id"))


def advice(signals: SignalRegistry, model: type[BaseEventContext], **keywords: Any) -> str:
    signals.signal("order_placed", context=model)
    dispatcher = EventDispatcher(signals, validate=True)
    with pytest.raises(ContextValidationError) as caught:
        dispatcher.emit("order_placed", **keywords)
    return str(caught.value).partition(": ")[2]


@pytest.mark.parametrize(
    ("model", "keyword", "value"),
    [
        (Aliased, "order_id", 7),
        (ByAliasOnly, "orderId", 7),
        (NameOnly, "order_id", 7),
        (Choices, "order_id", 7),
        (ChoicesOnly, "id", 7),
        (PathOnly, "order", {"id": 7}),
    ],
)
def test_who_follows_the_advice_about_a_missing_field_can_emit(
    signals: SignalRegistry, model: Any, keyword: str, value: Any
) -> None:
    """The name is told where the model takes it, for handlers take it by name, too."""
    assert advice(signals, model) == f"order_id: missing, emit it with {keyword}=...".replace(
        "order_id:", f"{keyword}:"
    )
    seen: list[Any] = []

    def handler(context: BaseEventContext) -> None:
        seen.append(context)

    signals["order_placed"].subscribe(handler)
    EventDispatcher(signals, validate=True).emit("order_placed", **{keyword: value})
    assert [context.order_id for context in seen] == [7]


class Address(BaseModel):
    model_config = ConfigDict(extra="forbid")
    city: str


class Detailed(BaseEventContext):
    address: Address | None = None
    stops: list[Address] = Field(default=[])
    by_email: dict[str, int] = Field(default={})
    amount: int | None = Field(default=None, gt=0)
    choice: Literal["a"] | int = 1
    at: int = Field(default=0, validation_alias=AliasPath("place", "at"))


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"address": {}}, "address: has no 'city' in it"),
        ({"stops": [{"city": "x"}, {}]}, "stops: has no 'city' in it"),
        (
            {"address": {"city": "x", "zip": 1}},
            "address: has 'zip' in it, which is not a field there, leave it out",
        ),
        ({"address": {"city": 1}}, r"address: must be .*, and a value in it is int \(.*"),
        ({"address": 7}, r"address: must be .*, got int \(.*"),
        (
            {"by_email": {"ada@x.y": "canary"}},
            r"by_email: must be dict.*, and a value in it is str \(int_parsing\)",
        ),
        (
            {"amount": -1},
            r"amount: has the right type, and a value that is not allowed \(greater_.*",
        ),
        ({"choice": "b"}, r"choice: must be .*, got str \(literal_error\)"),
        ({"at": 1, "place": {"at": 2}}, "at: given twice, leave out either this or place"),
    ],
    ids=str,
)
def test_what_does_not_fit_within_a_value_is_told_of_that(
    signals: SignalRegistry, keywords: dict[str, Any], told: str
) -> None:
    """A field that was given is not missing, and no key that may be a value is shown."""
    shown = advice(signals, Detailed, **keywords)
    assert re.fullmatch(told, shown)
    assert "ada" not in shown


BY_NAME_OR_ALIAS = ("populate_by_name", "validate_by_name", "validate_by_alias")


@pytest.mark.guarantee("B5")
@pytest.mark.parametrize(
    "chosen",
    [it for it in product((None, True, False), repeat=3) if it[1:] != (False, False)],
    ids=lambda it: "-".join(map(str, it)),
)
def test_a_model_may_choose_between_name_and_alias_in_every_way_that_pydantic_knows(
    signals: SignalRegistry, chosen: tuple[bool | None, ...]
) -> None:
    """Both the advice and a scope write what it takes."""
    options = zip(BY_NAME_OR_ALIAS, chosen, strict=True)

    class Chosen(BaseEventContext):
        model_config: ClassVar[Any] = {
            "frozen": True,
            **{key: it for key, it in options if it is not None},
        }
        order_id: int = Field(alias="orderId")
        request_id: str | None = Field(default=None, alias="requestId")

    keyword = advice(signals, Chosen).partition("emit it with ")[2].partition("=")[0]
    signals["order_placed"].subscribe(_request_id_of(Chosen))
    with event_scope(request_id="r"):
        emission = EventDispatcher(signals, validate=True).emit("order_placed", **{keyword: 7})
    assert [result.value for result in emission.results] == ["r"]


def _request_id_of(model: Any) -> Any:
    def handler(context: Any) -> Any:
        return context.request_id

    handler.__annotations__["context"] = model
    return handler


@pytest.mark.parametrize(
    ("model", "keywords", "told"),
    [
        (Aliased, {"orderId": 1, "order_id": 2}, "given twice, leave out either this or orderId"),
        (
            ByAliasOnly,
            {"order_id": 2, "orderId": 1},
            "is given by its alias only, write orderId=...",
        ),
        (Aliased, {"orderId": "x"}, "order_id: must be int, got str"),
        (Aliased, {"orderId": 1, "number": 2}, "number: not a field, leave it out"),
    ],
)
def test_what_does_not_fit_an_aliased_field_is_told_by_what_to_write(
    signals: SignalRegistry, model: Any, keywords: dict[str, Any], told: str
) -> None:
    """Whichever of its names was used."""
    assert told in advice(signals, model, **keywords)


@pytest.mark.guarantee("E5")
def test_a_dispatcher_that_validates_says_that_a_model_is_no_keyword(
    signals: SignalRegistry,
) -> None:
    """The failure that follows anyway says what to write."""
    told = advice(signals, Aliased, context=Aliased(order_id=1))
    assert "context: a context, and emit takes plain values: write emit(Aliased(...)), w" in told
    told = advice(signals, Aliased, order_id=1, context=Renaming(total=1))
    assert "plain values: the event carries Aliased, not Renaming" in told


class Renaming(BaseEventContext):
    total: int

    @model_validator(mode="before")
    @classmethod
    def _take_old_name(cls, values: Any) -> Any:
        if "amount" in values:
            values["total"] = values.pop("amount")
        return values


@pytest.mark.parametrize("validate", [False, True])
def test_a_validator_that_changes_what_it_is_given_changes_no_emission(
    signals: SignalRegistry, validate: bool
) -> None:
    """The keywords are those of all handlers, whichever comes first."""
    seen: list[Any] = []

    def typed(context: Renaming) -> None:
        seen.append(context.total)

    signal = signals.signal("order_placed", context=Renaming)
    signal.subscribe(typed)
    signal.subscribe(lambda sender, **context: seen.append(context))
    emission = EventDispatcher(signals, validate=validate).emit(signal, amount=3)
    assert seen == [3, {"amount": 3}]
    assert emission.context == {"amount": 3}


class Forgetful(BaseEventContext):
    number: int = 0

    @model_validator(mode="wrap")
    @classmethod
    def _forget(cls, values: Any, validate: Any) -> Any:
        validate(values)


class OfNoField(BaseEventContext):
    @model_validator(mode="after")
    def _refuse(self) -> Any:
        raise ValueError("canary")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Forgetful, "Forgetful: a validator returned NoneType"),
        (OfNoField, "OfNoField: must be valid"),
    ],
)
def test_a_models_own_validator_is_named_when_it_makes_no_context(
    signals: SignalRegistry, model: Any, told: str
) -> None:
    """One that forgets to return hands no None to handlers."""
    shown = advice(signals, model)
    assert told in shown
    assert "canary" not in shown


class OrderPlaced(BaseEventContext):
    order_id: int


class WithoutSuper(BaseEventContext):
    order_id: int

    def __init__(self, order_id: int) -> None:
        """Forget the base."""


class Open(BaseEventContext, extra="allow"):
    pass


def handlers_of(signals: SignalRegistry, model: Any, form: str, **options: Any) -> Any:
    def by_context(context: Any) -> None:
        print(context.order_id)

    by_context.__annotations__["context"] = model

    async def awaited(context: Any) -> None:
        print(context.order_id)

    awaited.__annotations__["context"] = model

    def by_keywords(sender: Any, **context: Any) -> None:
        pass

    async def awaited_keywords(sender: Any, **context: Any) -> None:
        pass

    handler = locals()[form]
    return signals.signal("order_placed", context=model).subscribe(handler, **options)


@pytest.mark.parametrize("form", ["by_context", "by_keywords", "awaited", "awaited_keywords"])
@pytest.mark.parametrize(
    "context",
    [OrderPlaced.model_construct(), WithoutSuper(order_id=1)],
    ids=["model_construct", "init without super"],
)
def test_a_context_that_lacks_a_field_is_one_error_of_the_emitter(
    signals: SignalRegistry, dispatcher: EventDispatcher, context: Any, form: str
) -> None:
    """It names the field, and blames no handler."""
    handlers_of(signals, type(context), form)
    with pytest.raises(ContextValidationError, match="order_id: has no value"):
        asyncio.run(dispatcher.emit_typed_async("order_placed", context))
    if not form.startswith("awaited"):
        with pytest.raises(ContextValidationError, match="order_id: has no value"):
            dispatcher.emit_typed("order_placed", context)


@pytest.mark.guarantee("F1")
def test_what_a_handler_raises_for_another_reason_is_its_own_failure(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Nobody has missed the field; the other handlers run."""

    async def broken(context: OrderPlaced) -> None:
        raise TypeError

    def misspelt(context: OrderPlaced) -> None:
        context.order_no  # type: ignore[attr-defined]

    def nested() -> None:
        EventDispatcher(signals, validate=True).emit("other")

    signal = signals.signal("order_placed", context=OrderPlaced)
    signals.signal("other", context=OrderPlaced)
    for handler in (nested, broken, lambda: 1 / 0, lambda: 1, misspelt):
        signal.subscribe(handler)
    context = OrderPlaced.model_construct(request_id="r")
    emission = asyncio.run(dispatcher.emit_typed_async(signal, context))
    told = [type(failure.exception) for failure in emission.failures]
    assert told == [ContextValidationError, ZeroDivisionError, AttributeError, TypeError]
    assert [result.value for result in emission.results] == [1]


@pytest.mark.guarantee("B3")
@pytest.mark.parametrize("model", [OrderPlaced, Emission[OrderPlaced]])
def test_a_batch_that_fails_for_a_context_that_lacks_a_field_is_told_so(
    signals: SignalRegistry, dispatcher: EventDispatcher, model: Any
) -> None:
    """The failure names the field."""

    def handler(items: Any) -> list[int]:
        return [getattr(item, "context", item).order_id for item in items]

    handler.__annotations__["items"] = list[model]
    signal = signals.signal("order_placed", context=OrderPlaced)
    signal.subscribe(handler, batch=Batch(max_size=2))
    whole = dispatcher.emit_typed(signal, OrderPlaced(order_id=1))
    dispatcher.emit_typed(signal, OrderPlaced.model_construct())
    assert dispatcher.drain(5)
    (failure,) = whole.failures
    assert isinstance(failure.exception, ContextValidationError)
    assert "order_id: has no value" in str(failure.exception)


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize("form", ["by_context", "by_keywords", "awaited", "awaited_keywords"])
def test_a_context_that_lacks_a_field_uses_no_once_up(
    signals: SignalRegistry, dispatcher: EventDispatcher, form: str
) -> None:
    """Whether the handler would have read the field or not."""
    subscription = handlers_of(signals, OrderPlaced, form, once=True)
    with pytest.raises(ContextValidationError, match="order_id: has no value"):
        asyncio.run(dispatcher.emit_typed_async("order_placed", OrderPlaced.model_construct()))
    assert subscription.active


@pytest.mark.guarantee("C3")
def test_a_generic_context_that_lacks_all_is_told_what_to_give(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Its name first, then the rest."""
    signals.signal("order_placed").subscribe(lambda sender, **context: None)
    with pytest.raises(ContextTypeError, match="give it event_type='order_placed'"):
        dispatcher.emit_typed("order_placed", GenericEventContext.model_construct())
    context = GenericEventContext.model_construct(event_type="order_placed")
    del vars(context)["data"]
    with pytest.raises(ContextValidationError, match="data: has no value"):
        dispatcher.emit_typed("order_placed", context)


def test_a_context_that_lacks_fields_is_told_so_in_the_background_and_in_a_scope(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Where nobody can be told, the failure says it."""
    signal = signals.signal("order_placed", context=OrderPlaced)
    signal.subscribe(lambda order_id: None, background=True)
    emission = dispatcher.emit_typed(signal, OrderPlaced.model_construct())
    assert emission.wait(5)
    (failure,) = emission.failures
    assert isinstance(failure.exception, ContextValidationError)
    assert "order_id: has no value" in str(failure.exception)

    signals.signal("other", context=WithoutSuper)
    with event_scope(request_id="1"), pytest.raises(ContextValidationError, match="order_id"):
        dispatcher.emit_typed("other", WithoutSuper(order_id=1))


class Broken(BaseEventContext):
    def __new__(cls, **fields: Any) -> Self:
        """Fail for a copy, which is made without fields."""
        if not fields:
            raise AttributeError("mine")
        return super().__new__(cls)


def test_what_else_a_model_raises_goes_through(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """An `AttributeError` of a complete context is its author's."""
    signals.signal("order_placed", context=Broken)
    with event_scope(request_id="1"), pytest.raises(AttributeError, match="mine"):
        dispatcher.emit_typed("order_placed", Broken(user_agent="curl"))


@pytest.mark.parametrize("name", ["sender", "self"])
def test_an_extra_field_may_not_be_called_as_the_call_needs(
    signals: SignalRegistry, dispatcher: EventDispatcher, name: str
) -> None:
    """A model that allows extra fields cannot be checked before."""

    class Service:
        def take(self, sender: Any, **context: Any) -> None:
            """Take all."""

    service = Service()
    signals.signal("order_placed", context=Open).subscribe(service.take)
    with pytest.raises(ContextValidationError, match=f"{name}: this name is reserved for the call"):
        dispatcher.emit_typed("order_placed", Open(**{name: 1}))


@pytest.mark.guarantee("E5")
@pytest.mark.parametrize("is_async", [False, True])
def test_emit_event_refuses_a_model_as_a_keyword(is_async: bool) -> None:
    """Unless the event has such a field."""
    from madcrow_events import emit_event, emit_event_async, madcrow_signals

    class Wrapped(BaseEventContext):
        context: BaseEventContext

    def emit(event: str, **keywords: Any) -> Any:
        if is_async:
            return asyncio.run(emit_event_async(event, **keywords))
        return emit_event(event, **keywords)

    with madcrow_signals.isolated():
        madcrow_signals.signal("wrapped", context=Wrapped)
        assert emit("wrapped", context=BaseEventContext()).ok
        assert emit("wrapped", context=1).ok
        madcrow_signals.signal("order_placed")
        with pytest.raises(ContextTypeError, match=r"write emit_event\(Generic"):
            emit("order_placed", context=GenericEventContext(event_type="order_placed"))


@pytest.mark.guarantee("E5")
def test_a_dispatcher_says_at_debug_that_a_model_came_as_a_keyword(
    signals: SignalRegistry, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """A check would cost each emission."""
    signals.signal("order_placed")
    caplog.set_level("DEBUG", logger="madcrow_events")
    dispatcher.emit("order_placed", context=OrderPlaced(order_id=1))
    assert "'context': write emit(OrderPlaced(...)), without the name" in caplog.text
    signals.signal("order_lost", context=Aliased)
    dispatcher.emit("order_lost", context=OrderPlaced(order_id=1))
    assert "'context': the event carries Aliased, not OrderPlaced" in caplog.text
