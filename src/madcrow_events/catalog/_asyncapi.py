"""The catalogue as an AsyncAPI document."""

from __future__ import annotations

from typing import Any

from madcrow_events.catalog._schemas import schemas_of
from madcrow_events.catalog._selection import select
from madcrow_events.catalog._walking import Schema, with_inner_schemas
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals

__all__ = ["asyncapi"]

_JSON = "application/json"


def asyncapi(
    pattern: str | EventSignal[Any] | type[BaseEventContext] = "*",
    *,
    title: str = "Events",
    version: str = "1.0.0",
    signals: SignalRegistry = madcrow_signals,
) -> dict[str, Any]:
    """Return the declared events as an AsyncAPI 3.0 document, ready for `json.dumps`.

    Each event has a channel, whose address is the name of the event, and a message, whose payload
    is the event's context as `json_schema` describes it. In the keys of the document, a hyphen
    stands for each dot of a name. Old names of an event are in `x-former-names` of its channel.

    The document has an operation `send` for each event: an application may emit what it declares,
    and a registry does not know the emitters. It has an operation `receive` for each event that has
    a handler now. So import the modules with your handlers first.

    Args:
        pattern: which events, as for `json_schema`.
        title: the name of the application, for people.
        version: the version of the application's events.
        signals: the registry that declares the events.

    Returns:
        The document, with the events in the order of their names.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: no event has this name, or the signal belongs to another registry.
        ContextModelError: the class cannot be the model of an event.

    Example:
        ```python
        from madcrow_events import BaseEventContext, madcrow_signals
        from madcrow_events.catalog import asyncapi


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            \"\"\"A customer placed an order.\"\"\"

            order_id: int


        document = asyncapi("order_*", title="Shop")
        print(document["channels"]["order_placed"]["address"])
        print(document["components"]["messages"]["order_placed"]["payload"])
        print(list(document["operations"]))
        ```

        ```text
        order_placed
        {'$ref': '#/components/schemas/OrderPlaced'}
        ['send_order_placed']
        ```
    """
    events = select(signals, pattern)
    contexts, definitions = schemas_of(events, "#/components/schemas/{model}")
    operations: dict[str, Any] = {}
    for event in events:
        operations[f"send_{_key(event)}"] = _operation("send", event)
        if event.receivers:
            operations[f"receive_{_key(event)}"] = _operation("receive", event)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": title,
            "version": version,
            "description": "The events that the application sends, and those that it handles.",
        },
        "defaultContentType": _JSON,
        "channels": {_key(event): _channel(event) for event in events},
        "operations": operations,
        "components": {
            "messages": {_key(event): _message(event, contexts[event.name]) for event in events},
            "schemas": {name: _as_draft_7(schema) for name, schema in definitions.items()},
        },
    }


def _key(event: EventSignal[Any]) -> str:
    """Return the key of an event. No two events share one, because no name has a hyphen."""
    return event.name.replace(".", "-")


def _channel(event: EventSignal[Any]) -> dict[str, Any]:
    message = {"$ref": f"#/components/messages/{_key(event)}"}
    channel: dict[str, Any] = {"address": event.name, "messages": {_key(event): message}}
    if event.formerly:
        channel["x-former-names"] = list(event.formerly)
    return channel


def _message(event: EventSignal[Any], context: Schema) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": event.name,
        "title": event.name.replace(".", ": ").replace("_", " ").capitalize(),
        "contentType": _JSON,
        "payload": context,
    }
    if event.doc:
        message["summary"] = event.doc
    return message


def _operation(action: str, event: EventSignal[Any]) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{_key(event)}"}}


def _as_draft_7(schema: Schema) -> Schema:
    """Return a schema in the words of JSON Schema draft 7, on which AsyncAPI builds.

    There, a tuple has other keywords, what stands beside a reference is ignored, and a
    discriminator is the name of a property.
    """
    converted = with_inner_schemas(schema, _as_draft_7)
    if "prefixItems" in converted:
        if "items" in converted:
            converted["additionalItems"] = converted["items"]
        converted["items"] = converted.pop("prefixItems")
    discriminator = converted.get("discriminator")
    if isinstance(discriminator, dict) and "propertyName" in discriminator:
        converted["discriminator"] = discriminator["propertyName"]
    if "$ref" in converted and len(converted) > 1:
        converted["allOf"] = [{"$ref": converted.pop("$ref")}, *converted.get("allOf", [])]
    return converted
