"""What an inspection of an outbox returns."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "BlockedKey",
    "DeadGroup",
    "DeliveryRecord",
    "HandlerStatus",
    "OutboxStatus",
    "WaitingEvents",
]


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """The deliveries of one durable handler. Ages and times are in seconds.

    Attributes:
        name: its id.
        event: the name of its event.
        due: deliveries that wait for a worker.
        delayed: deliveries that wait for their time, such as that of the next attempt.
        running: deliveries that a worker has now.
        parked: deliveries that wait behind another one of their key.
        dead: deliveries that are not tried again.
        unknown: how many of those that are due, delayed or parked have a version that no worker
            can read.
        oldest_due: the age of the delivery that has been due for longest; 0.0 if none is due.
        seen: how long ago a worker that has the handler was there. Workers note it every 30
            seconds.
        paused: whether it is paused.
        retired: whether it is retired.
    """

    name: str
    event: str
    due: int
    delayed: int
    running: int
    parked: int
    dead: int
    unknown: int
    oldest_due: float
    seen: float
    paused: bool
    retired: bool


@dataclass(frozen=True, slots=True)
class WaitingEvents:
    """Events of one name that no handler was announced for.

    Attributes:
        event: their name.
        count: how many there are.
        oldest: the age of the oldest one, in seconds.
    """

    event: str
    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class BlockedKey:
    """A key whose deliveries wait for one that is dead, or delayed.

    Attributes:
        handler: the id of the handler.
        head: the id of the delivery at the head of the key.
        is_dead: whether it is dead; else it is delayed.
        waiting: how many deliveries wait behind it.
        age: for how long it has been there, in seconds.
    """

    handler: str
    head: str
    is_dead: bool
    waiting: int
    age: float


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """What there is in an outbox.

    Attributes:
        new: how many events wait for their deliveries to be made.
        oldest_new: the age of the oldest of these, in seconds; 0.0 if there is none.
        handlers: the handlers, by name.
        set_aside: the events that no handler was announced for.
        blocked: the keys that are held up, the longest first; at most 20.
        oldest_transaction: the age of the oldest transaction of the database, in seconds; 0.0 if
            unknown. As long as it goes on, PostgreSQL cannot remove what was deleted.
    """

    new: int
    oldest_new: float
    handlers: tuple[HandlerStatus, ...]
    set_aside: tuple[WaitingEvents, ...]
    blocked: tuple[BlockedKey, ...]
    oldest_transaction: float


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """A delivery, without the values of its event.

    Attributes:
        id: its id.
        handler: the id of the handler.
        event: the name of the event.
        event_id: the id of the event.
        source: where the event comes from.
        state: "waiting", "running", "parked", "dead" or "done".
        attempts: how many calls of the handler have failed.
        deliveries: how often a worker has claimed it to call the handler, which also counts calls
            that ended their process.
        error_type: the class of the last exception.
        error_group: that class and the place in the application where it was raised.
        error_age: how long ago that was, in seconds.
    """

    id: str
    handler: str
    event: str
    event_id: str
    source: str
    state: str
    attempts: int
    deliveries: int
    error_type: str | None
    error_group: str | None
    error_age: float


@dataclass(frozen=True, slots=True)
class DeadGroup:
    """Dead deliveries with the same exception, from the same place.

    Attributes:
        group: the class of the exception and the place.
        handler: the id of the handler.
        count: how many there are.
    """

    group: str
    handler: str
    count: int
