"""One handler's connection to one signal: its lifetime, its sender filter and its options.

A weak reference that dies ends its subscription by `cancel`, which never waits for a lock.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from madcrow_events._copies import Unique
from madcrow_events._text import handler_name
from madcrow_events.batches import Batch
from madcrow_events.emissions import Emission
from madcrow_events.emissions._contexts import check_given, keywords_of
from madcrow_events.emissions._outcomes import NO_RESULT, Called
from madcrow_events.emissions._plan import STALE, CallSpec, Entry, Plans
from madcrow_events.emissions._styles import BY_EMISSION, BY_OPTIONS
from madcrow_events.exceptions import ContextValidationError, InvalidOptionError
from madcrow_events.subscriptions._identity import Binding, binding_of, identity_key, sender_key
from madcrow_events.subscriptions._options import ANY, SubscriptionOptions
from madcrow_events.subscriptions._showing import options_shown

if TYPE_CHECKING:
    from madcrow_events._executions import Execution
    from madcrow_events.subscriptions._endings import EndReason

__all__ = [
    "AnyTable",
    "NotCalled",
    "OptionsSubscription",
    "Subscription",
    "end",
    "entry_of",
    "is_part",
    "new_subscription",
    "next_order",
    "order_of",
    "pattern_of",
]


_referent = weakref.ref.__call__


class _Weak(weakref.ref[Any]):
    """A weak reference to a handler or sender. When that is gone, the subscription ends.

    It knows the subscription only while that is active. A callback of its own for each
    subscription would take 290 bytes more.
    """

    __slots__ = ("subscription",)

    # Weak, too: the garbage collector could free this with the subscription, as a cycle, while
    # CPython 3.11 is about to call it, and crash.
    subscription: weakref.ref[Subscription] | None

    def __new__(cls, thing: object, /, *_described: object) -> Self:
        self = super().__new__(cls, thing, _end_with)
        self.subscription = None
        return self


class _WeakMethod(_Weak):
    """A bound method whose object is held weakly.

    Unlike `weakref.WeakMethod` it keeps the function alive, so that only one reference can die, and
    not two in either order.
    """

    __slots__ = ("_function",)

    def __init__(self, _owner: object, function: Any, /) -> None:
        self._function = function

    def __call__(self) -> Any:
        owner = _referent(self)
        return None if owner is None else types.MethodType(self._function, owner)

    @property
    def name(self) -> str:
        """The name of the method, also when its object is gone."""
        return handler_name(self._function)


class _WeakBinding(_Weak):
    """A method of another kind, such as a `partialmethod`, whose object is held weakly."""

    __slots__ = ("_bind", "_source", "name")

    def __init__(self, _owner: object, method: object, binding: Binding, /) -> None:
        self._source = binding.source
        self._bind = binding.bind
        self.name: str = handler_name(method)

    def __call__(self) -> Any:
        owner = _referent(self)
        return None if owner is None else self._bind(self._source, owner)


class _WeakCallable(_Weak):
    """A handler that is held weakly, and its name, which stays when the handler is gone."""

    __slots__ = ("name",)

    def __init__(self, handler: object, /) -> None:
        self.name: str = handler_name(handler)


def _weak_reference(
    thing: object, binding: Binding | None, kind: Callable[[Any], _Weak] = _Weak
) -> _Weak | None:
    """Return a weak reference to a method's object, or a `kind` of reference to anything else.

    None if `thing` allows none.
    """
    try:
        if binding is None:
            return kind(thing)
        if binding.bind is types.MethodType:
            return _WeakMethod(binding.owner, binding.source)
        return _WeakBinding(binding.owner, thing, binding)
    except TypeError:
        return None


def _end_with(reference: _Weak) -> None:
    """End the subscription of a handler or sender that is gone: the callback of its reference."""
    subscription = reference.subscription
    ended = None if subscription is None else subscription()
    if ended is not None:
        ended._end("collected" if ended.handler is None else "sender_collected")


class NotCalled(partial[Any]):
    """Stands for a handler that is not to be called, while its arguments are made."""

    __slots__ = ()

    def __call__(self, /, *_arguments: object, **_keywords: object) -> None:
        """Do nothing."""


_order = count()


def next_order() -> int:
    """Return a number above that of every subscription made so far."""
    return next(_order)


def order_of(subscription: Subscription) -> int:
    """Return the number of a subscription, which grows from one subscription to the next.

    Groups and plugins compare it with `next_order`, to find the subscriptions made since.
    """
    return subscription._order


def end(subscription: Subscription, reason: EndReason | None) -> None:
    """End a subscription as `cancel` does, with another reason for `explain`, or without any."""
    subscription._end(reason)


def pattern_of(subscription: Subscription) -> str | None:
    """Return the pattern that a subscription is a part of, or None."""
    owner = subscription._owner
    return None if owner is None or owner._is_optional else owner.event


def is_optional(subscription: Subscription) -> bool:
    """Whether a subscription waits for one event, which may never be declared."""
    return subscription._is_optional


def is_part(subscription: Subscription) -> bool:
    """Whether a subscription is a pattern's part for one event.

    For plugins: such a part is no reason to keep an event declared, because it is made again when
    the event is.
    """
    return subscription._owner is not None


class AnyTable(Protocol):
    """The table that a subscription is entered in: a signal's, or that of the patterns."""

    plans: Plans

    def mark_stale(self, subscription: Any, /) -> None:
        """Arrange for the entry of an ended subscription to be removed, without waiting."""

    def note_end(self, subscription: Any, reason: EndReason, /) -> None:
        """Record why a subscription has ended, without waiting."""


