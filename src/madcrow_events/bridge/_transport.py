"""What the bridge needs of a broker: to publish events, and to receive messages in batches.

There is one transport for each kind of broker. Apart from `is_connected`, all of it is used in the
event loop of the bridge only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from madcrow_events.outbox import CloudEvent

__all__ = ["BATCH", "Message", "Receiver", "Topology", "Transport", "shown_url"]

BATCH: Final = 100
"""How many messages are taken in with one transaction, and are unacknowledged at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The names that a service has at its broker, and how messages are kept there.

    Attributes:
        topic: the name of the stream or exchange of all services.
        consumer: the name under which the broker remembers what this service has received: of a
            durable consumer, consumer group or queue.
        events: the names of the events that come in; None for all of them.
        lease: after how many seconds a message that was not acknowledged is delivered again, where
            the broker goes by time.
        retention: how long messages are kept in a stream.
        batch: how many messages are delivered at most before they are acknowledged.
    """

    topic: str
    consumer: str
    events: tuple[str, ...] | None
    lease: float
    retention: timedelta
    batch: int = BATCH


class Message(Protocol):
    """A message that the broker has delivered."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, as text."""
        ...

    @property
    def body(self) -> bytes:
        """Its body."""
        ...

    @property
    def place(self) -> str:
        """Where the broker keeps it, such as "message 17 of the stream events"."""
        ...

    @property
    def deliveries(self) -> int:
        """How often it was delivered, this time included, as far as the broker says so."""
        ...

    async def settle(self) -> None:
        """Acknowledge it, so that it is not delivered again."""
        ...

    async def refuse(self) -> None:
        """Do the same with one that is not taken in, and leave it where somebody can look at it."""
        ...

    async def give_back(self, delay: float) -> None:
        """Let it be delivered again after some seconds, or later."""
        ...


class Receiver(Protocol):
    """One stretch of receiving."""

    async def take(self) -> list[Message]:
        """Wait for messages, and return those that are there, in their order.

        It may be cancelled, and no message is lost by that. It may return none.

        Raises:
            Exception: the connection was lost, or messages may be missing among those that would
                come: begin to receive anew.
        """
        ...


class Transport(Protocol):
    """A kind of broker."""

    @property
    def place(self) -> str:
        """What the broker is and where, for messages, such as "NATS at localhost:4222"."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether messages can be published now, as far as is known; asked by other threads."""
        ...

    async def connect(self) -> None:
        """Connect, and make the stream or exchange if it is missing; again after a failure, too.

        Raises:
            TopologyError: what is there does not fit.
            Exception: the broker cannot be reached.
        """
        ...

    async def publish(self, event: CloudEvent) -> None:
        """Publish an event, and wait until the broker has acknowledged that it is stored.

        Raises:
            MessageTooLargeError: the broker takes no message of this size.
            Exception: the broker is away, or has not acknowledged it.
        """
        ...

    def receiving(self) -> AbstractAsyncContextManager[Receiver]:
        """Make what keeps the messages of the consumer if it is missing, and receive from it.

        Entering waits as long as another process receives, if the order depends on it.

        Raises:
            TopologyError: what is there does not fit.
            Exception: the broker cannot be reached.
        """
        ...

    async def close(self) -> None:
        """Close the connection; afterwards, `connect` may be called again."""
        ...


def shown_url(url: str) -> str:
    """Return a URL without the name and password of the user, and without its query."""
    # A password may have any of the characters that should be encoded there.
    return re.sub(r"//.*@", "//", url, flags=re.DOTALL).partition("?")[0]
