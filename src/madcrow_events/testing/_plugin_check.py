"""Trying a plugin in the way in which an application would load it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from madcrow_events._names import HANDLER_FAILED, canonical_name
from madcrow_events._text import close_matches, handler_name, type_name
from madcrow_events.dispatcher import EventDispatcher, set_event_dispatcher
from madcrow_events.exceptions import (
    InvalidOptionError,
    MadcrowEventsError,
    UnknownEventError,
    WouldDeadlockError,
)
from madcrow_events.handlers import HandlerGroup
from madcrow_events.handlers._declaring import events_of, handlers_of, old_names_of
from madcrow_events.models import BaseEventContext
from madcrow_events.plugins import Plugin, unload_plugin
from madcrow_events.plugins._footprint import is_of, outside_of_group
from madcrow_events.plugins._loading import load
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._models import matches
from madcrow_events.signals._old_names import present_name
from madcrow_events.signals._registry import declared_in
from madcrow_events.subscriptions import ANY
from madcrow_events.subscriptions._identity import sender_key
from madcrow_events.testing.recorder import Recorder, record_events, shown

Example: TypeAlias = BaseEventContext | Mapping[str, Any]

__all__ = ["assert_plugin_works"]

_TIMES = 2  # the second load shows what the first one left behind
_SECONDS = 10.0


def assert_plugin_works(
    group: HandlerGroup, /, *, examples: Mapping[str, Example] | None = None
) -> None:
    """Fail unless a plugin loads, handles its events, unloads, and leaves nothing behind.

    The plugin is loaded twice, among the built-in events, with no other handlers. Each event to
    which it subscribes is emitted once, or once for each sender to which it subscribes. Every
    handler must be called, and none may fail. The handlers really run: if one of them sends a mail,
    replace the function that sends it in your test.

    You give the contexts as `examples`. For an event without an example, Hypothesis makes up a
    context (install `madcrow-events[testing]`). If the event has no model either, its context is
    empty.

    Args:
        group: the `HandlerGroup` that the plugin exports.
        examples: by the name of an event, the context to emit: a model, or a mapping of keywords.
            If nobody has declared the event, because it belongs to the application, the example
            declares it.

    Raises:
        AssertionError: the plugin fails one of these checks. The message says which.
        InvalidOptionError: an example is neither a model nor a mapping of keywords.
        ImportError: Hypothesis is needed, and is not installed.

    Example:
        ```python
        from madcrow_events import HandlerGroup
        from madcrow_events.testing import assert_plugin_works

        group = HandlerGroup("invoices")


        @group.on("order_placed")
        def send_invoice(order_id: int) -> None:
            print("invoice for order", order_id)


        assert_plugin_works(group, examples={"order_placed": {"order_id": 7}})
        ```

        ```text
        invoice for order 7
        invoice for order 7
        ```
    """
    given: object = group
    if not isinstance(given, HandlerGroup):
        raise AssertionError(  # noqa: TRY004  # a test that calls this expects AssertionError
            f"a plugin exports one HandlerGroup, but this is {type_name(type(given))}"
        )
    if not group.handlers:
        raise AssertionError(f"{group!r} would do nothing: add handlers with @group.on(...)")
    _refuse_others(group)
    by_event = _checked(examples if examples is not None else {})
    with madcrow_signals.isolated(empty=True) as signals:
        signals.signal(HANDLER_FAILED)  # or the recorder would leave it behind
        _declare(group, by_event, signals)
        for _ in range(_TIMES):
            _try(group, by_event, signals)


def _declare(group: HandlerGroup, by_event: dict[str, Example], signals: SignalRegistry) -> None:
    """Declare the events of examples that the group does not declare."""
    present = events_of(group) | old_names_of(group) | set(signals)
    for event, example in by_event.items():
        if event not in present:
            model = type(example) if isinstance(example, BaseEventContext) else None
            signals.signal(event, context=model)  # type: ignore[arg-type]  # None is the same as left out


def _refuse_others(group: HandlerGroup) -> None:
    """Refuse handlers that the module subscribed by itself, as `load_plugins` would."""
    handlers = [handler for _, handler in group.handlers]
    modules = {str(getattr(handler, "__module__", None)) for handler in handlers}
    for subscription in madcrow_signals.subscriptions:
        handler, origin = subscription.handler, subscription.origin
        if origin is not group and any(is_of(module, handler) for module in modules):
            raise AssertionError(outside_of_group(subscription))


def _checked(examples: object) -> dict[str, Example]:
    if not isinstance(examples, Mapping):
        raise InvalidOptionError(
            "examples must be a mapping: examples={'order_placed': {'order_id': 7}}",
            option="examples",
        )
    for event, example in examples.items():
        if not isinstance(example, BaseEventContext | Mapping):
            raise InvalidOptionError(
                f"the example of {event} must be a context or a mapping of keywords, not "
                f"{type_name(type(example))}",
                option="examples",
            )
        if isinstance(example, Mapping) and not all(
            isinstance(name, str) and name != "sender" for name in example
        ):
            raise InvalidOptionError(
                f"the keys of the example of {event} must be keywords of its context, not sender",
                option="examples",
            )
    return {canonical_name(event): example for event, example in examples.items()}


def _try(group: HandlerGroup, examples: Mapping[str, Example], signals: SignalRegistry) -> None:
    present = set(signals)
    report = load(Plugin(group.name, "tried", "", "", "tried:group"), signals, lambda _: group)
    if not report.ok:
        hint = ""
        if isinstance(report.exception, UnknownEventError):
            event = report.exception.event
            hint = f". If the application declares it, give an example: examples={{'{event}': ...}}"
        raise AssertionError(f"it cannot be loaded: {report.reason}{hint}") from report.exception
    examples = {present_name(signals, event): example for event, example in examples.items()}
    reached = _reached(group, examples, signals)
    dispatcher = EventDispatcher(signals, log_tracebacks=False)
    set_event_dispatcher(dispatcher)  # for handlers that emit; undone with the isolation
    with record_events(signals=signals) as events:  # also those that its handlers emit
        try:
            for signal, sender in reached:
                _emit(dispatcher, signal, sender, examples.get(signal.name))
        finally:
            have_ended = _close(dispatcher)
    if not have_ended:
        raise AssertionError(f"its handlers did not end within {_SECONDS} s")
    _look_at(group, events, signals)
    unload_plugin("tried", signals=signals)
    if signals.subscriptions:
        raise AssertionError(
            f"it leaves subscriptions behind that are not its group's: {signals.subscriptions}"
        )
    left = set(signals) - present
    if left:
        raise AssertionError(f"it leaves events behind that are not its group's: {sorted(left)}")


def _reached(
    group: HandlerGroup, examples: Mapping[str, Example], signals: SignalRegistry
) -> list[tuple[EventSignal[Any], Any]]:
    """Return the signals that the group subscribes to, each with each sender it subscribes to."""
    reached = {
        (signal.name, sender_key(subscription.sender)): (signal, subscription.sender)
        for signal in declared_in(signals)
        for subscription in signal.subscriptions
        if subscription.origin is group
    }
    events = {event for event, _ in reached}
    for event in examples.keys() - events:
        near = close_matches(event, events, 1)
        raise AssertionError(
            f"there is an example of {event}, but no handler of the plugin is for it"
            + (f": did you mean {near[0]}?" if near else "")
        )
    if not reached:
        raise AssertionError(
            f"no declared event reaches the handlers of {group!r}: give an example of an event "
            "that the application declares, examples={'order_placed': ...}"
        )
    return list(reached.values())


def _emit(
    dispatcher: EventDispatcher, signal: EventSignal[Any], sender: object, example: Example | None
) -> None:
    sender = None if sender is ANY else sender
    if example is None and signal.context_model is not None:
        from madcrow_events.testing.strategies import simplest  # it needs the extra

        try:
            example = simplest(signal.context_model)
        except InvalidOptionError as error:
            raise AssertionError(
                f"no context of {signal.name} can be made up: give an example, "
                f"examples={{'{signal.name}': ...}}"
            ) from error
    try:
        if isinstance(example, BaseEventContext):
            dispatcher.emit_typed(signal, example, sender)
        else:
            dispatcher.emit(signal, sender, **(example or {}))
    except MadcrowEventsError as error:
        raise AssertionError(f"the example of {signal.name} cannot be emitted: {error}") from error


def _close(dispatcher: EventDispatcher) -> bool:
    try:
        return dispatcher.close(_SECONDS)
    except WouldDeadlockError as error:
        raise AssertionError(
            "assert_plugin_works cannot wait for async handlers inside of an event loop: write "
            "its test as a plain function"
        ) from error


def _look_at(group: HandlerGroup, events: Recorder, signals: SignalRegistry) -> None:
    called = []
    for emission in events.emissions:
        called += [(emission.signal, result.handler) for result in emission.results]
        for handler, exception in emission.failures:
            raise AssertionError(
                f"{handler_name(handler)} failed on {shown(emission)}: {type_name(type(exception))}"
                ". If the application never emits it like this, give an example of how it does: "
                f"examples={{'{emission.event}': ...}}"
            ) from exception
    for wanted, handler, is_optional in handlers_of(group):
        reached = [it.name for it in declared_in(signals) if matches(it, wanted)]
        if is_optional and not reached:
            continue
        if not any(it == handler and matches(signal, wanted) for signal, it in called):
            shown_event = wanted if isinstance(wanted, str) else type_name(wanted)
            raise AssertionError(
                f"{handler_name(handler)} was not called for {shown_event}: give an example that "
                f"its `when` lets through, examples={{'{next(iter(reached), 'event_name')}': ...}}"
            )
