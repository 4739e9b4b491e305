"""NATS with JetStream.

A durable push consumer has one subscriber at a time, whom the server chooses: so the order holds
with any number of processes, and the others stand by. What was delivered and not acknowledged is
delivered again when its lease is over, and what is newer may come before. So after the connection
broke, and after another process ended without acknowledging, nothing is taken until all such
leases are over. The server then delivers it first, but not always in its order.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    SequenceInfo,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, BadRequestError, NotFoundError
from nats.js.errors import Error as JetStreamError

from madcrow_events.bridge._errors import BrokerAwayError, MessageTooLargeError, TopologyError
from madcrow_events.bridge._nats_receiver import Left, NatsReceiver
from madcrow_events.bridge._patience import PATIENCE, away, close, within_patience
from madcrow_events.bridge._transport import shown_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from faststream.nats import NatsBroker
    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import ConsumerInfo

    from madcrow_events.bridge._transport import Topology
    from madcrow_events.outbox import CloudEvent

__all__ = ["NatsTransport"]

_WATCH_EVERY: Final = 0.05
"""After how many seconds to see whether the client has connected again."""
_TAKE_OVER_EVERY: Final = 0.5
"""After how many seconds a process that stands by asks whether it may receive."""
_OF_FASTSTREAM: Final = 256
"""How many bytes of headers FastStream adds at most, such as a correlation id."""
_TOO_LARGE: Final = 10054
"""By which number the server says that a message is larger than its stream allows."""
_MARGIN: Final = 0.5
"""How many seconds longer than a lease to wait, for the server looks only now and then."""


class NatsTransport:
    """Carries events by a stream of NATS JetStream.

    Args:
        broker: the broker of the application.
        topology: the names of the service.
    """

    def __init__(self, broker: NatsBroker, topology: Topology) -> None:
        self._broker = broker
        self._topology = topology
        self._client: Client | None = None

    @property
    def place(self) -> str:
        """What the broker is and where, without a password."""
        servers = self._broker.specification.url
        return f"NATS at {', '.join(shown_url(it) for it in servers)}"

    @property
    def is_connected(self) -> bool:
        """Whether messages can be published now, as far as is known."""
        client = self._client
        return client is not None and client.is_connected

    async def connect(self) -> None:
        """Connect, and make the stream if it is missing.

        Raises:
            TopologyError: the stream does not fit.
            Exception: the server cannot be reached.
        """
        if self._client is not None and self._client.is_closed:
            await self.close()  # after the client has given up, it never tries again
        await within_patience(self.place, "answered", self._open())

    async def _open(self) -> None:
        self._client = client = await self._broker.connect()
        while not client.is_connected:  # noqa: ASYNC110  # it tries again by itself
            await asyncio.sleep(_WATCH_EVERY)
        await self._make_stream(client.jetstream(timeout=PATIENCE))

    async def close(self) -> None:
        """Close the connection, unless the application has started the broker for itself."""
        client, self._client = self._client, None
        if self._broker.running:
            return
        if client is not None:
            # FastStream would drain it, which cannot be given up while the server says nothing.
            self._broker._connection = None
            await close(self.place, "closed the connection", client.close())
        await self._broker.stop()

    async def publish(self, event: CloudEvent) -> None:
        """Publish an event, and wait until the stream has stored it.

        Raises:
            MessageTooLargeError: the server takes no message of this size.
            Exception: the server is away, or has not acknowledged it.
        """
        client = self._client
        if client is None or not client.is_connected:
            raise BrokerAwayError(f"{self.place} is away, so the event {event.id} is not sent")
        headers, body = event.binary()
        # Within two minutes, the stream itself leaves out what is sent again.
        headers["Nats-Msg-Id"] = f"{event.source} {event.id}".encode().hex()
        # The server counts the headers, too, and closes the connection if there is too much.
        size = len(body) + _size_of(headers)
        if size > (largest := client.max_payload):
            raise MessageTooLargeError(
                f"the event has {size:,} bytes with its headers, and NATS allows {largest:,}: "
                "store what is large elsewhere, or raise max_payload of the server"
            )
        try:
            await self._broker.publish(
                body,
                f"{self._topology.topic}.{event.type}",
                headers=headers,
                stream=self._topology.topic,
                timeout=PATIENCE,
            )
        except Exception as error:  # of the client, or of a middleware
            if isinstance(error, APIError) and error.err_code == _TOO_LARGE:
                raise MessageTooLargeError(
                    f"the event has {size:,} bytes with its headers, and the stream "
                    f"{self._topology.topic} allows fewer: store what is large elsewhere, or raise "
                    "max_msg_size of the stream"
                ) from None
            raise away(self.place, f"acknowledged the event {event.id}", error) from error

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[NatsReceiver]:
        """Make the consumer if it is missing, and receive, as the only one.

        Raises:
            TopologyError: the consumer does not fit.
            Exception: the server cannot be reached.
        """
        client = self._client
        if client is None:
            raise BrokerAwayError(f"{self.place} cannot be reached now")
        context = client.jetstream(timeout=PATIENCE)
        await self._make_stream(context)
        receiver = NatsReceiver(client, context, self._topology)
        subscription = None
        while subscription is None:
            receiver.left = await self._stand_by(context)
            receiver.reconnects = client.stats["reconnects"]
            subscription = await self._subscribe(context, receiver)
        holding = asyncio.create_task(receiver.hold())
        try:
            yield receiver
        except Exception:
            await _wait_for_connection(client)
            raise
        finally:
            holding.cancel()
            await asyncio.wait({holding})
            if not client.is_closed:  # or the client would subscribe again when it is back
                await subscription.unsubscribe()

    async def _make_stream(self, context: JetStreamContext) -> None:
        topic = self._topology.topic
        try:
            info = await context.stream_info(topic)
        except NotFoundError:
            await self._add_stream(context)
            return
        config = info.config
        problem = None
        if f"{topic}.>" not in (config.subjects or ()):
            problem = f"does not take the subjects {topic}.>"
        elif config.retention not in (None, RetentionPolicy.LIMITS):
            problem = "removes what one service has acknowledged, before others have it"
        elif config.storage != StorageType.FILE:
            problem = "is in memory, and is lost with its server"
        elif config.no_ack:
            problem = "acknowledges nothing"
        if problem is not None:
            raise TopologyError(
                f"the stream {topic} of {self.place} {problem}: give the bridge another topic, or "
                f"make the stream anew with the subjects {topic}.>, limits retention and file "
                "storage"
            )

    async def _add_stream(self, context: JetStreamContext) -> None:
        topology = self._topology
        config = StreamConfig(
            name=topology.topic,
            subjects=[f"{topology.topic}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_age=topology.retention.total_seconds(),
        )
        try:
            await context.add_stream(config)
        except (APIError, BadRequestError) as error:
            raise TopologyError(
                f"the stream {topology.topic} of {self.place} cannot be made "
                f"({error.description}): give the bridge another topic, or let an administrator "
                "make the stream"
            ) from None

    async def _stand_by(self, context: JetStreamContext) -> Left:
        """Wait as long as another process receives, and until what it has left is due again.

        Returns:
            What it has left.
        """
        seen = None
        while (info := await self._consumer(context)) is not None:
            self._check_consumer(info.config)
            delivered = info.delivered or SequenceInfo(0, 0)
            if info.push_bound:
                seen = None
                await asyncio.sleep(_TAKE_OVER_EVERY)
            elif not info.num_ack_pending or seen == delivered.consumer_seq:
                return Left(info.num_ack_pending or 0, delivered.stream_seq)
            else:
                seen = delivered.consumer_seq
                lease = info.config.ack_wait or self._topology.lease
                await asyncio.sleep(lease + _MARGIN)
        return Left(0, 0)

    async def _consumer(self, context: JetStreamContext) -> ConsumerInfo | None:
        try:
            info: ConsumerInfo = await context.consumer_info(
                self._topology.topic, self._topology.consumer
            )
        except NotFoundError:
            return None
        return info

    def _check_consumer(self, config: ConsumerConfig) -> None:
        problem = None
        if config.deliver_subject is None:
            problem = "is pulled, and not pushed"
        elif config.ack_policy != AckPolicy.EXPLICIT:
            problem = "does not wait for each message to be acknowledged"
        elif config.filter_subject not in (None, "", f"{self._topology.topic}.>"):
            problem = "leaves some of the subjects out"
        elif config.max_deliver not in (None, -1):
            problem = "gives messages up after some deliveries"
        if problem is not None:
            raise TopologyError(
                f"the consumer {self._topology.consumer} of the stream {self._topology.topic} "
                f"{problem}: delete it, so that the bridge makes it anew, or give the bridge "
                "another name"
            )

    async def _subscribe(self, context: JetStreamContext, receiver: NatsReceiver) -> Any:
        """Return a subscription; None if another process was faster."""
        topology = self._topology
        try:
            subscription = await context.subscribe(
                f"{topology.topic}.>",
                stream=topology.topic,
                durable=topology.consumer,
                cb=receiver.put,
                manual_ack=True,
                config=ConsumerConfig(
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=topology.lease,
                    deliver_policy=DeliverPolicy.ALL,
                    max_ack_pending=topology.batch,
                ),
            )
        except JetStreamError as error:
            if "already bound" in str(error):
                return None
            raise
        # Else the client drops messages that look like the server's own signs of life, and anybody
        # may publish those. They would come again for ever, and take the place of others.
        received = subscription._sub
        received._jsi = None
        return received


def _size_of(headers: Mapping[str, str]) -> int:
    """Return how many bytes headers have at most, with those that FastStream adds."""
    return _OF_FASTSTREAM + sum(len(f"{name}: {text}\r\n") for name, text in headers.items())


async def _wait_for_connection(client: Client) -> None:
    """Wait until a client has connected again, or has given up.

    Until then, it subscribes anew, too, and does not tell the server if it should not.
    """
    while not (client.is_connected or client.is_closed):  # noqa: ASYNC110  # it says nothing
        await asyncio.sleep(_WATCH_EVERY)
