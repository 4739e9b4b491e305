"""A service says in an AsyncAPI document what it sends and takes in, where and in which form."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, computed_field
from pydantic.dataclasses import dataclass

from madcrow_events import BaseEventContext, SignalRegistry, event_scope, madcrow_signals
from madcrow_events.bridge import Bridge, MemoryBridge, MemoryBroker
from madcrow_events.catalog import asyncapi
from madcrow_events.outbox import CloudEvent, Outbox
from support.services import OrderPlaced, placed

SENT = ["specversion", "id", "source", "type", "time", "eventversion", "correlationid"]


def received_from(document: dict[str, Any]) -> dict[str, Any]:
    """Return the events that come in, each with the sources that are said of it."""
    return {
        name.removeprefix("receive_"): it.get("x-sources")
        for name, it in document["operations"].items()
        if it["action"] == "receive"
    }


def message_of(document: dict[str, Any], event: str) -> dict[str, Any]:
    message: dict[str, Any] = document["components"]["messages"][event]
    return message


# What goes out and comes in


def test_a_service_says_what_it_sends_and_what_it_takes_in(service):
    """And nothing else of what it has declared."""
    shop = service("shop", topic="orders")
    shop.signals.signal("order_lost")
    shop.bridge.outgoing("order_placed")
    shop.bridge.incoming("order_paid", sources=("/till", "/bank"))

    document = shop.bridge.asyncapi(title="Shop", version="2.1.0")

    assert document["asyncapi"] == "3.0.0"
    assert (document["info"]["title"], document["info"]["version"]) == ("Shop", "2.1.0")
    assert "service shop" in document["info"]["description"]
    assert {key: it["address"] for key, it in document["channels"].items()} == {
        "order_paid": "orders",
        "order_placed": "orders",
    }
    assert document["operations"] == {
        "send_order_placed": {
            "action": "send",
            "channel": {"$ref": "#/channels/order_placed"},
            "x-sources": ["/shop"],
        },
        "receive_order_paid": {
            "action": "receive",
            "channel": {"$ref": "#/channels/order_paid"},
            "x-sources": ["/bank", "/till"],
        },
    }
    message = message_of(document, "order_placed")
    assert message["contentType"] == "application/json"
    assert message["payload"] == {"$ref": "#/components/schemas/OrderPlaced"}
    assert document["components"]["schemas"].keys() == {"OrderPaid", "OrderPlaced"}
    assert json.loads(json.dumps(document)) == document


def test_an_event_may_go_out_and_come_in(service):
    shop = service("shop")
    shop.bridge.outgoing("order_*")
    shop.bridge.incoming("order_placed")

    document = shop.bridge.asyncapi()

    assert [*document["operations"]] == [
        "send_order_paid",
        "send_order_placed",
        "receive_order_placed",
    ]
    assert [*document["channels"]] == ["order_paid", "order_placed"]


@pytest.mark.parametrize(
    ("routes", "sources"),
    [
        ([("order_placed", ("/b", "/a"))], ["/a", "/b"]),
        (
            [("order_placed", ("/a",)), (OrderPlaced, ("/b",)), ("order_paid", ("/c",))],
            ["/a", "/b"],
        ),
        ([("order_placed", ("/a",)), ("order_*", None)], None),
        ([("order_placed", None)], None),
    ],
)
def test_an_event_comes_in_from_the_sources_of_all_that_let_it_in(service, routes, sources):
    """From all, if one of them names none."""
    shop = service("shop")
    for event, allowed in routes:
        shop.bridge.incoming(event, sources=allowed)

    assert received_from(shop.bridge.asyncapi())["order_placed"] == sources


def test_a_bridge_without_an_outbox_only_takes_in(broker, signals):
    signals.signal("order_placed", context=OrderPlaced)
    bridge = Bridge(signals, broker, consumer="statistics", inbox=None)
    bridge.incoming("order_placed")

    assert [*bridge.asyncapi()["operations"]] == ["receive_order_placed"]


def test_a_service_that_sends_nothing_yet_has_a_document(service):
    document = service("shop").bridge.asyncapi()

    assert document["channels"] == document["operations"] == {}
    assert not document.keys() & {"servers", "x-incoming-patterns"}


# Names


def test_old_names_stand_at_the_channel_and_come_in_too(service):
    """What goes out has the new name."""
    shop = service("shop")
    for name in ("sent", "taken"):
        shop.signals.signal(f"order.{name}", formerly=f"order_{name}")
    shop.bridge.outgoing("order.sent")
    shop.bridge.incoming("order.taken")

    document = shop.bridge.asyncapi()

    for name, names in (("sent", ["order.sent"]), ("taken", ["order.taken", "order_taken"])):
        assert document["channels"][f"order-{name}"]["x-former-names"] == [f"order_{name}"]
        headers = message_of(document, f"order-{name}")["headers"]["properties"]
        assert headers["ce-type"]["enum"] == names


def test_patterns_by_which_undeclared_events_come_in_are_in_the_document(service):
    """A class lets in declared events only."""
    shop = service("shop")
    shop.bridge.incoming("order_*", sources=("/shop",))
    shop.bridge.incoming("*")
    shop.bridge.incoming(OrderPlaced)
    shop.bridge.outgoing("stock_*")

    document = shop.bridge.asyncapi()

    assert document["x-incoming-patterns"] == [
        {"pattern": "order_*", "x-sources": ["/shop"]},
        {"pattern": "*"},
    ]
    assert received_from(document) == {"order_paid": None, "order_placed": None}


def test_events_of_this_package_are_there_by_their_names_only(service):
    """As they go out and come in."""
    shop = service("shop", signals=madcrow_signals)
    shop.bridge.outgoing("*")
    shop.bridge.incoming("*")
    shop.bridge.incoming("user_logged_in")

    document = shop.bridge.asyncapi()

    assert received_from(document).keys() == {"order_paid", "order_placed", "user_logged_in"}
    assert "send_user_logged_in" not in document["operations"]


# The attributes of CloudEvents


def test_what_is_sent_has_more_attributes_than_others_must_send(service):
    shop = service("shop")
    shop.bridge.outgoing("order_placed")
    shop.bridge.outgoing("order_paid")
    shop.bridge.incoming("order_paid")

    document = shop.bridge.asyncapi()

    required = {
        event: message_of(document, event)["headers"]["required"]
        for event in ("order_placed", "order_paid")
    }
    assert required == {
        "order_placed": [f"ce-{it}" for it in SENT],
        "order_paid": [f"ce-{it}" for it in SENT[:4]],
    }


def test_the_version_that_the_payload_has_is_told(service):
    """Because others must write it, too, if it is not 1."""

    class ParcelSent(BaseEventContext):
        event_version: ClassVar[int] = 2

        grams: int

    shop = service("shop")
    shop.signals.signal("parcel_sent", context=ParcelSent)
    shop.bridge.incoming("parcel_sent")
    shop.bridge.outgoing("order_placed")

    document = shop.bridge.asyncapi()

    for event, version in (("parcel_sent", 2), ("order_placed", 1)):
        told = message_of(document, event)["headers"]["properties"]["ce-eventversion"]
        assert told["description"].endswith(f"here {version}; 1 if it is left out")


@dataclass
class Box:
    width: int

    @computed_field
    def area(self) -> int:
        return self.width**2


class Label(BaseModel):
    text: str = Field(alias="labelText")


class OrderPacked(BaseEventContext):
    model_config = ConfigDict(serialize_by_alias=True)

    number: int = Field(alias="orderNumber")
    box: Box
    note: Json[list[int]]

    @computed_field
    def title(self) -> str:
        return f"order {self.number}"


class OrderLabelled(BaseEventContext):
    label: Label

    @computed_field
    def length(self) -> int:
        return len(self.label.text)


class Recorded(MemoryBroker):
    """A broker that keeps what was published."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[dict[str, str], bytes]] = []

    def publish(self, topic: str, headers: Any, body: bytes) -> None:
        self.published.append((dict(headers), body))


