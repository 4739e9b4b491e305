"""The durable handlers of an event, which only an outbox calls."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypedDict

from madcrow_events.cli._places import line_of
from madcrow_events.signals._old_names import acting

if TYPE_CHECKING:
    from madcrow_events.outbox._durable import DurableHandler
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["DurableRecord", "durable_handlers", "durable_records"]


class DurableRecord(TypedDict):
    """A durable handler of an event, as `handlers --json` lists it."""

    id: str
    """Its lasting name."""
    function: str
    """The dotted name of the function."""
    file: str | None
    """The path of the file that defines it."""
    line: int | None
    """The number of the line there."""


def durable_handlers(
    signals: SignalRegistry, signal: EventSignal[Any] | None = None
) -> list[DurableHandler]:
    """Return the durable handlers that the outboxes of a registry have, sorted by id.

    Args:
        signals: the registry.
        signal: the event; None for those of all events.
    """
    if "madcrow_events.outbox" not in sys.modules:
        return []  # without importing SQLAlchemy
    from madcrow_events.outbox._outbox import durable_handlers_of

    return [it for it in durable_handlers_of(signals) if signal is None or _is_for(it, signal)]


def _is_for(handler: DurableHandler, signal: EventSignal[Any]) -> bool:
    """Whether a handler is for an event, maybe under an old name of it."""
    own = handler.signal
    return own is signal or (bool(acting([own])) and own.name == signal.name)


def durable_records(signals: SignalRegistry, signal: EventSignal[Any]) -> list[DurableRecord]:
    """Return the durable handlers of one event, sorted by id.

    Args:
        signals: the registry.
        signal: the event.
    """
    return [_record(it) for it in durable_handlers(signals, signal)]


def _record(handler: DurableHandler) -> DurableRecord:
    line = line_of(handler.function)
    return {
        "id": handler.name,
        "function": handler.written_as,
        "file": None if line is None else line.file,
        "line": None if line is None else line.line,
    }
