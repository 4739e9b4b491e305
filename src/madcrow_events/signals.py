"""Named signals and the registry that declares them; the only module that imports blinker.

`EventSignal` is a `blinker.NamedSignal` and `SignalRegistry` a
`blinker.Namespace`, with blinker's documented meaning (N5): code written for
blinker works with them. What differs is listed in the guarantees.

This module holds the default registry, `madcrow_signals`, one of the package's
three pieces of global state. It is longer than the others because everything
that knows blinker stands here.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Never, cast, overload

import blinker
from typing_extensions import TypeVar, Unpack

from madcrow_events._forks import renew_after_fork
from madcrow_events._logs import LOGGER, handler_name, type_name
from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events.emissions._blinker_loop import send, send_async
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import (
    ContextModelError,
    HandlerSignatureError,
    SignalConflictError,
)
from madcrow_events.models import (
    RESERVED_FIELDS,
    AccountActivatedEventContext,
    AccountBannedEventContext,
    AccountClosedEventContext,
    BaseEventContext,
    GenericEventContext,
    HandlerFailedEventContext,
    LoginEventContext,
    LoginFailedEventContext,
    LogoutEventContext,
    PasswordChangedEventContext,
    RegistrationEventContext,
    SessionExpiredEventContext,
    SuspiciousActivityEventContext,
    SystemShutdownEventContext,
    SystemStartupEventContext,
    TokenRefreshedEventContext,
)
from madcrow_events.subscriptions._call_specs import ASYNC_RECEIVER, RECEIVER
from madcrow_events.subscriptions._handler_types import (
    BatchHandler,
    BatchHandlerDecorator,
    ContextT,
    Handler,
    HandlerDecorator,
    KeywordHandler,
)
from madcrow_events.subscriptions._options import (
    ANY,
    SingleOptions,
    SubscriptionOptions,
    check_options,
)
from madcrow_events.subscriptions._patterns import PatternSubscription, PatternTable
from madcrow_events.subscriptions._signatures import is_async, read_shape
from madcrow_events.subscriptions._subscription import Subscription
from madcrow_events.subscriptions._table import SubscriptionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from madcrow_events.batches import Batch
    from madcrow_events.plugins._gate import Gate
    from madcrow_events.subscriptions._table import Recording

__all__ = [
    "BatchHandler",
    "BatchHandlerDecorator",
    "EventSignal",
    "Handler",
    "HandlerDecorator",
    "KeywordHandler",
    "SignalRegistry",
    "account_activated",
    "account_banned",
    "account_closed",
    "login_failed",
    "madcrow_signals",
    "password_changed",
    "session_expired",
    "suspicious_activity",
    "system_shutdown",
    "system_startup",
    "token_refreshed",
    "user_logged_in",
    "user_logged_out",
    "user_registered",
]

ReceiverT = TypeVar("ReceiverT", bound="Callable[..., Any]")


class EventSignal(blinker.NamedSignal, Generic[ContextT]):
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

    def __init__(
        self, name: str, doc: str | None = None, *, context: type[ContextT] | None = None
    ) -> None:
        # blinker's own bookkeeping is replaced as a whole, so its __init__ does not run.
        self.name: str = canonical_name(name)
        self.doc = doc
        if doc:
            self.__doc__ = doc
        check_model(self.name, context)
        self.context_model: type[ContextT] | None = context
        self._models: tuple[type[BaseEventContext], ...] = () if context is None else (context,)
        self._table = SubscriptionTable()
        self._connected: blinker.Signal | None = None
        self._disconnected: blinker.Signal | None = None

    def __str__(self) -> str:
        """Return the name, by which a handler can tell its events apart (E1)."""
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
        gate: Gate | None = None,
    ) -> Subscription:
        check_options(options)
        is_batch = options.get("batch") is not None
        shape = read_shape(handler, self.name, self.context_model, batch=is_batch)
        if gate is not None:
            shape = gate.around(shape)
        requested = Subscription(self._table, self.name, handler, shape, _translated(options))
        requested.origin = origin
        subscription = self._table.add(requested)
        LOGGER.debug("%s subscribed to %s", handler_name(handler), self.name)
        if subscription is requested:
            self._tell_connected(handler, options.get("sender", ANY), subscription.weak)
        return subscription

    def unsubscribe(self, handler: Callable[..., Any], /) -> bool:
        """Cancel every subscription of a handler to this event.

        Returns:
            Whether there was one.
        """
        found = self._table.of_handler(handler)
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
            *misplaced: nothing; catches a decorator without its parentheses.
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

        def decorate(handler: Any) -> Any:
            subscribe(handler, **options)
            return handler

        return decorate

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The active subscriptions, in the order in which they came."""
        return tuple(self._table.live())

    # blinker's side

    @property
    def receiver_connected(self) -> blinker.Signal:  # pyright: ignore[reportIncompatibleVariableOverride]  # cached there
        """Sent after a handler was connected or subscribed, with `receiver`, `sender`, `weak`."""
        if self._connected is None:
            self._connected = blinker.Signal(doc="Emitted after a receiver connects.")
        return self._connected

    @property
    def receiver_disconnected(self) -> blinker.Signal:  # pyright: ignore[reportIncompatibleVariableOverride]  # as above
        """Sent after `disconnect`, with `receiver` and `sender`."""
        if self._disconnected is None:
            self._disconnected = blinker.Signal(doc="Emitted after a receiver disconnects.")
        return self._disconnected

    def connect(
        self,
        receiver: ReceiverT,
        sender: Any = blinker.ANY,
        weak: bool = True,  # noqa: FBT001, FBT002  # blinker's signature
    ) -> ReceiverT:
        """Call `receiver(sender, **context)`, whatever its signature, as blinker does.

        Args:
            receiver: any callable; held weakly unless `weak` is False.
            sender: only emissions of this sender, matched as guarantee L2 says.
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
        shape = ASYNC_RECEIVER if is_async(receiver) else RECEIVER
        options = _translated({"sender": sender, "weak": weak})
        requested = Subscription(self._table, self.name, receiver, shape, options, connected=True)
        present = self._connection(receiver, sender)
        if present is not None and present.weak != weak:
            self._table.replace(requested)
        else:
            self._table.add(requested)
        self._tell_connected(receiver, sender, weak)
        return receiver

    @contextmanager
    def connected_to(
        self, receiver: Callable[..., Any], sender: Any = blinker.ANY
    ) -> Iterator[None]:
        """Connect `receiver` until the block ends; an earlier connection stays as it was.

        Args:
            receiver: any callable; held strongly for that time.
            sender: only emissions of this sender.
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
            self._tell_disconnected(receiver, sender)

    def muted(self) -> AbstractContextManager[None]:  # type: ignore[override]  # the same to a caller
        """Until the block ends, let neither `send` nor `emit` of this context reach anybody."""
        return self._table.muted()

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
        **kwargs: Any,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Call all handlers of `sender`, in order; the first failure ends it and is raised.

        Args:
            sender: who sends; handlers get it as it is, None too.
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
        **kwargs: Any,
    ) -> list[tuple[Callable[..., Any], Any]]:
        """Await all handlers of `sender`, one after the other; the first failure is raised.

        Args:
            sender: who sends; handlers get it as it is, None too.
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
        """The handlers, under keys of no meaning; true if there are any."""
        return {entry._order: entry.handler for entry in self._table.live()}

    def has_receivers_for(self, sender: Any) -> bool:
        """Tell whether an emission of `sender` would reach anybody.

        Args:
            sender: any object, or `ANY` to ask for handlers of every sender.
        """
        return self._table.has_any_for(_translated_sender(sender))

    def receivers_for(self, sender: Any) -> Iterator[Callable[..., Any]]:  # type: ignore[override]  # blinker says Generator, of which only iteration is used
        """Yield each handler that an emission of `sender` would reach, in order.

        Args:
            sender: any object.
        """
        for subscription in self._table.unmuted_plan_for(sender).by_priority:
            handler = subscription.handler
            if handler is not None and subscription.origin is not RECORDER:
                yield handler

    def disconnect(self, receiver: Callable[..., Any], sender: Any = blinker.ANY) -> None:
        """Stop calling a receiver, however it was connected; for `ANY`, for every sender.

        Args:
            receiver: the receiver; one that is not connected is no error.
            sender: only its connection to this sender.
        """
        for subscription in self._table.of_handler(receiver, _translated_sender(sender)):
            subscription.cancel()
        self._tell_disconnected(receiver, sender)

    def _connection(self, receiver: Any, sender: Any) -> Subscription | None:
        present = self._table.find(receiver, _translated_sender(sender))
        return present if present is not None and present._connected else None

    def _tell_connected(self, receiver: Any, sender: Any, weak: bool) -> None:  # noqa: FBT001  # passed on as blinker names it
        if self._connected is not None:
            sender = blinker.ANY if sender is ANY else sender
            self._connected.send(self, receiver=receiver, sender=sender, weak=weak)

    def _tell_disconnected(self, receiver: Any, sender: Any) -> None:
        if self._disconnected is not None:
            self._disconnected.send(self, receiver=receiver, sender=sender)


def _translated_sender(sender: Any) -> Any:
    return ANY if sender is blinker.ANY else sender


def _translated(options: SubscriptionOptions) -> SubscriptionOptions:
    return {**options, "sender": _translated_sender(options.get("sender", ANY))}


def check_model(event: str, model: Any) -> None:
    """Refuse a class that cannot be the context of an event (C1).

    Raises:
        ContextModelError: it is no `BaseEventContext`, or has a reserved field.
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
            "every event can be emitted with a GenericEventContext: "
            f"declare {event} without context=",
            event=event,
            model=model,
        )
    taken = sorted(RESERVED_FIELDS.intersection(model.model_fields))
    if taken:
        raise ContextModelError(
            f"{type_name(model)} has a field called '{taken[0]}', which the call of a handler "
            f"needs for itself: rename it, for example to '{taken[0]}_name'",
            event=event,
            model=model,
        )


