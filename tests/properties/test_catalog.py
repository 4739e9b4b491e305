"""The catalogue accepts what contexts write as JSON, and refuses what their models refuse.

Contexts of many shapes are drawn and written. What was written is then changed at one place: left
out, added to, or replaced. Both documents must say the same of it: that of JSON Schema, and that of
AsyncAPI, which uses an older draft.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from math import isfinite
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.catalog import asyncapi, json_schema
from madcrow_events.testing.strategies import contexts
from support.shapes import EXACT, WRITTEN, SpelledPlace, WithAnItem, Written

jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("rfc3339_validator", reason="the format date-time would not be compared")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3),
    lambda values: (
        st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2)
    ),
    max_leaves=3,
)

STRATEGIES: dict[type[BaseEventContext], dict[str, Any]] = {
    Written: {
        "content": st.text().map(str.encode)
    },  # other bytes are no text, and cannot be written
    WithAnItem: {
        "places": st.dictionaries(
            st.text(), st.text().map(lambda city: SpelledPlace(cityName=city)), max_size=1
        )
    },
}
"""Strategies for fields that need their own."""


@cache
def validators(model: type[BaseEventContext], *, formats: bool = True) -> tuple[Any, Any]:
    """Return one validator for the schema of a model in each document."""
    signals = SignalRegistry()
    signals.signal("thing_happened", context=model)
    catalogue, document = json_schema(signals=signals), asyncapi(signals=signals)
    own = {**catalogue["properties"]["thing_happened"], "$defs": catalogue["$defs"]}
    payload = document["components"]["messages"]["thing_happened"]["payload"]
    # Those of the newest draft, for both: AsyncAPI does not limit them to those of draft 7.
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER if formats else None
    return (
        jsonschema.Draft202012Validator(own, format_checker=checker),
        jsonschema.Draft7Validator(
            {**payload, "components": document["components"]}, format_checker=checker
        ),
    )


def is_finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or isfinite(value)


def written(context: BaseEventContext) -> Any:
    assume(is_finite(context.model_dump()))  # JSON has no other numbers
    return json.loads(context.model_dump_json())


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each container in a JSON value with each key or index of it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@pytest.mark.parametrize("model", [*EXACT, *WRITTEN], ids=lambda model: model.__name__)
@settings(max_examples=30)  # for each of thirty models
@given(data=st.data())
def test_the_schemas_accept_what_a_context_writes(
    model: type[BaseEventContext], data: st.DataObject
) -> None:
    document = written(data.draw(contexts(model, **STRATEGIES.get(model, {}))))

    for validator in validators(model, formats=model in EXACT):
        validator.validate(document)


@pytest.mark.parametrize("model", EXACT, ids=lambda model: model.__name__)
@settings(max_examples=30)  # for each of thirty models
@given(data=st.data())
def test_the_schemas_refuse_what_the_model_refuses(
    model: type[BaseEventContext], data: st.DataObject
) -> None:
    document = written(data.draw(contexts(model)))
    container, key = data.draw(st.sampled_from(list(places(document))))
    change = data.draw(st.sampled_from(["leave out", "add", "replace"]))
    if change == "leave out":
        del container[key]
    elif change == "add" and isinstance(container, dict):
        container[data.draw(st.text(max_size=3))] = data.draw(JSON)
    else:
        container[key] = data.draw(JSON)

    newest, seventh = (validator.is_valid(document) for validator in validators(model))

    assert newest == seventh
    if newest:
        try:
            model.model_validate_json(json.dumps(document))
        except ValidationError as error:
            pytest.fail(f"the schema accepts it: {error}")