def refusals(document: dict[str, Any], message: dict[str, Any], headers: Any, data: bytes) -> Any:
    """Return what the schemas of a message refuse, as texts."""
    jsonschema = pytest.importorskip("jsonschema")
    found = []
    for schema, instance in (
        (message["headers"], dict(headers)),
        ({**message["payload"], "components": document["components"]}, json.loads(data)),
    ):
        jsonschema.Draft7Validator.check_schema(schema)
        found += [it.message for it in jsonschema.Draft7Validator(schema).iter_errors(instance)]
    return found


@pytest.mark.parametrize(
    "context",
    [
        OrderPacked(number=7, box=Box(2), note="[1, 2]"),
        OrderLabelled(label=Label(labelText="fragile")),
    ],
)
def test_what_is_sent_fits_the_document(signals, context):
    """Where the catalogue's schema describes what `model_dump_json` writes, and would refuse it."""
    from sqlalchemy import create_engine

    from madcrow_events.testing import drain_outbox

    broker = Recorded()
    signals.signal("order_packed", context=type(context), key=lambda _: "one")
    outbox = Outbox("/shop", signals=signals)
    bridge = MemoryBridge(outbox, broker, consumer="shop")
    bridge.outgoing("order_packed")
    document = bridge.asyncapi()
    engine = create_engine("sqlite://")
    outbox.metadata.create_all(engine)
    with event_scope(user_agent="é"), engine.begin() as connection:
        outbox.emit(connection, context, sender="web shop")
    drain_outbox(outbox, engine)
    engine.dispose()
    ((headers, body),) = broker.published

    message = message_of(document, "order_packed")
    assert refusals(document, message, headers, body) == []
    assert {*headers} <= {*message["headers"]["properties"], "content-type"}
    assert headers["content-type"] == message["contentType"]
    catalogue = asyncapi(signals=signals)
    payload = message_of(catalogue, "order_packed")["payload"]
    assert refusals(catalogue, {**message, "payload": payload}, headers, body)
    del headers["ce-time"]
    headers["ce-type"] = "order_placed"
    assert len(refusals(document, message, headers, body)) == 2


