"""The catalogue as JSON Schema."""

from __future__ import annotations

from typing import Any

from madcrow_events.catalog._schemas import schemas_of
from madcrow_events.catalog._selection import select
from madcrow_events.catalog._walking import Schema
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals

__all__ = ["json_schema"]


def json_schema(
    pattern: str | EventSignal[Any] | type[BaseEventContext] = "*",
    *,
    signals: SignalRegistry = madcrow_signals,
) -> dict[str, Any]:
    """Return the declared events as one JSON Schema (draft 2020-12), ready for `json.dumps`.

    The schema is an object with a property for each event, whose value is the event's context as
    `context.model_dump_json()` writes it. An event without a model takes any object. To check one
    context, combine the schema of its event with the definitions, as in the example.

    The schemas describe what crosses a process, so they are those that pydantic makes for
    serialization, not for validation: a `Decimal` is text, computed fields are there, and a field
    has its alias only if its class is configured to write it (`serialize_by_alias`).

    The schemas accept the JSON of every valid context, and refuse missing fields, wrong types,
    values out of bounds and, unless the model takes them, unknown fields. A format such as
    `date-time` is compared only if you ask your validator for it. This is what JSON Schema cannot
    say, or not exactly:

    - Validators that you have written, the bounds of a `Decimal`, the lengths of bytes and secrets,
      the `multiple_of` of a `float`, the members of a `Flag` and the types of the keys of a
      dictionary are not in the schema. So it accepts values that the model refuses.
    - A `pattern` is not in the schema if Rust, Python and JavaScript do not read it alike. pydantic
      reads those of Rust, in which `(?i)` or a class of Unicode are possible.
    - Computed fields are in the schema, because they are written. The model may refuse them.
    - Infinite numbers and NaN become `null` in JSON, which the schema of a number refuses, unless
      the model is configured to write them otherwise (`ser_json_inf_nan`).
    - The schema refuses a default that does not fit its field, because pydantic does not validate
      defaults. It accepts None where that is the default, as in `count: int = None`.
    - Without a time zone, a time or a `datetime` does not have the format that its schema names.
      `timestamp` always has a time zone.
    - A context of a class that derives from the model may have fields that the schema refuses.
    - A field whose type has no JSON Schema may have any value, and its description says so, unless
      you have described the field.
    - An event has any object, and its description says so, if the code of its model raises an error
      while the schema is made, or if its model uses a name that is not defined.

    Args:
        pattern: which events: all, by default; a pattern such as `order_*`, which here also fits
            `handler_failed`; a name, also an old one; a signal; or a context class, for the events
            whose model is this class or derives from it.
        signals: the registry that declares the events.

    Returns:
        The schema, with the events in the order of their names.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: no event has this name, or the signal belongs to another registry.
        ContextModelError: the class cannot be the model of an event.

    Example:
        ```python
        from madcrow_events import BaseEventContext, madcrow_signals
        from madcrow_events.catalog import json_schema


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            \"\"\"A customer placed an order.\"\"\"

            order_id: int


        catalogue = json_schema("order_*")
        print(list(catalogue["properties"]))

        schema = {**catalogue["properties"]["order_placed"], "$defs": catalogue["$defs"]}
        print(schema["$defs"]["OrderPlaced"]["properties"]["order_id"])
        ```

        ```text
        ['order_placed']
        {'title': 'Order Id', 'type': 'integer'}
        ```
    """
    events = select(signals, pattern)
    contexts, definitions = schemas_of(events, "#/$defs/{model}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events",
        "description": "The contexts of events, each as JSON under the name of its event.",
        "type": "object",
        "properties": {event.name: _described(contexts[event.name], event.doc) for event in events},
        "additionalProperties": False,
        "$defs": definitions,
    }


def _described(context: Schema, doc: str | None) -> Schema:
    return context if doc is None else {**context, "description": doc}
