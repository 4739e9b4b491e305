"""Subscribing functions to events by name, and groups that are registered together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, overload

from typing_extensions import TypeVar, Unpack

from madcrow_events._names import canonical_name
from madcrow_events._text import printable, type_name
from madcrow_events.batches import Batch
from madcrow_events.exceptions import HandlerSignatureError, InvalidOptionError, PluginError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
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
from madcrow_events.subscriptions._subscription import next_order, order_of

if TYPE_CHECKING:
    from madcrow_events.emissions._plan import CallSpec

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
    """Return a decorator that subscribes a function to an event, and leaves it as it is.

    Type checkers compare the function with the class or the signal's model; with a name they
    cannot.

    Args:
        event: a context class, for each event whose model is this class or derived from it; or a
            signal; or an event's name, or a pattern such as `account_*`.
        signals: the registry that declares the event.
        **options: see `SubscriptionOptions`.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: the event is not declared.
        ContextModelError: the class cannot be the model of an event.
        InvalidOptionError: an option has an invalid value.
        HandlerSignatureError: (by the decorator) the function cannot be called
            with what the event carries.
        SubscriptionConflictError: (by the decorator) the function is subscribed
            already, with other options.
    """
    check_options(options)
    if is_pattern(event):
        canonical_pattern(event)
    else:
        signals.resolve(event)
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
        event: a context class, a signal, the event's name, or a pattern such as `account_*`; see
            `on_event`.
        handler: any callable in one of the forms that table H of the guarantees lists.
        signals: the registry that declares the event.
        **options: see `SubscriptionOptions`.

    Returns:
        The subscription, which can be cancelled.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: the event is not declared.
        HandlerSignatureError: the handler cannot be called with what the event carries.
        InvalidOptionError: an option has an invalid value.
        SubscriptionConflictError: the handler is subscribed already, with other options.
    """
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
        event: the event's name, its signal, the pattern or the class.
        handler: the handler.
        signals: the registry that declares the event.

    Returns:
        Whether it was subscribed.

    Raises:
        InvalidEventNameError: the name or pattern is malformed.
        UnknownEventError: the event is not declared.
    """
    return signals.unsubscribe(event, handler)


def clear_all_handlers(*, signals: SignalRegistry = madcrow_signals) -> None:
    """Cancel every subscription to every event; the events stay declared.

    Args:
        signals: the registry that declares the events.

    Raises:
        PluginError: a plugin calls this while it is imported.
    """
    signals.clear_handlers()


API_VERSION: Final = 1
"""The newest `api_version` that a `HandlerGroup` can ask for."""


class _DeclaredSignal(NamedTuple):
    name: str
    doc: str | None
    model: type[BaseEventContext] | None
    is_own: bool = True  # the group declares it, and does not only need it


class _DeclaredHandler(NamedTuple):
    event: Pattern
    handler: Callable[..., Any]
    options: SubscriptionOptions


class HandlerGroup:
    """Handlers and the events they need, declared together and registered together.

    Declaring touches no registry. `register` declares and subscribes the whole group, or nothing.

    A plugin exports one such group.

    Args:
        name: the group's name in reports.
        api_version: the version of this interface that the group was written for; so far, only 1.

    Attributes:
        name: the argument.
        api_version: the argument.

    Raises:
        InvalidOptionError: the version is no positive integer.
        PluginError: the group was written for a newer version of this package.
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
        self, name: str, doc: str | None = None, *, context: type[BaseEventContext] | None = None
    ) -> None:
        """Add an event to the group; `register` declares it in the registry.

        Args:
            name: the event's name.
            doc: what the event means.
            context: the model of its typed contexts.

        Raises:
            InvalidEventNameError: the name is malformed.
        """
        self._signals.append(_DeclaredSignal(canonical_name(name), doc, context))

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
        self, event: str, /, **options: Unpack[SubscriptionOptions]
    ) -> Callable[[HandlerT], HandlerT]: ...
    def on(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext],
        /,
        **options: Unpack[SubscriptionOptions],
    ) -> Any:
        """Return a decorator that adds a function to the group, and leaves it as it is.

        Args:
            event: a context class, a signal, the event's name, or a pattern. With a class or
                signal, type checkers compare the handler with it. With a signal, `register`
                declares the event if the registry lacks it; with a class, the handler is for each
                event whose model is that class or derived from it.
            **options: see `SubscriptionOptions`.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            InvalidOptionError: an option has an invalid value.
        """
        check_options(options)
        if isinstance(event, EventSignal):
            needed = _DeclaredSignal(event.name, event.doc, event.context_model, is_own=False)
            self._signals.append(needed)
            event = event.name
        canonical = canonical_pattern(event)
        return _decorator(
            lambda handler: self._handlers.append(_DeclaredHandler(canonical, handler, options))
        )

    @property
    def handlers(self) -> tuple[tuple[str, Callable[..., Any]], ...]:
        """The group's handlers, each with its event, pattern or class, in the declared order."""
        return tuple(
            (it.event if isinstance(it.event, str) else type_name(it.event), it.handler)
            for it in self._handlers
        )

    def register(self, signals: SignalRegistry = madcrow_signals) -> None:
        """Declare the group's events and subscribe its handlers; doing so again changes nothing.

        Args:
            signals: the registry.

        Raises:
            SignalConflictError: an event is declared already, with another model.
            UnknownEventError: an event that a handler names is not declared.
            HandlerSignatureError: a handler cannot be called with what its event carries.
            SubscriptionConflictError: a handler is subscribed already, with other options.
        """
        register_wrapped(self, signals)

    def unregister(self, signals: SignalRegistry = madcrow_signals) -> None:
        """Cancel the subscriptions that `register` made, and no others; events stay declared.

        Args:
            signals: the registry.
        """
        for subscription in signals.subscriptions:
            if subscription.origin is self:
                subscription.cancel()

    def __repr__(self) -> str:
        """Count the handlers."""
        return f"<HandlerGroup {printable(self.name)}, handlers: {len(self._handlers)}>"


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
    present = set(signals)
    start = next_order()
    replaced: list[Subscription] = []
    try:
        for declared in group._signals:
            signals.signal(declared.name, declared.doc, context=declared.model)  # type: ignore[arg-type]  # None is the same as left out
        for it in group._handlers:
            subscribe_as(
                signals, it.event, it.handler, it.options, group, wrap=wrap, replaced=replaced
            )
    except BaseException:
        for subscription in signals.subscriptions:
            if order_of(subscription) > start and subscription.origin is group:
                subscription.cancel()
        for name in {declared.name for declared in group._signals} - present:
            signals.pop(name, None)
        raise
    end_replaced(replaced)


def events_of(group: HandlerGroup, *, with_needed: bool = True) -> set[str]:
    """Return the events that a group declares.

    Args:
        group: the group.
        with_needed: whether to include the events of signals that its handlers only listen to.
    """
    return {it.name for it in group._signals if with_needed or it.is_own}


def handlers_of(group: HandlerGroup) -> list[tuple[Pattern, Callable[..., Any]]]:
    """Return the handlers of a group, each with its event, pattern or class."""
    return [(it.event, it.handler) for it in group._handlers]


def has_lasting_handlers(group: HandlerGroup) -> bool:
    """Whether a group has a handler that stays subscribed until it is removed.

    A group that has only `once` handlers can be left without subscriptions by their calls.
    """
    return any(not it.options.get("once") for it in group._handlers)
