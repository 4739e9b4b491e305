"""What an application declares: which events go out, and which come in."""

from __future__ import annotations

import re
import signal as signals
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from madcrow_events._waiters import check_seconds
from madcrow_events.bridge._brokers import transport_for
from madcrow_events.bridge._direct import DirectIntake
from madcrow_events.bridge._errors import MessageTooLargeError
from madcrow_events.bridge._intake import Intake, OutboxIntake, StoringIntake
from madcrow_events.bridge._relay import Parcel
from madcrow_events.bridge._routes import Routes, meant_by, route_for
from madcrow_events.bridge._station import Published, Station
from madcrow_events.bridge._transport import Topology, Transport
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext
from madcrow_events.outbox import InvalidCloudEventError, Outbox, Retry
from madcrow_events.outbox._linking import attach, companions_of, declare_carried
from madcrow_events.signals import EventSignal, SignalRegistry

if TYPE_CHECKING:
    from madcrow_events.bridge._routes import Route
    from madcrow_events.outbox import CloudEvent
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._rows import Claimed

__all__ = ["Bridge"]

_RETRY = Retry(
    attempts=1_000_000_000,  # the broker may be away for long
    wait_initial=0.2,
    wait_max=30.0,
    wait_jitter=0.2,
    give_up_on=(MessageTooLargeError, InvalidCloudEventError),
)


