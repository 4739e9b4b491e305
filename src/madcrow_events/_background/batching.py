"""Gathering what waits for a handler that takes batches, and calling it (B3).

One batch of a handler runs at a time, so that contexts stay in their order. As in `backlog`,
nothing here waits for a lock: who takes the token of a gathering calls the handler, and whoever
gives it back looks again at what has come in meanwhile.
"""

from __future__ import annotations

import time
from collections import deque
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._logs import log_unannounced
from madcrow_events.emissions._frames import CURRENT, Surroundings
from madcrow_events.emissions._lazy_asyncio import load_async_loop, running_loop
from madcrow_events.emissions._observing import watching_handler
from madcrow_events.emissions._outcomes import PENDING
from madcrow_events.emissions._recording import keep_value, record_in_batch
from madcrow_events.exceptions import HandlerCancelledError

if TYPE_CHECKING:
    import weakref
    from asyncio import AbstractEventLoop, Task

    from madcrow_events._background.backlog import Backlog
    from madcrow_events._background.job import Job
    from madcrow_events.batches import Batch
    from madcrow_events.emissions import HandlerFailure
    from madcrow_events.subscriptions import Subscription

__all__ = ["Gathering", "call_batch_here"]


class Gathering:
    """What waits for the next batch of one subscription, in the work of one process.

    Args:
        backlog: that work.
        limits: the subscription's option.
        is_async: whether its handler is.

    Attributes:
        owner: the subscription, held weakly; what waits holds it.
    """

    __slots__ = (
        "__weakref__",
        "_handed_over",
        "_is_alarmed",
        "_token",
        "_waiting",
        "backlog",
        "is_async",
        "limits",
        "owner",
    )

    def __init__(self, backlog: Backlog, limits: Batch, *, is_async: bool) -> None:
        self.backlog = backlog
        self.limits = limits
        self.is_async = is_async
        self.owner: weakref.ref[Subscription] | None = None
        self._waiting: deque[Job] = deque()
        self._token: list[None] = [None]
        self._handed_over: list[None] = []
        self._is_alarmed = False

    def add(self, job: Job) -> None:
        """Let a context wait for the next batch."""
        job.due = time.monotonic() + self.limits.max_wait
        # Who handles it begins now, for at the exit no thread can be started any more.
        if self.is_async:
            job.loop = self.backlog.background_loop()
        else:
            self.backlog.start_a_thread()
        self._waiting.append(job)
        self.look()

    def look(self) -> None:
        """See to it that what waits is handled in time: now if it is due, else when it will be."""
        while self._is_due():
            try:
                self._token.pop()
            except IndexError:  # whoever has it looks again
                return
            self._handed_over.append(None)
            try:
                if self._is_due() and self._hand_over():
                    return
            except BaseException:  # the emitter is interrupted
                self._take_back()
                raise
            self._take_back()
        self._set_alarm()

    def _is_due(self) -> bool:
        waiting = self._waiting
        try:
            first = waiting[0]
        except IndexError:
            return False
        return (
            len(waiting) >= self.limits.max_size
            or self.backlog.is_hurrying()
            or first.due <= time.monotonic()
        )

    def _set_alarm(self) -> None:
        # One at a time will do: when it rings, the next is set.
        if not self._is_alarmed:
            try:
                due = self._waiting[0].due
            except IndexError:
                return
            self._is_alarmed = True
            self.backlog.set_alarm(due, self)

    def ring(self) -> None:
        """Look, for an alarm has come due."""
        self._is_alarmed = False
        self.look()

    def _hand_over(self) -> bool:
        """Let a thread or the loop handle a batch, and have the token; else do so here."""
        if not self.is_async:
            if self.backlog.put(self):
                return True
        else:
            loop = self.backlog.background_loop()
            if loop is not None:
                loop.call_soon_threadsafe(self._begin, loop, context=Context())
                return True
        call_batch_here(self._take())
        return False

    def _take_over(self) -> bool:
        """Tell whether the token is the caller's, to whom the batch was handed over."""
        try:
            self._handed_over.pop()
        except IndexError:
            return False
        return True

    def _take_back(self) -> None:
        """Take the token back, unless whoever was handed the batch has begun already."""
        if self._take_over():
            self._token.append(None)

    def _take(self) -> list[Job]:
        taken: list[Job] = []
        while self._waiting and len(taken) < self.limits.max_size:
            taken.append(self._waiting.popleft())
        if not self.is_async:
            self.backlog.give_back(len(taken))
        # Without what was lost, for its emitter was interrupted.
        return [job for job in taken if id(job) in self.backlog.jobs]

    def run(self) -> None:
        """Handle a batch, in a thread of the backlog."""
        if self._take_over():
            call_batch_here(self._take())
            self._release()

    def _release(self) -> None:
        self._token.append(None)
        self.look()

    def _begin(self, loop: AbstractEventLoop) -> None:
        """Make a task of an async handler's batch; called in the loop's thread."""
        if not self._take_over():
            return
        jobs = self._take()
        make = load_async_loop().asyncio.Task
        task = make(_call_async(jobs), loop=loop, context=Context())
        for job in jobs:
            job.task = task
        task.add_done_callback(partial(self._task_is_done, jobs), context=Context())

    def _task_is_done(self, jobs: list[Job], task: Task[None]) -> None:
        """Go on, and report a task that was cancelled before it began, or was broken off."""
        if task.cancelled():
            _lose(jobs, "its task was cancelled")
        else:
            error = task.exception()
            if error is not None:
                _lose(jobs, "its task was broken off", error)
        self._release()


