"""Subscribing functions to events by name, and groups that are registered together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

from typing_extensions import TypeVar, Unpack

from madcrow_events._names import canonical_name
from madcrow_events._places import Place, calling_place
from madcrow_events._text import printable, type_name
from madcrow_events.batches import Batch
from madcrow_events.exceptions import HandlerSignatureError, InvalidOptionError, PluginError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._declaring import declare
from madcrow_events.signals._old_names import noted_name, old_names_in
from madcrow_events.signals._renaming import read_old_names, take_back
from madcrow_events.signals._subscribing import canonical_pattern, is_pattern, subscribe_as
from madcrow_events.subscriptions import (
    BatchHandlerDecorator,
    HandlerDecorator,
    SingleOptions,
    Subscription,
    SubscriptionOptions,
)
from madcrow_events.subscriptions._options import check_options
from madcrow_events.subscriptions._patterns import Pattern
from madcrow_events.subscriptions._redefinition import end_replaced
from madcrow_events.subscriptions._subscription import end, next_order, order_of

if TYPE_CHECKING:
    from madcrow_events.emissions._plan import CallSpec
    from madcrow_events.signals._keys import Key
    from madcrow_events.subscriptions._endings import EndReason

__all__ = [
    "HandlerGroup",
    "clear_all_handlers",
    "on_event",
    "register_handler",
    "unregister_handler",
]

_MISSING: Any = object()

HandlerT = TypeVar("HandlerT", bound="Callable[..., Any]")
ContextT = TypeVar("ContextT", bound=BaseEventContext, default=BaseEventContext)


@overload
def on_event(
    event: EventSignal[ContextT] | type[ContextT],
    /,
    *,
    batch: Batch,
    signals: SignalRegistry = madcrow_signals,
    **options: Unpack[SingleOptions],
) -> BatchHandlerDecorator[ContextT]: ...
@overload
def on_event(
    event: EventSignal[ContextT] | type[ContextT],
    /,
    *,
    batch: None = None,
    signals: SignalRegistry = madcrow_signals,
    **options: Unpack[SingleOptions],
) -> HandlerDecorator[ContextT]: ...
@overload
def on_event(
    event: str,
    /,
    *,
    signals: SignalRegistry = madcrow_signals,
    **options: Unpack[SubscriptionOptions],
) -> Callable[[HandlerT], HandlerT]: ...
def on_event(
    event: str | EventSignal[Any] | type[BaseEventContext],
    /,
    *,
    signals: SignalRegistry = madcrow_signals,
    **options: Unpack[SubscriptionOptions],
) -> Any:
    """Return a decorator that subscribes a function to an event, and leaves the function as it is.

    Type checkers compare the function with the class or the signal's model; with a name they
    cannot.

    Args:
        event: the name of the event, a signal, a pattern such as `order_*`, or a context class. A
            class stands for each event whose model is this class or derives from it.
        signals: the registry that declares the event.
        **options: see `SubscriptionOptions`.

    Returns:
        The decorator.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: the event is not declared, or its signal belongs to another registry.
        ContextModelError: the class cannot be the model of an event.
        InvalidOptionError: an option is unknown, or has an impossible value. Some values are
            refused by the decorator, such as a `timeout` for a plain function.
        HandlerSignatureError: raised by the decorator: the function cannot be called with what the
            event carries. Or the parentheses are missing.
        SubscriptionConflictError: raised by the decorator: the function is subscribed already, with
            other options, or another handler of the event has the same `id`.

    Example:
        ```python
        from madcrow_events import BaseEventContext, emit_event, madcrow_signals, on_event


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            order_id: int


        @on_event(OrderPlaced, priority=10)
        def send_invoice(context: OrderPlaced) -> None:
            print("invoice for order", context.order_id)


        emit_event(OrderPlaced(order_id=7))
        ```

        ```text
        invoice for order 7
        ```
    """
    check_options(options, "signals")
    if is_pattern(event):
        canonical_pattern(event)
    else:
        signal = signals.resolve(event)
        event = signal.name if isinstance(event, str) else signal
    return _decorator(lambda handler: signals.subscribe(event, handler, **options))


def _decorator(enter: Callable[[Any], object]) -> Callable[..., Any]:
    def decorate(handler: Any = _MISSING, /, **fields: object) -> Any:
        # Without its parentheses, as in `@on_event`, it has taken the place of a context class,
        # for which a handler may be. This is the first call of that class.
        if handler is _MISSING or fields:
            raise HandlerSignatureError(
                "this is no context class, but the decorator of a handler: above the class, write "
                "@madcrow_signals.event to declare its event, and @on_event(...) above a function"
            )
        enter(handler)
        return handler

    return decorate


def register_handler(
    event: str | EventSignal[Any] | type[BaseEventContext],
    handler: Callable[..., Any],
    /,
    *,
    signals: SignalRegistry = madcrow_signals,
    **options: Unpack[SubscriptionOptions],
) -> Subscription:
    """Subscribe a handler to an event.

    Args:
        event: the name of the event, a signal, a pattern such as `order_*`, or a context class, as
            for `on_event`.
        handler: a function or another callable. It takes the event's context, its fields by name,
            the `Emission`, `(sender, **context)`, or nothing.
        signals: the registry that declares the event.
        **options: see `SubscriptionOptions`.

    Returns:
        The subscription, which you can cancel. If the handler is subscribed already, with the same
            options, this is the present subscription.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: the event is not declared, or its signal belongs to another registry.
        HandlerSignatureError: the handler cannot be called with what the event carries.
        InvalidOptionError: an option is unknown, or has an impossible value.
        SubscriptionConflictError: the handler is subscribed already, with other options, or another
            handler of the event has the same `id`.

    Example:
        ```python
        from madcrow_events import (
            BaseEventContext,
            emit_event,
            madcrow_signals,
            register_handler,
        )


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            order_id: int


        def send_invoice(context: OrderPlaced) -> None:
            print("invoice for order", context.order_id)


        subscription = register_handler(OrderPlaced, send_invoice)
        emit_event(OrderPlaced(order_id=7))
        subscription.cancel()
        ```

        ```text
        invoice for order 7
        ```
    """
    check_options(options, "signals")
    return signals.subscribe(event, handler, **options)


def unregister_handler(
    event: str | EventSignal[Any] | type[BaseEventContext],
    handler: Callable[..., Any],
    /,
    *,
    signals: SignalRegistry = madcrow_signals,
) -> bool:
    """Cancel every subscription of a handler to an event, or to exactly this pattern or class.

    Args:
        event: the name of the event, its signal, the pattern, or the class.
        handler: the handler.
        signals: the registry that declares the event.

    Returns:
        Whether the handler was subscribed.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: the event is not declared, or its signal belongs to another registry.
    """
    return signals.unsubscribe(event, handler)


def clear_all_handlers(*, signals: SignalRegistry = madcrow_signals) -> None:
    """Cancel every subscription to every event and pattern. The events stay declared.

    Args:
        signals: the registry that declares the events.

    Raises:
        PluginError: a plugin calls this function while it is imported.
    """
    signals.clear_handlers()


API_VERSION: Final = 1
"""The newest `api_version` that a `HandlerGroup` can ask for."""


class _DeclaredSignal(NamedTuple):
    name: str
    doc: str | None
    model: type[BaseEventContext] | None
    place: Place
    formerly: tuple[str, ...] = ()
    key: Key | None = None
    is_own: bool = True  # the group declares it, and does not only need it


class _DeclaredHandler(NamedTuple):
    event: Pattern
    handler: Callable[..., Any]
    options: SubscriptionOptions
    place: Place
    is_optional: bool = False


class HandlerGroup:
    """Handlers and the events that they need, collected first, and registered together later.

    `signal` and `on` only collect: they change no registry. `register` declares the events and
    subscribes the handlers: all of them, or nothing. A plugin exports one such group.

    Args:
        name: the name of the group, for reports and messages.
        api_version: the version of the plugin interface that the group was written for. So far
            there is only version 1.

    Attributes:
        name: see the argument.
        api_version: see the argument.

    Raises:
        InvalidOptionError: the version is not a positive integer.
        PluginError: the group was written for a newer version of this package.

    Example:
        ```python
        from madcrow_events import HandlerGroup, emit_event

        shop = HandlerGroup("shop")
        shop.signal("order_placed", "A customer placed an order.")


        @shop.on("order_placed")
        def send_invoice(order_id: int) -> None:
            print("invoice for order", order_id)


        shop.register()
        emit_event("order_placed", order_id=7)
        ```

        ```text
        invoice for order 7
        ```
    """

    def __init__(self, name: str, *, api_version: int = 1) -> None:
        requested: object = api_version
        if not isinstance(requested, int) or isinstance(requested, bool) or requested < 1:
            raise InvalidOptionError(
                "api_version must be a positive int, such as 1", option="api_version"
            )
        if api_version > API_VERSION:
            raise PluginError(
                f"the group {printable(name)} asks for api_version {api_version}, but this "
                f"madcrow-events has {API_VERSION}: upgrade madcrow-events, or install an older "
                "version of the plugin",
                plugin=name,
            )
        self.name: str = name
        self.api_version: int = api_version
        self._signals: list[_DeclaredSignal] = []
        self._handlers: list[_DeclaredHandler] = []

    def signal(
        self,
        name: str,
        doc: str | None = None,
        *,
        context: type[BaseEventContext] | None = None,
        key: str | Callable[[Any], object] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> None:
        """Add an event to the group. `register` declares it.

        Args:
            name: the name of the event, in the form that `SignalRegistry.signal` describes.
            doc: a sentence that says what the event means, or None.
            context: the event's model, a class derived from `BaseEventContext`; None, the default,
                for an event without a model.
            key: the event's ordering key: a field, or a function of the context, as for
                `SignalRegistry.signal`. `register` checks it.
            formerly: a name that the event had before, or several, as for `SignalRegistry.signal`.

        Raises:
            InvalidEventNameError: a name is malformed.
        """
        event, old_names = canonical_name(name), read_old_names(formerly)
        place = calling_place()
        self._signals.append(_DeclaredSignal(event, doc, context, place, old_names, key))

    @overload
    def on(
        self,
        event: EventSignal[ContextT] | type[ContextT],
        /,
        *,
        batch: Batch,
        **options: Unpack[SingleOptions],
    ) -> BatchHandlerDecorator[ContextT]: ...
    @overload
    def on(
        self,
        event: EventSignal[ContextT] | type[ContextT],
        /,
        *,
        batch: None = None,
        **options: Unpack[SingleOptions],
    ) -> HandlerDecorator[ContextT]: ...
    @overload
    def on(
        self, event: str, /, *, optional: bool = False, **options: Unpack[SubscriptionOptions]
    ) -> Callable[[HandlerT], HandlerT]: ...
    def on(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext],
        /,
        *,
        optional: bool = False,
        **options: Unpack[SubscriptionOptions],
    ) -> Any:
        """Return a decorator that adds a function to the group, and leaves the function as it is.

        Args:
            event: the name of the event, a signal, a pattern such as `order_*`, or a context class.
                With a signal or a class, type checkers compare the handler with the model. With a
                signal, `register` declares the event if the registry lacks it. A class stands for
                each event whose model is this class or derives from it.
            optional: whether the event, given by its name, may never be declared. The handler is
                then subscribed whenever the event is. If it does not fit an event that is declared
                after `register`, it is not subscribed, and an ERROR in the log says so.
            **options: see `SubscriptionOptions`.

        Returns:
            The decorator. `register` checks the function that it gets.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            HandlerSignatureError: the parentheses are missing.
            InvalidOptionError: an option is unknown, or has an impossible value.
        """
        check_options(options, "optional")
        _check_optional(optional, event)
        place = calling_place()
        if isinstance(event, EventSignal):
            needed = _DeclaredSignal(
                event.name, event.doc, event.context_model, place, key=event.key, is_own=False
            )
            self._signals.append(needed)
            event = event.name
        canonical = canonical_pattern(event)
        return _decorator(
            lambda handler: self._handlers.append(
                _DeclaredHandler(canonical, handler, options, place, optional)
            )
        )

    @property
    def handlers(self) -> tuple[tuple[str, Callable[..., Any]], ...]:
        """Pairs of an event, a pattern or the name of a class, and a handler.

        They are in the order in which they were added.
        """
        return tuple(
            (it.event if isinstance(it.event, str) else type_name(it.event), it.handler)
            for it in self._handlers
        )

    def register(self, signals: SignalRegistry = madcrow_signals) -> None:
        """Declare the group's events and subscribe its handlers. A second call changes nothing.

        Args:
            signals: the registry.

        Raises:
            SignalConflictError: an event is declared already, with another model or key. Or an old
                name is that of another event.
            ContextModelError: the model of an event is not derived from `BaseEventContext`, or has
                a field called `sender` or `self`. Or a key is neither a field of the model nor a
                plain function.
            UnknownEventError: an event that a handler names is not declared, and the handler is not
                optional.
            HandlerSignatureError: a handler cannot be called with what its event carries.
            InvalidOptionError: an option does not fit its handler, such as a `timeout` for a plain
                function.
            SubscriptionConflictError: a handler is subscribed already, with other options, or
                another handler of the event has the same `id`.
        """
        register_wrapped(self, signals)

    def unregister(self, signals: SignalRegistry = madcrow_signals) -> None:
        """Cancel the subscriptions that `register` made, and no others. The events stay declared.

        Args:
            signals: the registry with which the group was registered.
        """
        end_handlers(self, signals, "cancelled")

    def __repr__(self) -> str:
        """Count the handlers."""
        return f"<HandlerGroup {printable(self.name)}, handlers: {len(self._handlers)}>"


def _check_optional(optional: object, event: object) -> None:
    if not isinstance(optional, bool):
        raise InvalidOptionError("optional must be True or False", option="optional")
    if optional and not (isinstance(event, str) and not is_pattern(event)):
        raise InvalidOptionError(
            "optional is for a handler of one event, which is given by its name: a signal declares "
            "its event, and a pattern and a class wait for events anyway, so leave it out",
            option="optional",
        )


def register_wrapped(
    group: HandlerGroup,
    signals: SignalRegistry,
    wrap: Callable[[CallSpec], CallSpec] | None = None,
) -> None:
    """Register a group as `HandlerGroup.register` does, with wrapped handlers if it is a plugin's.

    Args:
        group: the group.
        signals: the registry.
        wrap: takes the call spec of a handler, and returns the one to call it by.
    """
    present, present_old = set(signals), old_names_in(signals)
    start = next_order()
    replaced: list[Subscription] = []
    try:
        for name, doc, model, place, formerly, key, _ in group._signals:
            declare(signals, name, doc, model, formerly, key=key, place=place)
        for event, handler, options, place, is_optional in group._handlers:
            subscribe_as(
                signals,
                noted_name(signals, event, place) if isinstance(event, str) else event,
                handler,
                options,
                group,
                is_optional=is_optional,
                wrap=wrap,
                replaced=replaced,
            )
    except BaseException:
        for subscription in signals.subscriptions:
            if order_of(subscription) > start and subscription.origin is group:
                subscription.cancel()
        take_back(signals, old_names_of(group) - present_old)
        for name in events_of(group) & set(signals) - present:
            del signals[name]
        raise
    end_replaced(replaced)


def end_handlers(group: HandlerGroup, signals: SignalRegistry, reason: EndReason) -> None:
    """End the subscriptions that a group made, as `HandlerGroup.unregister` does, for a reason."""
    for subscription in signals.subscriptions:
        if subscription.origin is group:
            end(subscription, reason)


def events_of(group: HandlerGroup, *, with_needed: bool = True) -> set[str]:
    """Return the events that a group declares.

    Args:
        group: the group.
        with_needed: whether to include the events of signals that its handlers only listen to.
    """
    return {it.name for it in group._signals if with_needed or it.is_own}


def old_names_of(group: HandlerGroup) -> set[str]:
    """Return the old names that a group gives to its events."""
    return {old for it in group._signals for old in it.formerly}


def handlers_of(group: HandlerGroup) -> list[tuple[Pattern, Callable[..., Any], bool]]:
    """Return the handlers of a group, each with its event, pattern or class.

    The third item says whether the handler is optional.
    """
    return [(it.event, it.handler, it.is_optional) for it in group._handlers]


def declared_signals(group: HandlerGroup) -> list[_DeclaredSignal]:
    """Return the events that a group declares, or that its handlers need, each with its model."""
    return [*group._signals]


def declared_handlers(group: HandlerGroup) -> list[_DeclaredHandler]:
    """Return the handlers of a group, each with its options and the line that adds it."""
    return [*group._handlers]


def has_lasting_handlers(group: HandlerGroup) -> bool:
    """Whether a group has a handler that stays subscribed until it is removed.

    A group that has only `once` handlers can be left without subscriptions by their calls.
    """
    return any(not it.options.get("once") for it in group._handlers)