def test_what_others_must_send_fits_the_document(service, signals):
    """Also those who know no more of this package than CloudEvents."""
    shop = service("shop")
    shop.bridge.incoming("order_placed")
    document = shop.bridge.asyncapi()

    message = message_of(document, "order_placed")
    assert refusals(document, message, *placed(1)) == []
    headers, body = placed(1)
    del headers["ce-source"]
    assert refusals(document, message, headers, body) == ["'ce-source' is a required property"]


# At a broker


def broker_of(kind: str, url: Any, **options: Any) -> Any:
    """Return a broker of FastStream, which is not connected."""
    module = pytest.importorskip(f"faststream.{kind.lower()}")
    return getattr(module, f"{kind}Broker")(url, logger=None, **options)


def bridge_to(broker: Any, **options: Any) -> Bridge:
    """Return a bridge that sends one event, and takes in the other."""
    signals = SignalRegistry()
    signals.signal("order.placed", context=OrderPlaced)
    signals.signal("order.paid")
    bridge = Bridge(Outbox("/shop", signals=signals), broker, consumer="shop", **options)
    bridge.outgoing("order.placed")
    bridge.incoming("order.paid")
    return bridge


@pytest.mark.parametrize(
    ("kind", "url", "addresses"),
    [
        ("Nats", "nats://localhost", ["orders.order.paid", "orders.order.placed"]),
        ("Rabbit", "amqp://localhost", ["order.paid", "order.placed"]),
        ("Redis", "redis://localhost", ["orders", "orders"]),
    ],
)
def test_an_address_is_that_at_the_broker(kind, url, addresses):
    document = bridge_to(broker_of(kind, url), topic="orders").asyncapi()

    assert [it["address"] for it in document["channels"].values()] == addresses
    (server,) = document["servers"].values()
    told = json.dumps([server, document["channels"]])
    assert "orders" in told  # the stream or the exchange, whatever the address is


