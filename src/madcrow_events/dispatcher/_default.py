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
    """Return the default dispatcher, through which `emit_event` emits.

    The first call makes it, for the events of `madcrow_signals` and with the default options.

    Returns:
        The default dispatcher, which `set_event_dispatcher` can replace.
    """
    global _default  # noqa: PLW0603  # one of the three pieces of global state
    if _default is None:
        _default = EventDispatcher()
    return _default


def set_event_dispatcher(dispatcher: EventDispatcher | None) -> None:
    """Replace the default dispatcher.

    The former dispatcher stays open. To wait for its pending handlers, call its `drain`.

    Args:
        dispatcher: the new default dispatcher; None for a new one with the default options.

    Raises:
        InvalidOptionError: this is neither a dispatcher nor None.
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

    When `emit_event` returns, the plain handlers have run. Async, background and batch handlers run
    later.

    Args:
        event: the name of the event, or its signal.
        sender: the object that emits; None, the default, stands for the signal.
        **context: the keywords for the handlers. They are checked only if the default dispatcher
            has `validate=True`.

    Returns:
        The emission, with what came of it.

    Raises:
        InvalidEventNameError: the name is malformed.
        UnknownEventError: the event is not declared, or its signal belongs to another registry.
        ContextTypeError: a context is given, as the sender or as `context=`.
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
        from madcrow_events import emit_event, madcrow_signals, on_event

        madcrow_signals.signal("order_placed", "A customer placed an order.")


        @on_event("order_placed")
        def send_invoice(order_id: int) -> None:
            print("invoice for order", order_id)


        emit_event("order_placed", order_id=7)
        ```

        ```text
        invoice for order 7
        ```
    """
    dispatcher = get_event_dispatcher()
    if "context" in context:
        _refuse_context(dispatcher, event, context["context"])
    return dispatcher.emit(event, sender, **context)


async def emit_event_async(
    event: str | EventSignal[Any], /, sender: object = None, **context: object
) -> Emission[Mapping[str, Any]]:
    """Emit an event through the default dispatcher, with plain keywords, and await its handlers.

    The plain handlers run first, one after the other. Then the async handlers run at the same time.
    Background and batch handlers run later.

    Args:
        event: the name of the event, or its signal.
        sender: the object that emits; None, the default, stands for the signal.
        **context: the keywords for the handlers. They are checked only if the default dispatcher
            has `validate=True`.

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

        from madcrow_events import emit_event_async, madcrow_signals, on_event

        madcrow_signals.signal("order_placed", "A customer placed an order.")


        @on_event("order_placed")
        async def reserve_stock(order_id: int) -> str:
            return f"reserved for order {order_id}"


        emission = asyncio.run(emit_event_async("order_placed", order_id=7))
        print(emission.results[0].value)
        ```

        ```text
        reserved for order 7
        ```
    """
    dispatcher = get_event_dispatcher()
    if "context" in context:
        _refuse_context(dispatcher, event, context["context"])
    return await dispatcher.emit_async(event, sender, **context)
