"""The events of an application, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Never, TypeGuard, cast, overload
from weakref import WeakSet, ref

import blinker
from typing_extensions import Unpack

from madcrow_events._copies import Unique
from madcrow_events._executions import execution_of
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events._text import names_apart, type_name
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import (
    ContextModelError,
    InvalidOptionError,
    SignalConflictError,
    UnknownEventError,
)
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    HandlerFailedEventContext,
    prepare,
)
from madcrow_events.signals._isolation import isolated
from madcrow_events.signals._models import ModelIndex, carries, event_name_of
from madcrow_events.signals._signal import EventSignal, check_model, translated
from madcrow_events.subscriptions import PatternSubscription, Subscription, SubscriptionOptions
from madcrow_events.subscriptions._handler_types import ContextT
from madcrow_events.subscriptions._options import check_options
from madcrow_events.subscriptions._patterns import Pattern, PatternTable, extend
from madcrow_events.subscriptions._redefinition import defined_earlier, end_replaced, find_replaced
from madcrow_events.subscriptions._signatures import read_call_spec

if TYPE_CHECKING:
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions._plan import CallSpec
    from madcrow_events.signals._isolation import Companion, SavedRegistry
    from madcrow_events.subscriptions._table import Recording


__all__ = [
    "CLEARING",
    "SignalRegistry",
    "adopt",
    "canonical_pattern",
    "declare_again",
    "declared_in",
    "dismiss",
    "forget",
    "is_pattern",
    "lock_of",
    "record",
    "signal_of",
    "subscribe_as",
    "use_dispatchers",
]

CLEARING: ContextVar[Callable[[], None] | None] = ContextVar(
    "madcrow_events.clearing", default=None
)
"""A function that `clear_handlers` calls first in this context, and that may raise; or None."""


class SignalRegistry(Unique, blinker.Namespace):
    """The events of an application, by name.

    Args:
        strict: whether a name must be declared with `signal` before it is
            emitted or subscribed to; if not, its first use declares it.
    """

    _instead_of_pickling = "import it there, with the modules that declare its events"

    # How to make a dispatcher. Below: the one in use, and whether closing it changes that.
    _make_dispatcher: ClassVar[Callable[[SignalRegistry], EventDispatcher]]
    _dispatcher: EventDispatcher | None = None
    _keeps_dispatcher = False
    # The first that was made; weak, because its maker may drop it unused.
    _first_dispatcher: Callable[[], EventDispatcher | None] = staticmethod(lambda: None)

    def __init__(self, *misplaced: Never, strict: bool = True) -> None:
        """Make an empty registry.

        Raises:
            TypeError: it is given contents, as by `dataclasses.asdict`.
        """
        if misplaced:
            raise TypeError(
                "a SignalRegistry is made empty, and its events are declared with signal(): "
                "dataclasses.asdict cannot copy an object that holds a registry, copy.copy can"
            )
        super().__init__()
        self.strict = strict
        self._renew_after_fork()
        renew_after_fork(self)
        self._patterns = PatternTable()
        self._built_in: tuple[str, ...] = ()
        self._isolations: list[SavedRegistry] = []
        # The signals that an isolated(empty=True) block forgot; declared again, each is the same.
        self._set_aside: dict[str, EventSignal[Any]] = {}
        self._other_states: list[Callable[[bool], Callable[[], None]]] = []
        self._companions: dict[type[Companion], Companion] = {}
        self._recordings: WeakSet[Recording] = WeakSet()
        self._models = ModelIndex(self._declared)

    def _renew_after_fork(self) -> None:
        """Start with a free lock, in a forked child."""
        self._lock = Lock()

    @overload
    def signal(self, name: str, doc: str | None = None) -> EventSignal[BaseEventContext]: ...
    @overload
    def signal(
        self, name: str, doc: str | None = None, *, context: type[ContextT]
    ) -> EventSignal[ContextT]: ...
    def signal(
        self, name: str, doc: str | None = None, *, context: type[Any] | None = None
    ) -> EventSignal[Any]:
        """Declare an event, or return its signal if it is declared already.

        Args:
            name: small letters, digits and underscores, dots between namespaces,
                128 characters at most; a hyphen counts as an underscore.
            doc: what the event means.
            context: the model of its typed contexts; without one, any
                `BaseEventContext` will do.

        Raises:
            InvalidEventNameError: the name is malformed.
            ContextModelError: the model is no `BaseEventContext`, has a field
                called `sender` or `self`, or is given as `doc`.
            SignalConflictError: it is declared with another model, or with none. The same class
                from a module that has run again does not count as another model.
        """
        name = canonical_name(name)
        if not isinstance(doc, str | None):
            raise ContextModelError(
                f"the second argument is a text that says what {name} means: give the model as "
                f"signal('{name}', context={type_name(doc)})",
                event=name,
                model=doc,
            )
        if context is not None:
            check_model(name, context)
            prepare(context)  # outside of the lock: it may run code of the model's author
        execution = None
        known = self._find(name)
        if isinstance(context, type) and (known is None or known.context_model is not context):
            execution = execution_of(context, context.__module__)
        with self._lock:
            signal = self._find(name)
            if signal is None:
                model = HandlerFailedEventContext if name == HANDLER_FAILED else context
                signal = self._set_aside.get(name)
                if signal is None or (model is not None and signal.context_model is not model):
                    signal = EventSignal(name, doc, context=model)
                    signal._registry = self
                    signal._execution = execution
                for pattern in self._patterns.live_and_recording():
                    extend(pattern, signal._table, name, partial(carries, signal))
                self._fake(signal)
                super().__setitem__(name, signal)
                self._models.forget()
        if context is None or signal.context_model is context:
            return signal
        if not signal._take_model(context, execution):
            raise _declared_otherwise(signal, context)
        # The new model may derive from a class that the earlier one did not derive from.
        for pattern in self._patterns.of_classes():
            extend(pattern, signal._table, name, partial(carries, signal))
        return signal

    @overload
    def event(self, model: type[ContextT], /) -> type[ContextT]: ...
    @overload
    def event(
        self, *, name: str | None = None, doc: str | None = None
    ) -> Callable[[type[ContextT]], type[ContextT]]: ...
    def event(
        self, model: Any = None, /, *, name: str | None = None, doc: str | None = None
    ) -> Any:
        """Declare the event that a context class stands for, as a decorator of the class.

        The class is returned as it is. `registry[OrderPlaced]` is the signal of the event, and
        `emit_event(OrderPlaced(...))` emits it.

        Args:
            model: the class, if the decorator has no parentheses.
            name: the event's name; without it, the event is named after the class:
                `OrderPlaced` is `order_placed`.
            doc: what the event means; without it, the first line of the class's docstring.

        Raises:
            InvalidEventNameError: the name is malformed.
            ContextModelError: it stands above something else than a context class.
            SignalConflictError: the event is declared already, with another model or with none.

        Example:
            ```python
            from madcrow_events import BaseEventContext, emit_event, madcrow_signals


            @madcrow_signals.event
            class OrderPlaced(BaseEventContext):
                \"\"\"A customer placed an order.\"\"\"

                order_id: int


            emit_event(OrderPlaced(order_id=7))
            ```
        """

        def declare(model: type[ContextT]) -> type[ContextT]:
            if not isinstance(model, type):
                raise ContextModelError(
                    "@event stands above a class that derives from BaseEventContext, as in "
                    "@madcrow_signals.event or @madcrow_signals.event(name='order_placed'): to "
                    "declare an event by its name, call signal('order_placed')",
                    model=model,
                )
            check_model(type_name(model), model)
            says = (model.__doc__ or "").strip().partition("\n")[0] or None
            self.signal(name or event_name_of(model), doc or says, context=model)
            return model

        return declare if model is None else declare(model)

    def resolve(self, name: object) -> EventSignal[Any]:
        """Return a declared signal.

        Args:
            name: its name, in any spelling, or the model that belongs to it; a signal is
                returned as it is.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: no such event is declared, and the registry is strict; or the
                signal belongs to another registry.
            ContextTypeError: several events carry the model.
        """
        if isinstance(name, EventSignal):
            if name._registry is None or name._registry is self:
                return name
            raise UnknownEventError(
                f"the signal {name.name} belongs to {name._registry._described()}, and was used "
                f"with {self._described()}: use the signal with its own registry, or give the "
                f"name '{name.name}' of an event that is declared in this one",
                event=name.name,
            )
        if isinstance(name, type) and issubclass(name, BaseEventContext):
            return self._models.signal_of(name)
        canonical = canonical_name(name)
        signal = self._find(canonical)
        if signal is not None:
            return signal
        if self.strict and canonical != HANDLER_FAILED:
            raise unknown_event(canonical, self)
        return self.signal(canonical)

    def subscribe(
        self,
        name: str | EventSignal[Any] | type[BaseEventContext],
        handler: Callable[..., Any],
        /,
        **options: Unpack[SubscriptionOptions],
    ) -> Subscription:
        """Call a handler whenever an event with this name, pattern or class is emitted.

        Args:
            name: an event's name; or a pattern such as `account_*`, in which `*` stands for
                any characters, dots included; or a context class, for each event whose model is
                this class or derived from it. Patterns and classes also match events that are
                declared later. No pattern matches `handler_failed`.
            handler: any callable; for a pattern it takes `**context`, an
                `Emission`, a `BaseEventContext`, or nothing; for a class it takes that class,
                its fields, or an `Emission` of it.
            **options: see `SubscriptionOptions`; with a pattern or class, `once` means one call
                for all its events together.

        Returns:
            The subscription; for a pattern or class a `PatternSubscription`.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: no such event is declared, and the registry is strict.
            HandlerSignatureError: the handler cannot be called with what the event carries.
            InvalidOptionError: an option means nothing.
            SubscriptionConflictError: it is subscribed already, with other options.
        """
        return subscribe_as(self, name, handler, options)

    def unsubscribe(
        self,
        name: str | EventSignal[Any] | type[BaseEventContext],
        handler: Callable[..., Any],
        /,
    ) -> bool:
        """Cancel every subscription of a handler to an event, or to exactly this pattern or class.

        Returns:
            Whether there was one.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: no such event is declared, and the registry is strict.
        """
        if not is_pattern(name):
            return self.resolve(name).unsubscribe(handler)
        pattern = canonical_pattern(name)
        found: Collection[Subscription] = self._patterns.of_handler(handler, pattern)
        found = found or defined_earlier(handler, partial(self._patterns.live, pattern))
        for entry in found:
            entry.cancel()
        return bool(found)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The active subscriptions: those to patterns, then those to each event."""
        patterns: list[Subscription] = list(self._patterns.live())
        return tuple(patterns + [s for signal in self._declared() for s in signal._table.live()])

    def clear_handlers(self) -> None:
        """Cancel every subscription to every event and pattern; the events stay declared.

        Raises:
            PluginError: a plugin calls it while it is imported.
        """
        ask = CLEARING.get()
        if ask is not None:
            ask()
        self._clear_handlers()

    def _clear_handlers(self) -> None:
        for subscription in self.subscriptions:
            subscription.cancel()

    # Isolation, for tests

    @contextmanager
    def isolated(self, *, empty: bool = False) -> Iterator[SignalRegistry]:
        """Restore the registry when the block ends; for tests.

        Events and handlers that the block adds are gone afterwards, and those
        that it removes are back. With the default registry, the default
        dispatcher is restored too. All threads of the process see the same.

        Args:
            empty: start with the built-in events and no handler, instead of
                the present events and handlers.

        Raises:
            RuntimeError: nested blocks end in another order than from the inside out.
        """
        with isolated(self, empty=empty):
            yield self

    def _fake(self, signal: EventSignal[Any]) -> None:
        """Let blocks that record emissions record those of a new signal too."""
        # No loop in the `with` block of a lock, as in `dispatcher._without`.
        for block in list(self._recordings):
            signal._table.fake(block, signal.name)

    # A mapping by name, in any spelling

    if TYPE_CHECKING:

        @overload
        def __getitem__(self, name: type[ContextT], /) -> EventSignal[ContextT]: ...
        @overload
        def __getitem__(self, name: str | EventSignal[Any], /) -> EventSignal[Any]: ...
        def __getitem__(self, name: Any, /) -> EventSignal[Any]: ...

    def __missing__(self, name: object) -> EventSignal[Any]:
        """Return what `resolve` returns, for a name in another spelling, a signal or a model."""
        return self.resolve(name)

    def _find(self, name: str) -> EventSignal[Any] | None:
        """Return the signal of an exact canonical name, or None."""
        return cast("EventSignal[Any] | None", super().get(name))

    def _declared(self) -> list[EventSignal[Any]]:
        return cast("list[EventSignal[Any]]", list(self.values()))

    def _key(self, name: object) -> Any:
        """Return the key of a name in any spelling, or of a signal.

        Raises:
            UnknownEventError: the signal belongs to another registry.
        """
        if isinstance(name, EventSignal):
            return self.resolve(name).name
        return name.replace("-", "_") if isinstance(name, str) else name

    def __contains__(self, name: object) -> bool:
        """Whether an event of this name, or this very signal, is declared."""
        if isinstance(name, EventSignal):
            return self._find(name.name) is name
        return isinstance(name, str) and super().__contains__(self._key(name))

    def get(self, name: str | EventSignal[Any], default: object = None, /) -> Any:
        """Return a declared signal, or a default."""
        return super().get(self._key(name), default)

    def __delitem__(self, name: str | EventSignal[Any]) -> None:
        """Forget an event; its signal still works, but is no longer found by name."""
        super().__delitem__(self._key(name))
        self._models.forget()

    def pop(self, name: str | EventSignal[Any], *default: object) -> Any:
        """Forget an event and return its signal, or a default."""
        popped = super().pop(self._key(name), *default)
        self._models.forget()
        return popped

    @property
    def dispatcher(self) -> EventDispatcher:
        """The dispatcher that emits these events where code names none.

        It is the first one that was made for this registry and is not closed, unless another one
        was assigned. `emit_event` and its like use that of `madcrow_signals`.

        Raises:
            InvalidOptionError: (if assigned) it is no dispatcher, or one of another registry.
        """
        if self._dispatcher is None:
            first = self._first_dispatcher()
            if first is None:
                self._keeps_dispatcher, first = True, type(self)._make_dispatcher(self)
            # One step, because another thread may be first.
            vars(self).setdefault("_dispatcher", first)
        found = self._dispatcher
        return self.dispatcher if found is None else found

    @dispatcher.setter
    def dispatcher(self, dispatcher: EventDispatcher) -> None:
        if getattr(dispatcher, "signals", None) is not self:
            raise InvalidOptionError(
                f"the dispatcher of {self._described()} must be an EventDispatcher of its own "
                f"events: give EventDispatcher(registry)",
                option="dispatcher",
            )
        self._keeps_dispatcher = True
        self._dispatcher = dispatcher

    def _forget_dispatcher(self) -> None:
        self._keeps_dispatcher = False
        for name in ("_dispatcher", "_first_dispatcher"):
            vars(self).pop(name, None)

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

    def _described(self) -> str:
        """Return a name for messages; only the default registry has built-in events."""
        return "madcrow_signals" if self._built_in else f"{self!r} at {id(self):#x}"

    def __repr__(self) -> str:
        """Count the events."""
        return f"<SignalRegistry of {len(self)} events>"


