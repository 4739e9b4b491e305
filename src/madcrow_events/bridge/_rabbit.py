"""RabbitMQ: a topic exchange for all events, and a queue for each service."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from aio_pika import Channel
from aio_pika.exceptions import ChannelClosed, ChannelPreconditionFailed
from faststream.rabbit import ExchangeType, RabbitExchange

from madcrow_events.bridge._errors import BrokerAwayError, MessageTooLargeError, TopologyError
from madcrow_events.bridge._patience import begin, close, within_patience
from madcrow_events.bridge._transport import Message, Receiver, Topology, shown_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping

    from aio_pika import RobustChannel, RobustConnection
    from aio_pika.abc import AbstractIncomingMessage, AbstractQueue
    from faststream.rabbit import RabbitBroker

    from madcrow_events.outbox import CloudEvent

__all__ = ["RabbitTransport"]

_Made = TypeVar("_Made")

_PREFIX: Final = "cloudEvents:"
"""What the names of attributes begin with, by the CloudEvents binding for AMQP."""
_WAIT: Final = 1.0
"""For how many seconds to wait for messages."""
_LOOK_EVERY: Final = 0.01
"""After how many seconds to look whether a channel is open again."""


class RabbitTransport:
    """Publishes to an exchange of RabbitMQ, and receives from a queue.

    Args:
        broker: the application's broker.
        topology: the names and durations.

    Attributes:
        place: what the broker is and where.
    """

    def __init__(self, broker: RabbitBroker, topology: Topology) -> None:
        self.place = f"RabbitMQ at {shown_url(broker.specification.url[0])}"
        self._broker = broker
        self._topology = topology
        self._exchange = RabbitExchange(topology.topic, type=ExchangeType.TOPIC, durable=True)
        self._connection: RobustConnection | None = None
        self._publishing: RobustChannel | None = None
        self._connecting: asyncio.Task[RobustConnection] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands."""
        return self._connection is not None and self._connection.connected.is_set()

    async def connect(self) -> None:
        """Connect, or wait until the client has connected again; and make the exchange.

        Raises:
            TopologyError: the exchange is there with other arguments, or the application's channel
                has no publisher confirms.
            BrokerAwayError: RabbitMQ does not answer.
        """
        connection, publishing = await within_patience(self.place, "answered", self._open())
        if not publishing.publisher_confirms:
            raise TopologyError(
                f"the default channel of the broker for {self.place} has no publisher confirms, "
                "so that events would be lost: leave out publisher_confirms=False"
            )
        self._connection, self._publishing = connection, publishing

    async def publish(self, event: CloudEvent) -> None:
        """Publish an event by its type, and wait until RabbitMQ has confirmed it.

        Raises:
            MessageTooLargeError: RabbitMQ takes no message of this size.
            BrokerAwayError: RabbitMQ has not confirmed it.
        """
        if self._publishing is None or not self.is_connected:
            raise BrokerAwayError(f"{self.place} is away, so the event {event.id} is not sent")
        deed = f"acknowledged the event {event.id}"
        await within_patience(self.place, deed, self._publish(event, self._publishing))

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receiver]:
        """Make the queue if it is missing, and receive from it when no other process does.

        Raises:
            TopologyError: the exchange or a queue is there with other arguments.
            BrokerAwayError: RabbitMQ does not answer.
        """
        if self._connection is None:
            raise BrokerAwayError(f"{self.place} is not connected: connect first")
        async with self._channel(self._connection) as channel:
            yield await within_patience(self.place, "made the queue", self._receive_on(channel))

    async def close(self) -> None:
        """Close the connection, unless the application has started the broker for itself."""
        self._connection = self._publishing = None
        if not self._broker.running:
            await close(self.place, "closed the connection", self._broker.stop())
            # FastStream keeps what it could not close, and would return it again.
            self._broker._channel = self._broker._connection = None
            self._broker.config.disconnect()

    async def _open(self) -> tuple[RobustConnection, RobustChannel]:
        connection = await self._join()
        await connection.connected.wait()
        # Not on the application's channel, which an error would close.
        async with self._channel(connection) as channel:
            await self._make_exchange(channel)
        exchange = await self._broker.declare_exchange(self._exchange)
        return connection, cast("RobustChannel", exchange.channel)

    async def _join(self) -> RobustConnection:
        # The client never stops to connect, so it is asked once for all who wait.
        if self._connecting is None:
            self._connecting = begin(self._broker.connect())
        connecting = self._connecting
        await asyncio.wait({connecting})
        self._connecting = None
        return connecting.result()

    @asynccontextmanager
    async def _channel(self, connection: RobustConnection) -> AsyncIterator[Channel]:
        # Other than those of a robust connection, this channel ends with its connection: what was
        # delivered on it can be acknowledged on no other one.
        channel = Channel(connection, publisher_confirms=False)
        await within_patience(self.place, "opened a channel", channel.initialize())
        try:
            yield channel
        finally:
            await close(self.place, "closed a channel", channel.close())

    async def _publish(self, event: CloudEvent, channel: RobustChannel) -> None:
        headers, body = event.binary(_PREFIX)
        # The client opens it again after each error that anybody has made on it.
        while channel.is_closed:  # noqa: ASYNC110  # it has no event for that
            await asyncio.sleep(_LOOK_EVERY)
        await channel.ready()
        try:
            await self._broker.publish(
                body,
                routing_key=event.type,
                exchange=self._exchange,
                persist=True,
                mandatory=False,  # that nobody listens yet is no error
                message_id=event.id,
                content_type=headers.pop("content-type", None),
                headers=dict(headers),
            )
        except ChannelPreconditionFailed as error:
            if "message size" not in str(error):
                raise
            raise MessageTooLargeError(
                f"{self.place} takes no message of {len(body)} bytes, as the event {event.id} "
                f"needs: {error}"
            ) from error

    async def _receive_on(self, channel: Channel) -> _Receiver:
        queue = await self._make_queue(channel)
        receiver = _Receiver(self.place, channel, queue)
        await receiver.begin()
        return receiver

    async def _make_exchange(self, channel: Channel) -> None:
        topic = self._topology.topic
        await self._made(
            f"the exchange {topic}", channel.declare_exchange(topic, "topic", durable=True)
        )

    async def _make_queue(self, channel: Channel) -> AbstractQueue:
        topology = self._topology
        name = f"{topology.topic}.{topology.consumer}"
        refused = f"{name}.refused"
        arguments: dict[str, Any] = {
            "x-single-active-consumer": True,  # or several processes would break the order
            "x-dead-letter-exchange": refused,
        }
        await channel.set_qos(prefetch_count=topology.batch)
        await self._make_exchange(channel)
        await self._make_queue_of_refused(channel, refused)
        queue = await self._made(
            f"the queue {name}",
            channel.declare_queue(name, durable=True, arguments=arguments),
        )
        for key in ("#",) if topology.events is None else topology.events:
            await queue.bind(topology.topic, key)
        return queue

    async def _make_queue_of_refused(self, channel: Channel, name: str) -> None:
        # Whoever may use the default exchange may write to the queues of all services.
        exchange = channel.declare_exchange(name, "fanout", durable=True, auto_delete=True)
        await self._made(f"the exchange {name}", exchange)
        queue = await self._made(f"the queue {name}", channel.declare_queue(name, durable=True))
        await queue.bind(name)

    async def _made(self, what: str, making: Awaitable[_Made]) -> _Made:
        try:
            return await making
        except ChannelClosed as error:
            raise TopologyError(
                f"{what} of {self.place} cannot be made as the bridge needs it: {error}. Delete "
                "it, give the bridge another topic or consumer, or let its user configure it"
            ) from error


