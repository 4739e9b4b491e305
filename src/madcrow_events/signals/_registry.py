"""The events of an application, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Never, cast, overload
from weakref import WeakSet

import blinker
from typing_extensions import Unpack

from madcrow_events._copies import Unique
from madcrow_events._executions import execution_of
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events._text import names_apart, type_name
from madcrow_events.exceptions import (
    ContextModelError,
    MadcrowEventsError,
    SignalConflictError,
    UnknownEventError,
)
from madcrow_events.models import BaseEventContext, HandlerFailedEventContext, prepare
from madcrow_events.signals._dispatching import Dispatching
from madcrow_events.signals._isolation import isolated
from madcrow_events.signals._models import ModelIndex, event_name_of
from madcrow_events.signals._signal import EventSignal, check_model
from madcrow_events.signals._subscribing import (
    extend_all,
    follow_model,
    subscribe_as,
    unsubscribe,
)
from madcrow_events.subscriptions import Subscription, SubscriptionOptions
from madcrow_events.subscriptions._handler_types import ContextT
from madcrow_events.subscriptions._patterns import PatternTable

if TYPE_CHECKING:
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.signals._isolation import Companion, SavedRegistry
    from madcrow_events.subscriptions._table import Recording


__all__ = [
    "CLEARING",
    "SignalRegistry",
    "declare_again",
    "declared_in",
    "dispatching_of",
    "forget",
    "lock_of",
    "models_of",
    "record",
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
        self._dispatching = Dispatching(self)
        self._other_states: list[Callable[[bool], Callable[[], None]]] = [self._dispatching.save]
        self._companions: dict[type[Companion], Companion] = {}
        self._recordings: WeakSet[Recording] = WeakSet()
        self._models = ModelIndex(self)

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
                extend_all(self._patterns.live_and_recording(), [signal])
                self._fake(signal)
                self._models.forget()
                super().__setitem__(name, signal)
                self._models.forget()
        before = signal.context_model
        if context is None or before is context:
            return signal
        self._models.forget()
        if not signal._take_model(context, execution):
            raise _declared_otherwise(signal, context)
        self._models.forget()
        if signal.context_model is not before:
            follow_model(self, signal)
            self._fake(signal)
        return signal

    @overload
    def event(self, model: type[ContextT], /) -> type[ContextT]: ...
    @overload
    def event(
        self, /, *, name: str | None = None, doc: str | None = None
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
            given: object = model
            if not (isinstance(given, type) and issubclass(given, BaseEventContext)):
                raise ContextModelError(
                    "@event stands above a class that derives from BaseEventContext, as in "
                    "@madcrow_signals.event or @madcrow_signals.event(name='order_placed'): to "
                    "declare an event by its name, call signal('order_placed')",
                    model=given,
                )
            first_line = (model.__doc__ or "").strip().partition("\n")[0] or None
            self.signal(
                event_name_of(model) if name is None else name,
                first_line if doc is None else doc,
                context=model,
            )
            return model

        return declare if model is None else declare(model)

    def resolve(self, name: object) -> EventSignal[Any]:
        """Return a declared signal.

        Args:
            name: its name, in any spelling, or its model; a signal is returned as it is.

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
        return unsubscribe(self, name, handler)

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
            signal._table.fake(block, signal)

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
        """Return the key of a name in any spelling, of a signal, or of the one event of a model.

        Raises:
            UnknownEventError: the signal belongs to another registry.
        """
        if isinstance(name, EventSignal):
            return self.resolve(name).name
        if isinstance(name, type):
            with suppress(MadcrowEventsError):
                return self.resolve(name).name
        return name.replace("-", "_") if isinstance(name, str) else name

    def __contains__(self, name: object) -> bool:
        """Whether an event of this name, the only one of a model, or this signal is declared."""
        if isinstance(name, EventSignal):
            return self._find(name.name) is name
        key = self._key(name)
        return isinstance(key, str) and super().__contains__(key)

    def get(
        self, name: str | EventSignal[Any] | type[BaseEventContext], default: object = None, /
    ) -> Any:
        """Return a declared signal, or a default."""
        return super().get(self._key(name), default)

    def __delitem__(self, name: str | EventSignal[Any] | type[BaseEventContext]) -> None:
        """Forget an event; its signal still works, but is no longer found by name."""
        self._models.forget()
        super().__delitem__(self._key(name))
        self._models.forget()

    def pop(self, name: str | EventSignal[Any] | type[BaseEventContext], *default: object) -> Any:
        """Forget an event and return its signal, or a default."""
        self._models.forget()
        popped = super().pop(self._key(name), *default)
        self._models.forget()
        return popped

    def popitem(self) -> Any:
        """Forget the event that was declared last, and return its name and signal."""
        self._models.forget()
        popped = super().popitem()
        self._models.forget()
        return popped

    def clear(self) -> None:
        """Forget all events."""
        self._models.forget()
        super().clear()
        self._models.forget()

    @property
    def dispatcher(self) -> EventDispatcher:
        """The dispatcher that emits these events where code names none.

        It is the first one that was made for this registry and is not closed, unless another one
        was assigned. `emit_event` and its like use that of `madcrow_signals`.

        Raises:
            InvalidOptionError: (if assigned) it is no dispatcher, or one of another registry.
        """
        return self._dispatching.used or self._dispatching.get()

    @dispatcher.setter
    def dispatcher(self, dispatcher: EventDispatcher) -> None:
        self._dispatching.assign(dispatcher)

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
        signal._table.fake(block, signal)


def models_of(registry: SignalRegistry) -> ModelIndex:
    """Return the signals of a registry by their models, for dispatchers."""
    return registry._models


def dispatching_of(registry: SignalRegistry) -> Dispatching:
    """Return what knows the dispatcher of a registry, for `emit_event`."""
    return registry._dispatching


def lock_of(registry: SignalRegistry) -> Lock:
    """Return the lock of a registry; dispatchers also change their observers under it."""
    return registry._lock
