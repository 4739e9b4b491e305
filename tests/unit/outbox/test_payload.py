"""A context is stored only if it comes back equal, class for class; reading drops unknown keys."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import inspect
import json
import signal
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import freezegun
import pydantic
import pydantic_core
import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    JsonValue,
    PlainSerializer,
    PrivateAttr,
    SkipValidation,
    computed_field,
)
from typing_extensions import TypedDict, TypeVar

from madcrow_events import BaseEventContext, GenericEventContext, LoginEventContext
from madcrow_events.outbox import NotSerialisableError, UnreadablePayloadError
from madcrow_events.outbox._comparing import difference
from madcrow_events.outbox._payload import dump, load
from support.shapes import (
    Address,
    Card,
    Cash,
    Changed,
    Colour,
    Discriminated,
    Item,
    Nested,
    Open,
    Plain,
    Point,
    Recursive,
    Size,
    SpelledItem,
    Structured,
    Tree,
    WithAnItem,
)

T = TypeVar("T")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
CANARY = "hunter2"


class SubItem(Item):
    colour: str = "red"


class Box(BaseModel, Generic[T]):
    inside: T


class Rounded(BaseModel):
    net: int

    @computed_field
    def gross(self) -> int:
        return self.net * 2

    @functools.cached_property
    def slow(self) -> int:
        return self.net * 3

    model_config = ConfigDict(extra="forbid")


@dataclasses.dataclass
class Stay:
    nights: list[int]
    price: Decimal = Decimal(1)

    @functools.cached_property
    def slow(self) -> int:
        return len(self.nights)


@dataclasses.dataclass(slots=True)
class Slotted:
    number: int


@pydantic.dataclasses.dataclass(config=ConfigDict(extra="allow"))
class Loose:
    number: int


class LongStay(Stay):
    pass


@dataclasses.dataclass
class Derived:
    nights: list[int]
    total: int = dataclasses.field(init=False, default=0)


class Amount(TypedDict, total=False):
    value: int


class Never:
    """An object that equals nothing, and says so loudly."""

    def __eq__(self, other: object) -> bool:
        raise ValueError(CANARY)

    __hash__ = None  # type: ignore[assignment]


def model_of(annotation: Any, **config: Any) -> type[BaseEventContext]:
    base = types.new_class(
        "Base",
        (BaseEventContext,),
        exec_body=lambda body: body.update(
            __module__=__name__, model_config=ConfigDict(arbitrary_types_allowed=True, **config)
        ),
    )
    return pydantic.create_model("Odd", __base__=base, it=(annotation, ...))


def comes_back(context: BaseEventContext) -> BaseEventContext:
    model = type(context)
    returned = load("odd", model, dump("odd", model, context))
    assert type(returned) is model
    assert difference(context, returned) is None
    return returned


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "é\x00\u2028"),
        (str | None, None),
        (int, 2**200),
        (int, True),
        (float, 0.1),
        (float, -0.0),
        (Decimal, Decimal("1.10")),
        (UUID, UUID(int=1)),
        (bytes, "é".encode()),
        (dt.timedelta, dt.timedelta(days=-3, microseconds=1)),
        (dt.timedelta, dt.timedelta.max),
        (dt.date, dt.date(1, 1, 1)),
        (dt.time, dt.time(1, 2, 3, 4)),
        (dt.time, dt.time(1, tzinfo=dt.UTC)),
        (dt.datetime, NOW),
        (dt.datetime, NOW.replace(tzinfo=None)),
        (dt.datetime, NOW.astimezone(BERLIN)),
        (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)),
        (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1)),
        (Colour, Colour.BLUE),
        (Size, Size.SMALL),
        (Literal["a", 1], 1),
        (set[int], {1, 2}),
        (frozenset[tuple[int, str]], frozenset({(1, "a")})),
        (tuple[int, ...], (1, 2)),
        (deque[int], deque([1])),
        (dict[UUID, int], {UUID(int=1): 1}),
        (dict[int, dict[str, float]], {1: {"a": 0.5}}),
        (Counter[str], Counter("aab")),
        (OrderedDict[str, int], OrderedDict(b=1, a=2)),
        (defaultdict[str, list[int]], {"a": [1]}),
        (Json[list[int]], "[1]"),
        (JsonValue, {"a": [1, None, 1.5, True, "a"]}),
        (dict[str, Any], {"a": [1, {"b": "c"}]}),
        (Item, Item(sku="AB-1")),
        (Rounded, Rounded(net=1)),
        (Box[int] | Box[str], Box[str](inside="1")),
        (Tree, Tree(value=1, children=[Tree(value=2)])),
        (Stay, Stay([1])),
        (Slotted, Slotted(1)),
        (Loose, {"number": 1}),
        (Point, Point(1)),
        (Amount, {"value": 1}),
        (Card | Cash, Cash(kind="coins")),
        (pydantic.AnyUrl, "https://user:pass@example.org/a"),
        (pydantic.ByteSize, "1kb"),
        (pydantic.RootModel[list[int]], [1]),
        (complex, 1 + 2j),
    ],
)
def test_a_value_that_json_can_carry_comes_back_equal(annotation: Any, value: Any) -> None:
    if annotation is complex and not hasattr(pydantic_core.core_schema, "complex_schema"):
        pytest.skip("this pydantic knows no complex numbers")
    context = model_of(annotation)(it=value)

    assert type(comes_back(context).it) is type(context.it)


def masked(it: object) -> str:
    return "***"


@pytest.mark.parametrize(
    ("annotation", "value", "field", "problem"),
    [
        (str, "\ud800", "it", "cannot be written as JSON"),
        (bytes, b"\xff", "it", "cannot be written as JSON"),
        (Any, object(), "it", "cannot be written as JSON"),
        (dict[str, Any], {"a": NOW}, "it.*", "is of the class datetime and comes back as str"),
        (Any, (1,), "it", "is of the class tuple and comes back as list"),
        (Any, {1: 2}, "it.*", "does not come back"),
        (dt.datetime, dt.datetime(2026, 10, 25, 2, 30, fold=1), "it", "another value"),  # noqa: DTZ001
        (dt.time, dt.time(2, 30, fold=1), "it", "another value"),
        (dt.time, dt.time(2, 30, tzinfo=BERLIN), "it", "another value"),
        (deque[int], deque([1], maxlen=2), "it", "comes back with another maxlen"),
        (Loose, {"number": 1, "other": 2}, "it.other", "does not come back"),
        (Derived, Derived([1]), "it", "cannot be read back (unexpected_keyword_argument)"),
        (Any, Item(sku="AB-1"), "it", "is of the class Item and comes back as dict"),
        (float, float("nan"), "it", "cannot be read back (float_type)"),
        (float, float("inf"), "it", "cannot be read back (float_type)"),
        (list[float | None], [1, float("inf")], "it.1", "is of the class float and comes back as"),
        (dt.datetime, dt.datetime(1890, 1, 1, tzinfo=BERLIN), "it", "comes back with another"),
        (Item, SubItem(sku="AB-1"), "it", "is of the class SubItem and comes back as Item"),
        (list[Item], [Item(sku="AB-1"), SubItem(sku="AB-1")], "it.1", "is of the class SubItem"),
        (Stay, LongStay([1]), "it", "is of the class LongStay and comes back as Stay"),
        (Annotated[int, AfterValidator(lambda it: it + 1)], 1, "it", "comes back with another"),
        (Annotated[str, AfterValidator(hash)], "a", "it", "cannot be read back (string_type)"),
        (Annotated[str, PlainSerializer(masked)], CANARY, "it", "comes back with another value"),
        (Annotated[int, PlainSerializer(masked)], 1, "it", "cannot be read back (int_parsing)"),
        (Annotated[Decimal, PlainSerializer(float)], Decimal("1.10"), "it", "another value"),
        (SkipValidation[UUID], UUID(int=1), "it", "is of the class UUID and comes back as str"),
        (UUID | int | str, str(UUID(int=1)), "it", "is of the class str and comes back as UUID"),
        (dict[str, Item], {CANARY: SubItem(sku="AB-1")}, "it.*", "is of the class SubItem"),
        (Annotated[list[int], PlainSerializer(sorted)], [2, 1], "it.0", "another value"),
        (Annotated[list[int], PlainSerializer(set)], [1, 1], "it", "another number of items"),
        (Annotated[set[int], PlainSerializer(lambda _: [1])], {2}, "it.*", "does not come back"),
        (Annotated[set[int], PlainSerializer(lambda _: [])], {2}, "it", "another number of items"),
        (Annotated[dict[str, int], PlainSerializer(lambda _: {})], {"a": 1}, "it", "number of"),
        (
            Annotated[dict[str, int], PlainSerializer(lambda _: {"b": 1})],
            {"a": 1},
            "it.*",
            "does not come back",
        ),
    ],
)
def test_a_value_that_would_be_changed_is_refused_with_the_name_of_its_field(
    annotation: Any, value: Any, field: str, problem: str
) -> None:
    model = model_of(annotation)
    context = model(it=value)

    with pytest.raises(NotSerialisableError) as caught:
        dump("odd_happened", model, context)
    message = str(caught.value)
    assert message.startswith(f"the field {field} of odd_happened ")
    assert problem in message
    assert ": annotate it with the class that it holds, or give it a serialiser" in message
    assert (caught.value.event, caught.value.field) == ("odd_happened", field)
    assert CANARY not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("mode", ["constants", "strings"])
def test_a_number_that_is_not_finite_is_refused_however_the_model_writes_it(mode: Any) -> None:
    """PostgreSQL, SQLite and most other readers know no such JSON."""
    model = model_of(float, ser_json_inf_nan=mode)
    for number in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(NotSerialisableError, match="the field it of odd is not finite"):
            dump("odd", model, model(it=number))


def test_a_context_that_was_made_without_validation_is_refused_if_it_lacks_a_field() -> None:
    missing = Plain.model_construct(order_id=1)
    defaulted = LoginEventContext(user_id=1, email="a@b.c")
    vars(defaulted).pop("name")

    with pytest.raises(NotSerialisableError, match=r"total of odd cannot be read back \(missing\)"):
        dump("odd", Plain, missing)
    with pytest.raises(NotSerialisableError, match="the field name of odd has no value"):
        dump("odd", LoginEventContext, defaulted)


def test_a_value_that_no_validator_has_seen_is_compared_with_its_class() -> None:
    odd = Plain.model_construct(order_id=1.0, total=1, timestamp=NOW)

    with pytest.raises(NotSerialisableError, match="order_id of odd is of the class float and"):
        dump("odd", Plain, odd)


def test_a_context_without_what_pydantic_keeps_is_refused() -> None:
    """Its `__init__` does not call that of its base class."""

    class Odd(BaseEventContext):
        def __init__(self) -> None:
            pass

    with pytest.raises(NotSerialisableError):
        dump("odd", Odd, Odd())


def test_extra_fields_come_back_if_json_can_say_them() -> None:
    returned = comes_back(Open(order_id=1, note="a", more=[1]))

    assert returned.model_extra == {"note": "a", "more": [1]}
    with pytest.raises(NotSerialisableError, match="the field note of odd is of the class tuple"):
        dump("odd", Open, Open(order_id=1, note=(1,)))


class Counting(BaseEventContext):
    number: int
    _double: int = PrivateAttr(default=0)

    def model_post_init(self, context: Any, /) -> None:
        self._double = self.number * 2


def test_a_private_attribute_comes_back_only_if_the_fields_make_it_anew() -> None:
    counting = Counting(number=1)
    comes_back(counting)

    counting._double = 3
    with pytest.raises(NotSerialisableError, match="the field _double of odd comes back with ano"):
        dump("odd", Counting, counting)


def test_what_was_computed_from_the_fields_is_not_compared() -> None:
    class Computing(Rounded, BaseEventContext):
        inner: Rounded
        stay: Stay

    context = Computing(net=1, inner=Rounded(net=2), stay=Stay([1]))
    assert (context.slow, context.inner.slow, context.stay.slow) == (3, 6, 1)

    comes_back(context)


class Aliased(BaseModel):
    number: int = Field(alias="theNumber")


class OneWay(BaseModel):
    number: int = Field(serialization_alias="theNumber")


class Unread(BaseModel):
    number: int = Field(validation_alias="theNumber", serialization_alias="number")


class WithAnItemOfItsOwn(WithAnItem):
    """What is remembered of it, no other test has asked for."""


class OwnAlias(BaseEventContext):
    number: int = Field(alias="theNumber")


@pytest.mark.parametrize(
    ("context", "key"),
    [
        (OwnAlias(theNumber=1), '"number":1'),
        (model_of(OneWay)(it=OneWay(number=1)), '{"number":1}'),
        (model_of(Aliased)(it=Aliased(theNumber=1)), '{"theNumber":1}'),
        (model_of(SpelledItem)(it=SpelledItem(itemNumber=1)), '{"number":1}'),
        (WithAnItemOfItsOwn(item=SpelledItem(itemNumber=1), orderId=1), '{"number":1}'),
    ],
)
def test_fields_are_written_by_name_or_else_by_alias(context: Any, key: str) -> None:
    for _ in range(2):  # the answer is remembered
        assert key in dump("odd", type(context), context)
    comes_back(context)


def test_a_dataclass_that_lacks_a_value_is_refused() -> None:
    slotted = Slotted(1)
    del slotted.number
    model = model_of(Slotted)

    with pytest.raises(NotSerialisableError, match="the field it of odd"):
        dump("odd", model, model.model_construct(it=slotted, timestamp=NOW))


def test_a_field_that_is_read_by_an_alias_that_is_not_written_is_refused() -> None:
    model = model_of(Unread)

    with pytest.raises(NotSerialisableError, match="the field it of odd cannot be read back"):
        dump("odd", model, model(it=Unread(theNumber=1)))


def test_what_goes_in_circles_is_refused_with_the_name_of_its_field() -> None:
    circle: list[Any] = []
    circle.append(circle)
    model = model_of(SkipValidation[list[Any]])

    with pytest.raises(NotSerialisableError, match="the field it of odd cannot be written as JSON"):
        dump("odd", model, model(it=circle))


def test_what_is_nested_deeply_comes_back_or_is_refused() -> None:
    fits, tree = 0, Tree(value=1)
    for _ in range(300):
        tree = Tree.model_construct(value=1, children=[tree])
        try:
            dump("odd", Recursive, Recursive.model_construct(tree=tree, timestamp=NOW))
        except NotSerialisableError:
            pass
        else:
            fits += 1

    assert 10 < fits < 300


def test_what_is_too_deep_for_python_is_refused() -> None:
    tree = Tree(value=1)
    for _ in range(50):
        tree = Tree.model_construct(value=1, children=[tree])
    context = Recursive(tree=tree)
    comes_back(context)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        with pytest.raises(NotSerialisableError, match="the context of odd is nested too deep"):
            dump("odd", Recursive, context)
    finally:
        sys.setrecursionlimit(limit)


def fail(value: object) -> Any:
    raise KeyError(CANARY)


def test_a_serialiser_or_validator_that_raises_makes_the_context_refused() -> None:
    writing = model_of(Annotated[int, PlainSerializer(fail)])
    reading = model_of(Annotated[int, AfterValidator(fail)])

    with pytest.raises(NotSerialisableError, match="the field it of odd cannot be written") as one:
        dump("odd", writing, writing(it=1))
    with pytest.raises(NotSerialisableError, match=r"of odd cannot be read back \(KeyErr") as other:
        dump("odd", reading, reading.model_construct(it=1))
    assert CANARY not in f"{one.value} {other.value}"


def test_a_serialiser_of_the_whole_model_that_raises_names_no_field() -> None:
    class Odd(BaseEventContext):
        @pydantic.model_serializer
        def _fail(self) -> Any:
            return fail(self)

    with pytest.raises(NotSerialisableError, match="the context of odd cannot be") as caught:
        dump("odd", Odd, Odd())
    assert caught.value.field is None


def test_a_model_that_returns_something_else_is_refused() -> None:
    class Odd(BaseEventContext):
        @pydantic.model_validator(mode="wrap")
        @classmethod
        def _other(cls, value: Any, handler: Any) -> Any:
            handler(value)
            return 7

    odd = Odd.model_construct(timestamp=NOW)
    with pytest.raises(NotSerialisableError, match="the context of odd is of the class Odd and"):
        dump("odd", Odd, odd)
    with pytest.raises(UnreadablePayloadError, match="Odd: comes back as int"):
        load("odd", Odd, "{}")


def test_a_value_that_cannot_be_compared_is_refused() -> None:
    def read(value: object) -> Never:
        return Never()

    model = model_of(Annotated[Never, pydantic.PlainValidator(read), PlainSerializer(str)])

    with pytest.raises(NotSerialisableError, match="the field it of odd comes back with another"):
        dump("odd", model, model(it="a"))


def test_a_context_of_a_subclass_is_refused() -> None:
    class Better(Plain):
        pass

    with pytest.raises(NotSerialisableError, match="odd is stored as Plain, so this Better would"):
        dump("odd", Plain, Better(order_id=1, total=1.0))


def test_two_classes_that_mean_the_same_are_one() -> None:
    """Two threads may make the same generic at once."""
    twin = type(
        "Changed[int]",
        (Changed[int],),
        {"__module__": __name__, "__qualname__": "Changed[int]"},
    )
    twin.__pydantic_generic_metadata__ = Changed[int].__pydantic_generic_metadata__  # type: ignore[attr-defined]
    box = type("Box[int]", (Box[int],), {"__module__": __name__, "__qualname__": "Box[int]"})
    box.__pydantic_generic_metadata__ = Box[int].__pydantic_generic_metadata__  # type: ignore[attr-defined]
    holder = model_of(Box[int])

    assert load("odd", Changed[int], dump("odd", Changed[int], twin(before=1, after=2)))
    comes_back_as = dump("odd", holder, holder.model_construct(it=box(inside=1), timestamp=NOW))
    assert '"it":{"inside":1}' in comes_back_as


def test_contexts_can_be_stored_while_a_test_has_stopped_the_clock() -> None:
    LoginEventContext(user_id=1, email="a@b.c")  # which builds the model
    with freezegun.freeze_time("2026-01-02"):
        context = LoginEventContext(user_id=1, email="a@b.c")
        assert type(context.timestamp) is not type(NOW)

        assert load("odd", LoginEventContext, dump("odd", LoginEventContext, context)) == context


def test_nothing_is_said_of_values_that_do_not_fit(recwarn: pytest.WarningsRecorder) -> None:
    """Otherwise pydantic would warn of them, and show them."""
    with pytest.raises(NotSerialisableError):
        dump("odd", Plain, Plain.model_construct(order_id=CANARY, total=CANARY))
    assert not recwarn.list


# Events without a model.


def generic(**data: Any) -> GenericEventContext:
    return GenericEventContext(
        event_type="thing_happened", data=data, request_id="r", timestamp=NOW
    )


def test_the_entries_of_an_event_without_a_model_are_stored_as_fields_would_be() -> None:
    context = generic(order_id=7, tags=["a", {"b": None}])

    payload = dump("thing_happened", None, context)

    assert json.loads(payload) == {
        "timestamp": "2026-01-02T03:04:05.678901Z",
        "request_id": "r",
        "user_agent": None,
        "ip_address": None,
        "order_id": 7,
        "tags": ["a", {"b": None}],
    }
    assert load("thing_happened", None, payload) == context
    assert load("thing_happened", GenericEventContext, payload) == context


def test_an_event_may_get_a_model_after_it_was_stored() -> None:
    payload = dump("order_placed", None, generic(order_id=7, total=1.5, old=1))

    order = load("order_placed", Plain, payload)

    assert isinstance(order, Plain)
    assert (order.order_id, order.total, order.request_id, order.timestamp) == (7, 1.5, "r", NOW)


def test_what_had_a_model_is_read_without_it() -> None:
    payload = dump("order_placed", Plain, Plain(order_id=7, total=1.5))

    order = load("order_placed", None, payload)

    assert isinstance(order, GenericEventContext)
    assert order.event_type == "order_placed"
    assert (order.data["order_id"], order.data["total"]) == (7, 1.5)


def test_the_context_of_an_event_without_a_model_bears_the_name_under_which_it_is_read() -> None:
    """It may have been emitted under an older one."""
    context = load("new_name", None, dump("new_name", None, generic(a=1)))

    assert isinstance(context, GenericEventContext)
    assert context.event_type == "new_name"


@pytest.mark.parametrize(
    ("data", "field", "problem"),
    [
        ({"a": 1, "at": NOW}, "at", "is of the class datetime and comes back as str"),
        ({"a": {"b": float("inf")}}, "a.*", "is not finite"),
        ({"a": Decimal(1)}, "a", "is of the class Decimal"),
        ({"a": Size.BIG}, "a", "is of the class Size"),
        ({"a": 1, "b": object()}, "b", "cannot be written"),
        ({"timestamp": 1}, "timestamp", "rename the entry"),
        ({"data": 1}, "data", "rename the entry"),
    ],
)
def test_an_entry_that_json_cannot_carry_is_refused(
    data: dict[str, Any], field: str, problem: str
) -> None:
    with pytest.raises(NotSerialisableError, match=problem) as caught:
        dump("thing_happened", None, generic(**data))
    assert caught.value.field == field


def test_entries_that_are_kept_in_another_kind_of_dictionary_are_refused() -> None:
    context = GenericEventContext.model_construct(
        event_type="odd", data=OrderedDict(a=1), timestamp=NOW
    )

    with pytest.raises(NotSerialisableError, match="data of odd is of the class OrderedDict and"):
        dump("odd", None, context)


def test_an_incomplete_context_of_an_event_without_a_model_is_refused() -> None:
    with pytest.raises(NotSerialisableError, match="the field timestamp of odd has no value"):
        context = GenericEventContext.model_construct(event_type="odd", data={})
        vars(context).pop("timestamp")
        dump("odd", None, context)


def test_a_typed_context_of_an_event_without_a_model_would_lose_its_class() -> None:
    with pytest.raises(NotSerialisableError, match="declare the event with context=Plain, or emit"):
        dump("odd", None, Plain(order_id=1, total=1.0))


# Reading what another version of the program has written.


def test_keys_that_the_model_does_not_know_are_dropped() -> None:
    payload = '{"order_id": 1, "total": 1.5, "new": {"a": 1}, "newer": null}'

    order = load("order_placed", Plain, payload)

    assert isinstance(order, Plain)
    assert (order.order_id, order.total, order.paid) == (1, 1.5, False)


def test_keys_are_dropped_in_whatever_is_nested() -> None:
    payload = json.dumps(
        {
            "items": [{"sku": "AB-1", "new": 1}, {"sku": "AB-2"}],
            "best": {"sku": "AB-3", "amount": 2, "new": [], "newer": 1},
            "many": [{"sku": "AB-4", "new": {"new": 1}}],
        }
    )

    order = load("order_placed", Nested, payload)

    assert isinstance(order, Nested)
    assert [item.sku for item in order.items] == ["AB-1", "AB-2"]
    assert order.best == Item(sku="AB-3", amount=2)
    assert order.many == (Item(sku="AB-4"),)


def test_keys_of_dataclasses_and_typed_dictionaries_and_named_tuples_are_dropped() -> None:
    payload = json.dumps(
        {
            "address": {"street": "a", "new": 1},
            "point": {"x": 1, "new": 1},
            "amount": {"currency": "EUR", "value": 1, "new": 1},
            "new": 1,
        }
    )

    structured = load("moved", Structured, payload)

    assert isinstance(structured, Structured)
    assert structured.address == Address("a")
    assert structured.point == Point(1)
    assert structured.amount == {"currency": "EUR", "value": 1}


def test_keys_are_dropped_from_the_member_of_a_union_that_they_belong_to() -> None:
    """What one member does not know may be what another one needs."""
    cards = model_of(list[Card | Cash | Item])
    payload = json.dumps(
        {
            "it": [
                {"kind": "card", "digits": "1234", "new": 1},
                {"kind": "cash", "new": 1},
                {"sku": "AB-1", "new": 1},
            ]
        }
    )

    assert load("paid", cards, payload).it == [
        Card(kind="card", digits="1234"),
        Cash(kind="cash"),
        Item(sku="AB-1"),
    ]
    told_apart = load("paid", Discriminated, '{"payment": {"kind": "cash", "new": 1}}')
    assert told_apart.payment == Cash(kind="cash")


def test_missing_fields_take_their_defaults() -> None:
    order = load("order_placed", Plain, '{"order_id": 1, "total": 1.5}')

    assert order.note is None
    assert order.request_id is None


def test_a_model_that_ignores_or_keeps_unknown_keys_does_so() -> None:
    assert load("odd", Open, '{"order_id": 1, "new": 2}').model_extra == {"new": 2}


@pytest.mark.parametrize(
    ("model", "payload", "problems"),
    [
        (Plain, '{"order_id": 1}', [("total", "missing")]),
        (Plain, '{"order_id": "x", "new": 1}', [("order_id", "int_parsing"), ("total", "missing")]),
        (Plain, "[]", [("Plain", "model_type")]),
        (Plain, "{", [("Plain", "json_invalid")]),
        (Nested, f'{{"items": [{{"{CANARY}": 1}}], "best": 1}}', [("items", "missing")]),
        (OwnAlias, "{}", [("theNumber", "missing")]),
        (Discriminated, '{"payment": {"kind": "cheque"}}', [("payment", "union_tag_invalid")]),
        (model_of(Card | Cash), '{"it": {"kind": "cheque", "a": 1}}', [("it", "literal_error")]),
        (model_of(Annotated[int, AfterValidator(fail)]), '{"it": 1}', [("Odd", "KeyError")]),
        (None, "[]", [("GenericEventContext", "TypeError")]),
        (None, "{", [("GenericEventContext", "ValueError")]),
        (None, '{"self": 1}', [("data", "reserved_key")]),
        (None, '{"timestamp": 1e99}', [("timestamp", "datetime_parsing")]),
    ],
)
def test_what_does_not_fit_is_refused_with_names_and_types_only(
    model: Any, payload: str, problems: list[tuple[str, str]]
) -> None:
    with pytest.raises(UnreadablePayloadError) as caught:
        load("odd_happened", model, payload)
    message = str(caught.value)
    assert message.startswith("what is stored of odd_happened does not fit its model (")
    assert caught.value.event == "odd_happened"
    assert set(problems) <= set(caught.value.problems)
    assert all(f"{name}: {problem}" in message for name, problem in problems)
    assert CANARY not in message
    assert caught.value.__context__ is None


def test_a_model_that_finds_unknown_keys_wherever_it_looks_is_given_up() -> None:
    def refuse(value: dict[str, Any]) -> dict[str, Any]:
        return {**value, "new": 1}

    class Odd(BaseEventContext):
        @pydantic.model_validator(mode="before")
        @classmethod
        def _add(cls, value: Any) -> Any:
            return refuse(value)

    with pytest.raises(UnreadablePayloadError, match="extra_forbidden"):
        load("odd", Odd, "{}")
    with pytest.raises(UnreadablePayloadError, match="extra_forbidden"):
        load("odd", Odd, '{"other": 1}')


class OneByOne(BaseEventContext):
    """It sees one unknown key at a time."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _hide(cls, value: Any) -> Any:
        return dict(list(value.items())[:1])


