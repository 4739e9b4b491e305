"""The threads that call plain handlers, and the queue that they take those from.

Nothing here waits for a lock, because a finalizer may emit in the middle of anything; what the
threads share are lists and a `SimpleQueue`, whose single operations cannot be interrupted.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from madcrow_events._background.threads import start_thread
from madcrow_events._logs import log
from madcrow_events._text import type_name

if TYPE_CHECKING:
    import threading

    from madcrow_events._background.buffers import Turn
    from madcrow_events._background.job import Job

__all__ = ["WorkerThreads"]


class WorkerThreads:
    """The threads that call plain handlers; each is started when it is first needed.

    Args:
        max_workers: how many to start at most.

    Attributes:
        queue: what no thread has begun with; None lets one thread end.
        idle: a mark for each thread that waits for work.
        forked: whether this process was forked, so that the queue is its parent's.
    """

    __slots__ = ("forked", "idle", "queue", "startable", "threads")

    def __init__(self, max_workers: int) -> None:
        self.queue: SimpleQueue[Job | Turn | None] = SimpleQueue()
        self.startable: list[None] = [None] * max_workers
        self.idle: list[object] = []
        self.threads: list[threading.Thread] = []
        self.forked = False

    def start_a_thread(self) -> None:
        """Start a thread if there is none."""
        if not self.threads:
            self._start_thread()

    def put(self, work: Job | Turn) -> bool:
        """Give work to a thread; return whether there is one."""
        self.start_a_thread()
        if not self.threads:
            return False
        self.queue.put(work)
        self.start_enough_threads()
        if not self.threads:  # the start of the only one has failed in this very moment
            self._rescue()
        return True

    def start_enough_threads(self) -> None:
        """Start a thread if more jobs are queued than threads wait for one."""
        if self.startable and self.queue.qsize() > len(self.idle):
            self._start_thread()

    def _start_thread(self) -> None:
        """Start a thread, if one more may be started."""
        # Among the threads before it runs, so that another emitter queues its job for it meanwhile.
        try:
            start_thread(_work, "madcrow-events-worker", self.startable, self.threads, self)
        finally:
            if not self.threads:
                self._rescue()

    def _rescue(self) -> None:
        """See to what was queued for a thread that then could not be started."""
        if not self.queue.qsize() or start_thread(
            _work, "madcrow-events-worker", self.startable, self.threads, self
        ):
            return
        taken: list[Job | Turn | None] = []
        while not self.threads and self.queue.qsize():
            with suppress(Empty):  # another emitter was faster
                taken.extend(map(self.queue.get, (False,)))
            _work_off_here(taken)

    def stop(self) -> None:
        """Let the threads end when they have nothing to do any more."""
        for _ in self.threads:
            self.queue.put(None)


def _work(workers: WorkerThreads) -> None:
    """Take from the queue until it is stopped; the target of each thread.

    Whatever is raised here ends what was taken, and not the worker: a task queue's time limit
    comes up anywhere.
    """
    taken: list[Job | Turn | None] = []
    caught: BaseException | None = None
    while True:
        try:
            if caught is not None:  # here, for that may be interrupted, too
                _lose(taken, caught)
                caught = None
            _work_until_stopped(workers, taken)
        except BaseException as error:  # the next job must find its worker
            caught = error
        else:
            return


def _work_until_stopped(workers: WorkerThreads, taken: list[Job | Turn | None]) -> None:
    while not workers.forked:
        if _take(workers, taken) is None:
            return
        # Again, for this thread was still counted as idle a moment ago.
        workers.start_enough_threads()
        _work_off(taken)


def _work_off_here(taken: list[Job | Turn | None]) -> None:
    """Do what was taken from the queue, in the place of a worker; whatever it is interrupted by."""
    try:
        _work_off(taken)
    except BaseException as error:
        _lose(taken, error)
        raise


def _work_off(taken: list[Job | Turn | None]) -> None:
    job: Job | Turn | None
    for job in [it for it in taken if it is not None]:
        job.work_off()
    taken.clear()
    job = None  # which the traceback of a failure would keep


def _lose(taken: list[Job | Turn | None], error: BaseException) -> None:
    for job in [it for it in taken if it is not None]:
        job.lose("it was interrupted", error)
    taken.clear()
    log(logging.ERROR, "a background worker was interrupted by %s", type_name(type(error)))


def _take(workers: WorkerThreads, taken: list[Job | Turn | None]) -> Job | Turn | None:
    """Wait for work; return it, and put it into a list in the step that takes it from the queue."""
    mark = object()
    try:
        workers.idle.append(mark)
        taken.extend(map(SimpleQueue.get, (workers.queue,)))
    finally:
        try:  # nothing may come before that could be interrupted
            workers.idle.remove(mark)
        except ValueError:
            pass
    return taken[0]
