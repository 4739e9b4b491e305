"""The dispatcher: under which policy emissions happen."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, overload

from typing_extensions import TypeVar

from madcrow_events._background.admission import Admission, Overflow
from madcrow_events._copies import Unique
from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED
from madcrow_events._text import type_name
from madcrow_events.deferrals import Deferral
from madcrow_events.dispatcher._fitting import check_loose, fitting
from madcrow_events.emissions import Emission, HandlerFailure, ScopeFields
from madcrow_events.emissions._causes import is_announcing
from madcrow_events.emissions._completion import abandon, go_on, go_on_async
from madcrow_events.emissions._emission import as_the_cause
from madcrow_events.emissions._frames import (
    AmbientFrame,
    Branch,
    await_in_frame,
    run_in_frame,
)
from madcrow_events.emissions._lazy_asyncio import running_loop
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._plan import Plan
from madcrow_events.exceptions import (
    DispatcherClosedError,
    InvalidOptionError,
    QueueFullError,
    WouldDeadlockError,
)
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    HandlerFailedEventContext,
)
from madcrow_events.observers import Observer
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._registry import lock_of

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


__all__ = ["EventDispatcher", "OnError"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)


# Why the announcement of a failure may find nobody to hear it, which is not the emitter's matter.
_NO_PLACE = (QueueFullError, DispatcherClosedError, WouldDeadlockError)

OnError: TypeAlias = Literal["log", "raise"]
"""What becomes of failures: `"log"` only, or `"raise"` to the emitter besides."""


class EventDispatcher(Unique):
    """Emits events, and shields the emitter from handlers that fail.

    In a `with` block it is closed at the end; in an event loop, use `async with`.

    Args:
        signals: the registry in which names are looked up.
        on_error: `"log"`, or `"raise"`: after all handlers ran, the emitter gets
            the one exception, or `HandlerErrors` for several.
        validate: whether a loose emission must satisfy the signal's model.
        log_tracebacks: whether the log of a failure has the handler's traceback,
            whose text is its author's.
        queue_size: how many handlers that run later may wait for it.
        overflow: what becomes of one more: `"block"` waits for a place, `"raise"`
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
        "log_tracebacks",
        "on_error",
        "signals",
        "validate",
    )

    _instead_of_pickling = "make or import one there"

    def __init__(
        self,
        signals: SignalRegistry = madcrow_signals,
        *,
        on_error: OnError = "log",
        validate: bool = False,
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
        self.validate: bool = validate
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
            InvalidOptionError: `on_error` is neither.
        """
        if on_error not in ("log", "raise", None):
            raise InvalidOptionError("on_error must be 'log' or 'raise'", option="on_error")
        sibling = self._sibling()
        sibling.on_error = self.on_error if on_error is None else on_error
        sibling.validate = self.validate if validate is None else validate
        if log_tracebacks is not None:
            sibling.log_tracebacks = log_tracebacks
        return sibling

    def _sibling(self) -> EventDispatcher:
        """Return a dispatcher of the same class with the same attributes."""
        sibling = type(self).__new__(type(self))
        state: Any = object.__getstate__(self)  # those of the object, and those of its slots
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
            sender: who emits; the signal itself if left out.
            **context: what the handlers get, unchecked unless `validate` is set.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: nobody declared the event, or the signal is of another registry.
            ContextTypeError: a context is given in the sender's place.
            ContextValidationError: `validate` is set and the keywords do not fit the model.
            EmissionDepthError: handlers emit events without end.
            QueueFullError: handlers that would run later find no place in the queue;
                no handler has run.
            DispatcherClosedError: the same, after `close`; no handler has run.
            WouldDeadlockError: the places in the queue are held in an event loop that
                does not run.
            Exception: a handler failed and `on_error` is `"raise"`.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        if sender is not None or self.validate:
            check_loose(signal, sender, context, validate=self.validate)
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, None, context):
                go_on(emission)
                # What this frame names lives as long as the traceback of a failure.
                kept, emission = [emission], None  # type: ignore[assignment]
                return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
            raise
        return emission

    async def emit_async(
        self, event: str | EventSignal[Any], /, sender: object = None, **context: object
    ) -> Emission[Mapping[str, Any]]:
        """Emit an event with plain keywords, and await its async handlers.

        Args:
            event: its name or signal.
            sender: who emits; the signal itself if left out.
            **context: what the handlers get, unchecked unless `validate` is set.

        Raises:
            CancelledError: the emitter was cancelled; so have been the handlers.
            MadcrowEventsError: as for `emit`.
            Exception: a handler failed and `on_error` is `"raise"`; a `StopIteration`, which
                cannot leave a coroutine, comes in `HandlerErrors`.
        """
        try:
            if type(event) is EventSignal and event._registry is self.signals:
                signal = event
            else:
                signal = self.signals[event]
        except TypeError:  # it is not even hashable
            signal = self.signals.resolve(event)
        if sender is not None or self.validate:
            check_loose(signal, sender, context, validate=self.validate)
        emission: Emission = Emission()
        try:
            if call_all(emission, self, signal, sender, context, None, context, True):
                rest = go_on_async(emission, None)
                if rest is not None:
                    await rest
                    kept, emission = [emission], None  # type: ignore[assignment]  # as in emit
                    return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
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
            sender: who emits; the signal itself if left out.

        Raises:
            InvalidEventNameError: the name is malformed.
            UnknownEventError: nobody declared the event, or the signal is of another registry.
            ContextTypeError: the context is of another model; no handler has run.
            ContextValidationError: it lacks fields, and handlers fail for that.
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
                go_on(emission)
                # What this frame names lives as long as the traceback of a failure.
                kept, emission = [emission], None  # type: ignore[assignment]
                return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
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
            sender: who emits; the signal itself if left out.

        Raises:
            CancelledError: the emitter was cancelled; so have been the handlers.
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
                rest = go_on_async(emission, fits)
                if rest is not None:
                    await rest
                    kept, emission = [emission], None  # type: ignore[assignment]  # as in emit
                    return kept.pop()
        except BaseException as error:
            abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
            raise
        return emission

    # What a `deferred` block holds back

    def deferred(self, scope: Callable[[], ScopeFields] | None = None) -> Deferral:
        """Return a block that holds back what is emitted in it until it ends well.

        For `with` and `async with`. It holds for this dispatcher and its siblings, and for tasks
        and threads that are started in the block with a copy of the context variables, until it
        ends. What is emitted is checked at once; its `state` tells what has become of it.

        Args:
            scope: returns the fields of an `event_scope` that holds in the block. It is called
                when the first event needs them, so that who emits nothing does not pay for them;
                what it raises, or what does not fit, is raised to the emitter.
        """
        return Deferral(self, scope)

    def _announce(
        self,
        emission: Emission,
        failures: tuple[HandlerFailure, ...],
        batch_size: int | None = None,
    ) -> None:
        """Emit `handler_failed` for each failure, but never from inside of one."""
        for dispatcher, signal, context in self._announcements(emission, failures, batch_size):
            try:
                run_in_frame(as_the_cause(emission), dispatcher.emit_typed, signal, context)
            except _NO_PLACE as error:
                log(logging.WARNING, "a failure of %s is not announced: %s", emission.event, error)

    async def _announce_async(
        self,
        emission: Emission,
        failures: tuple[HandlerFailure, ...],
        batch_size: int | None = None,
    ) -> None:
        """Do the same where async handlers can be awaited."""
        for dispatcher, signal, context in self._announcements(emission, failures, batch_size):
            try:
                emit = dispatcher.emit_typed_async
                await await_in_frame(as_the_cause(emission), emit, signal, context)
            except _NO_PLACE as error:
                log(logging.WARNING, "a failure of %s is not announced: %s", emission.event, error)

    def _announcements(
        self,
        emission: Emission,
        failures: tuple[HandlerFailure, ...],
        batch_size: int | None,
    ) -> Iterator[tuple[EventDispatcher, EventSignal[Any], HandlerFailedEventContext]]:
        signal = self.signals.get(HANDLER_FAILED)
        if signal is None or is_announcing(emission):
            return
        quiet = self if self.on_error == "log" else self.with_options(on_error="log")
        for failure in failures:
            context = HandlerFailedEventContext(
                event_name=emission.event,
                handler_name=emission.name_of(failure.handler),
                exception_type=type_name(type(failure.exception)),
                batch_size=batch_size,
            )
            yield quiet, signal, context

    # Observers

    def add_observer(self, observer: Observer) -> None:
        """Let an observer be entered around each emission, and each call of a handler.

        It holds for the siblings, too. Several are entered in the order in which they were
        added, and left in the reverse order. To add one again changes nothing.

        Args:
            observer: an object with the two methods of `Observer`, such as a `TimingObserver`.

        Raises:
            InvalidOptionError: it lacks one of them.
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
        """Let an observer be entered no more.

        Returns:
            Whether it was one of the observers.
        """
        with lock_of(self.signals):
            left = _without(observer, self._observers)
            found = len(left) < len(self._observers)
            self._observers[:] = left
        return found

    # What runs later

    @property
    def dropped(self) -> int:
        """How many calls of handlers `overflow="drop"` has dropped."""
        return self._admission.dropped

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until no handler of this dispatcher and its siblings is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes,
                0 only asks.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: what is pending waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        return self._admission.drain(timeout)

    async def drain_async(self, timeout: float | None = None) -> bool:
        """Do as `drain`, without stopping the event loop.

        Args:
            timeout: as for `drain`.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: a handler that is pending calls it.
            InvalidOptionError: the timeout is no number of seconds.
        """
        return await self._admission.drain_async(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """Wait until nothing is pending, then accept nothing that would run later.

        It holds for the siblings, too; doing so again is no error. Inline
        handlers, and async ones that the emitter awaits, are called as before.

        Args:
            timeout: as for `drain`; what is still pending then goes on.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: what is pending waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        return self._admission.close(timeout)

    def bind_loop(self, loop: AbstractEventLoop | None = None) -> AbstractContextManager[None]:
        """Name the loop for async handlers whose emitter runs in none.

        They run in the running loop of their emitter. Where there is none, as in a thread, they
        run in this loop; only without one in a loop of the dispatcher's own, where clients,
        pools and locks of the application would fail. It holds for the siblings, too.

        Args:
            loop: the application's loop; None for the one that runs here.

        Returns:
            What ends the binding at the end of a `with` block; the one before holds again then.

        Raises:
            InvalidOptionError: it is no event loop, or is left out where none runs.
        """
        if loop is None:
            loop = running_loop()
        if loop is None or not hasattr(loop, "call_soon_threadsafe"):
            raise InvalidOptionError(
                "bind_loop takes an event loop: call it in a running one, or give it one",
                option="loop",
            )
        return self._admission.bound_loops.bind(loop)

    def __enter__(self) -> Self:
        """Return the dispatcher, for `with EventDispatcher() as dispatcher:`."""
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Close it; if the block has raised, that is not hidden by a close that cannot be."""
        try:
            self.close()
        except WouldDeadlockError:
            if exc_type is None:
                raise

    async def __aenter__(self) -> Self:
        """Return the dispatcher, for `async with EventDispatcher() as dispatcher:`."""
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        """Wait in the loop until nothing is pending, and close it."""
        try:
            await self._admission.close_async()
        except WouldDeadlockError:
            if exc_type is None:
                raise

    def __repr__(self) -> str:
        """Show the options."""
        admission = self._admission
        return (
            f"<EventDispatcher on_error={self.on_error!r} validate={self.validate!r} "
            f"log_tracebacks={self.log_tracebacks!r} queue_size={admission.queue_size} "
            f"overflow={admission.overflow!r} max_workers={admission.max_workers}>"
        )


def _without(observer: Observer, observers: list[Observer]) -> list[Observer]:
    # No loop in the `with` block of a lock: an interrupt of its step back would skip the release.
    return [present for present in observers if present is not observer]


# Lower floors name these in annotations, which `typing.get_type_hints` reads.
vars(sys.modules[Deferral.__module__]).update(EventDispatcher=EventDispatcher)
vars(sys.modules[Emission.__module__]).update(
    EventDispatcher=EventDispatcher,
    EventSignal=EventSignal,
    Frame=Emission | Branch | AmbientFrame,
    Plan=Plan,
)
