"""Which event a context belongs to, where its class is the model of one event."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from madcrow_events._names import HANDLER_FAILED, canonical_name
from madcrow_events._text import type_name
from madcrow_events.exceptions import ContextTypeError, UnknownEventError
from madcrow_events.models import BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.signals._signal import EventSignal

__all__ = ["ModelIndex", "carries", "event_name_of"]

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def event_name_of(model: type[BaseEventContext]) -> str:
    """Return the name of the event that is named after a class: `order_placed` for `OrderPlaced`.

    Raises:
        InvalidEventNameError: the name of the class makes no name of an event.
    """
    return canonical_name(_WORDS.sub("_", type_name(model)).lower())


def carries(signal: EventSignal[Any], model: type[BaseEventContext]) -> bool:
    """Whether the model of an event is a class, or derives from it.

    Of `handler_failed` it must be the class: its handlers that fail are not announced.
    """
    own = signal.context_model
    if own is None or (signal.name == HANDLER_FAILED and not issubclass(model, own)):
        return False
    return issubclass(own, model) or signal._replaces((model,))


class _Known:
    """What is known until an event is declared, forgotten, or given another model."""

    __slots__ = ("events", "signals")

    def __init__(self) -> None:
        self.signals: dict[type, EventSignal[Any]] = {}
        self.events: dict[type, list[EventSignal[Any]]] | None = None


class ModelIndex:
    """The signals of one registry by their models.

    Args:
        declared: returns the declared signals.
    """

    def __init__(self, declared: Callable[[], list[EventSignal[Any]]]) -> None:
        self._declared = declared
        self._known = _Known()

    def forget(self) -> None:
        """Look again, because an event was declared, forgotten, or given another model."""
        self._known = _Known()

    def signal_of(self, model: type[Any]) -> EventSignal[Any]:
        """Return the signal of the one event that carries a model.

        Args:
            model: the model, or a class derived from it.

        Raises:
            ContextTypeError: several events carry it, or it is no context class.
            UnknownEventError: no event carries it.
        """
        return self._known.signals.get(model) or self._search(model)

    def _search(self, model: type[Any]) -> EventSignal[Any]:
        known = self._known  # others may put a new one in its place meanwhile
        if known.events is None:
            events: dict[type, list[EventSignal[Any]]] = {}
            for signal in self._declared():
                if signal.context_model is not None:
                    events.setdefault(signal.context_model, []).append(signal)
            known.events = events
        for base in model.__mro__:
            signals = known.events.get(base, [])
            if len(signals) > 1:
                raise _several(model, signals)
            if signals:
                if base is model:
                    known.signals[model] = signals[0]
                return signals[0]
        for signal in self._declared():
            if signal._replaces((model,)) or any(
                issubclass(model, former) for former in signal._replaced_models()
            ):
                return signal
        raise _none(model)


def _several(model: type[Any], signals: list[EventSignal[Any]]) -> ContextTypeError:
    names = [signal.name for signal in signals]
    name = type_name(model)
    return ContextTypeError(
        f"{name} is the model of several events, {', '.join(names)}: say which, as in "
        f"emit_typed('{names[0]}', {name}(...))",
        event=names[0],
        received=model,
    )


def _none(model: type[Any]) -> UnknownEventError | ContextTypeError:
    name = type_name(model)
    if not issubclass(model, BaseEventContext):
        return ContextTypeError(
            f"an event's name is a string, and its context is derived from BaseEventContext, "
            f"which {name} is not",
            received=model,
        )
    return UnknownEventError(
        f"{name} is the model of no event: put @madcrow_signals.event above the class, or name "
        f"an event, as in emit_typed('{event_name_of(model)}', {name}(...))"
    )
