"""Gathering what waits for a handler that takes batches, and calling it.

One batch of a handler runs at a time, so that contexts stay in their order. As in `backlog`,
nothing here waits for a lock: who takes the token of a gathering calls the handler, and whoever
gives it back looks again at what has come in meanwhile.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from madcrow_events._clock import monotonic
from madcrow_events._interrupts import is_exit
from madcrow_events._logs import log, log_unannounced, mark_as_written, writing
from madcrow_events._moves import move_all, move_first, move_last
from madcrow_events._text import type_name
from madcrow_events.emissions._causes import enter_batch
from madcrow_events.emissions._completion import announce, announce_async, release
from madcrow_events.emissions._lazy_asyncio import load_async_loop, run_to_the_end, running_loop
from madcrow_events.emissions._observing import watching_handler
from madcrow_events.emissions._outcomes import NO_RESULT
from madcrow_events.emissions._recording import is_recorded, keep_value, record_in_batch
from madcrow_events.exceptions import HandlerCancelledError

if TYPE_CHECKING:
    import weakref
    from asyncio import AbstractEventLoop, Task

    from madcrow_events._background.backlog import Backlog
    from madcrow_events._background.job import Job
    from madcrow_events.batches import Batch
    from madcrow_events.emissions import HandlerFailure
    from madcrow_events.emissions._plan import Subscribed

__all__ = ["Gathering", "Turn", "call_batch_here"]


class Gathering:
    """What waits for the next batch of one subscription, in the work of one process.

    Args:
        backlog: that work.
        limits: the subscription's option.
        loop: the application's loop in which an async handler runs; None for our own.
        is_async: whether its handler is.

    Attributes:
        owner: the subscription, held weakly; what waits holds it.
    """

    __slots__ = (
        "__weakref__",
        "_is_alarmed",
        "backlog",
        "is_async",
        "limits",
        "loop",
        "owner",
        "token",
        "waiting",
    )

    def __init__(
        self, backlog: Backlog, limits: Batch, loop: AbstractEventLoop | None, *, is_async: bool
    ) -> None:
        self.backlog = backlog
        self.loop = loop
        self.limits = limits
        self.is_async = is_async
        self.owner: weakref.ref[Subscribed]
        self.waiting: deque[Job] = deque()
        self.token: list[None] = [None]  # for whoever has the turn
        self._is_alarmed = False

    def is_over(self) -> bool:
        """Whether nothing waits here, and nothing will, for the event loop is closed."""
        return self.loop is not None and self.loop.is_closed() and not self.waiting

    def add(self, job: Job) -> None:
        """Let a context wait for the next batch."""
        job.due = monotonic() + self.limits.max_wait
        # Who handles it begins now, for at the exit no thread can be started any more.
        if not self.is_async:
            self.backlog.start_a_thread()
        elif self.loop is None:
            job.loop = self.backlog.background_loop()
        self.waiting.append(job)
        self.look()

    def look(self) -> None:
        """See to it that what waits is handled in time: now if it is due, else when it will be."""
        turn = Turn(self)
        while self._is_due():
            try:
                move_last(self.token, turn.token)
                if self._is_due() and self._hand_over(turn):
                    return
            except IndexError:  # whoever has the turn looks again
                return
            except BaseException as error:  # the emitter is interrupted, or the stack is full
                turn.give_back()
                if turn.jobs:
                    turn.lose("it was interrupted", error)
                raise
            turn.give_back()
        self._set_alarm()

    def _is_due(self) -> bool:
        waiting = self.waiting
        try:
            first = waiting[0]
        except IndexError:
            return False
        return (
            len(waiting) >= self.limits.max_size
            or self.backlog.is_hurrying()
            or first.due <= monotonic()
        )

    def _set_alarm(self) -> None:
        # One at a time will do: when it rings, the next is set.
        if not self._is_alarmed:
            try:
                due = self.waiting[0].due
            except IndexError:
                return
            self._is_alarmed = True
            try:
                self.backlog.set_alarm(due, self)
            except BaseException:
                self._is_alarmed = False
                raise

    def ring(self) -> None:
        """Look, for an alarm has come due."""
        self._is_alarmed = False
        self.look()

    def _hand_over(self, turn: Turn) -> bool:
        """Let a thread or the loop have the turn; else handle the batch here."""
        if not self.is_async:
            if self.backlog.put(turn):
                return True
        else:
            loop = self.loop or self.backlog.background_loop()
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
    """The turn to handle the next batch of a gathering, which one has at a time.

    Attributes:
        token: what makes it the turn; empty if somebody else has that.
        jobs: what was taken of what waits.
    """

    __slots__ = ("_begun", "_gathering", "jobs", "token")

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._begun: Turn | None = None  # the same turn, of whoever has begun with it
        self.jobs: list[Job] = []
        self.token: list[None] = []

    def give_back(self) -> None:
        """Let others have the turn, unless whoever it was handed to has begun already."""
        # No deeper than what took it, for the stack may be full.
        try:  # noqa: SIM105  # as above
            self._gathering.token.extend(map(list.pop, (self.token,)))
        except IndexError:
            pass

    def take(self) -> list[Job]:
        """Take over what waits, as much as fits into a batch; return it."""
        gathering = self._gathering
        with suppress(IndexError):
            move_first(gathering.waiting, self.jobs, gathering.limits.max_size)
        # Without what was lost, for its emitter was interrupted.
        return [job for job in self.jobs if job.claim()]

    def handle(self) -> None:
        """Call the handler with a batch."""
        jobs = self.take()
        _free_places(jobs)
        call_batch_here(jobs)
        self.jobs.clear()

    def work_off(self) -> None:
        """Handle a batch, in a worker."""
        # Known before it begins, for a worker that is interrupted anywhere calls `lose`.
        ours = self._begun = Turn(self._gathering)
        try:
            move_last(self.token, ours.token)
        except IndexError:  # it was taken back
            return
        ours.handle()
        ours.end()

    def begin(self, loop: AbstractEventLoop) -> None:
        """Make a task of an async handler's batch; called in the loop's thread."""
        ours = Turn(self._gathering)
        try:
            move_last(self.token, ours.token)
        except IndexError:  # it was taken back
            return
        try:
            ours._begin(loop)
        except BaseException as error:
            ours.lose("it was interrupted", error)
            raise

    def _begin(self, loop: AbstractEventLoop) -> None:
        jobs = self.take()
        make = load_async_loop().asyncio.Task
        task = make(_call_async(jobs), loop=loop, context=Context())
        for job in jobs:
            job.task = task
        task.add_done_callback(self._task_is_done, context=Context())

    def _task_is_done(self, task: Task[None]) -> None:
        """Go on, and report a task that was cancelled before it began, or was broken off."""
        if task.cancelled():
            _lose(self.jobs, "its task was cancelled")
        else:
            error = task.exception()
            if error is not None:
                _lose(self.jobs, "its task was broken off", error)
                log(
                    logging.ERROR, "a background task was interrupted by %s", type_name(type(error))
                )
        self.end()

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Report what was taken from what waits, and will not come to its end."""
        if self._begun is not None:
            self._begun.lose(reason, cause)
        _lose(self.jobs, reason, cause)
        self.end()

    def end(self) -> None:
        """Let others have the turn, and look whether one more batch is due."""
        self.jobs.clear()  # which hold handlers, perhaps longer than those live elsewhere
        self.give_back()
        self._gathering.look()


