"""What a bridge does beside the workers of its outbox: it sends, and takes in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from madcrow_events._forks import renew_after_fork
from madcrow_events._logs import log
from madcrow_events.bridge._brokers import check_unused, transport_for
from madcrow_events.bridge._direct import DirectIntake
from madcrow_events.bridge._errors import MessageTooLargeError
from madcrow_events.bridge._intake import Intake, OutboxIntake, StoringIntake
from madcrow_events.bridge._relay import Parcel
from madcrow_events.bridge._routes import Route, Routes, meant_by, without_event
from madcrow_events.bridge._station import Published, Station
from madcrow_events.bridge._transport import Topology, Transport
from madcrow_events.outbox import InvalidCloudEventError, Outbox, Retry
from madcrow_events.outbox._linking import declare_carried
from madcrow_events.signals import SignalRegistry

if TYPE_CHECKING:
    from madcrow_events.outbox import CloudEvent
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._rows import Claimed

__all__ = ["Carrying"]

_RETRY = Retry(
    attempts=1_000_000_000,  # the broker may be away for long
    wait_initial=0.2,
    wait_max=30.0,
    wait_jitter=0.2,
    give_up_on=(MessageTooLargeError, InvalidCloudEventError),
)


class Carrying:
    """The part of `Bridge` that works beside the workers of an outbox, as its companion."""

    consumer: str
    outbox: Outbox | None
    signals: SignalRegistry
    _broker: Any
    _inbox: Literal["outbox"] | None
    _incoming: Routes
    _outgoing: list[Route]
    _topology: Topology

    def __init__(self) -> None:
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        """Be at work for nobody: the thread of the parent process is not here."""
        self._lock = threading.Lock()
        self._wakes: list[Callable[[], None]] = []
        self._station: Station | None = None
        self._intake: Intake | None = None

    def _prepare(self) -> None:
        """Declare the durable handlers that send the events which go out."""
        outbox = self.outbox
        assert outbox is not None  # noqa: S101  # it calls this, or `outgoing` has asked
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
    def _working(self, engine: Any, wake: Callable[[], None]) -> Iterator[None]:
        """Be connected to the broker, and take in, as long as a worker works."""
        self._join(engine, wake)
        try:
            yield
        finally:
            self._leave(wake)

    def _drain(self, access: Access) -> int:  # noqa: ARG002  # of a bridge in memory
        """Take in nothing: what comes from a broker comes when it comes."""
        return 0

    def _is_idle(self) -> bool:
        """Whether nothing comes in just now."""
        station = self._station
        return station is None or station.is_idle

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
                check_unused(self._broker)
                self._tell_what_does_nothing()
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

    def _check_at_rest(self) -> None:
        """Refuse to declare what would do nothing before the next start.

        Raises:
            RuntimeError: the bridge is at work.
        """
        with self._lock:  # which its start holds
            is_at_work = self._station is not None
        if is_at_work:
            raise RuntimeError(
                "this bridge is at work already: call outgoing and incoming before a worker starts"
            )

    def _tell_what_does_nothing(self) -> None:
        sent_by = without_event(self.signals, self._outgoing)
        for verb, events in (
            ("outgoing", sent_by),
            ("incoming", self._incoming.classes_without_event),
        ):
            for event in events:
                log(
                    logging.WARNING,
                    "%s(%s) of the bridge of %s does nothing: no event that is declared fits",
                    verb,
                    event,
                    self.consumer,
                )

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


def _close(intake: Intake | None) -> None:
    if isinstance(intake, StoringIntake):
        intake.close()
