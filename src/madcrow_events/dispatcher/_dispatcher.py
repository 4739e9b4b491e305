"""The dispatcher: the policy under which events are emitted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, overload

from typing_extensions import TypeVar

from madcrow_events._background.admission import Admission, Overflow
from madcrow_events._text import type_name
from madcrow_events.deferrals import Deferral
from madcrow_events.dispatcher._announcing import announce, announce_async
from madcrow_events.dispatcher._fitting import check_loose, fitting
from madcrow_events.dispatcher._lifetime import Lifetime
from madcrow_events.emissions import Emission, ScopeFields
from madcrow_events.emissions._completion import abandon, complete, complete_async
from madcrow_events.emissions._frames import (
    AmbientFrame,
    Branch,
)
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._plan import Plan
from madcrow_events.exceptions import (
    InvalidOptionError,
)
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
)
from madcrow_events.observers import Observer
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._registry import lock_of

__all__ = ["EventDispatcher", "OnError"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)


OnError: TypeAlias = Literal["log", "raise"]
"""What happens to failures: `"log"` logs them, `"raise"` also raises them to the emitter."""


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


class EventDispatcher(Lifetime):
    """Emits events, and shields the emitter from handlers that fail.

    A `with` block closes it at the end; in an event loop, use `async with`.

    Args:
        signals: the registry in which names are looked up.
        on_error: `"log"`, or `"raise"`: after all handlers ran, the emitter gets
            the exception of the one that failed, or `HandlerErrors` for several.
        validate: whether keywords must fit the signal's model. If left out, they need
            not, except in a run of pytest with the ini option `madcrow_events_validate`.
        log_tracebacks: whether the log of a failure has the traceback; its text
            may be anything that the handler's author likes.
        queue_size: how many handlers that run later may wait in the queue.
        overflow: what happens to one more: `"block"` waits for a place, `"raise"`
            refuses the emission, `"drop"` leaves the handler out and counts it.
        max_workers: how many threads at most run plain handlers in the background.

    Raises:
        InvalidOptionError: an option has an impossible value.
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
        # Its truth counts, so that emitting need not ask more than an attribute.
        self._validates: bool | list[None] = _by_default if validate is None else validate
        self.log_tracebacks: bool = log_tracebacks
        self._admission = Admission(queue_size, overflow, max_workers)
        self._observers: list[Observer] = []  # the same list for all siblings

    def with_options(
        self,
        *,
        on_error: OnError | None = None,
        validate: bool | None = None,
        log_tracebacks: bool | None = None,
    ) -> EventDispatcher:
        """Return a dispatcher of the same signals, workers and observers with some options changed.

        Args:
            on_error: as for the class; None keeps what this one has.
            validate: as for the class; None keeps what this one has.
            log_tracebacks: as for the class; None keeps what this one has.

        Raises:
            InvalidOptionError: `on_error` is neither `"log"` nor `"raise"`.
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
        """Whether keywords must fit the signal's model."""
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
        self, event: str | EventSignal[Any], /, sender: object = None, **context: object
    ) -> Emission[Mapping[str, Any]]:
        """Emit an event with plain keywords.

        Args:
            event: its name or signal.
            sender: the object that emits; the signal itself if left out.
            **context: the keywords that the handlers get, unchecked unless `validate` is set.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
            ContextTypeError: a context is given as the sender.
            ContextValidationError: `validate` is set and the keywords do not fit the model.
            EmissionDepthError: handlers emit events without end.
            QueueFullError: handlers that would run later find no place in the queue;
                no handler has run.
            DispatcherClosedError: there are such handlers, and the dispatcher is closed; no
                handler has run.
            WouldDeadlockError: the queue is full of handlers in an event loop that does not
                run.
            Exception: a handler failed and `on_error` is `"raise"`.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        if sender is not None or self._validates:
            check_loose(signal, sender, context, validate=self.validate)
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
        self, event: str | EventSignal[Any], /, sender: object = None, **context: object
    ) -> Emission[Mapping[str, Any]]:
        """Emit an event with plain keywords, and await its async handlers.

        Args:
            event: its name or signal.
            sender: the object that emits; the signal itself if left out.
            **context: the keywords that the handlers get, unchecked unless `validate` is set.

        Raises:
            CancelledError: the emitter was cancelled, and with it the handlers.
            MadcrowEventsError: as for `emit`.
            Exception: a handler failed and `on_error` is `"raise"`. A `StopIteration` comes in
                `HandlerErrors`, because it cannot leave a coroutine.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
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

        Args:
            event: its name or signal.
            context: an instance of the signal's model, or a `GenericEventContext`
                whose `event_type` is the event's name.
            sender: the object that emits; the signal itself if left out.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: the event is not declared, or its signal belongs to another registry.
            ContextTypeError: the context is of another model; no handler has run.
            ContextValidationError: the context lacks fields, and handlers failed because of it.
            EmissionDepthError: handlers emit events without end.
            QueueFullError: as for `emit`.
            DispatcherClosedError: as for `emit`.
            WouldDeadlockError: as for `emit`.
            Exception: a handler failed and `on_error` is `"raise"`.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        fits: BaseEventContext | None = context
        if type(context) is not signal.context_model:
            context, fits = fitting(signal, context)
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, fits, None):
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

        Args:
            event: its name or signal.
            context: as for `emit_typed`.
            sender: the object that emits; the signal itself if left out.

        Raises:
            CancelledError: the emitter was cancelled, and with it the handlers.
            MadcrowEventsError: as for `emit_typed`.
            Exception: a handler failed and `on_error` is `"raise"`.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        fits: BaseEventContext | None = context
        if type(context) is not signal.context_model:
            context, fits = fitting(signal, context)
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, fits, None, True):
                rest = complete_async(emission, fits)
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

        For `with` and `async with`. The block holds back what this dispatcher and its siblings
        emit, also in tasks and threads that are started in it with a copy of the context
        variables. Emissions are checked at once; the `state` of each shows what happens to it.

        Args:
            scope: returns the fields of an `event_scope` for the block. It is called when the
                first event needs them, so that a block without events does not pay for them.
                If it raises, or returns fields that do not fit, the emitter gets the exception.
        """
        return Deferral(self, scope)

    _fit = staticmethod(fitting)
    _announce = announce
    _announce_async = announce_async

    # Observers

    def add_observer(self, observer: Observer) -> None:
        """Enter an observer around each emission, and around each call of a handler.

        The siblings do so, too. Several observers are entered in the order in which they were
        added, and left in the reverse order. Adding one again changes nothing.

        Args:
            observer: an object with the two methods of `Observer`, such as a `TimingObserver`.

        Raises:
            InvalidOptionError: it lacks one of the methods.
        """
        if isinstance(observer, type):
            raise InvalidOptionError(
                f"{type_name(observer)} is a class: give an observer, {type_name(observer)}()",
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

        Returns:
            Whether it was one of the observers.
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


# Lower floors name these in annotations, which `typing.get_type_hints` reads.
vars(sys.modules[Deferral.__module__]).update(EventDispatcher=EventDispatcher)
vars(sys.modules[Emission.__module__]).update(
    EventDispatcher=EventDispatcher,
    EventSignal=EventSignal,
    Frame=Emission | Branch | AmbientFrame,
    Plan=Plan,
)