class Bridge:
    """Sends events of an outbox to other services, and takes in theirs, by a message broker.

    Workers of the outbox do the work: each has a connection to the broker as long as it runs. What
    goes out is sent by durable handlers, whose deliveries are settled when the broker has
    acknowledged the event. What comes in is written into the outbox, and acknowledged when that is
    committed. So retries, dead letters and order are those of the outbox.

    Args:
        outbox: the outbox. Without a database, a registry of signals, together with `inbox=None`.
        broker: a `NatsBroker`, `RedisBroker` or `RabbitBroker` of FastStream, which says where the
            broker is and how to sign in. Its own subscribers are not started.
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
        _check(outbox, inbox, consumer, topic, lease, retention)
        self.consumer = consumer
        self.outbox = outbox if isinstance(outbox, Outbox) else None
        self.signals = outbox.signals if isinstance(outbox, Outbox) else outbox
        source = outbox.source if isinstance(outbox, Outbox) else None
        self._inbox = inbox
        self._broker = broker
        self._topology = Topology(
            topic=topic, consumer=consumer, events=None, lease=lease, retention=retention
        )
        self._outgoing: list[Route] = []
        self._incoming = Routes(self.signals, source)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._wakes: list[Callable[[], None]] = []
        self._station: Station | None = None
        self._intake: Intake | None = None
        self._transport()  # which refuses a broker that it does not know
        if self.outbox is not None:
            _check_alone(self.outbox, consumer)
            attach(self.outbox, self)

    # Declaring

    def outgoing(self, event: str | EventSignal[Any] | type[BaseEventContext]) -> None:
        """Send events to other services.

        Events that were taken in from others are not sent on.

        Args:
            event: a name, a signal, a pattern such as `"order_*"`, or a context class. Events that
                this package declares itself go out by their names only.

        Raises:
            InvalidOptionError: the bridge has no outbox.
            MadcrowEventsError: there is no such event, or its contexts cannot be stored.
        """
        if self.outbox is None:
            raise InvalidOptionError(
                "only an outbox can send: give the bridge one, as in Bridge(outbox, broker, …)",
                option="outbox",
            )
        self._outgoing.append(route_for(self.signals, event))
        self.prepare()

    def incoming(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext],
        *,
        sources: tuple[str, ...] | None = None,
    ) -> None:
        """Take in events of other services.

        Args:
            event: a name, a signal, a pattern such as `"order_*"`, or a context class. Events that
                this package declares itself come in by their names only.
            sources: the sources from which they come in; None for all. Everybody who may publish
                can write any source, so let the broker say who may.

        Raises:
            InvalidOptionError: `sources` is no tuple of texts.
            MadcrowEventsError: there is no such event, or the pattern is malformed.
        """
        given: object = sources
        if given is not None and not (
            isinstance(given, tuple) and given and all(isinstance(it, str) for it in given)
        ):
            raise InvalidOptionError(
                "sources must be a tuple of sources, such as ('/shop',), or None", option="sources"
            )
        allowed = None if sources is None else frozenset(sources)
        self._incoming.add(route_for(self.signals, event, allowed))

    # Without an outbox

    def run(self) -> None:
        """Receive until `stop` is called; in the main thread, also until SIGTERM or SIGINT comes.

        It is for a bridge without an outbox. One with an outbox works beside a `Worker`.

        Raises:
            InvalidOptionError: the bridge has an outbox.
            RuntimeError: the bridge is at work already.
            TopologyError: a stream, exchange or queue of the broker does not fit.
        """
        with stopped_by_signals(self.stop), self:
            self._stopped.wait()
        self._stopped.clear()

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

    # As a companion of an outbox

    def prepare(self) -> None:
        """Declare the durable handlers that send the events which go out."""
        outbox = self.outbox
        if outbox is None:
            return
        for signal in meant_by(self.signals, self._outgoing):
            declare_carried(
                outbox,
                signal,
                id=self._name_for(signal.name),
                formerly=tuple(self._name_for(it) for it in signal.formerly),
                retry=_RETRY,
                is_ready=self._is_ready,
                carry=self._carry,
            )

    def _name_for(self, event: str) -> str:
        return f"bridge:{self.consumer}:{event}"

    @contextmanager
    def working(self, engine: Any, wake: Callable[[], None]) -> Iterator[None]:
        """Be connected to the broker, and take in, as long as a worker works."""
        self._join(engine, wake)
        try:
            yield
        finally:
            self._leave(wake)

    def drain(self, access: Access) -> int:  # noqa: ARG002  # of a bridge in memory
        """Take in nothing: what comes from a broker comes when it comes."""
        return 0

    # Working

    def _is_ready(self) -> bool:
        station = self._station
        return station is not None and station.is_ready

    def _carry(
        self, runs: Sequence[Sequence[Claimed]]
    ) -> Sequence[tuple[int, BaseException | None]]:
        """Send the events of deliveries, and return when the broker has acknowledged them."""
        assert self.outbox is not None  # noqa: S101  # its worker calls this
        parcels = [Parcel(self.outbox, run) for run in runs]
        outcomes = self._publish([it.events for it in parcels])
        return [it.outcome(published) for it, published in zip(parcels, outcomes, strict=True)]

    def _publish(self, lanes: Sequence[Sequence[CloudEvent]]) -> Sequence[Published]:
        station = self._station
        return [Published() for _ in lanes] if station is None else station.publish(lanes)

    def _join(self, engine: Any, wake: Callable[[], None]) -> None:
        """Start to work, or work for one more worker."""
        with self._lock:
            if self._station is None:
                intake = self._make_intake(engine)
                station = Station(self._transport(), intake, self.consumer, self._wake)
                try:
                    station.start()
                except BaseException:
                    _close(intake)
                    raise
                self._station, self._intake = station, intake
            elif engine is None:
                raise RuntimeError("this bridge is at work already: make another one")
            self._wakes.append(wake)

    def _leave(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._wakes.remove(wake)
            station, intake = self._station, self._intake
            if station is None or self._wakes:
                return
            self._station = self._intake = None
            station.stop()
            _close(intake)

    def _wake(self) -> None:
        for wake in tuple(self._wakes):
            wake()

    def _make_intake(self, engine: Any) -> Intake | None:
        if not self._incoming:
            return None
        if self.outbox is None or self._inbox is None:
            return DirectIntake(self.signals, self._incoming, self.consumer)
        return StoringIntake(OutboxIntake(self.outbox, self._incoming, self.consumer), engine)

    def _transport(self) -> Transport:
        topology = replace(self._topology, events=self._incoming.names)
        return transport_for(self._broker, topology)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.consumer}>"


def _close(intake: Intake | None) -> None:
    if isinstance(intake, StoringIntake):
        intake.close()


def _do_nothing() -> None:
    """Wake nobody: no worker is there."""


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call a function when SIGTERM or SIGINT comes, in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ends = (signals.SIGTERM, signals.SIGINT)
    before = {it: signals.signal(it, lambda *_: stop()) for it in ends}
    try:
        yield
    finally:
        for it, handler in before.items():
            signals.signal(it, handler)


def _check(
    outbox: object,
    inbox: object,
    consumer: object,
    topic: object,
    lease: object,
    retention: object,
) -> None:
    """Refuse what a bridge cannot be made with.

    Raises:
        InvalidOptionError: a value is impossible.
    """
    if not isinstance(outbox, Outbox | SignalRegistry):
        raise InvalidOptionError(
            "the first argument must be an Outbox, or, with inbox=None, a SignalRegistry",
            option="outbox",
        )
    if not isinstance(outbox, Outbox) and inbox is not None:
        raise InvalidOptionError(
            "without an outbox, events are handled at least once, and not once: say so by "
            "inbox=None, or give the bridge an Outbox",
            option="inbox",
        )
    if inbox not in ("outbox", None):
        raise InvalidOptionError("inbox must be 'outbox' or None", option="inbox")
    for option, name in (("consumer", consumer), ("topic", topic)):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidOptionError(
                f"{option} must be a text of up to 64 letters, digits, '_' and '-', such as "
                "'shipping'",
                option=option,
            )
    check_seconds("lease", lease)
    if lease is None:
        raise InvalidOptionError("lease must be a number of seconds, such as 10.0", option="lease")
    if not isinstance(retention, timedelta) or retention <= timedelta(0):
        raise InvalidOptionError(
            "retention must be a timedelta above 0, such as timedelta(days=7)", option="retention"
        )


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


_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
