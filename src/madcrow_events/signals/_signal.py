"""The object for one event, a blinker signal: code written for blinker works with it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Never, overload

from typing_extensions import Unpack

from madcrow_events._aliases import spelled_for
from madcrow_events._copies import Unique
from madcrow_events._executions import definition_of
from madcrow_events._logs import is_debugging, log
from madcrow_events._names import canonical_name
from madcrow_events._text import printable, type_name
from madcrow_events._validation import check_complete, validate_keywords
from madcrow_events.batches import Batch
from madcrow_events.emissions import Emission
from madcrow_events.emissions._short_way import emit_the_short_way
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
from madcrow_events.signals._blinker_signal import BlinkerSignal, translated
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
from madcrow_events.subscriptions._signatures import read_call_spec
from madcrow_events.subscriptions._subscription import new_subscription
from madcrow_events.subscriptions._table import SubscriptionTable

if TYPE_CHECKING:
    from madcrow_events._executions import Execution
    from madcrow_events._places import Place
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions._plan import CallSpec
    from madcrow_events.signals._keys import Key
    from madcrow_events.signals._registry import SignalRegistry

__all__ = ["EventSignal", "check_model", "renewed_context"]

_MOST_REPLACED: Final = 15
"""How many replaced models, besides the last one, still make valid contexts."""


class EventSignal(Unique, BlinkerSignal, Generic[ContextT]):
    """The object for one event: handlers subscribe to it, and dispatchers emit it.

    `SignalRegistry.signal` makes it, and keeps it under its name. It is also a
    `blinker.NamedSignal`, so code that was written for blinker can use it.

    Args:
        name: the name of the event, in the form that `SignalRegistry.signal` describes.
        doc: a sentence that says what the event means, or None.
        context: the event's model, a class derived from `BaseEventContext`; None, the default, for
            an event without a model.

    Attributes:
        name: the name of the event, with underscores for hyphens.
        doc: a sentence that says what the event means, or None.
        context_model: the event's model, or None.
        key: the event's ordering key: the name of a field, or a function of the context; or None.

    Raises:
        InvalidEventNameError: the name is malformed.
        ContextModelError: the model is not derived from `BaseEventContext`, is a
            `GenericEventContext`, or has a field called `sender` or `self`.
    """

    __slots__ = (
        "_execution",
        "_has_warned",
        "_key_execution",
        "_models",
        "_place",
        "_registry",
        "_replaced",
        "_successor",
        "context_model",
        "doc",
        "key",
        "name",
    )

    _instead_of_pickling = "send its name, and look it up there with signals[name]"

    _successor: EventSignal[Any]
    """The signal that this one acts as, while it is a `FormerSignal`."""

    def __init__(
        self, name: str, doc: str | None = None, *, context: type[ContextT] | None = None
    ) -> None:
        # Without blinker's __init__: all of its bookkeeping is replaced.
        self.name: str = canonical_name(name)
        self._describe(doc)
        check_model(self.name, context)
        self.context_model: type[ContextT] | None = context
        self._models: tuple[type[BaseEventContext], ...] = () if context is None else (context,)
        self.key: str | Callable[[ContextT], object] | None = None
        # The execution of the module that has declared the key.
        self._key_execution: Execution | None = None
        # Where the registry's user declared it; see `declared_at`.
        self._place: Place | None = None
        # The earlier models that `context_model` has replaced because its module ran again. Below:
        # the execution of the module that defines `context_model`.
        self._replaced: tuple[weakref.ref[type[BaseEventContext]], ...] = ()
        self._execution: Execution | None = None
        self._has_warned = False
        self._table = SubscriptionTable()
        # The registry that has declared it; None if somebody made it directly.
        self._registry: SignalRegistry | None = None
        self._connected = None
        self._disconnected = None

    def __str__(self) -> str:
        """Return the name; handlers of several events compare it."""
        return self.name

    @property
    def formerly(self) -> tuple[str, ...]:
        """The old names of the event, which still mean it.

        Example:
            ```python
            from madcrow_events import madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", formerly="order-made")
            print(order_placed.formerly)
            ```

            ```text
            ('order_made',)
            ```
        """
        former = {} if self._registry is None else self._registry._former
        return tuple([old for old, it in former.items() if it.signal._itself() is self])

    def _itself(self) -> EventSignal[ContextT]:
        """Return the signal; that of a former event returns the one of the event that it is now."""
        return self

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
        """Subscribe a handler to the event.

        Args:
            handler: a function or another callable. It takes the event's context, the `Emission`,
                `(sender, **context)`, nothing, or the event's fields by name. Type checkers do not
                know the last form: subscribe such a handler with `register_handler`.
            **options: see `SubscriptionOptions`.

        Returns:
            The subscription, which you can cancel, or use as a `with` block. If the handler is
                subscribed already, with the same options, this is the present subscription.

        Raises:
            HandlerSignatureError: the handler cannot be called with what the event carries.
            InvalidOptionError: an option is unknown, or has an impossible value.
            SubscriptionConflictError: the handler is subscribed already, with other options, or
                another handler of the event has the same `id`.

        Example:
            ```python
            from madcrow_events import get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")


            def send_invoice() -> None:
                print("invoice sent")


            with order_placed.subscribe(send_invoice):
                get_event_dispatcher().emit(order_placed)
            get_event_dispatcher().emit(order_placed)  # the subscription has ended
            ```

            ```text
            invoice sent
            ```
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
        if options:
            check_options(options)
        table = self._table
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
        requested = new_subscription(table, self.name, handler, spec, translated(options))
        if origin is not None:
            requested.origin = origin
        earlier = find_replaced(requested, table.live)
        subscription = table.add(requested, earlier)
        self._bring_along(table)
        if is_debugging():  # before the name is made
            log(logging.DEBUG, "%s subscribed to %s", subscription.name, self.name)
        if replaced is not None:
            replaced += earlier
        elif earlier:
            end_replaced(earlier)
        if subscription is requested and self._connected is not None:
            self._notify_connected(handler, options.get("sender", ANY), subscription.weak)
        return subscription

    def unsubscribe(self, handler: Callable[..., Any], /) -> bool:
        """Cancel every subscription of a handler to this event.

        If the handler's module has run again, as after a reload, this also cancels the
        subscriptions of the earlier function of the same name.

        Args:
            handler: the handler.

        Returns:
            Whether the handler was subscribed.
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
        """Return a decorator that subscribes a function to the event, and leaves it as it is.

        The function takes the event's context, the `Emission`, `(sender, **context)`, or nothing.

        Args:
            *misplaced: not for use. It catches the mistake of leaving out the parentheses of
                `on()`.
            **options: see `SubscriptionOptions`.

        Returns:
            The decorator. It raises the same errors as `subscribe`.

        Raises:
            InvalidOptionError: an option is unknown, or has an impossible value.
            HandlerSignatureError: the parentheses are missing.

        Example:
            ```python
            from madcrow_events import BaseEventContext, get_event_dispatcher, madcrow_signals


            class OrderPlaced(BaseEventContext):
                order_id: int


            order_placed = madcrow_signals.signal("order_placed", context=OrderPlaced)


            @order_placed.on()
            def send_invoice(context: OrderPlaced) -> None:
                print("invoice for order", context.order_id)


            get_event_dispatcher().emit_typed(order_placed, OrderPlaced(order_id=7))
            ```

            ```text
            invoice for order 7
            ```
        """
        if misplaced:
            is_event = isinstance(misplaced[0], type | str | EventSignal)
            problem = "names the event already" if is_event else "needs its parentheses"
            raise HandlerSignatureError(
                f"the decorator {self.name}.on {problem}: write @{self.name}.on()",
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

        When `emit` returns, the plain handlers have run. Async, background and batch handlers run
        later.

        Args:
            context: an instance of the event's model.
            sender: the object that emits; None, the default, stands for the signal.
            **misplaced: leave it out. It gets fields that are given without their context, for the
                error.

        Returns:
            The emission, with what came of it.

        Raises:
            ContextTypeError: the context is left out, or is not of the event's model.
            UnknownEventError: the signal belongs to no registry.
            MadcrowEventsError: as for `EventDispatcher.emit_typed`.
            Exception: a handler failed, and the dispatcher has `on_error="raise"`.

        Example:
            ```python
            from madcrow_events import BaseEventContext, madcrow_signals


            class OrderPlaced(BaseEventContext):
                order_id: int


            order_placed = madcrow_signals.signal("order_placed", context=OrderPlaced)
            emission = order_placed.emit(OrderPlaced(order_id=7))
            print(emission.event, emission.ok)
            ```

            ```text
            order_placed True
            ```
        """
        registry = self._registry
        if (
            sender is None
            and not misplaced
            and registry is not None
            and type(context) is self.context_model
            and (dispatcher := registry._dispatching.plain) is not None
            and not dispatcher.__dict__  # in which a test may have patched a method
        ):
            # As `EventDispatcher.emit_typed` does, because calling it would cost each emission 5 %.
            done = emit_the_short_way(dispatcher, self, context, True)
            if done is not None:
                return done
        return self._dispatcher_for(context, misplaced).emit_typed(self, context, sender)

    async def emit_async(
        self, context: ContextT, sender: object = None, **misplaced: Never
    ) -> Emission[ContextT]:
        """Emit the event as `emit` does, and await its async handlers.

        Args:
            context: as for `emit`.
            sender: as for `emit`.
            **misplaced: as for `emit`.

        Returns:
            The emission, with what came of it.

        Raises:
            CancelledError: the emitter was cancelled, and with it the handlers that it awaited.
            MadcrowEventsError: as for `emit`.
            Exception: a handler failed, and the dispatcher has `on_error="raise"`.
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
                f"{self.name}.emit({type_name(model)}(...)), or {self._loose_call()} for keywords",
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

    def _loose_call(self) -> str:
        """Return the call that emits the event with keywords, for messages."""
        is_default = self._registry is not None and bool(self._registry._built_in)
        return f"{'emit_event' if is_default else 'dispatcher.emit'}('{self.name}', ...)"

    # A model whose module runs again

    def _describe(self, doc: str | None) -> None:
        self.doc: str | None = doc
        if doc:
            self.__doc__ = doc

    def _note_declaration(
        self, key: Key | None, execution: Execution | None, place: Place | None
    ) -> None:
        """Let the event have a key, which a module declares at a place in this execution of it."""
        self.key = key
        self._key_execution = execution
        self._place = place

    def _replaced_models(self) -> tuple[type[BaseEventContext], ...]:
        if not self._replaced:  # most often, and each new subscription asks
            return ()
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
        """The active subscriptions to the event, in the order in which they were made."""
        return tuple(self._table.live())


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
