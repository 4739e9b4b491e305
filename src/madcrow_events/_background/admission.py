"""What takes the handlers that no emitter waits for: a bounded queue before threads and a loop.

What belongs to one process is one object, a `Backlog`, that a forked child
replaces as a whole: the threads are not there, and the work is the parent's.
"""

from __future__ import annotations

import logging
import math
import queue
import sys
import weakref
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from madcrow_events._background import exit as _exit
from madcrow_events._background.backlog import Backlog
from madcrow_events._background.job import Job
from madcrow_events._clock import monotonic
from madcrow_events._forks import renew_after_fork
from madcrow_events._interrupts import is_interrupt
from madcrow_events._logs import log
from madcrow_events._moves import move_last
from madcrow_events._other_loops import (
    STRANGERS,
    check_for_awaiting,
    greenlets,
    loop_to_wait_in,
    other_library,
    refuse,
)
from madcrow_events._text import printable
from madcrow_events._waiters import check_seconds
from madcrow_events.emissions._causes import detach
from madcrow_events.emissions._failures import is_failure
from madcrow_events.emissions._frames import CURRENT, Branch, frames
from madcrow_events.emissions._lazy_asyncio import applications_loop, load_async_loop, running_loop
from madcrow_events.emissions._observing import log_skipped
from madcrow_events.emissions._outcomes import NO_RESULT, PENDING, HeldBack, Outcomes, outcomes_of
from madcrow_events.emissions._plan import plan_for, plan_of
from madcrow_events.emissions._recording import record_in_branch
from madcrow_events.exceptions import (
    DispatcherClosedError,
    EventLoopError,
    InvalidOptionError,
    QueueFullError,
    WouldDeadlockError,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Iterator

    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import Entry, Plan

__all__ = ["Overflow", "Workers"]

Overflow: TypeAlias = Literal["block", "raise", "drop"]
"""What becomes of a handler that finds the queue full."""

_MOST = 1_000_000

_UNABLE = (RuntimeError, MemoryError, OSError)
"""What is raised where no thread or loop can be made, or the stack is full."""

_left_behind: list[AbstractEventLoop] = []
"""The loops that a forked child inherited, which it can neither run nor close."""


class Binding:
    """A `with` block in which a dispatcher is bound to a loop; blocks may end in any order.

    Args:
        bindings: those of the dispatcher, the last of which holds.
        loop: the application's loop.
    """

    __slots__ = ("_bindings", "loop")

    def __init__(self, bindings: list[Binding], loop: AbstractEventLoop) -> None:
        self._bindings = bindings
        self.loop = loop

    def end(self) -> None:
        """Let it hold no more; doing so again is no error."""
        with suppress(ValueError):
            self._bindings.remove(self)

    def __enter__(self) -> None: ...

    def __exit__(self, *exc_info: object) -> None:
        self.end()


class Workers:
    """Runs the handlers that dispatchers of one family leave for later.

    Args:
        queue_size: how many may wait.
        overflow: what becomes of one more.
        max_workers: how many threads to start at most.

    Raises:
        InvalidOptionError: an option has an impossible value.
    """

    __slots__ = (
        "__weakref__",
        "_backlog",
        "_bindings",
        "_finalizer",
        "_is_closed",
        "max_workers",
        "overflow",
        "queue_size",
    )

    def __init__(self, queue_size: int, overflow: Overflow, max_workers: int) -> None:
        numbers: dict[str, object] = {"queue_size": queue_size, "max_workers": max_workers}
        for option, number in numbers.items():
            is_int = isinstance(number, int) and not isinstance(number, bool)
            if not (is_int and 1 <= number <= _MOST):  # type: ignore[operator]  # it is an int
                raise InvalidOptionError(
                    f"{option} must be a whole number from 1 to {_MOST}, such as 4", option=option
                )
        if overflow not in ("block", "raise", "drop"):
            raise InvalidOptionError(
                f"overflow must be 'block', 'raise' or 'drop', not {printable(overflow)}",
                option="overflow",
            )
        self.queue_size = queue_size
        self.overflow: Overflow = overflow
        self.max_workers = max_workers
        self._is_closed = False
        self._bindings: list[Binding] = []
        self._finalizer: Any = None
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        """Start with an empty queue and no thread."""
        inherited: Backlog | None = getattr(self, "_backlog", None)
        self._backlog = Backlog(self.queue_size, self.max_workers)
        if inherited is None:
            return
        inherited.forked = True
        _exit.forget(inherited)
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        # The loop's thread is gone, and its sockets are the parent's: it must not be closed.
        _left_behind.extend(inherited.loop)
        self._bindings = []
        for job in list(inherited.jobs.values()):
            job.settle(NO_RESULT)
            job.outcomes.forget_waiters()

    @property
    def dropped(self) -> int:
        """How many calls were dropped."""
        return self._backlog.dropped

    @property
    def bound_loop(self) -> AbstractEventLoop | None:
        """The application's loop for async handlers whose emitter has none; None without one."""
        for binding in reversed(self._bindings):
            if not binding.loop.is_closed():
                return binding.loop
        return None

    def bind(self, loop: AbstractEventLoop) -> Binding:
        """Name that loop, until the binding is left."""
        for binding in list(self._bindings):
            if binding.loop.is_closed():
                binding.end()
        binding = Binding(self._bindings, loop)
        self._bindings.append(binding)
        return binding

    # Taking work

    def admit(
        self,
        emission: Emission[Any],
        plan: Plan,
        outcomes: Outcomes,
        held: object,
        *,
        awaiting: bool,
    ) -> None:
        """Set places in the queue aside for the handlers of an emission that are not called inline.

        Args:
            emission: the emission, none of whose handlers has been called.
            plan: its handlers.
            outcomes: what gets the places.
            held: what it had in the place of outcomes while a block held it back.
            awaiting: whether its emitter awaits the async ones.

        Raises:
            QueueFullError: there are more than the queue has places for, and waiting
                for places is not wanted, or could never end.
            DispatcherClosedError: the dispatcher has been closed.
            EventLoopError: they cannot be called from here.
        """
        needed = len(plan.subscriptions) - plan.inline
        if awaiting:
            needed -= plan.awaited
        if self._is_closed:
            raise DispatcherClosedError(
                f"{emission.event} has handlers that would run later, and the dispatcher is "
                "closed: emit before close(), or make a new EventDispatcher",
                event=emission.event,
            )
        if not sys.modules.keys().isdisjoint(STRANGERS) or (awaiting and plan.awaited):
            self._refuse_elsewhere(emission.event, plan, awaiting=awaiting)
        outcomes.places = []
        if self.overflow == "drop":
            return
        if isinstance(held, HeldBack) and len(held.places) >= needed > 0:
            outcomes.places, held.places = held.places, outcomes.places
            return
        why = self._why_not_wait(awaiting=awaiting)
        if why is None or self._backlog.take(needed, outcomes.places):
            return
        fix = f"queue_size={needed} or more"
        if needed <= self.queue_size:
            fix = "a larger queue_size, or emit it again later"
        raise QueueFullError(
            f"{emission.event} needs {needed} of the {self.queue_size} places in the queue of "
            f"handlers that run later, and fewer are free{why}: give the dispatcher {fix}",
            event=emission.event,
            queue_size=self.queue_size,
        )

    def _why_not_wait(self, *, awaiting: bool) -> str | None:
        """Return what an emitter that finds no place is told; None if it can wait for one."""
        if self.overflow != "block":
            return ""
        if self._work_inside():
            return " (a handler that holds a place itself cannot wait for another)"
        if not awaiting and running_loop() is not None:
            return " (emit cannot wait in a running event loop: await emit_async)"
        library = other_library()
        return f" (nobody can wait for one in {library}: emit in a thread)" if library else None

    def _refuse_elsewhere(self, event: str, plan: Plan, *, awaiting: bool) -> None:
        """Refuse handlers that run later where neither asyncio nor threads are what they are."""
        if awaiting and plan.awaited:
            check_for_awaiting(event)
        kinds = [it.spec.is_async for it in plan.entries[plan.inline :]]
        library, threads = other_library(), greenlets()
        is_stranger = library or (threads == "eventlet" and running_loop() is None)
        if is_stranger and any(kinds) and self.bound_loop is None:
            raise refuse(event, library or threads)
        if threads != "gevent":
            return
        problem = ""
        if type(self._backlog.queue) is not queue.SimpleQueue:
            problem = (
                "gevent has replaced threads after madcrow_events was imported: call "
                "monkey.patch_all() before all imports"
            )
        elif not all(kinds) and running_loop() is not applications_loop():
            problem = (
                "under gevent no async handler reaches the greenlets of plain ones in the "
                "background: emit it from a greenlet"
            )
        if problem:
            raise EventLoopError(
                f"{event} has handlers that run later, and {problem}", event=event, library=threads
            )

    async def set_aside_async(self, emission: Emission[Any]) -> None:
        """Wait for the places that an emission needs which was held back, and set them aside.

        Args:
            emission: what is to go out next, as by `emit`, which could not wait in a running loop.
        """
        plan = plan_for(emission)
        needed = len(plan.subscriptions) - plan.inline
        if self.overflow != "block" or not 0 < needed <= self.queue_size or self._work_inside():
            return
        backlog, held = self._backlog, outcomes_of(emission)
        places: list[None] = []
        held.places = places
        await backlog.freed.wait_async(lambda: backlog.take(needed, places), None)

    def give_back(self, places: list[None]) -> None:
        """Free the places that were set aside and not used."""
        self._backlog.give_back(places)

    def abandon(self, emission: Emission[Any]) -> None:
        """Give up those handlers of an emission that have not begun; doing so again is no error."""
        outcomes = outcomes_of(emission)
        if outcomes.places:
            self._backlog.give_back(outcomes.places)
        begun = {job.branch.index for job in self._jobs_of(emission)}
        for index, value in enumerate(outcomes):
            if value is PENDING and index not in begun:
                outcomes.settle(index)

    def start(self, emission: Emission[Any]) -> None:
        """Start the handlers that `emit` leaves for later."""
        places = outcomes_of(emission).places
        for backlog in self._starting(emission, plan_of(emission).inline):
            backlog.freed.wait(partial(backlog.take_one, places), None)

    async def start_async(self, emission: Emission[Any]) -> None:
        """Start the background handlers of `emit_async`."""
        plan, places = plan_of(emission), outcomes_of(emission).places
        for backlog in self._starting(emission, plan.inline + plan.awaited):
            await backlog.freed.wait_async(partial(backlog.take_one, places), None)

    def _starting(self, emission: Emission[Any], first: int) -> Iterator[Backlog]:
        """Start handlers in turn; yield wherever a place in the queue has to be waited for."""
        backlog, loop, outcomes = self._backlog, applications_loop(), outcomes_of(emission)
        places = outcomes.places
        entries = plan_of(emission).entries
        for index in range(first, len(entries)):
            # First, for no place may be held while a predicate runs.
            job = _matching(backlog, emission, index, entries[index])
            if job is None:
                continue
            if not (places or backlog.take(1, places)):
                if self.overflow == "drop":
                    self._drop(emission, index)
                    continue
                yield backlog
            if job.entry.claim():
                self._launch(job, places, loop)
            else:
                outcomes.settle(index)
                backlog.give_back(places, 1)
        if places:  # of handlers that are not for this emission
            backlog.give_back(places)
        outcomes.tell()

    def _drop(self, emission: Emission[Any], index: int) -> None:
        outcomes_of(emission).settle(index)
        backlog = self._backlog
        with backlog.tally:
            backlog.dropped += 1
            begins, backlog.is_dropping = not backlog.is_dropping, True
        if begins:
            log(
                logging.WARNING,
                "the queue of %d handlers that run later is full: %s of %s is dropped, and others "
                "until half of the queue is free",
                self.queue_size,
                plan_of(emission).subscriptions[index].name,
                emission.event,
            )

    def _launch(self, job: Job, places: list[None], loop: AbstractEventLoop | None) -> None:
        """Give a job a place, and to what will do it, and which then frees the place."""
        backlog = job.backlog
        if not _exit.is_over():
            _exit.wait_for(backlog)
            if self._finalizer is None:
                self._finalizer = weakref.finalize(self, backlog.stop)
                self._finalizer.atexit = False
        try:
            backlog.jobs[id(job)] = job
            move_last(places, job.place)
            self._hand_over(job, loop)
        except BaseException as error:
            is_ours = False
            try:
                is_ours = job.claim()
                is_interrupted = is_interrupt(error)  # first, for a loss empties its frames
                if is_ours:
                    job.lose("it could not be started", error)
            except RecursionError:  # for which its emitter has it back: no call has a place here
                try:
                    job.ticket.pop()
                    is_ours = True
                except IndexError:  # a worker has begun with it, or it was claimed above
                    pass
                if is_ours:
                    job.settle(NO_RESULT)
                    backlog.places.extend(job.place)
                    job.place.clear()
                    backlog.held.pop(id(job), None)
                    backlog.jobs.pop(id(job), None)
                raise
            # What keeps it from starting is its failure; what interrupts the emitter is raised.
            is_timeout = isinstance(error, TimeoutError)  # which is an OSError, but not of these
            if is_timeout or is_interrupted or not isinstance(error, _UNABLE):
                raise

    def _hand_over(self, job: Job, loop: AbstractEventLoop | None) -> None:
        backlog = job.backlog
        # Looked at after the job was noted, so that whoever closes or exits waits for it. Then
        # nobody else does it any more.
        is_alone = self._is_closed or _exit.is_over()
        if not job.entry.spec.is_async:
            if job.subscription.batch is not None and not is_alone:
                backlog.gather(job, None)
                return
            if not is_alone and backlog.put(job):
                return
            job.free_place()
            job.run_in_place()
            return
        # Clients, pools and locks of the application's belong to its loop.
        theirs = loop or self.bound_loop
        if theirs is not None:
            job.loop = theirs
            backlog.held[id(job)] = job
        if job.subscription.batch is not None and not is_alone:
            backlog.gather(job, theirs)
        elif theirs is not None:
            if theirs is loop:
                job.begin()
            else:
                theirs.call_soon_threadsafe(job.begin)
        else:
            if not is_alone:
                job.loop = backlog.background_loop()
            if job.loop is not None:
                job.loop.call_soon_threadsafe(job.begin)
            else:
                job.run_in_place()

    # Waiting for it

    def report_lost(self) -> None:
        """Record as failed what can never end any more, for its event loop was closed."""
        self._backlog.is_done()

    def drain(self, timeout: float | None) -> bool:
        """Wait in a thread until nothing is pending; return whether nothing is.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes.

        Raises:
            WouldDeadlockError: what is pending waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        return self._drain(timeout, "drain", "await drain_async()")

    def _drain(self, timeout: float | None, method: str, instead: str) -> bool:
        check_seconds("timeout", timeout, allow_zero=True)
        backlog = self._backlog
        if timeout == 0:
            return backlog.is_done()
        self._refuse_inside_work(method)
        if backlog.is_done():
            return True
        held = list(backlog.held.values())
        _refuse_stuck(held, instead)
        _refuse_here([*backlog.loop, *(job.loop for job in held)], instead)
        mark = object()
        try:
            backlog.hurry(mark)
            return backlog.changed.wait(backlog.is_done, timeout)
        finally:
            try:  # noqa: SIM105  # nothing may come before that could be interrupted
                backlog.hurried.remove(mark)
            except ValueError:
                pass

    async def drain_async(self, timeout: float | None) -> bool:  # noqa: ASYNC109  # as for drain
        """Wait in a task until nothing is pending; return whether nothing is.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes.

        Raises:
            WouldDeadlockError: what is pending waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        backlog = self._backlog
        if timeout == 0:
            return backlog.is_done()
        self._refuse_inside_work("drain_async")
        _refuse_stuck(list(backlog.held.values()), "await drain_async()")
        mark = object()
        try:
            backlog.hurry(mark)
            return await backlog.changed.wait_async(backlog.is_done, timeout)
        finally:
            try:  # noqa: SIM105  # nothing may come before that could be interrupted
                backlog.hurried.remove(mark)
            except ValueError:
                pass

    def close(self, timeout: float | None) -> bool:
        """Wait until nothing is pending, and take no more; return whether nothing is pending.

        Args:
            timeout: how many seconds to wait at most; None for as long as it takes.

        Raises:
            WouldDeadlockError: what is pending waits for the caller.
            InvalidOptionError: the timeout is no number of seconds.
        """
        check_seconds("timeout", timeout, allow_zero=True)
        deadline = math.inf if timeout is None else monotonic() + timeout
        self._drain(timeout, "close", "await drain_async() first")
        self._is_closed = True
        # Once more, for what other threads have emitted in between.
        left = None if timeout is None else max(0.0, deadline - monotonic())
        is_done = self._drain(left, "close", "await drain_async() first")
        if is_done:
            self._backlog.stop()
            self._backlog.join(deadline)
        return is_done

    async def close_async(self) -> None:
        """Do as `close` in a running loop, for as long as it takes.

        Raises:
            WouldDeadlockError: a handler that is pending calls it.
            EventLoopError: asyncio does not run here.
        """
        loop_to_wait_in()
        await self.drain_async(None)
        self._is_closed = True
        await self.drain_async(None)  # once more, as in `close`
        self._backlog.stop()
        await load_async_loop().asyncio.to_thread(self._backlog.join, math.inf)

    def check_waiting(self, emission: Emission[Any]) -> None:
        """Refuse to wait in a thread for an emission that waits for this thread.

        Raises:
            WouldDeadlockError: it does.
        """
        self.check_awaiting(emission)
        outcomes = outcomes_of(emission)
        loops = [job.loop for job in self._jobs_of(emission)]
        if isinstance(outcomes, Outcomes):
            loops.append(outcomes.loop)
        _refuse_here(loops, "await emission.done()")

    def check_awaiting(self, emission: Emission[Any]) -> None:
        """Refuse to wait, in whatever way, for what cannot end or is queued behind the caller.

        Raises:
            WouldDeadlockError: it would.
        """
        jobs = self._jobs_of(emission)
        _refuse_stuck(jobs, "await emission.done()")
        inside = self._work_inside()
        batched = {job.owner for job in inside if job.subscription.batch is not None}
        if any(job.owner in batched for job in jobs):
            raise WouldDeadlockError(
                f"a handler of batches waits for {emission.event}, which is part of this batch or "
                "of the next, and those are handled one at a time: let it return"
            )
        is_worker = any(not job.entry.spec.is_async for job in inside)
        if is_worker and any(job.loop is None for job in jobs):
            raise WouldDeadlockError(
                f"a background handler waits for the background handlers of {emission.event}, "
                "which may be queued behind it: let it return, and act on their end elsewhere"
            )

    def _jobs_of(self, emission: Emission[Any]) -> list[Job]:
        jobs, outcomes = list(self._backlog.jobs.values()), outcomes_of(emission)
        return [job for job in jobs if job.outcomes is outcomes]

    def _work_inside(self) -> list[Job]:
        """Return the jobs in which the caller runs."""
        jobs = [frame.job for frame in frames() if isinstance(frame, Branch)]
        return [job for job in jobs if job is not None and job.backlog is self._backlog]

    def _refuse_inside_work(self, method: str) -> None:
        if self._work_inside():
            raise WouldDeadlockError(
                f"{method} waits for all pending handlers, and one of them calls it: call it from "
                "the code that emits"
            )


def _matching(
    backlog: Backlog,
    emission: Emission[Any],
    index: int,
    entry: Entry,
) -> Job | None:
    """Return the job of a handler for which this emission is, with a context of its own."""
    branch = Branch(emission, index)
    context = copy_context()
    context.run(CURRENT.set, branch)
    item = None
    try:
        handler = context.run(entry.match, emission)
        if handler is not None and entry.subscription.once:
            context.run(entry.check_arguments, handler, emission)
        if handler is not None and entry.spec.item is not None:
            item = context.run(entry.spec.item, emission)
    except BaseException as error:
        if not is_failure(error):
            raise
        record_in_branch(branch, error)
        return None
    finally:
        branch.finish()
    if handler is None:
        log_skipped(emission, entry.subscription.handler)
        outcomes_of(emission).settle(index)
        return None
    job = Job(backlog, branch, context, entry, handler)
    job.item = item
    detach(branch, job)
    return job


def _refuse_stuck(jobs: list[Job], instead: str) -> None:
    for job in jobs:
        if job.is_stuck():
            raise WouldDeadlockError(
                f"{job.emission.name_of(job.handler)} is pending in an event loop that does not "
                f"run: {instead} in that loop"
            )


def _refuse_here(loops: list[AbstractEventLoop | None], instead: str) -> None:
    here = running_loop()
    if here is not None and here in loops:
        raise WouldDeadlockError(
            f"waiting here would stop the event loop in which handlers are pending: {instead}"
        )
