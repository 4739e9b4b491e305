"""Patterns and classes that match no event, and the handlers of an application."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from madcrow_events._text import handler_name, type_name
from madcrow_events.cli._doctor._code import UNKNOWN
from madcrow_events.cli._doctor._findings import Finding, FindingKind, finding
from madcrow_events.cli._doctor._groups import unregistered
from madcrow_events.cli._doctor._repeats import Listening
from madcrow_events.cli._places import Line, line_of
from madcrow_events.handlers._declaring import declared_handlers, declared_signals
from madcrow_events.signals._models import matches
from madcrow_events.signals._registry import declared_in, patterns_in
from madcrow_events.signals._subscribing import is_pattern
from madcrow_events.subscriptions._patterns import matches_nothing
from madcrow_events.subscriptions._subscription import is_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from madcrow_events._places import Place
    from madcrow_events.cli._doctor._sources import Sources
    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.signals import SignalRegistry
    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["listening", "unmatched"]

_OPTIONS = ("background", "batch", "on_error", "once", "priority", "sender", "timeout", "when")


def unmatched(
    signals: SignalRegistry,
    groups: Iterable[HandlerGroup],
    sure: Iterable[HandlerGroup],
    sources: Sources,
) -> Iterator[Finding]:
    """Yield a finding for each pattern, and each class, that no event matches.

    Events count that a group declares, or a line of the sources, even if that did not happen yet.

    Args:
        signals: the registry.
        groups: the groups of the application.
        sure: those of them that are surely of this registry.
        sources: the sources of the application.
    """
    later: list[tuple[Any, Any]] = [*sources.declared]
    later += [(it.name, it.model) for group in groups for it in declared_signals(group)]
    found: list[tuple[Pattern, str, Line | Place | None]] = [
        (it.pattern, it.name, line_of(it.handler))
        for it in patterns_in(signals)
        if matches_nothing(it)
    ]
    found += [
        (it.event, handler_name(it.handler), it.place)
        for group in unregistered(signals, sure)
        for it in declared_handlers(group)
        if (is_pattern(it.event) or it.is_optional)
        and not any(matches(has, it.event) for has in declared_in(signals))
    ]
    for pattern, handler, place in found:
        if not any(_fits(pattern, name, model) for name, model in later):
            yield _unmatched(signals, pattern, handler, place)


def _fits(pattern: Pattern, name: Any, model: Any) -> bool:
    """Whether a pattern or a class matches, or may match, an event with this name and model."""
    if isinstance(pattern, str):
        return name is UNKNOWN or fnmatchcase(name, pattern)
    return model is UNKNOWN or (model is not None and pattern in model.__mro__)


def _unmatched(
    signals: SignalRegistry, pattern: Pattern, handler: str, place: Line | Place | None
) -> Finding:
    kind: FindingKind = "unmatched_pattern"
    shown = pattern if isinstance(pattern, str) else handler_name(pattern)
    message = f"{handler} listens to {shown}, which matches no event"
    fix = "correct the pattern, or import the module that declares such events; nothing is wrong "
    fix += "if they come from a plugin that is not loaded here"
    if not isinstance(pattern, str):
        kind = "unmatched_class"
        message = f"{handler} listens to {type_name(pattern)}, which is the model of no event"
        fix = "write @madcrow_signals.event above the class, or import the module that declares "
        fix += "the event"
    elif not is_pattern(pattern):
        kind = "unmatched_optional"
        message = f"{handler} is optional, and nobody declares its event {pattern}"
        fix = "correct the name, import the module that declares it, or remove the handler"
        if pattern in signals:
            message = f"{handler} is optional, and does not fit its event {pattern}"
            fix = "let its parameters fit the model of the event"
    return finding(kind, shown, message, fix, place)


def listening(signals: SignalRegistry, groups: Iterable[HandlerGroup]) -> list[Listening]:
    """Return the handlers of a registry, and those of groups that are not registered yet.

    Args:
        signals: the registry.
        groups: the groups of the application.
    """
    found = [
        Listening(
            getattr(it, "pattern", it.event),
            it.event,
            it.handler,
            tuple((name, getattr(it, name)) for name in _OPTIONS),
            it.id,
        )
        for it in signals.subscriptions
        if not is_part(it)
    ]
    found += [
        Listening(
            it.event,
            it.event if isinstance(it.event, str) else type_name(it.event),
            it.handler,
            tuple(sorted(it.options.items())),
            it.options.get("id"),
        )
        for group in unregistered(signals, groups)
        for it in declared_handlers(group)
    ]
    return found
