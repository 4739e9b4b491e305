"""What a bridge needs of an outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events.outbox._companions import Companion
from madcrow_events.outbox._durable import declare
from madcrow_events.outbox._errors import MalformedPayloadError
from madcrow_events.outbox._exchange import cloud_event_of, received
from madcrow_events.outbox._storable import check_model
from madcrow_events.outbox._writing import write_events
from madcrow_events.subscriptions import ANY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from madcrow_events.models import BaseEventContext
    from madcrow_events.outbox._cloud_events import CloudEvent
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._durable import Carry
    from madcrow_events.outbox._outbox import Outbox
    from madcrow_events.outbox._retry import Retry
    from madcrow_events.outbox._rows import Claimed, Received
    from madcrow_events.signals import EventSignal

__all__ = [
    "attach",
    "companions_of",
    "declare_carried",
    "event_to_send",
    "row_to_write",
    "write_rows",
]


def attach(outbox: Outbox, companion: Companion) -> None:
    """Let something work beside each worker of an outbox."""
    outbox._companions.append(companion)


def companions_of(outbox: Outbox) -> tuple[Companion, ...]:
    """Return what works beside each worker of an outbox."""
    return tuple(outbox._companions)


def declare_carried(
    outbox: Outbox,
    signal: EventSignal[Any],
    *,
    id: str,  # noqa: A002  # as the option of every subscription
    formerly: tuple[str, ...],
    retry: Retry,
    is_ready: Callable[[], bool],
    carry: Carry,
) -> None:
    """Declare a durable handler whose events are carried elsewhere; once for each id.

    Args:
        outbox: the outbox.
        signal: the event.
        id: the lasting name of the handler.
        formerly: earlier ids.
        retry: when an event is carried again that could not be.
        is_ready: whether events can be carried now.
        carry: carries events.

    Raises:
        NotSerialisableError: contexts of the event's model do not come back from JSON.
    """
    if id in outbox.handlers:
        return
    check_model(signal.name, signal.context_model)
    durable = declare(
        signal,
        _carried,
        id=id,
        retry=retry,
        timeout=None,
        concurrency=None,
        when=None,
        sender=ANY,
        formerly=formerly,
        on_dead=None,
        is_ready=is_ready,
        carry=carry,
    )
    outbox._enter(durable, _carried)


def _carried(context: BaseEventContext) -> None:
    """Stand for what carries an event: it is called for many at once."""


def event_to_send(outbox: Outbox, claimed: Claimed) -> CloudEvent | None:
    """Return the event of a delivery; None if it was taken in, and is not sent on.

    Raises:
        MalformedPayloadError: the values of the event were removed.
        Exception: `decode` raised it.
    """
    if claimed.source != outbox.source:
        return None
    if not claimed.payload:
        raise MalformedPayloadError(
            f"the values of {claimed.event} were removed: discard the delivery",
            event=claimed.event,
        )
    return cloud_event_of(claimed, outbox._decoded(claimed.payload))


def row_to_write(
    outbox: Outbox, event: CloudEvent, signal: EventSignal[Any] | None, consumer: str
) -> Received:
    """Return what is written of an event that another service has sent.

    Args:
        outbox: the outbox.
        event: the event.
        signal: the signal that it has here; None if it is not declared here yet.
        consumer: for whom it is noted that the event was taken in.

    Raises:
        InvalidCloudEventError: the data or the version is none.
    """
    return received(event, signal, consumer, outbox._context_of, outbox._encoded)


def write_rows(outbox: Outbox, rows: Sequence[Received], access: Access) -> None:
    """Write what other services have sent, in one transaction, and wake the workers here.

    Raises:
        Exception: the database cannot be used.
    """

    def write(connection: Connection) -> int:
        statements = outbox._statements_on(connection)
        statements.lock(connection)
        return write_events(statements, connection, rows, outbox._channel)

    if access.transaction(write):
        outbox._wake()
