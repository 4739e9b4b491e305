"""The catalogue as JSON Schema."""

from __future__ import annotations

from typing import Any

from madcrow_events.catalog._schemas import Schema, schemas_of
from madcrow_events.catalog._selection import select
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals

__all__ = ["json_schema"]


def json_schema(
    pattern: str | EventSignal[Any] | type[BaseEventContext] = "*",
    *,
    signals: SignalRegistry = madcrow_signals,
) -> dict[str, Any]:
    """Return the declared events as one JSON Schema (draft 2020-12), ready for `json.dumps`.

    The schema is an object with a property for each event. The value of the property is the
    event's context as JSON, as `context.model_dump_json()` writes it. So the schema has the names
    and types that cross a process: aliases only if the model is configured to write them
    (`serialize_by_alias`), and computed fields too. An event without a model takes any object.

    To check one context, combine the schema of its event with the definitions, as in the example.

    The schemas accept what is written, and refuse wrong types, missing fields, values out of bounds
    and, unless the model allows them, unknown fields. A format such as `date-time` is compared only
    if you ask your validator for it. JSON Schema cannot say:

    - what validators of your own check, the bounds of a `Decimal`, which is written as text, and
      the fields that a class derived from the model adds
    - that a computed field, which it requires, is no field that the model takes
    - that a number may be infinite or NaN, which JSON writes as `null`: such a value is refused
    - that a time has no time zone: a validator that compares formats refuses it

    A field whose type has no JSON Schema may have any value.

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
