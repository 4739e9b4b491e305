"""The events of an application, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Never, cast, overload
from weakref import WeakSet

import blinker
from typing_extensions import Unpack

from madcrow_events._copies import Unique
from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED, canonical_name, unknown_event
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import UnknownEventError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals._declaring import declare
from madcrow_events.signals._isolation import isolated
from madcrow_events.signals._old_names import named, noted_name, present_signal
from madcrow_events.signals._renaming import forget_old_names, take_back
from madcrow_events.signals._signal import EventSignal, translated
from madcrow_events.subscriptions import PatternSubscription, Subscription, SubscriptionOptions
from madcrow_events.subscriptions._handler_types import ContextT
from madcrow_events.subscriptions._options import check_options
from madcrow_events.subscriptions._patterns import PatternTable, extend
from madcrow_events.subscriptions._redefinition import defined_earlier, end_replaced, find_replaced
from madcrow_events.subscriptions._signatures import read_call_spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events._places import Place
    from madcrow_events.emissions._plan import CallSpec
    from madcrow_events.signals._isolation import Companion, SavedRegistry
    from madcrow_events.signals._old_names import FormerName
    from madcrow_events.subscriptions._table import Recording


__all__ = [
    "CLEARING",
    "SignalRegistry",
    "declared_in",
    "forget",
    "lock_of",
    "record",
    "subscribe_as",
]

CLEARING: ContextVar[Callable[[], None] | None] = ContextVar(
    "madcrow_events.clearing", default=None
)
"""A function that `clear_handlers` calls first in this context, and that may raise; or None."""


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
        self._other_states: list[Callable[[bool], Callable[[], None]]] = []
        self._companions: dict[type[Companion], Companion] = {}
        self._recordings: WeakSet[Recording] = WeakSet()

    def _renew_after_fork(self) -> None:
        """Start with a free lock, in a forked child."""
        self._lock = Lock()

    @overload
    def signal(
        self, name: str, doc: str | None = None, *, formerly: str | Iterable[str] = ()
    ) -> EventSignal[BaseEventContext]: ...
    @overload
    def signal(
        self,
        name: str,
        doc: str | None = None,
        *,
        context: type[ContextT],
        formerly: str | Iterable[str] = (),
    ) -> EventSignal[ContextT]: ...
    def signal(
        self,
        name: str,
        doc: str | None = None,
        *,
        context: type[Any] | None = None,
        formerly: str | Iterable[str] = (),
    ) -> EventSignal[Any]:
        """Declare an event, or return its signal if it is declared already.

        Args:
            name: the name of the event: small letters, digits and underscores, with dots between
                namespaces, and 128 characters at most. A hyphen counts as an underscore.
            doc: a sentence that says what the event means, or None.
            context: the event's model, a class derived from `BaseEventContext`. None, the default,
                for an event without a model, which takes any context.
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
            SignalConflictError: the event is declared already, with another model or without one.
                If a module is reloaded, its class still counts as the same model. Or an old name
                belongs to another event, or is declared as an event with a model.
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
        return declare(self, name, doc, context, formerly)

    def resolve(self, name: object) -> EventSignal[Any]:
        """Return the signal of a name.

        If the registry is not strict, an unknown name is declared.

        Args:
            name: the name of the event, with underscores or hyphens, or a signal.

        Returns:
            The signal. If a signal is given, it is returned unchanged.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, and the registry is strict. Or the signal
                belongs to another registry.
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
        canonical = canonical_name(name)
        signal = self._find(canonical) or self._find(noted_name(self, canonical))
        if signal is not None:
            return signal
        if self.strict and canonical != HANDLER_FAILED:
            raise unknown_event(canonical, self, self._former)
        return self.signal(canonical)

    def subscribe(
        self,
        name: str | EventSignal[Any],
        handler: Callable[..., Any],
        /,
        **options: Unpack[SubscriptionOptions],
    ) -> Subscription:
        """Subscribe a handler to an event, or to all events whose names fit a pattern.

        Args:
            name: the name of the event, a pattern such as `order_*`, or a signal. In a pattern, `*`
                stands for any characters, dots included. A pattern also fits events that are
                declared later. No pattern fits `handler_failed`.
            handler: a function or another callable. For an event, it takes what `register_handler`
                describes. For a pattern, it takes `**context`, an `Emission`, a `BaseEventContext`,
                or nothing.
            **options: see `SubscriptionOptions`. With a pattern, `once` means one call for all
                events together.

        Returns:
            The subscription, which you can cancel; for a pattern, a `PatternSubscription`.

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

    def unsubscribe(self, name: str | EventSignal[Any], handler: Callable[..., Any], /) -> bool:
        """Cancel every subscription of a handler to an event, or to exactly this pattern.

        Args:
            name: the name of the event, its signal, or the pattern.
            handler: the handler.

        Returns:
            Whether the handler was subscribed.

        Raises:
            InvalidEventNameError: the name or pattern is malformed.
            UnknownEventError: the event is not declared, and the registry is strict. Or the signal
                belongs to another registry.
        """
        if not isinstance(name, str) or "*" not in name:
            return self.resolve(name).unsubscribe(handler)
        pattern = canonical_name(name, pattern=True)
        found: Collection[Subscription] = self._patterns.of_handler(handler, pattern)
        found = found or defined_earlier(handler, partial(self._patterns.live, pattern))
        for entry in found:
            entry.cancel()
        return bool(found)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The active subscriptions: first those to patterns, then those to each event."""
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
        self._clear_handlers()

    def _clear_handlers(self) -> None:
        for subscription in self.subscriptions:
            subscription.cancel()

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
            signal._table.fake(block, (signal.name, *signal.formerly))

    # A mapping by name, in any spelling

    if TYPE_CHECKING:

        def __getitem__(self, name: str | EventSignal[Any], /) -> EventSignal[Any]: ...

    def __missing__(self, name: object) -> EventSignal[Any]:
        """Return what `resolve` returns, for a name in another spelling or a signal."""
        return self.resolve(name)

    def _find(self, name: str) -> EventSignal[Any] | None:
        """Return the signal of an exact canonical name, or None."""
        return cast("EventSignal[Any] | None", super().get(name))

    def _declared(self) -> list[EventSignal[Any]]:
        return cast("list[EventSignal[Any]]", list(self.values()))

    def _key(self, name: object) -> Any:
        """Return the key of a name in any spelling, which may be an old one, or of a signal.

        Raises:
            UnknownEventError: the signal belongs to another registry.
        """
        if isinstance(name, EventSignal):
            return self.resolve(name).name
        return noted_name(self, name.replace("-", "_")) if isinstance(name, str) else name

    def __contains__(self, name: object) -> bool:
        """Whether an event of this name, or this very signal, is declared."""
        if isinstance(name, EventSignal):
            return self._find(name.name) is present_signal(self, name)
        return isinstance(name, str) and super().__contains__(self._key(name))

    def get(self, name: str | EventSignal[Any], default: object = None, /) -> Any:
        """Return the signal of a name, or a default if no such event is declared.

        Args:
            name: the name of the event, or its signal.
            default: the object to return if the event is not declared; None unless given.

        Raises:
            UnknownEventError: the signal belongs to another registry.
        """
        return super().get(self._key(name), default)

    def __delitem__(self, name: str | EventSignal[Any]) -> None:
        """Forget an event and its old names; its signal still works, but no name finds it."""
        self.pop(name)

    def pop(self, name: str | EventSignal[Any], *default: object) -> Any:
        """Forget an event and its old names, and return its signal.

        The signal still works, but the registry no longer finds it by a name.

        Args:
            name: the name of the event, or its signal.
            *default: the object to return if the event is not declared.

        Raises:
            KeyError: the event is not declared, and no default is given.
            UnknownEventError: the signal belongs to another registry.
        """
        key = self._key(name)
        signal = self._find(key)
        if signal is not None:
            forget_old_names(self, signal)
        return super().pop(key, *default)

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


# For higher wings, not for users


def subscribe_as(
    registry: SignalRegistry,
    name: str | EventSignal[Any],
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
        name: an event's name, or a pattern.
        handler: the handler.
        options: its options.
        origin: the group, or `RECORDER`, that the subscription belongs to.
        wrap: takes the handler's call spec, and returns the one to call it by.
        replaced: gets the subscriptions that this one replaces; if None, they end at once.
    """
    # A recorder's names count as patterns, so that it also hears events that are declared anew.
    if not isinstance(name, str) or not ("*" in name or origin is RECORDER):
        return registry.resolve(name)._subscribe(handler, options, origin, wrap, replaced)
    pattern, patterns = canonical_name(name, pattern="*" in name), registry._patterns
    check_options(options)
    is_batch = options.get("batch") is not None
    spec = read_call_spec(handler, pattern, None, pattern=True, batch=is_batch)
    if wrap is not None:
        spec = wrap(spec)
    requested = PatternSubscription(patterns, pattern, handler, spec, translated(options))
    requested.origin = origin
    earlier = find_replaced(requested, partial(patterns.live, pattern))
    with registry._lock:
        subscription = patterns.add(requested, earlier)
        present = named(registry)
    if replaced is None:
        end_replaced(earlier)
    else:
        replaced += earlier
    if subscription is requested:
        # Outside of the lock: no thread may wait for a signal's lock while it has this one.
        for signal, names in present:
            extend(subscription, signal._table, *names)
    log(logging.DEBUG, "%s subscribed to %s", subscription.name, pattern)
    return subscription


def declared_in(registry: SignalRegistry) -> list[EventSignal[Any]]:
    """Return the declared signals, for plugins and their test."""
    return registry._declared()


def forget(registry: SignalRegistry, signal: EventSignal[Any]) -> None:
    """Forget an event and its handlers, for plugins that are unloaded."""
    take_back(registry, signal.formerly)
    if registry._find(signal.name) is signal:
        del registry[signal.name]
    signal._table.clear()


def record(registry: SignalRegistry, block: Recording) -> None:
    """Note that a block records emissions, or that it has ended; recorders call it both times."""
    with registry._lock:
        if block.is_open:
            registry._recordings.add(block)
        else:
            registry._recordings.discard(block)
        present = named(registry)
    for signal, names in present:
        signal._table.fake(block, names)


def lock_of(registry: SignalRegistry) -> Lock:
    """Return the lock of a registry; dispatchers also change their observers under it."""
    return registry._lock
