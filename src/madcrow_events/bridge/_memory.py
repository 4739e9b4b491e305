"""A broker in the memory of this process, for tests and for services that share a process."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from madcrow_events.bridge._bridge import Bridge
from madcrow_events.bridge._intake import OutboxIntake, settle
from madcrow_events.bridge._station import Published
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from madcrow_events.bridge._transport import Message, Topology
    from madcrow_events.outbox import CloudEvent
    from madcrow_events.outbox._database import Access

__all__ = ["MemoryBridge", "MemoryBroker", "MemoryTransport"]

_WAIT: Final = 1.0
"""For how many seconds a receiver waits for a message."""


class MemoryBroker:
    """A broker in memory, which carries events between the services of one process.

    A service hears what is published after the first `incoming` of its `MemoryBridge`.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], _Queue] = {}

    def publish(self, topic: str, headers: Mapping[str, str], body: bytes) -> None:
        """Publish a message, as any other producer would.

        Args:
            topic: the topic.
            headers: the headers, such as those of a CloudEvent.
            body: the body.
        """
        for (its_topic, _), queue in tuple(self._queues.items()):
            if its_topic == topic:
                queue.put(headers, body)

    def _queue_of(self, topology: Topology) -> _Queue:
        key = topology.topic, topology.consumer
        return self._queues.setdefault(key, _Queue(topology.consumer))


class _Queue:
    """The messages of one consumer."""

    def __init__(self, consumer: str) -> None:
        self._consumer = consumer
        self._lock = threading.Lock()
        self._waiting: deque[_Message] = deque()
        self._taken: dict[int, _Message] = {}
        self._count = 0
        self.notify: Callable[[], None] = _do_nothing
        """Called when there is something to take."""

    def put(self, headers: Mapping[str, str], body: bytes) -> None:
        """Add a message."""
        with self._lock:
            self._count += 1
            place = f"message {self._count} of the queue {self._consumer}"
            self._waiting.append(_Message(dict(headers), bytes(body), place, self._count, self))
        self.notify()

    def take(self, most: int) -> list[_Message]:
        """Take messages, in their order."""
        with self._lock:
            number = max(0, min(most - len(self._taken), len(self._waiting)))
            taken = [self._waiting.popleft() for _ in range(number)]
            self._taken.update((it.number, it) for it in taken)
        for it in taken:
            it.deliveries += 1
        return taken

    def forget(self, message: _Message) -> None:
        """Forget a message that was taken."""
        with self._lock:
            self._taken.pop(message.number, None)

    def give_back(self, *messages: _Message) -> None:
        """Put messages back to the front, if they are still taken."""
        with self._lock:
            self._waiting.extendleft(reversed(self._no_longer_taken(messages)))
        self.notify()

    def _no_longer_taken(self, messages: Iterable[_Message]) -> list[_Message]:
        return [it for it in messages if self._taken.pop(it.number, None) is not None]

    def give_back_all(self) -> None:
        """Put back all that was taken."""
        self.give_back(*self._taken.values())


def _do_nothing() -> None:
    """Notify nobody."""


@dataclass(eq=False)
class _Message:
    headers: Mapping[str, str]
    body: bytes
    place: str
    number: int
    queue: _Queue
    deliveries: int = 0

    async def settle(self) -> None:
        self.queue.forget(self)

    async def refuse(self) -> None:
        self.queue.forget(self)

    async def give_back(self, delay: float) -> None:
        asyncio.get_running_loop().call_later(delay, self.queue.give_back, self)


