"""What counts as a handler's failure, and what an emission notes of those (F)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._logs import log_failure
from madcrow_events._text import handler_name, type_name

if TYPE_CHECKING:
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._observing import Watch

__all__ = ["Failures", "HandlerFailure", "add_failure", "failures_of", "is_failure"]


class HandlerFailure(NamedTuple):
    """What a handler raised."""

    handler: Any
    exception: BaseException

    def __repr__(self) -> str:
        """Name the handler and the type of the exception, never its text."""
        return f"<HandlerFailure {handler_name(self.handler)}: {type_name(type(self.exception))}>"


def is_failure(error: BaseException) -> bool:
    """Whether a plain handler that raises it has failed; else it goes through."""
    # Looked up, not imported: who never loaded asyncio cannot have raised its error.
    cancelled_error = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", Exception)
    return isinstance(error, (Exception, cancelled_error))


class Failures:
    """What went wrong in one emission; made when first needed.

    `broken_at` is how many handlers of an outermost emission had finished when
    the chain under the next one turned out to be too deep, or -1.
    `told_depth` is whether that, or the same of a branch, stands among the items.
    `nested` counts the awaited handlers below it of events that cause themselves. `detached` are
    those of the items that the emitter does not answer for. `watch` is what observers have
    entered around the emission, and have not left. `has_failed` is whether a handler has raised,
    be it told or not.
    """

    __slots__ = ("broken_at", "detached", "has_failed", "items", "nested", "told_depth", "watch")

    def __init__(self) -> None:
        self.items: list[HandlerFailure] = []
        self.detached: list[HandlerFailure] = []
        self.broken_at: int = -1
        self.has_failed: bool = False
        self.told_depth: bool = False
        self.nested: int = 0
        self.watch: Watch | None = None


def failures_of(emission: Emission) -> Failures:
    """Return what is noted of an emission's failures, made if need be."""
    failures = emission._failures
    if failures is None:
        failures = emission._failures = Failures()
    return failures


def add_failure(
    emission: Emission,
    index: int,
    error: BaseException,
    *,
    detached: bool = False,
    logged: bool = True,
) -> HandlerFailure:
    """Note a failure, and log it."""
    plan, dispatcher = emission._plan, emission.dispatcher
    entry = (plan.entries_by_priority if dispatcher is None else plan.entries)[index]
    subscription = entry.subscription
    if type(error) is TypeError:
        error = entry.explain(error, emission)
    failure = HandlerFailure(subscription.handler, error)
    failures = failures_of(emission)
    if detached:
        failures.detached.append(failure)
    failures.items.append(failure)
    if logged:
        tracebacks = dispatcher is not None and dispatcher.log_tracebacks
        log_failure(emission.event, subscription.name, error, tracebacks=tracebacks)
    return failure
