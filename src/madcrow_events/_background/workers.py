"""The threads that call plain handlers, and the queue from which they take their work.

Nothing here waits for a lock, because a finalizer may emit in the middle of anything. Threads
share lists and a `SimpleQueue` only, whose single operations cannot be interrupted.
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
        queue: the work that no thread has begun; None ends one thread.
        startable: one entry for each thread that may still be started.
        idle: a mark for each thread that waits for work.
        threads: the threads that were started.
        forked: whether this process was forked, so that the queue is its parent's.
    """

    __slots__ = ("forked", "idle", "queue", "startable", "threads")

    def __init__(self, max_workers: int) -> None:
        self.queue: SimpleQueue[Job | Turn | None] = SimpleQueue()
        self.startable: list[None] = [None] * max_workers
        self.idle: list[object] = []
        self.threads: list[threading.Thread] = []
        self.forked = False

    def ensure_thread(self) -> None:
        """Start a thread, unless one runs."""
        if not self.threads:
            self._start_thread()

    def put(self, work: Job | Turn) -> bool:
        """Queue work for a thread; return whether a thread can take it."""
        if not self.threads:
            self._start_thread()
            if not self.threads:
                return False
        self.queue.put(work)
        if self.startable:
            self.start_enough_threads()
        if not self.threads:  # starting the only one has failed just now
            self._rescue()
        return True

    def start_enough_threads(self) -> None:
        """Start a thread if more work is queued than threads are idle."""
        if self.startable and self.queue.qsize() > len(self.idle):
            self._start_thread()

    def _start_thread(self) -> None:
        """Start a thread, if one more may be started."""
        # It is entered before it runs, so that other emitters can queue their work meanwhile.
        try:
            start_thread(_work, "madcrow-events-worker", self.startable, self.threads, self)
        finally:
            if not self.threads:
                self._rescue()

    def _rescue(self) -> None:
        """Do the work here that was queued for a thread that could not be started."""
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
        """Let the threads end as soon as their work is done."""
        for _ in self.threads:
            self.queue.put(None)


def _work(workers: WorkerThreads) -> None:
    """Do the work of the queue until the threads are stopped; the target of each thread.

    An exception ends the work that was taken, and not the worker: a task queue may raise its
    time limit anywhere.
    """
    taken: list[Job | Turn | None] = []
    caught: BaseException | None = None
    while True:
        try:
            if caught is not None:  # inside of the `try`, because this may be interrupted, too
                _lose(taken, caught)
                caught = None
            _work_until_stopped(workers, taken)
        except BaseException as error:  # the worker must go on for later jobs
            caught = error
        else:
            return


def _work_until_stopped(workers: WorkerThreads, taken: list[Job | Turn | None]) -> None:
    while not workers.forked:
        if _take(workers, taken) is None:
            return
        # Once more, because `put` may have counted this thread as idle.
        workers.start_enough_threads()
        _work_off(taken)


def _work_off_here(taken: list[Job | Turn | None]) -> None:
    """Do work of the queue in the emitter's thread; report it as lost if it is interrupted."""
    try:
        _work_off(taken)
    except BaseException as error:
        _lose(taken, error)
        raise


def _work_off(taken: list[Job | Turn | None]) -> None:
    job: Job | Turn | None
    for job in taken:
        if job is not None:
            job.work_off()
    taken.clear()
    job = None  # or the traceback of a failure keeps it alive


def _lose(taken: list[Job | Turn | None], error: BaseException) -> None:
    for job in [it for it in taken if it is not None]:
        job.lose("the handler was interrupted", error)
    taken.clear()
    log(logging.ERROR, "a background worker was interrupted by %s", type_name(type(error)))


def _take(workers: WorkerThreads, taken: list[Job | Turn | None]) -> Job | Turn | None:
    """Wait for work; return it, and enter it in `taken` in the step that takes it."""
    if workers.queue.qsize():
        try:
            taken.extend(map(SimpleQueue.get, (workers.queue,), (False,)))
            return taken[0]
        except Empty:  # another worker was faster
            pass
    mark = object()
    try:
        workers.idle.append(mark)
        taken.extend(map(SimpleQueue.get, (workers.queue,)))
    finally:
        try:  # first, because an interrupt may come between any two steps
            workers.idle.remove(mark)
        except ValueError:
            pass
    return taken[0]
