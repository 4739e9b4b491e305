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
    leave,
    new_ambient_frame,
    running,
    waiting_frames,
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
"""How far an emission has come. `Emission.state` describes each state."""

# As in `inspect`, which takes long to import.
CO_GENERATOR = 0x20
CO_COROUTINE = 0x80
CO_ASYNC_GENERATOR = 0x200

PayloadT_co = TypeVar("PayloadT_co", covariant=True, default=Any)


class HandlerResult(NamedTuple):
    """The value that a handler returned.

    Attributes:
        handler: the handler.
        value: what it returned. The `repr` of the result shows only the type of the value.
    """

    handler: Any
    value: Any

    def __repr__(self) -> str:
        """Name the handler and the type of the value, never the value."""
        return f"<HandlerResult {handler_name(self.handler)}: {type_name(type(self.value))}>"


class Emission(Unique, Generic[PayloadT_co]):
    """One act of emitting an event, and what came of it.

    Dispatchers and signals make it. Emitters get it back, and handlers can take it. In annotations,
    `Emission[OrderPlaced]` is an emission whose context is an `OrderPlaced`.

    Attributes:
        signal: the signal that was emitted.
        sender: the sender that the emitter named, or else the signal itself.
        dispatcher: the dispatcher that emitted the event; None if `signal.send` did.
        depth: in how many unfinished emissions this one is nested; 0 if in none.

    Example:
        ```python
        from madcrow_events import BaseEventContext, emit_event, madcrow_signals, on_event


        @madcrow_signals.event
        class OrderPlaced(BaseEventContext):
            order_id: int


        @on_event(OrderPlaced)
        def send_invoice(context: OrderPlaced) -> str:
            return f"invoice for order {context.order_id}"


        emission = emit_event(OrderPlaced(order_id=7))
        print(emission.ok, emission.results[0].value)
        ```

        ```text
        True invoice for order 7
        ```
    """

    __slots__ = (
        "__weakref__",
        "_ambient",
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
    _ambient: AmbientFrame | None  # the innermost ambient frame around it; see `ambient_frame_of`
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
        """The context that was emitted: the model, or the keywords as a read-only mapping."""
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
        """The emission in which this one is nested, or None.

        It is the emission whose handler emitted this one, unless that handler runs later.
        `causation_id` names that emission in both cases.
        """
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
        """The id of this emission, a UUID of version 7. It is made when it is first read.

        The id of an emission is greater than the ids of all emissions that caused it.
        """
        return ids_of(self).id

    @property
    def causation_id(self) -> UUID | None:
        """The id of the `cause`, also when that emission is gone; None if no other caused it.

        Unlike `parent`, it stays known after the handler that emitted this one has ended. It is
        also known in tasks, threads, background handlers and batches.
        """
        ids_of(self)  # first, so that a cause's id is the older one
        cause = cause_of(self)
        return None if cause is None else cause.id

    @property
    def correlation_id(self) -> UUID:
        """The id of the first emission in the chain of causes; its own id if nothing caused it."""
        return ids_of(self).root.id

    @property
    def attempt(self) -> int:
        """Which call of the handler this is, if a delivery says so; else 1."""
        return self._outer.attempt if isinstance(self._outer, AmbientFrame) else 1

    @property
    def origin(self) -> Mapping[str, str] | None:
        """What another service has said of the event it sent; None if the event is from here.

        The attributes of a CloudEvent, such as `source`, `id`, `time`, `correlationid` and
        `sender`. None of them is used for anything: `id`, `sender` and `correlation_id` of the
        emission are this service's own.
        """
        return self._outer.origin if isinstance(self._outer, AmbientFrame) else None

    def as_cause(self) -> AbstractContextManager[None]:
        """Return a `with` block whose events have this emission as their cause.

        Use it where your code handles an emission elsewhere: in a batch handler, for each of its
        emissions, or in a thread with a queue of its own. The fields of the `event_scope` of this
        emission are filled in there, too.

        Returns:
            The block.
        """
        return _AsCause(self)

    @property
    def state(self) -> EmissionState:
        """How far the emission has come.

        - `"deferred"`: a `deferred` block holds it back.
        - `"dropped"`: the block has dropped it. No handler is ever called.
        - `"running"`: some handlers have not ended.
        - `"done"`: all handlers have ended, or there is none.
        """
        values = self._values
        if isinstance(values, HeldBack):
            return values.state
        return "running" if self._running or self.pending else "done"

    @property
    def ok(self) -> bool:
        """Whether no handler has failed so far."""
        return self._failures is None or not self._failures.items

    @property
    def results(self) -> tuple[HandlerResult, ...]:
        """The values that handlers have returned so far, in the order of the calls."""
        return tuple(
            HandlerResult(value.handler, value.value)
            if type(value) is Called
            else HandlerResult(subscription.handler, value)
            for subscription, value in zip(self._plan.subscriptions, self._values, strict=False)
            if value is not NO_RESULT and value is not PENDING
        )

    @property
    def failures(self) -> tuple[HandlerFailure, ...]:
        """The exceptions with which handlers have failed so far, in the order of the failures."""
        return () if self._failures is None else tuple(self._failures.items)

    @property
    def pending(self) -> int:
        """How many handlers have not ended. After `emit`, these are the handlers that run later."""
        values = self._values
        missing = len(self._plan.subscriptions) - len(values)
        if type(values) is Outcomes:
            missing += sum(value is PENDING for value in list(values))
        return missing

    def raise_for_failures(self) -> None:
        """Raise the exceptions of the handlers that have failed so far, if there are any.

        Raises:
            Exception: the exception of the only handler that failed.
            HandlerErrors: several handlers failed. Or the only exception is a `StopIteration` or a
                `StopAsyncIteration`, which Python does not let out of the calling coroutine or
                generator.
            HandlerCancelledError: the exception of the only handler that failed is no `Exception`,
                such as a `CancelledError`.
        """
        event, failures = self.event, self.failures
        del self  # the traceback keeps this frame
        try:
            raise_failures(event, failures)
        finally:
            del failures

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread until no handler is pending.

        If a `deferred` block holds the emission back, this waits for the end of the block, too.

        Args:
            timeout: how many seconds to wait at most; None, the default, waits without a limit, and
                0 only asks.

        Returns:
            Whether nothing is pending any more.

        Raises:
            WouldDeadlockError: the wait would never end, because a pending handler needs the caller
                to go on.
            InvalidOptionError: the timeout is neither None nor a number of seconds, 0 or more.

        Example:
            ```python
            from madcrow_events import get_event_dispatcher, madcrow_signals

            order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")


            @order_placed.on(background=True)
            def send_invoice() -> str:
                return "invoice sent"


            emission = get_event_dispatcher().emit(order_placed)
            print(emission.wait(timeout=10), emission.results[0].value)
            ```

            ```text
            True invoice sent
            ```
        """
        check_seconds("timeout", timeout, allow_zero=True)
        if self._has_ended() or timeout == 0:
            return self._has_ended()
        self._refuse_to_wait_for_itself("wait")
        if self.dispatcher is not None:
            self.dispatcher._admission.check_waiting(self)
        return self._waiters().wait(self._has_ended, timeout)

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Wait in a task until no handler is pending, while the event loop goes on.

        If a `deferred` block holds the emission back, this waits for the end of the block, too.

        Args:
            timeout: how many seconds to wait at most; None, the default, waits without a limit, and
                0 only asks.

        Returns:
            Whether nothing is pending any more.

        Raises:
            WouldDeadlockError: the wait would never end, because a pending handler needs the caller
                to go on.
            EventLoopError: a handler is pending, and asyncio does not run here.
            InvalidOptionError: the timeout is neither None nor a number of seconds, 0 or more.
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
        around = [*waiting_frames()]
        ambient = {it for it in map(ambient_frame_of, around) if it is not None}
        if any(holder.holds(self) for it in ambient for holder in (*it.holders, *it.flushing)):
            raise WouldDeadlockError(
                f"{method}() waits for {self.event} inside of the deferred() block that holds it "
                "back: wait after the block"
            )
        for frame in around:
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
        """Return the name of a handler in logs and metrics. Observers call this.

        Args:
            handler: a handler of this emission, as `Observer.handling` gets it.

        Returns:
            The `id` with which the handler was subscribed, or else the function's dotted name.
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
    """Return the emission that is being handled, or None outside of handlers.

    Example:
        ```python
        from madcrow_events import current_event, get_event_dispatcher, madcrow_signals


        def write_line(text: str) -> None:
            emission = current_event()
            print(emission.event if emission else "no event", "-", text)


        order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")
        order_placed.subscribe(lambda: write_line("invoice sent"))
        get_event_dispatcher().emit(order_placed)
        write_line("the program ends")
        ```

        ```text
        order_placed - invoice sent
        no event - the program ends
        ```
    """
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
