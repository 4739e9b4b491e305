"""The object for one event, a blinker signal: code written for blinker works with it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Never, overload

import blinker
from typing_extensions import TypeVar, Unpack

from madcrow_events._aliases import spelled_for
from madcrow_events._copies import Unique
from madcrow_events._executions import definition_of
from madcrow_events._logs import log
from madcrow_events._names import canonical_name
from madcrow_events._text import printable, type_name
from madcrow_events._validation import check_complete, validate_keywords
from madcrow_events.batches import Batch
from madcrow_events.emissions import Emission
from madcrow_events.emissions._blinker_loop import send, send_async
from madcrow_events.emissions._completion import abandon, complete
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import (
    ContextModelError,
    ContextTypeError,
    ContextValidationError,
    HandlerSignatureError,
    UnknownEventError,
)
from madcrow_events.models import (
    RESERVED_FIELDS,
    BaseEventContext,
    GenericEventContext,
    is_parametrised_as,
    note_fields,
    values_of,
)
from madcrow_events.subscriptions import (
    ANY,
    BatchHandler,
    BatchHandlerDecorator,
    Handler,
    HandlerDecorator,
    SingleOptions,
    Subscription,
    SubscriptionOptions,
)
from madcrow_events.subscriptions._handler_types import ContextT
from madcrow_events.subscriptions._options import check_options
from madcrow_events.subscriptions._redefinition import defined_earlier, end_replaced, find_replaced
from madcrow_events.subscriptions._signatures import call_spec_of_receiver, read_call_spec
from madcrow_events.subscriptions._subscription import order_of
from madcrow_events.subscriptions._table import Mute, SubscriptionTable

if TYPE_CHECKING:
    from madcrow_events._executions import Execution
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions._plan import CallSpec
    from madcrow_events.signals._registry import SignalRegistry

__all__ = ["EventSignal", "check_model", "renewed_context", "translated", "translated_sender"]

ReceiverT = TypeVar("ReceiverT", bound="Callable[..., Any]")

_MOST_REPLACED: Final = 15
"""How many replaced models, besides the last one, still make valid contexts."""


class EventSignal(Unique, blinker.NamedSignal, Generic[ContextT]):
    """The object for one event: handlers subscribe to it, dispatchers emit it.

    Declare one with `SignalRegistry.signal`, which checks the name and keeps it.

    Args:
        name: the canonical name.
        doc: what the event means.
        context: the model of its typed contexts; None accepts any.

    Attributes:
        name: the canonical name.
        doc: what the event means, or None.
        context_model: the model of its typed contexts, or None.

    Raises:
        InvalidEventNameError: the name is malformed.
        ContextModelError: the model is no `BaseEventContext`, or has a field
            called `sender` or `self`.
    """

    _instead_of_pickling = "send its name, and look it up there with signals[name]"

    def __init__(
        self, name: str, doc: str | None = None, *, context: type[ContextT] | None = None
    ) -> None:
        # Without blinker's __init__: all of its bookkeeping is replaced.
        self.name: str = canonical_name(name)
        self.doc = doc
        if doc:
            self.__doc__ = doc
        check_model(self.name, context)
        self.context_model: type[ContextT] | None = context
        self._models: tuple[type[BaseEventContext], ...] = () if context is None else (context,)
        # The earlier models that `context_model` has replaced because its module ran again. Below:
        # the execution of the module that defines `context_model`.
        self._replaced: tuple[weakref.ref[type[BaseEventContext]], ...] = ()
        self._execution: Execution | None = None
        self._has_warned = False
        self._table = SubscriptionTable()
        # The registry that has declared it; None if somebody made it directly.
        self._registry: SignalRegistry | None = None
        self._connected: blinker.Signal | None = None
        self._disconnected: blinker.Signal | None = None

    def __str__(self) -> str:
        """Return the name; handlers of several events compare it."""
        return self.name

    # Subscribing

    @overload
    def subscribe(
        self, handler: BatchHandler[ContextT], /, *, batch: Batch, **options: Unpack[SingleOptions]
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        handler: Handler[ContextT],
        /,
        *,
        batch: None = None,
        **options: Unpack[SingleOptions],
    ) -> Subscription: ...
    def subscribe(
        self, handler: Callable[..., Any], /, **options: Unpack[SubscriptionOptions]
    ) -> Subscription:
        """Call a handler whenever the event is emitted.

        Args:
            handler: a callable in one of the forms of the guarantees' table H.
            **options: see `SubscriptionOptions`.

        Returns:
            The subscription; the same one again for the same handler and options.

        Raises:
            HandlerSignatureError: the handler cannot be called with what the event carries.
            InvalidOptionError: an option means nothing.
            SubscriptionConflictError: it is subscribed already, with other options.
        """
        return self._subscribe(handler, options)

    def _subscribe(
        self,
        handler: Callable[..., Any],
        options: SubscriptionOptions,
        origin: object = None,
        wrap: Callable[[CallSpec], CallSpec] | None = None,
        replaced: list[Subscription] | None = None,
    ) -> Subscription:
        check_options(options)
        is_batch = options.get("batch") is not None
        spec = read_call_spec(
            handler,
            self.name,
            self.context_model,
            batch=is_batch,
            replaced=self._replaced_models(),
        )
        if wrap is not None:
            spec = wrap(spec)
        requested = Subscription(self._table, self.name, handler, spec, translated(options))
        requested.origin = origin
        earlier = find_replaced(requested, self._table.live)
        subscription = self._table.add(requested, earlier)
        log(logging.DEBUG, "%s subscribed to %s", subscription.name, self.name)
        if replaced is None:
            end_replaced(earlier)
        else:
            replaced += earlier
        if subscription is requested:
            self._notify_connected(handler, options.get("sender", ANY), subscription.weak)
        return subscription

    def unsubscribe(self, handler: Callable[..., Any], /) -> bool:
        """Cancel every subscription of a handler to this event.

        If its module ran again, this includes those of the earlier function of that name.

        Returns:
            Whether there was one.
        """
        found = self._table.of_handler(handler) or defined_earlier(handler, self._table.live)
        for subscription in found:
            subscription.cancel()
        return bool(found)

    @overload
    def on(
        self, *misplaced: Never, batch: Batch, **options: Unpack[SingleOptions]
    ) -> BatchHandlerDecorator[ContextT]: ...
    @overload
    def on(
        self, *misplaced: Never, batch: None = None, **options: Unpack[SingleOptions]
    ) -> HandlerDecorator[ContextT]: ...
    def on(
        self, *misplaced: Never, **options: Unpack[SubscriptionOptions]
    ) -> HandlerDecorator[ContextT] | BatchHandlerDecorator[ContextT]:
        """Return a decorator that subscribes a function: `@signal.on()`.

        Args:
            *misplaced: gets the function if the parentheses are missing; leave it out.
            **options: see `SubscriptionOptions`.

        Raises:
            HandlerSignatureError: the parentheses are missing.
        """
        if misplaced:
            raise HandlerSignatureError(
                f"the decorator for {self.name} needs its parentheses: write @...on()",
                event=self.name,
                handler=misplaced[0],
            )
        check_options(options)

        subscribe: Callable[..., Subscription] = self.subscribe

        def decorate(handler: object) -> Any:
            subscribe(handler, **options)
            return handler

        return decorate

    # Emitting

    def emit(
        self, context: ContextT, sender: object = None, **misplaced: Never
    ) -> Emission[ContextT]:
        """Emit the event with a context, through the dispatcher of its registry.

        Args:
            context: an instance of the signal's model.
            sender: the object that emits; the signal itself if left out.
            **misplaced: gets fields that are given without their context; leave it out.

        Raises:
            ContextTypeError: the context is left out, or is of another model.
            UnknownEventError: the signal belongs to no registry.
            MadcrowEventsError: as for `EventDispatcher.emit_typed`.
            Exception: a handler failed, and the dispatcher's `on_error` is `"raise"`.

        Example:
            ```python
            from madcrow_events import BaseEventContext, madcrow_signals


            class OrderPlaced(BaseEventContext):
                order_id: int


            order_placed = madcrow_signals.signal("order_placed", context=OrderPlaced)
            assert order_placed.emit(OrderPlaced(order_id=7)).ok
            ```
        """
        registry = self._registry
        if (
            registry is None
            or misplaced
            or type(context) is not self.context_model
            or (dispatcher := registry._dispatching.plain) is None
        ):
            return self._dispatcher_for(context, misplaced).emit_typed(self, context, sender)
        # As `EventDispatcher.emit_typed` does, because calling it would cost each emission 5 %.
        emission: Emission[ContextT] = Emission()
        try:
            if call_all(emission, dispatcher, self, sender, context, context, None):
                complete(emission)
                # The traceback of a failure keeps what this frame names alive.
                kept, emission = [emission], None  # type: ignore[assignment]
                return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # or the traceback keeps it
            raise
        return emission

    async def emit_async(
        self, context: ContextT, sender: object = None, **misplaced: Never
    ) -> Emission[ContextT]:
        """Emit the event as `emit` does, and await its async handlers.

        Args:
            context: as for `emit`.
            sender: as for `emit`.
            **misplaced: as for `emit`.

        Raises:
            CancelledError: the emitter was cancelled, and with it the handlers.
            MadcrowEventsError: as for `emit`.
            Exception: a handler failed, and the dispatcher's `on_error` is `"raise"`.
        """
        dispatcher = self._dispatcher_for(context, misplaced)
        return await dispatcher.emit_typed_async(self, context, sender)

    # Type checkers see that the context is missing; at run time, the next method says so.
    emit.__defaults__ = emit_async.__defaults__ = (None, None)

    def _dispatcher_for(self, context: object, misplaced: Mapping[str, object]) -> EventDispatcher:
        """Return the dispatcher of the registry.

        Raises:
            ContextTypeError: the context is left out.
            UnknownEventError: the signal belongs to no registry.
        """
        if context is None or misplaced:
            model = BaseEventContext if self.context_model is None else self.context_model
            missed = f"not the keyword '{next(iter(misplaced))}'" if misplaced else "and got none"
            raise ContextTypeError(
                f"{self.name}.emit takes a context, {missed}: write "
                f"{self.name}.emit({type_name(model)}(...)), or emit_event('{self.name}', ...) for "
                "keywords",
                event=self.name,
                expected=(model,),
            )
        if self._registry is None:
            raise UnknownEventError(
                f"the signal {self.name} belongs to no registry: declare it with "
                f"registry.signal('{self.name}'), or emit it by a dispatcher",
                event=self.name,
            )
        return self._registry.dispatcher

    # A model whose module runs again

    def _replaced_models(self) -> tuple[type[BaseEventContext], ...]:
        alive = (reference() for reference in self._replaced)
        return tuple(model for model in alive if model is not None)

    def _replaces(self, models: tuple[type[Any], ...]) -> bool:
        """Whether the model has replaced one of these models, or a class derived from one."""
        own = self.context_model
        return any(issubclass(former, models) for former in self._replaced_models()) or (
            own is not None and is_parametrised_as(own, models)
        )

    def _take_model(self, model: type[Any], execution: Execution | None) -> bool:
        """Replace the model by one of the same name from a later execution of its module.

        Returns:
            Whether the signal now carries the model, or did so before.
        """
        own = self.context_model
        if own is not None and is_parametrised_as(own, (model,)):
            return True
        if model in self._replaced_models():
            self._warn(model)
            return True
        before, there = self.context_model, definition_of(model)
        if (
            before is None
            or there is None
            or execution is None
            or self._execution is None
            or (before.__module__, before.__qualname__) != there[:2]
            or not execution.is_again(self._execution)
        ):
            return False
        check_model(self.name, model)
        self._replaced = (
            *map(weakref.ref, self._replaced_models()[-_MOST_REPLACED:]),
            weakref.ref(before),
        )
        self._carry(model, execution)
        return True

    def _carry(self, model: type[Any] | None, execution: Execution | None) -> None:
        self.context_model = model
        self._models = () if model is None else (model,)
        self._execution = execution
        self._has_warned = False

    def _warn(self, model: type[Any]) -> None:
        """Log once that somebody uses a model that was replaced."""
        if not self._has_warned:
            self._has_warned = True
            log(
                logging.WARNING,
                "%s is given %s.%s as it was before its module ran again: import it again",
                self.name,
                printable(model.__module__),
                type_name(model),
            )

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The active subscriptions, in the order in which they were made."""
        return tuple(self._table.live())

    # The interface of blinker

    @property
    def receiver_connected(self) -> blinker.Signal:  # pyright: ignore[reportIncompatibleVariableOverride]  # cached there
        """Sent after a handler was connected or subscribed, with `receiver`, `sender`, `weak`."""
        if self._connected is None:
            self._connected = blinker.Signal(doc="Emitted after a receiver connects.")
        return self._connected

    @property
    def receiver_disconnected(self) -> blinker.Signal:  # pyright: ignore[reportIncompatibleVariableOverride]  # cached there
        """Sent after `disconnect`, with `receiver` and `sender`."""
        if self._disconnected is None:
            self._disconnected = blinker.Signal(doc="Emitted after a receiver disconnects.")
        return self._disconnected

    def connect(
        self,
        receiver: ReceiverT,
        sender: Any = blinker.ANY,
        weak: bool = True,  # blinker's signature
    ) -> ReceiverT:
        """Call `receiver(sender, **context)`, whatever its signature, as blinker does.

        Args:
            receiver: any callable; held weakly unless `weak` is False.
            sender: the sender whose emissions it gets, matched as guarantee L2 says.
            weak: whether to hold the receiver weakly.

        Returns:
            The receiver.

        Raises:
            HandlerSignatureError: the receiver cannot be called.
            InvalidOptionError: the receiver cannot be held weakly.
            SubscriptionConflictError: it was subscribed with `subscribe` before.
        """
        if not callable(receiver):
            raise HandlerSignatureError(
                f"{type_name(type(receiver))} cannot be called: connect a function",
                event=self.name,
                handler=receiver,
            )
        spec = call_spec_of_receiver(receiver)
        options = translated({"sender": sender, "weak": weak})
        requested = Subscription(self._table, self.name, receiver, spec, options, connected=True)
        present = self._connection(receiver, sender)
        if present is not None and present.weak != weak:
            self._table.replace(requested)
        else:
            self._table.add(requested)
        self._notify_connected(receiver, sender, weak)
        return receiver

    @contextmanager
    def connected_to(
        self, receiver: Callable[..., Any], sender: object = blinker.ANY
    ) -> Iterator[None]:
        """Connect `receiver` until the block ends; an earlier connection stays as it was.

        Args:
            receiver: any callable; held strongly until the block ends.
            sender: the sender whose emissions it gets.
        """
        if self._connection(receiver, sender) is not None:
            yield
            return
        self.connect(receiver, sender=sender, weak=False)
        connection = self._connection(receiver, sender)
        try:
            yield
        finally:
            if connection is not None:
                connection.cancel()
            self._notify_disconnected(receiver, sender)

    def muted(self) -> AbstractContextManager[None]:  # type: ignore[override]  # the same to a caller
        """Return a block in which neither `send` nor `emit` calls a handler, in this context."""
        return Mute(self._table)

    @property
    def is_muted(self) -> bool:  # type: ignore[override]  # a plain attribute in blinker
        """Whether the present context muted the signal."""
        return self._table.is_muted

    def send(
        self,
        sender: Any | None = None,
        /,
        *,
        _async_wrapper: Callable[[Any], Callable[..., Any]] | None = None,
        **kwargs: object,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Call all handlers of `sender`, in order, until one raises; the caller gets that.

        Args:
            sender: the object that sends; handlers get it as it is, also None.
            _async_wrapper: makes a plain callable of an async receiver.
            **kwargs: the context.

        Returns:
            Pairs of a handler and what it returned.

        Raises:
            RuntimeError: a receiver is async, and there is no `_async_wrapper`.
            EmissionDepthError: handlers emit events without end.
        """
        return send(self, self._table.plan_for(sender), sender, _async_wrapper, kwargs)

    async def send_async(
        self,
        sender: Any | None = None,
        /,
        *,
        _sync_wrapper: Callable[[Any], Callable[..., Any]] | None = None,
        **kwargs: object,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Await all handlers of `sender`, one by one, until one raises; the caller gets that.

        Args:
            sender: the object that sends; handlers get it as it is, also None.
            _sync_wrapper: makes an async callable of a plain handler.
            **kwargs: the context.

        Returns:
            Pairs of a handler and what it returned.

        Raises:
            RuntimeError: a handler is not async, and there is no `_sync_wrapper`.
            EmissionDepthError: handlers emit events without end.
        """
        plan = self._table.plan_for(sender)
        return await send_async(self, plan, sender, _sync_wrapper, kwargs)

    @property
    def receivers(self) -> Mapping[Any, Any]:  # type: ignore[override]  # a plain dict in blinker
        """The handlers, under keys that mean nothing; true if there are any."""
        return {order_of(entry): entry.handler for entry in self._table.live()}

    def has_receivers_for(self, sender: object) -> bool:
        """Whether an emission of `sender` would reach a handler.

        Args:
            sender: any object, or `ANY` to ask for handlers of every sender.
        """
        return self._table.has_any_for(translated_sender(sender))

    def receivers_for(self, sender: object) -> Iterator[Callable[..., Any]]:  # type: ignore[override]  # a Generator in blinker, but callers only iterate
        """Yield each handler that an emission of `sender` would reach, in order.

        Args:
            sender: any object.
        """
        for subscription in self._table.unmuted_plan_for(sender).by_priority:
            handler = subscription.handler
            if handler is not None and subscription.origin is not RECORDER:
                yield handler

    def disconnect(self, receiver: Callable[..., Any], sender: object = blinker.ANY) -> None:
        """Stop calling a receiver, whether it was connected or subscribed.

        Args:
            receiver: the receiver; one that is not connected is no error.
            sender: the sender whose emissions it no longer gets; `ANY` for all senders.
        """
        for subscription in self._table.of_handler(receiver, translated_sender(sender)):
            subscription.cancel()
        self._notify_disconnected(receiver, sender)

    def _clear_state(self) -> None:
        """Cancel every subscription; tests written for blinker call it."""
        for subscription in self.subscriptions:
            subscription.cancel()

    def _connection(self, receiver: object, sender: object) -> Subscription | None:
        present = self._table.find(receiver, translated_sender(sender))
        return present if present is not None and present._connected else None

    def _notify_connected(self, receiver: object, sender: object, weak: bool) -> None:
        if self._connected is not None:
            sender = blinker.ANY if sender is ANY else sender
            self._connected.send(self, receiver=receiver, sender=sender, weak=weak)

    def _notify_disconnected(self, receiver: object, sender: object) -> None:
        if self._disconnected is not None:
            self._disconnected.send(self, receiver=receiver, sender=sender)


def renewed_context(signal: EventSignal[Any], context: BaseEventContext) -> BaseEventContext | None:
    """Convert a context of an earlier, replaced model into one of the signal's present model.

    A dispatcher calls it for a context that is not of the signal's model.

    Returns:
        The new context, without fields that a derived class has added; None if the context is
        of no replaced model.

    Raises:
        ContextValidationError: the context lacks fields, or does not fit.
    """
    former = next((it for it in signal._replaced_models() if isinstance(context, it)), None)
    if former is None:
        return None
    model: Any = signal.context_model
    signal._warn(former)
    check_complete(signal.name, context)
    keywords = values_of(context)
    if type(context) is not former:
        keywords = {name: keywords[name] for name in former.model_fields}
    try:
        return validate_keywords(signal.name, model, spelled_for(model, keywords))
    except ContextValidationError as error:
        # The context may hold other models that were replaced, too.
        dumped = context.model_dump(round_trip=True, by_alias=False, include=set(keywords))
        try:
            return validate_keywords(signal.name, model, spelled_for(model, dumped))
        except ContextValidationError:
            raise error from None


def translated_sender(sender: object) -> Any:
    """Return our `ANY` for blinker's, and any other sender as it is."""
    return ANY if sender is blinker.ANY else sender


def translated(options: SubscriptionOptions) -> SubscriptionOptions:
    """Return options with our `ANY` instead of blinker's."""
    return {**options, "sender": translated_sender(options.get("sender", ANY))}


def check_model(event: str, model: object) -> None:
    """Refuse a class that cannot be the context of an event.

    Raises:
        ContextModelError: it is not derived from `BaseEventContext`, or has a reserved field.
    """
    if model is None:
        return
    if not (isinstance(model, type) and issubclass(model, BaseEventContext)):
        raise ContextModelError(
            f"the context of {event} must be a class derived from BaseEventContext, "
            f"not {type_name(model if isinstance(model, type) else type(model))}",
            event=event,
            model=model,
        )
    if issubclass(model, GenericEventContext):
        raise ContextModelError(
            "every event can be emitted with a GenericEventContext: declare an event without "
            "context=, and subscribe to it by its name or by a pattern",
            event=event,
            model=model,
        )
    note_fields(model)
    taken = sorted(RESERVED_FIELDS.intersection(model.model_fields))
    if taken:
        raise ContextModelError(
            f"{type_name(model)} has a field called '{taken[0]}', which the call of a handler "
            f"needs for itself: rename it, for example to '{taken[0]}_name'",
            event=event,
            model=model,
        )
