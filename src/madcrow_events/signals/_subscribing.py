"""How a handler is subscribed to an event, or to all events that a pattern or class matches."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from madcrow_events._executions import have_one_definition
from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED, canonical_name
from madcrow_events._text import type_name
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import HandlerSignatureError
from madcrow_events.models import BaseEventContext, HandlerFailedEventContext
from madcrow_events.signals._blinker_signal import translated
from madcrow_events.signals._models import matches
from madcrow_events.signals._old_names import present_name
from madcrow_events.signals._signal import check_model
from madcrow_events.subscriptions import PatternSubscription, Subscription, SubscriptionOptions
from madcrow_events.subscriptions._options import check_options
from madcrow_events.subscriptions._patterns import OptionalSubscription, Pattern, extend
from madcrow_events.subscriptions._redefinition import defined_earlier, end_replaced, find_replaced
from madcrow_events.subscriptions._signatures import read_call_spec
from madcrow_events.subscriptions._subscription import end

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from madcrow_events.emissions._plan import CallSpec
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.signals._signal import EventSignal

__all__ = [
    "canonical_pattern",
    "extend_all",
    "follow_model",
    "is_pattern",
    "subscribe_as",
    "unsubscribe",
]


def is_pattern(event: object) -> TypeGuard[Pattern]:
    """Whether what a handler is for may be many events: a pattern or a context class."""
    if isinstance(event, str):
        return "*" in event
    return isinstance(event, type) and issubclass(event, BaseEventContext)


def canonical_pattern(event: Pattern) -> Pattern:
    """Return the canonical form of a name or pattern, and a context class as it is.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        ContextModelError: the class cannot be the model of an event.
    """
    if isinstance(event, type) and issubclass(event, BaseEventContext):
        check_model(type_name(event), event)
        return event
    return canonical_name(event, pattern=is_pattern(event))


def subscribe_as(
    registry: SignalRegistry,
    event: str | EventSignal[Any] | type[BaseEventContext],
    handler: Callable[..., Any],
    options: SubscriptionOptions,
    origin: object = None,
    *,
    is_optional: bool = False,
    wrap: Callable[[CallSpec], CallSpec] | None = None,
    replaced: list[Subscription] | None = None,
) -> Subscription:
    """Subscribe a handler as `SignalRegistry.subscribe` does, for groups and recorders.

    Args:
        registry: the registry.
        event: an event's name or signal, a pattern or a context class.
        handler: the handler.
        options: its options.
        origin: the group, or `RECORDER`, that the subscription belongs to.
        is_optional: whether the event, given by its name, may never be declared.
        wrap: takes the handler's call spec, and returns the one to call it by.
        replaced: gets the subscriptions that this one replaces; if None, they end at once.
    """
    # A recorder's names count as patterns, so that it also hears events that are declared anew.
    waits = is_optional or origin is RECORDER
    if not is_pattern(event) and not (isinstance(event, str) and waits):
        return registry.resolve(event)._subscribe(handler, options, origin, wrap, replaced)
    pattern, patterns = _present_form(registry, canonical_pattern(event)), registry._patterns
    if pattern is HandlerFailedEventContext or (is_optional and pattern == HANDLER_FAILED):
        registry.resolve(HANDLER_FAILED)  # it is declared when it is first needed
    check_options(options)
    if is_optional and isinstance(pattern, str):
        requested = _new_optional(registry, pattern, handler, options, wrap)
    else:
        requested = _new_pattern(registry, pattern, handler, options, wrap)
    requested.origin = origin
    earlier = find_replaced(requested, partial(_live, registry, pattern))
    with registry._lock:
        subscription = patterns.add(requested, earlier)
        present = registry._declared()
    if replaced is None:
        end_replaced(earlier)
    else:
        replaced += earlier
    if subscription is requested:
        # Outside of the lock: no thread may wait for a signal's lock while it has this one.
        extend_all([subscription], present)
    log(logging.DEBUG, "%s subscribed to %s", subscription.name, subscription.event)
    return subscription


def _new_pattern(
    registry: SignalRegistry,
    pattern: Pattern,
    handler: Callable[..., Any],
    options: SubscriptionOptions,
    wrap: Callable[[CallSpec], CallSpec] | None,
) -> PatternSubscription:
    is_batch = options.get("batch") is not None
    if isinstance(pattern, str):
        spec = read_call_spec(handler, pattern, None, pattern=True, batch=is_batch)
    else:
        formers = _earlier_forms(registry, pattern)
        spec = read_call_spec(
            handler, type_name(pattern), pattern, batch=is_batch, replaced=formers
        )
    if wrap is not None:
        spec = wrap(spec)
    return PatternSubscription(registry._patterns, pattern, handler, spec, translated(options))


def _new_optional(
    registry: SignalRegistry,
    name: str,
    handler: Callable[..., Any],
    options: SubscriptionOptions,
    wrap: Callable[[CallSpec], CallSpec] | None,
) -> PatternSubscription:
    """Return a subscription to an event that may never be declared.

    Raises:
        HandlerSignatureError: the event is declared already, and the handler does not fit it; or
            the handler fits no event at all.
    """
    # An event without a model takes most handlers: those that no event could call are refused.
    spec = read_call_spec(handler, name, None, batch=options.get("batch") is not None)
    requested = OptionalSubscription(
        registry._patterns, name, handler, spec, translated(options), wrap
    )
    signal = registry._find(name)
    if signal is not None:
        _spec_in(requested, signal)
    return requested


def _spec_in(subscription: OptionalSubscription, signal: EventSignal[Any]) -> CallSpec:
    """Return how an optional handler is called in its event.

    Raises:
        HandlerSignatureError: the handler does not fit the event.
    """
    spec = read_call_spec(
        subscription.handler,
        signal.name,
        signal.context_model,
        batch=subscription.batch is not None,
        replaced=signal._replaced_models(),
    )
    return spec if subscription.wrap is None else subscription.wrap(spec)


def unsubscribe(
    registry: SignalRegistry,
    event: str | EventSignal[Any] | type[BaseEventContext],
    handler: Callable[..., Any],
) -> bool:
    """Cancel every subscription of a handler; see `SignalRegistry.unsubscribe`."""
    if is_pattern(event):
        return _cancel(registry, _present_form(registry, canonical_pattern(event)), handler)
    if isinstance(event, str):
        name = canonical_name(event)
        if registry._find(present_name(registry, name)) is None and registry._patterns.live(name):
            return _cancel(registry, name, handler)  # optional handlers wait for the event
    signal = registry.resolve(event)
    # A signal that somebody made directly is no event of the registry.
    names = () if signal._registry is None else (signal.name, *signal.formerly)
    were_optional = [_cancel(registry, name, handler) for name in names]
    return signal.unsubscribe(handler) or any(were_optional)


def _cancel(registry: SignalRegistry, pattern: Pattern, handler: Callable[..., Any]) -> bool:
    """Cancel the subscriptions of a handler to exactly a pattern, or the optional ones to a name.

    Returns:
        Whether there were any.
    """
    found: Collection[Subscription] = registry._patterns.of_handler(handler, pattern)
    found = found or defined_earlier(handler, partial(_live, registry, pattern))
    for entry in found:
        entry.cancel()
    return bool(found)


def extend_all(
    subscriptions: Iterable[PatternSubscription], signals: Iterable[EventSignal[Any]]
) -> None:
    """Subscribe the handlers of patterns and classes to the events that these match.

    So are those of optional subscriptions; one that does not fit its event is logged. They are not
    extended under a lock, because reading a signature may run its author's code.
    """
    for subscription in subscriptions:
        for signal in signals:
            if not matches(signal, subscription.pattern):
                continue
            if isinstance(subscription, OptionalSubscription):
                _extend_optional(subscription, signal)
            else:
                extend(subscription, signal._table, signal.name)


def _extend_optional(subscription: OptionalSubscription, signal: EventSignal[Any]) -> None:
    try:
        spec = _spec_in(subscription, signal)
    except HandlerSignatureError as misfit:
        log(logging.ERROR, "an optional handler is not subscribed: %s", misfit)
    else:
        extend(subscription, signal._table, signal.name, spec)


# Classes whose modules run again


def follow_model(registry: SignalRegistry, signal: EventSignal[Any]) -> None:
    """Let subscriptions to a model, or to bases of it, be for the classes that replaced these.

    Args:
        registry: the registry.
        signal: the signal, whose model was replaced.
    """
    for entry in registry._patterns.of_classes():
        signals = [signal]
        present = _present_form(registry, entry.pattern)
        if isinstance(present, type) and present is not entry.pattern:
            with registry._lock:
                is_free = registry._patterns.move(entry, present)
            if not is_free:
                end(entry, "replaced")
            signals = registry._declared()
        extend_all([entry], signals)


def _present_form(registry: SignalRegistry, pattern: Pattern) -> Pattern:
    """Return the class that has replaced a class; any other class, or a pattern, as it is."""
    if isinstance(pattern, type):
        for former, model in _replacements(registry):
            if pattern in former.__mro__:
                for base in model.__mro__:
                    if have_one_definition(base, pattern):
                        return base
    return pattern


def _earlier_forms(registry: SignalRegistry, model: type[Any]) -> tuple[type[Any], ...]:
    """Return the classes that a class has replaced; handlers may still name them."""
    return tuple(
        base
        for former, _ in _replacements(registry)
        for base in former.__mro__
        if base is not model and have_one_definition(base, model)
    )


def _replacements(registry: SignalRegistry) -> Iterator[tuple[type[Any], type[Any]]]:
    """Yield the models that were replaced because their module ran again, each with the new one."""
    for signal in registry._declared():
        for former in signal._replaced_models():
            yield former, signal._models[0]


def _live(registry: SignalRegistry, pattern: Pattern) -> list[PatternSubscription]:
    """Return the active subscriptions to a pattern, or to a class from any execution."""
    return [
        entry
        for entry in registry._patterns.live()
        if entry.pattern == pattern or have_one_definition(entry.pattern, pattern)
    ]
