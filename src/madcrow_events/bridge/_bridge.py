"""What an application declares: which events go out, and which come in."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from madcrow_events.bridge._carrying import Carrying
from madcrow_events.bridge._routes import Routes, meant_by, route_for
from madcrow_events.bridge._settings import check_settings
from madcrow_events.bridge._transport import Topology
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext
from madcrow_events.outbox import Outbox
from madcrow_events.outbox._ending import stopped_by_signals
from madcrow_events.outbox._linking import attach, companions_of
from madcrow_events.signals import EventSignal, SignalRegistry

if TYPE_CHECKING:
    from madcrow_events.bridge._routes import Route

__all__ = ["Bridge"]


class Bridge(Carrying):
    """Sends events of an outbox to other services, and takes in theirs, by a message broker.

    Workers of the outbox do the work: each has a connection to the broker as long as it runs. What
    goes out is sent by durable handlers, whose deliveries are settled when the broker has
    acknowledged the event. What comes in is written into the outbox, and acknowledged when that is
    committed. So retries, dead letters and order are those of the outbox.

    Args:
        outbox: the outbox. Without a database, a registry of signals, together with `inbox=None`.
        broker: a `NatsBroker`, `RedisBroker` or `RabbitBroker` of FastStream, which says where the
            broker is and how to sign in. Give each bridge one of its own, which the application
            does not start: a connection belongs to one event loop, and a bridge has its own loop.
        consumer: the name of this service: under it, the broker remembers what was received.
        inbox: `"outbox"` to take in by the outbox, each event once. None to call the ordinary
            handlers of this process directly: at least once, in no certain order, and a message
            whose handlers fail again and again is refused.
        topic: the name of the stream or exchange that all services share.
        lease: for how many seconds a message belongs to this process, before it is delivered to
            another one; NATS and Redis go by it.
        retention: how long messages are kept in a stream, of NATS or Redis.

    Attributes:
        consumer: the name of this service.
        outbox: the outbox, or None without one.
        signals: the registry of the events.

    Raises:
        InvalidOptionError: a value is impossible.
    """

    def __init__(
        self,
        outbox: Outbox | SignalRegistry,
        broker: Any,
        *,
        consumer: str,
        inbox: Literal["outbox"] | None = "outbox",
        topic: str = "madcrow_events",
        lease: float = 10.0,
        retention: timedelta = timedelta(days=7),
    ) -> None:
        check_settings(outbox, inbox, consumer, topic, lease, retention)
        super().__init__()
        self.consumer = consumer
        self.outbox: Outbox | None = outbox if isinstance(outbox, Outbox) else None
        self.signals: SignalRegistry = outbox.signals if isinstance(outbox, Outbox) else outbox
        source = outbox.source if isinstance(outbox, Outbox) else None
        self._inbox = inbox
        self._broker = broker
        self._topology = Topology(
            topic=topic, consumer=consumer, events=None, lease=lease, retention=retention
        )
        self._outgoing: list[Route] = []
        self._incoming = Routes(self.signals, source)
        self._stopped = threading.Event()
        self._transport()  # which refuses a broker that it does not know
        if self.outbox is not None:
            _check_alone(self.outbox, consumer)
            attach(self.outbox, self)

    # Declaring

    def outgoing(self, event: str | EventSignal[Any] | type[BaseEventContext]) -> None:
        """Send events to other services.

        Events that were taken in from others are not sent on. Declare it before a worker starts.

        Args:
            event: a name, a signal, a pattern such as `"order_*"`, or a context class. Events that
                this package declares itself go out by their names only.

        Raises:
            InvalidOptionError: the bridge has no outbox.
            MadcrowEventsError: there is no such event, or its contexts cannot be stored.
            RuntimeError: the bridge is at work already.
        """
        self._check_at_rest()
        if self.outbox is None:
            raise InvalidOptionError(
                "only an outbox can send: give the bridge one, as in Bridge(outbox, broker, …)",
                option="outbox",
            )
        self._outgoing.append(route_for(self.signals, event))
        self._prepare()

    def incoming(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext],
        *,
        sources: tuple[str, ...] | None = None,
    ) -> None:
        """Take in events of other services. Declare it before a worker starts.

        Args:
            event: a name, a signal, a pattern such as `"order_*"`, or a context class. Events that
                this package declares itself come in by their names only.
            sources: the sources from which they come in; None for all. Everybody who may publish
                can write any source, so let the broker say who may.

        Raises:
            InvalidOptionError: `sources` is no tuple of texts.
            MadcrowEventsError: there is no such event, or the pattern is malformed.
            RuntimeError: the bridge is at work already.
        """
        self._check_at_rest()
        given: object = sources
        if given is not None and not (
            isinstance(given, tuple) and given and all(isinstance(it, str) for it in given)
        ):
            raise InvalidOptionError(
                "sources must be a tuple of sources, such as ('/shop',), or None", option="sources"
            )
        allowed = None if sources is None else frozenset(sources)
        self._incoming.add(route_for(self.signals, event, allowed))

    def asyncapi(self, *, title: str = "Events", version: str = "1.0.0") -> dict[str, Any]:
        """Return what this service sends and takes in, as an AsyncAPI 3.0 document.

        It is ready for `json.dumps`. So first declare all events, and what goes out and comes in.

        - `servers` says where the broker is, without user, password and query.
        - Each event that goes out or comes in has a channel with its address at the broker: a
          subject of NATS, a routing key of RabbitMQ, whose exchange is in the bindings, or the
          stream of Redis.
        - The headers of its message are the attributes of CloudEvents. In Redis, they are in the
          payload, beside the `data`. Those that are required have all events that this package
          sends, or, of an event that comes in, all events of CloudEvents.
        - An operation has the sources of its events as `x-sources`; without, there may be any.
        - By a pattern, events come in that are not declared yet. The document has the patterns as
          `x-incoming-patterns`.

        The rest is as in `madcrow_events.catalog.asyncapi`, but for what an outbox writes: there
        are no computed fields, and names stand in the place of aliases. Of what comes in, unknown
        fields are dropped, also where the schema refuses them.

        Args:
            title: the name of the service, for people.
            version: the version of the events.

        Example:
            ```python
            from madcrow_events import BaseEventContext, SignalRegistry
            from madcrow_events.bridge import MemoryBridge, MemoryBroker
            from madcrow_events.outbox import Outbox


            class OrderPlaced(BaseEventContext):
                order_id: int


            signals = SignalRegistry()
            signals.signal("order_placed", context=OrderPlaced)
            bridge = MemoryBridge(Outbox("/shop", signals=signals), MemoryBroker(), consumer="shop")
            bridge.outgoing("order_placed")

            document = bridge.asyncapi(title="Shop")
            print(document["channels"]["order_placed"]["address"])
            print(document["operations"]["send_order_placed"]["x-sources"])
            print(document["components"]["messages"]["order_placed"]["headers"]["required"][:4])
            ```

            ```text
            madcrow_events
            ['/shop']
            ['ce-specversion', 'ce-id', 'ce-source', 'ce-type']
            ```
        """
        from madcrow_events.bridge._asyncapi import document_of_service  # which few need

        return document_of_service(
            self._broker,
            self._topology,
            None if self.outbox is None else self.outbox.source,
            meant_by(self.signals, self._outgoing),
            self._incoming,
            title=title,
            version=version,
        )

    # Without an outbox

    def run(self) -> None:
        """Receive until `stop` is called; in the main thread, also until SIGTERM or SIGINT comes.

        It is for a bridge without an outbox. One with an outbox works beside a `Worker`. It returns
        when the handlers that run have ended; a second signal ends the process.

        Raises:
            InvalidOptionError: the bridge has an outbox, or its broker is connected already.
            RuntimeError: the bridge is at work already.
            TopologyError: a stream, exchange or queue of the broker does not fit.
        """
        with stopped_by_signals(self._end), self:
            self._stopped.wait()
        self._stopped.clear()

    def _end(self) -> bool:
        self.stop()
        return True  # so that a second signal ends the process, where a handler never returns

    def stop(self) -> None:
        """Let `run` return, or the next one if none runs."""
        self._stopped.set()

    def __enter__(self) -> Self:
        """Receive in a thread, until the end of the `with`; as `run`, without an outbox."""
        if self.outbox is not None:
            raise InvalidOptionError(
                "a bridge with an outbox works beside its workers: write "
                "`with Worker(outbox, engine):`, or run `madcrow-events worker`",
                option="outbox",
            )
        self._join(None, _do_nothing)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(_do_nothing)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.consumer}>"


def _do_nothing() -> None:
    """Wake nobody: no worker is there."""


def _check_alone(outbox: Outbox, consumer: str) -> None:
    """Refuse a second bridge of a name: only one of them would send.

    Raises:
        InvalidOptionError: the outbox has one already.
    """
    if any(isinstance(it, Bridge) and it.consumer == consumer for it in companions_of(outbox)):
        raise InvalidOptionError(
            f"the outbox has a bridge of the consumer '{consumer}' already: declare its events "
            "there, or give this one another consumer",
            option="consumer",
        )
