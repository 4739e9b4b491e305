"""A model whose contexts cannot come back equal from their JSON is refused before it is stored."""

from __future__ import annotations

import collections
import dataclasses
import typing
from collections.abc import Callable, Generator, Iterable
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired

import pydantic
import pytest
from pydantic import BaseModel, Field, Json, JsonValue, PlainSerializer, SecretBytes, SecretStr
from typing_extensions import TypeAliasType, TypedDict, TypeVar

from madcrow_events import BaseEventContext, GenericEventContext, models
from madcrow_events.outbox import NotSerialisableError
from madcrow_events.outbox._storable import check_model
from support.shapes import EXACT, WRITTEN, Changed, Incomplete, Optional

T = TypeVar("T")
Bound = TypeVar("Bound", bound=SecretStr)
Limited = TypeVar("Limited", int, SecretStr)

Revealed = Annotated[
    SecretStr, PlainSerializer(lambda it: it.get_secret_value(), when_used="always")
]
Anything = TypeAliasType("Anything", dict[str, Any])
Pairs = TypeAliasType("Pairs", list[tuple[T, T]], type_params=(T,))
Nest = TypeAliasType("Nest", "list[Nest] | int")
Numbers = TypeAliasType("Numbers", list[int])
Password = NewType("Password", SecretStr)


class Inner(BaseModel):
    secret: SecretStr


class Hiding(BaseModel):
    number: int = Field(default=1, exclude=True)


class Tree(BaseModel):
    children: list[Tree] = Field(default=[])
    leaf: Any = None


class Chain(BaseModel):
    next: Chain | None = None


class Root(pydantic.RootModel[list[Any]]):
    pass


class Revealing(BaseModel):
    secret: SecretStr
    other: SecretStr

    @pydantic.field_serializer("secret")
    def _revealed(self, it: SecretStr) -> str:
        return it.get_secret_value()


class RevealingAll(BaseModel):
    secret: SecretStr

    @pydantic.model_serializer
    def _revealed(self) -> Any:
        return {"secret": self.secret.get_secret_value()}


class RevealingEach(BaseModel):
    secret: SecretStr

    @pydantic.field_serializer("*")
    def _revealed(self, it: SecretStr) -> str:
        return it.get_secret_value()


