"""Old names: what they mean, and who is told that they are old.

The registry keeps each old name with the signal that it means. It looks there only if a name is
not that of a declared event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

from madcrow_events._places import Place, calling_place, warn_once
from madcrow_events.signals._signal import EventSignal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.subscriptions import Subscription

__all__ = [
    "FormerName",
    "acting",
    "become",
    "become_itself",
    "meaning_of",
    "means",
    "noted_name",
    "old_names_in",
    "own_attribute",
    "present_name",
    "present_signal",
    "uses_of_old_names",
]


class FormerName(NamedTuple):
    """What an old name means.

    Attributes:
        signal: the signal of the event.
        own: the signal of the event of its own that the name was before, or None.
        moved: the subscriptions that this event has handed over.
    """

    signal: EventSignal[Any]
    own: EventSignal[Any] | None
    moved: WeakSet[Subscription]


class FormerSignal(EventSignal[Any]):
    """The signal of an event whose name is an old name of another event now.

    Modules may hold it, so it acts as the signal of that other event. A signal takes this class
    when its event gets the other name, and keeps all that it had, to become itself again.
    """

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        """Return the attribute of the other signal."""
        return getattr(object.__getattribute__(self, "_successor"), name)


def become(own: EventSignal[Any], signal: EventSignal[Any]) -> None:
    """Let a signal act as another one from now on."""
    own._successor = signal
    own.__class__ = FormerSignal


def become_itself(own: EventSignal[Any]) -> None:
    """Let a signal act as itself again."""
    if type(own) is FormerSignal:
        own.__class__ = EventSignal  # type: ignore[assignment]  # as it was before


def acting(signals: Iterable[EventSignal[Any]]) -> list[tuple[EventSignal[Any], EventSignal[Any]]]:
    """Return those of the signals that act as others, each with that other one."""
    return [(it, own_attribute(it, "_successor")) for it in signals if type(it) is FormerSignal]


def own_attribute(own: EventSignal[Any], name: str) -> Any:
    """Return an attribute that a signal has itself, even while it acts as another one."""
    return object.__getattribute__(own, name)


def meaning_of(registry: SignalRegistry, old: str) -> EventSignal[Any] | None:
    """Return the signal of the event that an old name means; None if there is no such event."""
    former = registry._former.get(old)
    signal = None if former is None else former.signal._itself()
    return signal if signal is not None and registry._find(signal.name) is signal else None


def present_name(registry: SignalRegistry, name: str) -> str:
    """Return the name that an event has now, for a canonical name that may be an old one."""
    if name not in registry._former or registry._find(name) is not None:
        return name
    signal = meaning_of(registry, name)
    return name if signal is None else signal.name


def noted_name(registry: SignalRegistry, name: str, place: Place | None = None) -> str:
    """Return the name that an event has now, and warn of an old name.

    Args:
        registry: the registry.
        name: a canonical name, or a pattern.
        place: where the name is used, unless the calling line does that.
    """
    present = present_name(registry, name)
    if present != name:
        _warn(registry, name, present, place)
    return present


def present_signal(registry: SignalRegistry, signal: EventSignal[Any]) -> EventSignal[Any]:
    """Return the signal that a signal acts as, and warn if that is another one."""
    present = signal._itself()
    if present is not signal:
        _warn(registry, own_attribute(signal, "name"), present.name, None)
    return present


def _warn(registry: SignalRegistry, old: str, name: str, place: Place | None) -> None:
    text = f"the event {old} is called {name} now: use that name"
    warn_once(text, place or calling_place(), registry._warned)


def old_names_in(registry: SignalRegistry) -> frozenset[str]:
    """Return the old names of all events."""
    return frozenset(registry._former)


def uses_of_old_names(registry: SignalRegistry) -> list[tuple[str, str, Place | Subscription]]:
    """Return each use of an old name so far.

    Returns:
        The old name, the name that the event has now, and the place that was warned of; or the
            subscription that was made before the event got its name.
    """
    warned = [(text.split(" "), place) for text, place in list(registry._warned)]
    moved = [
        (old, former.signal._itself().name, it)
        for old, former in registry._former.items()
        for it in list(former.moved)
        if it.active
    ]
    return [*((words[2], words[5], place) for words, place in warned), *moved]  # as `_warn` has it


def means(signal: EventSignal[Any], name: str) -> bool:
    """Whether a name, in any spelling, is that of an event, now or formerly; warn of an old one."""
    name = name.replace("-", "_")
    if signal._registry is not None:
        name = noted_name(signal._registry, name)
    return name == signal.name
