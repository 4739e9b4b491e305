"""What is stored of an emission, beside the JSON of its context."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from madcrow_events._validation import validate_keywords
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext, GenericEventContext, values_for

if TYPE_CHECKING:
    from madcrow_events.emissions import Emission
    from madcrow_events.signals import EventSignal

__all__ = ["context_to_store", "due_at", "headers_of"]


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
