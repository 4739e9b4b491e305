"""Redis Streams: one stream for all events, and a consumer group for each service.

What a consumer has not acknowledged is claimed by another one after the lease, when later messages
may have been taken in. So no order is promised.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from redis.exceptions import ResponseError

from madcrow_events.bridge._errors import BrokerAwayError, TopologyError
from madcrow_events.bridge._patience import away, begin, close, within_patience
from madcrow_events.bridge._transport import Message, Receiver, Topology, shown_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from faststream.redis import RedisBroker

    from madcrow_events.outbox import CloudEvent

__all__ = ["RedisTransport"]

_WAIT: Final = 1.0
"""For how many seconds to wait for messages."""
_WATCH_EVERY: Final = 1.0
"""After how many seconds to look whether the connection stands."""
_TRIM_EVERY: Final = 60.0
"""After how many seconds to remove what is older than the retention."""
_GONE_AFTER: Final = 3600.0
"""After how many seconds without a word a consumer is removed."""

_OF_FASTSTREAM: Final = b"__data__"
_BODIES: Final = (b"data", b"body", b"message")

_REMOVE: Final = """
for _, it in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending, idle = it[2], it[4], it[6]
  if pending == 0 and (name == ARGV[2] or idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
  end
end
"""
"""Removes consumers; in one step, because with a consumer goes what it was given meanwhile."""


class RedisTransport:
    """Publishes to a stream of Redis, and receives from it.

    Args:
        broker: the application's broker.
        topology: the names and durations.

    Attributes:
        place: what the broker is and where.
        is_connected: whether it answered when it was asked last.
    """

    def __init__(self, broker: RedisBroker, topology: Topology) -> None:
        self.place = f"Redis at {shown_url(broker.specification.url[0])}"
        self.is_connected = False
        self._broker = broker
        self._topology = topology
        self._client: Any = None
        self._waiting: list[tuple[CloudEvent, asyncio.Future[None]]] = []
        """The events to add, each with the future that its publisher awaits."""
        self._watching: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect, and look whether the stream is one.

        Raises:
            TopologyError: something else has its name.
            BrokerAwayError: Redis does not answer.
        """
        self.is_connected = False
        await within_patience(self.place, "answered", self._open())
        self.is_connected = True
        if self._watching is None:
            self._watching = begin(self._watch())

    async def publish(self, event: CloudEvent) -> None:
        """Add an event to the stream.

        Raises:
            BrokerAwayError: Redis has not acknowledged it.
        """
        added = asyncio.get_running_loop().create_future()
        self._waiting.append((event, added))
        if len(self._waiting) == 1:
            begin(self._add_all())  # together with what others publish now
        await added

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receiver]:
        """Make the consumer group if it is missing, and receive as a new consumer of it.

        Raises:
            TopologyError: something else has the name of the stream.
            BrokerAwayError: Redis does not answer.
        """
        receiver = _Receiver(self.place, self._client, self._broker, self._topology)
        await within_patience(self.place, "made the consumer group", self._make_group())
        await receiver.remove_idle()
        try:
            yield receiver
        finally:
            await receiver.end()

    async def close(self) -> None:
        """Close the connection, unless the application has started the broker for itself."""
        self.is_connected = False
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if not self._broker.running:
            await close(self.place, "closed the connection", self._broker.stop())
            self._broker._connection = None  # which it keeps if Redis was away

    async def _add_all(self) -> None:
        """Add what waits, in one round trip."""
        waiting, self._waiting = self._waiting, []
        adding = self._added([event for event, _ in waiting])
        try:
            answers = await within_patience(self.place, "acknowledged events", adding)
        except Exception as error:
            answers = [error for _ in waiting]
        for answer, (event, added) in zip(answers, waiting, strict=True):
            if added.done():
                continue  # who waited for it was cancelled
            if isinstance(answer, Exception):
                added.set_exception(away(self.place, f"acknowledged the event {event.id}", answer))
            else:
                added.set_result(None)

    async def _added(self, events: list[CloudEvent]) -> list[Any]:
        """Return what Redis answers for each event, or why it was not asked."""
        pipeline = self._client.pipeline(transaction=False)
        refused = [await self._add(event, pipeline) for event in events]
        answers = iter(await pipeline.execute(raise_on_error=False))
        return [next(answers) if error is None else error for error in refused]

    async def _add(self, event: CloudEvent, pipeline: Any) -> Exception | None:
        headers, body = event.structured()
        topic = self._topology.topic
        try:
            await self._broker.publish(body, stream=topic, headers=headers, pipeline=pipeline)
        except Exception as error:  # of a middleware
            return error
        return None

    async def _open(self) -> None:
        self._client = await self._broker.connect()
        await self._greet()
        await self._check()

    async def _greet(self) -> None:
        if not self.is_connected:  # connections that broke are still in the pool
            await self._client.connection_pool.disconnect(inuse_connections=False)
        await self._client.ping()

    async def _check(self) -> None:
        topic = self._topology.topic
        kind = await self._client.type(topic)
        if kind not in {b"none", b"stream"}:
            raise TopologyError(
                f"the key {topic} of {self.place} is a {kind.decode()} and no stream: delete it, "
                "or give the bridge another topic"
            )

    async def _make_group(self) -> None:
        await self._check()
        try:  # from 0, so that a new group hears what is retained
            await self._client.xgroup_create(
                self._topology.topic, self._topology.consumer, id="0", mkstream=True
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _watch(self) -> None:
        trim_at = 0.0
        while True:
            try:
                await within_patience(self.place, "answered", self._greet())
                self.is_connected = True
                if monotonic() >= trim_at:
                    await within_patience(self.place, "trimmed the stream", self._trim())
                    trim_at = monotonic() + _TRIM_EVERY
            except BrokerAwayError:
                self.is_connected = False
            await asyncio.sleep(_WATCH_EVERY)

    async def _trim(self) -> None:
        seconds, _ = await self._client.time()  # its own clock gives the entries their ids
        oldest = int((seconds - self._topology.retention.total_seconds()) * 1000)
        await self._client.xtrim(self._topology.topic, minid=max(0, oldest))


@dataclass(frozen=True, slots=True)
class _Message:
    headers: Mapping[str, str]
    body: bytes
    place: str
    deliveries: int
    _id: bytes
    _receiver: _Receiver

    async def settle(self) -> None:
        self._receiver.acknowledge(self._id)

    async def refuse(self) -> None:
        await self.settle()  # the entry stays in the stream until it is trimmed

    async def give_back(self, delay: float) -> None:  # noqa: ARG002  # it is claimed after the lease
        self._receiver.let_go(self._id)


class _Receiver:
    """A consumer of the group."""

    def __init__(self, place: str, client: Any, broker: RedisBroker, topology: Topology) -> None:
        self._place = place
        self._client = client
        self._parse = broker.message_format.parse
        self._topology = topology
        self._name = uuid4().hex
        self._held: set[bytes] = set()
        self._reading: asyncio.Task[list[Message]] | None = None
        self._claim_at = 0.0
        self._cursor = b"0-0"
        self._settled: list[bytes] = []
        self._acknowledging: asyncio.Task[None] | None = None
        self._is_lost = False

    async def take(self) -> list[Message]:
        # What is read belongs to this consumer, also if the caller is cancelled meanwhile.
        if self._reading is None:
            self._reading = begin(self._read())
        await asyncio.wait({self._reading})
        reading, self._reading = self._reading, None
        return reading.result()

    def acknowledge(self, entry: bytes) -> None:
        """Acknowledge an entry soon, together with others."""
        self.let_go(entry)
        self._settled.append(entry)
        if len(self._settled) == 1:
            self._acknowledging = begin(self._acknowledge_all())

    async def _acknowledge_all(self) -> None:
        topology = self._topology
        settled, self._settled = self._settled, []
        acknowledging = self._client.xack(topology.topic, topology.consumer, *settled)
        try:
            await within_patience(self._place, "taken an acknowledgement", acknowledging)
        except BrokerAwayError:  # they are delivered again, and `take` says so
            self._is_lost = True

    def let_go(self, entry: bytes) -> None:
        self._held.discard(entry)

    async def end(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._acknowledging is not None:
            await asyncio.wait({self._acknowledging})
        await self.remove_idle()

    async def remove_idle(self) -> None:
        """Remove this consumer and those that are gone, except with messages to be claimed."""
        topology, idle = self._topology, str(int(_GONE_AFTER * 1000))
        removing = self._client.eval(
            _REMOVE, 1, topology.topic, topology.consumer, self._name, idle
        )
        await close(self._place, "removed consumers that are gone", removing)

    async def _read(self) -> list[Message]:
        if self._is_lost:
            raise BrokerAwayError(f"{self._place} has not taken an acknowledgement")
        room = self._topology.batch - len(self._held)
        if room <= 0:
            await asyncio.sleep(_WAIT)
            return []
        if monotonic() >= self._claim_at and (claimed := await self._claim(room)):
            return claimed
        return await self._read_new(room)

    async def _read_new(self, room: int) -> list[Message]:
        topology = self._topology
        reading = self._client.xreadgroup(
            topology.consumer,
            self._name,
            {topology.topic: ">"},
            count=room,
            block=int(_WAIT * 1000),
        )
        answer = await within_patience(self._place, "delivered messages", reading)
        return [self._message(entry, fields, 1) for entry, fields in _entries_of(answer)]

    async def _claim(self, room: int) -> list[Message]:
        topology = self._topology
        claiming = self._client.xautoclaim(
            topology.topic,
            topology.consumer,
            self._name,
            int(topology.lease * 1000),
            self._cursor,
            count=room,
        )
        answer = await within_patience(self._place, "delivered messages again", claiming)
        self._cursor, claimed, *_ = answer
        if self._cursor == b"0-0":
            self._claim_at = monotonic() + topology.lease / 2
        entries = [it for it in claimed if it[0] is not None]  # None was trimmed, in Redis 6
        if not entries:
            return []
        counting = self._count_deliveries([entry for entry, _ in entries])
        counts = await within_patience(self._place, "counted deliveries", counting)
        return [self._message(entry, fields, counts.get(entry, 2)) for entry, fields in entries]

    async def _count_deliveries(self, entries: list[bytes]) -> dict[bytes, int]:
        pending = await self._client.xpending_range(
            self._topology.topic,
            self._topology.consumer,
            min=entries[0],
            max=entries[-1],
            count=len(entries),
            consumername=self._name,
        )
        return {it["message_id"]: it["times_delivered"] for it in pending}

    def _message(self, entry: bytes, fields: dict[bytes, bytes], deliveries: int) -> Message:
        self._held.add(entry)
        headers, body = self._content_of(fields)
        place = f"message {entry.decode()} of the stream {self._topology.topic}"
        return _Message(headers, body, place, deliveries, entry, self)

    def _content_of(self, fields: dict[bytes, bytes]) -> tuple[Mapping[str, str], bytes]:
        if _OF_FASTSTREAM in fields:
            return self._parsed(fields[_OF_FASTSTREAM])
        if len(fields) == 1:
            [body] = fields.values()
            return {}, body
        others = dict(fields)
        bodies = [others.pop(name) for name in _BODIES if name in others]
        headers = {_text(name): _text(value) for name, value in others.items()}
        return headers, b"".join(bodies[:1])

    def _parsed(self, entry: bytes) -> tuple[Mapping[str, str], bytes]:
        try:
            body, given = self._parse(entry)
            return {str(name): str(value) for name, value in given.items()}, body
        except Exception:  # whatever it is, it is refused, and must not hold up the others
            return {}, entry


def _entries_of(answer: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of the stream that was read; in RESP3 they stand one level deeper."""
    if isinstance(answer, dict):
        return [it for parts in answer.values() for part in parts for it in part]
    return [it for _, entries in answer for it in entries]


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
