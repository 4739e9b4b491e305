"""The places in the queue, and the count of the calls that are dropped because none is free.

A plain handler gives its place, a permit, back when it begins, an async one when it has ended.

Nothing here waits for a lock, because a finalizer may emit in the middle of anything: a permit
is moved from one list to another in a single step, which no signal handler can interrupt.
"""

from __future__ import annotations

import logging
from itertools import repeat

from madcrow_events._locks import Lock
from madcrow_events._logs import log
from madcrow_events._moves import move_all, move_last
from madcrow_events._waiters import LOOK_EVERY, Waiters

__all__ = ["Permits"]


class Permits:
    """The permits of a bounded queue.

    Args:
        queue_size: how many there are.

    Attributes:
        free: the permits that nobody has acquired.
        freed: the emitters that wait for a permit.
        dropped: how many calls were dropped because no permit was free.
    """

    __slots__ = ("dropped", "free", "freed", "is_dropping", "queue_size", "tally")

    def __init__(self, queue_size: int) -> None:
        self.queue_size = queue_size
        self.free: list[None] = [None] * queue_size
        self.freed = Waiters(LOOK_EVERY)
        self.tally = Lock()  # re-entered by a finalizer that emits
        self.dropped = 0
        self.is_dropping = False

    def acquire(self, number: int, permits: list[None]) -> bool:
        """Acquire a number of permits, or none of them if fewer are free.

        Args:
            number: how many.
            permits: an empty list, which gets them.

        Returns:
            Whether so many were free.
        """
        try:
            # As `move_last` does, because calling it would cost each handler 2 %.
            permits.extend(map(list.pop, repeat(self.free, number)))
        except IndexError:
            move_all(permits, self.free)
            return False
        if self.is_dropping and 2 * (len(self.free) + 1) >= self.queue_size:
            self.is_dropping = False
        return True

    def release(self, permits: list[None], number: int | None = None) -> None:
        """Release permits, and notify as many of the emitters that wait.

        Args:
            permits: the list that `acquire` has put them into.
            number: how many; None for all.
        """
        if number is None:
            number = move_all(permits, self.free)
        else:
            move_last(permits, self.free, number)
        self.freed.notify(number)

    def drop(self, event: str, handler: str) -> None:
        """Count a dropped call; warn of the first, then of none until half of the queue is free.

        Args:
            event: the name of the event.
            handler: the name of the handler that is not called.
        """
        with self.tally:
            self.dropped += 1
            begins, self.is_dropping = not self.is_dropping, True
        if begins:
            log(
                logging.WARNING,
                "the queue of %d handlers that run later is full: %s of %s is dropped, and others "
                "until half of the queue is free",
                self.queue_size,
                handler,
                event,
            )
        else:
            log(logging.DEBUG, "%s of %s is dropped, because the queue is full", handler, event)
