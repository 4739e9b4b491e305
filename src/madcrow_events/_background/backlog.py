"""The pending work of one process: handlers that no emitter waits for, and what runs them.

Nothing here waits for a lock, because a finalizer may emit in the middle of
anything; what threads share are lists, dictionaries and a `SimpleQueue`, whose
single operations cannot be interrupted.
"""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import contextmanager, suppress
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from madcrow_events._background import exit as _exit
from madcrow_events._background.batching import Gathering
from madcrow_events._background.threads import Alarm, keep_time, serve, work
from madcrow_events._text import handler_name
from madcrow_events._waiters import LOOK_EVERY, Listeners
from madcrow_events.emissions._lazy_asyncio import new_event_loop
from madcrow_events.exceptions import WouldDeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator

    from madcrow_events._background.job import Job


__all__ = ["Backlog"]

_number = count()


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
                target=keep_time, args=(self,), name="madcrow-events-timer", daemon=True
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
            target=work, args=(self,), name="madcrow-events-worker", daemon=True
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
            target=serve, args=(self, loop), name="madcrow-events-loop", daemon=True
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


def _forget(reference: weakref.ref[Backlog], key: int) -> Callable[[Any], None]:
    """Return a weak-reference callback that forgets what gathered for a subscription."""

    def gone(_: Any) -> None:
        backlog = reference()
        if backlog is not None:
            backlog.gatherings.pop(key, None)

    return gone
