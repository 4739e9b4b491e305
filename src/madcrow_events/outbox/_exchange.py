"""Events as CloudEvents: those that go out to other services, and those that come in from them."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from pydantic_core import from_json

from madcrow_events.outbox._cloud_events import LONGEST, CloudEvent
from madcrow_events.outbox._errors import (
    InvalidCloudEventError,
    NotSerialisableError,
    UnknownVersionError,
)
from madcrow_events.outbox._interrupts import let_interrupts_through
from madcrow_events.outbox._rows import InboxNote, Received, StoredEvent
from madcrow_events.outbox._senders import read
from madcrow_events.outbox._stored import key_of, text_of_key
from madcrow_events.signals._old_names import present_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.models import BaseEventContext
    from madcrow_events.outbox._rows import Claimed
    from madcrow_events.signals import EventSignal, SignalRegistry

    ReadContext = Callable[[EventSignal[Any], int, str], BaseEventContext]
    """Makes a context of a version of a signal, from its JSON."""

__all__ = ["cloud_event_of", "id_of", "json_of", "origin_of", "received", "signal_of", "version_of"]

VERSION: Final = "eventversion"
"""The attribute with the version of the event's model."""

_NAMESPACE: Final = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""The one for URLs, of RFC 9562, appendix C."""


def id_of(source: str, id_: str) -> UUID:
    """Return the id that an event of another service has here.

    Two services may give the same id to different events, so it is made of the source, too.
    """
    return uuid5(_NAMESPACE, f"{source}\n{id_}")


def cloud_event_of(claimed: Claimed, payload: str) -> CloudEvent:
    """Return the event of a delivery as a CloudEvent.

    Args:
        claimed: the delivery.
        payload: the JSON of the context.
    """
    headers = json.loads(claimed.headers)
    origin = headers.get("origin", {})
    attributes = {
        "time": origin.get("time") or _moment(claimed.created),
        "datacontenttype": "application/json",
        VERSION: str(claimed.version),
    }
    if claimed.key is not None:
        attributes["partitionkey"] = claimed.key
    attributes["correlationid"] = headers.get("correlation", claimed.event_id)
    if "causation" in headers:
        attributes["causationid"] = headers["causation"]
    if claimed.sender is not None and (sender := read(claimed.sender)) is not None:
        attributes["sender"] = str(sender)
    # A client chooses some of it, such as its user agent, and must not keep the event back by that.
    if "scope" in headers and len(scope := json.dumps(headers["scope"])) <= LONGEST:
        attributes["scope"] = scope
    return CloudEvent(
        id=origin.get("id", claimed.event_id),
        source=claimed.source,
        type=claimed.event,
        data=payload.encode(),
        attributes=attributes,
    )


def _moment(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def received(
    event: CloudEvent,
    signal: EventSignal[Any] | None,
    consumer: str,
    read_context: ReadContext,
    encoded: Callable[[str], str],
) -> Received:
    """Return what is written of an event that another service has sent.

    Args:
        event: the event.
        signal: the signal that it has here; None if it is not declared here yet.
        consumer: for whom it is noted that the event was taken in.
        read_context: makes a context of a version of a signal, from its JSON.
        encoded: makes of JSON what is stored.

    Raises:
        InvalidCloudEventError: the data or the version is no event of this package's kind.
    """
    _check_length(event)
    payload, document = json_of(event)
    version = version_of(event)
    stored = StoredEvent(
        event.source,
        str(id_of(event.source, event.id)),
        event.type if signal is None else signal.name,
        version,
        _key(event, signal, version, payload, document, read_context),
        None,
        encoded(payload),
        json.dumps({"origin": origin_of(event)}),
        0,
        time.time_ns() // 1000,
        0,
    )
    return Received(InboxNote(consumer, event.source, event.id), stored)


def _check_length(event: CloudEvent) -> None:
    for attribute, text in (("source", event.source), ("id", event.id), ("type", event.type)):
        if len(text.encode()) > _LONGEST:
            raise InvalidCloudEventError(
                f"the {attribute} is longer than {_LONGEST} bytes: send a shorter one",
                attribute=attribute,
            )


_LONGEST: Final = 1024
"""In bytes: an index of PostgreSQL takes 2,704, for source, id and consumer together."""


def signal_of(signals: SignalRegistry, event: CloudEvent) -> EventSignal[Any] | None:
    """Return the signal that an event of another service has here; None if it is not declared.

    It may have an earlier name there, of which nobody here can be warned.
    """
    # Not `resolve`: a registry that is not strict would declare what others name.
    name = present_name(signals, event.type.replace("-", "_"))
    signal: EventSignal[Any] | None = signals.get(name)
    return signal


def origin_of(event: CloudEvent) -> dict[str, str]:
    """Return what another service has said of its event, for `Emission.origin`."""
    return {**event.attributes, "source": event.source, "id": event.id, "type": event.type}


def json_of(event: CloudEvent) -> tuple[str, dict[str, Any]]:
    """Return the data of an event, as text and as a dictionary.

    Raises:
        InvalidCloudEventError: it is no JSON object.
    """
    payload = ""
    document: object = None
    try:
        if event.is_json:
            payload, document = event.data.decode(), from_json(event.data)
    except ValueError:  # neither text nor JSON
        pass
    if not isinstance(document, dict):
        raise InvalidCloudEventError(
            "the data is no JSON object: send the fields of the event as one, with the "
            "datacontenttype application/json",
            attribute="data",
        )
    return payload, document


def version_of(event: CloudEvent) -> int:
    """Return the version of the model that an event was written with.

    Raises:
        InvalidCloudEventError: it is no version.
    """
    text = event.attributes.get(VERSION, "1")
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS and 1 <= int(text) <= _LARGEST:
        return int(text)
    raise InvalidCloudEventError(
        f"{VERSION} is no number from 1 to {_LARGEST}: send the version of the event's model, or "
        "leave it out for 1",
        attribute=VERSION,
    )


_DIGITS: Final = 5
_LARGEST: Final = 2**15 - 1


def _key(
    event: CloudEvent,
    signal: EventSignal[Any] | None,
    version: int,
    payload: str,
    document: dict[str, Any],
    read_context: ReadContext,
) -> str | None:
    """Return the ordering key; None for an event that cannot be read, so that it holds up none."""
    if signal is None:
        return _key_of_newer(event, None, document)
    if signal.key is None:
        return None
    try:
        return key_of(signal, read_context(signal, version, payload))
    except UnknownVersionError:  # it waits for newer code, and keeps its place
        return _key_of_newer(event, signal.key, document)
    except Exception as error:  # a validator or a function for the key may raise anything
        let_interrupts_through(error)
        return None


def _key_of_newer(event: CloudEvent, name: object, document: dict[str, Any]) -> str | None:
    """Return the key of an event that only newer code can read, as far as it shows.

    Args:
        event: the event.
        name: the field of the context that is the key, if it is a field.
        document: the fields.
    """
    key = document.get(name) if isinstance(name, str) else None
    if key is None:
        key = event.attributes.get("partitionkey")
    try:
        return None if key is None else text_of_key(event.type, key)
    except NotSerialisableError:
        return None
