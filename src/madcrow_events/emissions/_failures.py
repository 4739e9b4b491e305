"""Failures of handlers: which exceptions count as one, and where an emission notes them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._logs import log_failure
from madcrow_events._text import handler_name, type_name

if TYPE_CHECKING:
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._observing import Observation

__all__ = ["Failures", "HandlerFailure", "add_failure", "failures_of", "is_failure"]


class HandlerFailure(NamedTuple):
    """The exception with which a handler failed.

    Attributes:
        handler: the handler.
        exception: the exception. The `repr` of the failure shows only its type.
    """

    handler: Any
    exception: BaseException

    def __repr__(self) -> str:
        """Name the handler and the type of the exception, never its text."""
        return f"<HandlerFailure {handler_name(self.handler)}: {type_name(type(self.exception))}>"


def is_failure(error: BaseException) -> bool:
    """Whether an exception is a failure of the handler; if not, it goes through to the emitter."""
    if isinstance(error, Exception):
        return True
    # Looked up, not imported: without asyncio in the program nothing can raise its error.
    cancelled_error = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", Exception)
    return isinstance(error, cancelled_error)


class Failures:
    """The failures of one emission, and notes on them; made when first needed.

    Attributes:
        items: all failures, in the order in which the handlers failed.
        unawaited: the items from handlers that no emitter waits for.
        raising: the other items from handlers whose subscription says `on_error="raise"`.
        broken_at: the index of the handler under which a chain turned out to be too deep, if the
            loop itself called that handler; else -1.
        has_failed: whether a handler has raised, even if the failure was not recorded again.
        depth_recorded: whether a chain that was too deep is among the items already.
        nested: how many awaited handlers of events that cause themselves run below the emission.
        observation: the observers entered around the emission; None without observers.
    """

    __slots__ = (
        "broken_at",
        "depth_recorded",
        "has_failed",
        "items",
        "nested",
        "observation",
        "raising",
        "unawaited",
    )

    def __init__(self) -> None:
        self.items: list[HandlerFailure] = []
        self.unawaited: list[HandlerFailure] = []
        self.raising: tuple[HandlerFailure, ...] = ()
        self.broken_at: int = -1
        self.has_failed: bool = False
        self.depth_recorded: bool = False
        self.nested: int = 0
        self.observation: Observation | None = None


def failures_of(emission: Emission) -> Failures:
    """Return the notes on an emission's failures; make them if there are none."""
    failures = emission._failures
    if failures is not None:
        return failures
    # Without a lock, as ids are given to emissions: handlers in several threads may fail at once.
    try:
        winner = _claims.setdefault(id(emission), Failures())
        failures = emission._failures
        if failures is None:
            failures = emission._failures = winner
    finally:
        _claims.pop(id(emission), None)
    return failures


_claims: dict[int, Failures] = {}
"""Notes that are being given to emissions, by the `id()` of the emission."""


def add_failure(
    emission: Emission,
    index: int,
    error: BaseException,
    *,
    unawaited: bool = False,
    logged: bool = True,
) -> HandlerFailure:
    """Note a failure, and log it."""
    plan, dispatcher = emission._plan, emission.dispatcher
    subscription = (plan.by_priority if dispatcher is None else plan.subscriptions)[index]
    if type(error) is TypeError:
        entry = (plan.entries_by_priority if dispatcher is None else plan.entries)[index]
        error = entry.explain(error, emission)
    # Its own `__new__` takes three times as long.
    failure = tuple.__new__(HandlerFailure, (subscription.handler, error))
    failures = emission._failures or failures_of(emission)
    if unawaited:
        failures.unawaited.append(failure)
    elif subscription.on_error == "raise":
        failures.raising = (*failures.raising, failure)
    failures.items.append(failure)
    if logged:
        tracebacks = dispatcher is not None and dispatcher.log_tracebacks
        log_failure(emission.signal.name, subscription.name, error, tracebacks=tracebacks)
    return failure
