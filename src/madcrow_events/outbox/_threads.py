"""The threads in which a worker calls handlers."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.outbox._calling import Ended, Run

__all__ = ["HandlerThreads"]


class _Task:
    """A run, on its way through a thread.

    Attributes:
        run: the run.
        given: when it was given to the threads.
        started: when a thread began with it, or None.
    """

    __slots__ = ("_end", "_start", "given", "run", "started")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.given = monotonic()
        self.started: float | None = None
        self._start = [None]
        self._end = [None]

    def may_start(self) -> bool:
        """Whether the caller is the first that asks: a thread to start it, or who withdraws it."""
        return _is_first(self._start)

    def may_end(self) -> bool:
        """Whether the caller is the first that asks: its thread, or who gives it up."""
        return _is_first(self._end)


def _is_first(permit: list[None]) -> bool:
    try:
        permit.pop()
    except IndexError:
        return False
    return True


class HandlerThreads:
    """Threads that call handlers.

    Args:
        count: how many runs are called at the same time.
        call: calls the handler of a run.
        report: takes what came of a run, in the thread.
    """

    def __init__(
        self, count: int, call: Callable[[Run], Ended], report: Callable[[Ended], None]
    ) -> None:
        self._call = call
        self._report = report
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._tasks: dict[Run, _Task] = {}
        self._count = count
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        while len(self._threads) < self._count:
            self._start_one()

    def _start_one(self) -> None:
        thread = threading.Thread(
            target=self._work, name=f"madcrow-outbox-{len(self._threads) + 1}", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Let each thread end when it has ended its run; wait for none."""
        for _ in self._threads:
            self._queue.put(None)

    def give(self, run: Run) -> None:
        """Have the handler of a run called by the next thread that is free."""
        task = self._tasks[run] = _Task(run)
        self._queue.put(task)

    def forget(self, run: Run) -> None:
        """Forget a run that has ended."""
        del self._tasks[run]

    def withdraw(self, waiting_for: float) -> list[Run]:
        """Take back the runs that no thread has begun after so many seconds."""
        before = monotonic() - waiting_for
        return [
            run
            for run, task in self._tasks.items()
            if task.started is None and task.given <= before and task.may_start()
        ]

    def give_up(self, *, overdue: bool) -> list[Run]:
        """Give up runs whose handler runs, and have other threads take their place.

        Args:
            overdue: whether to do so only with plain handlers that have a timeout, if it is over.
        """
        given_up = [
            run
            for run, task in self._tasks.items()
            if task.started is not None
            and (not overdue or _is_overdue(run, task.started))
            and task.may_end()
        ]
        for _ in given_up:
            self._start_one()  # the other one may never come back
        return given_up

    def running_for(self, seconds: float) -> list[Run]:
        """Return the runs that began so many seconds ago, or earlier."""
        before = monotonic() - seconds
        return [
            run
            for run, task in self._tasks.items()
            if task.started is not None and task.started <= before
        ]

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            if task.may_start():
                task.started = monotonic()
                ended = self._call(task.run)
                if not task.may_end():
                    return  # another thread has taken the place of this one
                self._report(ended)
                del ended
            del task


def _is_overdue(run: Run, started: float) -> bool:
    timeout = None if run.handler.is_async else run.handler.timeout
    return timeout is not None and monotonic() - started > timeout
