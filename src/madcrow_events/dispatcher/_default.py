"""Emitting through the default dispatcher, which is that of the default registry."""

from __future__ import annotations

from typing import Any

from madcrow_events._text import type_name
from madcrow_events.dispatcher._dispatcher import EventDispatcher
from madcrow_events.emissions import Emission
from madcrow_events.exceptions import ContextTypeError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, madcrow_signals
from madcrow_events.signals._models import call_for
from madcrow_events.signals._registry import dispatching_of, models_of

__all__ = ["emit_event", "emit_event_async", "get_event_dispatcher", "set_event_dispatcher"]

# Read by each emission, so not looked up there.
_dispatching = dispatching_of(madcrow_signals)
_models = models_of(madcrow_signals)


def get_event_dispatcher() -> EventDispatcher:
    """Return the default dispatcher, through which `emit_event` emits.

    It is `madcrow_signals.dispatcher`: the first dispatcher that was made for `madcrow_signals`,
    unless you set another one. If there is none yet, the call makes it with the default options.

    Returns:
        The default dispatcher, which `set_event_dispatcher` can replace.
    """
    return madcrow_signals.dispatcher


def set_event_dispatcher(dispatcher: EventDispatcher | None) -> None:
    """Replace the default dispatcher, as by an assignment to `madcrow_signals.dispatcher`.

    The former dispatcher stays open. To wait for its pending handlers, call its `drain`.

    Args:
        dispatcher: the new default dispatcher; None for a new one with the default options.

    Raises:
        InvalidOptionError: this is neither a dispatcher of `madcrow_signals` nor None.
    """
    madcrow_signals.dispatcher = EventDispatcher() if dispatcher is None else dispatcher


def _refuse_context(event: object, context: object) -> None:
    """Refuse a context as the keyword `context`, unless the event has a field of that name."""
    if isinstance(context, BaseEventContext) and not isinstance(event, BaseEventContext):
        signal = madcrow_signals.resolve(event)
        model, given = signal.context_model, type_name(type(context))
        if model is None or "context" not in model.model_fields:
            raise ContextTypeError(
                f"emit_event takes keywords, not context={given}(...): "
                f"{call_for(signal, type(context))}",
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

    When `emit_event` returns, the plain handlers have run. Async, background and batch handlers run
    later.

    Args:
        event: a context, whose class is the model of one event. Or, for an event that is emitted
            with keywords, the name of the event or its signal.
        sender: the object that emits; None, the default, stands for the signal.
        **context: the keywords for the handlers; none besides a context. They are checked only if
            the default dispatcher has `validate=True`.

    Returns:
        The emission, with what came of it.

    Raises:
        InvalidEventNameError: the name is malformed.
        UnknownEventError: the event is not declared, or its signal belongs to another registry. Or
            the class of the context is the model of no event.
        ContextTypeError: a context is given as the sender or as `context=`, or its class is the
            model of several events. Or a class is given instead of a context.
        ContextValidationError: the default dispatcher validates, and the keywords do not fit the
            model.
        EmissionDepthError: events cause each other without end, more than 64 levels deep.
        QueueFullError: the queue has no place for a handler that would run later. No handler has
            run.
        DispatcherClosedError: as for `EventDispatcher.emit`.
        EventLoopError: as for `EventDispatcher.emit`.
        WouldDeadlockError: as for `EventDispatcher.emit`.
        Exception: a handler failed, and the default dispatcher has `on_error="raise"`.

    Example:
        ```python
        from madcrow_events import BaseEventContext, emit_event, madcrow_signals, on_event


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            order_id: int


        @on_event(OrderPlaced)
        def send_invoice(context: OrderPlaced) -> None:
            print("invoice for order", context.order_id)


        emit_event(OrderPlaced(order_id=7))
        emit_event("order_placed", order_id=8)
        ```

        ```text
        invoice for order 7
        invoice for order 8
        ```
    """
    # A short cut past `EventDispatcher.emit`, which finds the signal more slowly. Not taken if a
    # test has patched a method of this dispatcher: the patch would not be called.
    dispatcher = _dispatching.plain
    if not context and dispatcher is not None and not dispatcher.__dict__:
        carrier = _models.known.get(type(event))
        if carrier is not None:
            return dispatcher.emit_typed(carrier, event, sender)
    if "context" in context:
        _refuse_context(event, context["context"])
    dispatcher = _dispatching.used or madcrow_signals.dispatcher
    return dispatcher.emit(event, sender, **context)


async def emit_event_async(
    event: str | EventSignal[Any] | BaseEventContext,
    /,
    sender: object = None,
    **context: object,
) -> Emission[Any]:
    """Emit an event through the default dispatcher, as `emit_event` does, and await its handlers.

    The plain handlers run first, one after the other. Then the async handlers run at the same time.
    Background and batch handlers run later.

    Args:
        event: as for `emit_event`.
        sender: the object that emits; None, the default, stands for the signal.
        **context: as for `emit_event`.

    Returns:
        The emission, with what came of it.

    Raises:
        CancelledError: the emitter was cancelled, and with it the handlers that it awaited.
        MadcrowEventsError: as for `emit_event`.
        Exception: a handler failed, and the default dispatcher has `on_error="raise"`. A
            `StopIteration` comes in `HandlerErrors`, because it cannot leave a coroutine.

    Example:
        ```python
        import asyncio

        from madcrow_events import BaseEventContext, emit_event_async, madcrow_signals, on_event


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            order_id: int


        @on_event(OrderPlaced)
        async def reserve_stock(context: OrderPlaced) -> str:
            return f"reserved for order {context.order_id}"


        emission = asyncio.run(emit_event_async(OrderPlaced(order_id=7)))
        print(emission.results[0].value)
        ```

        ```text
        reserved for order 7
        ```
    """
    dispatcher = _dispatching.used or madcrow_signals.dispatcher
    if "context" in context:
        _refuse_context(event, context["context"])
    return await dispatcher.emit_async(event, sender, **context)
