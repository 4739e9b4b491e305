"""What waits for handlers that take batches, and whose turn it is to handle the next batch.

One batch of a handler runs at a time, so that contexts stay in their order. Nothing here waits
for a lock, because a finalizer may emit in the middle of anything: whoever takes the lease of a
buffer calls the handler, and looks again, after releasing it, at what has come in meanwhile.
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
    """The buffers of one process, and what handles the batches in them.

    Args:
        permits: those of the queue; no batch waits for more when none is free.
        workers: what calls plain handlers.
        background_loop: what calls async handlers that have no loop of the application's.

    Attributes:
        buffers: by the ids of the subscription and the loop.
        flushing: a mark for each who waits for all batches.
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
        """Let a context wait for the next batch of its handler.

        Args:
            job: the handler and the context.
            loop: the application's loop in which an async handler runs; None for our own.
        """
        owner = job.owner
        key = (id(owner), id(loop))
        buffer = self.buffers.get(key)  # which holds the loop, so that its id is not reused
        if buffer is None or buffer.owner() is not owner:
            limits: Any = owner.batch
            made = BatchBuffer(self, limits, loop, is_async=job.entry.spec.is_async)
            made.owner = weakref.ref(owner, _forget(weakref.ref(self), key))
            if buffer is not None:  # of one that is gone: an interrupt kept that from being told
                self.buffers.pop(key, None)
            buffer = self.buffers.setdefault(key, made)  # another thread may be faster
            self._forget_closed_loops()
        buffer.add(job)

    def _forget_closed_loops(self) -> None:
        # Not of `items()`: to make pairs may run finalizers, which let others be forgotten.
        for key in list(self.buffers):
            buffer = self.buffers.get(key)
            if buffer is not None and buffer.is_over():
                self.buffers.pop(key, None)

    def is_flushing(self) -> bool:
        """Whether no batch waits for more: somebody waits for all, or the queue is full."""
        return bool(self.flushing) or not self.permits.free

    def schedule(self) -> None:
        """Let what waits for a batch be handled, as far as it is due."""
        for buffer in list(self.buffers.values()):
            buffer.schedule()

    def flush_now(self, mark: object = None) -> None:
        """Let no batch wait for more from now on.

        Args:
            mark: what is taken out of `flushing` to end that.
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
    """What waits for the next batch of one subscription, in the work of one process.

    Args:
        batches: the buffers of that process.
        limits: the subscription's option.
        loop: the application's loop in which an async handler runs; None for our own.
        is_async: whether its handler is.

    Attributes:
        owner: the subscription, held weakly; what waits holds it.
        lease: for whoever has the turn to handle the next batch.
    """

    __slots__ = (
        "__weakref__",
        "_is_alarmed",
        "batches",
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
        self._is_alarmed = False

    def is_over(self) -> bool:
        """Whether nothing waits here, and nothing will, for the event loop is closed."""
        return self.loop is not None and self.loop.is_closed() and not self.waiting

    def add(self, job: Job) -> None:
        """Let a context wait for the next batch."""
        job.due = monotonic() + self.limits.max_wait
        # Who handles it begins now, for at the exit no thread can be started any more.
        if not self.is_async:
            self.batches.workers.start_a_thread()
        elif self.loop is None:
            job.loop = self.batches.background_loop.get()
        self.waiting.append(job)
        self.schedule()

    def schedule(self) -> None:
        """See to it that what waits is handled in time: now if it is due, else when it will be."""
        turn = Turn(self)
        while self._is_due():
            try:
                move_last(self.lease, turn.lease)
                if self._is_due() and self._hand_over(turn):
                    return
            except IndexError:  # whoever has the turn looks again
                return
            except BaseException as error:  # the emitter is interrupted, or the stack is full
                turn.release()
                if turn.jobs:
                    turn.lose("it was interrupted", error)
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
        # One at a time will do: when it has come due, the next is set.
        if not self._is_alarmed:
            try:
                due = self.waiting[0].due
            except IndexError:
                return
            self._is_alarmed = True
            try:
                if not self.batches.timer.set_alarm(due, self):
                    self.batches.flush_now()  # for nobody will look when it is due
            except BaseException:
                self._is_alarmed = False
                raise

    def come_due(self) -> None:
        """Look, for an alarm has come due."""
        self._is_alarmed = False
        self.schedule()

    def _hand_over(self, turn: Turn) -> bool:
        """Let a thread or the loop have the turn; else handle the batch here."""
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
        """Whether the application's loop is closed; then what waits for it is reported as lost."""
        if self.loop is None or not self.loop.is_closed():
            return False
        for job in list(self.waiting):
            job.lose_with_loop()
        return True


