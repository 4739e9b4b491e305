"""Emitting through the default dispatcher, which is that of the default registry."""

from __future__ import annotations

from typing import Any

from madcrow_events._text import type_name
from madcrow_events.dispatcher._dispatcher import EventDispatcher
from madcrow_events.emissions import Emission
from madcrow_events.exceptions import ContextTypeError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, madcrow_signals
from madcrow_events.signals._registry import dispatching_of, models_of

__all__ = ["emit_event", "emit_event_async", "get_event_dispatcher", "set_event_dispatcher"]

# Read by each emission, so not looked up there.
_dispatching = dispatching_of(madcrow_signals)
_models = models_of(madcrow_signals)


def get_event_dispatcher() -> EventDispatcher:
    """Return the default dispatcher, `madcrow_signals.dispatcher`.

    It is the first one that was made for `madcrow_signals`, unless another one was set.
    """
    return madcrow_signals.dispatcher


def set_event_dispatcher(dispatcher: EventDispatcher | None) -> None:
    """Replace the default dispatcher, as by an assignment to `madcrow_signals.dispatcher`.

    Args:
        dispatcher: the dispatcher that `get_event_dispatcher` returns from now on; None for a
            new one with the default options.

    Raises:
        InvalidOptionError: it is neither a dispatcher of `madcrow_signals` nor None.
    """
    madcrow_signals.dispatcher = EventDispatcher() if dispatcher is None else dispatcher


def _refuse_context(event: object, context: object) -> None:
    """Refuse a context as the keyword `context`, unless the event has a field of that name."""
    if isinstance(context, BaseEventContext) and not isinstance(event, BaseEventContext):
        signal = madcrow_signals.resolve(event)
        model, given = signal.context_model, type_name(type(context))
        if model is None or "context" not in model.model_fields:
            raise ContextTypeError(
                f"emit_event takes keywords, not context={given}(...): write "
                f"emit_event({given}(...)) without the name, or "
                f"get_event_dispatcher().emit_typed('{signal.name}', {given}(...))",
                event=signal.name,
                received=type(context),
            )


def emit_event(
    event: str | EventSignal[Any] | BaseEventContext,
    /,
    sender: object = None,
    **context: object,
) -> Emission[Any]:
    """Emit an event through the default dispatcher: with a context, or with plain keywords.

    Args:
        event: a context, whose class is the model of one event; or the name or signal of an
            event that is emitted with keywords.
        sender: the object that emits; the signal itself if left out.
        **context: the keywords that the handlers get; none beside a context.

    Raises:
        InvalidEventNameError: the name is malformed.
        UnknownEventError: nobody declared the event, or the context's class is the model of none.
        ContextTypeError: a context is given as the sender or as `context=`, or is the model of
            several events; or a class is given in the place of a context.
        EmissionDepthError: handlers emit events without end.
        ContextValidationError: the default dispatcher validates, and they do not fit.
        QueueFullError: handlers that would run later find no place in the queue.
        Exception: a handler failed and the default dispatcher raises.
    """
    dispatcher = _dispatching.used or madcrow_signals.dispatcher
    if not context:
        carrier = _models.known.get(type(event))
        if carrier is not None:
            return dispatcher.emit_typed(carrier, event, sender)
    elif "context" in context:
        _refuse_context(event, context["context"])
    return dispatcher.emit(event, sender, **context)


async def emit_event_async(
    event: str | EventSignal[Any] | BaseEventContext,
    /,
    sender: object = None,
    **context: object,
) -> Emission[Any]:
    """Emit an event as `emit_event` does, and await its async handlers.

    Args:
        event: as for `emit_event`.
        sender: the object that emits; the signal itself if left out.
        **context: as for `emit_event`.

    Raises:
        CancelledError: the emitter was cancelled, and with it the handlers.
        MadcrowEventsError: as for `EventDispatcher.emit_async`.
        Exception: a handler failed and the default dispatcher raises.
    """
    dispatcher = _dispatching.used or madcrow_signals.dispatcher
    if not context:
        carrier = _models.known.get(type(event))
        if carrier is not None:
            return await dispatcher.emit_typed_async(carrier, event, sender)
    elif "context" in context:
        _refuse_context(event, context["context"])
    return await dispatcher.emit_async(event, sender, **context)
