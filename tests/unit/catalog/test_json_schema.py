"""The catalogue as JSON Schema has one property for each event."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ConfigDict, Field, model_serializer

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.catalog import json_schema
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
