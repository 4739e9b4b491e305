"""One act of emitting and what came of it.

An `Emission` is returned to the emitter and offered to handlers. Its cost is
paid on every call, so it holds only what the call loop has at hand; results
and failures become objects when somebody asks for them. It is longer than other
files because an emission answers for itself: each question has its docstring. The scopes
that fill in fields of its context, which share its frames, stand at its end.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypedDict, cast

from typing_extensions import ParamSpec, TypeVar, Unpack

from madcrow_events.emissions._failures import Failures, failures_of
from madcrow_events.emissions._frames import (
    CURRENT,
    NO_FIELDS,
    NO_RESULT,
    PENDING,
    Branch,
    Called,
    HeldBack,
    Outcomes,
    cause_of,
    emission_of,
    enclosing,
    enter,
    frames,
    leave,
    running,
    surround,
    surroundings_of,
    trace_of,
    within,
)
from madcrow_events._logs import handler_name, printable, type_name
from madcrow_events._validation import validate_keywords
from madcrow_events._waiting import Listeners, check_seconds
from madcrow_events.exceptions import (
    ContextTypeError,
    ContextValidationError,
    HandlerCancelledError,
    HandlerErrors,
    InvalidOptionError,
    WouldDeadlockError,
)
from madcrow_events.models import SCOPE_FIELDS, BaseEventContext, GenericEventContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from uuid import UUID

    from madcrow_events.emissions._frames import Entered, Frame
    from madcrow_events.subscriptions._table import Plan
    from madcrow_events.emissions._ids import Trace
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.signals import EventSignal

__all__ = [
    "Emission",
    "EmissionState",
    "HandlerFailure",
    "HandlerResult",
    "ScopeFields",
    "current_event",
    "event_scope",
    "request_fields",
]

EmissionState: TypeAlias = Literal["deferred", "dropped", "running", "done"]
"""How far an emission has come; see `Emission.state`."""

PayloadT_co = TypeVar("PayloadT_co", covariant=True, default=Any)
ParametersP = ParamSpec("ParametersP")
ReturnedT = TypeVar("ReturnedT")


class HandlerResult(NamedTuple):
    """What a handler returned."""

    handler: Any
    value: Any

    def __repr__(self) -> str:
        """Name the handler and the type of the value, never the value (G1)."""
        return f"<HandlerResult {handler_name(self.handler)}: {type_name(type(self.value))}>"


class HandlerFailure(NamedTuple):
    """What a handler raised."""

    handler: Any
    exception: BaseException

    def __repr__(self) -> str:
        """Name the handler and the type of the exception, never its text (G1)."""
        return f"<HandlerFailure {handler_name(self.handler)}: {type_name(type(self.exception))}>"


class Emission(Generic[PayloadT_co]):
    """One act of emitting an event, and its outcome (E2).

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
        """What tells it from all others: a UUIDv7, made when first asked for (B5).

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

    @contextmanager
    def as_cause(self) -> Iterator[None]:
        """Let what is emitted in the block count as caused by this emission.

        For code that works on an emission elsewhere: a batch handler that goes through its
        emissions, or a thread with a queue of its own. What was filled in by the emission's
        `event_scope` is filled in there, too.
        """
        surroundings = surround(CURRENT.get(None))
        around = surroundings_of(self)
        surroundings._fields = NO_FIELDS if around is None else around._inherited_fields()
        surroundings._cause = trace_of(self)
        with within(surroundings):
            yield

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
        """How many handlers have not finished; after `emit`, those that run later (A2, B1)."""
        values = self._values
        missing = len(self._plan.subscriptions) - len(values)
        if type(values) is Outcomes:
            missing += sum(value is PENDING for value in list(values))
        return missing

    def raise_for_failures(self) -> None:
        """Raise what the handlers raised; do nothing if none did.

        Raises:
            Exception: the one that a single handler raised, as it is.
            HandlerErrors: several handlers failed.
            HandlerCancelledError: in place of a `CancelledError` of a handler (F3).
        """
        raise_failures(self.event, self.failures)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread until nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes,
                0 only asks.

        Returns:
            Whether nothing is pending.

        Raises:
            WouldDeadlockError: what is pending cannot end before the waiting does (A3).
            InvalidOptionError: the timeout is no number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        if self._has_ended() or timeout == 0:
            return self._has_ended()
        self._refuse_to_wait_for_itself("wait")
        if self.dispatcher is not None:
            self.dispatcher._workers.check_waiting(self)
        return self._listeners().wait(self._has_ended, timeout)

    async def done(self) -> None:
        """Wait in a task until nothing is pending.

        Raises:
            WouldDeadlockError: one of the emission's own handlers awaits it, or a worker
                what may be queued behind it (A3).
        """
        if not self._has_ended():
            self._refuse_to_wait_for_itself("done")
            if self.dispatcher is not None:
                self.dispatcher._workers.check_awaiting(self)
            await self._listeners().wait_async(self._has_ended, None)

    def _has_ended(self) -> bool:
        if self.pending and self.dispatcher is not None:
            self.dispatcher._workers.report_lost()
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

    def _own_failures(self) -> tuple[HandlerFailure, ...]:
        """Return the failures of handlers that the emitter called or awaited."""
        failures = failures_of(self)
        items = tuple(failures.items)  # first, for what is detached was noted there before
        return tuple(
            item for item in items if all(item is not other for other in failures.detached)
        )

    def _listeners(self) -> Listeners:
        values = self._values
        if isinstance(values, Outcomes):
            return values.listeners
        # The loop of inline calls tells nobody that it has ended, for that would cost every
        # emission; only another thread can wait for it, and seldom will.
        return Listeners(look_every=0.001)

    def _abandon(self) -> None:
        """Count the handlers that have not been called as never to be called."""
        values = self._values
        values.extend([NO_RESULT] * (len(self._plan.subscriptions) - len(values)))
        if type(values) is Outcomes:
            if values.places and self.dispatcher is not None:
                self.dispatcher._workers.give_back(values)
            values.tell()

    def __repr__(self) -> str:
        """Name the event and count its outcome; no value of the context is shown (G1)."""
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
        if isinstance(payload, GenericEventContext):
            return self._validated_as(models, payload._payload())
        if type(payload) is dict:
            return self._validated_as(models, payload)
        expected = " or ".join(type_name(model) for model in models)
        raise ContextTypeError(
            f"a handler of {self.event} takes {expected}, and the emission carries "
            f"{type_name(type(payload))}: emit the former, or annotate the handler with the latter",
            event=self.event,
            expected=models,
            received=type(payload),
        )

    def _validated_as(
        self, models: tuple[type[BaseEventContext], ...], values: dict[str, Any]
    ) -> BaseEventContext:
        """Return the values as the signal's own model, or as the first of `models` that fits."""
        own = self.signal.context_model
        if own is not None and issubclass(own, models):
            models = (own,)
        elif BaseEventContext in models:
            models = (GenericEventContext,)
        for model in models[:-1]:
            try:
                return self._validate(model, values)
            except ContextValidationError:
                continue
        return self._validate(models[-1], values)

    def _validate(self, model: type[BaseEventContext], values: dict[str, Any]) -> BaseEventContext:
        try:
            known = self._validated
        except AttributeError:
            known = self._validated = {}
        outcome = known.get(model)
        if outcome is None:
            try:
                outcome = validate_keywords(self.event, model, values)
            except ContextValidationError as error:
                outcome = error
            known[model] = outcome
        if isinstance(outcome, ContextValidationError):
            raise outcome.with_traceback(None)
        return outcome

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


