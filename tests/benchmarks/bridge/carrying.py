"""Two services with a bridge: what one commits, the other handles."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from madcrow_events.bridge import Bridge
from madcrow_events.outbox import Worker

from ..outbox.databases import Keyed, Store, Unkeyed
from .raw import url_of

__all__ = ["carried"]


def a_broker(broker: str) -> Any:
    """Return a broker of FastStream."""
    if broker == "nats":
        from faststream.nats import NatsBroker

        return NatsBroker(url_of(broker), logger=None)
    if broker == "redis":
        from faststream.redis import RedisBroker

        return RedisBroker(url_of(broker))
    from faststream.rabbit import RabbitBroker

    return RabbitBroker(url_of(broker), logger=None)


def a_service(broker: str, folder: Path, name: str, topic: str) -> tuple[Store, Engine, Bridge]:
    """Return an empty outbox with a bridge."""
    store = Store(f"sqlite:///{folder / name}.db", None)
    store.outbox.source = f"/{name}"
    engine = store.engine()
    store.empty(engine)
    return store, engine, Bridge(store.outbox, a_broker(broker), consumer=name, topic=topic)


def carried(broker: str, number: int, keys: int, folder: Path) -> float:
    """Return how many events a bridge carries in a second, from the commit to the handler.

    Args:
        broker: the broker.
        number: how many events.
        keys: how many keys they share; 0 for events without a key.
        folder: for the databases.
    """
    topic = f"carried_{uuid4().hex[:12]}"
    fork = multiprocessing.get_context("fork")
    ready, go, handled = fork.Semaphore(0), fork.Event(), fork.Event()
    end = fork.Event()
    services = [
        fork.Process(target=_ship, args=(broker, folder, topic, number, ready, handled, end)),
        fork.Process(target=_sell, args=(broker, folder, topic, number, keys, ready, go, end)),
    ]
    for service in services:
        service.start()
        if not ready.acquire(timeout=60):
            raise TimeoutError(f"{broker} is not there")
    started = time.perf_counter()
    go.set()
    is_handled = handled.wait(300)
    took = time.perf_counter() - started
    end.set()
    for service in services:
        service.join(60)
        service.kill()
    asyncio.run(remove(broker, topic))
    if not is_handled:
        raise TimeoutError("not all events were handled")
    return number / took


async def remove(broker: str, topic: str) -> None:
    """Remove what a bridge has made at a broker."""
    if broker == "nats":
        from nats import connect

        client = await connect(url_of(broker))
        await client.jetstream().delete_stream(topic)
        await client.close()
    elif broker == "redis":
        from redis.asyncio import Redis

        async with Redis.from_url(url_of(broker)) as redis:
            await redis.delete(topic)
    else:
        from aio_pika import connect as connect_to

        async with await connect_to(url_of(broker)) as connection:
            channel = await connection.channel()
            await channel.queue_delete(f"{topic}.shipping")
            await channel.queue_delete(f"{topic}.shipping.refused")
            await channel.exchange_delete(topic)


def _ship(
    broker: str, folder: Path, topic: str, number: int, ready: Any, handled: Any, end: Any
) -> None:
    logging.getLogger("madcrow_events").setLevel(logging.ERROR)
    store, engine, bridge = a_service(broker, folder, "shipping", topic)
    count = 0

    def handle(context: Keyed | Unkeyed) -> None:
        nonlocal count
        count += 1
        if count == number:
            handled.set()

    for signal in (store.keyed, store.unkeyed):
        bridge.incoming(signal)
        store.outbox.on(signal, id=signal.name)(handle)
    with Worker(store.outbox, engine):
        ready.release()
        end.wait(600)


def _sell(
    broker: str, folder: Path, topic: str, number: int, keys: int, ready: Any, go: Any, end: Any
) -> None:
    logging.getLogger("madcrow_events").setLevel(logging.ERROR)
    store, engine, bridge = a_service(broker, folder, "shop", topic)
    bridge.outgoing(store.keyed)
    bridge.outgoing(store.unkeyed)
    with Worker(store.outbox, engine):
        ready.release()
        go.wait(600)
        with Session(engine) as session:
            for place in range(number):
                event = Keyed if keys else Unkeyed
                key = str(place % keys) if keys else ""
                store.outbox.emit(session, event(number=place, key=key))
            session.commit()
        end.wait(600)