class MemoryTransport:
    """Carries events by a broker in memory.

    Args:
        broker: the broker.
        topology: the names of the service.
    """

    place = "the broker in memory"
    is_connected = True

    def __init__(self, broker: MemoryBroker, topology: Topology) -> None:
        self._broker = broker
        self._topology = topology

    async def connect(self) -> None:
        """Do nothing: a broker in memory is there."""

    async def close(self) -> None:
        """Do nothing."""

    async def publish(self, event: CloudEvent) -> None:
        """Publish an event."""
        self._broker.publish(self._topology.topic, *event.binary())

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[_Receiver]:
        """Receive; what was not settled at the end is delivered again."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()
        queue = self._broker._queue_of(self._topology)
        queue.notify = lambda: _set(loop, arrived)
        try:
            yield _Receiver(queue, arrived, self._topology.batch)
        finally:
            queue.notify = _do_nothing
            queue.give_back_all()


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # the loop has ended since
        pass


class _Receiver:
    def __init__(self, queue: _Queue, arrived: asyncio.Event, batch: int) -> None:
        self._queue = queue
        self._arrived = arrived
        self._batch = batch

    async def take(self) -> list[Message]:
        self._arrived.clear()
        taken: list[Message] = [*self._queue.take(self._batch)]
        if not taken:
            try:
                async with asyncio.timeout(_WAIT):
                    await self._arrived.wait()
            except TimeoutError:
                pass
        return taken


class MemoryBridge(Bridge):
    """A `Bridge` without a broker, for tests, and for services that share a process.

    It keeps the promises of `Bridge`, as long as the process lives. In a test, `drain_outbox` sends
    what goes out, and takes in what has come.

    Args:
        outbox: as for `Bridge`.
        broker: the broker in memory that the services share.
        consumer: as for `Bridge`.
        options: the other arguments of `Bridge`.

    Raises:
        InvalidOptionError: a value is impossible.

    Example:
        ```python
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        from madcrow_events import BaseEventContext, SignalRegistry
        from madcrow_events.bridge import MemoryBridge, MemoryBroker
        from madcrow_events.outbox import Outbox
        from madcrow_events.testing import drain_outbox


        class OrderPlaced(BaseEventContext):
            order_id: int


        broker = MemoryBroker()
        shop, shipping = [
            Outbox(source, signals=SignalRegistry()) for source in ("/shop", "/shipping")
        ]
        for outbox in (shop, shipping):
            outbox.signals.signal("order_placed", context=OrderPlaced)
        MemoryBridge(shop, broker, consumer="shop").outgoing("order_placed")
        MemoryBridge(shipping, broker, consumer="shipping").incoming("order_placed")


        @shipping.on("order_placed", id="pack")
        def pack(context: OrderPlaced) -> None:
            print("pack order", context.order_id)


        engines = {outbox: create_engine("sqlite://") for outbox in (shop, shipping)}
        for outbox, engine in engines.items():
            outbox.metadata.create_all(engine)
        with Session(engines[shop]) as session:
            shop.emit(session, OrderPlaced(order_id=7))
            session.commit()
        drain_outbox(shop, engines[shop])
        drain_outbox(shipping, engines[shipping])
        for engine in engines.values():
            engine.dispose()
        ```

        ```text
        pack order 7
        ```
    """

    def __init__(self, outbox: Any, broker: MemoryBroker, *, consumer: str, **options: Any) -> None:
        if not isinstance(broker, MemoryBroker):
            raise InvalidOptionError(
                "broker must be a MemoryBroker, which the services of this process share: for a "
                "broker of FastStream, write Bridge",
                option="broker",
            )
        super().__init__(outbox, broker, consumer=consumer, **options)
        self._memory = broker

    def incoming(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext],
        *,
        sources: tuple[str, ...] | None = None,
    ) -> None:
        """Take in events of other services, of those that are published from now on.

        Args:
            event: as for `Bridge.incoming`.
            sources: as for `Bridge.incoming`.

        Raises:
            InvalidOptionError: as for `Bridge.incoming`.
            MadcrowEventsError: as for `Bridge.incoming`.
        """
        super().incoming(event, sources=sources)
        self._memory._queue_of(self._topology)

    def _drain(self, access: Access) -> int:
        """Take in what has come, in this thread, and return how many messages it was."""
        if self.outbox is None or self._inbox is None or not self._incoming:
            return 0
        queue = self._memory._queue_of(self._topology)
        intake = OutboxIntake(self.outbox, self._incoming, self.consumer)
        number = 0
        while messages := queue.take(self._topology.batch):
            number += len(messages)
            _take_in(messages, queue, intake, access)
        return number

    def _is_ready(self) -> bool:
        return True

    def _publish(self, lanes: Sequence[Sequence[CloudEvent]]) -> Sequence[Published]:
        for lane in lanes:
            for event in lane:
                self._memory.publish(self._topology.topic, *event.binary())
        return [Published(len(lane)) for lane in lanes]


def _take_in(messages: list[_Message], queue: _Queue, intake: OutboxIntake, access: Access) -> None:
    try:
        refusals = intake.store(messages, access)
    except BaseException:
        queue.give_back(*messages)
        raise
    _finish(settle(messages, refusals, intake.consumer))


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that awaits nothing, also where an event loop runs."""
    try:
        coroutine.send(None)
    except StopIteration:
        pass