def current_event() -> Emission[Any] | None:
    """Return the emission that is being handled, or None outside of any handler."""
    frame = running(CURRENT.get(None))
    return None if frame is None else emission_of(frame)


class ScopeFields(TypedDict, total=False):
    """What `event_scope` can fill in.

    Attributes:
        request_id: the request that causes the events.
        user_agent: the client's own description of itself.
        ip_address: the client's address.
    """

    request_id: str | None
    user_agent: str | None
    ip_address: str | None


LONGEST_USER_AGENT = 256
"""How many characters `request_fields` keeps of a user agent."""

_is_request_id = re.compile(r"[A-Za-z0-9._-]{1,128}").fullmatch


def request_fields(
    *, request_id: str | None = None, ip_address: str | None = None, user_agent: str | None = None
) -> ScopeFields:
    """Return the fields of a scope for a request, whose headers may say anything.

    For whoever connects a web framework: `dispatcher.deferred(lambda: request_fields(...))`.

    Args:
        request_id: the id that the request claims to have. It is taken if it is made of 1 to 128
            letters, digits, `.`, `_` and `-`; if not, or without one, the request gets a new one.
        ip_address: where the request comes from, if that is known.
        user_agent: what the client says of itself; 256 characters of it are kept.
    """
    if request_id is None or not _is_request_id(request_id):
        request_id = os.urandom(16).hex()
    return {
        "request_id": request_id,
        "ip_address": ip_address or None,
        "user_agent": user_agent[:LONGEST_USER_AGENT] if user_agent else None,
    }


