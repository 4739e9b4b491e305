"""The thread that lets batches be handled when they have waited long enough."""

from __future__ import annotations

import heapq
import logging
import threading
import weakref
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from madcrow_events._background.threads import start_thread
from madcrow_events._clock import monotonic
from madcrow_events._interrupts import suppress_but_interrupts
from madcrow_events._logs import log
from madcrow_events._text import type_name
from madcrow_events._waiters import LOOK_EVERY

if TYPE_CHECKING:
    from collections.abc import Sized

    from madcrow_events._background.buffers import BatchBuffer

__all__ = ["Timer", "keep_time"]

Alarm: TypeAlias = "tuple[float, int, weakref.ref[BatchBuffer]]"
"""A time, and the buffer that is to be scheduled then; the number makes each alarm unique."""

_number = count()


class Timer:
    """Lets each buffer schedule its batch when that has waited long enough.

    Args:
        buffers: all buffers; only their number is used.

    Attributes:
        alarms: the alarms that the thread has not yet read; None ends the thread.
        bell: a lock that is free when the thread is to read the alarms.
        forked: whether this process was forked, so that the alarms are its parent's.
    """

    __slots__ = ("alarms", "bell", "buffers", "forked", "startable", "thread")

    def __init__(self, buffers: Sized) -> None:
        self.buffers = buffers
        self.alarms: SimpleQueue[Alarm | None] = SimpleQueue()
        self.bell = threading.Lock()
        self.bell.acquire()
        self.startable: list[None] = [None]
        self.thread: threading.Thread | None = None
        self.forked = False

    def set_alarm(self, due: float, buffer: BatchBuffer) -> bool:
        """Let a buffer come due when the clock shows `due`; return whether a thread sees to it.

        If no thread can, the caller must handle the batch itself.
        """
        self._notify((due, next(_number), weakref.ref(buffer)))
        return not self.startable or self._start()

    def stop(self) -> None:
        """Let the thread end when it has read the alarms that were set before."""
        self._notify(None)

    def _notify(self, alarm: Alarm | None) -> None:
        self.alarms.put(alarm)
        with suppress_but_interrupts(RuntimeError):  # the bell has been rung already
            self.bell.release()

    def _start(self) -> bool:
        started: list[threading.Thread] = []
        thread = start_thread(keep_time, "madcrow-events-timer", self.startable, started, self)
        if thread is not None:
            self.thread = thread
        return thread is not None or not self.startable


def keep_time(timer: Timer) -> None:
    """Let buffers come due at their times, until the timer is stopped; the thread's target.

    Whatever is raised here, the timer goes on.
    """
    waiting: list[Alarm] = []
    taken: list[Alarm | None] = []
    caught: BaseException | None = None
    while True:
        try:
            if caught is not None:  # inside of the `try`, because this may be interrupted, too
                _try_again_soon(timer, waiting, caught)
                caught = None
            _keep_time(timer, waiting, taken)
        except BaseException as error:  # the timer must go on for later alarms
            caught = error
        else:
            return


def _try_again_soon(timer: Timer, waiting: list[Alarm], error: BaseException) -> None:
    """Log the error, set the failed alarm again for a moment later, and pause."""
    if waiting:
        heapq.heapreplace(waiting, (monotonic() + LOOK_EVERY, *waiting[0][1:]))
    log(logging.ERROR, "the timer of batches was interrupted by %s", type_name(type(error)))
    timer.bell.acquire(timeout=LOOK_EVERY)  # or an alarm that always fails keeps a processor busy


def _keep_time(timer: Timer, waiting: list[Alarm], taken: list[Alarm | None]) -> None:
    while not timer.forked:  # pragma: no branch  # only a handler that it calls can fork it
        # Read before waiting: an interrupt may have come after the bell, and before the reading.
        while taken or timer.alarms.qsize():
            if not taken:
                taken.extend(map(SimpleQueue.get, (timer.alarms,)))
            if taken[0] is None:
                return
            _forget_gone(timer, waiting)
            heapq.heappush(waiting, taken[0])
            taken.clear()
        while waiting and waiting[0][0] <= monotonic():
            buffer = waiting[0][2]()
            if buffer is not None:
                buffer.come_due()
            del buffer
            heapq.heappop(waiting)
        # Not `alarms.get(timeout=...)`: under load it waits for ever if it wakes up too late.
        timer.bell.acquire(timeout=max(0.0, waiting[0][0] - monotonic()) if waiting else -1)


def _forget_gone(timer: Timer, waiting: list[Alarm]) -> None:
    """Forget the alarms of subscriptions that no longer exist, if there are many alarms."""
    if len(waiting) > 2 * len(timer.buffers) + 100:
        waiting[:] = [entry for entry in waiting if entry[2]() is not None]
        heapq.heapify(waiting)
