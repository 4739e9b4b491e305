"""One act of emitting, and its outcome.

The emitter gets an `Emission` back, and handlers may take it. Each call of `emit` makes one, so it
keeps only what the call loop has at hand; results and failures become objects when somebody asks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, ContextDecorator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, cast
from uuid import UUID

from typing_extensions import TypeVar

from madcrow_events._copies import Unique
from madcrow_events._text import handler_name, type_name
from madcrow_events._waiters import Waiters, check_seconds
from madcrow_events.emissions._causes import cause_of, causing_emission, ids_of
from madcrow_events.emissions._failures import Failures, HandlerFailure
from madcrow_events.emissions._frames import (
    CURRENT,
    NO_FIELDS,
    AmbientFrame,
    Branch,
    Frame,
    ambient_frame_of,
    current,
    emission_of,
    enclosing,
    enter,
    frames,
    leave,
    new_ambient_frame,
    running,
)
from madcrow_events.emissions._ids import Ids
from madcrow_events.emissions._lingering import is_inside
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, Called, HeldBack, Outcomes
from madcrow_events.exceptions import (
    ContextValidationError,
    HandlerCancelledError,
    HandlerErrors,
    WouldDeadlockError,
)
from madcrow_events.models import BaseEventContext, values_of

if TYPE_CHECKING:
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.emissions._plan import Plan
    from madcrow_events.signals import EventSignal

__all__ = [
    "Emission",
    "EmissionState",
    "HandlerResult",
    "current_event",
]

EmissionState: TypeAlias = Literal["deferred", "dropped", "running", "done"]
"""How far an emission has come; see `Emission.state`."""

# As in `inspect`, which takes long to import.
CO_GENERATOR = 0x20
CO_COROUTINE = 0x80
CO_ASYNC_GENERATOR = 0x200

PayloadT_co = TypeVar("PayloadT_co", covariant=True, default=Any)


class HandlerResult(NamedTuple):
    """The value that a handler returned."""

    handler: Any
    value: Any

    def __repr__(self) -> str:
        """Name the handler and the type of the value, never the value."""
        return f"<HandlerResult {handler_name(self.handler)}: {type_name(type(self.value))}>"


class Emission(Unique, Generic[PayloadT_co]):
    """One act of emitting an event, and its outcome.

    Made by a dispatcher or a signal, never by hand. The context of an `Emission[C]` is a `C`; the
    context of a loose emission is a read-only mapping.

    Attributes:
        signal: the signal that was emitted.
        sender: the sender that the emitter named; the signal itself if it named none.
        dispatcher: the dispatcher that emitted it; None for `signal.send`.
        depth: how many unfinished emissions it is nested in.
    """

    __slots__ = (
        "__weakref__",
        "_failures",
        "_ids",
        "_original",
        "_outer",
        "_payload",
        "_plan",
        "_running",
        "_validated",
        "_values",
        "depth",
        "dispatcher",
        "sender",
        "signal",
    )

    _instead_of_pickling = "send its event and the values of its context, and emit them there"

    signal: EventSignal[Any]
    sender: Any
    dispatcher: EventDispatcher | None
    depth: int
    _outer: Frame | None
    _plan: Plan
    _payload: Any
    _values: Any  # a list, Outcomes, or an empty tuple if there is no handler
    _failures: Failures | None
    _running: bool
    _ids: Ids  # made by `ids_of`
    _original: Emission  # of a twin, which `emission_with` makes; its ids name the original
    _validated: dict[type[BaseEventContext], BaseEventContext | ContextValidationError]

    @property
    def event(self) -> str:
        """The name of the event."""
        return self.signal.name

    @property
    def context(self) -> PayloadT_co:
        """The context that was emitted: a model, or the keywords of a loose emission, read-only."""
        payload: Any = self._payload
        context: Any = MappingProxyType(payload) if type(payload) is dict else payload
        return cast("PayloadT_co", context)

    @property
    def fields(self) -> Mapping[str, Any]:
        """The context as a read-only mapping, by the names of the fields: of a model, too.

        Example:
            ```python
            from madcrow_events import Emission, emit_event, on_event


            @on_event("user_*")
            def note_email(emission: Emission) -> None:
                print(emission.event, emission.fields["email"])


            emit_event("user_logged_in", user_id=1, email="ada@example.com")
            ```

            ```text
            user_logged_in ada@example.com
            ```
        """
        payload: Any = self._payload
        return MappingProxyType(payload if type(payload) is dict else values_of(payload))

    @property
    def parent(self) -> Emission | None:
        """The emission whose handler emitted this one, or None."""
        outer = enclosing(self)
        if not isinstance(outer, Branch):
            return outer
        return None if outer.unawaited else outer.emission

    @property
    def cause(self) -> Emission | None:
        """The emission that caused this one; None if no other did, or if nobody holds it any more.

        Unlike `parent` it stays known in tasks, threads, the background and batches, and after the
        handler has finished. It is not kept alive: `causation_id` outlives it. Only a
        `handler_failed` holds its cause, so that its handlers can read the `failures` of that
        emission, with the exceptions, in the background, too.

        Example:
            ```python
            from madcrow_events import Emission, emit_event, on_event


            @on_event("handler_failed")
            def report_failures(emission: Emission) -> None:
                failures = emission.cause.failures if emission.cause else ()
                print([failure.exception for failure in failures])


            @on_event("user_logged_out")
            def close_session() -> None:
                raise LookupError("no session")


            emit_event("user_logged_out", user_id=1, email="ada@example.com")
            ```

            ```text
            [LookupError('no session')]
            ```
        """
        return causing_emission(self)

    @property
    def id(self) -> UUID:
        """The id of this emission: a UUIDv7, made when first asked for.

        Ids grow with time: the id of an emission is above the ids of all that caused it.
        """
        return ids_of(self).id

    @property
    def causation_id(self) -> UUID | None:
        """The id of the `cause`, also when that emission is gone; None if no other caused it."""
        ids_of(self)  # first, so that a cause's id is the older one
        cause = cause_of(self)
        return None if cause is None else cause.id

    @property
    def correlation_id(self) -> UUID:
        """The id of the emission that began the chain of causes; its own if no other caused it."""
        return ids_of(self).root.id

    def as_cause(self) -> AbstractContextManager[None]:
        """Make this emission the cause of all that is emitted in the block.

        For code that works on an emission elsewhere: a batch handler that goes through its
        emissions, or a thread with a queue of its own. The fields of the `event_scope` in which
        the emission was emitted are filled in there, too.
        """
        return _AsCause(self)

    @property
    def state(self) -> EmissionState:
        """How far it has come.

        `"deferred"`: a `deferred` block holds it back. `"dropped"`: that block gave it up, and no
        handler was called. `"running"`: some handlers have not ended. `"done"`: all have.
        """
        values = self._values
        if isinstance(values, HeldBack):
            return values.state
        return "running" if self._running or self.pending else "done"

    @property
    def ok(self) -> bool:
        """Whether no handler has failed."""
        return self._failures is None or not self._failures.items

    @property
    def results(self) -> tuple[HandlerResult, ...]:
        """The values that the handlers returned, in the order in which they were called."""
        return tuple(
            HandlerResult(value.handler, value.value)
            if type(value) is Called
            else HandlerResult(subscription.handler, value)
            for subscription, value in zip(self._plan.subscriptions, self._values, strict=False)
            if value is not NO_RESULT and value is not PENDING
        )

    @property
    def failures(self) -> tuple[HandlerFailure, ...]:
        """The exceptions that the handlers raised, in the order in which they failed."""
        return () if self._failures is None else tuple(self._failures.items)

    @property
    def pending(self) -> int:
        """How many handlers have not finished: after `emit`, those that run later."""
        values = self._values
        missing = len(self._plan.subscriptions) - len(values)
        if type(values) is Outcomes:
            missing += sum(value is PENDING for value in list(values))
        return missing

    def raise_for_failures(self) -> None:
        """Raise what the handlers raised; do nothing if none did.

        Raises:
            Exception: a single handler raised it.
            HandlerErrors: several handlers failed; or one raised `StopIteration`, and the caller
                is a coroutine or a generator, which that exception cannot leave.
            HandlerCancelledError: a single handler raised `CancelledError`.
        """
        event, failures = self.event, self.failures
        del self  # the traceback keeps this frame
        try:
            raise_failures(event, failures)
        finally:
            del failures

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread until nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None without a limit, 0 to ask only.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: a pending handler cannot end before the waiting does.
            InvalidOptionError: the timeout is not a number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        if self._has_ended() or timeout == 0:
            return self._has_ended()
        self._refuse_to_wait_for_itself("wait")
        if self.dispatcher is not None:
            self.dispatcher._admission.check_waiting(self)
        return self._waiters().wait(self._has_ended, timeout)

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Wait in a task until nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None without a limit, 0 to ask only.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: the caller is one of the emission's own handlers, or runs in a
                worker that a queued handler of the emission may need.
            EventLoopError: handlers are pending, and asyncio does not run here.
            InvalidOptionError: the timeout is not a number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        if self._has_ended() or timeout == 0:
            return self._has_ended()
        self._refuse_to_wait_for_itself("wait_async")
        if self.dispatcher is not None:
            self.dispatcher._admission.check_awaiting(self)
        return await self._waiters().wait_async(self._has_ended, timeout)

    def _has_ended(self) -> bool:
        if self.pending and self.dispatcher is not None:
            self.dispatcher._admission.report_lost()
        return not self.pending and self.state != "deferred"

    def _refuse_to_wait_for_itself(self, method: str) -> None:
        ambient = ambient_frame_of(CURRENT.get(None))
        holding = () if ambient is None else (*ambient.holders, *ambient.flushing)
        if any(holder.holds(self) for holder in holding):
            raise WouldDeadlockError(
                f"{method}() waits for {self.event} inside of the deferred() block that holds it "
                "back: wait after the block"
            )
        for frame in frames():
            emission = emission_of(frame)
            if frame._running and emission is not None and emission._values is self._values:
                if isinstance(frame, Branch) and frame.is_anothers():
                    continue
                raise WouldDeadlockError(
                    f"a handler of {self.event} calls {method}() on the emission that it handles, "
                    "which cannot end before the handler does: let the emitter wait"
                )

    def _waiters(self) -> Waiters:
        values = self._values
        if isinstance(values, Outcomes):
            return values.waiters
        # The loop of inline calls notifies nobody of its end, because that would cost time in every
        # emission. Only another thread can wait for it, which is rare.
        return Waiters(look_every=0.001)

    def name_of(self, handler: object) -> str:
        """Return the name of a handler of this emission in logs and metrics; for observers.

        Args:
            handler: the handler, as `Observer.handling` gets it.

        Returns:
            The `id` that it was subscribed with, or else the function's dotted name.
        """
        return self._plan.name_of(handler)

    def __repr__(self) -> str:
        """Name the event and count its outcome; no value of the context is shown."""
        outcome = f"results: {len(self.results)}, failures: {len(self.failures)}"
        if isinstance(self._values, HeldBack):
            outcome = self._values.state
        elif self.pending:
            outcome += f", pending: {self.pending}"
        return f"<Emission {self.event}, {outcome}>"


def as_the_cause(emission: Emission) -> AmbientFrame:
    """Return a new ambient frame in the present context, with that emission as the cause."""
    frame = new_ambient_frame(current())
    ambient = ambient_frame_of(emission)
    frame.fields = NO_FIELDS if ambient is None else ambient.lazy_fields()
    frame.cause = ids_of(emission)
    return frame


class _AsCause(ContextDecorator):
    """A block with an emission as the cause of all that is emitted in it."""

    def __init__(self, emission: Emission) -> None:
        self._emission = emission

    def _recreate_cm(self) -> _AsCause:
        return _AsCause(self._emission)  # one for each call of the decorated function

    def __enter__(self) -> None:
        self._frame = as_the_cause(self._emission)
        enter(self._frame, self)

    def __exit__(self, *exc_info: object) -> None:
        leave(self._frame)


def current_event() -> Emission | None:
    """Return the emission that is being handled, or None outside of any handler."""
    frame = running(CURRENT.get(None))
    return None if frame is None else emission_of(frame)


def raise_failures(event: str, failures: tuple[HandlerFailure, ...]) -> None:
    """Raise the exceptions of failures; do nothing if there are no failures.

    Args:
        event: the name of the event.
        failures: the failures of its handlers.

    Raises:
        Exception: the exception of a single failure.
        HandlerErrors: there are several failures, or the only exception cannot leave the caller.
        HandlerCancelledError: the only exception is a `CancelledError`.
    """
    errors = [_raisable(failure) for failure in failures]
    try:
        if len(errors) == 1:
            if place := _place_it_cannot_leave(errors[0]):
                raise HandlerErrors(
                    f"handler {handler_name(failures[0].handler)} of {event} raised "
                    f"{type_name(type(errors[0]))}, which cannot leave {place}, and so comes in "
                    "this group",
                    errors,
                    event=event,
                )
            raise errors[0]
        if errors:
            raise HandlerErrors(f"{len(errors)} handlers of {event} failed", errors, event=event)
    finally:
        del errors, failures  # the traceback keeps this frame


def _place_it_cannot_leave(error: Exception) -> str:
    """Return which kind of calling function would replace an exception; empty if none would."""
    if not isinstance(error, (StopIteration, StopAsyncIteration)):
        return ""
    frame = sys._getframe(1)
    while True:
        flags = frame.f_code.co_flags
        if flags & CO_ASYNC_GENERATOR:
            return "an async generator"
        if isinstance(error, StopIteration) and flags & (CO_COROUTINE | CO_GENERATOR):
            return "a coroutine" if flags & CO_COROUTINE else "a generator"
        if not is_inside(frame) or frame.f_back is None:
            return ""
        frame = frame.f_back


def _raisable(failure: HandlerFailure) -> Exception:
    error = failure.exception
    if isinstance(error, Exception):
        return error
    kind = type_name(type(error))
    meaning = (
        "and nobody had cancelled its caller"
        if kind == "CancelledError"
        else "which has ended that handler and nothing else"
    )
    replacement = HandlerCancelledError(f"{handler_name(failure.handler)} raised {kind}, {meaning}")
    replacement.__cause__ = error
    return replacement