class event_scope:  # noqa: N801  # used like a function, as contextlib's own are
    """Fill in fields of the contexts that are emitted in the block, where their emitter did not.

    It holds for typed and loose emissions, for what their handlers emit in their turn, and for
    tasks and threads that are started with a copy of the context variables. Inside of another
    block it adds to the fields of that one, or overrides them; None takes one back. A field that
    the event's model declares anew, as something else than text, is not filled in.

    Args:
        **fields: see `ScopeFields`.

    Raises:
        InvalidOptionError: a name is none of these, or a value is neither text nor None.
    """

    # A class and no generator, for a server enters one for each of its requests.

    __slots__ = ("_entered", "_fields")

    def __init__(self, **fields: Unpack[ScopeFields]) -> None:
        merge_scopes({}, fields)  # which refuses what does not fit
        self._fields = fields
        self._entered: Entered | None = None

    def __enter__(self) -> None:
        """Fill the fields in from now on.

        Raises:
            RuntimeError: it has been entered before.
        """
        if self._entered is not None:
            raise RuntimeError("an event_scope is good for one block: call event_scope() again")
        surroundings = surround(CURRENT.get(None))
        surroundings._fields = merge_scopes(surroundings._known_fields(), self._fields)
        self._entered = enter(surroundings)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Fill them in no longer."""
        assert self._entered is not None  # noqa: S101  # it has been entered
        leave(self._entered)

    def __call__(
        self, function: Callable[ParametersP, ReturnedT]
    ) -> Callable[ParametersP, ReturnedT]:
        """Decorate a plain function: each of its calls runs in a block of its own."""

        @wraps(function)
        def scoped(*arguments: ParametersP.args, **keywords: ParametersP.kwargs) -> ReturnedT:
            with event_scope(**self._fields):
                return function(*arguments, **keywords)

        return scoped


def merge_scopes(around: Mapping[str, str], fields: ScopeFields) -> Mapping[str, str]:
    """Return the fields of a scope together with those of the scope around it.

    Args:
        around: those of the scope around it.
        fields: those of the scope, checked here.

    Raises:
        InvalidOptionError: a name is none of `SCOPE_FIELDS`, or a value is neither text nor None.
    """
    merged: dict[str, Any] = dict(around)
    given: object = fields
    if not isinstance(given, dict):
        raise InvalidOptionError(
            f"scope must return a dictionary of fields, not {type_name(type(given))}",
            option="scope",
        )
    for name, value in fields.items():
        if name not in SCOPE_FIELDS:
            near = get_close_matches(name, SCOPE_FIELDS, 1)
            fix = f"did you mean '{near[0]}'?" if near else f"it takes {', '.join(SCOPE_FIELDS)}"
            raise InvalidOptionError(
                f"event_scope fills in no field called '{printable(name)}': {fix}", option=name
            )
        if isinstance(value, str):
            merged[name] = value
        elif value is None:
            merged.pop(name, None)
        else:
            raise InvalidOptionError(
                f"{name} must be text or None, not {type_name(type(value))}: write str(...)",
                option=name,
            )
    return merged


def raise_failures(event: str, failures: tuple[HandlerFailure, ...]) -> None:
    """Raise what handlers raised; do nothing if there is none.

    Raises:
        Exception: the one of a single failure, as it is.
        HandlerErrors: there are several.
        HandlerCancelledError: in place of a `CancelledError` of a handler (F3).
    """
    errors = [_raisable(failure) for failure in failures]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise HandlerErrors(f"{len(errors)} handlers of {event} failed", errors, event=event)


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
