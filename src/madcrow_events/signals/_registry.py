"""The events of an application, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Never, cast, overload
from weakref import WeakSet

import blinker
from typing_extensions import Unpack

from madcrow_events._copies import Unique
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events._text import printable, type_name
from madcrow_events.exceptions import ContextModelError, MadcrowEventsError, UnknownEventError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals._declaring import FIRST_USE, declare
from madcrow_events.signals._dispatching import Dispatching
from madcrow_events.signals._explaining import Explanation, explain
from madcrow_events.signals._isolation import isolated
from madcrow_events.signals._models import ModelIndex, carrier_of, event_name_of
from madcrow_events.signals._old_names import noted_name, present_signal
from madcrow_events.signals._renaming import forget_old_names, take_back
from madcrow_events.signals._signal import EventSignal, renewed_context
from madcrow_events.signals._subscribing import subscribe_as, unsubscribe
from madcrow_events.subscriptions import ANY, Subscription, SubscriptionOptions
from madcrow_events.subscriptions._handler_types import ContextT
from madcrow_events.subscriptions._patterns import PatternTable
from madcrow_events.subscriptions._subscription import end
from madcrow_events.subscriptions._table import note_delivery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events._places import Place
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions import Emission
    from madcrow_events.signals._isolation import Companion, SavedRegistry
    from madcrow_events.signals._old_names import FormerName
    from madcrow_events.subscriptions._endings import EndReason
    from madcrow_events.subscriptions._patterns import PatternSubscription
    from madcrow_events.subscriptions._table import Recording


__all__ = [
    "CLEARING",
    "UNDECLARED",
    "SignalRegistry",
    "declared_at",
    "declared_in",
    "dispatching_of",
    "forget",
    "is_built_in",
    "is_declared_on_first_use",
    "lock_of",
    "models_of",
    "patterns_in",
    "record",
    "record_delivery",
]

CLEARING: ContextVar[Callable[[], None] | None] = ContextVar(
    "madcrow_events.clearing", default=None
)
"""A function that `clear_handlers` calls first in this context, and that may raise; or None."""

UNDECLARED: ContextVar[Callable[[UnknownEventError], EventSignal[Any]] | None] = ContextVar(
    "madcrow_events.undeclared", default=None
)
"""A function that `resolve` calls in this context instead of raising `UnknownEventError`; or None.

