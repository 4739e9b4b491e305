"""What the threads of a backlog do: the workers, the timer, and the loop of async handlers."""

from __future__ import annotations

import heapq
import logging
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from madcrow_events._clock import monotonic
from madcrow_events._logs import log
from madcrow_events._text import type_name
from madcrow_events.emissions._lazy_asyncio import load_async_loop

if TYPE_CHECKING:
    import weakref
    from asyncio import AbstractEventLoop

    from madcrow_events._background.backlog import Backlog
    from madcrow_events._background.batching import Gathering, Turn
    from madcrow_events._background.job import Job


__all__ = ["Alarm", "keep_time", "serve", "work"]


def work(backlog: Backlog) -> None:
    """Take from the queue until told to stop; the target of each worker.

    Whatever is raised here ends what was taken, and not the worker.
    """
    taken: list[Job | Turn | None] = []
    while not backlog.forked:
        try:
            if _take(backlog, taken) is None:
                return
            # Again, for this thread was still counted as idle a moment ago.
            backlog.start_enough_threads()
            for job in taken:
                job.work_off()  # type: ignore[union-attr]  # it is not None
        except BaseException as error:  # noqa: BLE001  # the next job must find its worker
            for job in taken:
                job.lose("it was interrupted", error)  # type: ignore[union-attr]  # as above
            log(logging.ERROR, "a background worker was interrupted by %s", type_name(type(error)))
        taken.clear()
        job = None


def _take(backlog: Backlog, taken: list[Job | Turn | None]) -> Job | Turn | None:
    """Wait for work; return it, and put it into a list in the step that takes it from the queue."""
    mark = object()
    try:
        backlog.idle.append(mark)
        taken.extend(map(SimpleQueue.get, (backlog.queue,)))
    finally:
        with suppress(ValueError):
            backlog.idle.remove(mark)
    return taken[0]


Alarm: TypeAlias = "tuple[float, int, weakref.ref[Gathering]]"
"""When a gathering is to look at what waits; the number makes each unlike the others."""


def keep_time(backlog: Backlog) -> None:
    """Let gatherings look when their time has come, until told to stop; the timer's target."""
    waiting: list[Alarm] = []
    while not backlog.forked:  # pragma: no branch  # but by a handler that it called itself
        timeout = max(0.0, waiting[0][0] - monotonic()) if waiting else None
        with suppress(Empty):
            alarm = backlog.alarms.get(timeout=timeout)
            if alarm is None:
                return
            if len(waiting) > 2 * len(backlog.gatherings) + 100:  # of subscriptions that are gone
                waiting = [entry for entry in waiting if entry[2]() is not None]
                heapq.heapify(waiting)
            heapq.heappush(waiting, alarm)
        while waiting and waiting[0][0] <= monotonic():
            gathering = heapq.heappop(waiting)[2]()
            if gathering is not None:
                gathering.ring()
            del gathering


def serve(backlog: Backlog, loop: AbstractEventLoop) -> None:
    """Run a background loop until it is stopped; the target of its thread."""
    load_async_loop().asyncio.set_event_loop(loop)
    is_wanted = True
    while is_wanted:
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001  # an exit of a task that a handler started
            log(
                logging.ERROR, "a task in the background loop ended with %s", type_name(type(error))
            )  # its traceback is its author's
        is_wanted = loop in backlog.loop and not (backlog.is_stopping or loop.is_closed())
    try:
        asyncio = load_async_loop().asyncio
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
