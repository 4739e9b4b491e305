"""Handlers of events that nobody declares, and patterns and classes that match nothing."""

from __future__ import annotations

import ast
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._names import HANDLER_FAILED
from madcrow_events._places import Place, calling_place
from madcrow_events._text import close_matches, handler_name, type_name
from madcrow_events.cli._doctor._catching import catches, is_caught
from madcrow_events.cli._doctor._findings import Finding, FindingKind, finding
from madcrow_events.cli._doctor._groups import unregistered
from madcrow_events.cli._doctor._repeats import Listening
from madcrow_events.cli._places import Line, line_of
from madcrow_events.dispatcher import EventDispatcher, emit_event, emit_event_async
from madcrow_events.exceptions import UnknownEventError
from madcrow_events.handlers import on_event, register_handler
from madcrow_events.handlers._declaring import declared_handlers, declared_signals, events_of
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._models import matches
from madcrow_events.signals._old_names import present_name
from madcrow_events.signals._registry import (
    UNDECLARED,
    declared_in,
    is_declared_on_first_use,
    patterns_in,
)
from madcrow_events.signals._subscribing import is_pattern
from madcrow_events.subscriptions._patterns import matches_nothing
from madcrow_events.subscriptions._subscription import is_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from madcrow_events.cli._doctor._sources import Call, Sources
    from madcrow_events.handlers import HandlerGroup
    from madcrow_events.subscriptions import Subscription
    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["Undeclared", "listening", "noting_undeclared", "undeclared", "unmatched"]

_OPTIONS = ("background", "batch", "on_error", "once", "priority", "sender", "timeout", "when")

_NAMING = (emit_event, emit_event_async, on_event, register_handler)
"""What takes the name of an event of the default registry, which must be declared."""


class Undeclared(NamedTuple):
    """A use of a name that was not declared.

    Attributes:
        error: the error that the use would have raised.
        place: where the name was used.
        signal: what stood in for the signal of such an event; None if the application caught the
            error.
    """

    error: UnknownEventError
    place: Place
    signal: EventSignal[Any] | None

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """What was subscribed to the signal."""
        return () if self.signal is None else self.signal.subscriptions


@contextmanager
def noting_undeclared() -> Iterator[list[Undeclared]]:
    """Return a `with` block in which the use of an undeclared name is noted, and ends no import.

    What is subscribed to such a name goes to a signal that no name finds. Where the application
    catches the error, it is raised, because that is what the application waits for.

    Yields:
        The uses so far.
    """
    noted: list[Undeclared] = []
    trees: dict[str, ast.Module] = {}

    def stand_in(error: UnknownEventError) -> EventSignal[Any]:
        place = calling_place()
        if is_caught(error, trees):
            noted.append(Undeclared(error, place, None))
            raise error
        signal: EventSignal[Any] = EventSignal(error.event)
        noted.append(Undeclared(error, place, signal))
        return signal

    token = UNDECLARED.set(stand_in)
    try:
        yield noted
    finally:
        UNDECLARED.reset(token)


def undeclared(
    signals: SignalRegistry,
    noted: Sequence[Undeclared],
    groups: Iterable[HandlerGroup],
    sources: Sources,
) -> Iterator[Finding]:
    """Yield a finding for each use of a name that nobody declares.

    Args:
        signals: the registry.
        noted: the uses while the application was imported.
        groups: the groups of the application.
        sources: the sources of the application.
    """
    groups = [*groups]
    later = {name for name, _ in sources.declared_later()}
    declared = {*later, *(name for group in groups for name in events_of(group))}
    caught = {it.place[:2] for it in noted if it.signal is None}
    uses = [it for it in noted if it.signal is not None]
    for use in sorted(uses, key=lambda it: not it.subscriptions):  # those with handlers first
        origins = {id(it.origin) for it in use.subscriptions}
        if not origins & {id(group) for group in groups}:  # each line of a group is told below
            handlers = [handler_name(it.handler) for it in use.subscriptions]
            yield _undeclared(signals, use.error.event, use.place, handlers)
    for group in groups:
        for it in declared_handlers(group):
            name = it.event
            if (
                isinstance(name, str)
                and not it.is_optional
                and _is_missing(signals, name, declared)
            ):
                yield _undeclared(signals, name, it.place, [handler_name(it.handler)])
    yield from _of_first_use(signals)
    if signals.strict:
        later_uses = _in_functions(signals, declared, sources)
        yield from (it for it in later_uses if (it["file"], it["line"]) not in caught)