def _declared_otherwise(signal: EventSignal[Any], model: type[Any]) -> SignalConflictError:
    declared = signal.context_model
    there, here = "no context model", type_name(model)
    if declared is not None:
        here, there = names_apart(model, declared)
    return SignalConflictError(
        f"{signal.name} is declared already, with {there}, not with {here}: "
        "declare it once, with its model, and import the signal elsewhere",
        event=signal.name,
        declared=declared,
        requested=model,
    )


# For higher wings, not for users


def subscribe_as(
    registry: SignalRegistry,
    name: str | EventSignal[Any] | type[BaseEventContext],
    handler: Callable[..., Any],
    options: SubscriptionOptions,
    origin: object = None,
    *,
    wrap: Callable[[CallSpec], CallSpec] | None = None,
    replaced: list[Subscription] | None = None,
) -> Subscription:
    """Subscribe a handler as `SignalRegistry.subscribe` does, for groups and recorders.

    Args:
        registry: the registry.
        name: an event's name, a pattern or a context class.
        handler: the handler.
        options: its options.
        origin: the group, or `RECORDER`, that the subscription belongs to.
        wrap: takes the handler's call spec, and returns the one to call it by.
        replaced: gets the subscriptions that this one replaces; if None, they end at once.
    """
    # A recorder's names count as patterns, so that it also hears events that are declared anew.
    if not is_pattern(name) and not (isinstance(name, str) and origin is RECORDER):
        return registry.resolve(name)._subscribe(handler, options, origin, wrap, replaced)
    pattern, patterns = canonical_pattern(name), registry._patterns
    check_options(options)
    is_batch = options.get("batch") is not None
    if isinstance(pattern, str):
        spec = read_call_spec(handler, pattern, None, pattern=True, batch=is_batch)
    else:
        spec = read_call_spec(handler, type_name(pattern), pattern, batch=is_batch)
    if wrap is not None:
        spec = wrap(spec)
    requested = PatternSubscription(patterns, pattern, handler, spec, translated(options))
    requested.origin = origin
    earlier = find_replaced(requested, partial(patterns.live, pattern))
    with registry._lock:
        subscription = patterns.add(requested, earlier)
        present = registry._declared()
    if replaced is None:
        end_replaced(earlier)
    else:
        replaced += earlier
    if subscription is requested:
        # Outside of the lock: no thread may wait for a signal's lock while it has this one.
        for signal in present:
            extend(subscription, signal._table, signal.name, partial(carries, signal))
    log(logging.DEBUG, "%s subscribed to %s", subscription.name, subscription.event)
    return subscription


