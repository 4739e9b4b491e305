"""The pending work of one process: handlers that no emitter waits for, and what runs them.

Nothing here waits for a lock, because a finalizer may emit in the middle of
anything; what threads share are lists, dictionaries and a `SimpleQueue`, whose
single operations cannot be interrupted. It is longer than other files because a
job and what runs it read and write the same lists.
"""

from __future__ import annotations

import heapq
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from madcrow_events._background import exit as _exit
from madcrow_events._background.batching import Gathering, call_batch_here
from madcrow_events._logs import LOGGER, handler_name, log_unannounced, type_name
from madcrow_events._waiting import LOOK_EVERY, Listeners
from madcrow_events.emissions._lazy_asyncio import (
    load_async_calls,
    new_event_loop,
    running_loop,
)
from madcrow_events.emissions._loop import run_branch
from madcrow_events.emissions._outcomes import PENDING
from madcrow_events.emissions._recording import record_in_branch
from madcrow_events.exceptions import HandlerCancelledError, WouldDeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable, Iterator
    from contextvars import Context

    from madcrow_events.emissions._frames import Branch
    from madcrow_events.subscriptions import Subscription

__all__ = ["Backlog", "Job"]


class Backlog:
    """The pending work of one process, and what works on it."""

    __slots__ = (
        "__weakref__",
        "alarms",
        "changed",
        "dropped",
        "forked",
        "freed",
        "gatherings",
        "held",
        "hurried",
        "idle",
        "is_dropping",
        "is_stopping",
        "jobs",
        "loop",
        "loop_thread",
        "places",
        "queue",
        "queue_size",
        "startable",
        "tally",
        "threads",
        "timer",
        "timer_startable",
    )

    def __init__(self, queue_size: int, max_workers: int) -> None:
        self.queue: SimpleQueue[Job | Gathering | None] = SimpleQueue()
        self.queue_size = queue_size
        self.places: list[None] = [None] * queue_size
        self.jobs: dict[int, Job] = {}
        self.held: dict[int, Job] = {}  # those in event loops of the application's
        self.freed = Listeners(LOOK_EVERY)  # told of places in the queue
        self.changed = Listeners(LOOK_EVERY)  # told when nothing is pending
        self.startable: list[None] = [None] * max_workers
        self.idle: list[None] = []
        self.threads: list[threading.Thread] = []
        self.loop: list[AbstractEventLoop] = []
        self.loop_thread: threading.Thread | None = None
        self.gatherings: dict[int, Gathering] = {}  # by the id of the subscription
        self.hurried: list[None] = []  # one for each who waits until nothing is pending
        self.alarms: SimpleQueue[Alarm | None] = SimpleQueue()
        self.timer_startable: list[None] = [None]
        self.timer: threading.Thread | None = None
        self.tally = threading.RLock()  # re-entered by a finalizer that emits
        self.dropped = 0
        self.is_dropping = False
        self.forked = False
        self.is_stopping = False

    def give_back(self, number: int) -> None:
        """Free places in the queue."""
        self.places.extend([None] * number)
        self.freed.tell(number)

    def take(self, number: int) -> bool:
        """Take so many places in the queue, or none."""
        taken = 0
        try:
            while taken < number:
                self.places.pop()
                taken += 1
        except IndexError:
            self.places.extend([None] * taken)
            self.look_at_batches()  # what waits for more gives its places back
            return bool(self._report_lost()) and self.take(number)
        if self.is_dropping and 2 * (len(self.places) + 1) >= self.queue_size:
            self.is_dropping = False
        return True

    def take_one(self) -> bool:
        """Take a place in the queue if one is free.

        Raises:
            WouldDeadlockError: none will ever be.
        """
        if self.take(1):
            return True
        if sum(job.is_stuck() for job in list(self.held.values())) >= self.queue_size:
            raise WouldDeadlockError(
                "the queue is full of handlers in an event loop that does not run: run it, or "
                "await drain_async() before it ends"
            )
        return False

    def is_done(self) -> bool:
        """Tell whether nothing is pending; what can never end any more has failed."""
        return not self.jobs or bool(self._report_lost() and not self.jobs)

    def is_hopeless(self) -> bool:
        """Tell whether nothing that is pending can still come to an end."""
        self._report_lost()
        held = list(self.held.values())
        return len(self.jobs) <= len(held) and all(job.is_stuck() for job in held)

    def _report_lost(self) -> int:
        """Record as failed what can never end any more; return how many those are."""
        lost = [job for job in list(self.held.values()) if job.loop and job.loop.is_closed()]
        for job in lost:
            job.lose(f"its event loop was closed before {handler_name(job.handler)} had ended")
        return len(lost)

    # Batches

    def gather(self, job: Job) -> None:
        """Let a context wait for the next batch of its handler."""
        owner = job.owner
        gathering = self.gatherings.get(id(owner))
        if gathering is None:
            limits: Any = owner.batch
            made = Gathering(self, limits, is_async=job.subscription._shape.is_async)
            gathering = self.gatherings.setdefault(id(owner), made)
            if gathering is made:  # pragma: no branch  # or another thread was faster
                made.owner = weakref.ref(owner, _forget(weakref.ref(self), id(owner)))
        gathering.add(job)

    def is_hurrying(self) -> bool:
        """Tell whether no batch waits for more: somebody waits for all, or the queue is full."""
        return bool(self.hurried) or not self.places

    def look_at_batches(self) -> None:
        """Let what waits for a batch be handled, as far as it is due."""
        for gathering in list(self.gatherings.values()):
            gathering.look()

    def hurry(self) -> None:
        """Let no batch wait for more from now on."""
        self.hurried.append(None)
        self.look_at_batches()

    @contextmanager
    def hurrying(self) -> Iterator[None]:
        """Let no batch wait for more until the block ends."""
        self.hurry()
        try:
            yield
        finally:
            self.hurried.pop()

    def set_alarm(self, due: float, gathering: Gathering) -> None:
        """Let a gathering look at what waits when the clock shows `due`."""
        self.alarms.put((due, next(_number), weakref.ref(gathering)))
        if self.timer_startable:
            try:
                self.timer_startable.pop()
            except IndexError:  # pragma: no cover  # another thread was faster
                return
            thread = threading.Thread(
                target=_keep_time, args=(self,), name="madcrow-events-timer", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # at the exit of the interpreter, for example
                self.timer_startable.append(None)
                self.hurry()  # for nobody will ring
            else:
                self.timer = thread

    # Threads and the loop

    def start_a_thread(self) -> None:
        """Start a thread if there is none."""
        if not self.threads:
            self._start_thread()

    def put(self, job: Job | Gathering) -> bool:
        """Give work to a thread; return whether there is one."""
        self.start_a_thread()
        if not self.threads:
            return False
        self.queue.put(job)
        self.start_enough_threads()
        return True

    def start_enough_threads(self) -> None:
        """Start a thread if more jobs are queued than threads wait for one."""
        if self.startable and self.queue.qsize() > len(self.idle):
            self._start_thread()

    def _start_thread(self) -> None:
        try:
            self.startable.pop()
        except IndexError:
            return
        thread = threading.Thread(
            target=_work, args=(self,), name="madcrow-events-worker", daemon=True
        )
        # Before it runs, so that another emitter queues its job for it meanwhile.
        self.threads.append(thread)
        try:
            thread.start()
        except RuntimeError:  # at the exit of the interpreter, for example, no thread can start
            self.threads.remove(thread)
            self.startable.append(None)

    def background_loop(self) -> AbstractEventLoop | None:
        """Return the loop of handlers that nobody awaits; None if it cannot run any more."""
        if self.loop:
            return self.loop[0]
        loop = new_event_loop()
        self.loop.append(loop)
        if self.loop[0] is not loop:  # another thread was faster
            self.loop.remove(loop)
            loop.close()
            return self.loop[0]
        thread = threading.Thread(
            target=_serve, args=(self, loop), name="madcrow-events-loop", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # as above
            self.loop.remove(loop)
            loop.close()
            return None
        self.loop_thread = thread
        return loop

    def stop(self) -> None:
        """Let the threads end when they have nothing to do any more."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self.alarms.put(None)
        for _ in self.threads:
            self.queue.put(None)
        for loop in self.loop:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.stop)
        _exit.forget(self)

    def join(self, deadline: float) -> None:
        """Wait until the threads have ended, after `stop`, or until the clock shows `deadline`."""
        for thread in [*self.threads, self.loop_thread, self.timer]:
            if thread is not None and thread is not threading.current_thread():
                thread.join(min(max(0, deadline - time.monotonic()), threading.TIMEOUT_MAX))


def _work(backlog: Backlog) -> None:
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

_number = count()


def _keep_time(backlog: Backlog) -> None:
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


def _forget(reference: weakref.ref[Backlog], key: int) -> Callable[[Any], None]:
    """Return a weak-reference callback that forgets what gathered for a subscription."""

    def gone(_: Any) -> None:
        backlog = reference()
        if backlog is not None:
            backlog.gatherings.pop(key, None)

    return gone


def _serve(backlog: Backlog, loop: AbstractEventLoop) -> None:
    """Run the background loop; the target of its thread."""
    load_async_calls().asyncio.set_event_loop(loop)
    while not (backlog.is_stopping or loop.is_closed()):
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001  # an exit of a task that a handler started
            LOGGER.error(
                "a task in the background loop ended with %s", type_name(type(error))
            )  # its traceback is its author's
    try:
        asyncio = load_async_calls().asyncio
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


class Job:
    """One call of a handler that nobody waits for."""

    __slots__ = (
        "backlog",
        "branch",
        "context",
        "due",
        "emission",
        "handler",
        "holds_place",
        "item",
        "loop",
        "subscription",
        "task",
    )

    def __init__(
        self,
        backlog: Backlog,
        branch: Branch,
        context: Context,
        subscription: Subscription,
        handler: Any,
    ) -> None:
        self.backlog = backlog
        self.branch = branch
        self.emission: Any = branch.emission
        self.context = context
        self.subscription = subscription
        self.handler = handler
        self.item: Any = None  # what a batch has of the emission
        self.due = 0.0
        self.loop: AbstractEventLoop | None = None
        self.task: Any = None
        self.holds_place = False

    @property
    def owner(self) -> Subscription:
        """The subscription; that of the pattern for a pattern's part."""
        return self.subscription._owner or self.subscription

    def run(self) -> None:
        """Call a plain handler, in the job's context."""
        failure = run_branch(self.branch, self.subscription, self.handler)
        self.branch.finish()
        try:
            if failure is not None:
                self.emission.dispatcher._announce(self.emission, (failure,))
        except BaseException as error:  # noqa: BLE001  # an exit, which has nowhere to go
            log_unannounced(self.emission.event, error)
        finally:
            self.end()

    async def run_async(self) -> None:
        """Await an async handler, in the job's context."""
        await_branch = load_async_calls().await_branch
        failure = await await_branch(self.branch, self.subscription, self.handler)
        self.branch.finish()
        self.free_place()  # now, for the announcement may need one
        if failure is not None:
            try:
                await self.emission.dispatcher._announce_async(self.emission, (failure,))
            except BaseException as error:  # noqa: BLE001  # as above
                log_unannounced(self.emission.event, error)
        self.end()

    def begin(self) -> None:
        """Make a task of an async handler; called in the loop's thread."""
        # Not by the loop's task factory: an eager one would run the handler inside of emit.
        make = load_async_calls().asyncio.Task
        self.task = make(self.run_async(), loop=self.loop, context=self.context)
        self.task.add_done_callback(self._task_is_done)

    def _task_is_done(self, task: Task[None]) -> None:
        """Report a task that was cancelled before it began, or was broken off."""
        if task.cancelled():
            self.lose("its task was cancelled")
        else:
            error = task.exception()
            if error is not None:
                self.lose("its task was broken off", error)

    def run_in_place(self) -> None:
        """Call the handler here and now, for at the interpreter's exit nobody else can."""
        if self.subscription.batch is not None:
            call_batch_here([self])
        elif not self.subscription._shape.is_async:
            self.context.run(self.run)
        elif running_loop() is None:
            self.context.run(load_async_calls().asyncio.run, self.run_async())
        else:
            self.lose("no thread can be started for it")

    def is_stuck(self) -> bool:
        """Tell whether it waits in an event loop of the application's that does not run."""
        loop = self.loop
        if loop is None or loop in self.backlog.loop:
            return False
        return not (loop.is_running() or loop.is_closed())

    def lose(self, reason: str, cause: BaseException | None = None) -> None:
        """Report a handler that will not come to its end."""
        if self.backlog.jobs.pop(id(self), None) is not None:
            if self.emission._values[self.branch.index] is PENDING:
                error = HandlerCancelledError(reason)
                error.__cause__ = cause
                record_in_branch(self.branch, error)
            self._leave()

    def end(self) -> None:
        """Count the handler as done, and tell those who wait."""
        if self.backlog.jobs.pop(id(self), None) is not None:
            self._leave()

    def free_place(self) -> None:
        """Give its place in the queue back, if it holds one still."""
        if self.holds_place:
            self.holds_place = False
            self.backlog.give_back(1)

    def _leave(self) -> None:
        self.backlog.held.pop(id(self), None)
        self.branch.finish()
        self.branch.job = None
        self.emission._values.tell()
        self.free_place()
        if not self.backlog.jobs:
            self.backlog.changed.tell()
