"""The contexts that wait for handlers of batches, and the turns in which these are called.

One batch of a handler runs at a time, so that contexts stay in their order. Nothing here waits
for a lock, because a finalizer may emit in the middle of anything. The thread that gets the lease
of a buffer calls the handler, releases the lease, and looks whether another batch is due by then.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from madcrow_events._background.batching import (
    call_batch_async,
    call_batch_here,
    lose_batch,
    release_permits,
)
from madcrow_events._background.handing_over import hands_over
from madcrow_events._background.timer import Timer
from madcrow_events._clock import monotonic
from madcrow_events._logs import log
from madcrow_events._moves import move_first, move_last
from madcrow_events._text import type_name
from madcrow_events.emissions._lazy_asyncio import load_async_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable

    from madcrow_events._background.background_loop import BackgroundLoop
    from madcrow_events._background.job import Job
    from madcrow_events._background.permits import Permits
    from madcrow_events._background.workers import WorkerThreads
    from madcrow_events.batches import Batch
    from madcrow_events.emissions._plan import Subscribed

__all__ = ["BatchBuffer", "Batches", "Turn"]


class Batches:
    """The buffers of one process, and the threads and loops that handle their batches.

    Args:
        permits: the permits of the queue; when none is free, batches are handled at once.
        workers: the threads that call plain handlers.
        background_loop: the loop of async handlers that have none of the application's.

    Attributes:
        buffers: the buffers, by the ids of the subscription and the loop.
        flushing: a mark for each caller that waits for all batches.
    """

    __slots__ = (
        "__weakref__",
        "background_loop",
        "buffers",
        "flushing",
        "permits",
        "timer",
        "workers",
    )

    def __init__(
        self, permits: Permits, workers: WorkerThreads, background_loop: BackgroundLoop
    ) -> None:
        self.permits = permits
        self.workers = workers
        self.background_loop = background_loop
        self.buffers: dict[tuple[int, int], BatchBuffer] = {}
        self.flushing: list[object] = []
        self.timer = Timer(self.buffers)

    def add(self, job: Job, loop: AbstractEventLoop | None) -> None:
        """Add a context to the next batch of its handler.

        Args:
            job: the handler and the context.
            loop: the application's loop in which an async handler runs; None for our own.
        """
        owner = job.entry.owner
        key = (id(owner), id(loop))
        buffer = self.buffers.get(key)  # it holds the loop, whose id then is not reused
        if buffer is None or buffer.owner() is not owner:
            limits: Any = owner.batch
            made = BatchBuffer(self, limits, loop, is_async=job.entry.spec.is_async)
            made.owner = weakref.ref(owner, _forget(weakref.ref(self), key))
            if buffer is not None:  # its owner is gone; an interrupt kept `_forget` from running
                self.buffers.pop(key, None)
            buffer = self.buffers.setdefault(key, made)  # another thread may be faster
            self._forget_closed_loops()
        job.due = monotonic() + buffer.limits.max_wait
        # The thread is started now, because none can be started at the exit any more.
        if not buffer.is_async:
            self.workers.ensure_thread()
        elif loop is None:
            job.loop = self.background_loop.get()
        waiting = buffer.waiting
        waiting.append(job)
        # `schedule` only if it may have something to do: a batch is full and nobody has the lease,
        # or batches are handled at once (as `is_flushing`), or no alarm is set. Whoever has the
        # lease looks for more batches at its end, and an alarm sees to `max_wait`.
        if (
            (len(waiting) >= buffer.limits.max_size and buffer.lease)
            or self.flushing
            or not self.permits.free
            or not buffer.is_alarmed
        ):
            buffer.schedule()

    def _forget_closed_loops(self) -> None:
        # Not of `items()`: making its pairs may run finalizers, and these change the dictionary.
        for key in list(self.buffers):
            buffer = self.buffers.get(key)
            if buffer is not None and buffer.is_over():
                self.buffers.pop(key, None)

    def is_flushing(self) -> bool:
        """Whether batches are handled at once: a caller waits for all, or the queue is full."""
        return bool(self.flushing) or not self.permits.free

    def schedule(self) -> None:
        """Let the batches that are due be handled, and set alarms for the others."""
        for buffer in list(self.buffers.values()):
            buffer.schedule()

    def flush_now(self, mark: object = None) -> None:
        """Handle batches at once from now on, however few contexts they have.

        Args:
            mark: an object that the caller takes out of `flushing` to end this.
        """
        self.flushing.append(mark)
        self.schedule()


def _forget(reference: weakref.ref[Batches], key: tuple[int, int]) -> Callable[[Any], None]:
    """Return a weak-reference callback that forgets the buffer of a subscription."""

    def gone(_: object) -> None:
        batches = reference()
        if batches is not None:
            batches.buffers.pop(key, None)

    return gone


class BatchBuffer:
    """The contexts that wait for the next batch of one subscription, in one process.

    Args:
        batches: the buffers of that process.
        limits: the subscription's option `batch`.
        loop: the application's loop in which an async handler runs; None for our own.
        is_async: whether the handler is async.

    Attributes:
        owner: the subscription, held weakly here, and strongly by the contexts that wait.
        is_alarmed: whether an alarm is set for the next batch.
        lease: holds one thing, which is moved to the turn that may handle the next batch.
    """

    __slots__ = (
        "__weakref__",
        "batches",
        "is_alarmed",
        "is_async",
        "lease",
        "limits",
        "loop",
        "owner",
        "waiting",
    )

    def __init__(
        self, batches: Batches, limits: Batch, loop: AbstractEventLoop | None, *, is_async: bool
    ) -> None:
        self.batches = batches
        self.loop = loop
        self.limits = limits
        self.is_async = is_async
        self.owner: weakref.ref[Subscribed]
        self.waiting: deque[Job] = deque()
        self.lease: list[None] = [None]
        self.is_alarmed = False

    def is_over(self) -> bool:
        """Whether the event loop is closed, and nothing waits here any more."""
        return self.loop is not None and self.loop.is_closed() and not self.waiting

    @hands_over("batches.permits")
    def schedule(self) -> None:
        """Hand over the next batch if it is due; if not, set an alarm for it."""
        turn: Turn | None = None
        while self._is_due():
            turn = turn or Turn(self)
            try:
                move_last(self.lease, turn.lease)
                if self._is_due() and self._hand_over(turn):
                    return
            except IndexError:  # another thread has the turn, and will look for more batches
                return
            except BaseException as error:  # the emitter is interrupted, or the stack is full
                turn.release()
                if turn.jobs:
                    turn.lose("the handler was interrupted", error)
                raise
            turn.release()
        self._set_alarm()

    def _is_due(self) -> bool:
        waiting = self.waiting
        try:
            first = waiting[0]
        except IndexError:
            return False
        return (
            len(waiting) >= self.limits.max_size
            or self.batches.is_flushing()
            or first.due <= monotonic()
        )

    def _set_alarm(self) -> None:
        # One alarm at a time is enough: the next one is set when it has come due.
        if not self.is_alarmed:
            try:
                due = self.waiting[0].due
            except IndexError:
                return
            self.is_alarmed = True
            try:
                if not self.batches.timer.set_alarm(due, self):
                    self.batches.flush_now()  # no timer runs that would handle it later
            except BaseException:
                self.is_alarmed = False
                raise

    def come_due(self) -> None:
        """Schedule the batch whose alarm has come due."""
        self.is_alarmed = False
        self.schedule()

    def _hand_over(self, turn: Turn) -> bool:
        """Hand a turn to a thread or the loop; if neither can take it, handle the batch here.

        Returns:
            Whether it was handed over.
        """
        if not self.is_async:
            if self.batches.workers.put(turn):
                return True
        else:
            loop = self.loop or self.batches.background_loop.get()
            if loop is not None and not self._has_lost_loop():
                loop.call_soon_threadsafe(turn.begin, loop, context=Context())
                return True
        turn.handle()
        return False

    def _has_lost_loop(self) -> bool:
        """Whether the application's loop is closed; if so, report its contexts as lost."""
        if self.loop is None or not self.loop.is_closed():
            return False
        for job in list(self.waiting):
            job.lose_with_loop()
        return True


