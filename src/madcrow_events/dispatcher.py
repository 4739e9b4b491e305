"""The policy under which emissions happen, and one emitter for each built-in event.

This module holds the default dispatcher, one of the package's three pieces of
global state. It is longer than others because each way of emitting says what it
takes and raises, and each built-in event has its emitter.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, overload

from typing_extensions import TypeVar

from madcrow_events._background.admission import Admission, Overflow
from madcrow_events._copies import Unique
from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED
from madcrow_events._text import names_apart, type_name
from madcrow_events._validation import validate_keywords
from madcrow_events.deferrals import Deferral
from madcrow_events.emissions import Emission, HandlerFailure, ScopeFields
from madcrow_events.emissions._causes import is_announcing
from madcrow_events.emissions._emission import raise_failures
from madcrow_events.emissions._frames import (
    Branch,
    Surroundings,
    await_within,
    current,
    run_within,
    surroundings_of,
)
from madcrow_events.emissions._lazy_asyncio import load_async_loop, running_loop
from madcrow_events.emissions._loop import call_all
from madcrow_events.emissions._observing import stop_watching
from madcrow_events.exceptions import (
    ContextTypeError,
    DispatcherClosedError,
    InvalidOptionError,
    QueueFullError,
    WouldDeadlockError,
)
from madcrow_events.models import (
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
    fill_loose,
    is_parametrised_as,
)
from madcrow_events.observers import Observer
from madcrow_events.signals import (
    EventSignal,
    SignalRegistry,
    account_activated,
    account_banned,
    account_closed,
    login_failed,
    madcrow_signals,
    password_changed,
    user_logged_in,
    user_logged_out,
    user_registered,
)
from madcrow_events.signals._signal import check_model
from madcrow_events.subscriptions._plan import NOBODY, Plan

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events.emissions._outcomes import HeldBack

__all__ = [
    "ContextEmitter",
    "EventDispatcher",
    "OnError",
    "Overflow",
    "emit_account_activated_event",
    "emit_account_banned_event",
    "emit_account_closed_event",
    "emit_event",
    "emit_event_async",
    "emit_login_event",
    "emit_login_failed_event",
    "emit_logout_event",
    "emit_password_changed_event",
    "emit_registration_event",
    "get_event_dispatcher",
    "set_event_dispatcher",
]

ContextT = TypeVar("ContextT", bound=BaseEventContext)

# What is surely meant as the context where the sender should be.
_CONTEXTS = frozenset({BaseEventContext, dict})


def _load_start_handlers(*arguments: Any) -> Any:
    """Load what imports asyncio, put it in this one's place, and call it."""
    global _start_handlers  # noqa: PLW0603  # a function, loaded when first needed
    _start_handlers = load_async_loop().start_handlers
    return _start_handlers(*arguments)


