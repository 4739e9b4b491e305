"""What a bridge's AsyncAPI document says of a broker is what others find there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

pytest.importorskip("faststream")
pytest.importorskip("sqlalchemy")

import aio_pika
import nats
import redis.asyncio
from faststream.nats import NatsBroker
from faststream.rabbit import RabbitBroker
from faststream.redis import RedisBroker
from faststream.redis.parser import BinaryMessageFormatV1

from madcrow_events.bridge import Bridge
from madcrow_events.outbox import Outbox, Worker
from support.outboxes import emit, sqlite_engine
from support.services import OrderPlaced
from support.transports import KINDS

pytestmark = pytest.mark.once


class Found(NamedTuple):
    """A message as a client of the broker finds it."""

    headers: dict[str, Any]
    content_type: str | None
    body: bytes


Get = Callable[[], Awaitable[Found]]


@asynccontextmanager
async def from_nats(url: str, channel: dict[str, Any]) -> AsyncIterator[Get]:
    client = await nats.connect(url)
    subscription = await client.subscribe(channel["address"])
    await client.flush()

    async def get() -> Found:
        message = await subscription.next_msg(10)
        headers = message.headers or {}
        return Found(headers, headers["content-type"], message.data)

    yield get
    await client.close()


@asynccontextmanager
async def from_rabbit(url: str, channel: dict[str, Any]) -> AsyncIterator[Get]:
    described = channel["bindings"]["amqp"]["exchange"]
    assert described["vhost"] == "/"
    async with await aio_pika.connect(url) as connection:
        opened = await connection.channel()
        exchange = await opened.declare_exchange(
            described["name"],
            described["type"],
            durable=described["durable"],
            auto_delete=described["autoDelete"],
        )
        queue = await opened.declare_queue(exclusive=True)
        await queue.bind(exchange, channel["address"])

        async def get() -> Found:
            async with queue.iterator(timeout=10) as messages:
                message = await anext(messages)
            assert message.delivery_mode == 2
            return Found(dict(message.headers), message.content_type, message.body)

        yield get


@asynccontextmanager
async def from_redis(url: str, channel: dict[str, Any]) -> AsyncIterator[Get]:
    async with redis.asyncio.from_url(url) as client:

        async def get() -> Found:
            [[_, [[_, fields]]]] = await client.xread({channel["address"]: "0"}, block=10_000)
            body, headers = BinaryMessageFormatV1.parse(fields[b"__data__"])
            return Found({}, headers["content-type"], body)

        yield get


Reader = Callable[[str, dict[str, Any]], AbstractAsyncContextManager[Get]]
READERS: Final[dict[str, tuple[Any, Reader]]] = {
    "nats": (NatsBroker, from_nats),
    "rabbit": (RabbitBroker, from_rabbit),
    "redis": (RedisBroker, from_redis),
}


@pytest.mark.parametrize("kind", sorted(READERS))
async def test_others_find_what_is_sent_by_the_document_alone(kind, signals, tmp_path: Path):
    """At the server and the address that it names, and in the form that it describes."""
    jsonschema = pytest.importorskip("jsonschema")
    url = KINDS[kind].find()
    make, reader = READERS[kind]
    signals.signal("shop.order_placed", context=OrderPlaced, key="customer")
    outbox = Outbox("/shop", signals=signals)
    topic = f"asyncapi-{uuid4().hex[:12]}"
    bridge = Bridge(outbox, make(url, logger=None), consumer="shop", topic=topic)
    bridge.outgoing("shop.order_placed")
    document = json.loads(json.dumps(bridge.asyncapi()))

    def send() -> None:
        engine = sqlite_engine(tmp_path)
        outbox.metadata.create_all(engine)
        emit(outbox, engine, OrderPlaced(number=7))
        Worker(outbox, engine).run(once=True)
        engine.dispose()

    try:
        async with reader(url, document["channels"]["shop-order_placed"]) as get:
            found, _ = await asyncio.gather(get(), asyncio.to_thread(send))
    finally:
        await KINDS[kind].remove(url, bridge._topology)

    (server,) = document["servers"].values()
    assert server["host"] == urlsplit(url).netloc.rpartition("@")[2]
    message = document["components"]["messages"]["shop-order_placed"]
    assert found.content_type == message["contentType"]
    for part, value in (("headers", found.headers), ("payload", json.loads(found.body))):
        schema = {**message.get(part, {}), "components": document["components"]}
        jsonschema.Draft7Validator(schema).validate(value)
    attributes = [*found.headers, *json.loads(found.body)]
    assert sum(it.endswith(("source", "time", "partitionkey")) for it in attributes) == 3