class Turn:
    """The turn to handle the next batch of a buffer, which one has at a time.

    Attributes:
        lease: what makes it the turn; empty if somebody else has that.
        jobs: what was taken of what waits.
    """

    __slots__ = ("_begun", "_buffer", "jobs", "lease")

    def __init__(self, buffer: BatchBuffer) -> None:
        self._buffer = buffer
        self._begun: Turn | None = None  # the same turn, of whoever has begun with it
        self.jobs: list[Job] = []
        self.lease: list[None] = []

    def release(self) -> None:
        """Let others have the turn, unless whoever it was handed to has begun already."""
        # No deeper than what took it, for the stack may be full.
        try:
            self._buffer.lease.extend(map(list.pop, (self.lease,)))
        except IndexError:
            pass

    def take_batch(self) -> list[Job]:
        """Take over what waits, as much as fits into a batch; return it."""
        buffer = self._buffer
        with suppress(IndexError):
            move_first(buffer.waiting, self.jobs, buffer.limits.max_size)
        # Without what was lost, for its emitter was interrupted.
        return [job for job in self.jobs if job.claim()]

    def handle(self) -> None:
        """Call the handler with a batch."""
        jobs = self.take_batch()
        release_permits(jobs)
        call_batch_here(jobs)
        self.jobs.clear()

    def work_off(self) -> None:
        """Handle a batch, in a worker."""
        # Known before it begins, for a worker that is interrupted anywhere calls `lose`.
        ours = self._begun = Turn(self._buffer)
        try:
            move_last(self.lease, ours.lease)
        except IndexError:  # it was taken back
            return
        ours.handle()
        ours.end()

    def begin(self, loop: AbstractEventLoop) -> None:
        """Make a task of an async handler's batch; called in the loop's thread."""
        ours = Turn(self._buffer)
        try:
            move_last(self.lease, ours.lease)
        except IndexError:  # it was taken back
            return
        try:
            ours._begin(loop)
        except BaseException as error:
            ours.lose("it was interrupted", error)
            raise

    def _begin(self, loop: AbstractEventLoop) -> None:
        jobs = self.take_batch()
        make = load_async_loop().asyncio.Task
        task = make(call_batch_async(jobs), loop=loop, context=Context())
        for job in jobs:
            job.task = task
        task.add_done_callback(self._task_is_done, context=Context())

    def _task_is_done(self, task: Task[None]) -> None:
        """Go on, and report a task that was cancelled before it began, or was broken off."""
        if task.cancelled():
            lose_batch(self.jobs, "its task was cancelled")
        else:
            error = task.exception()
            if error is not None:
                lose_batch(self.jobs, "its task was broken off", error)
                log(
                    logging.ERROR, "a background task was interrupted by %s", type_name(type(error))
                )
        self.end()

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Report what was taken from what waits, and will not come to its end."""
        if self._begun is not None:
            self._begun.lose(reason, cause)
        lose_batch(self.jobs, reason, cause)
        self.end()

    def end(self) -> None:
        """Let others have the turn, and look whether one more batch is due."""
        self.jobs.clear()  # which hold handlers, perhaps longer than those live elsewhere
        self.release()
        self._buffer.schedule()