def _undeclared(
    signals: SignalRegistry,
    event: str,
    place: Line | Place | None,
    handlers: list[str],
    *,
    is_known: bool | None = None,
) -> Finding:
    if is_known is None:
        is_known = signals.get(event) is not None
    use = f"{handlers[0]} handles {event}" if handlers else f"{event} is used"
    if is_known:
        message = f"{use} before that event is declared"
        fix = "import the module that declares it first"
    else:
        message = f"{use}, and nobody declares that event"
        near = close_matches(event, [it for it in signals if it != event], 1)
        fix = f"write {near[0]}, or " if near else ""
        fix += "declare it in a module that is imported first"
    return finding("undeclared_event", event, message, fix, place)


def _of_first_use(signals: SignalRegistry) -> Iterator[Finding]:
    """Yield the events that a registry declares only because somebody subscribes to them."""
    for signal in declared_in(signals):
        handlers = [it.handler for it in signal.subscriptions if not is_part(it)]
        if handlers and is_declared_on_first_use(signal):
            names, place = [*map(handler_name, handlers)], line_of(handlers[0])
            yield _undeclared(signals, signal.name, place, names, is_known=False)


def _in_functions(
    signals: SignalRegistry, declared: set[str], sources: Sources
) -> Iterator[Finding]:
    """Yield the undeclared names in calls that were not executed."""
    for call in sources.calls:
        name = call.first
        if (
            call.source.is_own
            and type(name) is str
            and _registry_of(call) is signals
            and _is_missing(signals, name, declared)
            and not catches(call.source.tree, call.node.lineno, UnknownEventError)
        ):
            yield _undeclared(signals, name, call.line, [])


def _registry_of(call: Call) -> object:
    """Return the registry in which a call looks up its first argument; None if it is unknown."""
    if any(call.function is it for it in _NAMING):
        given = [it.value for it in call.node.keywords if it.arg == "signals"]
        if given:
            return call.source.value_of(given[0])
        return None if call.has_keyword("signals") else madcrow_signals
    function = call.node.func
    holder = call.source.value_of(function.value) if isinstance(function, ast.Attribute) else None
    if call.name == "subscribe":
        return holder
    if call.name in ("emit", "emit_async") and type(holder) is EventDispatcher:
        return holder.signals
    return None


def _is_missing(signals: SignalRegistry, name: str, declared: set[str]) -> bool:
    """Whether a name is that of no event, neither now nor later, nor an old name."""
    canonical = present_name(signals, name.replace("-", "_"))
    known = canonical in signals or canonical in declared or canonical == HANDLER_FAILED
    return not known and not is_pattern(name)


def unmatched(
    signals: SignalRegistry, groups: Iterable[HandlerGroup], sources: Sources
) -> Iterator[Finding]:
    """Yield a finding for each pattern, and each class, that no event matches.

    Events count that a group declares, or a line of the sources, even if that did not happen yet.

    Args:
        signals: the registry.
        groups: the groups of the application.
        sources: the sources of the application.
    """
    groups = [*groups]
    later = [(it.name, it.model) for group in groups for it in declared_signals(group)]
    later += sources.declared_later()
    found: list[tuple[Pattern, str, Line | Place | None]] = [
        (it.pattern, it.name, line_of(it.handler))
        for it in patterns_in(signals)
        if matches_nothing(it)
    ]
    found += [
        (it.event, handler_name(it.handler), it.place)
        for group in unregistered(signals, groups)
        for it in declared_handlers(group)
        if (is_pattern(it.event) or it.is_optional)
        and not any(matches(has, it.event) for has in declared_in(signals))
    ]
    for pattern, handler, place in found:
        if not any(_fits(pattern, name, model) for name, model in later):
            yield _unmatched(signals, pattern, handler, place)


def _fits(pattern: Pattern, name: str, model: type | None) -> bool:
    """Whether a pattern or a class matches an event with this name and model."""
    if isinstance(pattern, str):
        return fnmatchcase(name, pattern)
    return model is not None and pattern in model.__mro__


def _unmatched(
    signals: SignalRegistry, pattern: Pattern, handler: str, place: Line | Place | None
) -> Finding:
    kind: FindingKind = "unmatched_pattern"
    shown = pattern if isinstance(pattern, str) else handler_name(pattern)
    message = f"{handler} listens to {shown}, which matches no event"
    fix = "correct the pattern, or import the module that declares such events"
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
