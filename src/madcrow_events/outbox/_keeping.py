"""How long an outbox keeps what is over."""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from madcrow_events.exceptions import InvalidOptionError

__all__ = ["Keeping", "keeping"]


class Keeping(NamedTuple):
    """How long things are kept, in microseconds.

    Attributes:
        done: deliveries that were handled.
        dead: dead deliveries.
        inbox: the ids of events that were taken in, or whose emitter has given their id.
    """

    done: int
    dead: int
    inbox: int


def keeping(**durations: timedelta) -> Keeping:
    """Return how long things are kept.

    Raises:
        InvalidOptionError: a duration is negative, or is none.
    """
    for name, duration in durations.items():
        given: object = duration
        if not isinstance(given, timedelta) or given < timedelta(0):
            raise InvalidOptionError(
                f"{name} must be a timedelta, such as timedelta(days=14)", option=name
            )
    micro = timedelta(microseconds=1)
    return Keeping(**{name.removeprefix("keep_"): it // micro for name, it in durations.items()})
