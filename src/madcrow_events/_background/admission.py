"""Whether a handler may run later, and handing it to what runs it then.

What belongs to one process is one object, a `Backlog`, that a forked child
replaces as a whole: the threads are not there, and the work is the parent's.
"""

from __future__ import annotations

import math
import queue
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from madcrow_events._background import exit as _exit
from madcrow_events._background.backlog import Backlog
from madcrow_events._background.bound_loops import BoundLoops
from madcrow_events._background.job import Job
from madcrow_events._background.matching import job_for
from madcrow_events._background.waiting import check_awaiting, check_waiting, drain, drain_async
from madcrow_events._clock import monotonic
from madcrow_events._forks import renew_after_fork
from madcrow_events._interrupts import is_interrupt
from madcrow_events._moves import move_last
from madcrow_events._other_loops import (
    STRANGERS,
    check_for_awaiting,
    greenlets,
    loop_to_wait_in,
    other_library,
    refuse,
)
from madcrow_events._text import printable
from madcrow_events._waiters import check_seconds
from madcrow_events.emissions._lazy_asyncio import applications_loop, load_async_loop, running_loop
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, HeldBack, Outcomes, outcomes_of
from madcrow_events.emissions._plan import Plan, plan_for
from madcrow_events.exceptions import (
    DispatcherClosedError,
    EventLoopError,
    InvalidOptionError,
    QueueFullError,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator

    from madcrow_events.emissions import Emission

__all__ = ["Admission", "Overflow"]

Overflow: TypeAlias = Literal["block", "raise", "drop"]
"""What becomes of a handler that finds the queue full."""

_MOST = 1_000_000

_UNABLE = (RuntimeError, MemoryError, OSError)
"""What is raised where no thread or loop can be made, or the stack is full."""

_left_behind: list[AbstractEventLoop] = []
"""The loops that a forked child inherited, which it can neither run nor close."""


class Admission:
    """Admits the handlers that dispatchers of one family leave for later to a bounded queue.

    Args:
        queue_size: how many may wait.
        overflow: what becomes of one more.
        max_workers: how many threads to start at most.

    Raises:
        InvalidOptionError: an option has an impossible value.
    """

    __slots__ = (
        "__weakref__",
        "_finalizer",
        "_is_closed",
        "backlog",
        "bound_loops",
        "max_workers",
        "overflow",
        "queue_size",
    )

    def __init__(self, queue_size: int, overflow: Overflow, max_workers: int) -> None:
        numbers: dict[str, object] = {"queue_size": queue_size, "max_workers": max_workers}
        for option, number in numbers.items():
            is_int = isinstance(number, int) and not isinstance(number, bool)
            if not (is_int and 1 <= number <= _MOST):  # type: ignore[operator]  # it is an int
                raise InvalidOptionError(
                    f"{option} must be a whole number from 1 to {_MOST}, such as 4", option=option
                )
        if overflow not in ("block", "raise", "drop"):
            raise InvalidOptionError(
                f"overflow must be 'block', 'raise' or 'drop', not {printable(overflow)}",
                option="overflow",
            )
        self.queue_size = queue_size
        self.overflow: Overflow = overflow
        self.max_workers = max_workers
        self._is_closed = False
        self.bound_loops = BoundLoops()
        self._finalizer: Any = None
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        """Start with an empty queue and no thread."""
        inherited: Backlog | None = getattr(self, "backlog", None)
        self.backlog = Backlog(self.queue_size, self.max_workers)
        if inherited is None:
            return
        inherited.leave_to_parent()
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        # The loop's thread is gone, and its sockets are the parent's: it must not be closed.
        _left_behind.extend(inherited.background_loop.loops)
        self.bound_loops = BoundLoops()
        for job in list(inherited.jobs.values()):
            job.settle(NO_RESULT)
            job.outcomes.forget_waiters()

    @property
    def dropped(self) -> int:
        """How many calls were dropped."""
        return self.backlog.permits.dropped

    # Admitting handlers

    def admit(
        self,
        emission: Emission,
        plan: Plan,
        outcomes: Outcomes,
        held_back: object,
        *,
        awaiting: bool,
    ) -> None:
        """Set permits aside for the handlers of an emission that are not called inline.

        Args:
            emission: the emission, none of whose handlers has been called.
            plan: its handlers.
            outcomes: what gets the permits.
            held_back: what it had in the place of outcomes while a block held it back.
            awaiting: whether its emitter awaits the async ones.

        Raises:
            QueueFullError: there are more than the queue has permits for, and waiting
                for permits is not wanted, or could never end.
            DispatcherClosedError: the dispatcher has been closed.
            EventLoopError: they cannot be called from here.
        """
        needed = len(plan.subscriptions) - plan.inline
        if awaiting:
            needed -= plan.awaited
        if self._is_closed:
            raise DispatcherClosedError(
                f"{emission.event} has handlers that would run later, and the dispatcher is "
                "closed: emit before close(), or make a new EventDispatcher",
                event=emission.event,
            )
        if not sys.modules.keys().isdisjoint(STRANGERS) or (awaiting and plan.awaited):
            self._refuse_elsewhere(emission.event, plan, awaiting=awaiting)
        permits: list[None] = []
        outcomes.permits = permits
        if self.overflow == "drop":
            return
        if isinstance(held_back, HeldBack) and len(held_back.permits) >= needed > 0:
            outcomes.permits, held_back.permits = held_back.permits, permits
            return
        why = self._why_not_wait(awaiting=awaiting)
        backlog = self.backlog
        if why is None or backlog.permits.acquire(needed, permits):
            return
        if backlog.make_room(needed, permits):
            return
        fix = f"queue_size={needed} or more"
        if needed <= self.queue_size:
            fix = "a larger queue_size, or emit it again later"
        raise QueueFullError(
            f"{emission.event} needs {needed} of the {self.queue_size} places in the queue of "
            f"handlers that run later, and fewer are free{why}: give the dispatcher {fix}",
            event=emission.event,
            queue_size=self.queue_size,
        )

    def _why_not_wait(self, *, awaiting: bool) -> str | None:
        """Return what an emitter that finds no permit is told; None if it can wait for one."""
        if self.overflow != "block":
            return ""
        if self.backlog.jobs_around():
            return " (a handler that holds a place itself cannot wait for another)"
        if not awaiting and running_loop() is not None:
            return " (emit cannot wait in a running event loop: await emit_async)"
        library = other_library()
        return f" (nobody can wait for one in {library}: emit in a thread)" if library else None

    def _refuse_elsewhere(self, event: str, plan: Plan, *, awaiting: bool) -> None:
        """Refuse handlers that run later where neither asyncio nor threads are what they are."""
        if awaiting and plan.awaited:
            check_for_awaiting(event)
        kinds = [it.spec.is_async for it in plan.entries[plan.inline :]]
        library, threads = other_library(), greenlets()
        is_stranger = library or (threads == "eventlet" and running_loop() is None)
        if is_stranger and any(kinds) and self.bound_loops.loop is None:
            raise refuse(event, library or threads)
        if threads != "gevent":
            return
        problem = ""
        if type(self.backlog.workers.queue) is not queue.SimpleQueue:
            problem = (
                "gevent has replaced threads after madcrow_events was imported: call "
                "monkey.patch_all() before all imports"
            )
        elif not all(kinds) and running_loop() is not applications_loop():
            problem = (
                "under gevent no async handler reaches the greenlets of plain ones in the "
                "background: emit it from a greenlet"
            )
        if problem:
            raise EventLoopError(
                f"{event} has handlers that run later, and {problem}", event=event, library=threads
            )

    async def set_aside_async(self, emission: Emission) -> None:
        """Wait for the permits that an emission needs which was held back, and set them aside.

        Args:
            emission: what is to go out next, as by `emit`, which could not wait in a running loop.
        """
        plan = plan_for(emission)
        needed = len(plan.subscriptions) - plan.inline
        backlog, held = self.backlog, outcomes_of(emission)
        if self.overflow != "block" or not 0 < needed <= self.queue_size or backlog.jobs_around():
            return
        permits: list[None] = []
        held.permits = permits
        free = backlog.permits
        await free.freed.wait_async(
            lambda: free.acquire(needed, permits) or backlog.make_room(needed, permits), None
        )

    def release(self, permits: list[None]) -> None:
        """Release the permits that were set aside and not used."""
        self.backlog.permits.release(permits)

    def abandon(self, emission: Emission) -> None:
        """Give up those handlers of an emission that have not begun; doing so again is no error."""
        outcomes = outcomes_of(emission)
        if outcomes.permits:
            self.backlog.permits.release(outcomes.permits)
        begun = {job.branch.index for job in self.backlog.jobs_of(emission)}
        for index, value in enumerate(outcomes):
            if value is PENDING and index not in begun:
                outcomes.settle(index)

    def start(self, emission: Emission, plan: Plan, outcomes: Any) -> None:
        """Start the handlers that `emit` leaves for later."""
        for backlog in self._starting(emission, plan, outcomes, plan.inline):
            one = partial(backlog.acquire_one, outcomes.permits)
            backlog.permits.freed.wait(one, None)

    async def start_async(self, emission: Emission, plan: Plan, outcomes: Any) -> None:
        """Start the background handlers of `emit_async`."""
        first = plan.inline + plan.awaited
        for backlog in self._starting(emission, plan, outcomes, first):
            one = partial(backlog.acquire_one, outcomes.permits)
            await backlog.permits.freed.wait_async(one, None)

    def _starting(
        self, emission: Emission, plan: Plan, outcomes: Any, first: int
    ) -> Iterator[Backlog]:
        """Start handlers in turn; yield wherever a permit has to be waited for."""
        backlog, loop, entries = self.backlog, applications_loop(), plan.entries
        permits, free = outcomes.permits, backlog.permits
        for index in range(first, len(entries)):
            # First, for no permit may be held while a predicate runs.
            job = job_for(backlog, emission, outcomes, index, entries[index])
            if job is None:
                continue
            if not (permits or free.acquire(1, permits) or backlog.make_room(1, permits)):
                if self.overflow == "drop":
                    outcomes.settle(index)
                    free.drop(emission.event, job.subscription.name)
                    continue
                yield backlog
            if job.entry.claim():
                self._launch(job, permits, loop)
            else:
                outcomes.settle(index)
                free.release(permits, 1)
        if permits:  # of handlers that are not for this emission
            free.release(permits)
        outcomes.notify()

    def _launch(self, job: Job, permits: list[None], loop: AbstractEventLoop | None) -> None:
        """Give a job a permit, and to what will do it, and which then releases the permit."""
        backlog = job.backlog
        if not _exit.is_over():
            _exit.wait_for(backlog)
            if self._finalizer is None:
                self._finalizer = weakref.finalize(self, backlog.stop)
                self._finalizer.atexit = False
        try:
            backlog.jobs[id(job)] = job
            move_last(permits, job.permit)
            self._hand_over(job, loop)
        except BaseException as error:
            is_ours = False
            try:
                is_ours = job.claim()
                is_interrupted = is_interrupt(error)  # first, for a loss empties its frames
                if is_ours:
                    job.lose("it could not be started", error)
            except RecursionError:  # for which its emitter has it back: no call fits in here
                try:
                    job.ticket.pop()
                    is_ours = True
                except IndexError:  # a worker has begun with it, or it was claimed above
                    pass
                if is_ours:
                    job.settle(NO_RESULT)
                    backlog.permits.free.extend(job.permit)
                    job.permit.clear()
                    backlog.held.pop(id(job), None)
                    backlog.jobs.pop(id(job), None)
                raise
            # What keeps it from starting is its failure; what interrupts the emitter is raised.
            is_timeout = isinstance(error, TimeoutError)  # which is an OSError, but not of these
            if is_timeout or is_interrupted or not isinstance(error, _UNABLE):
                raise

    def _hand_over(self, job: Job, loop: AbstractEventLoop | None) -> None:
        backlog = job.backlog
        # Looked at after the job was noted, so that whoever closes or exits waits for it. Then
        # nobody else does it any more.
        is_alone = self._is_closed or _exit.is_over()
        if not job.entry.spec.is_async:
            if job.subscription.batch is not None and not is_alone:
                backlog.batches.add(job, None)
                return
            if not is_alone and backlog.workers.put(job):
                return
            job.release_permit()
            job.run_in_place()
            return
        # Clients, pools and locks of the application's belong to its loop.
        theirs = loop or self.bound_loops.loop
        if theirs is not None:
            job.loop = theirs
            backlog.held[id(job)] = job
        if job.subscription.batch is not None and not is_alone:
            backlog.batches.add(job, theirs)
        elif theirs is not None:
            if theirs is loop:
                job.begin()
            else:
                theirs.call_soon_threadsafe(job.begin)
        else:
            if not is_alone:
                job.loop = backlog.background_loop.get()
            if job.loop is not None:
                job.loop.call_soon_threadsafe(job.begin)
            else:
                job.run_in_place()

    # Waiting for them

    def report_lost(self) -> None:
        """Record as failed what can never end any more, for its event loop was closed."""
        self.backlog.is_done()

    def drain(self, timeout: float | None) -> bool:
        """Wait in a thread until nothing is pending, as `waiting.drain` does."""
        return drain(self.backlog, timeout, "drain", "await drain_async()")

    async def drain_async(self, timeout: float | None) -> bool:
        """Wait in a task until nothing is pending, as `waiting.drain_async` does."""
        return await drain_async(self.backlog, timeout)

    def close(self, timeout: float | None) -> bool:
        """Wait until nothing is pending, and admit no more; return whether nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes.

        Raises:
            WouldDeadlockError: what is pending waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        deadline = math.inf if timeout is None else monotonic() + timeout
        drain(self.backlog, timeout, "close", "await drain_async() first")
        self._is_closed = True
        # Once more, for what other threads have emitted in between.
        left = None if timeout is None else max(0.0, deadline - monotonic())
        is_done = drain(self.backlog, left, "close", "await drain_async() first")
        if is_done:
            self.backlog.stop()
            self.backlog.join(deadline)
        return is_done

    async def close_async(self) -> None:
        """Do as `close` in a running loop, for as long as it takes.

        Raises:
            WouldDeadlockError: a handler that is pending calls it.
            EventLoopError: asyncio does not run here.
        """
        loop_to_wait_in()
        await drain_async(self.backlog, None)
        self._is_closed = True
        await drain_async(self.backlog, None)  # once more, as in `close`
        self.backlog.stop()
        await load_async_loop().asyncio.to_thread(self.backlog.join, math.inf)

    def check_waiting(self, emission: Emission) -> None:
        """Refuse to wait in a thread for an emission that waits for this thread.

        Raises:
            WouldDeadlockError: it does.
        """
        check_waiting(self.backlog, emission)

    def check_awaiting(self, emission: Emission) -> None:
        """Refuse to wait, in whatever way, for what cannot end or is queued behind the caller.

        Raises:
            WouldDeadlockError: it would.
        """
        check_awaiting(self.backlog, emission)