def is_pattern(name: object) -> TypeGuard[Pattern]:
    """Whether what a handler is subscribed to may be many events: a pattern or a class."""
    if isinstance(name, str):
        return "*" in name
    return isinstance(name, type) and issubclass(name, BaseEventContext)


def canonical_pattern(name: Pattern) -> Pattern:
    """Return the canonical form of a name or pattern, and a context class as it is.

    Raises:
        InvalidEventNameError: it is malformed.
        ContextModelError: the class cannot be the model of an event.
    """
    if isinstance(name, type) and issubclass(name, BaseEventContext):
        check_model(type_name(name), name)
        return name
    return canonical_name(name, pattern="*" in str(name))


def declared_in(registry: SignalRegistry) -> list[EventSignal[Any]]:
    """Return the declared signals, for plugins and their test."""
    return registry._declared()


def forget(registry: SignalRegistry, signal: EventSignal[Any]) -> None:
    """Forget an event and its handlers, for plugins that are unloaded."""
    with registry._lock:
        registry.pop(signal.name, None)
    signal._table.restore(())


def declare_again(registry: SignalRegistry, signal: EventSignal[Any]) -> None:
    """Declare a forgotten event with its old signal, for plugins that are loaded again.

    Raises:
        SignalConflictError: it is declared already, with another model.
    """
    with registry._lock:
        before = registry._set_aside
        registry._set_aside = {**before, signal.name: signal}
        try:
            registry.signal(signal.name, signal.doc, context=signal.context_model)  # type: ignore[arg-type]  # None is the same as left out
        finally:
            registry._set_aside = before


