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
"""When a buffer is to look at what waits; the number makes each unlike the others."""

_number = count()


class Timer:
    """Lets buffers of batches look at what waits when that is due.

    Args:
        buffers: all buffers, of which it needs the number.

    Attributes:
        alarms: what its thread has not looked at; None lets it end.
        bell: free when its thread is to look at the alarms.
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
        """Let a buffer look when the clock shows `due`; return whether there is a thread for it."""
        self._notify((due, next(_number), weakref.ref(buffer)))
        return not self.startable or self._start()

    def stop(self) -> None:
        """Let the thread end when it has looked at the alarms before."""
        self._notify(None)

    def _notify(self, alarm: Alarm | None) -> None:
        self.alarms.put(alarm)
        with suppress_but_interrupts(RuntimeError):  # it is to look already
            self.bell.release()

    def _start(self) -> bool:
        started: list[threading.Thread] = []
        thread = start_thread(keep_time, "madcrow-events-timer", self.startable, started, self)
        if thread is not None:
            self.thread = thread
        return thread is not None or not self.startable


def keep_time(timer: Timer) -> None:
    """Let buffers look when their time has come, until told to stop; the thread's target.

    Whatever is raised here, the timer goes on.
    """
    waiting: list[Alarm] = []
    taken: list[Alarm | None] = []
    caught: BaseException | None = None
    while True:
        try:
            if caught is not None:  # here, for that may be interrupted, too
                _try_again_soon(timer, waiting, caught)
                caught = None
            _keep_time(timer, waiting, taken)
        except BaseException as error:  # what is due later must find its timer
            caught = error
        else:
            return


def _try_again_soon(timer: Timer, waiting: list[Alarm], error: BaseException) -> None:
    """Let what has come due be looked at once more, in a moment."""
    if waiting:
        heapq.heapreplace(waiting, (monotonic() + LOOK_EVERY, *waiting[0][1:]))
    log(logging.ERROR, "the timer of batches was interrupted by %s", type_name(type(error)))
    timer.bell.acquire(timeout=LOOK_EVERY)  # or what fails each time would keep a processor busy


def _keep_time(timer: Timer, waiting: list[Alarm], taken: list[Alarm | None]) -> None:
    while not timer.forked:  # pragma: no branch  # but by a handler that it called itself
        # Look before waiting: who was broken off may have heard the bell, and not have looked yet.
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
        # Not by the queue, which under load waits for ever where its time is over as it wakes up.
        timer.bell.acquire(timeout=max(0.0, waiting[0][0] - monotonic()) if waiting else -1)


def _forget_gone(timer: Timer, waiting: list[Alarm]) -> None:
    """Forget the alarms of subscriptions that are gone, if there are many."""
    if len(waiting) > 2 * len(timer.buffers) + 100:
        waiting[:] = [entry for entry in waiting if entry[2]() is not None]
        heapq.heapify(waiting)