class Encoding(BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    hidden: int = Field(default=1, exclude=True)

    @pydantic.field_serializer("hidden")
    def _as_text(self, it: int) -> str:
        return str(it)


@dataclasses.dataclass
class Account:
    secret: SecretStr
    kind: typing.ClassVar[Any] = None


@dataclasses.dataclass
class Dropping:
    number: int = Field(default=1, exclude=True)


@dataclasses.dataclass
class Annotating:
    number: Annotated[int, Field(exclude=True)] = 1


@pydantic.dataclasses.dataclass
class PydanticDropping:
    number: int = Field(default=1, exclude=True)


@pydantic.dataclasses.dataclass
class PydanticRevealing:
    secret: SecretStr

    @pydantic.field_serializer("secret")
    def _revealed(self, it: SecretStr) -> str:
        return it.get_secret_value()


@pydantic.dataclasses.dataclass
class PydanticRevealingAll:
    secret: SecretStr

    @pydantic.model_serializer
    def _revealed(self) -> Any:
        return {"secret": self.secret.get_secret_value()}


@dataclasses.dataclass
class Box(Generic[T]):
    inside: T


@dataclasses.dataclass
class Linked:
    next: Linked | None = None


@dataclasses.dataclass
class Chained(Generic[T]):
    inside: T
    next: Chained[T] | None = None


class Entry(TypedDict):
    note: NotRequired[Any]


class Point(NamedTuple):
    x: int
    tag: SecretBytes


def model_of(annotation: Any, default: Any = ...) -> type[BaseEventContext]:
    return pydantic.create_model("Odd", __base__=BaseEventContext, it=(annotation, default))


@pytest.mark.parametrize(
    ("annotation", "field", "problem"),
    [
        (Any, "it", "takes anything: write which types"),
        (object, "it", "takes anything"),
        (T, "it", "takes anything"),
        (int | list[Any], "it", "takes anything"),
        (dict, "it", "takes anything"),
        (list, "it", "takes anything"),
        (tuple, "it", "takes anything"),
        (typing.Dict, "it", "takes anything"),  # noqa: UP006  # the old spelling
        (typing.Tuple, "it", "takes anything"),  # noqa: UP006  # the old spelling
        (typing.Sequence, "it", "takes anything"),  # the old spelling
        (collections.deque, "it", "takes anything"),
        (dict[str, Any], "it", "takes anything"),
        (tuple[int, ...] | tuple[Any, ...], "it", "takes anything"),
        (Anything, "it", "takes anything"),
        (Pairs[Any], "it", "takes anything"),
        (Json[Any], "it", "takes anything"),
        (SecretStr, "it", "is written masked: add a serialiser"),
        (SecretBytes | None, "it", "is written masked"),
        (pydantic.Secret[int], "it", "is written masked"),
        (Annotated[SecretStr, Field(min_length=1)], "it", "is written masked"),
        (list[Annotated[SecretStr, Field(min_length=1)]], "it", "is written masked"),
        (Password, "it", "is written masked"),
        (Bound, "it", "is written masked"),
        (Limited, "it", "is written masked"),
        (Inner, "it.secret", "is written masked"),
        (dict[str, list[Inner]], "it.secret", "is written masked"),
        (Revealing, "it.other", "is written masked"),
        (Tree, "it.leaf", "takes anything"),
        (Root, "it", "takes anything"),
        (Account, "it.secret", "is written masked"),
        (Box[SecretStr], "it.inside", "is written masked"),
        (Box[Box[Inner]], "it.inside.inside.secret", "is written masked"),
        (Chained[int] | Chained[Any], "it.inside", "takes anything"),
        (Entry, "it.note", "takes anything"),
        (Point, "it.tag", "is written masked"),
        (Hiding, "it.number", "is not written: remove exclude"),
        (Encoding, "it.hidden", "is not written"),
        (Dropping, "it.number", "is not written"),
        (PydanticDropping, "it.number", "is not written"),
        (Annotating, "it.number", "is not written"),
        (Callable[[int], int], "it", "takes a function or a class"),
        (Callable, "it", "takes a function or a class"),
        (typing.Callable, "it", "takes a function or a class"),
        (type[int], "it", "takes a function or a class"),
        (type, "it", "takes a function or a class"),
        (Iterable[int], "it", "can be read only once"),
        (Generator[int], "it", "can be read only once"),
    ],
)
def test_a_field_that_can_never_come_back_is_refused_with_its_name_and_the_fix(
    annotation: Any, field: str, problem: str
) -> None:
    model = model_of(annotation)

    for _ in range(2):  # the answer is remembered
        with pytest.raises(NotSerialisableError, match=problem) as caught:
            check_model("odd_happened", model)
        assert str(caught.value).startswith(f"the field {field} of odd_happened ")
        assert (caught.value.event, caught.value.field) == ("odd_happened", field)


@pytest.mark.parametrize(
    "annotation",
    [
        JsonValue,
        dict[str, JsonValue],
        Json,
        Json[list[int]],
        Nest,
        Pairs[int],
        tuple[()],
        Literal["Any", 1],
        Revealed,
        list[Revealed],
        list[Annotated[SecretStr, Field(min_length=1), PlainSerializer(str)]],
        RevealingAll,
        RevealingEach,
        PydanticRevealing,
        PydanticRevealingAll,
        Chain,
        Linked,
        Chained[int],
        tuple[Numbers, Numbers, Numbers],
        Box[int] | Box[str],
        list[int],
        set[bytes],
        pydantic.AnyUrl,
    ],
)
def test_a_field_whose_values_may_come_back_is_accepted(annotation: Any) -> None:
    """Whether they do shows when a payload is read back."""
    check_model("odd_happened", model_of(annotation))


def test_an_excluded_field_is_refused() -> None:
    with pytest.raises(NotSerialisableError, match="the field it of odd is not written"):
        check_model("odd", model_of(int, Field(default=1, exclude=True)))


@pytest.mark.filterwarnings("ignore:`json_encoders` is deprecated")
def test_the_encoders_of_a_model_are_serialisers() -> None:
    class Encoded(BaseEventContext):
        model_config = pydantic.ConfigDict(
            json_encoders={SecretStr: lambda it: it.get_secret_value()}
        )

        secret: SecretStr

    check_model("encoded", Encoded)


@pytest.mark.parametrize("name", models.__all__)
def test_the_context_of_each_built_in_event_can_be_stored(name: str) -> None:
    check_model("built_in", getattr(models, name))


@pytest.mark.parametrize("model", [*EXACT, *WRITTEN], ids=lambda model: model.__name__)
def test_models_of_many_shapes_can_be_stored(model: type[BaseEventContext]) -> None:
    """Of these shapes, one takes anything, and one hides a field."""
    if model.__name__ in ("Optional", "Written"):
        with pytest.raises(NotSerialisableError):
            check_model("shaped", model)
    else:
        check_model("shaped", model)


def test_a_generic_model_is_judged_by_what_its_parameters_stand_for() -> None:
    check_model("changed", Changed[int])
    with pytest.raises(NotSerialisableError, match="the field before of changed takes anything"):
        check_model("changed", Changed)


def test_the_answer_of_a_model_is_not_that_of_its_subclass() -> None:
    class Better(Optional):
        anything: int = 1

    with pytest.raises(NotSerialisableError):
        check_model("optional", Optional)
    check_model("optional", Better)


def test_an_event_without_a_model_is_judged_by_each_payload() -> None:
    check_model("loose", None)
    check_model("loose", GenericEventContext)


def test_a_model_that_is_not_complete_yet_is_asked_again_later() -> None:
    for _ in range(2):
        with pytest.raises(NotSerialisableError, match="Incomplete of early is incomplete: define"):
            check_model("early", Incomplete)


def test_a_class_whose_annotations_only_pydantic_understands_is_judged_by_each_payload() -> None:
    """They name what only the function knows in which they stand."""

    class Number(int):
        pass

    @dataclasses.dataclass
    class Local:
        number: Annotated[int, Number]

    class Odd(BaseEventContext):
        local: Local

    check_model("odd", Odd)
