"""The threads in which a worker calls handlers."""

from __future__ import annotations

import threading
from collections import deque
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING

from madcrow_events.outbox._calling import Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from madcrow_events.outbox._calling import Run

    Call = Callable[[Sequence[Run]], list[Ended]]

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

    Waking a thread costs more than a quick handler. So each thread goes on as long as there are
    runs, and the worker is woken when the first run has ended, and when all have.

    Args:
        count: how many runs are called at the same time.
        call: calls the handler of a run, or of several that are carried together.
        wake: wakes the worker.
    """

    def __init__(self, count: int, call: Call, wake: Callable[[], None]) -> None:
        self._call = call
        self._wake = wake
        self._queue: deque[_Task] = deque()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        """An entry for each thread that is to look into the queue; False to end."""
        self._tasks: dict[Run, _Task] = {}
        self._ended: deque[Ended] = deque()
        self._is_noticed = False
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
            self._calls.put(False)

    def give(self, runs: Sequence[Run]) -> None:
        """Have the handlers of runs called by the next threads that are free."""
        for run in runs:
            task = self._tasks[run] = _Task(run)
            self._queue.append(task)
        for _ in range(min(len(runs), self._count)):
            self._calls.put(True)

    def take(self) -> list[Ended]:
        """Return what has ended since the last call."""
        ended: list[Ended] = []
        while self._ended:
            ended.append(self._ended.popleft())
        return ended

    def notice(self) -> None:
        """Wake the worker once more when the next run has ended."""
        self._is_noticed = False

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
            self._calls.put(True)
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
        while self._calls.get():
            while (task := self._next()) is not None:
                if not task.may_start():
                    continue
                task.started = monotonic()
                tasks = [task, *self._carried_with(task)]
                is_given_up = self._end(tasks, self._called([it.run for it in tasks]))
                del task, tasks
                if is_given_up:
                    return  # another thread has taken the place of this one
                if not self._is_noticed or len(self._ended) >= len(self._tasks):
                    self._is_noticed = True
                    self._wake()

    def _carried_with(self, first: _Task) -> list[_Task]:
        """Return the tasks next in the queue that are carried together with one."""
        carry = first.run.handler.carry
        tasks: list[_Task] = []
        while carry is not None and (task := self._next()) is not None:
            if task.run.handler.carry != carry:
                self._queue.appendleft(task)
                break
            if task.may_start():
                task.started = first.started
                tasks.append(task)
        return tasks

    def _end(self, tasks: Sequence[_Task], ended: Sequence[Ended]) -> bool:
        """Hand over what has ended; return whether some of it was given up meanwhile."""
        is_given_up = False
        for task, it in zip(tasks, ended, strict=True):
            if task.may_end():
                self._ended.append(it)
            else:
                is_given_up = True
        return is_given_up

    def _called(self, runs: Sequence[Run]) -> list[Ended]:
        try:
            return self._call(runs)
        except BaseException as error:  # a fault of this package must not take the thread along
            return [Ended(run, None, error=error) for run in runs]

    def _next(self) -> _Task | None:
        try:
            return self._queue.popleft()
        except IndexError:
            return None


def _is_overdue(run: Run, started: float) -> bool:
    timeout = None if run.handler.is_async else run.handler.timeout
    return timeout is not None and monotonic() - started > timeout
