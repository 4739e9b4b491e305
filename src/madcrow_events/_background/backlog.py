"""The pending work of one process: handlers that no emitter waits for, and what runs them.

Nothing here waits for a lock, because a finalizer may emit in the middle of anything; what the
threads share are dictionaries, whose single operations cannot be interrupted.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from madcrow_events._background import exit as _exit
from madcrow_events._background.background_loop import BackgroundLoop
from madcrow_events._background.buffers import Batches
from madcrow_events._background.permits import Permits
from madcrow_events._background.threads import join_threads
from madcrow_events._background.workers import WorkerThreads
from madcrow_events._waiters import LOOK_EVERY, Waiters
from madcrow_events.emissions._frames import Branch, frames
from madcrow_events.emissions._outcomes import outcomes_of
from madcrow_events.exceptions import WouldDeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from madcrow_events._background.job import Job
    from madcrow_events.emissions import Emission

__all__ = ["Backlog"]

_loop_of = attrgetter("loop")


class Backlog:
    """The pending work of one process, and what works on it.

    Args:
        queue_size: how many handlers may wait.
        max_workers: how many threads to start at most.

    Attributes:
        jobs: what is pending.
        in_loops: those of the jobs that are in event loops of the application's.
        changed: those who wait until nothing is pending.
    """

    __slots__ = (
        "background_loop",
        "batches",
        "changed",
        "in_loops",
        "is_stopping",
        "jobs",
        "permits",
        "workers",
    )

    def __init__(self, queue_size: int, max_workers: int) -> None:
        self.jobs: dict[int, Job] = {}
        self.in_loops: dict[int, Job] = {}
        self.changed = Waiters(LOOK_EVERY)
        self.permits = Permits(queue_size)
        self.workers = WorkerThreads(max_workers)
        self.background_loop = BackgroundLoop()
        self.batches = Batches(self.permits, self.workers, self.background_loop)
        self.is_stopping = False

    # What is pending

    def is_done(self) -> bool:
        """Whether nothing is pending; what can never end any more has failed."""
        return not self.jobs or bool(self._report_lost() and not self.jobs)

    def is_hopeless(self) -> bool:
        """Whether nothing that is pending can still come to an end."""
        self._report_lost()
        return len(self.jobs) <= len(self.in_loops) and all(map(self.is_stopped, self._loops()))

    def is_stopped(self, loop: AbstractEventLoop | None) -> bool:
        """Whether an event loop is one of the application's, and does not run."""
        if loop is None or loop in self.background_loop.loops:
            return False
        return not (loop.is_running() or loop.is_closed())

    def jobs_of(self, emission: Emission) -> list[Job]:
        """Return what is pending of an emission."""
        jobs, outcomes = list(self.jobs.values()), outcomes_of(emission)
        return [job for job in jobs if job.outcomes is outcomes]

    def enclosing_jobs(self) -> list[Job]:
        """Return the jobs in which the caller runs."""
        jobs = [frame.job for frame in frames() if isinstance(frame, Branch)]
        return [job for job in jobs if job is not None and job.backlog is self]

    def _report_lost(self) -> int:
        """Record as failed what can never end any more; return how many those are."""
        closed = {loop for loop in self._loops() if loop is not None and loop.is_closed()}
        lost = [job for job in self._jobs_in_loops() if job.loop in closed] if closed else []
        for job in lost:
            job.lose_with_loop()
        return len(lost)

    def _jobs_in_loops(self) -> list[Job]:
        return list(self.in_loops.values())

    def _loops(self) -> set[AbstractEventLoop | None]:
        """Return the event loops of what is held: few, while that may fill the queue."""
        return set(map(_loop_of, self._jobs_in_loops()))

    # Permits, where none is free

    def make_room(self, number: int, permits: list[None]) -> bool:
        """Release what can be released, and acquire permits then.

        Args:
            number: how many.
            permits: what they are put into, which is empty.

        Returns:
            Whether there were as many; if not, none is acquired.
        """
        self.batches.schedule()  # what waits for more releases its permits
        return bool(self._report_lost()) and (
            self.permits.acquire(number, permits) or self.make_room(number, permits)
        )

    def acquire_one(self, permits: list[None]) -> bool:
        """Acquire a permit if one is free.

        Args:
            permits: what it is put into, which is empty.

        Raises:
            WouldDeadlockError: none will ever be.
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
        """Let the threads end when they have nothing to do any more."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.batches.timer.stop()
        self.workers.stop()
        self.background_loop.stop()
        _exit.forget(self)

    def join(self, deadline: float) -> None:
        """Wait until the threads have ended, after `stop`, or until the clock shows `deadline`."""
        others = self.background_loop.thread, self.batches.timer.thread
        join_threads([*self.workers.threads, *others], deadline)

    def leave_to_parent(self) -> None:
        """Let nothing more be done of it, in a forked child, where its threads are not."""
        self.workers.forked = self.batches.timer.forked = True
        _exit.forget(self)