class Turn:
    """A turn to handle the next batch of a buffer; one turn at a time has the buffer's lease.

    Attributes:
        lease: the lease; empty if another turn, or the buffer, has it.
        jobs: the batch, as taken from the buffer.
    """

    __slots__ = ("_begun", "_buffer", "jobs", "lease")

    def __init__(self, buffer: BatchBuffer) -> None:
        self._buffer = buffer
        self._begun: Turn | None = None  # the turn of the worker that has taken this one over
        self.jobs: list[Job] = []
        self.lease: list[None] = []

    def release(self) -> None:
        """Release the lease, unless the thread that got this turn has taken the lease over."""
        # With no deeper calls than those that took it, because the stack may be full.
        try:
            self._buffer.lease.extend(map(list.pop, (self.lease,)))
        except IndexError:
            pass

    def take_batch(self) -> list[Job]:
        """Take as many waiting jobs as fit into a batch; return them."""
        buffer = self._buffer
        with suppress(IndexError):
            move_first(buffer.waiting, self.jobs, buffer.limits.max_size)
        jobs = []
        for job in self.jobs:
            try:  # as `claim` does, without its call
                job.ticket.pop()
            except IndexError:  # it is lost, because its emitter was interrupted
                continue
            jobs.append(job)
        return jobs

    def handle(self) -> None:
        """Call the handler with the next batch, in this thread."""
        jobs = self.take_batch()
        release_permits(jobs)
        call_batch_here(jobs)
        self.jobs.clear()

    def work_off(self) -> None:
        """Handle a batch in a worker."""
        # Noted before the lease moves, because a worker that is interrupted calls `lose`.
        ours = self._begun = Turn(self._buffer)
        try:
            move_last(self.lease, ours.lease)
        except IndexError:  # it was taken back
            return
        ours.handle()
        ours.end()

    def begin(self, loop: AbstractEventLoop) -> None:
        """Start a task that handles a batch; called in the loop's thread."""
        ours = Turn(self._buffer)
        try:
            move_last(self.lease, ours.lease)
        except IndexError:  # it was taken back
            return
        try:
            ours._begin(loop)
        except BaseException as error:
            ours.lose("the handler was interrupted", error)
            raise

    def _begin(self, loop: AbstractEventLoop) -> None:
        jobs = self.take_batch()
        make = load_async_loop().asyncio.Task
        task = make(call_batch_async(jobs), loop=loop, context=Context())
        for job in jobs:
            job.task = task
        task.add_done_callback(self._task_is_done, context=Context())

    def _task_is_done(self, task: Task[None]) -> None:
        """End the turn; report the batch if its task was cancelled or broken off."""
        if task.cancelled():
            lose_batch(self.jobs, "the handler's task was cancelled")
        else:
            error = task.exception()
            if error is not None:
                lose_batch(self.jobs, "the handler's task was broken off", error)
                log(
                    logging.ERROR, "a background task was interrupted by %s", type_name(type(error))
                )
        self.end()

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Report the batch as lost: its call was broken off."""
        if self._begun is not None:
            self._begun.lose(reason, cause)
        lose_batch(self.jobs, reason, cause)
        self.end()

    def end(self) -> None:
        """End the turn, and schedule the next batch."""
        self.jobs.clear()  # or they keep handlers alive that nothing else does
        self.release()
        self._buffer.schedule()
