"""What is written to the tables of an outbox, and read from them."""

from __future__ import annotations

from typing import NamedTuple

from madcrow_events.outbox._tables import DEAD

__all__ = [
    "Announced",
    "Claimed",
    "Failed",
    "InboxNote",
    "Lease",
    "Look",
    "Received",
    "Settlement",
    "StoredEvent",
    "Watched",
]


Lease = tuple[int, int, int]
"""A handler, the head of a run, and the token of its claim."""


class StoredEvent(NamedTuple):
    """An event, as it is written."""

    source: str
    event_id: str
    event: str
    version: int
    key: str | None
    sender: str | None
    payload: str
    headers: str
    not_before: int
    created: int
    keep_until: int


class InboxNote(NamedTuple):
    """That an event of another service was taken in.

    Attributes:
        consumer: the name of the service that has taken it in.
        source: where it comes from.
        event_id: the id that it has there.
    """

    consumer: str
    source: str
    event_id: str


class Received(NamedTuple):
    """An event of another service, which is written unless its note is there already."""

    note: InboxNote
    event: StoredEvent


class Announced(NamedTuple):
    """A handler, as a worker announces it.

    Attributes:
        event_formerly: the earlier names of its event.
    """

    name: str
    formerly: tuple[str, ...]
    event: str
    version: int
    keyed: bool
    sender: str | None
    event_formerly: tuple[str, ...] = ()


class Watched(NamedTuple):
    """A handler that a worker looks after.

    Attributes:
        id: its id in the tables.
        version: the newest version of its event that this worker can read.
        floor: the moment before which no delivery is due, as far as this worker knows.
    """

    id: int
    version: int
    floor: int


class Look(NamedTuple):
    """What there is to do.

    Attributes:
        now: the time of the clock that decides what is due.
        has_new: whether there are events whose deliveries are yet to be made.
        due: for each handler with deliveries that are not parked, when the first of them is due. A
            leased one is due when its lease ends.
    """

    now: int
    has_new: bool
    due: dict[int, int]


class Claimed(NamedTuple):
    """A delivery that a worker has claimed, with its event.

    Attributes:
        head: the `event_seq` of the head of its run, which carries the lease.
        due: when it was due.
        key: its lane; None without one.
    """

    head: int
    event_seq: int
    attempts: int
    deliveries: int
    alone_until: int
    due: int
    key: str | None
    source: str
    event_id: str
    event: str
    version: int
    sender: str | None
    payload: str
    headers: str
    created: int


class Failed(NamedTuple):
    """How a delivery goes on that was not handled.

    Attributes:
        event_seq: the event.
        state: `HEAD` to try it again, `DEAD` not to.
        key: its lane; None if it leaves its lane, or has none.
        delay: after how many microseconds it is due.
        attempts: how often the handler was called.
        deliveries: how often it was claimed.
        alone_until: up to which event its lane is claimed one by one.
        error_type: the class of the exception; None to keep the last one.
        error_group: the class and the place of the exception; None to keep the last one.
    """

    event_seq: int
    state: int
    key: str | None
    delay: int
    attempts: int
    deliveries: int
    alone_until: int
    error_type: str | None = None
    error_group: str | None = None

    @property
    def is_dead(self) -> bool:
        """Whether it is not tried again."""
        return self.state == DEAD


class Settlement(NamedTuple):
    """What came of a run.

    Attributes:
        handler_id: the handler.
        head: the head of the run; with the token and its deliveries, the fence.
        token: the token of the claim.
        deliveries: how often the head had been claimed.
        key: the lane, if it has one.
        done: the events that were handled.
        failed: the delivery at which the run ended, if one was not handled.
        promoted_after: the event whose successor becomes the head of the lane; None if the lane
            has a head, or there is no lane.
        alone_until: what the new head carries on.
    """

    handler_id: int
    head: int
    token: int
    deliveries: int
    key: str | None
    done: tuple[int, ...]
    failed: Failed | None
    promoted_after: int | None
    alone_until: int

    @property
    def lease(self) -> Lease:
        """The lease of the run: a worker may have claimed its head before, too."""
        return self.handler_id, self.head, self.token
