"""What a service sends and receives at its broker, as an AsyncAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from madcrow_events.bridge._brokers import kind_of
from madcrow_events.bridge._payloads import PayloadGenerator
from madcrow_events.bridge._transport import shown_url
from madcrow_events.catalog._document import document_of, key_of, operation_on
from madcrow_events.outbox._versions import version_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from madcrow_events.bridge._brokers import Kind
    from madcrow_events.bridge._routes import Route, Routes
    from madcrow_events.bridge._transport import Topology
    from madcrow_events.signals import EventSignal

    Json = dict[str, Any]

__all__ = ["document_of_service"]


class _Form(NamedTuple):
    """How events travel with a kind of broker, as its transport sends them.

    Attributes:
        address: where an event is published.
        prefix: what the names of the headers with attributes begin with; None if the attributes are
            in the body, beside the data.
        keeping: what is to be known of the server, for people.
    """

    address: str
    prefix: str | None
    keeping: str | None = None


_FORMS: Final[dict[Kind, _Form]] = {
    "memory": _Form("{topic}", "ce-"),
    "nats": _Form("{topic}.{event}", "ce-", "JetStream keeps the events in the stream {topic}."),
    "rabbit": _Form("{event}", "cloudEvents:"),
    "redis": _Form(
        "{topic}",
        None,
        "All events are in the stream {topic}. The message is in the field __data__ of an entry, "
        "as FastStream writes it.",
    ),
}

_ATTRIBUTES: Final[dict[str, Json]] = {
    "specversion": {"const": "1.0"},
    "id": {"description": "Unique among the events of its source"},
    "source": {"description": "The service where it has happened"},
    "type": {"description": "The name of the event"},
    "time": {"description": "When it was emitted", "format": "date-time"},
    "eventversion": {"pattern": "^[0-9]+$"},
    "correlationid": {"description": "The id that all events share which one has led to"},
    "partitionkey": {"description": "The ordering key"},
    "causationid": {"description": "The id of the event that has led to it"},
    "sender": {"description": "The sender"},
    "scope": {"description": "The scope, as a JSON object"},
}
"""Which attributes of CloudEvents a service sends."""
_BY_ALL: Final = ("specversion", "id", "source", "type")
"""The attributes that each event of CloudEvents has."""
_BY_US: Final = (*_BY_ALL, "time", "eventversion", "correlationid")
"""The attributes that each event has which this package sends."""

_AMQP: Final = "0.3.0"
_PERSISTENT: Final = 2


def document_of_service(
    broker: Any,
    topology: Topology,
    source: str | None,
    sent: Collection[EventSignal[Any]],
    incoming: Routes,
    *,
    title: str,
    version: str,
) -> Json:
    """Return the document of a service.

    Args:
        broker: its broker.
        topology: its names there.
        source: the source of what it sends.
        sent: the events that it sends.
        incoming: the events that it takes in.
        title: the name of the service, for people.
        version: the version of the events.
    """
    received = incoming.signals
    events = sorted({*sent, *received}, key=lambda event: event.name)
    document = document_of(
        events,
        title=title,
        version=version,
        description=f"What the service {topology.consumer} sends to others, and takes in of them.",
        generator=PayloadGenerator,
    )
    kind = kind_of(broker)
    form = _FORMS[kind]
    servers = {} if kind == "memory" else _servers(broker, kind, topology)
    for event in events:
        channel = document["channels"][key_of(event)]
        channel["address"] = form.address.format(topic=topology.topic, event=event.name)
        if kind == "rabbit":
            channel["bindings"] = _exchange(topology.topic, servers)
        message = document["components"]["messages"][key_of(event)]
        _add_attributes(message, event, form.prefix, is_received=event in received)
    document["operations"] = _operations(sent, source, incoming, kind)
    if incoming.patterns:
        document["x-incoming-patterns"] = [
            {"pattern": it.event, **_from(it.sources)} for it in incoming.patterns
        ]
    start = {name: document[name] for name in ("asyncapi", "info")}
    return {**start, **({"servers": servers} if servers else {}), **document}


def _servers(broker: Any, kind: Kind, topology: Topology) -> dict[str, Json]:
    """Return where the broker is, as FastStream describes it for documents."""
    specification = broker.specification
    urls = list(specification.url)
    names = [kind] if len(urls) == 1 else [f"{kind}-{number + 1}" for number in range(len(urls))]
    about: Json = {"protocol": specification.protocol}
    if (keeping := _FORMS[kind].keeping) is not None:
        about["description"] = keeping.format(topic=topology.topic)
    return {name: {**_place(url), **about} for name, url in zip(names, urls, strict=True)}


def _place(url: str) -> Json:
    shown = shown_url(url if "://" in url else f"//{url}")
    host, slash, path = shown.partition("//")[2].partition("/")
    return {"host": host or "localhost", **({"pathname": slash + path} if path else {})}


def _exchange(topic: str, servers: dict[str, Json]) -> Json:
    (server,) = servers.values()
    exchange = {
        "name": topic,
        "type": "topic",
        "durable": True,
        "autoDelete": False,
        "vhost": unquote(server.get("pathname", "")[1:]) or "/",
    }
    return {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": _AMQP}}


def _add_attributes(
    message: Json, event: EventSignal[Any], prefix: str | None, *, is_received: bool
) -> None:
    """Say which attributes the message of an event has.

    Args:
        message: the message.
        event: the event.
        prefix: as in `_Form`.
        is_received: whether others send the event, by its old names and with less attributes, too.
    """
    names = [event.name, *(event.formerly if is_received else ())]
    attributes = {name: {"type": "string", **it} for name, it in _ATTRIBUTES.items()}
    attributes["type"]["enum"] = names
    version = version_of(event.name, event.context_model)
    attributes["eventversion"]["description"] = (
        f"The version of the payload, here {version}; 1 if it is left out"
    )
    required = _BY_ALL if is_received else _BY_US
    if prefix is not None:
        message["headers"] = {
            "type": "object",
            "properties": {f"{prefix}{name}": it for name, it in attributes.items()},
            "required": [f"{prefix}{name}" for name in required],
        }
        return
    message["contentType"] = "application/cloudevents+json"
    message["payload"] = {
        "type": "object",
        "properties": {
            **attributes,
            "datacontenttype": {"const": "application/json"},
            "data": message["payload"],
        },
        "required": [*required, "data"],
    }


def _operations(
    sent: Collection[EventSignal[Any]], source: str | None, incoming: Routes, kind: Kind
) -> dict[str, Json]:
    operations: dict[str, Json] = {}
    for event in sent:
        operations[f"send_{key_of(event)}"] = {
            **operation_on(event, "send"),
            **_bound(kind, deliveryMode=_PERSISTENT),
            "x-sources": [source],
        }
    for event in incoming.signals:
        operations[f"receive_{key_of(event)}"] = {
            **operation_on(event, "receive"),
            **_bound(kind, ack=True),
            **_from(_sources_of(incoming.of(event))),
        }
    return operations


def _bound(kind: Kind, **binding: Any) -> Json:
    return {"bindings": {"amqp": {**binding, "bindingVersion": _AMQP}}} if kind == "rabbit" else {}


def _from(sources: frozenset[str] | None) -> Json:
    return {} if sources is None else {"x-sources": sorted(sources)}


def _sources_of(routes: list[Route]) -> frozenset[str] | None:
    """Return the sources from which an event comes in by one of the routes; None for all."""
    found = [it.sources for it in routes]
    return None if None in found else frozenset().union(*(it for it in found if it))