def test_keys_that_show_after_others_are_gone_are_dropped_up_to_a_limit() -> None:
    few, many = ({f"new_{number}": 1 for number in range(most)} for most in (10, 50))

    assert isinstance(load("odd", OneByOne, json.dumps(few)), OneByOne)
    with pytest.raises(UnreadablePayloadError, match="extra_forbidden"):
        load("odd", OneByOne, json.dumps(many))


class TimeLimit(Exception):
    """As what task queues raise when a job takes too long."""


@pytest.fixture
def interrupt() -> Iterator[Callable[..., Any]]:
    """Return a function in which a signal comes, whose handler raises an exception."""

    def handle(number: int, frame: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGINT, handle)
    yield lambda value: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_what_the_handler_of_a_signal_raises_comes_through(
    interrupt: Callable[..., Any],
) -> None:
    class Interrupted:
        def __eq__(self, other: object) -> bool:
            return interrupt(other)

        __hash__ = None  # type: ignore[assignment]

    def read(value: object) -> Interrupted:
        return Interrupted()

    writing = model_of(int)
    written = writing(it=1)
    # In the place of pydantic's own, which swallows what is raised inside of it.
    writing.__pydantic_serializer__ = types.SimpleNamespace(  # type: ignore[assignment]
        to_json=lambda *_, **__: interrupt(None)
    )
    reading = model_of(Annotated[int, AfterValidator(interrupt)])
    comparing = model_of(
        Annotated[Interrupted, pydantic.PlainValidator(read), PlainSerializer(str)]
    )

    with pytest.raises(TimeLimit):
        dump("odd", writing, written)
    with pytest.raises(TimeLimit):
        dump("odd", reading, reading.model_construct(it=1))
    with pytest.raises(TimeLimit):
        dump("odd", comparing, comparing(it=1))
    with pytest.raises(TimeLimit):
        load("odd", reading, '{"it": 1}')


def test_a_message_names_a_bounded_number_of_problems() -> None:
    fields: dict[str, Any] = {f"field_{number}": (int, ...) for number in range(100)}
    model = pydantic.create_model("Wide", __base__=BaseEventContext, **fields)

    with pytest.raises(UnreadablePayloadError) as caught:
        load("odd", model, "{}")
    assert len(caught.value.problems) == 20
