"""The pending work of one process: handlers that no emitter waits for, and what runs them.

Nothing here waits for a lock, because a finalizer may emit in the middle of
anything; what threads share are lists, dictionaries and a `SimpleQueue`, whose
single operations cannot be interrupted.
"""

from __future__ import annotations

import sys
import threading
import weakref
from contextlib import suppress
from itertools import count
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from madcrow_events._background import exit as _exit
from madcrow_events._background.batching import Gathering, Turn
from madcrow_events._background.threads import Alarm, keep_time, serve, work, work_off
from madcrow_events._clock import monotonic
from madcrow_events._interrupts import interrupt_behind, suppress_but_interrupts
from madcrow_events._locks import Lock
from madcrow_events._moves import move_all, move_last
from madcrow_events._other_loops import NativeThread, greenlets
from madcrow_events._waiters import LOOK_EVERY, Waiters
from madcrow_events.emissions._lazy_asyncio import new_event_loop
from madcrow_events.exceptions import WouldDeadlockError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from madcrow_events._background.job import Job


__all__ = ["Backlog"]

_loop_of = attrgetter("loop")

_number = count()


class Backlog:
    """The pending work of one process, and what works on it."""

    __slots__ = (
        "__weakref__",
        "alarms",
        "bell",
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
        self.queue: SimpleQueue[Job | Turn | None] = SimpleQueue()
        self.queue_size = queue_size
        self.places: list[None] = [None] * queue_size
        self.jobs: dict[int, Job] = {}
        self.held: dict[int, Job] = {}  # those in event loops of the application's
        self.freed = Waiters(LOOK_EVERY)  # told of places in the queue
        self.changed = Waiters(LOOK_EVERY)  # told when nothing is pending
        self.startable: list[None] = [None] * max_workers
        self.idle: list[object] = []
        self.threads: list[threading.Thread] = []
        self.loop: list[AbstractEventLoop] = []
        self.loop_thread: threading.Thread | None = None
        self.gatherings: dict[tuple[int, int], Gathering] = {}  # by ids: subscription, loop
        self.hurried: list[object] = []  # a token for each open `drain`
        self.alarms: SimpleQueue[Alarm | None] = SimpleQueue()
        self.bell = threading.Lock()  # free when the timer is to look at the alarms
        self.bell.acquire()
        self.timer_startable: list[None] = [None]
        self.timer: threading.Thread | None = None
        self.tally = Lock()  # re-entered by a finalizer that emits
        self.dropped = 0
        self.is_dropping = False
        self.forked = False
        self.is_stopping = False

    def give_back(self, places: list[None], number: int | None = None) -> None:
        """Free places in the queue.

        Args:
            places: what `take` has put them into.
            number: how many; None for all.
        """
        if number is None:
            number = move_all(places, self.places)
        else:
            move_last(places, self.places, number)
        self.freed.tell(number)

    def take(self, number: int, places: list[None]) -> bool:
        """Take so many places in the queue, or none; return whether they were free.

        Args:
            number: how many.
            places: what they are put into, which is empty.
        """
        try:
            move_last(self.places, places, number)
        except IndexError:
            move_all(places, self.places)
            self.look_at_batches()  # what waits for more gives its places back
            return bool(self._report_lost()) and self.take(number, places)
        if self.is_dropping and 2 * (len(self.places) + 1) >= self.queue_size:
            self.is_dropping = False
        return True

    def take_one(self, places: list[None]) -> bool:
        """Take a place in the queue if one is free.

        Args:
            places: what it is put into, which is empty.

        Raises:
            WouldDeadlockError: none will ever be.
        """
        if self.take(1, places):
            return True
        stopped = {loop for loop in self._loops() if self.is_stopped(loop)}
        if stopped and sum(job.loop in stopped for job in self._held()) >= self.queue_size:
            raise WouldDeadlockError(
                "the queue is full of handlers in an event loop that does not run: run it, or "
                "await drain_async() before it ends"
            )
        return False

    def is_done(self) -> bool:
        """Whether nothing is pending; what can never end any more has failed."""
        return not self.jobs or bool(self._report_lost() and not self.jobs)

    def is_hopeless(self) -> bool:
        """Whether nothing that is pending can still come to an end."""
        self._report_lost()
        return len(self.jobs) <= len(self.held) and all(map(self.is_stopped, self._loops()))

    def is_stopped(self, loop: AbstractEventLoop | None) -> bool:
        """Whether an event loop is one of the application's, and does not run."""
        if loop is None or loop in self.loop:
            return False
        return not (loop.is_running() or loop.is_closed())

    def _report_lost(self) -> int:
        """Record as failed what can never end any more; return how many those are."""
        closed = {loop for loop in self._loops() if loop is not None and loop.is_closed()}
        lost = [job for job in self._held() if job.loop in closed] if closed else []
        for job in lost:
            job.lose_with_loop()
        return len(lost)

    def _held(self) -> list[Job]:
        return list(self.held.values())

    def _loops(self) -> set[AbstractEventLoop | None]:
        """Return the event loops of what is held: few, while that may fill the queue."""
        return set(map(_loop_of, self._held()))

    # Batches

    def gather(self, job: Job, loop: AbstractEventLoop | None) -> None:
        """Let a context wait for the next batch of its handler.

        Args:
            job: the handler and the context.
            loop: the application's loop in which an async handler runs; None for our own.
        """
        owner = job.owner
        key = (id(owner), id(loop))
        gathering = self.gatherings.get(key)  # which holds the loop, so that its id is not reused
        if gathering is None or gathering.owner() is not owner:
            limits: Any = owner.batch
            made = Gathering(self, limits, loop, is_async=job.entry.spec.is_async)
            made.owner = weakref.ref(owner, _forget(weakref.ref(self), key))
            if gathering is not None:  # of one that is gone: an interrupt kept that from being told
                self.gatherings.pop(key, None)
            gathering = self.gatherings.setdefault(key, made)  # another thread may be faster
            self._forget_closed_loops()
        gathering.add(job)

    def _forget_closed_loops(self) -> None:
        # Not of `items()`: to make pairs may run finalizers, which let others be forgotten.
        for key in list(self.gatherings):
            gathering = self.gatherings.get(key)
            if gathering is not None and gathering.is_over():
                self.gatherings.pop(key, None)

    def is_hurrying(self) -> bool:
        """Whether no batch waits for more: somebody waits for all, or the queue is full."""
        return bool(self.hurried) or not self.places

    def look_at_batches(self) -> None:
        """Let what waits for a batch be handled, as far as it is due."""
        for gathering in list(self.gatherings.values()):
            gathering.look()

    def hurry(self, mark: object = None) -> None:
        """Let no batch wait for more from now on.

        Args:
            mark: what is taken out of `hurried` to end that.
        """
        self.hurried.append(mark)
        self.look_at_batches()

    def set_alarm(self, due: float, gathering: Gathering) -> None:
        """Let a gathering look at what waits when the clock shows `due`."""
        self._tell_timer((due, next(_number), weakref.ref(gathering)))
        if self.timer_startable and not self._start_timer():
            self.hurry()  # for nobody will ring

    def _tell_timer(self, alarm: Alarm | None) -> None:
        self.alarms.put(alarm)
        with suppress_but_interrupts(RuntimeError):  # it is to look already
            self.bell.release()

    def _start_timer(self) -> bool:
        started: list[threading.Thread] = []
        thread = self._start(keep_time, "madcrow-events-timer", self.timer_startable, started)
        if thread is not None:
            self.timer = thread
        return thread is not None or not self.timer_startable

    # Threads and the loop

    def start_a_thread(self) -> None:
        """Start a thread if there is none."""
        if not self.threads:
            self._start_thread()

    def put(self, work: Job | Turn) -> bool:
        """Give work to a thread; return whether there is one."""
        self.start_a_thread()
        if not self.threads:
            return False
        self.queue.put(work)
        self.start_enough_threads()
        if not self.threads:  # the start of the only one has failed in this very moment
            self._rescue()
        return True

    def start_enough_threads(self) -> None:
        """Start a thread if more jobs are queued than threads wait for one."""
        if self.startable and self.queue.qsize() > len(self.idle):
            self._start_thread()

    def _start_thread(self) -> None:
        # Among the threads before it runs, so that another emitter queues its job for it meanwhile.
        try:
            self._start(work, "madcrow-events-worker", self.startable, self.threads)
        finally:
            if not self.threads:
                self._rescue()

    def _rescue(self) -> None:
        """See to what was queued for a thread that then could not be started."""
        if not self.queue.qsize() or self._start(
            work, "madcrow-events-worker", self.startable, self.threads
        ):
            return
        taken: list[Job | Turn | None] = []
        while not self.threads and self.queue.qsize():
            with suppress(Empty):  # another emitter was faster
                taken.extend(map(self.queue.get, (False,)))
            work_off(taken)

    def _start(
        self,
        target: Callable[..., None],
        name: str,
        startable: list[None],
        threads: list[threading.Thread],
        *arguments: Any,
    ) -> threading.Thread | None:
        """Start a thread, if one more may be started.

        Args:
            target: what it does; called with this backlog.
            name: the thread's name.
            startable: something for each thread that may still be started.
            threads: where the thread is entered.
            arguments: what the target is called with besides.

        Returns:
            The thread; None if none can be started, as at the exit of the interpreter.
        """
        handled = sys.exception()
        permit: list[None] = []
        unbegun: list[None] = [None]
        # A loop of asyncio's in a greenlet would seem to run in all greenlets of its thread.
        make = NativeThread if target is serve and greenlets() else threading.Thread
        given = (unbegun, target, self, *arguments)
        thread = make(target=_begin, args=given, name=name, daemon=True)
        try:
            move_last(startable, permit)
            threads.append(thread)
            thread.start()
        except BaseException as error:
            # One that was interrupted may have started it, or have left it unable to begin.
            if _take_back(unbegun):
                with suppress(ValueError):
                    threads.remove(thread)
                move_all(permit, startable)
            interrupt = interrupt_behind(error, handled)
            if interrupt is not None and interrupt is not error:
                raise interrupt from None
            if interrupt is None and isinstance(error, IndexError | RuntimeError | MemoryError):
                return None
            raise
        return thread

    def background_loop(self) -> AbstractEventLoop | None:
        """Return the loop of handlers that nobody awaits; None if it cannot run any more."""
        if self.loop:
            return self.loop[0]
        loop = new_event_loop()
        if self.loop:  # another thread was faster
            loop.close()
            return self.loop[0]
        started: list[threading.Thread] = []
        try:
            thread = self._start(serve, "madcrow-events-loop", [None], started, loop)
            if thread is not None:
                self.loop.append(loop)  # now that it runs, and nobody's work can be stuck in it
        finally:
            if loop not in self.loop:
                _stop_soon(loop, is_running=bool(started))
        if thread is None:
            return self.loop[0] if self.loop else None
        if self.loop[0] is not loop:  # another thread was faster
            self.loop.remove(loop)
            _stop_soon(loop, is_running=True)
        else:
            self.loop_thread = thread
        return self.loop[0]

    def stop(self) -> None:
        """Let the threads end when they have nothing to do any more."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self._tell_timer(None)
        for _ in self.threads:
            self.queue.put(None)
        for loop in self.loop:
            with suppress_but_interrupts(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(loop.stop)
        _exit.forget(self)

    def join(self, deadline: float) -> None:
        """Wait until the threads have ended, after `stop`, or until the clock shows `deadline`."""
        for thread in [*self.threads, self.loop_thread, self.timer]:
            if thread is not None and thread is not threading.current_thread():
                thread.join(min(max(0, deadline - monotonic()), threading.TIMEOUT_MAX))


def _begin(unbegun: list[None], target: Callable[..., None], *arguments: Any) -> None:
    """Do what a thread is for, unless its start has been taken back."""
    if _take_back(unbegun):
        target(*arguments)


def _take_back(unbegun: list[None]) -> bool:
    """Return whether a thread has not begun, and now never will but for the caller."""
    try:
        unbegun.pop()
    except IndexError:
        return False
    return True


def _stop_soon(loop: AbstractEventLoop, *, is_running: bool) -> None:
    """Let a loop end that nobody will use."""
    if is_running:
        loop.call_soon_threadsafe(loop.stop)
    else:
        loop.close()


def _forget(reference: weakref.ref[Backlog], key: tuple[int, int]) -> Callable[[Any], None]:
    """Return a weak-reference callback that forgets what gathered for a subscription."""

    def gone(_: Any) -> None:
        backlog = reference()
        if backlog is not None:
            backlog.gatherings.pop(key, None)

    return gone
