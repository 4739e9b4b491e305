"""Context models of many shapes, for the catalogue."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import types
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple
from uuid import UUID

import pydantic
from pydantic import ConfigDict, Field, Json, PlainSerializer, computed_field, field_serializer
from typing_extensions import TypedDict, TypeVar

from madcrow_events import BaseEventContext, SignalRegistry

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1
    BIG = 2


class Item(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid")

    sku: Annotated[str, Field(pattern="^[A-Z]{2}-[0-9]+$")]
    amount: Annotated[int, Field(ge=1, le=100)] = 1


class Plain(BaseEventContext):
    """What is most often carried."""

    order_id: int
    total: Annotated[float, Field(gt=0, lt=float("inf"))]
    paid: bool = False
    note: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    tags: Annotated[list[str], Field(max_length=3)] = Field(default=[])
    colour: Colour = Colour.RED
    size: Size = Size.BIG
    way: Literal["web", "shop", 3] = "web"
    by: UUID | None = None
    day: dt.date = dt.date(2026, 1, 2)
    at: pydantic.AwareDatetime | None = None


class Nested(BaseEventContext):
    items: Annotated[list[Item], Field(min_length=1)]
    best: Item = Field(description="The best of them")
    by_colour: dict[Colour, int] = Field(default={})
    pair: tuple[int, str] = (1, "a")
    many: tuple[Item, ...] = ()
    several: frozenset[int] = frozenset()


class Tree(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid")

    value: int
    children: list[Tree] = Field(default=[])


class Recursive(BaseEventContext):
    tree: Tree


class Card(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["card"]
    digits: Annotated[str, Field(pattern="^[0-9]{4}$")]


class Cash(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["cash", "coins"]


class Discriminated(BaseEventContext):
    payment: Annotated[Card | Cash, Field(discriminator="kind")]


class Changed(BaseEventContext, Generic[T]):
    before: T
    after: T


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Address:
    street: str
    number: int = 1


class Amount(TypedDict):
    currency: str
    value: int


class Structured(BaseEventContext):
    address: Address
    point: Point
    amount: Amount


class Named(BaseEventContext):
    """Fields have the names of keywords of JSON Schema."""

    discriminator: int
    prefixItems: tuple[int, int]  # noqa: N815  # as the keyword is spelled
    items: Item
    properties: dict[str, int] = Field(default={})
    default: int = 1


class Open(BaseEventContext):
    model_config = ConfigDict(extra="allow")

    order_id: int


class Ignoring(BaseEventContext):
    model_config = ConfigDict(extra="ignore")

    order_id: int


class Optional(BaseEventContext):
    nothing: None = None
    anything: Any = None
    either: int | str | None = None


EXACT: tuple[type[BaseEventContext], ...] = (
    BaseEventContext,
    Plain,
    Nested,
    Recursive,
    Discriminated,
    Changed[int],
    Changed[Item],
    Structured,
    Named,
    Open,
    Ignoring,
    Optional,
)
"""Of these, JSON Schema can say everything."""


class Spelled(BaseEventContext):
    model_config = ConfigDict(alias_generator=str.upper)

    order_id: int
    item: Item


class SpelledItem(pydantic.BaseModel):
    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)

    number: int = Field(alias="itemNumber")


@dataclasses.dataclass
class SpelledAddress:
    street: Annotated[str, Field(alias="streetName")]


class WritingAliases(BaseEventContext):
    model_config = ConfigDict(serialize_by_alias=True)

    order_id: int = Field(alias="orderId")
    item: SpelledItem
    address: Annotated[dict[str, SpelledAddress], Field(max_length=1)] = Field(default={})


@pydantic.dataclasses.dataclass(config=ConfigDict(serialize_by_alias=True))
class SpelledPlace:
    city: str = Field(alias="cityName")


class WithAnItem(BaseEventContext):
    item: SpelledItem
    places: Annotated[dict[str, SpelledPlace], Field(max_length=1)] = Field(default={})
    order_id: int = Field(alias="orderId")


class Computed(BaseEventContext):
    net: int

    @computed_field
    def gross(self) -> int:
        return self.net * 2


class Written(BaseEventContext):
    """What is written has other types than the fields."""

    price: Decimal
    limited: Annotated[Decimal, Field(ge=0, le=10, decimal_places=2)] = Decimal(1)
    content: bytes = b"a"
    lasted: dt.timedelta = dt.timedelta(hours=1)
    hidden: int = Field(default=1, exclude=True)
    said: Annotated[int, PlainSerializer(str, return_type=str)] = 1
    unsaid: int = 1
    by_number: dict[int, str] = Field(default={})
    secret: pydantic.SecretStr = pydantic.SecretStr("secret")
    naive: dt.datetime = dt.datetime(2026, 1, 2)  # noqa: DTZ001  # as some models have it
    at: dt.time = dt.time(1, 2)

    @field_serializer("unsaid")
    def _unsaid(self, value: int):
        return [value]


WRITTEN: tuple[type[BaseEventContext], ...] = (
    Spelled,
    WritingAliases,
    WithAnItem,
    Computed,
    Written,
)
"""Of these, JSON Schema can say what is written, but not all of what is refused."""


class Opaque:
    """A type that neither pydantic nor JSON knows."""


class Odd(BaseEventContext):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    opaque: Opaque
    maybe: Opaque | None = None
    several: list[Opaque] = Field(default=[])
    call: Callable[[int], str] | None = None
    by_default: Any = Opaque()
    infinite: float = float("inf")
    infinities: list[float] = Field(default=[float("nan"), 1.0])
    json_text: Json[list[int]] = Field(default=[1])


class Incomplete(BaseEventContext):
    later: NotYetDefined  # type: ignore[name-defined]  # noqa: F821  # which is the point


def namesake(module: str) -> type[BaseEventContext]:
    """Return a model of a module, whose name other models have, too; its field has another name."""
    return types.new_class(
        "Item",
        (BaseEventContext,),
        exec_body=lambda body: body.update(
            __module__=module, __annotations__={f"{module}_id": int}, __qualname__="Item"
        ),
    )


def declare_shapes(signals: SignalRegistry) -> None:
    """Declare an event for each model, and some whose names or declarations are odd."""
    others = (Odd, Incomplete, namesake("shop"), namesake("market"))
    for number, model in enumerate((*EXACT, *WRITTEN, *others)):
        signals.signal(f"event_{number}", f"Carries {model.__name__}.", context=model)
    signals.signal("shop.orders.placed", context=Plain, formerly=("order_made", "shop.order-made"))
    signals.signal("shop__orders.placed")
    signals.signal("loose", "It has no model.\n\nAnd a text of *two* paragraphs.")