def record(registry: SignalRegistry, block: Recording) -> None:
    """Note that a block records emissions, or that it has ended; recorders call it both times."""
    with registry._lock:
        if block.is_open:
            registry._recordings.add(block)
        else:
            registry._recordings.discard(block)
        present = registry._declared()
    for signal in present:
        signal._table.fake(block, signal.name)


def signal_of(registry: SignalRegistry, context: object) -> EventSignal[Any]:
    """Return the signal of the event that a context belongs to, for dispatchers.

    Raises:
        ContextTypeError: its class is the model of several events, or it is no context.
        UnknownEventError: its class is the model of no event.
    """
    if isinstance(context, GenericEventContext):
        return registry.resolve(context.event_type)
    return registry._models.signal_of(type(context))


def use_dispatchers(make: Callable[[SignalRegistry], EventDispatcher]) -> None:
    """Note how a registry makes its dispatcher; the module of dispatchers calls this."""
    SignalRegistry._make_dispatcher = staticmethod(make)


def adopt(registry: SignalRegistry, dispatcher: EventDispatcher) -> None:
    """Note a new dispatcher, so that the registry uses the first one that was made for it."""
    if registry._first_dispatcher() is None:
        registry._first_dispatcher = ref(dispatcher)


def dismiss(registry: SignalRegistry, is_closed: Callable[[EventDispatcher], bool]) -> None:
    """Use another dispatcher from now on if the present one was closed, unless it was chosen."""
    present = registry._dispatcher
    if present is not None and not registry._keeps_dispatcher and is_closed(present):
        registry._forget_dispatcher()
    first = registry._first_dispatcher()
    if first is not None and is_closed(first):
        vars(registry).pop("_first_dispatcher", None)


def lock_of(registry: SignalRegistry) -> Lock:
    """Return the lock of a registry; dispatchers also change their observers under it."""
    return registry._lock
