"""One act of emitting and what came of it.

An `Emission` is returned to the emitter and offered to handlers. Its cost is
paid on every call, so it holds only what the call loop has at hand; results
and failures become objects when somebody asks for them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, ContextDecorator
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, cast
from uuid import UUID

from typing_extensions import TypeVar

from madcrow_events._copies import Unique
from madcrow_events._text import handler_name, names_apart, type_name
from madcrow_events._validation import validate_keywords
from madcrow_events._waiters import Waiters, check_seconds
from madcrow_events.emissions._causes import cause_of, trace_of
from madcrow_events.emissions._failures import Failures, HandlerFailure, failures_of
from madcrow_events.emissions._frames import (
    CURRENT,
    NO_FIELDS,
    Branch,
    Frame,
    Surroundings,
    current,
    emission_of,
    enclosing,
    enter,
    frames,
    leave,
    running,
    surround,
    surroundings_of,
)
from madcrow_events.emissions._ids import Trace
from madcrow_events.emissions._lingering import is_inside, let_go
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, Called, HeldBack, Outcomes
from madcrow_events.exceptions import (
    ContextTypeError,
    ContextValidationError,
    HandlerCancelledError,
    HandlerErrors,
    WouldDeadlockError,
)
from madcrow_events.models import (
    BaseEventContext,
    GenericEventContext,
    filled_for,
    is_parametrised_as,
)

if TYPE_CHECKING:
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.signals import EventSignal
    from madcrow_events.subscriptions._plan import Plan

__all__ = [
    "Emission",
    "EmissionState",
    "HandlerResult",
    "current_event",
]

EmissionState: TypeAlias = Literal["deferred", "dropped", "running", "done"]
"""How far an emission has come; see `Emission.state`."""

# Of `inspect`, which takes long to import.
CO_GENERATOR = 0x20
CO_COROUTINE = 0x80
CO_ASYNC_GENERATOR = 0x200

PayloadT_co = TypeVar("PayloadT_co", covariant=True, default=Any)


class HandlerResult(NamedTuple):
    """What a handler returned."""

    handler: Any
    value: Any

    def __repr__(self) -> str:
        """Name the handler and the type of the value, never the value."""
        return f"<HandlerResult {handler_name(self.handler)}: {type_name(type(self.value))}>"


class Emission(Unique, Generic[PayloadT_co]):
    """One act of emitting an event, and its outcome.

    Made by a dispatcher or a signal, never by hand. `Emission[C]` is one whose
    context is a `C`; that of a loose emission is a read-only mapping.

    Attributes:
        signal: the signal that was emitted.
        sender: who emitted it; the signal itself unless the emitter named one.
        dispatcher: the dispatcher it went through; None for `signal.send`.
        depth: how many unfinished emissions it is nested in.
    """

    __slots__ = (
        "_failures",
        "_outer",
        "_payload",
        "_plan",
        "_running",
        "_trace",
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
    _values: Any  # a list, Outcomes, or an empty tuple where there is nobody to call
    _failures: Failures | None
    _running: bool
    _trace: Trace  # made by `trace_of`
    _validated: dict[type[BaseEventContext], BaseEventContext | ContextValidationError]

    @property
    def event(self) -> str:
        """The name of the event."""
        return self.signal.name

    @property
    def context(self) -> PayloadT_co:
        """The context model that was emitted; of a loose emission its keywords, read-only."""
        payload: Any = self._payload
        context: Any = MappingProxyType(payload) if type(payload) is dict else payload
        return cast("PayloadT_co", context)

    @property
    def parent(self) -> Emission[Any] | None:
        """The emission whose handler emitted this one, or None."""
        outer = enclosing(self)
        if not isinstance(outer, Branch):
            return outer
        return None if outer.detached else outer.emission

    @property
    def id(self) -> UUID:
        """What tells it from all others: a UUIDv7, made when first asked for.

        Ids grow with time, and an emission's is above that of each that caused it.
        """
        return trace_of(self).id

    @property
    def causation_id(self) -> UUID | None:
        """The id of the emission whose handler emitted this one, finished or not; None if none did.

        Unlike `parent` it holds through tasks, threads, the background and batches.
        """
        trace_of(self)  # first, so that a cause's id is the older one
        cause = cause_of(self)
        return None if cause is None else cause.id

    @property
    def correlation_id(self) -> UUID:
        """The id of the emission that began the chain of causes; its own if nothing caused it."""
        return trace_of(self).root.id

    def as_cause(self) -> AbstractContextManager[None]:
        """Let what is emitted in the block count as caused by this emission.

        For code that works on an emission elsewhere: a batch handler that goes through its
        emissions, or a thread with a queue of its own. What was filled in by the emission's
        `event_scope` is filled in there, too.
        """
        return _AsCause(self)

    def _causing(self) -> Surroundings:
        """Return surroundings in the present context whose cause is this emission."""
        surroundings = surround(current())
        around = surroundings_of(self)
        surroundings._fields = NO_FIELDS if around is None else around._inherited_fields()
        surroundings._cause = trace_of(self)
        return surroundings

    @property
    def state(self) -> EmissionState:
        """How far it has come.

        `"deferred"`: a `deferred` block holds it back. `"dropped"`: that block gave it up, and
        nobody was called. `"running"`: not all of its handlers have ended. `"done"`: they have.
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
        """What the handlers returned, in the order in which they were called."""
        return tuple(
            HandlerResult(value.handler, value.value)
            if type(value) is Called
            else HandlerResult(subscription.handler, value)
            for subscription, value in zip(self._plan.subscriptions, self._values, strict=False)
            if value is not NO_RESULT and value is not PENDING
        )

    @property
    def failures(self) -> tuple[HandlerFailure, ...]:
        """What the handlers raised, in the order in which they failed."""
        return () if self._failures is None else tuple(self._failures.items)

    @property
    def pending(self) -> int:
        """How many handlers have not finished; after `emit`, those that run later."""
        values = self._values
        missing = len(self._plan.subscriptions) - len(values)
        if type(values) is Outcomes:
            missing += sum(value is PENDING for value in list(values))
        return missing

    def raise_for_failures(self) -> None:
        """Raise what the handlers raised; do nothing if none did.

        Raises:
            Exception: the one that a single handler raised, as it is.
            HandlerErrors: several handlers failed; or one, by a `StopIteration`, and the caller
                is a coroutine or a generator, which that cannot leave.
            HandlerCancelledError: in place of a `CancelledError` of a handler.
        """
        event, failures = self.event, self.failures
        del self  # for this frame is part of the traceback
        try:
            raise_failures(event, failures)
        finally:
            del failures

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread until nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes,
                0 only asks.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: what is pending cannot end before the waiting does.
            InvalidOptionError: the timeout is no number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        if self._has_ended() or timeout == 0:
            return self._has_ended()
        self._refuse_to_wait_for_itself("wait")
        if self.dispatcher is not None:
            self.dispatcher._admission.check_waiting(self)
        return self._waiters().wait(self._has_ended, timeout)

    async def done(self) -> None:
        """Wait in a task until nothing is pending.

        Raises:
            WouldDeadlockError: one of the emission's own handlers awaits it, or a worker
                what may be queued behind it.
        """
        if not self._has_ended():
            self._refuse_to_wait_for_itself("done")
            if self.dispatcher is not None:
                self.dispatcher._admission.check_awaiting(self)
            await self._waiters().wait_async(self._has_ended, None)

    def _has_ended(self) -> bool:
        if self.pending and self.dispatcher is not None:
            self.dispatcher._admission.report_lost()
        return not self.pending and self.state != "deferred"

    def _refuse_to_wait_for_itself(self, method: str) -> None:
        around = surroundings_of(CURRENT.get(None))
        holding = () if around is None else (*around._deferrals, *around._flushing)
        if any(deferral._holds(self) for deferral in holding):
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

    def _let_go(self, failures: Iterable[HandlerFailure]) -> None:
        """Break the circle of this emission, its failures, and what their tracebacks name."""
        is_raised = self.dispatcher is None or self.dispatcher.on_error == "raise"
        let_go((it.exception for it in failures), Emission, keep_variables=is_raised)

    def _own_failures(self) -> tuple[HandlerFailure, ...]:
        """Return the failures of handlers that the emitter called or awaited."""
        failures = failures_of(self)
        items = tuple(failures.items)  # first, for what is detached was noted there before
        return tuple(
            item for item in items if all(item is not other for other in failures.detached)
        )

    def _waiters(self) -> Waiters:
        values = self._values
        if isinstance(values, Outcomes):
            return values.waiters
        # The loop of inline calls tells nobody that it has ended, for that would cost every
        # emission; only another thread can wait for it, and seldom will.
        return Waiters(look_every=0.001)

    def _abandon(self, error: BaseException | None = None) -> None:
        """Count the handlers that have not begun as never to be called; doing so again is no error.

        Args:
            error: what goes through to the emitter, and is told to the observers.
        """
        values = getattr(self, "_values", None)
        if isinstance(values, HeldBack):
            values.drop()
        elif isinstance(values, list):
            values.extend([NO_RESULT] * (len(self._plan.subscriptions) - len(values)))
        if type(values) is Outcomes and self.dispatcher is not None:
            self.dispatcher._admission.abandon(self)
            values.tell()
        failures = getattr(self, "_failures", None)
        if failures is not None:
            if failures.watch is not None:
                failures.watch.leave(error)
            self._let_go(failures.items)
        if error is not None:
            let_go((error,), Emission)

    def name_of(self, handler: Any) -> str:
        """Return how logs and metrics name a handler of this emission; for observers.

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

    def _keywords(self) -> dict[str, Any]:
        """Return the context as keywords; for reading and unpacking, not for changing."""
        payload = self._payload
        keywords: dict[str, Any] = payload if type(payload) is dict else payload._keywords()
        return keywords

    def _context_as(self, models: tuple[type[BaseEventContext], ...]) -> BaseEventContext:
        """Return the context as an instance of one of `models`.

        A loose or generic context is validated once per model, however many
        handlers ask for it (H, C3).

        Raises:
            ContextTypeError: the emission is typed, and by another model.
            ContextValidationError: the keywords do not fit.
        """
        payload = self._payload
        if isinstance(payload, models):
            return payload
        if type(payload) is dict or isinstance(payload, GenericEventContext):
            return self._validated_as(models)
        if self.signal._replaces(models) or is_parametrised_as(type(payload), models):
            context: BaseEventContext = payload
            return context
        *expected, carried = names_apart(*models, type(payload))
        raise ContextTypeError(
            f"a handler of {self.event} takes {' or '.join(expected)}, and the emission carries "
            f"{carried}: emit the former, or annotate the handler with the latter",
            event=self.event,
            expected=models,
            received=type(payload),
        )

    def _validated_as(self, models: tuple[type[BaseEventContext], ...]) -> BaseEventContext:
        """Return the payload as the signal's own model, or as the first of `models` that fits."""
        own = self.signal.context_model
        if own is not None and (issubclass(own, models) or self.signal._replaces(models)):
            models = (own,)
        elif BaseEventContext in models:
            models = (GenericEventContext,)
        for model in models[:-1]:
            try:
                return self._validate(model)
            except ContextValidationError:
                continue
        return self._validate(models[-1])

    def _validate(self, model: type[BaseEventContext]) -> BaseEventContext:
        try:
            known = self._validated
        except AttributeError:
            known = self._validated = {}
        outcome = known.get(model)
        if outcome is None:
            payload = self._payload
            is_loose = type(payload) is dict
            outcome = self._outcome(model, payload if is_loose else payload._payload(model))
            if (
                isinstance(outcome, Exception)
                and is_loose
                and model is not self.signal.context_model
            ):
                # An `event_scope` may have filled in what this model does not take, or not by name.
                around = surroundings_of(self)
                if around is not None:
                    values = filled_for(model, payload, around._known_fields())
                    outcome = self._outcome(model, values)
            known[model] = outcome
        if isinstance(outcome, ContextValidationError):
            raise outcome.with_traceback(None)
        return outcome

    def _outcome(
        self, model: type[BaseEventContext], values: dict[str, Any]
    ) -> BaseEventContext | ContextValidationError:
        try:
            return validate_keywords(self.event, model, values)
        except ContextValidationError as error:
            return error

    def _for_handler_of(self, models: tuple[type[BaseEventContext], ...]) -> Emission[Any]:
        """Return this emission with its context as a model, for `h(emission: Emission[Model])`.

        A typed emission is that already. A loose one gets a twin that shares
        everything else, so that the annotation is true in both cases.
        """
        context = self._context_as(models)
        if context is self._payload:
            return self
        failures_of(self)
        trace_of(self)
        twin: Emission[Any] = Emission()
        for name in Emission.__slots__:
            if name != "_validated":
                setattr(twin, name, getattr(self, name))
        twin._payload = context
        twin._running = False
        return twin


class _AsCause(ContextDecorator):
    """A block in which an emission is the cause of what is emitted."""

    def __init__(self, emission: Emission[Any]) -> None:
        self._emission = emission

    def _recreate_cm(self) -> _AsCause:
        return _AsCause(self._emission)  # for each call of a function that it decorates

    def __enter__(self) -> None:
        self._frame = self._emission._causing()
        enter(self._frame, self)

    def __exit__(self, *exc_info: object) -> None:
        leave(self._frame)


def current_event() -> Emission[Any] | None:
    """Return the emission that is being handled, or None outside of any handler."""
    frame = running(CURRENT.get(None))
    return None if frame is None else emission_of(frame)


def raise_failures(event: str, failures: tuple[HandlerFailure, ...]) -> None:
    """Raise what handlers raised; do nothing if there is none.

    Args:
        event: the name of the event.
        failures: what they raised.

    Raises:
        Exception: the one of a single failure, as it is.
        HandlerErrors: there are several, or the one cannot be raised to the caller.
        HandlerCancelledError: in place of a `CancelledError` of a handler.
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
        del errors, failures  # for this frame is part of the traceback


def _place_it_cannot_leave(error: Exception) -> str:
    """Return what would replace an exception that passes through it; empty if nothing does."""
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
