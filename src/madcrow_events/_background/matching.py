"""Whether an emission is for a handler that runs later; if so, it becomes a job."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from madcrow_events._background.job import Job
from madcrow_events.emissions._causes import is_announcing, trace_of
from madcrow_events.emissions._failures import is_failure
from madcrow_events.emissions._frames import CURRENT, Branch, Surroundings, surroundings_of
from madcrow_events.emissions._observing import log_skipped
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.emissions._recording import record_in_branch

if TYPE_CHECKING:
    from madcrow_events._background.backlog import Backlog
    from madcrow_events.emissions import Emission
    from madcrow_events.subscriptions import Subscription

__all__ = ["job_for"]


def job_for(
    backlog: Backlog,
    emission: Emission[Any],
    index: int,
    subscription: Subscription,
) -> Job | None:
    """Return the job of a handler that runs later, with a context of its own.

    Args:
        backlog: what it will be pending in.
        emission: the emission.
        index: which of its handlers that is.
        subscription: that of the handler.

    Returns:
        The job; None if the emission is not for the handler, or that could not be found out.
    """
    branch = Branch(emission, index)
    context = copy_context()
    context.run(CURRENT.set, branch)
    item = None
    try:
        handler = context.run(subscription._match, emission)
        if handler is not None and subscription.once:
            context.run(subscription._check_arguments, handler, emission)
        if handler is not None and subscription._call_spec.item is not None:
            item = context.run(subscription._call_spec.item, emission)
    except BaseException as error:
        if not is_failure(error):
            raise
        record_in_branch(branch, error)
        return None
    finally:
        branch._running = False
    if handler is None:
        log_skipped(emission, subscription.handler)
        emission._values[index] = NO_RESULT
        return None
    job = Job(backlog, branch, context, subscription, handler)
    job.item = item
    _detach(branch, job)
    return job


def _detach(branch: Branch, job: Job) -> None:
    """Let what the handler emits begin a chain of its own: nobody will await it."""
    branch.is_announcing = is_announcing(job.emission)
    branch.detached = branch._running = True
    branch.job = job
    branch.trace = trace_of(job.emission)
    around = surroundings_of(job.emission)
    if around is not None:
        around, alone = Surroundings(), around
        around._fields, around._deferrals = alone._inherited_fields(), alone._deferrals
    branch._outer = around