It returns the signal to use for that name, or raises the error.
"""


class SignalRegistry(Unique, blinker.Namespace):
    """The events of an application, by name.

    A registry finds a signal by its name, as in `registry["order_placed"]`. It is also a
    `blinker.Namespace`, so code that was written for blinker can use it.

    Args:
        strict: whether an event must be declared with `signal` before it is emitted or subscribed
            to. If not, the first use of a name declares it.

    Raises:
        TypeError: the registry is given contents. It starts empty: declare its events with
            `signal`.
    """

    _instead_of_pickling = "import it there, with the modules that declare its events"

    def __init__(self, *misplaced: Never, strict: bool = True) -> None:
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
        self._former: Mapping[str, FormerName] = {}  # by old names; replaced, never changed
        self._warned: dict[tuple[str, Place], object] = {}
        self._dispatching = Dispatching(self)
        self._other_states: list[Callable[[bool], Callable[[], None]]] = [self._dispatching.save]
        self._companions: dict[type[Companion], Companion] = {}
        self._recordings: WeakSet[Recording] = WeakSet()
        self._models = ModelIndex(self)

    def _renew_after_fork(self) -> None:
        """Start with a free lock, in a forked child."""
        self._lock = Lock()

    @overload
    def signal(
        self,
        name: str,
        doc: str | None = None,
        *,
        key: str | Callable[[BaseEventContext], object] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> EventSignal[BaseEventContext]: ...
    @overload
    def signal(
        self,
        name: str,
        doc: str | None = None,
        *,
        context: type[ContextT],
        key: str | Callable[[ContextT], object] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> EventSignal[ContextT]: ...
    def signal(
        self,
        name: str,
        doc: str | None = None,
        *,
        context: type[Any] | None = None,
        key: str | Callable[[Any], object] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> EventSignal[Any]:
        """Declare an event, or return its signal if it is declared already.

        Args:
            name: the name of the event: small letters, digits and underscores, with dots between
                namespaces, and 128 characters at most. A hyphen counts as an underscore.
            doc: a sentence that says what the event means, or None.
            context: the event's model, a class derived from `BaseEventContext`. None, the default,
                for an event without a model, which takes any context.
            key: the event's ordering key: the name of a field, or a function of the context. Events
                with equal keys are handled in order by an outbox. None, the default, for no key.
            formerly: a name that the event had before, or several. An old name means this event
                wherever a name is given, and each line that uses it gets one `DeprecationWarning`.
                If the old name is declared already, as an event without a model, its handlers
                become handlers of this event.

        Returns:
            The signal.

        Raises:
            InvalidEventNameError: a name is malformed.
            ContextModelError: the model is not derived from `BaseEventContext`, is a
                `GenericEventContext`, has a field called `sender` or `self`, or is given as `doc`.
                Or the key is neither a field of the model nor a plain function that takes the
                context.
            SignalConflictError: the event is declared already, with another model or key or without
                one. If a module is reloaded, its class still counts as the same model, and its key
                replaces the earlier one. Or an old name belongs to another event, or is declared as
                an event with a model.
            SubscriptionConflictError: a handler is subscribed to this event and to an old name of
                it, with other options, or two of their handlers have the same `id`.

        Example:
            ```python
            from madcrow_events import BaseEventContext, madcrow_signals


            class OrderPlaced(BaseEventContext):
                order_id: int


            order_placed = madcrow_signals.signal(
                "order_placed", "A customer placed an order.", context=OrderPlaced
            )
            print(madcrow_signals["order_placed"] is order_placed)
            ```

            ```text
            True
            ```
        """
        return declare(self, name, doc, context, formerly, key=key)

    @overload
    def event(self, model: type[ContextT], /) -> type[ContextT]: ...
    @overload
    def event(
        self,
        /,
        *,
        name: str | None = None,
        doc: str | None = None,
        key: str | Callable[[Any], object] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> Callable[[type[ContextT]], type[ContextT]]: ...
    def event(
        self,
        model: Any = None,
        /,
        *,
        name: str | None = None,
        doc: str | None = None,
        key: str | Callable[[Any], object] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> Any:
        """Declare the event that a context class stands for, as a decorator of the class.

        The decorator returns the class as it is. Then `registry[OrderPlaced]` is the signal of the
        event, and `emit_event(OrderPlaced(...))` emits it.

        Args:
            model: the class, if you write the decorator without parentheses.
            name: the name of the event. None, the default, for the name of the class in small
                letters, with underscores: for `OrderPlaced`, it is `order_placed`.
            doc: a sentence that says what the event means. None, the default, for the first line of
                the class's docstring.
            key: the event's ordering key: a field, or a function of the context; see `signal`.
            formerly: a name that the event had before, or several; see `signal`.

        Returns:
            The class; with parentheses, the decorator.

        Raises:
            InvalidEventNameError: a name is malformed.
            ContextModelError: the decorator is not above a context class, the class cannot be the
                model of an event, or the key is neither a field of it nor a plain function.
            SignalConflictError: the event is declared already, with another model or key or without
                one. Or an old name belongs to another event, or is declared as an event with a
                model.
            SubscriptionConflictError: as for `signal`.

        Example:
            ```python
            from madcrow_events import BaseEventContext, emit_event, madcrow_signals


            @madcrow_signals.event
            class OrderPlaced(BaseEventContext):
                \"\"\"A customer placed an order.\"\"\"

                order_id: int


            print(emit_event(OrderPlaced(order_id=7)).event)
            ```

            ```text
            order_placed
            ```
        """

        def decorate(model: type[ContextT]) -> type[ContextT]:
            given: object = model
            if not (isinstance(given, type) and issubclass(given, BaseEventContext)):
                raise ContextModelError(
                    "@event stands above a class that derives from BaseEventContext: "
                    f"{_fix_for_undecorated(given, self._written())}",
                    model=given,
                )
            first_line = (model.__doc__ or "").strip().partition("\n")[0] or None
            self.signal(
                event_name_of(model) if name is None else name,
                first_line if doc is None else doc,
                context=model,
                key=key,
                formerly=formerly,
            )
            return model

        return decorate if model is None else decorate(model)

    def resolve(self, name: object) -> EventSignal[Any]:
        """Return the signal of a name.

        If the registry is not strict, an unknown name is declared.

        Args:
            name: the name of the event, with underscores or hyphens; a signal; or the context class
                that is the model of one event.

        Returns:
            The signal. If a signal is given, it is returned unchanged.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, and the registry is strict. Or the signal
                belongs to another registry. Or the class is the model of no event.
            ContextTypeError: the class is the model of several events.
        """
        if isinstance(name, EventSignal):
            name = present_signal(self, name)
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
        signal = self._find(canonical) or self._find(noted_name(self, canonical))
        if signal is not None:
            return signal
        if self.strict and canonical != HANDLER_FAILED:
            decorator = f"@{self._written()}.event"
            error = unknown_event(canonical, self, self._former, decorator=decorator)
            stand_in = UNDECLARED.get()
            if stand_in is None:
                raise error
            return stand_in(error)
        return declare(self, canonical, is_first_use=canonical != HANDLER_FAILED)

    def subscribe(
        self,
        name: str | EventSignal[Any] | type[BaseEventContext],
        handler: Callable[..., Any],
        /,
        **options: Unpack[SubscriptionOptions],
    ) -> Subscription:
        """Subscribe a handler to an event, or to all events that fit a pattern or a context class.

        Args:
            name: the name of the event; a signal; a pattern such as `order_*`; or a context class.
                In a pattern, `*` stands for any characters, dots included. A class stands for each
                event whose model is this class or derives from it. A pattern and a class also fit
                events that are declared later. No pattern fits `handler_failed`.
            handler: a function or another callable. For an event, it takes what `register_handler`
                describes. For a pattern, it takes `**context`, an `Emission`, a `BaseEventContext`,
                or nothing. For a class, it takes that class, its fields, an `Emission`, or nothing.
            **options: see `SubscriptionOptions`. With a pattern or a class, `once` means one call
                for all events together.

        Returns:
            The subscription, which you can cancel; for a pattern or a class, a
            `PatternSubscription`.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: the event is not declared, and the registry is strict. Or the signal
                belongs to another registry.
            HandlerSignatureError: the handler cannot be called with what the event carries.
            InvalidOptionError: an option is unknown, or has an impossible value.
            SubscriptionConflictError: the handler is subscribed already, with other options, or
                another handler of the event has the same `id`.

        Example:
            ```python
            from madcrow_events import Emission, emit_event, madcrow_signals


            def write_log(emission: Emission) -> None:
                print("log:", emission.event)


            madcrow_signals.subscribe("order_*", write_log)
            madcrow_signals.signal("order_placed", "A customer placed an order.")
            emit_event("order_placed", order_id=7)
            ```

            ```text
            log: order_placed
            ```
        """
        return subscribe_as(self, name, handler, options)

    def unsubscribe(
        self,
        name: str | EventSignal[Any] | type[BaseEventContext],
        handler: Callable[..., Any],
        /,
    ) -> bool:
        """Cancel every subscription of a handler to an event, or to exactly this pattern or class.

        With the name of an event, optional subscriptions to it end, too, even while they wait.

        Args:
            name: the name of the event, its signal, the pattern, or the class.
            handler: the handler.

        Returns:
            Whether the handler was subscribed.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: the event is not declared, no optional handler waits for it, and the
                registry is strict. Or the signal belongs to another registry.
        """
        return unsubscribe(self, name, handler)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The active subscriptions: first those to patterns, then those to each event.

        A subscription to a class, and that of an optional handler, stand among those to patterns.
        """
        patterns: list[Subscription] = list(self._patterns.live())
        return tuple(patterns + [s for signal in self._declared() for s in signal._table.live()])

    def clear_handlers(self) -> None:
        """Cancel every subscription to every event and pattern. The events stay declared.

        Raises:
            PluginError: a plugin calls this method while it is imported.
        """
        ask = CLEARING.get()
        if ask is not None:
            ask()
        self._clear_handlers("cancelled")

    def _clear_handlers(self, reason: EndReason) -> None:
        for subscription in self.subscriptions:
            end(subscription, reason)

    def explain(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext] | BaseEventContext,
        /,
        *,
        sender: object = ANY,
        **context: object,
    ) -> Explanation:
        """Explain who would be called for an event, in which order, and who would not and why.

        No handler is called. With a context, each `when` is asked, and each handler's arguments are
        made, with what an enclosing `event_scope` fills in. So predicates and validators run.

        Args:
            event: a context, or what the event is found by: its name, its signal, or the context
                class that is its model.
            sender: the sender, as for `emit`: None stands for the signal itself. If you leave it
                out, the explanation lists the handlers of all senders, each with its sender.
            **context: the context, as keywords; none besides a context. Without any context, no
                `when` is asked, and no parameters are compared.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, and the registry is strict. Or the signal
                belongs to another registry. Or the class is the model of no event.
            ContextTypeError: the class is the model of several events, or keywords are given
                besides a context.
            ContextValidationError: the class of the context was replaced, because its module ran
                again, and the context does not fit the new class.

        Example:
            ```python
            from madcrow_events import BaseEventContext, madcrow_signals, on_event


            @madcrow_signals.event
            class OrderPlaced(BaseEventContext):
                order_id: int
                total: float


            @on_event(OrderPlaced, priority=5)
            def count_order(): ...


            @on_event(OrderPlaced, when=lambda fields: fields["total"] > 100)
            def thank_for_big_order(): ...


            @on_event(OrderPlaced, sender="web shop")
            def send_receipt(): ...


            order = OrderPlaced(order_id=7, total=12.5)
            print(madcrow_signals.explain(order, sender="market"))
            ```

            ```text
            order_placed would call, in this order:
              1. __main__.count_order: inline, priority 5, by the class OrderPlaced
            Left out:
              - __main__.thank_for_big_order (by the class OrderPlaced): its `when` says no
              - __main__.send_receipt (by the class OrderPlaced): it listens to another
                  sender: 'web shop'
            ```
        """
        if isinstance(event, BaseEventContext):
            signal = carrier_of(self, event, context) or self.resolve(event)
            return explain(self, signal, sender, renewed_context(signal, event) or event)
        return explain(self, self.resolve(event), sender, context)

    # Isolation, for tests

    @contextmanager
    def isolated(self, *, empty: bool = False) -> Iterator[SignalRegistry]:
        """Return a `with` block, for tests, that restores the registry when it ends.

        After the block, the events and handlers that it has added are gone, and those that it has
        removed are back. The default registry also restores the default dispatcher, with its
        observers, and what the ready-made handlers have stored. The block holds for all threads of
        the process.

        Args:
            empty: whether the block begins with the built-in events and no handler. If not, it
                begins with the present events and handlers.

        Yields:
            The registry.

        Raises:
            RuntimeError: two blocks overlap. The block that began last must end first.

        Example:
            ```python
            from madcrow_events import madcrow_signals

            with madcrow_signals.isolated():
                madcrow_signals.signal("order_placed", "A customer placed an order.")
                print("order_placed" in madcrow_signals)
            print("order_placed" in madcrow_signals)
            ```

            ```text
            True
            False
            ```
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

        The name may be an old one.

        Raises:
            UnknownEventError: the signal belongs to another registry.
        """
        if isinstance(name, EventSignal):
            return self.resolve(name).name
        if isinstance(name, type):
            with suppress(MadcrowEventsError):
                return self.resolve(name).name
        return noted_name(self, name.replace("-", "_")) if isinstance(name, str) else name

    def __contains__(self, name: object) -> bool:
        """Whether an event of this name, the only one of a model, or this signal is declared."""
        if isinstance(name, EventSignal):
            return self._find(name.name) is present_signal(self, name)
        key = self._key(name)
        return isinstance(key, str) and super().__contains__(key)

    def get(
        self, name: str | EventSignal[Any] | type[BaseEventContext], default: object = None, /
    ) -> Any:
        """Return the signal of a name, or a default if no such event is declared.

        Args:
            name: the name of the event, its signal, or the context class that is the model of this
                one event.
            default: the object to return if the event is not declared; None unless given.

        Raises:
            UnknownEventError: the signal belongs to another registry.
        """
        return super().get(self._key(name), default)

    def __delitem__(self, name: str | EventSignal[Any] | type[BaseEventContext]) -> None:
        """Forget an event and its old names; its signal still works, but no name finds it."""
        self.pop(name)

    def pop(self, name: str | EventSignal[Any] | type[BaseEventContext], *default: object) -> Any:
        """Forget an event and its old names, and return its signal.

        The signal still works, but the registry no longer finds it by a name or by its model.

        Args:
            name: the name of the event, its signal, or the context class that is the model of this
                one event.
            *default: the object to return if the event is not declared.

        Raises:
            KeyError: the event is not declared, and no default is given.
            UnknownEventError: the signal belongs to another registry.
        """
        key = self._key(name)
        signal = self._find(key)
        if signal is not None:
            forget_old_names(self, signal)
        self._models.forget()
        popped = super().pop(key, *default)
        self._models.forget()
        return popped

    def popitem(self) -> Any:
        """Forget the event that was declared last, and return its name and its signal."""
        self._models.forget()
        name, signal = super().popitem()
        self._models.forget()
        forget_old_names(self, cast("EventSignal[Any]", signal))
        return name, signal

    def clear(self) -> None:
        """Forget all events."""
        for signal in self._declared():
            self.pop(signal.name, None)

    @property
    def dispatcher(self) -> EventDispatcher:
        """The dispatcher that emits the events of this registry, where your code names none.

        It is the first dispatcher that was made for this registry and is not closed, unless you
        assign another one. `emit_event` and similar functions use the dispatcher of
        `madcrow_signals`.

        Raises:
            InvalidOptionError: the assigned object is not a dispatcher of this registry.
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

    def _written(self) -> str:
        """Return how code names the registry, for messages that say what to write."""
        return "madcrow_signals" if self._built_in else "registry"

    def __repr__(self) -> str:
        """Count the events."""
        return f"<SignalRegistry of {len(self)} events>"


def _fix_for_undecorated(given: object, registry: str) -> str:
    """Return what to write instead of what is no context class, below or in `@event`."""
    if isinstance(given, type):
        bases = [type_name(base) for base in given.__bases__ if base is not object]
        what = f"derives from {', '.join(bases)}" if bases else "does not"
        return f"{type_name(given)} {what}, so write class {type_name(given)}(BaseEventContext)"
    if isinstance(given, str):
        return f"give the name as in @{registry}.event(name='{printable(given, limit=40)}')"
    return "above a handler, write @on_event(OrderPlaced), with the class of its event"


# For higher wings, not for users


def declared_in(registry: SignalRegistry) -> list[EventSignal[Any]]:
    """Return the declared signals, for plugins and their test."""
    return registry._declared()


def is_built_in(registry: SignalRegistry, signal: EventSignal[Any]) -> bool:
    """Whether this package declares an event; only the default registry has such events."""
    return signal.name in registry._built_in or signal.name == HANDLER_FAILED


def patterns_in(registry: SignalRegistry) -> list[PatternSubscription]:
    """Return the active subscriptions to patterns and classes, in order."""
    return registry._patterns.live()


def declared_at(signal: EventSignal[Any]) -> Place | None:
    """Return the place where an event was declared first, or last by a module that ran again.

    Returns:
        The place; None for a built-in event, for a signal that was made by hand, and for an event
            that only its first use has declared.
    """
    registry = signal._registry
    if registry is None or is_declared_on_first_use(signal):
        return None
    return None if is_built_in(registry, signal) else signal._place


def is_declared_on_first_use(signal: EventSignal[Any]) -> bool:
    """Whether only a use of the event has declared it, in a registry that is not strict."""
    return signal._place is FIRST_USE


def forget(registry: SignalRegistry, signal: EventSignal[Any]) -> None:
    """Forget an event and its handlers, for plugins that are unloaded."""
    take_back(registry, signal.formerly)
    registry.pop(signal.name, None)
    signal._table.clear("unloaded")


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


def record_delivery(registry: SignalRegistry, emission: Emission) -> None:
    """Have the blocks that record emissions record a delivery, which their handlers do not see."""
    if registry._recordings:
        note_delivery(list(registry._recordings), emission)


def models_of(registry: SignalRegistry) -> ModelIndex:
    """Return the signals of a registry by their models, for dispatchers."""
    return registry._models


def dispatching_of(registry: SignalRegistry) -> Dispatching:
    """Return what knows the dispatcher of a registry, for `emit_event`."""
    return registry._dispatching


def lock_of(registry: SignalRegistry) -> Lock:
    """Return the lock of a registry; dispatchers also change their observers under it."""
    return registry._lock