def _prepared(jobs: list[Job]) -> Job:
    """Make the last job's branch the frame of the whole batch, in the present context."""
    last = jobs[-1]
    branch = last.branch
    common = _fields_of(last).items()
    for job in jobs:
        common = common & _fields_of(job).items()
    branch._outer = Surroundings()
    branch._outer._fields = dict(common)
    branch.is_announcing = any(job.branch.is_announcing for job in jobs)
    CURRENT.set(branch)
    return last


def _fields_of(job: Job) -> Any:
    around = job.branch._outer
    return around._known_fields() if isinstance(around, Surroundings) else {}


def call_batch_here(jobs: list[Job]) -> None:
    """Call a handler with a batch, in no emitter's context, for what is in one is not for all."""
    if not jobs:
        return
    if not jobs[0].subscription._shape.is_async:
        Context().run(_call, jobs)
    elif running_loop() is None:
        Context().run(load_async_loop().asyncio.run, _call_async(jobs))
    else:
        _lose(jobs, "no thread can be started for it")


async def _call_async(jobs: list[Job]) -> None:
    """Await an async handler with a batch."""
    if not jobs:
        return
    last = _prepared(jobs)
    items = [job.item for job in jobs]
    await_in_time = load_async_loop().await_in_time
    failure = None
    try:
        value = await await_in_time(last.subscription, last.handler, last.emission, items)
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001  # there is no emitter to let it through to
        failure = record_in_batch([job.branch for job in jobs], last.subscription, error)
    else:
        _keep(jobs, value)
    for job in jobs:
        job.branch.finish()
        job.free_place()  # now, for the announcement may need one
    if failure is not None and not last.branch.is_announcing:
        try:
            announce = last.emission.dispatcher._announce_async
            await announce(last.emission, (failure,), len(jobs))
        except BaseException as error:  # noqa: BLE001  # an exit, which has nowhere to go
            log_unannounced(last.emission.event, error)
    for job in jobs:
        job.end()


def _call(jobs: list[Job]) -> None:
    """Call a plain handler with a batch."""
    last = _prepared(jobs)
    failure: HandlerFailure | None = None
    try:
        with watching_handler(last.emission, last.handler):
            value = last.subscription._shape.invoke_batch(last.handler, [job.item for job in jobs])
    except BaseException as error:  # noqa: BLE001  # there is no emitter to let it through to
        failure = record_in_batch([job.branch for job in jobs], last.subscription, error)
    else:
        _keep(jobs, value)
    for job in jobs:
        job.branch.finish()
    if failure is not None and not last.branch.is_announcing:
        try:
            last.emission.dispatcher._announce(last.emission, (failure,), len(jobs))
        except BaseException as error:  # noqa: BLE001  # an exit, which has nowhere to go
            log_unannounced(last.emission.event, error)
    for job in jobs:
        job.end()


def _keep(jobs: list[Job], value: Any) -> None:
    for job in jobs:
        job.emission._values[job.branch.index] = keep_value(job.subscription, job.handler, value)


def _lose(jobs: list[Job], reason: str, cause: BaseException | None = None) -> None:
    """Report a batch that will not come to its end."""
    pending = [job for job in jobs if job.emission._values[job.branch.index] is PENDING]
    if pending:
        error = HandlerCancelledError(reason)
        error.__cause__ = cause
        record_in_batch([job.branch for job in pending], jobs[-1].subscription, error)
    for job in jobs:
        job.end()
