"""One event in full: its fields, an example, and who listens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypedDict

from pydantic import PydanticUserError, ValidationError
from pydantic_core import PydanticUndefined, to_jsonable_python

from madcrow_events._text import handler_name, printable, type_name
from madcrow_events.cli._code import program_for
from madcrow_events.cli._durable import DurableRecord, durable_records
from madcrow_events.cli._examples import example_of
from madcrow_events.cli._records import EventRecord, HandlerRecord, event_record, handler_records
from madcrow_events.models import BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["FieldRecord", "ShownRecord", "shown_record"]


class FieldRecord(TypedDict):
    """A field of an event's context."""

    name: str
    """Its name in Python."""
    type: str
    """Its annotation."""
    limits: str | None
    """Its bounds, such as `> 0`."""
    required: bool
    """Whether each context must give it."""
    default: str | None
    """Its default as code; None if it is required."""
    description: str | None
    """What it means."""


class ShownRecord(TypedDict):
    """An event, as `show --json` shows it."""

    event: EventRecord
    """As `events --json` lists it."""
    fields: list[FieldRecord]
    """The fields of its model, its own first; empty without a model."""
    example: dict[str, Any] | None
    """A context as JSON; None if none could be made that the model takes."""
    code: str
    """A program that emits the event."""
    handlers: list[HandlerRecord]
    """Who listens, as `handlers --json` lists it."""
    durable: list[DurableRecord]
    """The durable handlers, as `handlers --json` lists them."""


def shown_record(signals: SignalRegistry, signal: EventSignal[Any]) -> ShownRecord:
    """Return all that is known of one event.

    Args:
        signals: the registry.
        signal: the event.
    """
    model = signal.context_model
    example, context = ({}, None) if model is None else _example(model)
    return {
        "event": event_record(signals, signal),
        "fields": [] if model is None else _fields_of(model),
        "example": example,
        "code": program_for(signals, signal, context),
        "handlers": handler_records(signals, signal),
        "durable": durable_records(signals, signal),
    }


def _fields_of(model: type[BaseEventContext]) -> list[FieldRecord]:
    own = [it for it in model.model_fields if it not in BaseEventContext.model_fields]
    return [_field(model, it) for it in (*own, *BaseEventContext.model_fields)]


def _field(model: type[BaseEventContext], name: str) -> FieldRecord:
    field = model.model_fields[name]
    default = None
    if field.default_factory is not None:
        default = f"{handler_name(field.default_factory).rpartition('.')[2].strip('_')}()"
    elif field.default is not PydanticUndefined:
        default = printable(repr(field.default), 60)
    return {
        "name": name,
        "type": type_name(field.annotation),
        "limits": ", ".join(_limits_of(field.metadata)) or None,
        "required": field.is_required(),
        "default": default,
        "description": field.description,
    }


_LIMITS = {
    "gt": "> {}",
    "ge": ">= {}",
    "lt": "< {}",
    "le": "<= {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matches {}",
}
"""What the attributes of a field's metadata say, by their names."""


def _limits_of(metadata: Iterable[object]) -> Iterator[str]:
    for it in metadata:
        for name, said in _LIMITS.items():
            limit = getattr(it, name, None)
            if limit is not None:
                yield said.format(printable(limit, 60))


def _example(
    model: type[BaseEventContext],
) -> tuple[dict[str, Any], BaseEventContext] | tuple[None, None]:
    """Return an example as JSON and as a context; nothing if the model refuses it."""
    try:
        schema = model.model_json_schema()
        found = example_of(schema, schema.get("$defs", {}))
        example: dict[str, Any] = to_jsonable_python(found, fallback=str)
        return example, model.model_validate_json(json.dumps(example))
    except (PydanticUserError, ValidationError):
        return None, None
