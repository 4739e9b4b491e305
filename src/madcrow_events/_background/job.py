"""One call of a handler that runs later."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from weakref import ref

from madcrow_events._background.batching import call_batch_here
from madcrow_events._interrupts import is_exit
from madcrow_events._logs import log, log_unannounced
from madcrow_events._moves import move_all
from madcrow_events._text import type_name
from madcrow_events.emissions._causes import begin_chain, finish_unawaited
from madcrow_events.emissions._completion import announce, announce_async, break_cycles
from madcrow_events.emissions._frames import CURRENT, Branch
from madcrow_events.emissions._lazy_asyncio import load_async_loop, run_to_the_end, running_loop
from madcrow_events.emissions._loop import run_branch
from madcrow_events.emissions._outcomes import NO_RESULT, Outcomes
from madcrow_events.emissions._recording import is_recorded, record_in_branch
from madcrow_events.exceptions import HandlerCancelledError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from contextvars import Context

    from madcrow_events._background.backlog import Backlog
    from madcrow_events._logs import Writing
    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import Entry, Subscribed


__all__ = ["Job"]


class Job:
    """One call of a handler that runs later, in a worker or an event loop.

    Attributes:
        branch: the frame of the handler; None once the job has ended, and in a batch as long as
            nothing needs it.
        index: the place of the handler among those of the emission.
        context: the handler's context variables; None in a batch, which belongs to none of its
            emitters, and once a worker has begun with the job.
        needs_ids: whether the job makes the ids of its emission as it ends, because code that the
            handler or its predicate leaves behind may ask for its cause.
        item: the entry of the emission in a batch.
        line: the line of the log that has caused the emission, for a batch.
        due: when a batch with it is due.
        loop: the event loop in which an async handler runs.
        task: the task of an async handler, once it has begun.
        permit: the permit of the queue, until it is released.
        ticket: taken by the one that begins it or reports it.
    """

    __slots__ = (
        "backlog",
        "branch",
        "context",
        "due",
        "emission",
        "entry",
        "handler",
        "index",
        "item",
        "line",
        "loop",
        "needs_ids",
        "outcomes",
        "permit",
        "task",
        "ticket",
    )

    def __init__(  # noqa: PLR0917  # by position, for speed
        self,
        backlog: Backlog,
        emission: Emission,
        index: int,
        outcomes: Outcomes,
        branch: Branch | None,
        context: Context | None,
        entry: Entry,
        handler: object,
        permit: list[None],
        item: object = None,
    ) -> None:
        self.backlog = backlog
        self.emission: Any = emission
        self.index = index
        self.branch: Any = branch
        self.outcomes = outcomes
        self.context: Any = context
        self.entry = entry
        self.handler = handler
        self.permit = permit
        self.ticket: list[None] = [None]
        self.item: Any = item
        self.line: Writing | None = None
        self.due: float = 0.0
        self.loop: AbstractEventLoop | None = None
        self.task: Any = None
        self.needs_ids: bool = False

    @property
    def subscription(self) -> Subscribed:
        """The subscription of the handler."""
        return self.entry.subscription

    def frame(self) -> Branch:
        """Return the frame of the handler of a batch; make it now, if it is not made yet."""
        branch: Branch | None = self.branch
        if branch is None:
            branch = self.branch = Branch(self.emission, self.index)
            begin_chain(branch, self)
        return branch

    @property
    def unreported(self) -> list[None]:
        """What is taken by the one that reports it as lost; made when first asked for."""
        # Not here, because few jobs are lost, and making a list takes time for each.
        taken: list[None] = vars(self.outcomes).setdefault(f"unreported {self.index}", [None])
        return taken

    @property
    def owner(self) -> Subscribed:
        """The subscription; for one that a pattern has made, that of the pattern."""
        return self.entry.owner

    def claim(self) -> bool:
        """Take the job over, to begin it or to report it; return whether it was still free."""
        try:
            self.ticket.pop()
        except IndexError:
            return False
        return True

    def work_off(self) -> None:
        """Call a plain handler in a worker, unless it has been reported as lost."""
        try:  # as `claim` and `release_permit` do, without the time that their calls take
            self.ticket.pop()
        except IndexError:
            return
        permits = self.backlog.permits
        try:
            permits.free.extend(map(list.pop, (self.permit,)))
        except IndexError:  # its emitter was interrupted, and has released it
            pass
        if permits.freed.has_waiters():
            permits.freed.notify(1)
        branch_ref, context, run = ref(self.branch), self.context, [self.run]
        self.context = None  # which keeps the branch alive
        self.needs_ids = True
        del self  # or the traceback of a failure keeps it alive
        context.run(run.pop())
        del context
        branch = branch_ref()
        if branch is not None:  # a task, a thread or an emission may ask for its cause
            finish_unawaited(branch)

    def run(self) -> None:
        """Call a plain handler, in the job's context."""
        CURRENT.set(self.branch)
        failure = run_branch(self.branch, self.entry, self.handler)
        if failure is None:
            self.branch.stop()
            # `end` then makes no ids. `work_off` and `_run_in_place` make them, if something still
            # holds the branch.
            self.needs_ids = False
            self.end()
            del self  # or the traceback of a failure that is recorded elsewhere keeps it alive
            return
        is_for_the_program = is_exit(failure.exception)
        finish_unawaited(self.branch)
        try:
            announce(self.emission, (failure,))
            break_cycles(self.emission, (failure,))
        except BaseException as error:  # an exit: no caller is there to get it
            log_unannounced(self.emission.event, error)
        finally:
            self.end()
            if is_for_the_program:
                raise failure.exception
            del self, failure  # or the traceback of the failure keeps them alive

    async def run_async(self) -> None:
        """Await an async handler, in the job's context."""
        CURRENT.set(self.branch)
        self.needs_ids = True
        branch = self.branch  # which the job loses if it is reported as lost
        await_branch = load_async_loop().await_branch
        failure = await await_branch(branch, self.entry, self.handler)
        is_for_the_program = failure is not None and is_exit(failure.exception)
        finish_unawaited(branch)
        self.release_permit()  # now, because the announcement may need one
        if failure is not None:
            try:
                await announce_async(self.emission, (failure,))
            except BaseException as error:
                log_unannounced(self.emission.event, error)
            break_cycles(self.emission, (failure,))
        self.end()
        try:
            if failure is not None and is_for_the_program:
                raise failure.exception
        finally:
            del self, branch, failure  # or the traceback of the failure keeps them alive

    def begin(self) -> None:
        """Start a task that calls an async handler; called in the loop's thread."""
        if not self.claim():
            return
        # Without the loop's task factory: an eager one would run the handler inside of `emit`.
        make = load_async_loop().asyncio.Task
        self.task = make(self.run_async(), loop=self.loop, context=self.context)
        self.task.add_done_callback(self._task_is_done)

    def _task_is_done(self, task: Task[None]) -> None:
        """Report the handler if its task was cancelled or broken off."""
        if task.cancelled():
            self.lose("the handler's task was cancelled")
        else:
            error = task.exception()
            if error is not None:
                self.lose("the handler's task was broken off", error)
                log(
                    logging.ERROR, "a background task was interrupted by %s", type_name(type(error))
                )

    def run_in_place(self) -> None:
        """Call the handler here and now, because no thread or loop can take it."""
        if not self.claim():
            return
        try:
            self._run_in_place()
        except BaseException as error:
            self.lose("the handler was interrupted", error)
            raise

    def _run_in_place(self) -> None:
        if self.subscription.batch is not None:
            call_batch_here([self])
        elif not self.entry.spec.is_async:
            branch = self.branch
            self.context.run(self.run)
            finish_unawaited(branch)
        elif running_loop() is None:
            self.context.run(run_to_the_end, self.run_async())
        else:
            self.lose("no thread could be started for the handler")

    def is_stuck(self) -> bool:
        """Whether it waits in an event loop of the application that does not run."""
        return self.backlog.is_stopped(self.loop)

    def lose_with_loop(self) -> None:
        """Report the handler as failed: its event loop is closed."""
        name = self.emission.name_of(self.handler)
        self.lose(f"the event loop of {name} was closed before the handler had ended")

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Report the handler as failed: it was broken off, or can never begin.

        Args:
            reason: the text of the `HandlerCancelledError`.
            cause: what broke it off.
        """
        self.ticket.clear()
        ours: list[None] = []
        error = HandlerCancelledError(reason)
        error.__cause__ = cause
        try:
            move_all(self.unreported, ours)
            self._report(ours, error)
        except BaseException:
            self._report(ours, error)  # once more: the first call was interrupted
            raise

    def _report(self, ours: list[None], error: HandlerCancelledError) -> None:
        if ours and self.is_pending():
            if not is_recorded(self.emission, error):
                record_in_branch(self.frame(), error)
            self.settle(NO_RESULT)
            break_cycles(self.emission, self.emission.failures)
        if ours or not self.is_pending():  # or another thread reports it, and ends it
            self.end()

    def settle(self, value: object) -> None:
        """Note what the handler returned, or `NO_RESULT`."""
        self.outcomes.settle(self.index, value)

    def is_pending(self) -> bool:
        """Whether the handler has neither ended nor been reported as lost."""
        return self.outcomes.is_pending(self.index)

    def end(self) -> None:
        """Count the handler as done, and notify those that wait; a second call does nothing."""
        try:
            self._leave()
        except BaseException:
            self._leave()  # once more: the first call was interrupted
            raise

    def finish(self) -> None:
        """Mark the handler as finished; the emission is let go, and its ids stay."""
        if self.branch is not None and self.needs_ids:
            finish_unawaited(self.branch)

    def release_permit(self) -> None:
        """Release the permit of the queue, if the job still has it."""
        if self.permit:
            self.backlog.permits.release(self.permit)

    def _leave(self) -> None:
        branch, backlog = self.branch, self.backlog
        if branch is not None:
            if self.needs_ids:
                finish_unawaited(branch)
            self.branch = branch.job = None
        if self.permit:
            backlog.permits.release(self.permit)
        if self.loop is not None:
            backlog.in_loops.pop(id(self), None)
        # Last, because those that wait until nothing is pending look at this.
        backlog.jobs.pop(id(self), None)
        self.outcomes.notify()
        if not backlog.jobs:
            backlog.changed.notify()
