"""Contexts of any model are drawn, all of them valid."""

import sys
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    FutureDate,
    FutureDatetime,
    HttpUrl,
    NaiveDatetime,
    PastDate,
    PastDatetime,
    StringConstraints,
    create_model,
    field_validator,
)
from typing_extensions import TypeAliasType

import madcrow_events
from madcrow_events import BaseEventContext, LoginEventContext
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.testing.strategies import contexts, simplest


class OrderPlaced(BaseEventContext):
    order_id: UUID | int
    amount: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kind: Literal["new", "again"] = "new"
    code: str = Field(default="AB", min_length=2, max_length=4)
    tags: list[str] = Field(default_factory=list)

    @field_validator("order_id")
    @classmethod
    def _positive(cls, value: UUID | int) -> UUID | int:
        if isinstance(value, int) and value <= 0:
            raise ValueError("not positive")
        return value


class Colour(Enum):
    RED = 1
    BLUE = 2


class Address(BaseModel):
    street: Annotated[str, StringConstraints(min_length=1, max_length=20)]
    lines: list[Annotated[str, Field(pattern=r"^[a-z]{2}[0-9]$")]] = Field(max_length=3)


class Everything(BaseEventContext):
    pattern: str = Field(pattern="^a+$", min_length=2)
    any_pattern: Annotated[str, StringConstraints(pattern="x")]
    price: Decimal = Field(max_digits=4, decimal_places=2, ge=0)
    exact: Decimal = Field(max_digits=4)
    bounded: Decimal = Field(gt=0, le=5)
    names: list[Annotated[str, Field(min_length=2)]] = Field(min_length=1)
    limited: Annotated[int, Field(ge=3)] | None
    aware: AwareDatetime
    naive: NaiveDatetime
    past: PastDatetime
    future: FutureDatetime
    past_date: PastDate
    future_date: FutureDate
    anything: Any
    table: dict[str, Any]
    pairs: dict[Annotated[str, Field(max_length=3)], tuple[int, str]]
    numbers: tuple[int, ...]
    few: set[int] = Field(min_length=2, max_length=3)
    frozen: frozenset[str]
    colour: Colour
    alias: TypeAliasType("Alias", list[int])  # type: ignore[valid-type]
    address: Address
    cause: LoginEventContext | None
    renamed: int = Field(alias="re-named")
    read_elsewhere: int = Field(validation_alias="elsewhere")
    strict: int = Field(strict=True)


class Circle(BaseModel):
    following: "Circle | None"
    notes: Annotated[str, "the user's note", [1, 2], {"a": "b"}, Field(description="note")]


class Round(BaseEventContext):
    circle: Circle


class Tree(BaseEventContext):
    name: str
    children: list["Tree"]


MODELS = [
    getattr(madcrow_events, name)
    for name in madcrow_events.__all__
    if name.endswith("EventContext")
]


@pytest.mark.parametrize("model", [*MODELS, OrderPlaced, Everything, Tree, Round])
def test_contexts_of_every_model_are_drawn(model: type[BaseEventContext]) -> None:
    # Hypothesis throws trees away that are too large, and counts them as filtered out.
    @given(contexts(model))
    @settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much])
    def draws(context: BaseEventContext) -> None:
        assert type(context) is model
        assert context.timestamp.tzinfo is not None

    draws()
    assert type(simplest(model)) is model


@given(contexts(LoginEventContext, email=st.just("a@example.com")))
def test_a_field_may_have_a_strategy_of_its_own(context: LoginEventContext) -> None:
    assert context.email == "a@example.com"


class Unknown(BaseEventContext):
    url: HttpUrl


class Hopeless(BaseEventContext):
    even_email: str

    @field_validator("even_email")
    @classmethod
    def _valid(cls, value: str) -> str:
        if not value.endswith("@example.com"):
            raise ValueError("not one of ours")
        return value


class LongWords(BaseEventContext):
    words: list = Field(min_length=200)  # type: ignore[type-arg]


class NotForPython(BaseEventContext):
    word: str = Field(pattern=r"^\p{L}+$")


class Nested(BaseEventContext):
    inner: Hopeless


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (LoginEventContext, {"emial": st.just("a")}, "LoginEventContext has no field emial"),
        (LoginEventContext, {"email": "a"}, r"email must be a strategy, such as st\.just\('a'\)"),
        (int, {}, "takes a context model"),
        (NotForPython, {}, r"NotForPython\.word cannot be made up"),
        (Unknown, {}, r"Unknown\.url cannot be made up: give a strategy, as in contexts\(Unknown"),
    ],
)
def test_what_cannot_be_drawn_is_refused(model: Any, fields: Any, message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        contexts(model, **fields)


@pytest.mark.parametrize("model", [Hopeless, Nested])
def test_a_field_of_which_hardly_a_value_is_valid_is_named(model: Any) -> None:
    with pytest.raises(
        InvalidOptionError, match=r"values of Hopeless\.even_email cannot be made up"
    ):
        simplest(model)


def test_a_model_of_which_nothing_can_be_made_up_is_named() -> None:
    with pytest.raises(InvalidOptionError, match=r"LongWords(\.words)? can(not)? be made up"):
        simplest(LongWords)


if sys.version_info >= (3, 12):

    def test_an_alias_may_be_a_statement() -> None:
        namespace: dict[str, Any] = {}
        code = "from typing import Annotated\nfrom pydantic import Field\n"
        code += "type Code = Annotated[str, Field(pattern='^[A-Z]{3}$')]"
        exec(code, namespace)  # noqa: S102  # a syntax that older versions do not have
        model = create_model("Coded", __base__=BaseEventContext, code=(namespace["Code"], ...))
        assert simplest(model).code == "AAA"  # type: ignore[attr-defined]
