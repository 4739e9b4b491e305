"""Events between processes, on brokers that exist: NATS JetStream, Redis Streams and RabbitMQ.

Needs the extra `bridge`, and that of FastStream for your broker:
`pip install "madcrow-events[bridge]" "faststream[nats]"`.
"""

from madcrow_events.bridge._bridge import Bridge
from madcrow_events.bridge._errors import (
    BridgeError,
    BrokerAwayError,
    MessageTooLargeError,
    TopologyError,
)
from madcrow_events.bridge._memory import MemoryBridge, MemoryBroker

__all__ = [
    "Bridge",
    "BridgeError",
    "BrokerAwayError",
    "MemoryBridge",
    "MemoryBroker",
    "MessageTooLargeError",
    "TopologyError",
]
