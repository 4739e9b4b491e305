"""Which transport a broker needs; each is loaded only where its broker is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from madcrow_events._text import type_name
from madcrow_events.exceptions import InvalidOptionError

if TYPE_CHECKING:
    from madcrow_events.bridge._transport import Topology, Transport

__all__ = ["transport_for"]

_TRANSPORTS: Final = {
    ("madcrow_events", "MemoryBroker"): ("_memory", "MemoryTransport"),
    ("faststream", "NatsBroker"): ("_nats", "NatsTransport"),
    ("faststream", "RabbitBroker"): ("_rabbit", "RabbitTransport"),
    ("faststream", "RedisBroker"): ("_redis", "RedisTransport"),
}
"""The module and the class of the transport, by the package and the class of the broker."""


def transport_for(broker: Any, topology: Topology) -> Transport:
    """Return the transport of a broker.

    Raises:
        InvalidOptionError: there is none for such a broker.
    """
    for class_ in type(broker).__mro__:
        package = class_.__module__.partition(".")[0]
        if (found := _TRANSPORTS.get((package, class_.__name__))) is not None:
            module, name = found
            made: Transport = getattr(import_module(f"madcrow_events.bridge.{module}"), name)(
                broker, topology
            )
            return made
    raise InvalidOptionError(
        f"broker must be a NatsBroker, RedisBroker or RabbitBroker of FastStream, not "
        f"{type_name(type(broker))}: for tests and one process, write MemoryBridge",
        option="broker",
    )
