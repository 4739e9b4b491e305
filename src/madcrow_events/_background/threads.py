"""What the threads of a backlog do: the workers, the timer, and the loop of async handlers."""

from __future__ import annotations

import heapq
import time
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, TypeAlias

from madcrow_events._background.batching import Gathering
from madcrow_events._logs import LOGGER
from madcrow_events._text import type_name
from madcrow_events.emissions._lazy_asyncio import load_async_loop

if TYPE_CHECKING:
    import weakref
    from asyncio import AbstractEventLoop

    from madcrow_events._background.backlog import Backlog


__all__ = ["Alarm", "keep_time", "serve", "work"]


def work(backlog: Backlog) -> None:
    """Take from the queue until told to stop; the target of each thread."""
    while not backlog.forked:
        backlog.idle.append(None)
        job = backlog.queue.get()
        backlog.idle.pop()
        if job is None:
            return
        # Again, for this thread was still counted as idle a moment ago.
        backlog.start_enough_threads()
        if isinstance(job, Gathering):
            job.run()
        else:
            backlog.give_back(1)
            job.context.run(job.run)
        del job


Alarm: TypeAlias = "tuple[float, int, weakref.ref[Gathering]]"
"""When a gathering is to look at what waits; the number makes each unlike the others."""


def keep_time(backlog: Backlog) -> None:
    """Let gatherings look when their time has come, until told to stop; the timer's target."""
    waiting: list[Alarm] = []
    while not backlog.forked:  # pragma: no branch  # but by a handler that it called itself
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        with suppress(Empty):
            alarm = backlog.alarms.get(timeout=timeout)
            if alarm is None:
                return
            if len(waiting) > 2 * len(backlog.gatherings) + 100:  # of subscriptions that are gone
                waiting = [entry for entry in waiting if entry[2]() is not None]
                heapq.heapify(waiting)
            heapq.heappush(waiting, alarm)
        while waiting and waiting[0][0] <= time.monotonic():
            gathering = heapq.heappop(waiting)[2]()
            if gathering is not None:
                gathering.ring()
            del gathering


def serve(backlog: Backlog, loop: AbstractEventLoop) -> None:
    """Run the background loop; the target of its thread."""
    load_async_loop().asyncio.set_event_loop(loop)
    while not (backlog.is_stopping or loop.is_closed()):
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001  # an exit of a task that a handler started
            LOGGER.error(
                "a task in the background loop ended with %s", type_name(type(error))
            )  # its traceback is its author's
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