def test_rabbitmq_has_the_exchange_and_says_how_messages_are_kept():
    """In the bindings that AsyncAPI has for AMQP."""
    broker = broker_of("Rabbit", "amqp://localhost/of%2Fus")
    document = bridge_to(broker, topic="orders").asyncapi()

    for channel in document["channels"].values():
        assert channel["bindings"]["amqp"] == {
            "is": "routingKey",
            "exchange": {
                "name": "orders",
                "type": "topic",
                "durable": True,
                "autoDelete": False,
                "vhost": "of/us",
            },
            "bindingVersion": "0.3.0",
        }
    assert [it["bindings"] for it in document["operations"].values()] == [
        {"amqp": {"deliveryMode": 2, "bindingVersion": "0.3.0"}},
        {"amqp": {"ack": True, "bindingVersion": "0.3.0"}},
    ]
    headers = message_of(document, "order-placed")["headers"]
    assert headers["required"] == [f"cloudEvents:{it}" for it in SENT]


@pytest.mark.parametrize("url", ["amqp://localhost", "amqp://localhost/", "amqp://localhost//"])
def test_rabbitmq_has_a_virtual_host_if_none_is_named(url):
    document = bridge_to(broker_of("Rabbit", url)).asyncapi()

    exchange = document["channels"]["order-placed"]["bindings"]["amqp"]["exchange"]
    assert exchange["vhost"] == "/"


def test_in_redis_the_attributes_are_in_the_payload():
    """Because a message there is an event in the structured mode."""
    document = bridge_to(broker_of("Redis", "redis://localhost")).asyncapi()

    message = message_of(document, "order-placed")
    assert "headers" not in message
    assert message["contentType"] == "application/cloudevents+json"
    payload = message["payload"]
    assert payload["properties"]["data"] == {"$ref": "#/components/schemas/OrderPlaced"}
    assert payload["required"] == [*SENT, "data"]
    assert message_of(document, "order-paid")["payload"]["required"] == [*SENT[:4], "data"]
    jsonschema = pytest.importorskip("jsonschema")
    schema = {**payload, "components": document["components"]}
    event = CloudEvent(
        id="1",
        source="/shop",
        type="order.placed",
        data=b'{"number": 1}',
        attributes={
            "datacontenttype": "application/json",
            "time": "2026-01-31T12:00:00Z",
            "eventversion": "1",
            "correlationid": "1",
        },
    )
    jsonschema.Draft7Validator(schema).validate(json.loads(event.structured()[1]))


@pytest.mark.parametrize(
    ("kind", "url", "server"),
    [
        ("Nats", "nats://h:4222", {"host": "h:4222", "protocol": "nats"}),
        ("Nats", "nats://hunter2@[::1]:4222", {"host": "[::1]:4222", "protocol": "nats"}),
        ("Nats", "user:hunter2@h", {"host": "h", "protocol": "nats"}),
        ("Nats", "tls://user:hunt/er2@h", {"host": "h", "protocol": "nats"}),
        (
            "Rabbit",
            "amqps://user:hunter2@h:5671/of_us?heartbeat=5&auth=hunter2",
            {"host": "h:5671", "pathname": "/of_us", "protocol": "amqps"},
        ),
        (
            "Redis",
            "rediss://user:hunter2@h:6379/3?password=hunter2",
            {"host": "h:6379", "pathname": "/3", "protocol": "rediss"},
        ),
        ("Redis", "redis://:hunt@er2@h", {"host": "h", "protocol": "redis"}),
        (
            "Redis",
            "unix://user:hunter2@/run/redis.sock?db=3",
            {"host": "localhost", "pathname": "/run/redis.sock", "protocol": "unix"},
        ),
    ],
)
def test_a_server_is_shown_without_user_password_and_query(kind, url, server):
    """Also where the URL is one that FastStream is to show in documents."""
    for broker in (broker_of(kind, url), broker_of(kind, url, specification_url=url)):
        document = bridge_to(broker).asyncapi()

        (shown,) = document["servers"].values()
        assert server.items() <= shown.items()
        assert shown.keys() <= {*server, "description"}
        told = json.dumps(document)
        assert not any(it in told for it in ("hunt", "er2", "user:", "@"))


def test_each_server_of_a_cluster_is_there():
    broker = broker_of("Nats", ["nats://one:4222", "nats://user:hunter2@two:4222"])

    servers = bridge_to(broker).asyncapi()["servers"]

    assert {name: it["host"] for name, it in servers.items()} == {
        "nats-1": "one:4222",
        "nats-2": "two:4222",
    }
