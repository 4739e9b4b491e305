"""What a consumer of NATS JetStream delivers, in the order of the stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NotFoundError

from madcrow_events.bridge._errors import BrokerAwayError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from madcrow_events.bridge._transport import Message, Topology

__all__ = ["Left", "NatsReceiver"]

_WAIT: Final = 1.0
"""For how many seconds a receiver waits for a message."""
_LOOK_EVERY: Final = 5.0
"""After how many idle seconds to see whether the consumer is still there."""
_GATHER_FOR: Final = 5.0
"""For how many seconds to wait for what another receiver has left, and the stream may not have."""


class Left(NamedTuple):
    """What was delivered to another receiver, and not acknowledged.

    Attributes:
        number: how many messages there are.
        until: the place of the last of them in the stream.
    """

    number: int
    until: int


class NatsReceiver:
    """What a subscription delivers, in batches.

    Args:
        client: the client.
        context: asks the server about the consumer.
        topology: the names of the service.

    Attributes:
        left: what another receiver has left, and comes first.
        reconnects: how often the client had connected again before the subscription.
    """

    def __init__(self, client: Client, context: JetStreamContext, topology: Topology) -> None:
        self.left = Left(0, 0)
        self.reconnects = 0
        self._client = client
        self._context = context
        self._topology = topology
        self._arrived: list[_Message] = []
        self._news = asyncio.Event()
        self._held: set[_Message] = set()
        self._idle_since = asyncio.get_running_loop().time()

    async def put(self, message: Msg) -> None:
        """Take a message from the client."""
        held = _Message(message, self._client, self._held.discard)
        self._held.add(held)
        self._arrived.append(held)
        self._news.set()

    async def hold(self) -> None:
        """Renew the leases of what has arrived and is not acknowledged, until this is cancelled."""
        while True:
            await asyncio.sleep(self._topology.lease / 3)
            if self._client.is_connected:
                await self._renew()

    async def _renew(self) -> None:
        for it in tuple(self._held):
            await it.renew()

    async def take(self) -> list[Message]:
        """Wait for messages, and return those that have arrived.

        Raises:
            BrokerAwayError: the connection was lost, and messages with it; or the consumer is gone.
        """
        await self._within(_WAIT, self._wait_for_some())
        if self.left.number:
            await self._gather()
        if not self._client.is_connected:
            raise BrokerAwayError("the connection was lost")
        # Nothing is missing among what came before the connection broke.
        if self._client.stats["reconnects"] != self.reconnects:
            raise BrokerAwayError("the connection was lost for a moment")
        if not self._arrived:
            await self._look()
            return []
        self._idle_since = asyncio.get_running_loop().time()
        size = self._topology.batch
        taken, self._arrived = self._arrived[:size], self._arrived[size:]
        return [*taken]

    async def _gather(self) -> None:
        """Wait for all that another receiver has left, and put it in order.

        The server has a queue of what it delivers again. If a receiver ends before all of that was
        delivered, the rest stays there, and what was delivered comes behind it.
        """
        await self._within(_GATHER_FOR, self._wait_for_left())
        self._arrived.sort(key=lambda message: message.place_in_stream)
        self.left = Left(0, 0)

    async def _within(self, seconds: float, waiting: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await waiting
        except TimeoutError:  # nothing comes, or the stream has removed what would
            pass

    async def _wait_for_some(self) -> None:
        while not self._arrived:
            self._news.clear()
            await self._news.wait()

    async def _wait_for_left(self) -> None:
        while not self._is_all_here():
            self._news.clear()
            await self._news.wait()

    def _is_all_here(self) -> bool:
        number, until = self.left
        if len(self._arrived) < number:
            return False
        places = {it.place_in_stream for it in self._arrived}
        return sum(place <= until for place in places) >= number

    async def _look(self) -> None:
        """See now and then whether the consumer is there: one that was deleted is silent."""
        now = asyncio.get_running_loop().time()
        if now - self._idle_since < _LOOK_EVERY or not self._client.is_connected:
            return
        self._idle_since = now
        try:
            await self._context.consumer_info(self._topology.topic, self._topology.consumer)
        except NotFoundError:
            raise BrokerAwayError(
                f"the consumer {self._topology.consumer} was deleted, and is made anew"
            ) from None
        except (NatsTimeoutError, TimeoutError):  # the next look may succeed
            return


class _Message:
    def __init__(self, message: Msg, client: Client, let_go: Callable[[_Message], None]) -> None:
        self._message = message
        self._client = client
        self._let_go = let_go

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers or {}

    @property
    def body(self) -> bytes:
        return self._message.data

    @property
    def place(self) -> str:
        metadata = self._message.metadata
        return f"message {metadata.sequence.stream} of the stream {metadata.stream}"

    @property
    def place_in_stream(self) -> int:
        return self._message.metadata.sequence.stream

    @property
    def deliveries(self) -> int:
        return self._message.metadata.num_delivered or 1

    # Where the connection is lost, the message is delivered again, and `take` says so.

    async def settle(self) -> None:
        self._let_go(self)
        if self._client.is_connected:
            await self._message.ack()

    async def refuse(self) -> None:
        self._let_go(self)
        if self._client.is_connected:
            await self._message.term()  # it stays in the stream

    async def give_back(self, delay: float) -> None:
        self._let_go(self)
        if self._client.is_connected:
            await self._message.nak(delay=delay)

    async def renew(self) -> None:
        await self._message.in_progress()
