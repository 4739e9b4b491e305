"""Whatever can be stored comes back equal, class for class; what is added to it is dropped.

Contexts of many shapes are drawn and stored. Those that JSON cannot carry may be refused, but none
may come back changed.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from madcrow_events import BaseEventContext, GenericEventContext, models
from madcrow_events.outbox import NotSerialisableError
from madcrow_events.outbox._payload import dump, load
from madcrow_events.testing.strategies import contexts
from support.shapes import (
    EXACT,
    WRITTEN,
    Address,
    Colour,
    Item,
    Open,
    SpelledPlace,
    WithAnItem,
    Written,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: (
        st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2)
    ),
    max_leaves=4,
)
ANYTHING = JSON | st.sampled_from(
    [Colour.RED, UUID(int=1), b"a", Decimal("1.10"), (1,), {1}, {1: 2}, Item(sku="AB-1"), dt.UTC]
)

pytestmark = pytest.mark.once  # the unit tests show the same by examples


class Various(BaseEventContext):
    """Types whose values JSON can carry only in part, or in another form."""

    moment: dt.datetime
    lasted: dt.timedelta
    at: dt.time
    text: str
    content: bytes
    price: Decimal
    share: float
    by_id: dict[UUID, int]
    by_number: dict[int, frozenset[tuple[int, bool]]]
    either: int | float | bool | str | None
    address: Address | Item | None
    details: JsonValue


VARIOUS = {
    "moment": st.datetimes(timezones=st.timezones() | st.none(), allow_imaginary=False),
    "at": st.times(),
    "text": st.text(st.characters()),
    "price": st.decimals(),
    "details": JSON,
}

STRATEGIES: dict[type[BaseEventContext], dict[str, Any]] = {
    Various: VARIOUS,
    WithAnItem: {
        "places": st.dictionaries(
            st.text(), st.text().map(lambda city: SpelledPlace(cityName=city)), max_size=1
        )
    },
}
"""Strategies for fields that need their own."""

BUILT_IN = [getattr(models, name) for name in models.__all__ if name != "GenericEventContext"]
MODELS = [*EXACT, *(it for it in WRITTEN if it is not Written), *BUILT_IN, Various]
# Written has a secret, which is written masked: none of its contexts can be stored.

every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)


def description(value: Any) -> Any:
    """Return what a value consists of, in plain texts and lists: its classes and their parts.

    This says the same as `difference`, in another way: equal objects have equal descriptions.
    """
    name = type(value).__name__
    match value:
        case pydantic.BaseModel():
            fields = {key: vars(value)[key] for key in type(value).model_fields}
            return name, description(fields), description(value.__pydantic_extra__)
        case dict():
            return name, sorted((description(it) for it in value.items()), key=repr)
        case tuple() | list():
            return name, [description(it) for it in value]
        case set() | frozenset():
            return name, sorted((description(it) for it in value), key=repr)
        case dt.datetime():
            offset = value.utcoffset()
            return name, value.isoformat(), value.fold if offset is None else offset
    return name, description(vars(value)) if dataclasses.is_dataclass(value) else repr(value)


def holders(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each JSON object within a value."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for it in value.values() if isinstance(value, dict) else value:
            yield from holders(it)


def stored(model: type[BaseEventContext] | None, context: BaseEventContext) -> str | None:
    """Return the payload of a context, or None if it is refused."""
    try:
        return dump("thing_happened", model, context)
    except NotSerialisableError:
        event("refused")
        return None


def comes_back(model: type[BaseEventContext] | None, context: BaseEventContext) -> bool:
    """Whether a context is not refused and, or else the test fails, comes back equal."""
    payload = stored(model, context)
    if payload is None:
        return False
    json.loads(payload, parse_constant=pytest.fail)
    returned = load("thing_happened", model, payload)
    assert description(returned) == description(context)
    return True


@every_model
@settings(max_examples=12)  # for each of forty models
@given(data=st.data())
def test_what_is_stored_comes_back_equal(
    model: type[BaseEventContext], data: st.DataObject
) -> None:
    comes_back(model, data.draw(contexts(model, **STRATEGIES.get(model, {}))))


@settings(max_examples=60)
@given(
    entries=st.dictionaries(
        st.text().filter(lambda it: it not in ("self", "sender")), ANYTHING, max_size=3
    ),
    request_id=st.none() | st.text(),
)
def test_what_is_stored_of_an_event_without_a_model_comes_back_equal(
    entries: dict[str, Any], request_id: str | None
) -> None:
    context = GenericEventContext(event_type="thing_happened", data=entries, request_id=request_id)

    comes_back(None, context)


@settings(max_examples=60)
@given(entries=st.dictionaries(st.text(), ANYTHING, max_size=3))
def test_extra_fields_come_back_equal(entries: dict[str, Any]) -> None:
    comes_back(Open, Open.model_construct(**{**Open(order_id=1).model_dump(), **entries}))


@pytest.mark.parametrize("model", BUILT_IN, ids=lambda model: model.__name__)
@given(data=st.data())
def test_the_context_of_a_built_in_event_is_refused_only_for_an_infinite_number_or_an_id(
    model: type[BaseEventContext], data: st.DataObject
) -> None:
    """The text of a UUID, as an id, would come back as a UUID."""
    context = data.draw(contexts(model))
    values = vars(context)
    is_finite = all(isfinite(it) for it in values.values() if isinstance(it, float))

    assert comes_back(model, context) or not is_finite or type(values.get("user_id")) is str


# Of these models, no field takes keys of its own choice.
CLOSED = [it for it in (*EXACT, *BUILT_IN) if it.__name__ not in ("Named", "Nested", "Open")]


@pytest.mark.parametrize("model", CLOSED, ids=lambda model: model.__name__)
@settings(max_examples=12)  # for each of thirty models
@given(data=st.data())
def test_keys_that_are_added_to_what_is_stored_change_nothing(
    model: type[BaseEventContext], data: st.DataObject
) -> None:
    context = data.draw(contexts(model))
    payload = stored(model, context)
    assume(payload)
    document = json.loads(payload or "")
    for holder in data.draw(st.lists(st.sampled_from(list(holders(document))), max_size=3)):
        holder[f"new_{data.draw(st.integers(0, 9))}"] = data.draw(JSON)

    returned = load("thing_happened", model, json.dumps(document))

    assert description(returned) == description(context)
