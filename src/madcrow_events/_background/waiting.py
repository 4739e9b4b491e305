"""Waiting for pending work; the wait is refused if that work itself waits for the caller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madcrow_events._waiters import check_seconds
from madcrow_events.emissions._lazy_asyncio import running_loop
from madcrow_events.emissions._outcomes import Outcomes, outcomes_of
from madcrow_events.exceptions import WouldDeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events._background.backlog import Backlog
    from madcrow_events._background.job import Job
    from madcrow_events.emissions import Emission

__all__ = ["check_awaiting", "check_waiting", "drain", "drain_async"]


def drain(backlog: Backlog, timeout: float | None, method: str, instead: str) -> bool:
    """Wait in a thread until nothing is pending.

    Args:
        backlog: the pending work.
        timeout: how many seconds to wait at most; None for as long as it takes, 0 only asks.
        method: the method that the user has called, for messages.
        instead: what the user can do in an event loop, for messages.

    Returns:
        Whether nothing is pending.

    Raises:
        WouldDeadlockError: a pending handler waits for the caller.
        InvalidOptionError: the timeout is no number of seconds.
    """
    check_seconds("timeout", timeout, allow_zero=True)
    if timeout == 0:
        return backlog.is_done()
    _refuse_inside_work(backlog, method)
    if backlog.is_done():
        return True
    in_loops = list(backlog.in_loops.values())
    _refuse_stuck(in_loops, instead)
    own, delivering = backlog.background_loop.loops, list(backlog.deliveries.values())
    _refuse_here([*own, *delivering, *(job.loop for job in in_loops)], instead)
    mark = object()
    try:
        backlog.batches.flush_now(mark)
        return backlog.changed.wait(backlog.is_done, timeout)
    finally:
        try:  # first, because an interrupt may come between any two steps
            backlog.batches.flushing.remove(mark)
        except ValueError:
            pass


async def drain_async(backlog: Backlog, timeout: float | None) -> bool:
    """Wait in a task until nothing is pending.

    Args:
        backlog: the pending work.
        timeout: as for `drain`.

    Returns:
        Whether nothing is pending.

    Raises:
        WouldDeadlockError: a pending handler waits for the caller.
        InvalidOptionError: the timeout is no number of seconds.
    """
    check_seconds("timeout", timeout, allow_zero=True)
    if timeout == 0:
        return backlog.is_done()
    _refuse_inside_work(backlog, "drain_async")
    _refuse_stuck(list(backlog.in_loops.values()), "await drain_async()")
    mark = object()
    try:
        backlog.batches.flush_now(mark)
        return await backlog.changed.wait_async(backlog.is_done, timeout)
    finally:
        try:  # first, because an interrupt may come between any two steps
            backlog.batches.flushing.remove(mark)
        except ValueError:
            pass


def check_waiting(backlog: Backlog, emission: Emission) -> None:
    """Refuse to wait in this thread for an emission whose handlers need it.

    Raises:
        WouldDeadlockError: handlers of the emission need this thread.
    """
    check_awaiting(backlog, emission)
    outcomes = outcomes_of(emission)
    loops = [job.loop for job in backlog.jobs_of(emission)]
    if isinstance(outcomes, Outcomes):
        loops.append(outcomes.loop)
    _refuse_here(loops, "await emission.wait_async()")


def check_awaiting(backlog: Backlog, emission: Emission) -> None:
    """Refuse to wait for an emission whose handlers cannot end before the caller does.

    Raises:
        WouldDeadlockError: handlers of the emission cannot end before the caller does.
    """
    jobs = backlog.jobs_of(emission)
    _refuse_stuck(jobs, "await emission.wait_async()")
    enclosing = backlog.enclosing_jobs()
    batched = {job.owner for job in enclosing if job.subscription.batch is not None}
    if any(job.owner in batched for job in jobs):
        raise WouldDeadlockError(
            f"a handler of batches waits for {emission.event}, which is part of this batch or "
            "of the next, and those are handled one at a time: let it return"
        )
    is_worker = any(not job.entry.spec.is_async for job in enclosing)
    if is_worker and any(job.loop is None for job in jobs):
        raise WouldDeadlockError(
            f"a background handler waits for the background handlers of {emission.event}, "
            "which may be queued behind it: let it return, and act on their end elsewhere"
        )


def _refuse_inside_work(backlog: Backlog, method: str) -> None:
    if backlog.has_caller():
        raise WouldDeadlockError(
            f"{method} waits for all pending handlers, and one of them calls it: call it from "
            "the code that emits"
        )


def _refuse_stuck(jobs: list[Job], instead: str) -> None:
    for job in jobs:
        if job.is_stuck():
            raise WouldDeadlockError(
                f"{job.emission.name_of(job.handler)} is pending in an event loop that does not "
                f"run: {instead} in that loop"
            )


def _refuse_here(loops: list[AbstractEventLoop | None], instead: str) -> None:
    here = running_loop()
    if here is not None and here in loops:
        raise WouldDeadlockError(
            f"waiting here would stop the event loop in which handlers are pending: {instead}"
        )