class _Message:
    def __init__(self, message: AbstractIncomingMessage, queue: str, receiver: _Receiver) -> None:
        self.headers = _headers_of(message)
        self.body = message.body
        self.place = f"message {message.message_id!r} of the queue {queue}"
        self.deliveries = max(_deliveries_of(message), 1 + receiver.given_back(message))
        self._message = message
        self._receiver = receiver

    async def settle(self) -> None:
        await self._receiver.end(self._message, self._message.ack)

    async def refuse(self) -> None:
        await self._receiver.end(self._message, partial(self._message.reject, requeue=False))

    async def give_back(self, delay: float) -> None:
        self._receiver.give_back(self._message, delay)


class _Receiver:
    """A consumer of the queue."""

    def __init__(self, place: str, channel: Channel, queue: AbstractQueue) -> None:
        self._place = place
        self._channel = channel
        self._queue = queue
        self._consumers: Mapping[str, object] = {}
        self._tag = ""
        self._arrived: list[Message] = []
        self._news = asyncio.Event()
        self._given_back: list[tuple[float, AbstractIncomingMessage]] = []
        self._times: Counter[int] = Counter()
        """How often messages were given back, which a classic queue does not count."""
        self._is_lost = False

    async def begin(self) -> None:
        self._channel.close_callbacks.add(lambda *_: self._news.set())
        underlay: Any = await self._channel.get_underlay_channel()
        self._consumers = underlay.consumers
        self._tag = await self._queue.consume(self._receive)

    async def take(self) -> list[Message]:
        await self._requeue()
        if not self._arrived and not self._is_over():
            self._news.clear()
            await self._wait()
        if self._is_over():
            raise BrokerAwayError(f"{self._place} no longer delivers the queue {self._queue.name}")
        arrived, self._arrived = self._arrived, []
        return arrived

    async def end(
        self, message: AbstractIncomingMessage, send: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Send what RabbitMQ is to do with a message that does not come again."""
        if self._times:
            self._times.pop(_mark_of(message), None)
        await self._answer(send)

    async def _answer(self, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Send what RabbitMQ is to do with a message, unless the channel it came on is gone."""
        if self._is_over():
            return
        try:
            await within_patience(self._place, "taken an acknowledgement", send())
        except BrokerAwayError:  # the message is delivered again, and `take` says so
            self._is_lost = True

    def give_back(self, message: AbstractIncomingMessage, delay: float) -> None:
        """Requeue a message when it is due; if this receiver ends before, RabbitMQ does so."""
        self._times[_mark_of(message)] += 1
        self._given_back.append((monotonic() + delay, message))

    def given_back(self, message: AbstractIncomingMessage) -> int:
        """Return how often a message was given back since this receiver began."""
        return self._times[_mark_of(message)] if message.redelivered else 0

    async def _requeue(self) -> None:
        now = monotonic()
        due = [message for at, message in self._given_back if at <= now]
        self._given_back = [it for it in self._given_back if it[0] > now]
        for message in due:
            await self._answer(partial(message.nack, requeue=True))

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        self._arrived.append(_Message(message, self._queue.name, self))
        self._news.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_WAIT):
                await self._news.wait()
        except TimeoutError:
            pass

    def _is_over(self) -> bool:
        # The client drops a consumer that RabbitMQ has cancelled, as when the queue is deleted.
        return self._is_lost or self._channel.is_closed or self._tag not in self._consumers


def _mark_of(message: AbstractIncomingMessage) -> int:
    """Return by what to know a message when it is delivered again."""
    return hash((message.message_id, message.body))


def _headers_of(message: AbstractIncomingMessage) -> Mapping[str, str]:
    texts = ((name, _text_of(value)) for name, value in message.headers.items())
    headers = {name: text for name, text in texts if text is not None}
    if message.content_type:
        headers["content-type"] = message.content_type
    return headers


def _text_of(value: object) -> str | None:
    """Return the text of an attribute, as CloudEvents write it; None if there is none."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case int() | float() | Decimal():
            return str(value)
        case datetime():
            return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
        case bytes() | bytearray():
            return value.decode(errors="replace")
        case _:
            return None


def _deliveries_of(message: AbstractIncomingMessage) -> int:
    if not message.redelivered:
        return 1
    counted = message.headers.get("x-delivery-count")  # by a quorum queue: those before
    return counted + 1 if isinstance(counted, int) else 2
