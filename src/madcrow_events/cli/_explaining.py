"""Who would be called for an event, as a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from madcrow_events.cli._durable import durable_handlers
from madcrow_events.signals._explaining import CalledHandler, LeftOutHandler, explain
from madcrow_events.subscriptions import ANY

if TYPE_CHECKING:
    from madcrow_events.cli._context import Payload
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["ExplainedRecord", "called_from", "explained_record", "left_out_from"]


class ExplainedRecord(TypedDict):
    """An explanation, as `explain --json` shows it."""

    event: str
    """The name of the event."""
    called: list[dict[str, Any]]
    """Who would be called, in order: each has the attributes of a `CalledHandler`."""
    left_out: list[dict[str, Any]]
    """Who would not: each has the attributes of a `LeftOutHandler`."""
    has_context: bool
    """Whether fields were given. If not, no condition was asked."""
    missing: list[str]
    """The required fields that were not given, so that keywords are explained, and no context."""
    durable: list[str]
    """The ids of its durable handlers, which hear only of `outbox.emit(session, ...)`."""


def explained_record(
    signals: SignalRegistry, signal: EventSignal[Any], payload: Payload, sender: object = ANY
) -> ExplainedRecord:
    """Return who would be called for an event, who would not, and why.

    Args:
        signals: the registry.
        signal: the event.
        payload: its context, or its fields.
        sender: the sender, as for `SignalRegistry.explain`.
    """
    context = payload.fields if payload.context is None else payload.context
    found = explain(signals, signal, sender, context)
    fields = signal.context_model.model_fields if signal.context_model and payload.fields else {}
    return {
        "event": found.event,
        "called": [it._asdict() for it in found.called],
        "left_out": [it._asdict() for it in found.left_out],
        "has_context": found.has_context,
        "missing": [
            name
            for name, it in fields.items()
            if it.is_required() and not payload.fields.keys() & {name, it.alias}
        ],
        "durable": [it.name for it in durable_handlers(signals, signal)],
    }


def called_from(record: ExplainedRecord) -> list[CalledHandler]:
    """Return who would be called, as objects that print themselves."""
    return [CalledHandler(**it) for it in record["called"]]


def left_out_from(record: ExplainedRecord) -> list[LeftOutHandler]:
    """Return who would not be called, as objects that print themselves."""
    return [LeftOutHandler(**it) for it in record["left_out"]]