class Subscription(Unique):
    """One handler's subscription to one event.

    `subscribe` and `register_handler` return it, and `cancel` ends it. In a `with`, it ends at the
    end of the block.

    Attributes:
        event: the name of the event.
        priority: handlers with a higher number run earlier.
        once: whether the first call ends the subscription.
        when: the function that decides for each emission whether the handler is called, or None.
        timeout: after how many seconds an async handler is cancelled, or None.
        background: whether the handler runs later, while the emitter goes on. Always true with
            `batch`.
        id: the name that the handler was given, unique within the event or pattern, or None.
        batch: the limits of the lists that the handler takes, or None.
        on_error: `"raise"` if a failure of the handler is raised to its emitter, or None.
    """

    __slots__ = (
        "__weakref__",
        "_active",
        "_call_spec",
        "_execution",
        "_handler",
        "_handler_is_weak",
        "_handler_key",
        "_order",
        "_origin",
        "_table",
        "event",
    )

    _instead_of_pickling = "subscribe its handler there"

    # Most subscriptions have no options: these values are theirs, and `OptionsSubscription` has
    # slots of the same names. That saves 112 bytes for each.
    id: str | None = None
    priority: int = 0
    once: bool = False
    when: Callable[[Mapping[str, Any]], object] | None = None
    timeout: float | None = None
    batch: Batch | None = None
    on_error: Literal["raise"] | None = None
    background: bool = False
    _connected: bool = False
    _is_optional: bool = False
    _owner: Subscription | None = None
    _ticket: list[bool] | None = None
    _sender: Any = ANY
    _sender_is_weak: bool = False
    _sender_key: Hashable = ANY

    def __init__(
        self,
        table: AnyTable,
        event: str,
        handler: object,
        spec: CallSpec,
        *,
        weak: bool | None = None,
        order: int | None = None,
        key: Hashable = None,
    ) -> None:
        self._table = table
        self._active = False
        self.event: str = event
        self._call_spec = spec
        self._origin: object = None
        self._execution: Execution | None = None
        self._order = next(_order) if order is None else order
        binding = binding_of(handler)
        self._hold_handler(handler, binding, weak=weak)
        if key is not None:
            self._handler_key = key
        elif binding is None and type(handler) is types.FunctionType:
            self._handler_key = id(handler)  # as `identity_key` would, in a tenth of the time
        else:
            self._handler_key = identity_key(handler)

    def _hold_handler(self, handler: object, binding: Binding | None, *, weak: bool | None) -> None:
        reference = None
        if weak or (weak is None and binding is not None and binding.is_of_instance):
            reference = _weak_reference(handler, binding, _WeakCallable)
            if reference is None and weak:
                raise InvalidOptionError(
                    f"{handler_name(handler)} cannot be held weakly: leave out weak=True",
                    option="weak",
                )
        self._handler_is_weak = reference is not None
        self._handler: Any = handler if reference is None else reference

    @property
    def handler(self) -> Any:
        """The handler; None if it was held weakly and no longer exists."""
        return self._handler() if self._handler_is_weak else self._handler

    @property
    def sender(self) -> Any:
        """The sender whose emissions the handler gets, or `ANY`; None if the sender is gone."""
        return self._sender() if self._sender_is_weak else self._sender

    @property
    def origin(self) -> object:
        """The handler group that made the subscription, or None."""
        return self._origin if self._owner is None else self._owner.origin

    @origin.setter
    def origin(self, origin: object) -> None:
        self._origin = origin

    @property
    def weak(self) -> bool:
        """Whether the handler is held weakly."""
        return self._handler_is_weak

    @property
    def active(self) -> bool:
        """Whether emissions still reach the handler."""
        return self._active and self._alive

    @property
    def _alive(self) -> bool:
        """Whether its handler and its sender still exist."""
        return not (self._handler_is_weak and self._handler() is None) and self._sender_is_alive

    @property
    def _sender_is_alive(self) -> bool:
        """Whether its sender still exists; else another object may have the sender's id."""
        return not self._sender_is_weak or self._sender() is not None

    def cancel(self) -> None:
        """End the subscription. A second call changes nothing.

        An emission that is already running may still call the handler. `cancel` never waits, so
        finalizers may call it.
        """
        self._end("cancelled")

    def _end(self, reason: EndReason | None) -> None:
        """End it, and have the reason recorded; None to record nothing, as if it goes on."""
        was_active = self._active
        # No interrupt comes between two plain stores, so no plan has a subscription that has ended.
        self._active = False
        self._table.plans = STALE
        self._table.mark_stale(self)
        if was_active and reason is not None:
            self._table.note_end(self, reason)
        if not self._active:  # pragma: no branch  # another thread has restored it meanwhile
            self._link(False)

    def _end_if_gone(self) -> None:
        """End it if its handler or sender went away while it was restored, and was not active."""
        if not self._alive:
            self._end("collected" if self.handler is None else "sender_collected")

    def __enter__(self) -> Self:
        """Return the subscription, for `with signal.subscribe(handler):`."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Cancel it."""
        self.cancel()

    @property
    def name(self) -> str:
        """The handler's name in logs and metrics: its `id`, or else the function's dotted name.

        It stays when a handler that was held weakly is gone.
        """
        return self.id or self._function_name

    @property
    def _function_name(self) -> str:
        """The dotted name of the handler, also when the handler is gone."""
        handler = self.handler
        name: str = self._handler.name if handler is None else handler_name(handler)
        return name

    def __repr__(self) -> str:
        """Name the handler, the event, and each option that is not the default."""
        state = "" if self.active else " (ended)"
        parts = [f"{self._function_name} on {self.event}", *options_shown(self)]
        return f"<Subscription {', '.join(parts)}{state}>"

    @property
    def _runs_inline(self) -> bool:
        """Whether the call loop itself calls the handler."""
        return not (self.background or self._call_spec.is_async)

    @property
    def _is_weak_by_default(self) -> bool:
        """Whether a handler of this kind is held weakly if `weak` is left out."""
        handler = self.handler
        if handler is None:
            return type(self._handler) is not _WeakCallable
        binding = binding_of(handler)
        return binding is not None and binding.is_of_instance

    @property
    def _is_plain(self) -> bool:
        """Whether the handler can be called without checks before."""
        return not (self._handler_is_weak or self.once) and self.when is None

    def _prepared(self) -> tuple[int, Any]:
        """Return the call loop's style and callable for this subscription."""
        if not self._is_plain:
            return BY_EMISSION, self._call
        if self._call_spec.style == BY_EMISSION:
            return BY_EMISSION, partial(self._call_spec.invoke, self._handler)
        return self._call_spec.style, self._handler

    def _prepared_to_await(self) -> tuple[int, Any]:
        """Return the style and the callable for the loop of awaited handlers."""
        if self.timeout is not None or not self._is_plain:
            return BY_OPTIONS, entry_of(self)
        return self._prepared()

    def _admit(self, emission: Emission) -> Any:
        """Return the handler if this emission is for it, else None; claim the call of a `once`."""
        handler = self._match(emission)
        if handler is None or self._ticket is None:
            return handler
        return self._take(handler, emission)

    def _take(self, handler: object, emission: Emission) -> Any:
        """Claim the one call of a `once`; return the handler, or None if it was claimed before."""
        self._check_arguments(handler, emission)
        return handler if self._claim_if_once() else None

    def _is_used_up(self) -> bool:
        """Whether it is a `once` whose one call has been claimed."""
        return self._ticket is not None and not (self._owner or self)._ticket

    def _check_arguments(self, handler: Any, emission: Emission) -> None:
        """Raise if the arguments of a `once` cannot be made, before its one call is claimed.

        Raises:
            ContextTypeError: the emission carries another model.
            ContextValidationError: the emission does not fit.
        """
        if (self._owner or self)._ticket:
            check_given(emission)
            self._call_spec.fit(NotCalled(handler), emission)

    def _explained(self, error: Exception, emission: Emission) -> Exception:
        """Return the exception of a call, or a clearer one if the arguments did not fit."""
        handler = self.handler
        if handler is None or self._call_spec.fit is self._call_spec.invoke:
            return error
        try:
            self._call_spec.fit(NotCalled(handler), emission)
        except ContextValidationError as misfit:
            misfit.__suppress_context__ = True  # the first exception says less
            return misfit.with_traceback(None)
        return error

    def _match(self, emission: Emission) -> Any:
        """Return the handler if it exists and its `when` agrees, else None."""
        handler = self._handler() if self._handler_is_weak else self._handler
        if handler is None or self.when is None:
            return handler
        context = MappingProxyType(keywords_of(emission))
        return handler if self._call_spec.ask(self.when, context) else None

    def _claim_if_once(self) -> bool:
        """Claim the one call if this is a `once`; return whether the handler may be called."""
        return self._ticket is None or (self._owner or self)._claim()

    def _claim(self) -> bool:
        """Claim the one call of a `once`, which a pattern has for all its events together."""
        try:
            self._ticket.pop()  # type: ignore[union-attr]  # a `once` has one; pop is atomic
        except IndexError:
            return False
        self._end("once")
        return True

    def _call(self, emission: Emission) -> Any:
        handler = self._admit(emission)
        if handler is None:
            return NO_RESULT
        value = self._call_spec.invoke(handler, emission)
        return Called(handler, value) if self._handler_is_weak and value is not NO_RESULT else value

    def _same_options(self, other: Subscription) -> bool:
        """Whether another subscription of the same handler has these options."""
        return (
            self.priority == other.priority
            and self.once == other.once
            and self.when is other.when
            and self.weak == other.weak
            and self.timeout == other.timeout
            and self.background == other.background
            and self.batch == other.batch
            and self.id == other.id
            and self.on_error == other.on_error
            and self._connected == other._connected
        )

    def _link(self, ends: bool = True) -> None:
        """Let the ends of its handler and its sender be its own, or no longer."""
        if self._handler_is_weak:
            self._handler.subscription = weakref.ref(self) if ends else None
        if self._sender_is_weak:
            self._sender.subscription = weakref.ref(self) if ends else None

    def _activate(self) -> None:
        """Mark it as active; a `once` has its one call from now on."""
        self._link()
        self._active = True
        if self._ticket is not None:
            self._ticket[:] = [True]


