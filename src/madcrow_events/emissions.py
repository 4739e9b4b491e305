"""One act of emitting and what came of it.

An `Emission` is returned to the emitter and offered to handlers. Its cost is
paid on every call, so it holds only what the call loop has at hand; results
and failures become objects when somebody asks for them.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, cast

from pydantic import ValidationError
from typing_extensions import TypeVar

from madcrow_events._logs import handler_name, printable, type_name
from madcrow_events.exceptions import (
    ContextTypeError,
    ContextValidationError,
    HandlerCancelledError,
    HandlerErrors,
)
from madcrow_events.models import BaseEventContext, GenericEventContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events._tables import Plan
    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.signals import EventSignal

__all__ = ["Emission", "HandlerFailure", "HandlerResult", "current_event"]

PayloadT_co = TypeVar("PayloadT_co", covariant=True, default=Any)

CURRENT: ContextVar[Emission[Any]] = ContextVar("madcrow_events.current")
"""The innermost emission of this context; left empty outside of any."""

NO_RESULT: Any = object()
"""Stands in an emission's values for a handler that was not called, or failed."""


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


class Called(NamedTuple):
    """A value together with the weakly held handler that returned it."""

    handler: Any
    value: Any


class Failures:
    """What went wrong in one emission; made when first needed.

    `broken_at` is how many handlers of an outermost emission had finished when
    the chain under the next one turned out to be too deep (F5), or -1.
    """

    __slots__ = ("broken_at", "items")

    def __init__(self) -> None:
        self.items: list[HandlerFailure] = []
        self.broken_at: int = -1


class Emission(Generic[PayloadT_co]):
    """One act of emitting an event, and its outcome (E2).

    Made by a dispatcher or a signal, never by hand. `Emission[C]` is one whose
    context is a `C`; that of a loose emission is a read-only mapping.

    Attributes:
        signal: the signal that was emitted.
        sender: who emitted it; the signal itself unless the emitter named one.
        dispatcher: the dispatcher it went through; None for `signal.send`.
        parent: the emission whose handler emitted this one, or None.
        depth: how many unfinished emissions it is nested in.
    """

    __slots__ = (
        "_failures",
        "_payload",
        "_plan",
        "_running",
        "_validated",
        "_values",
        "depth",
        "dispatcher",
        "parent",
        "sender",
        "signal",
    )

    signal: EventSignal[Any]
    sender: Any
    dispatcher: EventDispatcher | None
    parent: Emission[Any] | None
    depth: int
    _plan: Plan
    _payload: Any
    _values: Any  # a list, or an empty tuple where there is nobody to call
    _failures: Failures | None
    _running: bool
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
            if value is not NO_RESULT
        )

    @property
    def failures(self) -> tuple[HandlerFailure, ...]:
        """What the handlers raised, in the order in which they failed."""
        return () if self._failures is None else tuple(self._failures.items)

    @property
    def pending(self) -> int:
        """How many handlers have not finished yet; 0 once `emit` has returned."""
        return len(self._plan.subscriptions) - len(self._values) if self._running else 0

    def raise_for_failures(self) -> None:
        """Raise what the handlers raised; do nothing if none did.

        Raises:
            Exception: the one that a single handler raised, as it is.
            HandlerErrors: several handlers failed.
            HandlerCancelledError: in place of a `CancelledError` of a handler (F3).
        """
        errors = [_raisable(failure) for failure in self.failures]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            message = f"{len(errors)} handlers of {self.event} failed"
            raise HandlerErrors(message, errors, event=self.event)

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002  # part of E2; sync handlers leave nothing to wait for
        """Wait until nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes.

        Returns:
            Whether nothing is pending.
        """
        return self.pending == 0

    async def done(self) -> None:
        """Return when nothing is pending."""

    def __repr__(self) -> str:
        """Name the event and count its outcome; no value of the context is shown (G1)."""
        outcome = f"results: {len(self.results)}, failures: {len(self.failures)}"
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
        if self._failures is None:
            self._failures = Failures()
        twin: Emission[Any] = Emission()
        for name in Emission.__slots__:
            if name != "_validated":
                setattr(twin, name, getattr(self, name))
        twin._payload = context
        twin._running = False
        return twin


def current_event() -> Emission[Any] | None:
    """Return the emission that is being handled, or None outside of any handler."""
    return running(CURRENT.get(None))


def running(emission: Emission[Any] | None) -> Emission[Any] | None:
    """Return the emission or its nearest ancestor that has not finished.

    A task started by a handler inherits the emission in its context, and may
    outlive it.
    """
    while emission is not None and not emission._running:
        emission = emission.parent
    return emission


def validate_keywords(
    event: str, model: type[BaseEventContext], keywords: Mapping[str, Any]
) -> BaseEventContext:
    """Make a context of `model` from keywords.

    Raises:
        ContextValidationError: they do not fit. The message names fields and
            types; pydantic's own text is not repeated, for it may hold values.
    """
    if model is GenericEventContext:
        base = BaseEventContext._field_names
        keywords = {
            "event_type": event,
            "data": {name: value for name, value in keywords.items() if name not in base},
            **{name: value for name, value in keywords.items() if name in base},
        }
    try:
        return model.model_validate(keywords)
    except ValidationError as error:
        problems = tuple(_problems(model, error))
    listed = "; ".join(f"{field}: {problem}" for field, problem in problems)
    message = f"{event} does not fit {type_name(model)}: {listed}"
    raise ContextValidationError(message, event=event, problems=problems)


def _problems(model: type[BaseEventContext], error: ValidationError) -> list[tuple[str, str]]:
    problems: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        location = detail["loc"]
        field = printable(location[0], limit=60) if location else type_name(model)
        kind = detail["type"]
        if kind == "missing":
            fix = f"missing, emit it with {field}=..."
        elif kind == "extra_forbidden":
            fix = "not a field, leave it out or add it to the model"
        elif kind == "timezone_naive":
            fix = "has no time zone, give an aware one such as datetime.now(UTC)"
        else:
            declared = model.model_fields.get(field)
            wanted = type_name(declared.annotation) if declared is not None else "valid"
            fix = f"must be {wanted}, got {type_name(type(detail['input']))} ({printable(kind)})"
        problems.setdefault(field, fix)
    return list(problems.items())


def _raisable(failure: HandlerFailure) -> Exception:
    error = failure.exception
    if isinstance(error, Exception):
        return error
    replacement = HandlerCancelledError(
        f"{handler_name(failure.handler)} raised {type_name(type(error))}, "
        "and nobody had cancelled its caller"
    )
    replacement.__cause__ = error
    return replacement
