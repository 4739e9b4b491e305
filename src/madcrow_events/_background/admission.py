"""Admitting handlers that run later, and handing each to the thread or loop that runs it.

All that belongs to one process is in one object, a `Backlog`. A forked child replaces it as a
whole, because the threads do not exist there, and the work is the parent's.
"""

from __future__ import annotations

import math
import queue
import sys
import threading
import weakref
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from madcrow_events._background import exit as _exit
from madcrow_events._background.backlog import Backlog
from madcrow_events._background.bound_loops import BoundLoops
from madcrow_events._background.errand import await_elsewhere
from madcrow_events._background.handing_over import hands_over, is_handing_over
from madcrow_events._background.job import Job
from madcrow_events._background.matching import job_for
from madcrow_events._background.waiting import check_awaiting, check_waiting, drain, drain_async
from madcrow_events._clock import monotonic
from madcrow_events._forks import renew_after_fork
from madcrow_events._interrupts import is_interrupt
from madcrow_events._logs import writing
from madcrow_events._other_loops import (
    STRANGERS,
    check_for_awaiting,
    event_loop_error,
    greenlets,
    loop_to_wait_in,
    other_library,
)
from madcrow_events._text import printable
from madcrow_events._waiters import check_seconds
from madcrow_events.emissions._frames import CURRENT, Branch, ambient_frame_of
from madcrow_events.emissions._lazy_asyncio import applications_loop, load_async_loop, running_loop
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, HeldBack, Outcomes, outcomes_of
from madcrow_events.emissions._plan import Entry, Plan, plan_for
from madcrow_events.exceptions import (
    DispatcherClosedError,
    EventLoopError,
    InvalidOptionError,
    QueueFullError,
    WouldDeadlockError,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events._background.errand import Work
    from madcrow_events.emissions import Emission

__all__ = ["Admission", "Overflow"]

Overflow: TypeAlias = Literal["block", "raise", "drop"]
"""What happens if the queue is full.

- `"block"`: the emitter waits for a free place.
- `"raise"`: the emitter gets a `QueueFullError`.
- `"drop"`: the handler is left out, and counted in `EventDispatcher.dropped`.
"""

_MOST = 1_000_000

_UNABLE = (RuntimeError, MemoryError, OSError)
"""The errors that mean that no thread or loop can be made, or that the stack is full."""

_left_behind: list[AbstractEventLoop] = []
"""The loops that a forked child has inherited; it can neither run nor close them."""


class Admission:
    """Admits handlers that run later to the bounded queue of a dispatcher and its siblings.

    Args:
        queue_size: how many handlers may wait.
        overflow: what happens to one more.
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
        # Nobody may close the loop: its thread is gone, and its sockets are the parent's.
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
        """Acquire permits for the later handlers of an emission, as `_policy.Admission` says."""
        needed = len(plan.subscriptions) - plan.inline
        if awaiting:
            needed -= plan.awaited
        if self._is_closed:
            raise DispatcherClosedError(
                f"{emission.event} has handlers that would run later, and the dispatcher is "
                "closed: emit before close(), or make a new EventDispatcher",
                event=emission.event,
            )
        is_native = sys.modules.keys().isdisjoint(STRANGERS)
        if not is_native or (awaiting and plan.awaited):
            self._refuse_elsewhere(emission.event, plan, awaiting=awaiting)
        permits: list[None] = []
        outcomes.permits = permits
        if self.overflow == "drop":
            return
        if isinstance(held_back, HeldBack) and len(held_back.permits) >= needed > 0:
            outcomes.permits, held_back.permits = held_back.permits, permits
            return
        why = self._why_not_wait(needed, awaiting=awaiting, is_native=is_native)
        free = self.backlog.permits
        # An emitter that can wait acquires its permits one by one, in `start`; any other
        # acquires all of them now.
        can_wait = why is None
        if can_wait or free.acquire(needed, permits) or self.backlog.make_room(needed, permits):
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

    def _why_not_wait(self, needed: int, *, awaiting: bool, is_native: bool) -> str | None:
        """Return why an emitter cannot wait for a permit, for the message; None if it can."""
        if self.overflow != "block":
            return ""
        # A finalizer may emit in a worker while no frame says so.
        if threading.current_thread() in self.backlog.workers.threads or (
            CURRENT.get(None) is not None and self.backlog.enclosing_jobs()
        ):
            return " (a handler that has a place itself cannot wait for another)"
        if not awaiting and running_loop() is not None:
            return " (emit cannot wait in a running event loop: await emit_async)"
        library = "" if is_native else other_library()
        if library:
            return f" (waiting is impossible in {library}: emit in a thread)"
        free = self.backlog.permits
        if len(free.free) < needed and is_handing_over(sys._getframe(), free):
            return " (a finalizer cannot wait for the handlers that it interrupts as they start)"
        return None

    def _refuse_elsewhere(self, event: str, plan: Plan, *, awaiting: bool) -> None:
        """Refuse later handlers that need asyncio or threads where another library replaces them.

        Raises:
            EventLoopError: another library has replaced asyncio or threads, and a handler needs the
                original.
        """
        if awaiting and plan.awaited:
            check_for_awaiting(event)
        kinds = [it.spec.is_async for it in plan.entries[plan.inline :]]
        library, threads = other_library(), greenlets()
        is_stranger = library or (threads == "eventlet" and running_loop() is None)
        if is_stranger and any(kinds) and self.bound_loops.loop is None:
            raise event_loop_error(event, library or threads)
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
                "under gevent, an async handler cannot start plain background handlers: emit it "
                "from a greenlet"
            )
        if problem:
            raise EventLoopError(
                f"{event} has handlers that run later, and {problem}", event=event, library=threads
            )

    async def acquire_async(self, emission: Emission) -> None:
        """Wait for the permits that a held-back emission needs, and acquire them.

        Args:
            emission: the emission that goes out next, by `emit`; that could not wait in a
                running loop.
        """
        plan = plan_for(emission)
        needed = len(plan.subscriptions) - plan.inline
        backlog, held_back = self.backlog, outcomes_of(emission)
        needs_no_wait = self.overflow != "block" or not 0 < needed <= self.queue_size
        if needs_no_wait or backlog.enclosing_jobs():
            return
        permits: list[None] = []
        held_back.permits = permits
        free = backlog.permits
        await free.freed.wait_async(
            lambda: free.acquire(needed, permits) or backlog.make_room(needed, permits), None
        )

    def release(self, permits: list[None]) -> None:
        """Release permits that were acquired and not used."""
        self.backlog.permits.release(permits)

    def abandon(self, emission: Emission) -> None:
        """Give up the handlers of an emission that have not begun; a second call does nothing."""
        outcomes = outcomes_of(emission)
        if outcomes.permits:
            self.backlog.permits.release(outcomes.permits)
        begun = {job.index for job in self.backlog.jobs_of(emission)}
        for index, value in enumerate(outcomes):
            if value is PENDING and index not in begun:
                outcomes.settle(index)

    @hands_over("backlog.permits")
    def start_alone(
        self,
        emission: Emission,
        outcomes: Outcomes,
        entry: Entry,
        payload: object,
        is_typed: bool,
    ) -> bool:
        """Start the only handler of an emission that nothing surrounds, if that is simple.

        Returns:
            Whether it is started; if not, nothing has happened.
        """
        backlog, spec, handler = self.backlog, entry.spec, entry.handler
        permits = backlog.permits
        if handler is None:
            handler = entry.match(emission)
        if (
            handler is None
            or self._is_closed
            or permits.is_dropping
            # of all strangers, only gevent refuses plain handlers: see `_refuse_elsewhere`
            or "gevent.monkey" in sys.modules
            or not (spec.item is None or (is_typed and spec.item_is_context))
        ):
            # The long way, by `admit` and `start`, handles these.
            return False
        free = permits.free
        # No call comes between taking the permit and storing it, and only after a call may an
        # interrupt come. `move_last` would need an empty list first, and a call.
        try:
            permit = [*map(list.pop, (free,))]
        except IndexError:
            return False
        try:
            if spec.item is None:
                branch = Branch(emission, 0)
                context = copy_context()
                job = Job(backlog, emission, 0, outcomes, branch, context, entry, handler, permit)
                # As `begin_chain` does for an emission that nothing surrounds; `Plan.alone` leaves
                # out `handler_failed`, so `is_announcing` stays False. Change both.
                branch.unawaited, branch.job = True, job
            else:
                job = Job(
                    backlog, emission, 0, outcomes, None, None, entry, handler, permit, payload
                )
                job.line = writing()
            self._launch(job, None)
        except BaseException:
            # By no deeper call, because the stack may be full. A waiter looks by itself.
            try:
                free.extend(map(list.pop, (permit,)))
            except IndexError:  # the job has released it
                pass
            raise
        return True

    @hands_over("backlog.permits")
    def start(self, emission: Emission, plan: Plan, outcomes: Any) -> None:
        """Start the handlers that `emit` leaves for later."""
        backlog, entries = self.backlog, plan.entries
        for index in range(plan.inline, len(entries)):
            # Before the job has a permit: an emitter that can wait holds none while a predicate
            # runs, or two of them could wait for each other. One that cannot wait has acquired
            # all of them in `admit`.
            job = job_for(backlog, emission, outcomes, index, entries[index])
            if job is not None and not self._start(job, outcomes):
                # The last places went since `admit`. Looked for from the caller on, because `start`
                # itself hands over.
                if is_handing_over(sys._getframe(1), backlog.permits):
                    raise WouldDeadlockError(
                        "a finalizer cannot wait for a place in the queue while it interrupts "
                        "handlers as they start: emit later, or give the dispatcher a larger "
                        "queue_size"
                    )
                one = partial(backlog.acquire_one, outcomes.permits)
                backlog.permits.freed.wait(one, None)
                self._start(job, outcomes)  # now it has a permit, so it is started
        self._all_are_started(backlog, outcomes)

    async def start_async(self, emission: Emission, plan: Plan, outcomes: Any) -> None:
        """Start the background handlers of `emit_async`."""
        backlog, entries = self.backlog, plan.entries
        for index in range(plan.inline + plan.awaited, len(entries)):
            job = job_for(backlog, emission, outcomes, index, entries[index])
            if job is not None and not self._start(job, outcomes):
                one = partial(backlog.acquire_one, outcomes.permits)
                await backlog.permits.freed.wait_async(one, None)
                self._start(job, outcomes)  # as in `start`
        self._all_are_started(backlog, outcomes)

    @hands_over("backlog.permits")
    def _start(self, job: Job, outcomes: Outcomes) -> bool:
        """Start a job, or drop it; return False if the caller has to wait for a permit first."""
        backlog: Backlog = job.backlog
        permits: Any = outcomes.permits
        free = backlog.permits
        if not (permits or free.acquire(1, permits) or backlog.make_room(1, permits)):
            if self.overflow != "drop":
                return False
            outcomes.settle(job.index)
            free.drop(job.emission.event, job.subscription.name)
        elif not job.subscription.once or job.entry.claim():
            self._launch(job, permits)
        else:
            outcomes.settle(job.index)
            free.release(permits, 1)
        return True

    def _all_are_started(self, backlog: Backlog, outcomes: Any) -> None:
        if outcomes.permits:  # those of handlers that this emission is not for
            backlog.permits.release(outcomes.permits)
        outcomes.notify()

    @hands_over("backlog.permits")
    def _launch(  # noqa: C901  # one step of the emitter after the other
        self, job: Job, permits: list[None] | None
    ) -> None:
        """Hand a job to the thread or loop that will do it.

        Args:
            job: the job.
            permits: the list with its permit; None if it has the permit already.
        """
        backlog = job.backlog
        if self._finalizer is None and not _exit.over:
            _exit.wait_for(backlog)
            self._finalizer = weakref.finalize(self, backlog.stop)
            self._finalizer.atexit = False
        try:
            backlog.jobs[id(job)] = job
            if permits:
                job.permit.extend(map(list.pop, (permits,)))
            spec = job.entry.spec
            # Read only once the job is in `jobs`: a `close` or exit that begins later then waits
            # for the job. If one has happened already, no thread would take the job.
            if spec.is_async or self._is_closed or _exit.over:
                self._start_in_loop(job)
            elif spec.item is not None:
                backlog.batches.add(job, None)
            elif not backlog.workers.put(job):
                self._call_here(job)
        except BaseException as error:
            is_ours = False
            try:
                is_ours = job.claim()
                is_interrupted = is_interrupt(error)  # first, because `lose` clears the frames
                if is_ours:
                    job.lose("the handler could not be started", error)
            except RecursionError:  # no call of ours fits on the stack: only built-in ones do
                try:
                    job.ticket.pop()
                    is_ours = True
                except IndexError:  # a worker has begun with the job, or it was claimed above
                    pass
                if is_ours:
                    job.settle(NO_RESULT)
                    backlog.permits.free.extend(job.permit)
                    job.permit.clear()
                    backlog.in_loops.pop(id(job), None)
                    backlog.jobs.pop(id(job), None)
                raise
            # An error that keeps the job from starting is its failure; an interrupt is raised.
            is_timeout = isinstance(error, TimeoutError)  # an OSError that means something else
            if is_timeout or is_interrupted or not isinstance(error, _UNABLE):
                raise

    def _start_in_loop(self, job: Job) -> None:
        """Start a job in an event loop; an emitter whose loop and threads are gone calls it itself.

        So does the emitter of a plain handler, which comes here only if threads are over.
        """
        if not job.entry.spec.is_async:
            self._call_here(job)
            return
        backlog: Backlog = job.backlog
        threads_are_over = self._is_closed or _exit.over
        # The application's clients, pools and locks belong to its own loop.
        loop = applications_loop()
        theirs = loop or self.bound_loops.loop
        if theirs is not None:
            job.loop = theirs
            backlog.in_loops[id(job)] = job
        if job.subscription.batch is not None and not threads_are_over:
            backlog.batches.add(job, theirs)
        elif theirs is not None:
            if theirs is loop:
                job.begin()
            else:
                theirs.call_soon_threadsafe(job.begin)
        else:
            if not threads_are_over:
                job.loop = backlog.background_loop.get()
            if job.loop is not None:
                job.loop.call_soon_threadsafe(job.begin)
            else:
                job.run_in_place()

    def _call_here(self, job: Job) -> None:
        """Call a plain handler here, because no thread can."""
        job.release_permit()
        job.run_in_place()

    # Handlers that a thread waits for

    def check_open(self, event: str) -> None:
        """Refuse to deliver an event once the dispatcher is closed.

        Raises:
            DispatcherClosedError: the dispatcher has been closed.
        """
        if self._is_closed:
            raise DispatcherClosedError(
                f"{event} was delivered through a dispatcher that is closed: deliver before "
                "close(), or make a new EventDispatcher",
                event=event,
            )

    def loop_for_threads(self) -> AbstractEventLoop | None:
        """Return the loop in which a thread has async handlers run; None if none can run."""
        loop = self.bound_loops.loop
        if _exit.over:  # pragma: no cover  # the interpreter is exiting
            return loop
        backlog = self.backlog
        if self._finalizer is None:  # as in `_launch`: change both
            _exit.wait_for(backlog)
            self._finalizer = weakref.finalize(self, backlog.stop)
            self._finalizer.atexit = False
        return backlog.background_loop.get() if loop is None else loop

    def await_delivery(self, emission: Emission, loop: AbstractEventLoop | None, work: Work) -> str:
        """Have the handler of a delivery awaited, as `await_elsewhere` does; it is pending then.

        Raises:
            DispatcherClosedError: the dispatcher has been closed meanwhile.
            BaseException: as for `await_elsewhere`.
        """
        if loop is None:
            return await_elsewhere(None, work)
        backlog: Backlog = self.backlog
        frame: Any = ambient_frame_of(emission)
        try:
            try:
                backlog.deliveries[frame] = loop
                # Once more, because a `close` that began before this store did not see it.
                self.check_open(emission.event)
                return await_elsewhere(loop, work)
            finally:
                backlog.deliveries.pop(frame, None)
                backlog.changed.notify()
        except BaseException:
            backlog.deliveries.pop(frame, None)  # once more: an interrupt may have come before
            raise

    # Waiting for handlers

    def report_lost(self) -> None:
        """Record as failed the handlers that can never end, because their event loop is closed."""
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
            WouldDeadlockError: a pending handler waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        deadline = math.inf if timeout is None else monotonic() + timeout
        drain(self.backlog, timeout, "close", "await drain_async() first")
        self._is_closed = True
        # Once more, because other threads may have emitted in between.
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
        """Refuse to wait in this thread for an emission whose handlers need it.

        Raises:
            WouldDeadlockError: handlers of the emission need this thread.
        """
        check_waiting(self.backlog, emission)

    def check_awaiting(self, emission: Emission) -> None:
        """Refuse to wait for an emission whose handlers cannot end before the caller does.

        Raises:
            WouldDeadlockError: handlers of the emission cannot end before the caller does.
        """
        check_awaiting(self.backlog, emission)