_start_handlers: Callable[..., Any] = _load_start_handlers

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
        self, event: str | EventSignal[Any], /, sender: Any = None, **context: Any
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
            self._check_loose(signal, sender, context)
        emission: Emission[Any] = Emission()
        try:
            if call_all(emission, self, signal, sender, context, None, context):
                return emission
            if emission._failures is not None:
                self._go_on(emission)
                # What this frame names lives as long as the traceback of a failure.
                kept, emission = [emission], None  # type: ignore[assignment]
                return kept.pop()
        except BaseException as error:
            _abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
            raise
        return emission

    async def emit_async(
        self, event: str | EventSignal[Any], /, sender: Any = None, **context: Any
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
            self._check_loose(signal, sender, context)
        emission: Emission[Any] = Emission()
        try:
            if call_all(emission, self, signal, sender, context, None, context, True):  # noqa: FBT003
                return emission
            if emission._plan.later:
                left = self._start_later(emission, None)
                if left is not None:
                    await left
            if emission._failures is not None:
                await self._after_failures_async(emission)
                kept, emission = [emission], None  # type: ignore[assignment]  # as in emit
                return kept.pop()
        except BaseException as error:
            _abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
            raise
        return emission

    def _check_loose(self, signal: EventSignal[Any], sender: Any, context: dict[str, Any]) -> None:
        try:
            is_sender = sender is None or _CONTEXTS.isdisjoint(type(sender).__mro__)
        except TypeError:  # a metaclass gives one of these classes no hash
            is_sender = not any(it is BaseEventContext or it is dict for it in type(sender).__mro__)
        if not is_sender:
            raise ContextTypeError(
                f"a context was given to emit as the sender: write emit_typed('{signal.name}', "
                f"context) for a model, or emit('{signal.name}', **context) for keywords",
                event=signal.name,
                received=type(sender),
            )
        if self.validate and signal.context_model is not None:
            around = surroundings_of(current())
            if around is not None:
                fill_loose(signal.context_model, context, around._known_fields())
            validate_keywords(signal.name, signal.context_model, context)

    @overload
    def emit_typed(
        self,
        event: str | EventSignal[BaseEventContext],
        context: ContextT,
        sender: Any = None,
    ) -> Emission[ContextT]: ...
    @overload
    def emit_typed(
        self, event: EventSignal[ContextT], context: ContextT, sender: Any = None
    ) -> Emission[ContextT]: ...
    @overload
    def emit_typed(
        self, event: EventSignal[Any], context: GenericEventContext, sender: Any = None
    ) -> Emission[GenericEventContext]: ...
    def emit_typed(
        self, event: str | EventSignal[Any], context: BaseEventContext, sender: Any = None
    ) -> Emission[Any]:
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
        fitting: BaseEventContext | None = context
        if type(context) is not signal.context_model:
            context, fitting = _fitting(signal, context)
        emission: Emission[Any] = Emission()
        try:
            if call_all(emission, self, signal, sender, context, fitting, None):
                return emission
            if emission._failures is not None:
                self._go_on(emission)
                # What this frame names lives as long as the traceback of a failure.
                kept, emission = [emission], None  # type: ignore[assignment]
                return kept.pop()
        except BaseException as error:
            _abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
            raise
        return emission

    @overload
    async def emit_typed_async(
        self,
        event: str | EventSignal[BaseEventContext],
        context: ContextT,
        sender: Any = None,
    ) -> Emission[ContextT]: ...
    @overload
    async def emit_typed_async(
        self, event: EventSignal[ContextT], context: ContextT, sender: Any = None
    ) -> Emission[ContextT]: ...
    @overload
    async def emit_typed_async(
        self, event: EventSignal[Any], context: GenericEventContext, sender: Any = None
    ) -> Emission[GenericEventContext]: ...
    async def emit_typed_async(
        self, event: str | EventSignal[Any], context: BaseEventContext, sender: Any = None
    ) -> Emission[Any]:
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
        fitting: BaseEventContext | None = context
        if type(context) is not signal.context_model:
            context, fitting = _fitting(signal, context)
        emission: Emission[Any] = Emission()
        try:
            if call_all(emission, self, signal, sender, context, fitting, None, True):  # noqa: FBT003
                return emission
            if emission._plan.later:
                left = self._start_later(emission, fitting)
                if left is not None:
                    await left
            if emission._failures is not None:
                await self._after_failures_async(emission)
                kept, emission = [emission], None  # type: ignore[assignment]  # as in emit
                return kept.pop()
        except BaseException as error:
            _abandon(emission, error)
            emission = None  # type: ignore[assignment]  # as in emit
            raise
        return emission

    def _go_on(self, emission: Emission[Any]) -> None:
        """Do what is left after the inline handlers, if there is a failure or a later handler.

        Args:
            emission: the emission.
        """
        if emission._plan.later:
            emission._values.extend(emission._plan.pending)
            self._admission.start(emission)
        failures = emission._own_failures()
        if failures:
            self._announce(emission, failures)
        stop_watching(emission)
        if failures:
            emission._let_go(failures)
            if self.on_error == "raise":
                event = emission.event
                del emission  # for this frame is part of the traceback
                try:
                    raise_failures(event, failures)
                finally:
                    del failures

    def _start_later(
        self, emission: Emission[Any], context: BaseEventContext | None
    ) -> Coroutine[Any, Any, None] | None:
        """Start the handlers that `emit_async` does not call inline.

        Returns:
            What the emitter must await; None if nothing is left, as where no handler suspends.
        """
        plan = emission._plan
        emission._values.extend(plan.pending)
        if context is not None:
            context = emission._payload  # what an `event_scope` has filled in
        if plan.queued:
            return self._queue_and_join(emission, context)
        left: Coroutine[Any, Any, None] | None = _start_handlers(emission, context)
        return left

    async def _queue_and_join(
        self, emission: Emission[Any], context: BaseEventContext | None
    ) -> None:
        await self._admission.start_async(emission)
        if emission._plan.awaited:
            left = _start_handlers(emission, context)
            if left is not None:
                await left

    async def _after_failures_async(self, emission: Emission[Any]) -> None:
        """Do with failures as `_go_on` does."""
        failures = emission._own_failures()
        if failures:
            await self._announce_async(emission, failures)
        stop_watching(emission)
        if failures:
            emission._let_go(failures)
            if self.on_error == "raise":
                event = emission.event
                del emission  # as above
                try:
                    raise_failures(event, failures)
                finally:
                    del failures

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

    def _emit_held(self, emission: Emission[Any]) -> None:
        """Emit, as `emit` would have, what has been held back.

        Args:
            emission: what has been.
        """
        held = emission._values
        try:
            run_within(held.frame, self._emit_again, emission)
        except BaseException as error:
            emission._abandon(error)
            raise
        finally:
            _let_go(emission, held)
            del emission, held  # as in emit

    def _emit_again(self, emission: Emission[Any]) -> None:
        payload, context, keywords = _payload_again(emission)
        try:
            call_all(emission, self, emission.signal, emission.sender, payload, context, keywords)
            if emission._failures is not None:
                self._go_on(emission)
        finally:
            del emission  # as in emit

    async def _emit_held_async(self, emission: Emission[Any]) -> None:
        """Do the same as `emit_async` would have."""
        held = emission._values
        try:
            await await_within(held.frame, self._emit_again_async, emission)
        except BaseException as error:
            emission._abandon(error)
            raise
        finally:
            _let_go(emission, held)
            del emission, held  # as in emit

    async def _emit_again_async(self, emission: Emission[Any]) -> None:
        payload, context, keywords = _payload_again(emission)
        sender = emission.sender
        try:
            call_all(emission, self, emission.signal, sender, payload, context, keywords, True)  # noqa: FBT003
            if emission._plan.later:
                left = self._start_later(emission, context)
                if left is not None:
                    await left
            if emission._failures is not None:
                await self._after_failures_async(emission)
        finally:
            del emission  # as in emit

    def _announce(
        self,
        emission: Emission[Any],
        failures: tuple[HandlerFailure, ...],
        batch_size: int | None = None,
    ) -> None:
        """Emit `handler_failed` for each failure, but never from inside of one."""
        for dispatcher, signal, context in self._announcements(emission, failures, batch_size):
            try:
                run_within(emission._causing(), dispatcher.emit_typed, signal, context)
            except _NO_PLACE as error:
                log(logging.WARNING, "a failure of %s is not announced: %s", emission.event, error)

    async def _announce_async(
        self,
        emission: Emission[Any],
        failures: tuple[HandlerFailure, ...],
        batch_size: int | None = None,
    ) -> None:
        """Do the same where async handlers can be awaited."""
        for dispatcher, signal, context in self._announcements(emission, failures, batch_size):
            try:
                emit = dispatcher.emit_typed_async
                await await_within(emission._causing(), emit, signal, context)
            except _NO_PLACE as error:
                log(logging.WARNING, "a failure of %s is not announced: %s", emission.event, error)

    def _announcements(
        self,
        emission: Emission[Any],
        failures: tuple[HandlerFailure, ...],
        batch_size: int | None,
    ) -> Iterator[tuple[EventDispatcher, EventSignal[Any], HandlerFailedEventContext]]:
        signal = self.signals._find(HANDLER_FAILED)
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
        with self.signals._lock:
            if len(_without(observer, self._observers)) == len(self._observers):
                self._observers.append(observer)

    def remove_observer(self, observer: Observer) -> bool:
        """Let an observer be entered no more.

        Returns:
            Whether it was one of the observers.
        """
        with self.signals._lock:
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

    async def drain_async(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  # as for drain
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


def _payload_again(
    emission: Emission[Any],
) -> tuple[Any, BaseEventContext | None, dict[str, Any] | None]:
    """Return payload, context and keywords for `call_all`, of what was held back."""
    payload = emission._payload
    if type(payload) is dict:
        return payload, None, payload
    return (*_fitting(emission.signal, payload), None)


def _let_go(emission: Emission[Any], held: HeldBack) -> None:
    """Let those look again who wait for an emission that was held back."""
    if emission._values is held:  # it was never called: nested too deep, for example
        emission._plan = NOBODY
        held.drop()
    if held.permits and emission.dispatcher is not None:  # for handlers that are gone by now
        emission.dispatcher._admission.release(held.permits)  # type: ignore[arg-type]  # it is a list
    held.tell()


def _fitting(
    signal: EventSignal[Any], context: Any
) -> tuple[BaseEventContext, BaseEventContext | None]:
    """Return the context; then it again if it is of the signal's model, None if it is generic.

    Raises:
        ContextTypeError: it is neither.
        ContextValidationError: it is of a class that the model has replaced, and does not fit.
    """
    model = signal.context_model
    expected = BaseEventContext if model is None else model
    if isinstance(context, GenericEventContext) and expected is not GenericEventContext:
        type(context)._note_fields()
        try:
            if context.event_type.replace("-", "_") == signal.name:
                return context, None
        except AttributeError:  # it has none: made by model_construct, say
            pass
        raise ContextTypeError(
            f"a GenericEventContext for another event was emitted as {signal.name}: "
            f"give it event_type='{signal.name}'",
            event=signal.name,
            expected=(expected,),
            received=GenericEventContext,
        )
    if isinstance(context, expected) or is_parametrised_as(type(context), (expected,)):
        fitting: BaseEventContext = context
        check_model(signal.name, type(context))
        return fitting, fitting
    renewed = signal._renewed(context)
    if renewed is not None:
        return renewed, renewed
    is_class = isinstance(context, type)
    given, wanted = names_apart(context if is_class else type(context), expected)
    if is_class:
        given = f"the class {given}"
    if model is None:
        wanted = "a context derived from BaseEventContext"
    raise ContextTypeError(
        f"{signal.name} carries {wanted}, not {given}: emit_typed('{signal.name}', "
        f"{type_name(expected)}(...)), or emit('{signal.name}', field=...) for plain keywords",
        event=signal.name,
        expected=(expected,),
        received=type(context),
    )


_default: EventDispatcher | None = None


def get_event_dispatcher() -> EventDispatcher:
    """Return the default dispatcher, which emits the signals of `madcrow_signals`."""
    global _default  # noqa: PLW0603  # one of the three pieces of global state
    if _default is None:
        _default = EventDispatcher()
    return _default


def set_event_dispatcher(dispatcher: EventDispatcher | None) -> None:
    """Put another dispatcher in the place of the default one.

    Args:
        dispatcher: what `get_event_dispatcher` returns from now on; None for a
            new one with the default options.

    Raises:
        InvalidOptionError: it is no dispatcher.
    """
    if not isinstance(dispatcher, EventDispatcher | None):
        raise InvalidOptionError("give an EventDispatcher, or None", option="dispatcher")
    global _default  # noqa: PLW0603  # one of the three pieces of global state
    _default = dispatcher


def _save_default(empty: bool) -> Callable[[], None]:  # noqa: FBT001  # called by isolated()
    saved = _default
    observers = [] if saved is None else list(saved._observers)
    if empty:
        set_event_dispatcher(None)

    def restore() -> None:
        if saved is not None:
            saved._observers[:] = observers
        set_event_dispatcher(saved)

    return restore


madcrow_signals._isolate_too(_save_default)


def _refuse_context(dispatcher: EventDispatcher, event: Any, context: object) -> None:
    """Refuse a model in the place of keywords, unless the event has a field `context`."""
    if isinstance(context, BaseEventContext):
        signal = dispatcher.signals.resolve(event)
        model = signal.context_model
        if model is None or "context" not in model.model_fields:
            raise ContextTypeError(
                f"emit_event takes keywords, not context={type_name(type(context))}(...): write "
                f"get_event_dispatcher().emit_typed('{signal.name}', context)",
                event=signal.name,
                received=type(context),
            )


def emit_event(
    event: str | EventSignal[Any], /, sender: Any = None, **context: Any
) -> Emission[Mapping[str, Any]]:
    """Emit an event with plain keywords, through the default dispatcher.

    Args:
        event: its name or signal.
        sender: who emits; the signal itself if left out.
        **context: what the handlers get.

    Raises:
        InvalidEventNameError: the name is malformed.
        UnknownEventError: nobody declared the event.
        ContextTypeError: a context is given, as the sender or as `context=`.
        EmissionDepthError: handlers emit events without end.
        ContextValidationError: the default dispatcher validates, and they do not fit.
        QueueFullError: handlers that would run later find no place in the queue.
        Exception: a handler failed and the default dispatcher raises.
    """
    dispatcher = get_event_dispatcher()
    if "context" in context:
        _refuse_context(dispatcher, event, context["context"])
    return dispatcher.emit(event, sender, **context)


async def emit_event_async(
    event: str | EventSignal[Any], /, sender: Any = None, **context: Any
) -> Emission[Mapping[str, Any]]:
    """Emit an event with plain keywords, through the default dispatcher, and await its handlers.

    Args:
        event: its name or signal.
        sender: who emits; the signal itself if left out.
        **context: what the handlers get.

    Raises:
        CancelledError: the emitter was cancelled; so have been the handlers.
        MadcrowEventsError: as for `EventDispatcher.emit_async`.
        Exception: a handler failed and the default dispatcher raises.
    """
    dispatcher = get_event_dispatcher()
    if "context" in context:
        _refuse_context(dispatcher, event, context["context"])
    return await dispatcher.emit_async(event, sender, **context)


class ContextEmitter(Protocol[ContextT]):
    """Emits one built-in event through the default dispatcher: `emitter(context, sender=None)`.

    It raises what `EventDispatcher.emit_typed` raises.
    """

    def __call__(  # noqa: D102  # described by the class
        self, context: ContextT, sender: Any = None
    ) -> Emission[ContextT]: ...


def _abandon(emission: Emission[Any] | None, error: BaseException) -> None:
    """Count what has not begun of an emission as never to be called, if there is one still."""
    if emission is not None:
        emission._abandon(error)


def _emitter(function_name: str, signal: EventSignal[ContextT]) -> ContextEmitter[ContextT]:
    event = signal.name

    def emit(context: ContextT, sender: Any = None) -> Emission[ContextT]:
        return get_event_dispatcher().emit_typed(event, context, sender)

    emit.__name__ = emit.__qualname__ = function_name
    emit.__doc__ = f"Emit `{event}` with its context, through the default dispatcher."
    return emit


emit_login_event: ContextEmitter[LoginEventContext] = _emitter("emit_login_event", user_logged_in)
emit_logout_event: ContextEmitter[LogoutEventContext] = _emitter(
    "emit_logout_event", user_logged_out
)
emit_login_failed_event: ContextEmitter[LoginFailedEventContext] = _emitter(
    "emit_login_failed_event", login_failed
)
emit_registration_event: ContextEmitter[RegistrationEventContext] = _emitter(
    "emit_registration_event", user_registered
)
emit_account_activated_event: ContextEmitter[AccountActivatedEventContext] = _emitter(
    "emit_account_activated_event", account_activated
)
emit_account_banned_event: ContextEmitter[AccountBannedEventContext] = _emitter(
    "emit_account_banned_event", account_banned
)
emit_account_closed_event: ContextEmitter[AccountClosedEventContext] = _emitter(
    "emit_account_closed_event", account_closed
)
emit_password_changed_event: ContextEmitter[PasswordChangedEventContext] = _emitter(
    "emit_password_changed_event", password_changed
)


# Lower floors name these in annotations, which `typing.get_type_hints` reads.
vars(sys.modules[Deferral.__module__]).update(EventDispatcher=EventDispatcher)
vars(sys.modules[Emission.__module__]).update(
    EventDispatcher=EventDispatcher,
    EventSignal=EventSignal,
    Frame=Emission | Branch | Surroundings,
    Plan=Plan,
)
