"""Which transport a broker needs; each is loaded only where its broker is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal

from madcrow_events._text import type_name
from madcrow_events.exceptions import InvalidOptionError

if TYPE_CHECKING:
    from madcrow_events.bridge._transport import Topology, Transport

__all__ = ["check_unused", "kind_of", "transport_for"]

Kind = Literal["memory", "nats", "rabbit", "redis"]

_KINDS: Final[dict[tuple[str, str], Kind]] = {
    ("madcrow_events", "MemoryBroker"): "memory",
    ("faststream", "NatsBroker"): "nats",
    ("faststream", "RabbitBroker"): "rabbit",
    ("faststream", "RedisBroker"): "redis",
}
"""The kinds of brokers, by the package and the class of the broker."""

_TRANSPORTS: Final[dict[Kind, str]] = {
    "memory": "MemoryTransport",
    "nats": "NatsTransport",
    "rabbit": "RabbitTransport",
    "redis": "RedisTransport",
}
"""The class of the transport of each kind, whose module has the name of the kind."""


def kind_of(broker: Any) -> Kind:
    """Return of which kind a broker is.

    Raises:
        InvalidOptionError: it is of none.
    """
    for class_ in type(broker).__mro__:
        package = class_.__module__.partition(".")[0]
        if (kind := _KINDS.get((package, class_.__name__))) is not None:
            return kind
    raise InvalidOptionError(
        f"broker must be a NatsBroker, RedisBroker or RabbitBroker of FastStream, not "
        f"{type_name(type(broker))}: for tests and one process, write MemoryBridge",
        option="broker",
    )


def transport_for(broker: Any, topology: Topology) -> Transport:
    """Return the transport of a broker.

    Raises:
        InvalidOptionError: there is none for such a broker.
    """
    kind = kind_of(broker)
    module = import_module(f"madcrow_events.bridge._{kind}")
    made: Transport = getattr(module, _TRANSPORTS[kind])(broker, topology)
    return made


def check_unused(broker: Any) -> None:
    """Refuse a broker that is connected: its connection belongs to another event loop.

    Raises:
        InvalidOptionError: the application, another bridge or the parent process has connected it.
    """
    if getattr(broker, "_connection", None) is not None:
        raise InvalidOptionError(
            f"the {type_name(type(broker))} of the bridge is connected already, by the "
            "application, another bridge, or the process that has forked this one: give each "
            "bridge a broker of its own, which nothing else starts",
            option="broker",
        )
