"""Making a job of a handler that runs later, if the emission is for it."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from madcrow_events._background.handing_over import asks
from madcrow_events._background.job import Job
from madcrow_events._logs import writing
from madcrow_events.emissions._causes import begin_chain
from madcrow_events.emissions._failures import is_failure
from madcrow_events.emissions._frames import CURRENT, Branch
from madcrow_events.emissions._observing import log_skipped
from madcrow_events.emissions._outcomes import Outcomes
from madcrow_events.emissions._recording import record_in_branch

if TYPE_CHECKING:
    from madcrow_events._background.backlog import Backlog
    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import Entry

__all__ = ["job_for"]


@asks
def job_for(
    backlog: Backlog,
    emission: Emission,
    outcomes: Outcomes,
    index: int,
    entry: Entry,
) -> Job | None:
    """Return the job of a handler that runs later, with its own copy of the context variables.

    Args:
        backlog: the pending work that the job will be part of.
        emission: the emission.
        outcomes: the emission's outcomes.
        index: the place of the handler among those of the emission.
        entry: the handler, as the plan has it.

    Returns:
        The job; None if the emission is not for the handler, or if its predicate failed.
    """
    branch = Branch(emission, index)
    context = copy_context()
    subscription = entry.subscription
    item_of = entry.spec.item
    item = None
    needs_ids = False
    try:
        if subscription.when is None and not subscription.once and item_of is None:
            handler = entry.match(emission)  # calls nothing of the application's
        else:
            needs_ids = True
            context.run(CURRENT.set, branch)
            handler = context.run(entry.match, emission)
            if handler is not None and subscription.once:
                context.run(entry.check_arguments, handler, emission)
            if handler is not None and item_of is not None:
                item = context.run(item_of, emission)
    except BaseException as error:
        branch.finish()
        if not is_failure(error):
            raise
        record_in_branch(branch, error)
        return None
    if handler is None:
        branch.finish()
        log_skipped(emission, subscription)
        outcomes.settle(index)
        return None
    own_context = context if item_of is None else None
    job = Job(backlog, emission, index, outcomes, branch, own_context, entry, handler, [], item)
    if item_of is not None:
        job.line = writing()
    job.needs_ids = needs_ids
    begin_chain(branch, job)
    return job
