"""The dispatcher: the policy under which events are emitted."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, overload

from typing_extensions import TypeVar

from madcrow_events._background.admission import Admission, Overflow
from madcrow_events._text import type_name
from madcrow_events.deferrals import Deferral
from madcrow_events.dispatcher._announcing import announce, announce_async
from madcrow_events.dispatcher._delivering import Delivering
from madcrow_events.dispatcher._fitting import check_loose, fitting, refuse_second_context
from madcrow_events.dispatcher._lifetime import Lifetime
from madcrow_events.emissions import Emission, ScopeFields
from madcrow_events.emissions._completion import abandon, complete, complete_async
from madcrow_events.emissions._frames import (
    AmbientFrame,
    Branch,
)
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._plan import Plan
from madcrow_events.emissions._short_way import emit_the_short_way
from madcrow_events.exceptions import (
    InvalidOptionError,
)
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
)
from madcrow_events.observers import Observer
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._dispatching import adopt, use_dispatchers
from madcrow_events.signals._models import carrier_of
from madcrow_events.signals._registry import lock_of

__all__ = ["EventDispatcher", "OnError"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)


OnError: TypeAlias = Literal["log", "raise"]
"""What happens when a handler raises an exception.

- `"log"`: the exception is logged.
- `"raise"`: the emitter gets it, too, after all handlers have run.
"""


_by_default: list[None] = []
"""Stands for `validate` in all dispatchers that leave it out: they validate if it is not empty."""


def validate_by_default(validate: bool) -> bool:
    """Let all dispatchers validate that leave `validate` out, or none; for the pytest plugin.

    This includes dispatchers that are made already.

    Args:
        validate: whether they validate from now on.

    Returns:
        Whether they did so before.
    """
    before = bool(_by_default)
    _by_default[:] = [None] if validate else []
    return before


class EventDispatcher(Delivering, Lifetime):
    """Emits events, and keeps the failures of handlers away from the emitter.

    Most programs need only the default dispatcher, which `get_event_dispatcher` returns. Use one of
    your own in a `with` block, which closes it at the end. In an event loop, use `async with`.

    Args:
        signals: the registry in which the dispatcher looks up names.
        on_error: what happens when a handler raises. `"log"` logs the exception. `"raise"` also
            raises it to the emitter, after all handlers have run: a single exception as it is,
            several in `HandlerErrors`.
        validate: whether the keywords of `emit` must fit the event's model. If they do not, the
            emitter gets a `ContextValidationError`, and no handler is called. None, the default,
            means no, except in a run of pytest with the ini option `madcrow_events_validate`.
        log_tracebacks: whether the log of a failure has the traceback. A traceback includes the
            text of the exception, which may quote any value.
        queue_size: how many handlers that run later may wait in the queue, from 1 to a million.
        overflow: what happens if the queue is full. `"block"` makes the emitter wait for a free
            place, `"raise"` gives it a `QueueFullError`, and `"drop"` leaves the handler out.
        max_workers: how many threads at most run plain handlers in the background, from 1 to a
            million.

    Attributes:
        signals: see the argument.
        on_error: see the argument.
        log_tracebacks: see the argument.

    Raises:
        InvalidOptionError: an argument has an impossible value.

    Example:
        ```python
        from madcrow_events import EventDispatcher, madcrow_signals

        order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")


        @order_placed.on(background=True)
        def send_invoice() -> None:
            print("invoice sent")


        with EventDispatcher(queue_size=100, max_workers=1) as dispatcher:
            dispatcher.emit(order_placed)
        print("all handlers have ended")
        ```

        ```text
        invoice sent
        all handlers have ended
        ```
    """

    __slots__ = (
        "__dict__",  # so that a test can patch a method of one dispatcher
        "__weakref__",
        "_admission",
        "_observers",
        "_validates",
        "log_tracebacks",
        "on_error",
        "signals",
    )

    _instead_of_pickling = "make or import one there"

    def __init__(
        self,
        signals: SignalRegistry = madcrow_signals,
        *,
        on_error: OnError = "log",
        validate: bool | None = None,
        log_tracebacks: bool = True,
        queue_size: int = 1000,
        overflow: Overflow = "block",
        max_workers: int = 4,
    ) -> None:
        if not isinstance(signals, SignalRegistry):
            raise InvalidOptionError("signals must be a SignalRegistry", option="signals")
        if on_error not in ("log", "raise"):
            raise InvalidOptionError("on_error must be 'log' or 'raise'", option="on_error")
        self.signals: SignalRegistry = signals
        self.on_error: OnError = on_error
        # A list or a bool: only its truth counts. The list is shared, so `validate_by_default`
        # reaches every dispatcher, and emitting reads one attribute.
        self._validates: bool | list[None] = _by_default if validate is None else validate
        self.log_tracebacks: bool = log_tracebacks
        self._admission = Admission(queue_size, overflow, max_workers)
        self._observers: list[Observer] = []  # the same list for all siblings
        adopt(signals, self)

    def with_options(
        self,
        *,
        on_error: OnError | None = None,
        validate: bool | None = None,
        log_tracebacks: bool | None = None,
    ) -> EventDispatcher:
        """Return a dispatcher with other options, and the same registry, queue and observers.

        The new dispatcher is a sibling of this one: to drain or close one of them does the same to
        the other.

        Args:
            on_error: as for the class; None keeps the value of this dispatcher.
            validate: as for the class; None keeps the value of this dispatcher.
            log_tracebacks: as for the class; None keeps the value of this dispatcher.

        Returns:
            The new dispatcher.

        Raises:
            InvalidOptionError: `on_error` is neither `"log"` nor `"raise"`.

        Example:
            ```python
            from madcrow_events import get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")


            @order_placed.on()
            def charge_card() -> None:
                raise ConnectionError("no route to the bank")


            try:
                get_event_dispatcher().with_options(on_error="raise").emit(order_placed)
            except ConnectionError as error:
                print("not charged:", error)
            ```

            ```text
            not charged: no route to the bank
            ```
        """
        if on_error not in ("log", "raise", None):
            raise InvalidOptionError("on_error must be 'log' or 'raise'", option="on_error")
        sibling = self._sibling()
        sibling.on_error = self.on_error if on_error is None else on_error
        if validate is not None:
            sibling.validate = validate
        if log_tracebacks is not None:
            sibling.log_tracebacks = log_tracebacks
        return sibling

    @property
    def validate(self) -> bool:
        """Whether the keywords of `emit` must fit the event's model; see the argument."""
        return bool(self._validates)

    @validate.setter
    def validate(self, validate: bool) -> None:
        self._validates = validate

    def _sibling(self) -> EventDispatcher:
        """Return a dispatcher of the same class with the same attributes."""
        sibling = type(self).__new__(type(self))
        state: Any = object.__getstate__(self)  # of its `__dict__`, and of its slots
        for attributes in filter(None, state):
            for name, value in attributes.items():
                setattr(sibling, name, value)
        return sibling

    def emit(
        self,
        event: str | EventSignal[Any] | BaseEventContext,
        /,
        sender: object = None,
        **context: object,
    ) -> Emission[Any]:
        """Emit an event: with a context of its model, or with plain keywords.

        When `emit` returns, the plain handlers have run. Async, background and batch handlers run
        later.

        Args:
            event: a context, whose class is the model of one event. Or, for an event that is
                emitted with keywords, the name of the event or its signal.
            sender: the object that emits; None, the default, stands for the signal.
            **context: the keywords for the handlers; none besides a context. They are checked only
                if `validate` is set.

        Returns:
            The emission, with what came of it.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
                Or the class of the context is the model of no event.
            ContextTypeError: a context is given as the sender, or its class is the model of several
                events. Or a class is given instead of a context.
            ContextValidationError: `validate` is set, and the keywords do not fit the model.
            EmissionDepthError: events cause each other without end, more than 64 levels deep.
            QueueFullError: the queue has no place for a handler that would run later. No handler
                has run.
            DispatcherClosedError: a handler would run later, and the dispatcher is closed. No
                handler has run.
            EventLoopError: a handler would run later, and another library takes the place of
                asyncio or of threads here. No handler has run.
            WouldDeadlockError: the emitter would have to wait for a place in the queue, but the
                handlers in it belong to an event loop that does not run.
            Exception: a handler failed, and `on_error` is `"raise"`.

        Example:
            ```python
            from madcrow_events import (
                BaseEventContext,
                EventDispatcher,
                madcrow_signals,
                on_event,
            )


            @madcrow_signals.event
            class OrderPlaced(BaseEventContext):
                order_id: int


            @on_event(OrderPlaced)
            def send_invoice(context: OrderPlaced) -> str:
                return f"invoice for order {context.order_id}"


            dispatcher = EventDispatcher(on_error="raise")
            emission = dispatcher.emit(OrderPlaced(order_id=7))
            print(emission.results[0].value)
            ```

            ```text
            invoice for order 7
            ```
        """
        if type(event) is str:  # quicker than isinstance; a subclass is resolved below
            signal = self.signals[event]
        elif type(event) is EventSignal and event._registry is self.signals:
            signal = event
        else:
            carrier = carrier_of(self.signals, event, context)
            if carrier is not None:
                return self.emit_typed(carrier, event, sender)
            signal = self.signals.resolve(event)
        if sender is not None or self._validates:
            check_loose(signal, sender, context, validate=self.validate)
        elif (done := emit_the_short_way(self, signal, context, False)) is not None:
            return done
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, None, context):
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
        self,
        event: str | EventSignal[Any] | BaseEventContext,
        /,
        sender: object = None,
        **context: object,
    ) -> Emission[Any]:
        """Emit an event as `emit` does, and await its async handlers.

        The plain handlers run first, one after the other. Then the async handlers run at the same
        time. Background and batch handlers run later.

        Args:
            event: as for `emit`.
            sender: the object that emits; None, the default, stands for the signal.
            **context: as for `emit`.

        Returns:
            The emission, with what came of it.

        Raises:
            CancelledError: the emitter was cancelled, and with it the handlers that it awaited.
            MadcrowEventsError: as for `emit`.
            Exception: a handler failed, and `on_error` is `"raise"`. A `StopIteration` comes in
                `HandlerErrors`, because it cannot leave a coroutine.

        Example:
            ```python
            import asyncio

            from madcrow_events import (
                BaseEventContext,
                EventDispatcher,
                madcrow_signals,
                on_event,
            )


            @madcrow_signals.event
            class OrderPlaced(BaseEventContext):
                order_id: int


            @on_event(OrderPlaced)
            async def reserve_stock(context: OrderPlaced) -> str:
                return f"reserved for order {context.order_id}"


            dispatcher = EventDispatcher(on_error="raise")
            emission = asyncio.run(dispatcher.emit_async(OrderPlaced(order_id=7)))
            print(emission.results[0].value)
            ```

            ```text
            reserved for order 7
            ```
        """
        if type(event) is str:  # quicker than isinstance; a subclass is resolved below
            signal = self.signals[event]
        elif type(event) is EventSignal and event._registry is self.signals:
            signal = event
        else:
            carrier = carrier_of(self.signals, event, context)
            if carrier is not None:
                return await self.emit_typed_async(carrier, event, sender)
            signal = self.signals.resolve(event)
        if sender is not None or self._validates:
            check_loose(signal, sender, context, validate=self.validate)
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, None, context, True):
                rest = complete_async(emission, None)
                if rest is not None:
                    await rest
                    kept, emission = [emission], None  # type: ignore[assignment]  # as in `emit`
                    return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # or the traceback keeps it
            raise
        return emission

    @overload
    def emit_typed(
        self,
        event: str | EventSignal[BaseEventContext],
        context: ContextT,
        sender: object = None,
    ) -> Emission[ContextT]: ...
    @overload
    def emit_typed(
        self, event: EventSignal[ContextT], context: ContextT, sender: object = None
    ) -> Emission[ContextT]: ...
    @overload
    def emit_typed(
        self, event: EventSignal[Any], context: GenericEventContext, sender: object = None
    ) -> Emission[GenericEventContext]: ...
    def emit_typed(
        self, event: str | EventSignal[Any], context: BaseEventContext, sender: object = None
    ) -> Emission:
        """Emit an event with a context model.

        When `emit_typed` returns, the plain handlers have run. Async, background and batch handlers
        run later.

        Args:
            event: the name of the event, or its signal. With the signal, type checkers compare the
                context with the event's model.
            context: an instance of the event's model, or a `GenericEventContext` whose `event_type`
                is the event's name.
            sender: the object that emits; None, the default, stands for the signal.

        Returns:
            The emission, with what came of it.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
            ContextTypeError: the context is of another model. No handler has run.
            ContextValidationError: the context lacks fields, because `model_construct` made it, and
                a handler failed for that reason. Or the context is of an older model that a reload
                has replaced, and does not fit the new one.
            EmissionDepthError: as for `emit`.
            QueueFullError: as for `emit`.
            DispatcherClosedError: as for `emit`.
            EventLoopError: as for `emit`.
            WouldDeadlockError: as for `emit`.
            Exception: a handler failed, and `on_error` is `"raise"`.

        Example:
            ```python
            from madcrow_events import BaseEventContext, get_event_dispatcher, madcrow_signals


            class OrderPlaced(BaseEventContext):
                order_id: int


            order_placed = madcrow_signals.signal("order_placed", context=OrderPlaced)
            emission = get_event_dispatcher().emit_typed(order_placed, OrderPlaced(order_id=7))
            print(emission.event, emission.context.order_id)
            ```

            ```text
            order_placed 7
            ```
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        # the context if it is an instance of the signal's model, else None
        own: BaseEventContext | None = context
        if sender is not None:
            refuse_second_context(signal, sender)
        if type(context) is not signal.context_model:
            context, own = fitting(signal, context)
        elif sender is None:
            done = emit_the_short_way(self, signal, context, True)
            if done is not None:
                return done
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, own, None):
                complete(emission)
                # The traceback of a failure keeps what this frame names alive.
                kept, emission = [emission], None  # type: ignore[assignment]
                return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # or the traceback keeps it
            raise
        return emission

    @overload
    async def emit_typed_async(
        self,
        event: str | EventSignal[BaseEventContext],
        context: ContextT,
        sender: object = None,
    ) -> Emission[ContextT]: ...
    @overload
    async def emit_typed_async(
        self, event: EventSignal[ContextT], context: ContextT, sender: object = None
    ) -> Emission[ContextT]: ...
    @overload
    async def emit_typed_async(
        self, event: EventSignal[Any], context: GenericEventContext, sender: object = None
    ) -> Emission[GenericEventContext]: ...
    async def emit_typed_async(
        self, event: str | EventSignal[Any], context: BaseEventContext, sender: object = None
    ) -> Emission:
        """Emit an event with a context model, and await its async handlers.

        The plain handlers run first, one after the other. Then the async handlers run at the same
        time. Background and batch handlers run later.

        Args:
            event: the name of the event, or its signal.
            context: as for `emit_typed`.
            sender: the object that emits; None, the default, stands for the signal.

        Returns:
            The emission, with what came of it.

        Raises:
            CancelledError: the emitter was cancelled, and with it the handlers that it awaited.
            MadcrowEventsError: as for `emit_typed`.
            Exception: a handler failed, and `on_error` is `"raise"`. A `StopIteration` comes in
                `HandlerErrors`, because it cannot leave a coroutine.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        own: BaseEventContext | None = context  # as in `emit_typed`
        if sender is not None:
            refuse_second_context(signal, sender)
        if type(context) is not signal.context_model:
            context, own = fitting(signal, context)
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, own, None, True):
                rest = complete_async(emission, own)
                if rest is not None:
                    await rest
                    kept, emission = [emission], None  # type: ignore[assignment]  # as in `emit`
                    return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # or the traceback keeps it
            raise
        return emission

    # Holding back

    def deferred(self, scope: Callable[[], ScopeFields] | None = None) -> Deferral:
        """Return a block that holds emissions back until it ends without an exception.

        Use it with `with` or `async with`. The block holds back what this dispatcher and its
        siblings emit in it, also in tasks and threads that begin there with a copy of the context
        variables. If the block raises, the emissions are dropped. A mistake, such as an unknown
        event, is still raised where you emit. The `state` of an emission shows what has become of
        it.

        Args:
            scope: a function that returns the fields of an `event_scope` for the block. It is
                called when the first event needs them, so a block without events costs nothing. If
                the function raises, the emitter gets the exception. If the fields are wrong, the
                emitter gets an `InvalidOptionError`.

        Returns:
            The block.

        Example:
            ```python
            from madcrow_events import get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")


            @order_placed.on()
            def send_invoice() -> None:
                print("invoice sent")


            with get_event_dispatcher().deferred():
                get_event_dispatcher().emit(order_placed)
                print("order saved")
            ```

            ```text
            order saved
            invoice sent
            ```
        """
        return Deferral(self, scope)

    _fit = staticmethod(fitting)
    _announce = announce
    _announce_async = announce_async

    # Observers

    def add_observer(self, observer: Observer) -> None:
        """Let an observer watch each emission, and each call of a handler.

        The observer also watches the siblings of this dispatcher. The context managers of several
        observers are entered in the order in which the observers were added, and left in the
        reverse order. Adding an observer again changes nothing.

        Args:
            observer: an object with the two methods of `Observer`, such as a `TimingObserver`.

        Raises:
            InvalidOptionError: the object lacks one of the methods, or is a class.

        Example:
            ```python
            from madcrow_events import TimingObserver, get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")
            timings = TimingObserver()
            get_event_dispatcher().add_observer(timings)
            get_event_dispatcher().emit(order_placed)
            print(timings.snapshot().events[0].emissions)
            ```

            ```text
            1
            ```
        """
        if isinstance(observer, type):
            raise InvalidOptionError(
                f"{type_name(observer)} is a class: give an observer, {type_name(observer)}(...)",
                option="observer",
            )
        for method in ("emission", "handling"):
            if not callable(getattr(observer, method, None)):
                raise InvalidOptionError(
                    f"{type_name(type(observer))} has no method {method}: an observer has "
                    "emission(emission) and handling(emission, handler), which return context "
                    "managers",
                    option="observer",
                )
        with lock_of(self.signals):
            if len(_without(observer, self._observers)) == len(self._observers):
                self._observers.append(observer)

    def remove_observer(self, observer: Observer) -> bool:
        """Remove an observer from this dispatcher and its siblings.

        Args:
            observer: the object that was added.

        Returns:
            Whether the object was one of the observers.
        """
        with lock_of(self.signals):
            left = _without(observer, self._observers)
            found = len(left) < len(self._observers)
            self._observers[:] = left
        return found

    def __repr__(self) -> str:
        """Show the options."""
        admission = self._admission
        return (
            f"<EventDispatcher on_error={self.on_error!r} validate={self.validate!r} "
            f"log_tracebacks={self.log_tracebacks!r} queue_size={admission.queue_size} "
            f"overflow={admission.overflow!r} max_workers={admission.max_workers}>"
        )


def _without(observer: Observer, observers: list[Observer]) -> list[Observer]:
    # Outside of the `with` block of a lock: an interrupt in a loop there skips the release.
    return [present for present in observers if present is not observer]


def observers_of(dispatcher: EventDispatcher) -> list[Observer]:
    """Return the observers of a dispatcher, for higher wings."""
    return [*dispatcher._observers]


def _save_observers(dispatcher: EventDispatcher) -> Callable[[], None]:
    observers = list(dispatcher._observers)

    def restore() -> None:
        dispatcher._observers[:] = observers

    return restore


use_dispatchers(EventDispatcher, _save_observers)

# Lower floors name these in annotations, which `typing.get_type_hints` reads.
vars(sys.modules[Deferral.__module__]).update(EventDispatcher=EventDispatcher)
vars(sys.modules[SignalRegistry.__module__]).update(EventDispatcher=EventDispatcher)
vars(sys.modules[Emission.__module__]).update(
    EventDispatcher=EventDispatcher,
    EventSignal=EventSignal,
    Frame=Emission | Branch | AmbientFrame,
    Plan=Plan,
)