def _prepared(jobs: list[Job]) -> Job:
    """Make the last job's branch the frame of the whole batch, in the present context."""
    last = jobs[-1]
    enter_batch([job.branch for job in jobs])
    for job in jobs:  # what one line has caused may be among them
        cause = job.context.run(writing)
        if cause is not None:
            mark_as_written(cause)
    return last


def call_batch_here(jobs: list[Job]) -> None:
    """Call a handler with a batch, in no emitter's context, for what is in one is not for all."""
    if not jobs:
        return
    if not jobs[0].entry.spec.is_async:
        Context().run(_call, jobs)
    elif running_loop() is None:
        Context().run(run_to_the_end, _call_async(jobs))
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
        value = await await_in_time(last.entry, last.handler, last.emission, items)
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001  # there is no emitter to let it through to
        failure = record_in_batch([job.branch for job in jobs], last.entry, error)
    else:
        _keep(jobs, value)
    _finish(jobs)
    if failure is not None and not last.branch.is_announcing:
        try:
            await announce_async(last.emission, (failure,), len(jobs))
        except BaseException as error:  # noqa: BLE001  # an exit, which has nowhere to go
            log_unannounced(last.emission.event, error)
    _end(jobs, failure)
    del last, failure, items  # which the traceback of the failure would keep


def _call(jobs: list[Job]) -> None:
    """Call a plain handler with a batch."""
    last = _prepared(jobs)
    failure: HandlerFailure | None = None
    try:
        with watching_handler(last.emission, last.handler):
            value = last.entry.spec.invoke_batch(last.handler, [job.item for job in jobs])
    except BaseException as error:  # noqa: BLE001  # there is no emitter to let it through to
        failure = record_in_batch([job.branch for job in jobs], last.entry, error)
    else:
        _keep(jobs, value)
    _finish(jobs)
    if failure is not None and not last.branch.is_announcing:
        try:
            announce(last.emission, (failure,), len(jobs))
        except BaseException as error:  # noqa: BLE001  # an exit, which has nowhere to go
            log_unannounced(last.emission.event, error)
    _end(jobs, failure)
    del last, failure  # as above


def _free_places(jobs: list[Job]) -> None:
    for job in jobs:  # in a frame of its own, for a failure would keep the last of them
        job.free_place()


def _finish(jobs: list[Job]) -> None:
    for job in jobs:  # as above
        job.branch.finish()
        job.free_place()  # now, for the announcement may need one


def _end(jobs: list[Job], failure: HandlerFailure | None) -> None:
    """Count a batch as done, and empty the list, which frames below name."""
    is_for_the_program = False
    if failure is not None:
        is_for_the_program = is_exit(failure.exception)
        release(jobs[-1].emission, (failure,))
    while jobs:
        jobs.pop(0).end()
    if failure is not None and is_for_the_program:
        raise failure.exception


def _keep(jobs: list[Job], value: Any) -> None:
    for job in jobs:
        job.settle(keep_value(job.entry, job.handler, value))


def _lose(jobs: list[Job], reason: str, cause: BaseException | None = None) -> None:
    """Report a batch that will not come to its end."""
    jobs = list(jobs)
    ours: list[list[None]] = [[] for _ in jobs]
    error = HandlerCancelledError(reason)
    error.__cause__ = cause
    try:
        _report(jobs, ours, error)
    except BaseException:
        _report(jobs, ours, error)  # once more, for that was interrupted
        raise


def _report(jobs: list[Job], ours: list[list[None]], error: HandlerCancelledError) -> None:
    for job, mine in zip(jobs, ours, strict=True):
        job.ticket.clear()
        move_all(job.unreported, mine)
    pending = [job for job, mine in zip(jobs, ours, strict=True) if mine and job.is_pending()]
    new = [job.branch for job in pending if not is_recorded(job.emission, error)]
    if new:
        record_in_batch(new, jobs[-1].entry, error)
    for job in pending:
        job.settle(NO_RESULT)
    for job in jobs:
        if not job.is_pending():  # whoever else reports it ends it
            job.end()
