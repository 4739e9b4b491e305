"""Which events go out, and which come in, and from whom."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._names import canonical_name
from madcrow_events._text import printable, type_name
from madcrow_events.exceptions import InvalidEventNameError
from madcrow_events.outbox._exchange import signal_of
from madcrow_events.signals._models import matches
from madcrow_events.signals._registry import declared_in, is_built_in
from madcrow_events.signals._subscribing import canonical_pattern, is_pattern

if TYPE_CHECKING:
    from madcrow_events.models import BaseEventContext
    from madcrow_events.outbox import CloudEvent
    from madcrow_events.signals import EventSignal, SignalRegistry
    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["Accepted", "Refusal", "Route", "Routes", "meant_by", "route_for", "without_event"]


class Refusal(NamedTuple):
    """Why an event is not taken in.

    Attributes:
        reason: the reason, for people.
        is_expected: whether such events come all the time, and nobody needs to hear of them.
    """

    reason: str
    is_expected: bool = False


class Accepted(NamedTuple):
    """An event that is taken in.

    Attributes:
        event: the event.
        signal: its signal; None if it fits a pattern, and is not declared here yet.
    """

    event: CloudEvent
    signal: EventSignal[Any] | None


@dataclass(frozen=True, slots=True)
class Route:
    """Some events, and whose they are.

    Attributes:
        event: the signal, or the pattern or class of several.
        sources: the sources of the events that are taken in; None for all of them.
    """

    event: EventSignal[Any] | Pattern
    sources: frozenset[str] | None = None

    def means(self, signals: SignalRegistry, signal: EventSignal[Any]) -> bool:
        """Whether it means an event; those of this package are meant by their names only."""
        if isinstance(self.event, str | type):
            return not is_built_in(signals, signal) and matches(signal, self.event)
        return signals.resolve(self.event) is signal

    def fits_name(self, name: str) -> bool:
        """Whether an event that is not declared may be one of its events."""
        return isinstance(self.event, str) and fnmatchcase(name, self.event)


def route_for(
    signals: SignalRegistry,
    event: str | EventSignal[Any] | type[BaseEventContext],
    sources: frozenset[str] | None = None,
) -> Route:
    """Return the route of an event, a pattern or a class.

    Raises:
        MadcrowEventsError: there is no such event, or the pattern is malformed.
    """
    # A class that is the model of one event is a class of several, too: of those of subclasses.
    if is_pattern(event):
        return Route(canonical_pattern(event), sources)
    return Route(signals.resolve(event), sources)


class Routes:
    """The events that come in.

    Args:
        signals: the registry.
        source: the source of this service, whose own events come back to it; None if it has none.
    """

    def __init__(self, signals: SignalRegistry, source: str | None) -> None:
        self._signals = signals
        self._source = source
        self._routes: list[Route] = []

    def add(self, route: Route) -> None:
        """Let events come in."""
        self._routes.append(route)

    def __bool__(self) -> bool:
        return bool(self._routes)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of all events that may come in; None if there are patterns among them."""
        if self.patterns:
            return None
        return tuple(sorted({name for it in self.signals for name in (it.name, *it.formerly)}))

    @property
    def signals(self) -> list[EventSignal[Any]]:
        """The declared events that come in, by their names."""
        return meant_by(self._signals, self._routes)

    @property
    def patterns(self) -> list[Route]:
        """The routes by which events come in, too, that are not declared."""
        return [it for it in self._routes if isinstance(it.event, str)]

    @property
    def classes_without_event(self) -> list[str]:
        """The classes by which no event can come in, because none is declared with them."""
        classes = [it for it in self._routes if isinstance(it.event, type)]
        return without_event(self._signals, classes)

    def of(self, signal: EventSignal[Any]) -> list[Route]:
        """Return the routes by which a declared event comes in."""
        return [it for it in self._routes if it.means(self._signals, signal)]

    def judge(self, event: CloudEvent) -> Accepted | Refusal:
        """Return whether an event is taken in."""
        if event.source == self._source:
            return Refusal("it is one of this service itself", is_expected=True)
        signal = signal_of(self._signals, event)
        if signal is not None:
            routes = self.of(signal)
            if not routes and is_built_in(self._signals, signal):
                return Refusal(
                    f"{signal.name} is an event of madcrow_events itself, which comes in only by "
                    f"its name: write bridge.incoming('{signal.name}') if others may send it"
                )
        else:
            routes = [it for it in self._routes if it.fits_name(event.type)]
            if routes and not _is_name(event.type):
                return Refusal("its type is no name of an event")
        if not routes:
            return Refusal("no such event comes in", is_expected=True)
        if not any(it.sources is None or event.source in it.sources for it in routes):
            return Refusal(
                f"its source '{printable(event.source)}' is none of those from which "
                f"{event.type} comes in"
            )
        return Accepted(event, signal)


def meant_by(signals: SignalRegistry, routes: list[Route]) -> list[EventSignal[Any]]:
    """Return the declared events that routes mean, by their names."""
    found = [it for it in declared_in(signals) if any(r.means(signals, it) for r in routes)]
    return sorted(found, key=lambda signal: signal.name)


def without_event(signals: SignalRegistry, routes: list[Route]) -> list[str]:
    """Return the patterns and classes of routes, without those that mean a declared event."""
    declared = list(declared_in(signals))
    return [
        it.event if isinstance(it.event, str) else type_name(it.event)
        for it in routes
        if isinstance(it.event, str | type) and not any(it.means(signals, s) for s in declared)
    ]


def _is_name(text: str) -> bool:
    try:
        return canonical_name(text) == text
    except InvalidEventNameError:
        return False
