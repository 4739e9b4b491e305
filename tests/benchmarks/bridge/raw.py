"""A raw client of each broker: what it publishes one by one, another process receives."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from uuid import uuid4

__all__ = ["BROKERS", "raw", "url_of"]

BODY = b'{"number": 17, "key": "17", "request_id": null, "user_id": null, "timestamp": null}'
HEADERS = {
    "content-type": "application/json",
    "ce-specversion": "1.0",
    "ce-id": "01a2289d-de25-7a80-ac26-66d8be7714cf",
    "ce-source": "/shop",
    "ce-type": "carried",
    "ce-time": "2026-11-29T18:42:44.389665Z",
}
AT_ONCE = 100
"""How many messages are unacknowledged at most."""


def url_of(broker: str) -> str:
    """Return where a broker is."""
    variable, default = {
        "nats": ("NATS_URL", "nats://127.0.0.1:4222"),
        "redis": ("REDIS_URL", "redis://127.0.0.1:6379"),
        "rabbitmq": ("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672/"),
    }[broker]
    return os.environ.get(variable, default)


async def publish_nats(name: str, number: int) -> None:
    """Publish, and wait for the stream to acknowledge each message."""
    from nats import connect

    client = await connect(url_of("nats"))
    context = client.jetstream()
    for _ in range(number):
        await context.publish(f"{name}.carried", BODY, headers=HEADERS)
    await client.close()


async def receive_nats(name: str, number: int, ready: Callable[[], None]) -> None:
    """Receive, and acknowledge each message."""
    from nats import connect
    from nats.aio.msg import Msg
    from nats.js.api import AckPolicy, ConsumerConfig

    client = await connect(url_of("nats"))
    context = client.jetstream()
    await context.add_stream(name=name, subjects=[f"{name}.>"])
    all_here, count = asyncio.Event(), 0

    async def handle(message: Msg) -> None:
        nonlocal count
        await message.ack()
        count += 1
        if count == number:
            all_here.set()

    config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=AT_ONCE)
    await context.subscribe(
        f"{name}.>", stream=name, durable="raw", cb=handle, manual_ack=True, config=config
    )
    ready()
    await all_here.wait()
    await context.delete_stream(name)
    await client.close()


async def publish_redis(name: str, number: int) -> None:
    """Publish, and wait for each answer."""
    from redis.asyncio import Redis

    fields: dict[Any, Any] = {"data": BODY, **HEADERS}
    async with Redis.from_url(url_of("redis")) as client:
        for _ in range(number):
            await client.xadd(name, fields)


async def receive_redis(name: str, number: int, ready: Callable[[], None]) -> None:
    """Receive in batches, and acknowledge each message."""
    from redis.asyncio import Redis

    async with Redis.from_url(url_of("redis")) as client:
        await client.xgroup_create(name, "raw", id="0", mkstream=True)
        ready()
        count = 0
        while count < number:
            found: Any = await client.xreadgroup(
                "raw", "one", {name: ">"}, count=AT_ONCE, block=1000
            )
            for _, messages in found:
                for id_, _ in messages:
                    await client.xack(name, "raw", id_)
                    count += 1
        await client.delete(name)


async def publish_rabbitmq(name: str, number: int) -> None:
    """Publish, and wait for the confirmation of each message."""
    from aio_pika import DeliveryMode, Message, connect

    connection = await connect(url_of("rabbitmq"))
    channel = await connection.channel(publisher_confirms=True)
    exchange = await channel.get_exchange(name)
    for _ in range(number):
        message = Message(BODY, headers=dict(HEADERS), delivery_mode=DeliveryMode.PERSISTENT)
        await exchange.publish(message, "carried", mandatory=False)
    await connection.close()


async def receive_rabbitmq(name: str, number: int, ready: Callable[[], None]) -> None:
    """Receive, and acknowledge each message."""
    from aio_pika import ExchangeType, connect
    from aio_pika.abc import AbstractIncomingMessage

    connection = await connect(url_of("rabbitmq"))
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=AT_ONCE)
    exchange = await channel.declare_exchange(name, ExchangeType.TOPIC, durable=True)
    queue = await channel.declare_queue(name, durable=True)
    await queue.bind(exchange, "#")
    all_here, count = asyncio.Event(), 0

    async def handle(message: AbstractIncomingMessage) -> None:
        nonlocal count
        await message.ack()
        count += 1
        if count == number:
            all_here.set()

    await queue.consume(handle)
    ready()
    await all_here.wait()
    await queue.delete(if_empty=False, if_unused=False)
    await exchange.delete()
    await connection.close()


class Client(NamedTuple):
    """How a raw client works."""

    publish: Callable[[str, int], Awaitable[None]]
    receive: Callable[[str, int, Callable[[], None]], Awaitable[None]]


BROKERS = {
    "nats": Client(publish_nats, receive_nats),
    "redis": Client(publish_redis, receive_redis),
    "rabbitmq": Client(publish_rabbitmq, receive_rabbitmq),
}


def raw(broker: str, number: int) -> float:
    """Return how many messages a raw client carries in a second."""
    name = f"raw_{uuid4().hex[:12]}"
    fork = multiprocessing.get_context("fork")
    ready, go = fork.Event(), fork.Event()
    receiver = fork.Process(target=_receive, args=(broker, name, number, ready.set), daemon=True)
    publisher = fork.Process(target=_publish, args=(broker, name, number, go), daemon=True)
    receiver.start()
    publisher.start()
    if not ready.wait(60):
        raise TimeoutError(f"{broker} is not there")
    started = time.perf_counter()
    go.set()
    receiver.join(300)
    took = time.perf_counter() - started
    publisher.join(60)
    if receiver.exitcode != 0 or publisher.exitcode != 0:
        raise RuntimeError(f"the raw client of {broker} has failed")
    return number / took


def _receive(broker: str, name: str, number: int, ready: Callable[[], None]) -> None:
    asyncio.run(BROKERS[broker].receive(name, number, ready))  # type: ignore[arg-type]


def _publish(broker: str, name: str, number: int, go: Any) -> None:
    go.wait(60)
    asyncio.run(BROKERS[broker].publish(name, number))  # type: ignore[arg-type]
