"""Which events are in the catalogue: those that a name or a pattern means."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events.signals._models import matches
from madcrow_events.signals._old_names import old_names_in
from madcrow_events.signals._registry import declared_in
from madcrow_events.signals._subscribing import canonical_pattern, is_pattern

if TYPE_CHECKING:
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals import EventSignal, SignalRegistry
    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["select"]


def select(
    signals: SignalRegistry, pattern: str | EventSignal[Any] | type[BaseEventContext]
) -> list[EventSignal[Any]]:
    """Return the events that a name, pattern, signal or class means, in the order of their names.

    A registry that is not strict refuses an unknown name, too: looking at events declares none.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        ContextModelError: the class cannot be the model of an event.
        UnknownEventError: the event is not declared, or the signal belongs to another registry.
    """
    if is_pattern(pattern):
        wanted = canonical_pattern(pattern)
        found = [it for it in declared_in(signals) if _is_meant(it, wanted)]
        return sorted(found, key=lambda signal: signal.name)
    if signals.strict or pattern in signals:
        return [signals.resolve(pattern)]
    name = canonical_name(pattern)
    raise unknown_event(name, signals, old_names_in(signals), decorator="@registry.event")


def _is_meant(signal: EventSignal[Any], wanted: Pattern) -> bool:
    """Whether a pattern or class means an event; here, patterns also fit `handler_failed`."""
    if signal.name == HANDLER_FAILED and isinstance(wanted, str):
        return fnmatchcase(HANDLER_FAILED, wanted)
    return matches(signal, wanted)
