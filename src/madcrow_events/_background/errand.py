"""Awaiting a coroutine in an event loop, while a thread waits for its end."""

from __future__ import annotations

import math
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from madcrow_events._clock import monotonic
from madcrow_events._interrupts import is_exit, suppress_but_interrupts
from madcrow_events._waiters import LOOK_EVERY, Waiters
from madcrow_events.emissions._lazy_asyncio import load_async_loop, run_to_the_end

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Coroutine

    Work: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

__all__ = ["await_elsewhere"]


def await_elsewhere(loop: AbstractEventLoop | None, work: Work) -> str:
    """Have a coroutine awaited in a loop, in a copy of this context, and wait for its end.

    Args:
        loop: the loop, which runs in another thread; None to run one here.
        work: makes the coroutine.

    Returns:
        What the loop has done instead of bringing it to its end, for messages; else "".

    Raises:
        BaseException: the coroutine raised it, or an interrupt came; the task has then ended.
    """
    if loop is not None:
        return _Errand(loop).run(work)
    doing = work()
    del work  # which the traceback of a failure may keep
    try:
        run_to_the_end(doing)
    except load_async_loop().asyncio.CancelledError:
        return _CANCELLED
    return ""


_CANCELLED = "cancelled its task"


class _Errand:
    """One coroutine, and the thread that waits for its end."""

    # No reference to what is done: the loop's thread has this for a moment longer than the caller.
    __slots__ = ("context", "error", "has_ended", "loop", "stopped_since", "task", "waiters")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.loop = loop
        self.context = copy_context()
        self.waiters = Waiters(LOOK_EVERY)
        self.stopped_since = math.inf
        self.task: Task[None] | None = None
        self.error: BaseException | None = None
        self.has_ended = False

    def run(self, work: Work) -> str:
        """Do as `await_elsewhere`."""
        try:
            self._call(partial(self._begin, work))
            self.waiters.wait(self._is_over, None)
            if not self.has_ended:  # it must not go on if the loop runs once more
                self._call(self._cancel)
        except BaseException:
            # The handler must not go on when its caller is gone. One more interrupt ends the wait.
            self._call(self._cancel)
            self.waiters.wait(self._is_over, None)
            raise
        error, self.error = self.error, None
        if error is None:
            stopped = "was closed" if self.loop.is_closed() else "stopped"
            return "" if self.has_ended else stopped
        if isinstance(error, load_async_loop().asyncio.CancelledError):
            return _CANCELLED
        try:
            raise error
        finally:
            del error, self  # or the traceback keeps them alive

    def _call(self, step: Callable[[], None]) -> None:
        """Call a step in the loop's thread, if the loop is open."""
        with suppress_but_interrupts(RuntimeError):  # it is closed
            self.loop.call_soon_threadsafe(step)

    def _is_over(self) -> bool:
        if self.has_ended or self.loop.is_closed():
            return True
        if self.loop.is_running():
            self.stopped_since = math.inf
            return False
        # Not at the first look, because a loop may be run in parts.
        now = monotonic()
        self.stopped_since = min(self.stopped_since, now)
        return now - self.stopped_since > LOOK_EVERY / 2

    # In the loop's thread

    def _begin(self, work: Work) -> None:
        # Without the loop's task factory, as the jobs of the background.
        make = load_async_loop().asyncio.Task
        task = self.task = make(self._await(work), loop=self.loop, context=self.context)
        task.add_done_callback(self._end)

    async def _await(self, work: Work) -> None:
        try:
            doing = work()
            del work  # which the traceback of a failure may keep
            await doing
        except BaseException as error:  # for the thread; an exit would end the loop
            self.error = error
            if is_exit(error):  # which is for the program, too
                raise

    def _end(self, task: Task[None]) -> None:
        if task.cancelled():  # before its first step
            self.error = load_async_loop().asyncio.CancelledError()
        else:
            task.exception()  # asked for, because asyncio reports what nobody asks for
        self.has_ended = True
        self.waiters.notify()

    def _cancel(self) -> None:
        if self.task is None:  # interrupted before the first step was handed over
            self.has_ended = True
        else:
            self.task.cancel()
