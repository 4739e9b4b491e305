"""The catalogue as an AsyncAPI document has a channel, a message and operations for each event."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import ConfigDict, Field, WithJsonSchema

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.catalog import asyncapi, json_schema
from madcrow_events.testing import record_events
from support import shapes


def schema_of(model: type[BaseEventContext], signals: SignalRegistry) -> dict[str, Any]:
    signals.signal("thing_happened", context=model)
    schemas: dict[str, Any] = asyncapi(signals=signals)["components"]["schemas"]
    return schemas[model.__name__]


def test_an_event_has_a_channel_and_a_message_and_is_sent(signals: SignalRegistry) -> None:
    signals.signal(
        "shop.order_placed",
        "A customer placed an order.",
        context=shapes.Plain,
        formerly=("order_made", "shop.order_made"),
    )

    document = asyncapi(title="Shop", version="2.1.0", signals=signals)

    key = "shop-order_placed"
    assert document["asyncapi"] == "3.0.0"
    assert (document["info"]["title"], document["info"]["version"]) == ("Shop", "2.1.0")
    assert document["defaultContentType"] == "application/json"
    assert document["channels"] == {
        key: {
            "address": "shop.order_placed",
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
            "x-former-names": ["order_made", "shop.order_made"],
        }
    }
    assert document["operations"] == {
        f"send_{key}": {"action": "send", "channel": {"$ref": f"#/channels/{key}"}}
    }
    assert document["components"]["messages"] == {
        key: {
            "name": "shop.order_placed",
            "title": "Shop: order placed",
            "summary": "A customer placed an order.",
            "contentType": "application/json",
            "payload": {"$ref": "#/components/schemas/Plain"},
        }
    }


def test_an_event_without_a_model_or_a_text_has_any_object_as_its_payload(
    signals: SignalRegistry,
) -> None:
    signals.signal("thing_happened")

    document = asyncapi(signals=signals)

    assert document["components"]["messages"]["thing_happened"] == {
        "name": "thing_happened",
        "title": "Thing happened",
        "contentType": "application/json",
        "payload": {"type": "object"},
    }
    assert "x-former-names" not in document["channels"]["thing_happened"]


def test_an_event_is_received_while_it_has_a_handler(signals: SignalRegistry) -> None:
    """Of any sender, and by whatever form; what a test records is received by nobody."""
    for name in ("order_placed", "order_shipped", "cart_left"):
        signals.signal(name)

    def received() -> list[str]:
        operations = asyncapi(signals=signals)["operations"]
        assert [name for name in operations if name.startswith("send_")] == [
            f"send_{name}" for name in sorted(signals)
        ]
        return [it["channel"]["$ref"] for it in operations.values() if it["action"] == "receive"]

    with record_events(signals=signals):
        assert received() == []
    with signals.subscribe("order_placed", lambda: None, sender="web shop"):
        assert received() == ["#/channels/order_placed"]
    with signals.subscribe("order_*", lambda: None):
        assert received() == ["#/channels/order_placed", "#/channels/order_shipped"]
    assert received() == []


def test_two_names_never_share_a_key(signals: SignalRegistry) -> None:
    names = ["a.b_c", "a_b.c", "a_b_c", "a.b.c", "a__b.c"]
    for name in names:
        signals.signal(name)

    document = asyncapi(signals=signals)

    assert len(document["channels"]) == len(document["operations"]) == len(names)


def test_schemas_are_written_in_the_words_of_the_older_draft(signals: SignalRegistry) -> None:
    fields = schema_of(shapes.Nested, signals)["properties"]

    assert fields["pair"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert "prefixItems" not in fields["pair"]
    assert fields["best"] == {
        "description": "The best of them",
        "allOf": [{"$ref": fields["items"]["items"]["$ref"]}],
    }


def test_what_stands_beside_a_reference_and_must_hold_too_still_holds(
    signals: SignalRegistry,
) -> None:
    def narrow(schema: dict[str, Any]) -> None:
        schema["properties"]["best"]["allOf"] = [{"minProperties": 2}]

    class Row(BaseEventContext):
        model_config = ConfigDict(json_schema_extra=narrow)

        first: shapes.Item
        best: shapes.Item

    fields = schema_of(Row, signals)["properties"]

    assert fields["best"]["allOf"] == [fields["first"], {"minProperties": 2}]


def test_a_discriminator_is_the_name_of_the_property(signals: SignalRegistry) -> None:
    payment = schema_of(shapes.Discriminated, signals)["properties"]["payment"]

    assert payment["discriminator"] == "kind"
    assert [it["$ref"] for it in payment["oneOf"]] == [
        "#/components/schemas/Card",
        "#/components/schemas/Cash",
    ]


def test_what_follows_a_tuple_has_the_keyword_of_the_older_draft(signals: SignalRegistry) -> None:
    schema = {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}

    class Row(BaseEventContext):
        cells: Annotated[list[Any], WithJsonSchema(schema)]
        words: Annotated[Any, WithJsonSchema({"not": {"prefixItems": [{}]}, "items": False})]

    fields = schema_of(Row, signals)["properties"]

    assert fields["cells"] == {
        "title": "Cells",
        "type": "array",
        "items": [{"type": "integer"}],
        "additionalItems": {"type": "string"},
    }
    assert fields["words"] == {"title": "Words", "not": {"items": [{}]}, "items": False}


def test_schemas_inside_of_others_are_converted_too(signals: SignalRegistry) -> None:
    class Row(BaseEventContext):
        cells: tuple[int, str] | None
        by_name: dict[str, tuple[int]]

    fields = schema_of(Row, signals)["properties"]

    assert fields["cells"]["anyOf"][0]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert fields["by_name"]["additionalProperties"]["items"] == [{"type": "integer"}]


def test_fields_and_values_that_look_like_keywords_are_left_as_they_are(
    signals: SignalRegistry,
) -> None:
    value = {"$ref": "a", "b": 1, "prefixItems": [1], "discriminator": {"propertyName": "c"}}

    class Told(shapes.Named):
        anything: Any = Field(default=value, examples=[value])

    fields = schema_of(Told, signals)["properties"]

    assert fields["discriminator"] == {"title": "Discriminator", "type": "integer"}
    assert fields["prefixItems"]["items"] == [{"type": "integer"}, {"type": "integer"}]
    assert (fields["anything"]["default"], fields["anything"]["examples"]) == (value, [value])


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str):
            yield reference
        for it in value.values():
            yield from references(it)
    elif isinstance(value, list):
        for it in value:
            yield from references(it)


def test_every_shape_makes_keys_that_asyncapi_allows_and_references_that_lead_somewhere(
    signals: SignalRegistry,
) -> None:
    shapes.declare_shapes(signals)

    document = json.loads(json.dumps(asyncapi(signals=signals), allow_nan=False))

    components = document["components"]
    for keys in (document["channels"], document["operations"], components["messages"]):
        assert all(re.fullmatch(r"[A-Za-z0-9_\-]+", key) for key in keys)
    assert all(re.fullmatch(r"[A-Za-z0-9.\-_]+", key) for key in components["schemas"])
    assert components["schemas"].keys() == json_schema(signals=signals)["$defs"].keys()
    found = set(references(document))
    assert len(found) > 50
    for reference in found:
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_shape_makes_schemas_of_draft_7(signals: SignalRegistry) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    shapes.declare_shapes(signals)

    for schema in asyncapi(signals=signals)["components"]["schemas"].values():
        jsonschema.Draft7Validator.check_schema(schema)


def test_what_a_model_adds_to_its_schema_stays_as_it_is(signals: SignalRegistry) -> None:
    """Though it has the name of a keyword."""

    class Marked(BaseEventContext):
        model_config = ConfigDict(json_schema_extra={"discriminator": {}, "contains": True})

    schema = schema_of(Marked, signals)

    assert (schema["discriminator"], schema["contains"]) == ({}, True)
