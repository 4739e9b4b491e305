"""The events of an application, and which of them nobody handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._text import module_of
from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._doctor._modules import is_installed
from madcrow_events.cli._durable import durable_handlers
from madcrow_events.cli._places import line_of_class
from madcrow_events.dispatcher._dispatcher import observers_of
from madcrow_events.handlers._declaring import declared_handlers
from madcrow_events.signals._explaining import calling_order
from madcrow_events.signals._models import matches
from madcrow_events.signals._registry import declared_at, declared_in, is_built_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from madcrow_events._places import Place
    from madcrow_events.cli._doctor._sources import Sources
    from madcrow_events.cli._places import Line
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.signals import EventSignal, SignalRegistry

__all__ = ["is_observed", "own_events", "place_of", "silent_events", "unhandled"]


def own_events(signals: SignalRegistry, own: set[str]) -> list[EventSignal[Any]]:
    """Return the declared events, without those of madcrow-events itself and of other packages.

    What an installed package declares is an offer: nobody needs to handle it.

    Args:
        signals: the registry.
        own: the names of the application's own modules.
    """
    return [it for it in declared_in(signals) if not _is_offered(signals, it, own)]


def _is_offered(signals: SignalRegistry, signal: EventSignal[Any], own: set[str]) -> bool:
    place = declared_at(signal)
    if place is None:
        return is_built_in(signals, signal)
    return place.module not in own and is_installed(place.file)


def place_of(signal: EventSignal[Any]) -> Line | Place | None:
    """Return where an event is declared, or else where its model is."""
    place = declared_at(signal)
    model = signal.context_model
    return line_of_class(model) if place is None and model is not None else place


def silent_events(
    signals: SignalRegistry,
    events: Iterable[EventSignal[Any]],
    groups: Iterable[HandlerGroup],
    sources: Sources,
) -> list[EventSignal[Any]]:
    """Return those of the events that nobody handles, now or later.

    A group that is not registered yet may be, and so may a function be called that subscribes
    handlers. Both count.

    Args:
        signals: the registry.
        events: the events.
        groups: the groups of the application.
        sources: the sources of the application.
    """
    wanted = [it.event for group in groups for it in declared_handlers(group)]
    return [
        it
        for it in events
        if not calling_order(it)
        and not durable_handlers(signals, it)
        and not any(matches(it, pattern) for pattern in wanted)
        and not sources.subscribe_to(it)
    ]


def unhandled(signals: SignalRegistry, events: Iterable[EventSignal[Any]]) -> Iterator[Finding]:
    """Yield a finding for each event that nobody handles.

    Args:
        signals: the registry.
        events: what `silent_events` returns.
    """
    for signal in events:
        message = f"nobody handles {signal.name}"
        fix = "import the module with its handlers, subscribe one, or remove the event"
        ended = [it for it in signals.explain(signal).left_out if it.has_ended]
        if ended:
            message += f" any more, also not {ended[-1].name}: {ended[-1].detail}"
            fix = "keep the handler, and the object whose method it is, as long as it is needed"
        yield finding("unhandled_event", signal.name, message, fix, place_of(signal))


def is_observed(dispatcher: EventDispatcher) -> bool:
    """Whether a dispatcher has an observer of the application, which follows all events."""
    package = __name__.partition(".")[0]
    return any(module_of(type(it)).partition(".")[0] != package for it in observers_of(dispatcher))