class SignalRegistry(blinker.Namespace):
    """The events of an application, by name.

    Args:
        strict: whether a name must be declared with `signal` before it is
            emitted or subscribed to; if not, its first use declares it.
    """

    def __init__(self, *, strict: bool = True) -> None:
        super().__init__()
        self.strict = strict
        self._renew_after_fork()
        renew_after_fork(self)
        self._patterns = PatternTable()
        self._built_in: tuple[str, ...] = ()
        self._isolations: list[object] = []
        # What an isolated(empty=True) block forgot, to be the same object if it is declared again.
        self._set_aside: dict[str, EventSignal[Any]] = {}
        self._other_states: list[Callable[[bool], Callable[[], None]]] = []
        self._recordings: tuple[Recording, ...] = ()
        # By entry point, what plugins.py has loaded.
        self._plugins: dict[str, Any] = {}
        # By plugin, the events that its modules declared, each with the module.
        self._plugin_events: dict[str, tuple[tuple[Any, Any], ...]] = {}

    def _renew_after_fork(self) -> None:
        """Start with a free lock; a forked child does."""
        self._lock = threading.RLock()

    @overload
    def signal(self, name: str, doc: str | None = None) -> EventSignal[BaseEventContext]: ...
    @overload
    def signal(
        self, name: str, doc: str | None = None, *, context: type[ContextT]
    ) -> EventSignal[ContextT]: ...
    def signal(
        self, name: str, doc: str | None = None, *, context: type[Any] | None = None
    ) -> EventSignal[Any]:
        """Declare an event, or return it if it is declared.

        Args:
            name: small letters, digits and underscores, dots between namespaces,
                128 characters at most; a hyphen is an underscore (N1).
            doc: what the event means.
            context: the model of its typed contexts; without one, any
                `BaseEventContext` will do.

        Raises:
            InvalidEventNameError: the name is malformed.
            ContextModelError: the model is no `BaseEventContext`, has a field
                called `sender` or `self`, or stands in the place of `doc`.
            SignalConflictError: it is declared with another model, or none.
        """
        name = canonical_name(name)
        if not isinstance(doc, str | None):
            raise ContextModelError(
                f"the second argument says in words what {name} means: give the model as "
                f"signal('{name}', context={type_name(doc)})",
                event=name,
                model=doc,
            )
        with self._lock:
            signal = self._find(name)
            if signal is None:
                model = HandlerFailedEventContext if name == HANDLER_FAILED else context
                signal = self._set_aside.get(name)
                if signal is None or (model is not None and signal.context_model is not model):
                    signal = EventSignal(name, doc, context=model)
                for pattern in self._patterns.live_and_recording():
                    self._extend(pattern, signal)
                for block in self._recordings:
                    if block._is_faked(name):
                        signal._table.fake(block)
                super().__setitem__(name, signal)
        if context is not None and signal.context_model is not context:
            declared = signal.context_model
            raise SignalConflictError(
                f"{name} is declared already, with "
                f"{'no context model' if declared is None else type_name(declared)}: "
                "declare it once, with its model, and import the signal elsewhere",
                event=name,
                declared=declared,
                requested=context,
            )
        return signal

    def resolve(self, name: object) -> EventSignal[Any]:
        """Return a declared signal.

        Args:
            name: its name, in any spelling; a signal is returned as it is.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: no such event is declared, and the registry is strict.
        """
        if isinstance(name, EventSignal):
            return name
        canonical = canonical_name(name)
        signal = self._find(canonical)
        if signal is not None:
            return signal
        if self.strict and canonical != HANDLER_FAILED:
            raise unknown_event(canonical, self)
        return self.signal(canonical)

    def subscribe(
        self,
        name: str | EventSignal[Any],
        handler: Callable[..., Any],
        /,
        **options: Unpack[SubscriptionOptions],
    ) -> Subscription:
        """Call a handler whenever an event of this name, or of a name like this, is emitted.

        Args:
            name: an event's name, or a pattern such as `account_*`; `*` stands for
                any characters, dots included, and never means `handler_failed`.
                A pattern holds for events that are declared later, too.
            handler: any callable (H); for a pattern it has `**context`, takes an
                `Emission` or a `BaseEventContext`, or nothing.
            **options: see `SubscriptionOptions`; with a pattern, `once` is once over all.

        Returns:
            The subscription; for a pattern a `PatternSubscription`.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: no such event is declared, and the registry is strict.
            HandlerSignatureError: the handler cannot be called with what the event carries.
            InvalidOptionError: an option means nothing.
            SubscriptionConflictError: it is subscribed already, with other options.
        """
        return self._subscribe(name, handler, options)

    def _subscribe(
        self,
        name: str | EventSignal[Any],
        handler: Callable[..., Any],
        options: SubscriptionOptions,
        origin: object = None,
        gate: Gate | None = None,
    ) -> Subscription:
        # A recorder's names are patterns, too: it also hears an event that is declared anew.
        if not isinstance(name, str) or not ("*" in name or origin is RECORDER):
            return self.resolve(name)._subscribe(handler, options, origin, gate)
        pattern = canonical_name(name, pattern="*" in name)
        check_options(options)
        is_batch = options.get("batch") is not None
        shape = read_shape(handler, pattern, None, pattern=True, batch=is_batch)
        if gate is not None:
            shape = gate.around(shape)
        requested = PatternSubscription(
            self._patterns, pattern, handler, shape, _translated(options)
        )
        requested.origin = origin
        with self._lock:
            subscription = self._patterns.add(requested)
            present = self._declared()
        if subscription is requested:
            # Not under the lock: no thread may wait for a signal's lock while it holds this one.
            for signal in present:
                self._extend(subscription, signal)
        LOGGER.debug("%s subscribed to %s", handler_name(handler), pattern)
        return subscription

    def unsubscribe(self, name: str | EventSignal[Any], handler: Callable[..., Any], /) -> bool:
        """Cancel every subscription of a handler to an event, or to exactly this pattern.

        Returns:
            Whether there was one.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: no such event is declared, and the registry is strict.
        """
        if not isinstance(name, str) or "*" not in name:
            return self.resolve(name).unsubscribe(handler)
        pattern = canonical_name(name, pattern=True)
        found = [
            entry
            for entry in self._patterns.live()
            if entry.event == pattern and entry._handles(handler)
        ]
        for entry in found:
            entry.cancel()
        return bool(found)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The active subscriptions to patterns, then those to each event."""
        patterns: list[Subscription] = list(self._patterns.live())
        return tuple(patterns + [s for signal in self._declared() for s in signal._table.live()])

    def clear_handlers(self) -> None:
        """Cancel every subscription to every event and pattern; the events stay declared."""
        for subscription in self.subscriptions:
            subscription.cancel()

    @staticmethod
    def _extend(pattern: PatternSubscription, signal: EventSignal[Any]) -> None:
        if signal.name == HANDLER_FAILED != pattern.event:
            return  # it is never meant by a star
        if pattern._matches(signal.name):
            pattern._extend_to(signal._table, signal.name)

    # Isolation, for tests

    @contextmanager
    def isolated(self, *, empty: bool = False) -> Iterator[SignalRegistry]:
        """Undo, when the block ends, whatever it did to the registry; for tests.

        Events and handlers that the block adds are gone afterwards, those that
        it removes are back. With the default registry the default dispatcher is
        restored too. It holds for the whole process, threads included.

        Args:
            empty: start with the built-in events and no handler, instead of
                what is there.

        Raises:
            RuntimeError: blocks end in another order than they were nested in.
        """
        mark = object()
        signals, set_aside = {s.name: s for s in self._declared()}, self._set_aside
        plugins, recordings = self._plugins, self._recordings
        patterns = self._patterns.live()
        handlers = [(signal._table, signal._table.live()) for signal in self._declared()]
        restore_others = [save(empty) for save in self._other_states]
        self._isolations.append(mark)
        self._plugins = {} if empty else {**plugins}
        if empty:
            self._set_aside = {**set_aside, **signals}
            self.clear_handlers()
            for name in signals.keys() - set(self._built_in):
                del self[name]
        try:
            yield self
        finally:
            in_order = self._isolations.pop() is mark
            self._set_aside, self._plugins = set_aside, plugins
            self._undo(plugins, recordings)
            self._patterns.restore(patterns)
            for signal in self._declared():
                if signals.get(signal.name) is not signal:
                    signal._table.restore(())
                    del self[signal.name]
            super().update(signals)
            for table, subscriptions in handlers:
                table.restore(subscriptions)
            for restore in restore_others:
                restore()
            if not in_order:
                raise RuntimeError("isolated() blocks must end in the reverse order of their start")

    def _undo(self, plugins: dict[str, Any], recordings: tuple[Recording, ...]) -> None:
        for held in plugins.values():
            held.reinstate()
        for block in self._recordings:
            if block not in recordings:
                block.close()

    def _forget(self, signal: EventSignal[Any]) -> None:
        """Forget an event and its handlers."""
        with self._lock:
            self.pop(signal.name, None)
        signal._table.restore(())

    def _declare_again(self, signal: EventSignal[Any]) -> None:
        """Declare an event that was forgotten, with the same object.

        Raises:
            SignalConflictError: it is declared already, with another model.
        """
        with self._lock:
            before = self._set_aside
            self._set_aside = {**before, signal.name: signal}
            try:
                self.signal(signal.name, signal.doc, context=signal.context_model)  # type: ignore[arg-type]  # None is the same as left out
            finally:
                self._set_aside = before

    def _record(self, block: Recording) -> None:
        """Take note of a block that records; to be said again when it has ended."""
        with self._lock:
            others = tuple(other for other in self._recordings if other is not block)
            self._recordings = (*others, block) if block.is_open else others
            present = self._declared()
        for signal in present:
            if block._is_faked(signal.name):
                signal._table.fake(block)

    def _isolate_too(self, save: Callable[[bool], Callable[[], None]], /) -> None:
        """Let `isolated` restore one more piece of state.

        Args:
            save: called with `empty` as a block starts; returns what restores the state.
        """
        self._other_states.append(save)

    # A mapping by name, in any spelling

    if TYPE_CHECKING:

        def __getitem__(self, name: str | EventSignal[Any], /) -> EventSignal[Any]: ...

    def __missing__(self, name: object) -> EventSignal[Any]:
        """Return the signal of a name in another spelling, or of a signal; see `resolve`."""
        return self.resolve(name)

    def _find(self, name: str) -> EventSignal[Any] | None:
        """Return the signal of an exact canonical name, or None."""
        return cast("EventSignal[Any] | None", super().get(name))

    def _declared(self) -> list[EventSignal[Any]]:
        return cast("list[EventSignal[Any]]", list(self.values()))

    def __contains__(self, name: object) -> bool:
        """Tell whether an event of this name is declared."""
        return isinstance(name, str) and super().__contains__(name.replace("-", "_"))

    def get(self, name: str, default: Any = None, /) -> Any:
        """Return a declared signal, or a default."""
        signal = self._find(name.replace("-", "_"))
        return default if signal is None else signal

    def __delitem__(self, name: str) -> None:
        """Forget an event; its signal object works on, but nobody finds it by name."""
        super().__delitem__(name.replace("-", "_"))

    def pop(self, name: str, *default: Any) -> Any:
        """Forget an event and return its signal, or a default."""
        return super().pop(name.replace("-", "_"), *default)

    def _refuse_assignment(self, *_arguments: object, **_signals: object) -> Any:
        """Refuse: signals are made by `signal`, which checks their names.

        Raises:
            TypeError: always.
        """
        raise TypeError("declare an event with signals.signal('event_name'), not by assignment")

    __setitem__: Any = _refuse_assignment
    __ior__: Any = _refuse_assignment
    setdefault: Any = _refuse_assignment
    update: Any = _refuse_assignment

    def __repr__(self) -> str:
        """Count the events."""
        return f"<SignalRegistry of {len(self)} events>"


madcrow_signals: SignalRegistry = SignalRegistry()
"""The default registry."""

user_logged_in: EventSignal[LoginEventContext] = madcrow_signals.signal(
    "user_logged_in", "A user signed in.", context=LoginEventContext
)
user_logged_out: EventSignal[LogoutEventContext] = madcrow_signals.signal(
    "user_logged_out", "A user signed out.", context=LogoutEventContext
)
login_failed: EventSignal[LoginFailedEventContext] = madcrow_signals.signal(
    "login_failed", "An attempt to sign in was refused.", context=LoginFailedEventContext
)
user_registered: EventSignal[RegistrationEventContext] = madcrow_signals.signal(
    "user_registered", "A new account exists.", context=RegistrationEventContext
)
account_activated: EventSignal[AccountActivatedEventContext] = madcrow_signals.signal(
    "account_activated", "An account may be used.", context=AccountActivatedEventContext
)
account_banned: EventSignal[AccountBannedEventContext] = madcrow_signals.signal(
    "account_banned", "An account was shut out.", context=AccountBannedEventContext
)
account_closed: EventSignal[AccountClosedEventContext] = madcrow_signals.signal(
    "account_closed", "An account was given up.", context=AccountClosedEventContext
)
password_changed: EventSignal[PasswordChangedEventContext] = madcrow_signals.signal(
    "password_changed", "An account has a new password.", context=PasswordChangedEventContext
)
suspicious_activity: EventSignal[SuspiciousActivityEventContext] = madcrow_signals.signal(
    "suspicious_activity", "Something looks like an attack.", context=SuspiciousActivityEventContext
)
session_expired: EventSignal[SessionExpiredEventContext] = madcrow_signals.signal(
    "session_expired", "A session ran out.", context=SessionExpiredEventContext
)
token_refreshed: EventSignal[TokenRefreshedEventContext] = madcrow_signals.signal(
    "token_refreshed", "A session has a new token.", context=TokenRefreshedEventContext
)
system_startup: EventSignal[SystemStartupEventContext] = madcrow_signals.signal(
    "system_startup", "The application is up.", context=SystemStartupEventContext
)
system_shutdown: EventSignal[SystemShutdownEventContext] = madcrow_signals.signal(
    "system_shutdown", "The application goes down.", context=SystemShutdownEventContext
)
madcrow_signals._built_in = tuple(madcrow_signals)  # what isolated(empty=True) keeps
