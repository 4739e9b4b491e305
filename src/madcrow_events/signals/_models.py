"""Which event a model stands for, and which events a pattern or class matches."""

from __future__ import annotations

from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from madcrow_events._names import HANDLER_FAILED, canonical_name, name_after
from madcrow_events._text import names_apart, type_name
from madcrow_events.exceptions import (
    ContextTypeError,
    InvalidEventNameError,
    MadcrowEventsError,
    UnknownEventError,
)
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    HandlerFailedEventContext,
    meaning_of,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.signals._signal import EventSignal
    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["ModelIndex", "call_for", "carrier_of", "event_name_of", "matches"]

_SHOWN = 3  # events of many


def event_name_of(model: type[BaseEventContext]) -> str:
    """Return the name of the event that is named after a class: `order_placed` for `OrderPlaced`.

    Raises:
        InvalidEventNameError: no event can have that name.
    """
    name = type_name(model)
    try:
        return canonical_name(name_after(name))
    except InvalidEventNameError:
        raise InvalidEventNameError(
            f"no event can be named after the class {name}: give the event a name, as in "
            "@madcrow_signals.event(name='order_placed')",
            name=name,
        ) from None


def matches(signal: EventSignal[Any], wanted: Pattern) -> bool:
    """Whether an event has a name, matches a pattern, or carries a class or one derived from it.

    Its old names count, too. For `handler_failed`, this must be its name or its very model, because
    failures of its handlers are not announced.
    """
    name, model = signal.name, signal.context_model
    if name == HANDLER_FAILED:
        return wanted in (name, model)
    if isinstance(wanted, str):
        # With several stars, the expression of `fnmatch` takes linear time.
        return any(fnmatchcase(it, wanted) for it in (name, *signal.formerly))
    # By the bases, and not by `issubclass`, which may run code of the model's author.
    return model is not None and (wanted in model.__mro__ or signal._replaces((wanted,)))


def carrier_of(
    registry: SignalRegistry, event: object, keywords: Mapping[str, object]
) -> EventSignal[Any] | None:
    """Return the signal of a context that was given in the place of a name or signal.

    Args:
        registry: the registry.
        event: what it was given there.
        keywords: what else it was given.

    Returns:
        The signal, or None if that is no context.

    Raises:
        ContextTypeError: it was given a context class, or keywords beside a context; or the
            context may be that of several events.
        UnknownEventError: the context is that of no event.
    """
    given, models = type(event), registry._models
    known = models.known.get(given)
    if known is not None and not keywords:
        return known
    if isinstance(event, type) and issubclass(event, BaseEventContext):
        raise ContextTypeError(
            f"an event was emitted with the class {type_name(event)} in the place of a context: "
            f"write {type_name(event)}(...)",
            received=event,
        )
    # By its class, because pydantic makes `isinstance` slow.
    if not issubclass(given, BaseEventContext):
        return None
    if keywords:
        raise ContextTypeError(
            f"an event was emitted with the keyword '{next(iter(keywords))}' beside its context: "
            f"write all that it carries into the context, {type_name(given)}(...)",
            received=given,
        )
    if issubclass(given, GenericEventContext):
        # None if it was made by model_construct.
        return registry.resolve(getattr(event, "event_type", None))
    return models.signal_of(given, derived=True)


def call_for(signal: EventSignal[Any], given: type[Any]) -> str:
    """Return what to write to emit a context of a class, or keywords, as this event.

    It is for messages.
    """
    name, model, registry = signal.name, signal.context_model, signal._registry
    emit = "dispatcher.emit" if registry is None or not registry._built_in else "emit_event"
    if all(it is not BaseEventContext for it in given.__mro__):  # one may have no hash
        return f"write {emit}('{name}', **fields)"
    context = f"{type_name(given)}(...)"
    is_generic = issubclass(given, GenericEventContext)
    if model is not None and not (is_generic or issubclass(given, model)):
        wanted, other = names_apart(model, given)
        return f"{name} carries {wanted}, not {other}"
    if registry is None:
        return f"write {name}.emit({context})"
    with suppress(MadcrowEventsError):
        if is_generic or registry._models.signal_of(given, derived=True) is signal:
            return f"write {emit}({context})"
    return f"write {registry._written()}['{name}'].emit({context})"


