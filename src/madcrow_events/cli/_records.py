"""What the command says of events and handlers: these are also the shapes of its JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from madcrow_events._names import canonical_name, unknown_event
from madcrow_events._text import handler_name
from madcrow_events.catalog._selection import select
from madcrow_events.cli._durable import DurableRecord, durable_handlers, durable_records
from madcrow_events.cli._errors import CommandError
from madcrow_events.cli._places import line_of
from madcrow_events.exceptions import InvalidEventNameError
from madcrow_events.signals._explaining import CallMode, calling_order, origin_of
from madcrow_events.signals._old_names import old_names_in, present_name
from madcrow_events.signals._registry import declared_at, declared_in, is_built_in
from madcrow_events.subscriptions import ANY
from madcrow_events.subscriptions._identity import sender_name
from madcrow_events.subscriptions._subscription import pattern_of

if TYPE_CHECKING:
    from madcrow_events.signals import EventSignal, SignalRegistry
    from madcrow_events.subscriptions import Subscription

__all__ = [
    "EventRecord",
    "HandlerRecord",
    "HandlersRecord",
    "event_records",
    "found_event",
    "handlers_records",
    "matching",
]


class EventRecord(TypedDict):
    """An event, as `events --json` lists it."""

    event: str
    """The name."""
    description: str | None
    """What it means."""
    model: str | None
    """The dotted name of the context class."""
    key: str | None
    """The ordering key: the name of a field, or of a function."""
    formerly: list[str]
    """The old names."""
    handlers: int
    """How many handlers listen, to this event alone or by a pattern or a class; durable ones count,
    too."""
    built_in: bool
    """Whether madcrow-events itself declares it."""
    file: str | None
    """The path of the file that declares it."""
    line: int | None
    """The number of the line there."""


class HandlerRecord(TypedDict):
    """A handler of an event, as `handlers --json` lists it."""

    name: str
    """Its `id`, or else the dotted name of the function."""
    function: str
    """The dotted name of the function."""
    id: str | None
    """The option `id`."""
    priority: int
    """The option `priority`; a higher one runs earlier."""
    condition: str | None
    """The dotted name of the function `when`."""
    mode: CallMode
    """`inline`, `awaited`, `background` or `batch`."""
    once: bool
    """Whether its first call ends the subscription."""
    weak: bool
    """Whether the subscription ends with the object whose method it is."""
    timeout: float | None
    """The option `timeout`, in seconds."""
    on_error: str | None
    """The option `on_error`."""
    sender: str | None
    """The one sender that it listens to, in words."""
    pattern: str | None
    """The pattern, or the name of the class, that it is subscribed to."""
    origin: str | None
    """The plugin or the group that subscribed it."""
    file: str | None
    """The path of the file that defines it."""
    line: int | None
    """The number of the line there."""


class HandlersRecord(TypedDict):
    """An event with its handlers, as `handlers --json` lists it."""

    event: str
    """The name."""
    model: str | None
    """The dotted name of the context class."""
    built_in: bool
    """Whether madcrow-events itself declares it."""
    handlers: list[HandlerRecord]
    """The handlers, in the order in which they are called or started."""
    durable: list[DurableRecord]
    """The durable handlers, sorted by id."""


def found_event(signals: SignalRegistry, name: str) -> EventSignal[Any]:
    """Return the signal of a name.

    Args:
        signals: the registry.
        name: the name, also an old one.

    Raises:
        CommandError: no event has this name.
    """
    try:
        canonical = canonical_name(name)
    except InvalidEventNameError as malformed:
        raise CommandError(str(malformed)) from malformed
    signal: EventSignal[Any] | None = signals.get(present_name(signals, canonical))
    if signal is not None:
        return signal
    error, hint = unknown_event(canonical, signals, old_names_in(signals)), ""
    if error.suggestions:
        hint = f": did you mean {' or '.join(error.suggestions)}?"
    elif all(is_built_in(signals, it) for it in declared_in(signals)):
        hint = ": only the built-in events are declared"
    raise CommandError(f"no event is called '{error.event}'{hint}")


def matching(signals: SignalRegistry, pattern: str) -> list[EventSignal[Any]]:
    """Return the declared events that a pattern matches, sorted by name.

    Args:
        signals: the registry.
        pattern: the pattern, in which `*` stands for any characters, or the name of one event.

    Raises:
        CommandError: the pattern is malformed, or matches nothing.
    """
    if "*" not in pattern:
        return [found_event(signals, pattern)]
    try:
        found = select(signals, pattern)
    except InvalidEventNameError as error:
        raise CommandError(str(error)) from error
    if not found and pattern != "*":
        raise CommandError(f"no event matches '{pattern}'")
    return found


def event_records(signals: SignalRegistry, pattern: str = "*") -> list[EventRecord]:
    """Return the events that a pattern matches, sorted by name.

    Args:
        signals: the registry.
        pattern: as for `matching`.
    """
    return [event_record(signals, it) for it in matching(signals, pattern)]


def event_record(signals: SignalRegistry, signal: EventSignal[Any]) -> EventRecord:
    """Return the record of one event."""
    place = declared_at(signal)
    return {
        "event": signal.name,
        "description": signal.doc,
        "model": _model_of(signal),
        "key": _key_of(signal),
        "formerly": [*signal.formerly],
        "handlers": len(calling_order(signal)) + len(durable_handlers(signals, signal)),
        "built_in": is_built_in(signals, signal),
        "file": None if place is None else place.file,
        "line": None if place is None else place.line,
    }


def _model_of(signal: EventSignal[Any]) -> str | None:
    return None if signal.context_model is None else handler_name(signal.context_model)


def _key_of(signal: EventSignal[Any]) -> str | None:
    key = signal.key
    return key if key is None or isinstance(key, str) else handler_name(key)


def handlers_records(signals: SignalRegistry, pattern: str = "*") -> list[HandlersRecord]:
    """Return the events that a pattern matches, each with its handlers in calling order.

    Args:
        signals: the registry.
        pattern: as for `matching`.
    """
    return [
        {
            "event": it.name,
            "model": _model_of(it),
            "built_in": is_built_in(signals, it),
            "handlers": handler_records(signals, it),
            "durable": durable_records(signals, it),
        }
        for it in matching(signals, pattern)
    ]


def handler_records(signals: SignalRegistry, signal: EventSignal[Any]) -> list[HandlerRecord]:
    """Return the handlers of one event, in calling order."""
    return [_handler_record(signals, it, mode) for it, mode in calling_order(signal)]


def _handler_record(
    signals: SignalRegistry, subscription: Subscription, mode: CallMode
) -> HandlerRecord:
    line = line_of(subscription.handler)
    return {
        "name": subscription.name,
        "function": handler_name(subscription.handler),
        "id": subscription.id,
        "priority": subscription.priority,
        "condition": None if subscription.when is None else handler_name(subscription.when),
        "mode": mode,
        "once": subscription.once,
        "weak": subscription.weak,
        "timeout": subscription.timeout,
        "on_error": subscription.on_error,
        "sender": None if subscription.sender is ANY else sender_name(subscription.sender),
        "pattern": pattern_of(subscription),
        "origin": origin_of(signals, subscription),
        "file": None if line is None else line.file,
        "line": None if line is None else line.line,
    }
