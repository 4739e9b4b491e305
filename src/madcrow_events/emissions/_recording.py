"""Recording the value or the failure of a handler that ran in a branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._logs import log_failure
from madcrow_events._validation import misfit_behind
from madcrow_events.emissions._chains import is_broken, outermost
from madcrow_events.emissions._failures import HandlerFailure, add_failure, failures_of
from madcrow_events.emissions._outcomes import NO_RESULT, Called
from madcrow_events.exceptions import EmissionDepthError

if TYPE_CHECKING:
    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._frames import Branch
    from madcrow_events.emissions._plan import Entry

__all__ = ["is_recorded", "keep_value", "record_in_batch", "record_in_branch"]


def keep_value(entry: Entry, handler: object, value: object) -> Any:
    """Return the outcome to store for a handler's value."""
    is_weak = entry.handler is None
    return Called(handler, value) if is_weak and value is not NO_RESULT else value


def is_recorded(emission: Emission, error: BaseException) -> bool:
    """Whether an exception is among the failures of an emission."""
    return any(failure.exception is error for failure in failures_of(emission).items)


def record_in_batch(jobs: list[Any], entry: Entry, error: BaseException) -> HandlerFailure:
    """Note a failure for a batch in each of its emissions, and log it once.

    Args:
        jobs: objects with the emissions, as `emission`, and the places of the handler among those
            of each, as `index`.
        entry: the handler of the batch.
        error: what it raised.

    Returns:
        The failure of the last emission.
    """
    failures: list[HandlerFailure] = []
    emissions: list[Any] = [job.emission for job in jobs]
    for emission in emissions:
        error = misfit_behind(emission.event, emission._payload, error) or error
    for job, emission in zip(jobs, emissions, strict=True):
        failures.append(add_failure(emission, job.index, error, unawaited=True, logged=False))
        emission._values[job.index] = NO_RESULT
    log_failure(
        entry.owner.event,
        entry.subscription.name,
        error,
        # A traceback may show a value of any of these emissions.
        tracebacks=all(emission.dispatcher.log_tracebacks for emission in emissions),
        batch_size=len(jobs),
    )
    return failures[-1]


def record_in_branch(branch: Branch, error: BaseException) -> HandlerFailure | None:
    """Note the failure of a handler in its branch; return it, or None if it is recorded already.

    Raises:
        ContextValidationError: the emitter, which waits for the branch, gave an incomplete context.
    """
    emission: Any = branch.emission
    misfit = misfit_behind(emission.event, emission._payload, error)
    if misfit is not None:
        if not branch.unawaited:
            raise misfit
        error = misfit  # no emitter is there to raise it to
    failures_of(emission).has_failed = True  # even if it is recorded already
    failure = None
    if not (isinstance(error, EmissionDepthError) and is_broken(outermost(branch))):
        failure = add_failure(emission, branch.index, error, unawaited=branch.unawaited)
    # Last, because waiters look at the outcomes.
    emission._values[branch.index] = NO_RESULT
    return failure
