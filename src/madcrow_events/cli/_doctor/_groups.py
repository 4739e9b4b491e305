"""The handler groups of an application, also those that were not registered yet."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from madcrow_events.cli._doctor._modules import contents_of
from madcrow_events.handlers import HandlerGroup
from madcrow_events.signals import SignalRegistry, madcrow_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["groups_of", "unregistered"]


def groups_of(
    signals: SignalRegistry, modules: Iterable[str]
) -> tuple[list[HandlerGroup], list[HandlerGroup]]:
    """Return the handler groups that modules have among their names, also in containers.

    Groups that are registered in another registry, which a module has among its names, are none.

    Args:
        signals: the registry.
        modules: the names of the modules.

    Returns:
        The groups; and those of them that are surely of this registry: if there are others, one
        that is not registered yet may be registered in another.
    """
    found: dict[int, HandlerGroup] = {}
    others: set[int] = set()
    has_others = False
    for name in modules:
        for value in _flat([*contents_of(sys.modules.get(name)).values()]):
            if issubclass(type(value), HandlerGroup):
                found[id(value)] = value
            elif issubclass(type(value), SignalRegistry) and value is not signals:
                # The default one is in most modules, also in those that do not use it.
                has_others |= value is not madcrow_signals or bool(value.subscriptions)
                others |= {id(it.origin) for it in value.subscriptions}
    waiting = {id(it) for it in unregistered(signals, found.values())}
    groups = [it for key, it in found.items() if key not in others & waiting]
    return groups, [it for it in groups if not (has_others and id(it) in waiting)]


def unregistered(signals: SignalRegistry, groups: Iterable[HandlerGroup]) -> list[HandlerGroup]:
    """Return those of the groups of which no handler is subscribed."""
    origins = {id(it.origin) for it in signals.subscriptions}
    return [it for it in groups if id(it) not in origins]


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    """Yield values, and those in containers and classes among them."""
    for value in values:
        yield value
        kind = type(value)
        if kind in (list, tuple, set):
            yield from [*value]
        elif kind is dict:
            yield from [*value.values()]
        elif issubclass(kind, type):  # its own metaclass may forbid `vars`
            yield from [*type.__dict__["__dict__"].__get__(value).values()]
