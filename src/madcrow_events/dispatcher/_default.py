"""Emitting through the default dispatcher, one of the three pieces of global state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from madcrow_events._text import type_name
from madcrow_events.dispatcher._dispatcher import EventDispatcher
from madcrow_events.emissions import Emission
from madcrow_events.exceptions import ContextTypeError, InvalidOptionError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, madcrow_signals
from madcrow_events.signals._isolation import isolate_too

__all__ = ["emit_event", "emit_event_async", "get_event_dispatcher", "set_event_dispatcher"]

_default: EventDispatcher | None = None


def get_event_dispatcher() -> EventDispatcher:
    """Return the default dispatcher, which emits the signals of `madcrow_signals`."""
    global _default  # noqa: PLW0603  # one of the three pieces of global state
    if _default is None:
        _default = EventDispatcher()
    return _default


def set_event_dispatcher(dispatcher: EventDispatcher | None) -> None:
    """Replace the default dispatcher.

    Args:
        dispatcher: the dispatcher that `get_event_dispatcher` returns from now on; None for a
            new one with the default options.

    Raises:
        InvalidOptionError: it is neither a dispatcher nor None.
    """
    if not isinstance(dispatcher, EventDispatcher | None):
        raise InvalidOptionError("give an EventDispatcher, or None", option="dispatcher")
    global _default  # noqa: PLW0603  # one of the three pieces of global state
    _default = dispatcher


def _save_default(empty: bool) -> Callable[[], None]:  # called by isolated()
    saved = _default
    observers = [] if saved is None else list(saved._observers)
    if empty:
        set_event_dispatcher(None)

    def restore() -> None:
        if saved is not None:
            saved._observers[:] = observers
        set_event_dispatcher(saved)

    return restore


isolate_too(madcrow_signals, _save_default)


def _refuse_context(dispatcher: EventDispatcher, event: object, context: object) -> None:
    """Refuse a context as the keyword `context`, unless the event has a field of that name."""
    if isinstance(context, BaseEventContext):
        signal = dispatcher.signals.resolve(event)
        model = signal.context_model
        if model is None or "context" not in model.model_fields:
            raise ContextTypeError(
                f"emit_event takes keywords, not context={type_name(type(context))}(...): write "
                f"get_event_dispatcher().emit_typed('{signal.name}', context)",
                event=signal.name,
                received=type(context),
            )


def emit_event(
    event: str | EventSignal[Any], /, sender: object = None, **context: object
) -> Emission[Mapping[str, Any]]:
    """Emit an event with plain keywords, through the default dispatcher.

    Args:
        event: its name or signal.
        sender: the object that emits; the signal itself if left out.
        **context: the keywords that the handlers get.

    Raises:
        InvalidEventNameError: the name is malformed.
        UnknownEventError: nobody declared the event.
        ContextTypeError: a context is given, as the sender or as `context=`.
        EmissionDepthError: handlers emit events without end.
        ContextValidationError: the default dispatcher validates, and they do not fit.
        QueueFullError: handlers that would run later find no place in the queue.
        Exception: a handler failed and the default dispatcher raises.
    """
    dispatcher = get_event_dispatcher()
    if "context" in context:
        _refuse_context(dispatcher, event, context["context"])
    return dispatcher.emit(event, sender, **context)


async def emit_event_async(
    event: str | EventSignal[Any], /, sender: object = None, **context: object
) -> Emission[Mapping[str, Any]]:
    """Emit an event with plain keywords, through the default dispatcher, and await its handlers.

    Args:
        event: its name or signal.
        sender: the object that emits; the signal itself if left out.
        **context: the keywords that the handlers get.

    Raises:
        CancelledError: the emitter was cancelled, and with it the handlers.
        MadcrowEventsError: as for `EventDispatcher.emit_async`.
        Exception: a handler failed and the default dispatcher raises.
    """
    dispatcher = get_event_dispatcher()
    if "context" in context:
        _refuse_context(dispatcher, event, context["context"])
    return await dispatcher.emit_async(event, sender, **context)