class OptionsSubscription(Subscription):
    """A subscription with options, a part of a pattern's subscription, or a connection."""

    __slots__ = (
        "_connected",
        "_owner",
        "_sender",
        "_sender_is_weak",
        "_sender_key",
        "_ticket",
        "background",
        "batch",
        "id",
        "on_error",
        "once",
        "priority",
        "timeout",
        "when",
    )

    def __init__(
        self,
        table: AnyTable,
        event: str,
        handler: object,
        spec: CallSpec,
        options: SubscriptionOptions,
        *,
        connected: bool = False,
        order: int | None = None,
        owner: Subscription | None = None,
        key: Hashable = None,
    ) -> None:
        given: Callable[..., Any] = options.get
        self.timeout: float | None = given("timeout")
        if self.timeout is not None and not spec.is_async:
            raise InvalidOptionError(
                f"{handler_name(handler)} is a plain function, which cannot be cancelled: make it "
                "async, or leave out timeout and limit what it waits for itself",
                option="timeout",
            )
        super().__init__(table, event, handler, spec, weak=given("weak"), order=order, key=key)
        self._owner = owner
        self._connected = connected
        self.id: str | None = given("id")
        self.priority: int = given("priority", 0)
        self.once: bool = given("once", False)
        self.when: Callable[[Mapping[str, Any]], object] | None = given("when")
        self.batch: Batch | None = given("batch")
        self.on_error: Literal["raise"] | None = given("on_error")
        self.background: bool = given("background", False) or self.batch is not None
        self._ticket = [] if self.once else None
        self._hold_sender(given("sender", ANY))

    def _hold_sender(self, sender: object) -> None:
        reference = None
        if sender is ANY:
            self._sender_key = ANY
        else:
            self._sender_key = sender_key(sender)
            binding = binding_of(sender) if type(sender) is types.MethodType else None
            # Plain values have a tuple as their key. So have built-in methods, which each access
            # makes anew. An equal one matches, too, so the subscription does not end with this one.
            if binding is not None or not isinstance(self._sender_key, tuple):
                reference = _weak_reference(sender, binding)
        self._sender_is_weak = reference is not None
        self._sender = sender if reference is None else reference


OptionsSubscription.__name__ = OptionsSubscription.__qualname__ = "Subscription"  # for messages


def new_subscription(
    table: AnyTable, event: str, handler: object, spec: CallSpec, options: SubscriptionOptions
) -> Subscription:
    """Make a subscription, which its table has yet to enter."""
    if not options:
        return Subscription(table, event, handler, spec)
    return OptionsSubscription(table, event, handler, spec, options)


def entry_of(subscription: Subscription) -> Entry:
    """Return the entry of a subscription for plans."""
    return Entry(
        subscription,
        subscription._owner or subscription,
        subscription._call_spec,
        None if subscription._handler_is_weak else subscription._handler,
        subscription._match,
        subscription._admit,
        subscription._take,
        subscription._claim_if_once,
        subscription._check_arguments,
        subscription._explained,
        subscription._is_used_up,
    )
