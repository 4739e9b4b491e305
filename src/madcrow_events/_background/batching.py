"""Calling a handler with a batch, and reporting a batch that was broken off."""

from __future__ import annotations

from contextvars import Context
from operator import attrgetter
from typing import TYPE_CHECKING

from madcrow_events._interrupts import is_exit
from madcrow_events._logs import log_unannounced, mark_as_written
from madcrow_events._moves import move_all
from madcrow_events.emissions._causes import enter_batch
from madcrow_events.emissions._completion import announce, announce_async, break_cycles
from madcrow_events.emissions._lazy_asyncio import load_async_loop, run_to_the_end, running_loop
from madcrow_events.emissions._observing import observing_handler
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.emissions._recording import is_recorded, keep_value, record_in_batch
from madcrow_events.exceptions import HandlerCancelledError

if TYPE_CHECKING:
    from madcrow_events._background.job import Job
    from madcrow_events.emissions import HandlerFailure

_permit_of = attrgetter("permit")

__all__ = ["call_batch_async", "call_batch_here", "lose_batch", "release_permits"]


def _prepared(jobs: list[Job]) -> Job:
    """Make the last job's branch the frame of the whole batch; return that job."""
    last = jobs[-1]
    last.needs_ids = True
    enter_batch(last.frame(), [job.branch for job in jobs])
    for job in jobs:
        if job.line is not None:
            mark_as_written(job.line)
    return last


def call_batch_here(jobs: list[Job]) -> None:
    """Call a handler with a batch, in a context that belongs to none of its emitters."""
    if not jobs:
        return
    if not jobs[0].entry.spec.is_async:
        Context().run(_call, jobs)
    elif running_loop() is None:
        Context().run(run_to_the_end, call_batch_async(jobs))
    else:
        lose_batch(jobs, "no thread could be started for the handler")


async def call_batch_async(jobs: list[Job]) -> None:
    """Await an async handler with a batch."""
    if not jobs:
        return
    last = _prepared(jobs)
    items = [job.item for job in jobs]
    await_in_time = load_async_loop().await_in_time
    failure = None
    try:
        value = await await_in_time(last.entry, last.handler, last.emission, items)
    except GeneratorExit:
        raise
    except BaseException as error:  # no emitter waits that could get it
        failure = record_in_batch(jobs, last.entry, error)
    else:
        _keep(jobs, value)
    if failure is not None and _finish(jobs):
        try:
            await announce_async(last.emission, (failure,), len(jobs))
        except BaseException as error:  # an exit: no caller is there to get it
            log_unannounced(last.emission.event, error)
    _end(jobs, failure)
    del last, failure, items  # or the traceback of the failure keeps them alive


def _call(jobs: list[Job]) -> None:
    """Call a plain handler with a batch."""
    last = _prepared(jobs)
    failure: HandlerFailure | None = None
    try:
        with observing_handler(last.emission, last.handler):
            value = last.entry.spec.invoke_batch(last.handler, [job.item for job in jobs])
    except BaseException as error:  # no emitter waits that could get it
        failure = record_in_batch(jobs, last.entry, error)
    else:
        _keep(jobs, value)
    if failure is not None and _finish(jobs):
        try:
            announce(last.emission, (failure,), len(jobs))
        except BaseException as error:  # an exit: no caller is there to get it
            log_unannounced(last.emission.event, error)
    _end(jobs, failure)
    del last, failure  # or the traceback of the failure keeps them alive


def release_permits(jobs: list[Job]) -> None:
    """Release the permits of a batch."""
    if not jobs:
        return
    permits = jobs[0].backlog.permits
    try:
        permits.free.extend(map(list.pop, map(_permit_of, jobs)))
    except IndexError:  # one of them has none
        for job in jobs:  # in a frame of its own, or the traceback of a failure keeps the last job
            job.release_permit()
    permits.freed.notify(len(jobs))


def _finish(jobs: list[Job]) -> bool:
    """Mark the handler as finished; return whether its failure may be announced."""
    is_announcing: bool = jobs[-1].frame().is_announcing
    for job in jobs:  # in a frame of its own, as in `release_permits`
        job.finish()
        job.release_permit()  # now, because the announcement may need one
    return not is_announcing


def _end(jobs: list[Job], failure: HandlerFailure | None) -> None:
    """Count a batch as done, and empty the list, so that a traceback keeps no job alive."""
    is_for_the_program = False
    if failure is not None:
        is_for_the_program = is_exit(failure.exception)
        break_cycles(jobs[-1].emission, (failure,))
    while jobs:
        jobs.pop(0).end()
    if failure is not None and is_for_the_program:
        raise failure.exception


def _keep(jobs: list[Job], value: object) -> None:
    kept = keep_value(jobs[-1].entry, jobs[-1].handler, value)
    for job in jobs:
        job.outcomes[job.index] = kept


def lose_batch(jobs: list[Job], reason: str, cause: BaseException | None = None) -> None:
    """Report the handlers of a batch as failed: the batch was broken off."""
    jobs = list(jobs)
    ours: list[list[None]] = [[] for _ in jobs]
    error = HandlerCancelledError(reason)
    error.__cause__ = cause
    try:
        _report(jobs, ours, error)
    except BaseException:
        _report(jobs, ours, error)  # once more: the first call was interrupted
        raise


def _report(jobs: list[Job], ours: list[list[None]], error: HandlerCancelledError) -> None:
    for job, mine in zip(jobs, ours, strict=True):
        job.ticket.clear()
        move_all(job.unreported, mine)
    pending = [job for job, mine in zip(jobs, ours, strict=True) if mine and job.is_pending()]
    new = [job for job in pending if not is_recorded(job.emission, error)]
    if new:
        record_in_batch(new, jobs[-1].entry, error)
    for job in pending:
        job.settle(NO_RESULT)
    for job in jobs:
        if not job.is_pending():  # a pending one is reported, and ended, by another thread
            job.end()
