"""The handlers of an emission that have suspended, and how the task of each handler ends.

It imports asyncio, and so it is loaded with `_async_loop` only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from madcrow_events.emissions._chains import break_off
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, Outcomes
from madcrow_events.emissions._recording import record_in_branch

if TYPE_CHECKING:
    from collections.abc import Generator

    from madcrow_events.emissions._emission import Emission
    from madcrow_events.emissions._frames import Branch

__all__ = ["Unfinished", "keep_exit", "keep_interrupt", "record", "record_unbegun_task"]


def record(values: Outcomes, branch: Branch, error: BaseException) -> None:
    """Note what a handler raised; keep an exit, such as `KeyboardInterrupt`, for the emitter."""
    unfinished = branch.unfinished
    if isinstance(error, Exception):
        record_in_branch(branch, error)
    elif not isinstance(error, asyncio.CancelledError):
        keep_exit(values, error)
        break_off(branch)  # what the handler still emits is refused until its task has ended
        values[branch.index] = NO_RESULT
    elif unfinished is not None and unfinished.is_cancelled_from_outside():
        values[branch.index] = NO_RESULT
    else:
        record_in_branch(branch, error)


def keep_exit(values: Outcomes, error: BaseException) -> None:
    """Keep an exception for the emitter; an exit counts more than a cancellation."""
    if values.exit is None or isinstance(values.exit, asyncio.CancelledError):
        values.exit = error


def keep_interrupt(values: Outcomes, branch: Branch, error: BaseException) -> None:
    """Keep for the emitter an exception that is no handler's failure, and end the handler's branch.

    It interrupted the end of a task, or says that the emitter gave an incomplete context.
    """
    keep_exit(values, error)
    break_off(branch)
    if values[branch.index] is PENDING:
        values[branch.index] = NO_RESULT
    branch.finish()
    if branch.unfinished is not None:
        branch.unfinished.wake()


def record_unbegun_task(values: Outcomes, branch: Branch, task: asyncio.Task[None]) -> None:
    """Note how a task ended before its handler began; an interrupt is kept for the emitter."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        keep_interrupt(values, branch, error)
    else:
        record_in_branch(branch, asyncio.CancelledError())


class Unfinished:
    """The tasks of one emission that have suspended, and the emitter that waits for them."""

    __slots__ = ("cancels", "emitter", "have_begun", "left", "loop", "started", "values", "waiter")

    def __init__(self, emission: Emission, loop: asyncio.AbstractEventLoop) -> None:
        values = self.values = emission._values
        values.loop = self.loop = loop
        self.started: list[tuple[asyncio.Task[None], Branch]] = []
        self.left = 0
        self.have_begun = False
        self.emitter: asyncio.Task[Any] | None = None
        self.waiter: asyncio.Future[None] | None = None

    async def join(self) -> None:
        """Wait for the tasks; if the emitter is cancelled or a handler exits, cancel them first.

        Raises:
            CancelledError: the emitter was cancelled.
        """
        emitter = self.emitter = asyncio.current_task(self.loop)
        self.cancels = 0 if emitter is None else emitter.cancelling()
        try:
            if not self.have_begun:
                await _NextTurn()  # in which each task takes its first step
                self.record_unbegun()
            if self.left and self.values.exit is None:
                self.waiter = self.loop.create_future()
                await self.waiter
        except asyncio.CancelledError as error:
            self.values.exit = self.values.exit or error
        except BaseException:  # closed or interrupted: nothing can be awaited any more
            self.cancel()
            raise
        if self.values.exit is not None:
            await self._cancel()
        # Break a cycle: a task refers to its context, that to the branch, and the branch to this.
        self.started.clear()
        self.values.loop = None

    def cancel(self) -> None:
        """Cancel the tasks that have not finished."""
        if not self.loop.is_closed():
            for task, _ in self.started:
                task.cancel()

    async def _cancel(self) -> None:
        self.cancel()
        while left := [task for task, _ in self.started if not task.done()]:
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError as error:
                # Cancelled again. The handlers know already; the emitter gets it at the end.
                self.values.exit = self.values.exit or error
        self.record_unbegun()

    def leave(self, branch: Branch) -> None:
        """Note that a handler has finished."""
        branch.finish()
        self.left -= 1
        if not self.left or self.values.exit is not None:
            self.wake()

    def wake(self) -> None:
        """Let the emitter go on."""
        if self.waiter is not None and not self.waiter.done() and not self.loop.is_closed():
            self.waiter.set_result(None)

    def record_unbegun(self) -> None:
        """Note the handlers whose tasks were cancelled before they began."""
        for task, branch in self.started:
            if self.values[branch.index] is PENDING and task.done():
                branch._running = False
                self.left -= 1
                if self.is_cancelled_from_outside():
                    self.values[branch.index] = NO_RESULT
                else:
                    record_unbegun_task(self.values, branch, task)
        if not self.left:
            self.wake()

    def is_cancelled_from_outside(self) -> bool:
        """Whether a cancellation comes from the emitter or an exit, not from the handler."""
        if self.values.exit is not None:
            return True
        # A loop that ends cancels all tasks, perhaps the handlers' before the emitter's.
        emitter = self.emitter  # None before `join`
        return emitter is not None and emitter.cancelling() > self.cancels


class _NextTurn:
    """Awaiting it lets the event loop do what it has to do, and comes back in its next turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield
