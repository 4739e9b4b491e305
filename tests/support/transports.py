"""The kinds of brokers that the bridge knows, each as what the tests of transports need of it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika
import nats
import nats.js.errors
import pytest
import redis.asyncio
from faststream.nats import NatsBroker
from faststream.rabbit import RabbitBroker
from faststream.redis import RedisBroker

from madcrow_events.bridge._nats import NatsTransport
from madcrow_events.bridge._rabbit import RabbitTransport
from madcrow_events.bridge._redis import RedisTransport
from madcrow_events.bridge._transport import Message, Receiver, Topology, Transport
from madcrow_events.outbox import CloudEvent
from support.brokers import Server, a_nats_server, a_rabbit_server, a_redis_server

__all__ = ["KINDS", "Kind", "Rig", "an_event", "numbers_of", "take", "until"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of broker.

    Attributes:
        variable: the environment variable that says where a server is.
        url: where it is if the variable does not say it.
        transport: makes a transport for a URL.
        remove: removes all that a topology names.
        server: starts a server in a folder.
    """

    variable: str
    url: str
    transport: Callable[[str, Topology], Transport]
    remove: Callable[[str, Topology], Awaitable[None]]
    server: Callable[[Path], AbstractContextManager[Server]]

    def find(self) -> str:
        """Return the URL of a server, or skip the test if there is none."""
        url = os.environ.get(self.variable, self.url)
        parts = urlsplit(url)
        try:
            socket.create_connection((parts.hostname, parts.port), 5).close()
        except OSError as error:
            pytest.skip(f"needs a broker, and {self.variable} finds none: {error}")
        return url


class Rig:
    """Transports of one kind, for names of their own, which are removed at the end.

    Args:
        kind: the kind.
        url: where the server is; None for the one of the kind.
        options: further arguments of the topology.
    """

    def __init__(self, kind: Kind, url: str | None = None, **options: Any) -> None:
        self.kind = kind
        self.url = url or kind.find()
        self.topology = replace(
            Topology(
                topic=f"test-{uuid4().hex[:12]}",
                consumer="mail",
                events=None,
                lease=0.4,
                retention=timedelta(days=1),
                batch=10,
            ),
            **options,
        )
        self._transports: list[tuple[Transport, Topology]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for transport, topology in self._transports:
            await transport.close()
            await self.kind.remove(self.url, topology)

    def transport(self, url: str | None = None, **changes: Any) -> Any:
        """Return a new transport, which is closed at the end.

        Args:
            url: where its server is, if it is another one.
            changes: what its topology has other than that of the rig.
        """
        topology = replace(self.topology, **changes)
        transport = self.kind.transport(url or self.url, topology)
        self._transports.append((transport, topology))
        return transport

    async def connected(self, url: str | None = None, **changes: Any) -> Any:
        """Return a new transport that is connected, and whose consumer is known to the broker."""
        transport = self.transport(url, **changes)
        await transport.connect()
        async with transport.receiving():
            pass
        return transport

    def through(self, port: int) -> str:
        """Return the URL of the server by another port of this machine."""
        parts = urlsplit(self.url)
        user, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port of the server."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 0


def an_event(number: int, **options: Any) -> CloudEvent:
    """Return an event that carries a number."""
    attributes = {"datacontenttype": "application/json", "subject": "an order, naïvely"}
    return CloudEvent(
        id=f"{number}-{uuid4().hex[:8]}",
        source="/shop",
        **{
            "type": "order_placed",
            "data": str(number).encode(),
            "attributes": attributes,
            **options,
        },
    )


def numbers_of(messages: list[Message]) -> list[int]:
    """Return the numbers that the events of messages carry."""
    return [int(CloudEvent.read(it.headers, it.body).data) for it in messages]


async def take(receiver: Receiver, count: int, seconds: float = 10.0) -> list[Message]:
    """Return the next messages, so many or more; fail if they have not come in time."""
    taken: list[Message] = []
    async with asyncio.timeout(seconds):
        while len(taken) < count:
            taken += await receiver.take()
    return taken


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it has not come to that"
        await asyncio.sleep(0.01)


async def _remove_from_nats(url: str, topology: Topology) -> None:
    client = await nats.connect(url)
    try:
        await client.jetstream().delete_stream(topology.topic)
    except nats.js.errors.NotFoundError:  # another transport of the test has removed it
        pass
    await client.close()


async def _remove_from_redis(url: str, topology: Topology) -> None:
    async with redis.asyncio.from_url(url) as client:
        await client.delete(topology.topic)


async def _remove_from_rabbit(url: str, topology: Topology) -> None:
    queue = f"{topology.topic}.{topology.consumer}"
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.queue_delete(queue)
        await channel.queue_delete(f"{queue}.refused")
        await channel.exchange_delete(topology.topic)


KINDS: Final = {
    "nats": Kind(
        variable="NATS_URL",
        url="nats://127.0.0.1:4222",
        transport=lambda url, topology: NatsTransport(
            NatsBroker(url, logger=None, reconnect_time_wait=0.2), topology
        ),
        remove=_remove_from_nats,
        server=a_nats_server,
    ),
    "redis": Kind(
        variable="REDIS_URL",
        url="redis://127.0.0.1:6379",
        transport=lambda url, topology: RedisTransport(RedisBroker(url, logger=None), topology),
        remove=_remove_from_redis,
        server=a_redis_server,
    ),
    "rabbit": Kind(
        variable="RABBITMQ_URL",
        url="amqp://guest:guest@127.0.0.1:5672/",
        transport=lambda url, topology: RabbitTransport(
            RabbitBroker(url, logger=None, reconnect_interval=0.2), topology
        ),
        remove=_remove_from_rabbit,
        server=a_rabbit_server,
    ),
}