class ModelIndex:
    """The signals of a registry by their models.

    Args:
        registry: the registry.

    Attributes:
        known: the signals that were asked for, by their own model.
    """

    def __init__(self, registry: SignalRegistry) -> None:
        self._registry = registry
        self.forget()

    def forget(self) -> None:
        """Search again, because an event is declared, forgotten, or given another model.

        It is called before and after that: before, because an interrupt may come between.
        """
        self._events: dict[Hashable, list[EventSignal[Any]]] = {}
        self.known: dict[type[Any], EventSignal[Any]] = {}

    def signal_of(self, model: type[Any], *, derived: bool = False) -> EventSignal[Any]:
        """Return the signal of the one event that carries a model.

        Args:
            model: the model, or one that it has replaced, because its module ran again.
            derived: whether the model may also derive from the model of the event, as that of a
                context may; the nearest base counts.

        Raises:
            ContextTypeError: several events carry it.
            UnknownEventError: no event carries it.
        """
        return self.known.get(model) or self._search(model, derived)

    def _search(self, model: type[Any], derived: bool) -> EventSignal[Any]:
        # In this order: what was found in old events may not be entered into a new `known`.
        known, events = self.known, self._events
        if not events:
            events.update(self._by_meaning())
        # Not the base of all: an event that carries it would get what belongs to no event.
        bases = [
            it for it in model.__mro__ if it is model or (derived and it is not BaseEventContext)
        ]
        declared = self._registry._declared()
        found = [
            (
                base,
                events.get(meaning_of(base))
                or [it for it in declared if base in it._replaced_models()],
            )
            for base in bases
        ]
        found = [(base, signals) for base, signals in found if signals]
        if found:
            nearest, signals = found[0]
            for base, others in found:
                if base not in nearest.__mro__:
                    signals = signals + others
            if len(signals) > 1:
                raise self._several(model, signals)
            if signals[0].context_model is model:
                known[model] = signals[0]
            return signals[0]
        if model is HandlerFailedEventContext:
            return self._registry.resolve(HANDLER_FAILED)  # which declares it
        raise self._none(model)

    def _by_meaning(self) -> dict[Hashable, list[EventSignal[Any]]]:
        events: dict[Hashable, list[EventSignal[Any]]] = {}
        for signal in self._registry._declared():
            if signal.context_model is not None:
                events.setdefault(meaning_of(signal.context_model), []).append(signal)
        return events

    def _several(self, model: type[Any], signals: list[EventSignal[Any]]) -> ContextTypeError:
        names, given = [signal.name for signal in signals], type_name(model)
        return ContextTypeError(
            f"{given} may be any of the events {', '.join(names)}: say which, as in "
            f"{self._registry._written()}['{names[0]}'].emit({given}(...))",
            event=names[0],
            received=model,
        )

    def _none(self, model: type[Any]) -> UnknownEventError:
        given = type_name(model)
        for signal in self._registry._set_aside.values():
            if signal.context_model is model:
                return UnknownEventError(
                    f"{given} is the model of {signal.name}, which isolated(empty=True) or the "
                    "fixture isolated_signals has set aside: declare it there, with "
                    f"signal('{signal.name}', context={given}), or use isolated() or the ini "
                    "option madcrow_events_isolate",
                    event=signal.name,
                )
        return UnknownEventError(
            f"{given} is the model of no event of {self._registry._described()}: "
            f"{self._fix_for(model)}"
        )

    def _fix_for(self, model: type[Any]) -> str:
        """Return what to write for a class that is the model of no event."""
        given = type_name(model)
        declaration = f"@{self._registry._written()}.event above class {given}"
        carried = {it.name: it.context_model for it in self._registry._declared()}
        derived = [name for name, its in carried.items() if its and model in its.__mro__]
        if derived:
            shown = ", ".join(derived[:_SHOWN]) + (" and others" if derived[_SHOWN:] else "")
            return f"it is the base of {shown}, so give one of these"
        for base in model.__mro__[1:]:
            for name, its in carried.items():
                if its is base is not BaseEventContext:
                    return (
                        f"it is emitted as {name}, the event of its base {type_name(base)}, so "
                        f"give {type_name(base)}, or write {declaration}"
                    )
        return f"write {declaration}, or import the module that declares its event"
