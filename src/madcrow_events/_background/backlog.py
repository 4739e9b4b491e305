"""The pending work of one process: handlers that no emitter waits for, and what runs them.

Nothing here waits for a lock, because a finalizer may emit in the middle of anything. Threads
share dictionaries only, whose single operations cannot be interrupted.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from madcrow_events._background import exit as _exit
from madcrow_events._background.background_loop import BackgroundLoop
from madcrow_events._background.buffers import Batches
from madcrow_events._background.handing_over import hands_over
from madcrow_events._background.permits import Permits
from madcrow_events._background.threads import join_threads
from madcrow_events._background.workers import WorkerThreads
from madcrow_events._waiters import LOOK_EVERY, Waiters
from madcrow_events.emissions._frames import AmbientFrame, Branch, waiting_frames
from madcrow_events.emissions._outcomes import outcomes_of
from madcrow_events.exceptions import WouldDeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events._background.job import Job
    from madcrow_events.emissions import Emission

__all__ = ["Backlog"]

_loop_of = attrgetter("loop")


class Backlog:
    """The pending work of one process, and the threads and loops that do it.

    Args:
        queue_size: how many handlers may wait.
        max_workers: how many threads to start at most.

    Attributes:
        jobs: the jobs that are pending.
        in_loops: those of them that run in event loops of the application.
        deliveries: the loops of async handlers that a thread waits for, by the frame of each.
        changed: the callers that wait until nothing is pending.
    """

    __slots__ = (
        "background_loop",
        "batches",
        "changed",
        "deliveries",
        "in_loops",
        "is_stopping",
        "jobs",
        "permits",
        "workers",
    )

    def __init__(self, queue_size: int, max_workers: int) -> None:
        self.jobs: dict[int, Job] = {}
        self.in_loops: dict[int, Job] = {}
        self.deliveries: dict[AmbientFrame, AbstractEventLoop] = {}
        self.changed = Waiters(LOOK_EVERY)
        self.permits = Permits(queue_size)
        self.workers = WorkerThreads(max_workers)
        self.background_loop = BackgroundLoop()
        self.batches = Batches(self.permits, self.workers, self.background_loop)
        self.is_stopping = False

    # What is pending

    def is_done(self) -> bool:
        """Whether nothing is pending; jobs that can never end count as failed from now on."""
        return not (self.jobs or self.deliveries) or bool(
            self._report_lost() and not (self.jobs or self.deliveries)
        )

    def is_hopeless(self) -> bool:
        """Whether nothing that is pending can still end."""
        self._report_lost()
        if self.deliveries:  # one whose loop has stopped ends by itself
            return False
        return len(self.jobs) <= len(self.in_loops) and all(map(self.is_stopped, self._loops()))

    def is_stopped(self, loop: AbstractEventLoop | None) -> bool:
        """Whether an event loop is one of the application's, and does not run."""
        if loop is None or loop in self.background_loop.loops:
            return False
        return not (loop.is_running() or loop.is_closed())

    def jobs_of(self, emission: Emission) -> list[Job]:
        """Return the pending jobs of an emission."""
        jobs, outcomes = list(self.jobs.values()), outcomes_of(emission)
        return [job for job in jobs if job.outcomes is outcomes]

    def enclosing_jobs(self) -> list[Job]:
        """Return the jobs in which the caller runs."""
        jobs = [frame.job for frame in waiting_frames() if isinstance(frame, Branch)]
        return [job for job in jobs if job is not None and job.backlog is self]

    def has_caller(self) -> bool:
        """Whether the caller runs in a handler that is pending."""
        return bool(self.enclosing_jobs()) or any(
            isinstance(frame, AmbientFrame) and frame in self.deliveries
            for frame in waiting_frames()
        )

    def _report_lost(self) -> int:
        """Record as failed the jobs that can never end, and return their number."""
        closed = {loop for loop in self._loops() if loop is not None and loop.is_closed()}
        lost = [job for job in self._jobs_in_loops() if job.loop in closed] if closed else []
        for job in lost:
            job.lose_with_loop()
        return len(lost)

    def _jobs_in_loops(self) -> list[Job]:
        return list(self.in_loops.values())

    def _loops(self) -> set[AbstractEventLoop | None]:
        """Return the event loops of these jobs: few, even if the jobs fill the queue."""
        return set(map(_loop_of, self._jobs_in_loops()))

    # Permits, when none is free

    def make_room(self, number: int, permits: list[None]) -> bool:
        """Free permits that jobs need no longer, and acquire some of them.

        Args:
            number: how many permits to acquire.
            permits: an empty list, which gets them.

        Returns:
            Whether so many were free; if not, none is acquired.
        """
        self.batches.schedule()  # batches that wait for more contexts release their permits
        return bool(self._report_lost()) and (
            self.permits.acquire(number, permits) or self.make_room(number, permits)
        )

    @hands_over("permits")
    def acquire_one(self, permits: list[None]) -> bool:
        """Acquire a permit if one is free.

        Args:
            permits: an empty list, which gets it.

        Returns:
            Whether one was free.

        Raises:
            WouldDeadlockError: none will ever be free.
        """
        if self.permits.acquire(1, permits) or self.make_room(1, permits):
            return True
        stopped = {loop for loop in self._loops() if self.is_stopped(loop)}
        stuck = [job for job in self._jobs_in_loops() if job.loop in stopped] if stopped else ()
        if len(stuck) >= self.permits.queue_size:
            raise WouldDeadlockError(
                "the queue is full of handlers in an event loop that does not run: run it, or "
                "await drain_async() before it ends"
            )
        return False

    # The end

    def stop(self) -> None:
        """Let the threads end as soon as their work is done."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.batches.timer.stop()
        self.workers.stop()
        self.background_loop.stop()
        _exit.forget(self)

    def join(self, deadline: float) -> None:
        """Wait, after `stop`, until the threads have ended or the clock shows `deadline`."""
        others = self.background_loop.thread, self.batches.timer.thread
        join_threads([*self.workers.threads, *others], deadline)

    def leave_to_parent(self) -> None:
        """Do no more of this work: it is the parent's, and this is a forked child."""
        self.workers.forked = self.batches.timer.forked = True
        _exit.forget(self)
