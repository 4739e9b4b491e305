"""Tests of the bridge need the outbox, and services to connect."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("sqlalchemy") is None:
    collect_ignore_glob = ["*"]


@pytest.fixture
def broker() -> Any:
    from madcrow_events.bridge import MemoryBroker

    return MemoryBroker()


@pytest.fixture
def service(broker: Any) -> Any:
    """Return a function that makes a service, by its name and the options of `Service`."""
    from support.services import Service

    made: list[Service] = []

    def make(name: str, **options: Any) -> Service:
        made.append(Service(name, broker, **options))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.fixture
def shop(service: Any) -> Any:
    """Return a service that sends the orders that are placed."""
    shop = service("shop")
    shop.bridge.outgoing("order_placed")
    return shop


@pytest.fixture
def shipping(service: Any) -> Any:
    """Return a service that takes in the orders that are placed, and handles them."""
    shipping = service("shipping")
    shipping.bridge.incoming("order_placed")
    shipping.listen()
    return shipping
