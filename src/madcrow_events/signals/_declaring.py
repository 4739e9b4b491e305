"""Declaring an event: which declarations are one, and which are in conflict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._executions import execution_of
from madcrow_events._names import HANDLER_FAILED, canonical_name
from madcrow_events._places import calling_place
from madcrow_events._text import names_apart, type_name
from madcrow_events.exceptions import ContextModelError, SignalConflictError
from madcrow_events.models import HandlerFailedEventContext, prepare
from madcrow_events.signals._keys import check_key, key_shown
from madcrow_events.signals._old_names import become_itself, noted_name, present_name
from madcrow_events.signals._renaming import (
    check_handlers,
    check_old_names,
    give_old_names,
    read_old_names,
)
from madcrow_events.signals._signal import EventSignal, check_model
from madcrow_events.signals._subscribing import extend_all, follow_model
from madcrow_events.subscriptions._subscription import is_optional

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events._executions import Execution
    from madcrow_events._places import Place
    from madcrow_events.signals._keys import Key
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.subscriptions import PatternSubscription

__all__ = ["declare"]


def declare(
    registry: SignalRegistry,
    name: str,
    doc: str | None = None,
    context: type[Any] | None = None,
    formerly: str | Iterable[str] = (),
    *,
    key: Key | None = None,
    place: Place | None = None,
    again: EventSignal[Any] | None = None,
) -> EventSignal[Any]:
    """Declare an event as `SignalRegistry.signal` does, for groups and plugins.

    Args:
        registry: the registry.
        name: the name of the event.
        doc: what the event means.
        context: the model of its typed contexts, or None.
        formerly: its old names.
        key: its ordering key, or None.
        place: where the group declares it, unless the calling line does that.
        again: the signal that a forgotten event had, and has again.
    """
    given = canonical_name(name)
    _check_doc(given, doc)
    name = noted_name(registry, given, place)
    old_names: tuple[str, ...] = ()
    if formerly != ():
        old_names = read_old_names(formerly)
        check_old_names(registry, name, given, old_names, context)
        check_handlers(registry, name, old_names)
    if context is not None:
        check_model(name, context)
        prepare(context)  # outside of the lock: it may run code of the model's author
    known = registry._find(name)
    key_execution = _key_execution(name, key, context, known, place)
    execution = None
    if isinstance(context, type) and (known is None or known.context_model is not context):
        execution = execution_of(context, context.__module__)
    waiting: list[PatternSubscription] = []
    with registry._lock:
        name = present_name(registry, name)  # another thread may have renamed it meanwhile
        signal = registry._find(name)
        if signal is None:
            signal = again or _set_aside(registry, name, context, key)
            if signal is None:
                signal = _made(registry, name, doc, context, execution)
                signal._order_by(key, key_execution)
            waiting = _enter(registry, signal)
    extend_all(waiting, [signal])
    before = signal.context_model
    if context is not None and before is not context:
        _take_model(registry, signal, given, doc, context, execution)
    if signal.context_model is not before:
        signal._order_by(key, key_execution)
    elif key is not None:
        _take_key(signal, given, key, key_execution, context)
    if old_names:
        give_old_names(registry, signal, tuple(it for it in old_names if it != name))
    return signal


def _check_doc(event: str, doc: object) -> None:
    if not isinstance(doc, str | None):
        raise ContextModelError(
            f"the second argument is a text that says what {event} means: give the model as "
            f"signal('{event}', context={type_name(doc)})",
            event=event,
            model=doc,
        )


def _key_execution(
    event: str,
    key: Key | None,
    model: type[Any] | None,
    known: EventSignal[Any] | None,
    place: Place | None,
) -> Execution | None:
    """Check the key of an event; return the present execution of the module that declares it."""
    if key is None:
        return None
    if model is None and known is not None:
        model = known.context_model
    check_key(event, key, model)
    return execution_of(None, (place or calling_place()).module)


def _made(
    registry: SignalRegistry,
    name: str,
    doc: str | None,
    model: type[Any] | None,
    execution: Execution | None,
) -> EventSignal[Any]:
    model = HandlerFailedEventContext if name == HANDLER_FAILED else model
    signal: EventSignal[Any] = EventSignal(name, doc, context=model)
    signal._registry = registry
    signal._execution = execution
    return signal


def _take_model(
    registry: SignalRegistry,
    signal: EventSignal[Any],
    given: str,
    doc: str | None,
    model: type[Any],
    execution: Execution | None,
) -> None:
    """Let an event carry a model that is not the one it has, if that comes from a new execution."""
    before = signal.context_model
    registry._models.forget()
    if not signal._take_model(model, execution):
        there, here = "no context model", type_name(model)
        if before is not None:
            here, there = names_apart(model, before)
        fix = "declare it once, with its model, and import its class elsewhere"
        if signal.name in registry._built_in:
            fix = f"use the built-in event, as in @on_event({there}), or choose another name"
        raise _declared_otherwise(signal, given, model, there, here, fix)
    registry._models.forget()
    if signal.context_model is not before:
        signal._describe(doc or signal.doc)
        follow_model(registry, signal)
        registry._fake(signal)


def _take_key(
    signal: EventSignal[Any],
    given: str,
    key: Key,
    execution: Execution | None,
    model: type[Any] | None,
) -> None:
    """Let an event have a key that is not the one it has, if that comes from a new execution."""
    before = signal._key_execution
    is_again = execution is not None and before is not None and execution.is_again(before)
    if is_again:
        signal._order_by(key, execution)
    elif key != signal.key:
        there, here = key_shown(signal.key), key_shown(key)
        fix = "declare it once, with its key, and import it elsewhere"
        raise _declared_otherwise(signal, given, model, there, here, fix)


def _declared_otherwise(
    signal: EventSignal[Any],
    given: str,
    model: type[Any] | None,
    there: str,
    here: str,
    fix: str,
) -> SignalConflictError:
    name = signal.name
    what = name if given == name else f"{given} is called {name} now, which"
    return SignalConflictError(
        f"{what} is declared already, with {there}, not with {here}: {fix}",
        event=name,
        declared=signal.context_model,
        requested=model,
    )


def _set_aside(
    registry: SignalRegistry, name: str, model: type[Any] | None, key: Key | None
) -> EventSignal[Any] | None:
    """Return the signal that an event had outside of an `isolated` block, if it may have it."""
    signal = registry._set_aside.get(name)
    if signal is not None:
        become_itself(signal)  # it may have had another name in this block
        if model in (None, signal.context_model) and key in (None, signal.key):
            return signal
    return None


def _enter(registry: SignalRegistry, signal: EventSignal[Any]) -> list[PatternSubscription]:
    """Enter an event; return the optional subscriptions, which may have waited for it."""
    present = registry._patterns.live_and_recording()
    extend_all([it for it in present if not is_optional(it)], [signal])
    registry._fake(signal)
    registry._models.forget()
    dict.__setitem__(registry, signal.name, signal)
    registry._models.forget()
    return [it for it in present if is_optional(it)]
