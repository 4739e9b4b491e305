"""Giving an old name to an event, and taking it back.

An event that was declared under the old name hands its handlers over, and its signal acts as that
of the other event from then on. Each change puts a new mapping of old names in the place of the one
that others may be reading.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakSet

from madcrow_events._names import HANDLER_FAILED, canonical_name
from madcrow_events._text import type_name
from madcrow_events.exceptions import SignalConflictError
from madcrow_events.models import HandlerFailedEventContext
from madcrow_events.signals._models import matches
from madcrow_events.signals._old_names import (
    FormerName,
    become,
    become_itself,
    meaning_of,
    own_attribute,
)
from madcrow_events.signals._subscribing import extend_all
from madcrow_events.subscriptions._moving import check_all_fit, move, own_subscriptions, share
from madcrow_events.subscriptions._patterns import end_parts

if TYPE_CHECKING:
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.signals._signal import EventSignal
    from madcrow_events.subscriptions import Subscription
    from madcrow_events.subscriptions._table import SubscriptionTable

__all__ = [
    "check_handlers",
    "check_old_names",
    "forget_old_names",
    "give_old_names",
    "read_old_names",
    "take_back",
]

Own: TypeAlias = "tuple[str, EventSignal[Any], WeakSet[Subscription]]"
"""An old name, the signal of the event of its own that it was, and what that has handed over."""


def read_old_names(formerly: str | Iterable[str]) -> tuple[str, ...]:
    """Return old names in their canonical form, each once.

    Raises:
        InvalidEventNameError: one of them is malformed.
    """
    given: Any = formerly  # what is neither is told that a name is a string
    is_several = isinstance(given, Iterable) and not isinstance(given, str)
    names = list(given) if is_several else [given]
    return tuple(dict.fromkeys(map(canonical_name, names)))


def check_old_names(
    registry: SignalRegistry,
    name: str,
    given: str,
    formerly: Iterable[str],
    model: type[Any] | None = None,
) -> None:
    """Refuse old names that an event cannot have.

    Args:
        registry: the registry.
        name: the name of the event.
        given: the name that it is declared with, which may be an old one.
        formerly: its old names.
        model: the context model that it is declared with, for the error.

    Raises:
        SignalConflictError: an old name is that of another event, now or formerly.
    """
    for old in formerly:
        own, meant = registry._find(old), meaning_of(registry, old)
        declared: type[Any] | None = None if own is None else own.context_model
        if old == name:
            if given == name:
                continue  # in another spelling, perhaps
            problem, fix = f"the name that {given} has now", "declare it in one of the two ways"
        elif meant is not None and meant.name != name:
            problem = f"a former name of {meant.name} already"
            fix = "take it out of one of the two declarations"
        elif old == HANDLER_FAILED:
            problem, fix = "the event that announces failures", "leave it out of formerly"
            declared = HandlerFailedEventContext
        elif declared is not None:
            problem = f"an event of its own, declared with {type_name(declared)}"
            fix = f"remove that declaration, or leave {old} out of formerly"
        else:
            continue
        raise SignalConflictError(
            f"{old} is {problem}, and cannot be a former name of {given}: {fix}",
            event=old,
            declared=declared,
            requested=model,
        )


def check_handlers(registry: SignalRegistry, name: str, formerly: Iterable[str]) -> None:
    """Refuse old names whose handlers an event cannot take over.

    Raises:
        SubscriptionConflictError: a handler is subscribed to two of the names, with other options,
            or one id is that of two handlers.
    """
    found = [registry._find(it) for it in dict.fromkeys((name, *formerly))]
    if any(found[1:]):
        check_all_fit([it._table for it in found if it is not None])


def give_old_names(
    registry: SignalRegistry, signal: EventSignal[Any], formerly: Iterable[str]
) -> None:
    """Give old names to a declared event; those that it has already stay as they are.

    Raises:
        SignalConflictError: an old name is that of another event, now or formerly.
    """
    present = signal.formerly
    new = tuple(it for it in formerly if it not in present or registry._find(it) is not None)
    if not new:
        return
    with registry._lock:
        _reserve(registry, signal, new)
    try:
        _hand_over(registry, signal, new)
    except BaseException:
        _hand_over(registry, signal, new)  # once more, because it was interrupted
        raise


def _reserve(registry: SignalRegistry, signal: EventSignal[Any], formerly: tuple[str, ...]) -> None:
    """Enter the old names; one that is declared itself still means that event."""
    check_old_names(registry, signal.name, signal.name, formerly)
    new = {
        old: FormerName(signal, registry._find(old), WeakSet())
        for old in formerly
        if old not in signal.formerly
    }
    registry._former = {**registry._former, **new}


def _hand_over(
    registry: SignalRegistry, signal: EventSignal[Any], formerly: tuple[str, ...]
) -> None:
    """Let the old names mean the event, with the handlers that they had."""
    formers = [(old, it) for old, it in registry._former.items() if old in formerly]
    owns = [(old, it.own, it.moved) for old, it in formers if it.own is not None]
    for _, own, moved in owns:
        moved.update(_shared(own, signal))
    with registry._lock:
        _switch(registry, owns, signal)
    for _, own, moved in owns:
        moved.update(_shared(own, signal))  # also those that were subscribed meanwhile
        move(list(moved), own_attribute(own, "_table"), signal._table, signal.name)
        end_parts(own_attribute(own, "_table"), _matches_nothing)
    extend_all(registry._patterns.live_and_recording(), [signal])
    registry._fake(signal)


def _matches_nothing(_pattern: object) -> bool:
    return False


def _shared(own: EventSignal[Any], signal: EventSignal[Any]) -> list[Subscription]:
    moving = own_subscriptions(own_attribute(own, "_table"))
    share(moving, signal._table)
    return moving


def _switch(registry: SignalRegistry, owns: Iterable[Own], signal: EventSignal[Any]) -> None:
    for old, own, _ in owns:
        if registry._find(old) is own:
            dict.pop(registry, old)
        become(own, signal)


def take_back(registry: SignalRegistry, formerly: Iterable[str]) -> None:
    """Take old names from their events, for plugins that are unloaded.

    A name that was an event of its own is one again, with the handlers that it handed over.

    Args:
        registry: the registry.
        formerly: the old names; those that are none have no effect.
    """
    formers = [(old, registry._former[old]) for old in formerly if old in registry._former]
    try:
        _take_back(registry, formers)
    except BaseException:
        _take_back(registry, formers)  # once more, because it was interrupted
        raise


def _take_back(registry: SignalRegistry, formers: Iterable[tuple[str, FormerName]]) -> None:
    for old, (former, own, moved) in formers:
        signal = former._itself()
        if own is not None:
            _give_back(registry, old, own, signal, moved)
        with registry._lock:
            _forget(registry, (old,))
        end_parts(signal._table, partial(matches, signal))


def _give_back(
    registry: SignalRegistry,
    old: str,
    own: EventSignal[Any],
    signal: EventSignal[Any],
    moved: WeakSet[Subscription],
) -> None:
    table: SubscriptionTable = own_attribute(own, "_table")
    # Some may have gone back further, to the event from which that one had them.
    moving = [it for it in moved if it._table in (signal._table, table)]
    share(moving, table)
    with registry._lock:
        become_itself(own)
        dict.__setitem__(registry, old, own)
    move(moving, signal._table, table, old)
    extend_all(registry._patterns.live_and_recording(), [own])
    registry._fake(own)


def forget_old_names(registry: SignalRegistry, signal: EventSignal[Any]) -> None:
    """Forget the old names of an event that is forgotten."""
    formerly = signal.formerly
    if formerly:
        with registry._lock:
            _forget(registry, formerly)
        end_parts(signal._table, partial(matches, signal))


def _forget(registry: SignalRegistry, formerly: tuple[str, ...]) -> None:
    registry._former = {old: it for old, it in registry._former.items() if old not in formerly}
