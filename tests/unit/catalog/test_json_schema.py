"""The catalogue as JSON Schema has one property for each event."""

from __future__ import annotations

import datetime as dt
import enum
import json
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

import pydantic
import pytest
from pydantic import ConfigDict, Field, SecretStr, StringConstraints, model_serializer

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.catalog import _schemas as schemas
from madcrow_events.catalog import asyncapi, json_schema
from support import shapes


class OrderPlaced(BaseEventContext):
    """The class says more than the event."""

    order_id: int


def properties_of(model: type[BaseEventContext], signals: SignalRegistry) -> dict[str, Any]:
    """Return the schemas of the fields that a model adds."""
    signals.signal("thing_happened", context=model)
    definitions = json_schema(signals=signals)["$defs"]
    fields: dict[str, Any] = definitions[model.__name__]["properties"]
    return {name: it for name, it in fields.items() if name not in BaseEventContext.model_fields}


def test_an_event_is_a_property_that_refers_to_its_model(signals: SignalRegistry) -> None:
    signals.signal("order_placed", "A customer placed an order.", context=OrderPlaced)
    signals.signal("order_moved", context=OrderPlaced)

    catalogue = json_schema(signals=signals)

    assert catalogue["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert catalogue["additionalProperties"] is False
    assert catalogue["properties"] == {
        "order_moved": {"$ref": "#/$defs/OrderPlaced"},
        "order_placed": {
            "$ref": "#/$defs/OrderPlaced",
            "description": "A customer placed an order.",
        },
    }
    model = catalogue["$defs"]["OrderPlaced"]
    assert list(catalogue["$defs"]) == ["OrderPlaced"]
    assert model["description"] == "The class says more than the event."
    assert model["properties"]["order_id"] == {"title": "Order Id", "type": "integer"}
    assert model["properties"]["timestamp"]["format"] == "date-time"
    assert model["required"] == ["order_id"]
    assert model["additionalProperties"] is False


def test_a_registry_without_events_has_a_schema_too(signals: SignalRegistry) -> None:
    catalogue = json_schema(signals=signals)

    assert (catalogue["properties"], catalogue["$defs"]) == ({}, {})


def test_an_event_without_a_model_takes_any_object(signals: SignalRegistry) -> None:
    signals.signal("thing_happened", "Something happened.")

    assert json_schema(signals=signals)["properties"] == {
        "thing_happened": {"type": "object", "description": "Something happened."}
    }


def test_models_of_one_name_have_definitions_of_their_own(signals: SignalRegistry) -> None:
    for module in ("shop", "market"):
        signals.signal(f"{module}_closed", context=shapes.namesake(module))

    catalogue = json_schema(signals=signals)

    assert catalogue["properties"] == {
        "market_closed": {"$ref": "#/$defs/market__Item"},
        "shop_closed": {"$ref": "#/$defs/shop__Item"},
    }
    assert catalogue["$defs"].keys() == {"market__Item", "shop__Item"}


def test_fields_have_the_names_that_are_written(signals: SignalRegistry) -> None:
    """Those are aliases only in classes that are configured to write them."""
    item, place = shapes.SpelledItem(number=2), shapes.SpelledPlace(cityName="Rome")
    address = shapes.SpelledAddress(street="Main Street")
    contexts = (
        shapes.WithAnItem(orderId=1, item=item, places={"a": place}),
        shapes.WritingAliases(orderId=1, item=item, address={"a": address}),
    )
    for number, context in enumerate(contexts):
        signals.signal(f"event_{number}", context=type(context))
    definitions = json_schema(signals=signals)["$defs"]

    for context, inside in zip(contexts, ("SpelledPlace", "SpelledAddress"), strict=True):
        written = json.loads(context.model_dump_json())
        assert definitions[type(context).__name__]["properties"].keys() == written.keys()
        assert definitions["SpelledItem"]["properties"].keys() == written["item"].keys()
        (other,) = [
            value["a"] for value in written.values() if isinstance(value, dict) and "a" in value
        ]
        assert definitions[inside]["properties"].keys() == other.keys()


def test_fields_have_the_types_that_are_written(signals: SignalRegistry) -> None:
    fields = properties_of(shapes.Written, signals)

    types = {name: (it.get("type"), it.get("format")) for name, it in fields.items()}
    assert types == {
        "price": ("string", None),
        "limited": ("string", None),
        "content": ("string", "binary"),
        "lasted": ("string", "duration"),
        "said": ("string", None),
        "unsaid": (None, None),
        "by_number": ("object", None),
        "secret": ("string", "password"),
        "naive": ("string", "date-time"),
        "at": ("string", "time"),
    }


@pytest.mark.parametrize("extra", ["forbid", "ignore"])
def test_a_dataclass_and_a_dictionary_refuse_what_the_model_around_them_refuses(
    extra: Any, signals: SignalRegistry
) -> None:
    class Around(shapes.Structured):
        model_config = ConfigDict(extra=extra)

    signals.signal("thing_happened", context=Around)
    definitions = json_schema(signals=signals)["$defs"]

    is_closed = {name: "additionalProperties" in it for name, it in definitions.items()}
    assert is_closed == {
        "Around": extra == "forbid",
        "Address": extra == "forbid",
        "Amount": extra == "forbid",
        "Point": False,
    }


def test_a_type_that_json_schema_cannot_describe_is_any_value_and_says_so(
    signals: SignalRegistry,
) -> None:
    fields = properties_of(shapes.Odd, signals)

    anything = {"description": "Any value: JSON Schema cannot describe its type."}
    assert fields["opaque"] == {**anything, "title": "Opaque"}
    assert fields["maybe"]["anyOf"] == [anything, {"type": "null"}]
    assert fields["several"]["items"] == anything
    assert fields["call"]["anyOf"] == [anything, {"type": "null"}]
    assert fields["by_default"] == {"title": "By Default"}


def test_numbers_that_json_does_not_have_are_left_out(signals: SignalRegistry) -> None:
    class Bounded(BaseEventContext):
        share: float = Field(default=float("inf"), lt=float("inf"), gt=0, examples=[float("nan")])
        shares: list[float] = Field(default=[float("nan"), 1.0])

    fields = properties_of(Bounded, signals)

    assert fields["share"] == {
        "title": "Share",
        "type": "number",
        "exclusiveMinimum": 0,
        "examples": [None],
    }
    assert fields["shares"]["default"] == [None, 1.0]


@pytest.mark.parametrize("text", ["1", "-0.50", "1E+2", "0E-10", "1.5E-7"])
def test_a_decimal_is_every_text_that_is_written_of_one(text: str, signals: SignalRegistry) -> None:
    price = properties_of(shapes.Written, signals)["price"]

    assert json.loads(shapes.Written(price=Decimal(text)).model_dump_json())["price"] == text
    assert re.search(price["pattern"], text)
    for other in ("", "a", "NaN", "1.2.3", "1\u0663", "1 "):
        assert not re.search(price["pattern"], other)


def test_a_decimal_that_may_be_infinite_is_any_text(signals: SignalRegistry) -> None:
    class Priced(BaseEventContext):
        price: Decimal = Field(allow_inf_nan=True)

    assert properties_of(Priced, signals) == {"price": {"title": "Price", "type": "string"}}


def test_a_model_that_writes_itself_without_a_type_is_any_value(signals: SignalRegistry) -> None:
    class Packed(BaseEventContext):
        order_id: int

        @model_serializer
        def _pack(self):
            return [self.order_id]

    signals.signal("thing_happened", context=Packed)

    packed = json_schema(signals=signals)["$defs"]["Packed"]
    assert not {"type", "properties"} & packed.keys()


def test_a_model_with_an_undefined_name_is_any_object_and_does_not_spoil_the_catalogue(
    signals: SignalRegistry,
) -> None:
    signals.signal("order_placed", context=OrderPlaced)
    signals.signal("thing_happened", context=shapes.Incomplete)

    properties = json_schema(signals=signals)["properties"]

    assert properties["thing_happened"] == {
        "type": "object",
        "description": "Any object: the model uses a name that is not defined.",
    }
    assert properties["order_placed"] == {"$ref": "#/$defs/OrderPlaced"}


def test_every_shape_makes_valid_schemas_in_valid_json(signals: SignalRegistry) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    shapes.declare_shapes(signals)

    catalogue = json.loads(json.dumps(json_schema(signals=signals), allow_nan=False))

    jsonschema.Draft202012Validator.check_schema(catalogue)


class Mark(enum.IntFlag):
    NEW = 1
    HOT = 2


class Kind(enum.Enum):
    WEB = 1
    SHOP = "shop"


def number(**config: Any) -> Any:
    """Return the type of a model with a number, which is configured."""
    return type(
        "Model",
        (BaseEventContext,),
        {
            "__module__": __name__,
            "__annotations__": {"value": float},
            "model_config": ConfigDict(**config),
        },
    )


def field(annotation: Any, **default: Any) -> Any:
    """Return the type of a model with a field, which may have a default."""
    return type(
        "Model",
        (BaseEventContext,),
        {"__module__": __name__, "__annotations__": {"value": annotation}, **default},
    )


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (field(Annotated[SecretStr, Field(min_length=12)]), "a long enough secret"),
        (field(Annotated[SecretStr, Field(max_length=5)]), "short"),
        (field(Annotated[bytes, Field(min_length=2)]), "\xe4".encode()),
        (field(Mark), Mark.NEW | Mark.HOT),
        (field(dict[Kind, int]), {Kind.WEB: 1, Kind.SHOP: 2}),
        (field(dict[Mark, int]), {Mark.NEW: 1}),
        (field(Annotated[float, Field(multiple_of=0.1)]), 0.3),
        (field(int, value=None), None),
        (field(Kind, value=None), None),
        (field(Literal[1, "a"], value=None), None),
        (field(Annotated[str, Field(pattern="^a**$")]), "a"),
        (number(ser_json_inf_nan="strings"), float("-inf")),
        (number(ser_json_inf_nan="constants"), float("nan")),
        (field(Annotated[str, Field(pattern=re.compile("^a$", re.IGNORECASE))]), "A"),
        (field(Annotated[str, Field(pattern=r"^\p{L}+$")]), "\xe4"),
        (field(Annotated[str, Field(pattern=r"\Aa\z")]), "a"),
        (field(Annotated[str, Field(pattern=r"(?i)^a$")]), "A"),
        (field(dict[Annotated[str, StringConstraints(pattern=r"^\p{L}$")], int]), {"\xe4": 1}),
    ],
)
def test_the_schema_accepts_what_is_written(
    model: Any, value: Any, signals: SignalRegistry
) -> None:
    """Even where pydantic's own schema refuses it, or is not valid."""
    jsonschema = pytest.importorskip("jsonschema")
    signals.signal("thing_happened", context=model)
    catalogue = json_schema(signals=signals)
    given = {} if value is None else {"value": value}

    jsonschema.Draft202012Validator.check_schema(catalogue)
    jsonschema.validate({"thing_happened": json.loads(model(**given).model_dump_json())}, catalogue)


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (field(Annotated[SecretStr, Field(min_length=12)]), {"type": "string"}),
        (field(Mark), {"$ref": "#/$defs/Mark"}),
        (field(int, value=None), {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (field(int | None, value=None), {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (field(None, value=None), {"type": "null", "default": None}),
        (field(Any, value=None), {"default": None}),
        pytest.param(
            field(dict[Annotated[str, Field(min_length=2)], int]),
            {"propertyNames": {"minLength": 2}},
            marks=pytest.mark.skipif(
                tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 9),
                reason="pydantic says less",
            ),
        ),
        (
            field(dict[Annotated[str, Field(pattern="^a")], int]),
            {"patternProperties": {"^a": {"type": "integer"}}},
        ),
        (
            field(dict[Annotated[str, Field(pattern=r"^\p{L}")], int]),
            {"additionalProperties": {"anyOf": [{"type": "integer"}]}},
        ),
        (
            number(ser_json_inf_nan="strings", allow_inf_nan=False),
            {"type": "number"},
        ),
    ],
)
def test_the_schema_says_what_it_can(model: Any, schema: Any, signals: SignalRegistry) -> None:
    value = properties_of(model, signals)["value"]

    assert {keyword: value[keyword] for keyword in schema} == schema
    assert not {"pattern", "minLength"} & value.keys()


def test_what_is_no_json_is_text(signals: SignalRegistry) -> None:
    """As in examples, which may be any objects."""
    odd: Any = [Decimal("1.5"), dt.date(2026, 1, 2), b"\xff", Kind, float("nan")]

    class Extra(BaseEventContext):
        model_config = ConfigDict(json_schema_extra=lambda it: it.update(examples=odd))

    signals.signal("thing_happened", context=Extra)

    examples = json_schema(signals=signals)["$defs"]["Extra"]["examples"]
    assert examples == ["1.5", "2026-01-02", "_w==", str(Kind), None]


class Failing(BaseEventContext):
    @classmethod
    def __get_pydantic_json_schema__(cls, *_arguments: Any) -> Any:
        raise RuntimeError("no schema")


def test_a_model_whose_schema_fails_is_any_object_and_does_not_spoil_the_catalogue(
    signals: SignalRegistry,
) -> None:
    signals.signal("order_placed", context=OrderPlaced)
    signals.signal("thing_happened", context=Failing)

    for document in (json_schema(signals=signals), asyncapi(signals=signals)):
        json.dumps(document)
    properties = json_schema(signals=signals)["properties"]

    assert properties["thing_happened"] == {
        "type": "object",
        "description": "Any object: the schema of the model could not be made.",
    }
    assert properties["order_placed"] == {"$ref": "#/$defs/OrderPlaced"}


@pytest.mark.parametrize("errors", [[True], [False, True]])
def test_an_interrupt_is_let_through(
    errors: list[bool], signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it comes."""
    signals.signal("thing_happened", context=Failing)
    monkeypatch.setattr(schemas, "is_interrupt", lambda _error: errors.pop(0))

    with pytest.raises(RuntimeError):
        json_schema(signals=signals)
