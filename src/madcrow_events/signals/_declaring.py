"""Declaring an event: which declarations are one, and which are in conflict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._executions import execution_of
from madcrow_events._names import HANDLER_FAILED, canonical_name
from madcrow_events._places import Place, calling_place
from madcrow_events._text import names_apart, type_name
from madcrow_events.exceptions import ContextModelError, SignalConflictError
from madcrow_events.models import HandlerFailedEventContext, prepare
from madcrow_events.signals._keys import check_key, is_same_key, keys_shown
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
    from madcrow_events.signals._keys import Key
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.subscriptions import PatternSubscription

__all__ = ["FIRST_USE", "declare"]

FIRST_USE: Final = Place("", 0, "")
"""The place of an event that nobody has declared, but somebody has used: its first use did."""


def declare(
    registry: SignalRegistry,
    name: str,
    doc: str | None = None,
    context: type[Any] | None = None,
    formerly: str | Iterable[str] = (),
    *,
    key: Key | None = None,
    place: Place | None = None,
    is_first_use: bool = False,
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
        is_first_use: whether nobody declares it, but somebody uses it in a registry that is not
            strict.
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
    signal = registry._find(name)
    is_look_up = context is None and key is None  # if the event is known; then no place is needed
    if signal is None or not is_look_up or signal._place is FIRST_USE:
        place = place or calling_place()
        key_execution = _key_execution(name, key, context, signal, place)
        execution = None
        if isinstance(context, type) and (signal is None or signal.context_model is not context):
            execution = execution_of(context, context.__module__)
        wanted = _Wanted(given, doc, context, execution, key, key_execution, place, is_first_use)
        signal = _declared(registry, name, wanted, again)
    if old_names:
        give_old_names(registry, signal, tuple(it for it in old_names if it != signal.name))
    return signal


class _Wanted(NamedTuple):
    """What a declaration says of an event.

    Attributes:
        given: the name of the event, which may be an old one.
        doc: what the event means.
        model: the model of its contexts, or None.
        execution: that of the module that defines the model.
        key: its ordering key, or None.
        key_execution: that of the module that declares the key.
        place: where it is declared.
        is_first_use: whether it is not declared, but used.
    """

    given: str
    doc: str | None
    model: type[Any] | None
    execution: Execution | None
    key: Key | None
    key_execution: Execution | None
    place: Place
    is_first_use: bool


def _declared(
    registry: SignalRegistry, name: str, wanted: _Wanted, again: EventSignal[Any] | None
) -> EventSignal[Any]:
    """Return the signal of an event, which is as the declaration wants it."""
    waiting: list[PatternSubscription] = []
    with registry._lock:
        name = present_name(registry, name)  # another thread may have renamed it meanwhile
        signal = registry._find(name)
        if signal is None:
            signal = again or _set_aside(registry, name, wanted) or _made(registry, name, wanted)
            waiting = _enter(registry, signal)
    extend_all(waiting, [signal])
    before = signal.context_model
    if wanted.model is not None and before is not wanted.model:
        _take_model(registry, signal, wanted.model, wanted)
    is_declared_now = signal._place is FIRST_USE and not wanted.is_first_use
    if is_declared_now:
        signal._describe(wanted.doc)
    if is_declared_now or signal.context_model is not before:
        _note(signal, wanted)
    elif wanted.key is not None:
        _take_key(signal, wanted.key, wanted)
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
    place: Place,
) -> Execution | None:
    """Check the key of an event; return the present execution of the module that declares it."""
    if key is None:
        return None
    if model is None and known is not None:
        model = known.context_model
    check_key(event, key, model)
    return execution_of(None, place.module)


def _made(registry: SignalRegistry, name: str, wanted: _Wanted) -> EventSignal[Any]:
    model = HandlerFailedEventContext if name == HANDLER_FAILED else wanted.model
    signal: EventSignal[Any] = EventSignal(name, wanted.doc, context=model)
    signal._registry = registry
    signal._execution = wanted.execution
    _note(signal, wanted)
    return signal


def _note(signal: EventSignal[Any], wanted: _Wanted) -> None:
    place = FIRST_USE if wanted.is_first_use else wanted.place
    signal._note_declaration(wanted.key, wanted.key_execution, place)


def _take_model(
    registry: SignalRegistry, signal: EventSignal[Any], model: type[Any], wanted: _Wanted
) -> None:
    """Let an event carry a model that is not the one it has, if that comes from a new execution."""
    before = signal.context_model
    registry._models.forget()
    if not signal._take_model(model, wanted.execution):
        there, here = "no context model", type_name(model)
        if before is not None:
            here, there = names_apart(model, before)
        fix = "declare it once, with its model, and import its class elsewhere"
        if signal.name in registry._built_in:
            fix = f"use the built-in event, as in @on_event({there}), or choose another name"
        raise _declared_otherwise(signal, wanted, there, here, fix)
    registry._models.forget()
    if signal.context_model is not before:
        signal._describe(wanted.doc or signal.doc)
        follow_model(registry, signal)
        registry._fake(signal)


def _take_key(signal: EventSignal[Any], key: Key, wanted: _Wanted) -> None:
    """Let an event have a key that is not the one it has, if that comes from a new execution."""
    execution, before = wanted.key_execution, signal._key_execution
    if execution is not None and before is not None and execution.is_again(before):
        _note(signal, wanted)
    elif not is_same_key(key, signal.key):
        there, here = keys_shown(signal.key, key)
        fix = "declare it once, with its key, and import it elsewhere"
        raise _declared_otherwise(signal, wanted, there, here, fix)


def _declared_otherwise(
    signal: EventSignal[Any], wanted: _Wanted, there: str, here: str, fix: str
) -> SignalConflictError:
    name, given = signal.name, wanted.given
    what = name if given == name else f"{given} is called {name} now, which"
    return SignalConflictError(
        f"{what} is declared already, with {there}, not with {here}: {fix}",
        event=name,
        declared=signal.context_model,
        requested=wanted.model,
    )


def _set_aside(registry: SignalRegistry, name: str, wanted: _Wanted) -> EventSignal[Any] | None:
    """Return the signal that an event had outside of an `isolated` block, if it may have it."""
    signal = registry._set_aside.get(name)
    if signal is not None:
        become_itself(signal)  # it may have had another name in this block
        is_same_model = wanted.model is None or wanted.model is signal.context_model
        if is_same_model and (wanted.key is None or is_same_key(wanted.key, signal.key)):
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
