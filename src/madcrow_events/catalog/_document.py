"""An AsyncAPI document of events: its frame, and of each event the channel and the message."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, Literal

from madcrow_events.catalog._schemas import Generator, schemas_of
from madcrow_events.catalog._walking import Schema, with_inner_schemas

if TYPE_CHECKING:
    from madcrow_events.signals import EventSignal

__all__ = ["document_of", "key_of", "operation_on"]

_JSON: Final = "application/json"


def document_of(
    events: Collection[EventSignal[Any]],
    *,
    title: str,
    version: str,
    description: str,
    generator: type[Generator] = Generator,
) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document with a channel and a message of each event.

    It has no operations yet, and the address of a channel is the name of its event.

    Args:
        events: the signals of the events.
        title: the name of the application, for people.
        version: the version of the application's events.
        description: what the document is about, for people.
        generator: makes the schemas of contexts.
    """
    contexts, definitions = schemas_of(events, "#/components/schemas/{model}", generator)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version, "description": description},
        "defaultContentType": _JSON,
        "channels": {key_of(event): _channel(event) for event in events},
        "operations": {},
        "components": {
            "messages": {key_of(event): _message(event, contexts[event.name]) for event in events},
            "schemas": {name: _as_draft_7(schema) for name, schema in definitions.items()},
        },
    }


def key_of(event: EventSignal[Any]) -> str:
    """Return the key of an event. No two events share one, because no name has a hyphen."""
    return event.name.replace(".", "-")


def operation_on(event: EventSignal[Any], action: Literal["receive", "send"]) -> dict[str, Any]:
    """Return an operation on the channel of an event."""
    return {"action": action, "channel": {"$ref": f"#/channels/{key_of(event)}"}}


def _channel(event: EventSignal[Any]) -> dict[str, Any]:
    message = {"$ref": f"#/components/messages/{key_of(event)}"}
    channel: dict[str, Any] = {"address": event.name, "messages": {key_of(event): message}}
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
