"""What is stored of an emission, beside the JSON of its context."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from madcrow_events._text import type_name
from madcrow_events._validation import validate_keywords
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext, GenericEventContext, values_for
from madcrow_events.outbox._errors import NotSerialisableError

if TYPE_CHECKING:
    from madcrow_events.emissions import Emission
    from madcrow_events.signals import EventSignal

__all__ = ["context_to_store", "due_at", "headers_of", "key_of", "text_of_key"]


def context_to_store(signal: EventSignal[Any], context: BaseEventContext) -> BaseEventContext:
    """Return a context of the model of its event, also of one that came as a dictionary."""
    model = signal.context_model
    if (
        model is None
        or model is GenericEventContext
        or not isinstance(context, GenericEventContext)
    ):
        return context
    return validate_keywords(signal.name, model, values_for(context, model))


def due_at(moment: datetime) -> int:
    """Return a moment as microseconds since 1970.

    Raises:
        InvalidOptionError: it is no moment, or has no time zone.
    """
    given: object = moment
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise InvalidOptionError(
            "not_before must be a datetime with a time zone, such as "
            "datetime.now(UTC) + timedelta(hours=1)",
            option="not_before",
        )
    return max(0, (moment - _EPOCH) // timedelta(microseconds=1))


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def headers_of(emission: Emission[Any], fields: Mapping[str, str]) -> str:
    """Return what a handler needs to know beside the context."""
    headers: dict[str, Any] = {}
    if emission.correlation_id != emission.id:
        headers["correlation"] = str(emission.correlation_id)
    if (causation := emission.causation_id) is not None:
        headers["causation"] = str(causation)
    if fields:
        headers["scope"] = dict(fields)
    return json.dumps(headers) if headers else "{}"


_LONGEST_KEY: Final = 512
"""In characters; the index of PostgreSQL takes 2,704 bytes."""


def key_of(signal: EventSignal[Any], context: Any) -> str | None:
    """Return the ordering key of an event as text; None without one.

    Raises:
        NotSerialisableError: it is no text, number, id, date or enum, or is too long.
    """
    key = signal.key
    if key is None:
        return None
    if callable(key):
        value = key(context)
    elif isinstance(context, GenericEventContext) and not hasattr(context, key):
        value = context.data.get(key)
    else:
        value = getattr(context, key)
    if value is None:
        return None
    return text_of_key(signal.name, value, key)


def text_of_key(event: str, value: object, key: object = None) -> str:
    """Return an ordering key as text.

    Args:
        event: the name of the event, for the error.
        value: the value of the key.
        key: the field that it is the value of, for the error, if it is a field.

    Raises:
        NotSerialisableError: as for `key_of`.
    """
    if isinstance(value, Enum):
        value = value.value
    problem = None
    if not isinstance(value, str | int | UUID | date):
        problem = f"is of {type_name(type(value))}: let it be a str, int, UUID, date or enum"
    elif len(text := str(value)) > _LONGEST_KEY:
        problem = f"is longer than {_LONGEST_KEY} characters"
    elif not text.isprintable():
        problem = "has characters that cannot be printed"
    else:
        return text
    raise NotSerialisableError(
        f"the ordering key of {event} {problem}",
        event=event,
        field=key if isinstance(key, str) else None,
    )
