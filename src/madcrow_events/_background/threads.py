"""What the threads of a backlog do: the workers, the timer, and the loop of async handlers."""

from __future__ import annotations

import heapq
import logging
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

from madcrow_events._clock import monotonic
from madcrow_events._logs import log
from madcrow_events._text import type_name
from madcrow_events._waiters import LOOK_EVERY
from madcrow_events.emissions._lazy_asyncio import load_async_loop

if TYPE_CHECKING:
    import weakref
    from asyncio import AbstractEventLoop

    from madcrow_events._background.backlog import Backlog
    from madcrow_events._background.batching import Gathering, Turn
    from madcrow_events._background.job import Job


__all__ = ["Alarm", "keep_time", "serve", "work", "work_off"]


def work(backlog: Backlog) -> None:
    """Take from the queue until told to stop; the target of each worker.

    Whatever is raised here ends what was taken, and not the worker: a task queue's time limit
    comes up anywhere.
    """
    taken: list[Job | Turn | None] = []
    caught: BaseException | None = None
    while True:
        try:
            if caught is not None:  # here, for that may be interrupted, too
                _lose(taken, caught)
                caught = None
            _work_until_told(backlog, taken)
        except BaseException as error:  # noqa: BLE001  # the next job must find its worker
            caught = error
        else:
            return


def _work_until_told(backlog: Backlog, taken: list[Job | Turn | None]) -> None:
    while not backlog.forked:
        if _take(backlog, taken) is None:
            return
        # Again, for this thread was still counted as idle a moment ago.
        backlog.start_enough_threads()
        _work_off(taken)


def work_off(taken: list[Job | Turn | None]) -> None:
    """Do what was taken from the queue, in the place of a worker; whatever it is interrupted by."""
    try:
        _work_off(taken)
    except BaseException as error:
        _lose(taken, error)
        raise


def _work_off(taken: list[Job | Turn | None]) -> None:
    job: Job | Turn | None
    for job in [it for it in taken if it is not None]:
        job.work_off()
    taken.clear()
    job = None  # which the traceback of a failure would keep


def _lose(taken: list[Job | Turn | None], error: BaseException) -> None:
    for job in [it for it in taken if it is not None]:
        job.lose("it was interrupted", error)
    taken.clear()
    log(logging.ERROR, "a background worker was interrupted by %s", type_name(type(error)))


def _take(backlog: Backlog, taken: list[Job | Turn | None]) -> Job | Turn | None:
    """Wait for work; return it, and put it into a list in the step that takes it from the queue."""
    mark = object()
    try:
        backlog.idle.append(mark)
        taken.extend(map(SimpleQueue.get, (backlog.queue,)))
    finally:
        try:  # noqa: SIM105  # nothing may come before that could be interrupted
            backlog.idle.remove(mark)
        except ValueError:
            pass
    return taken[0]


Alarm: TypeAlias = "tuple[float, int, weakref.ref[Gathering]]"
"""When a gathering is to look at what waits; the number makes each unlike the others."""


def keep_time(backlog: Backlog) -> None:
    """Let gatherings look when their time has come, until told to stop; the timer's target.

    Whatever is raised here, the timer goes on.
    """
    waiting: list[Alarm] = []
    taken: list[Alarm | None] = []
    caught: BaseException | None = None
    while True:
        try:
            if caught is not None:  # as above
                _ring_again(backlog, waiting, caught)
                caught = None
            _keep_time(backlog, waiting, taken)
        except BaseException as error:  # noqa: BLE001  # as above
            caught = error
        else:
            return


def _ring_again(backlog: Backlog, waiting: list[Alarm], error: BaseException) -> None:
    """Let what has come due ring once more, in a moment."""
    if waiting:
        heapq.heapreplace(waiting, (monotonic() + LOOK_EVERY, *waiting[0][1:]))
    log(logging.ERROR, "the timer of batches was interrupted by %s", type_name(type(error)))
    backlog.bell.acquire(timeout=LOOK_EVERY)  # or what fails each time would keep a processor busy


def _keep_time(backlog: Backlog, waiting: list[Alarm], taken: list[Alarm | None]) -> None:
    while not backlog.forked:  # pragma: no branch  # but by a handler that it called itself
        # Look before waiting: who was broken off may have heard the bell, and not have looked yet.
        while taken or backlog.alarms.qsize():
            if not taken:
                taken.extend(map(SimpleQueue.get, (backlog.alarms,)))
            if taken[0] is None:
                return
            _forget_gone(backlog, waiting)
            heapq.heappush(waiting, taken[0])
            taken.clear()
        while waiting and waiting[0][0] <= monotonic():
            gathering = waiting[0][2]()
            if gathering is not None:
                gathering.ring()
            del gathering
            heapq.heappop(waiting)
        # Not by the queue, which under load waits for ever where its time is over as it wakes up.
        backlog.bell.acquire(timeout=max(0.0, waiting[0][0] - monotonic()) if waiting else -1)


def _forget_gone(backlog: Backlog, waiting: list[Alarm]) -> None:
    """Forget the alarms of subscriptions that are gone, if there are many."""
    if len(waiting) > 2 * len(backlog.gatherings) + 100:
        waiting[:] = [entry for entry in waiting if entry[2]() is not None]
        heapq.heapify(waiting)


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
