"""When a delivery that failed is tried again."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeGuard

from madcrow_events.exceptions import InvalidOptionError

__all__ = ["GiveUp", "Retry", "RetryLater", "with_members"]


class GiveUp(Exception):  # noqa: N818  # it tells what to do
    """Raised by a durable handler whose delivery would fail each time: it is not tried again."""


class RetryLater(Exception):  # noqa: N818  # as above
    """Raised by a durable handler that knows when it can do its work. It counts as an attempt.

    Args:
        delay: after how long the handler is called again, in seconds or as a `timedelta`.

    Raises:
        InvalidOptionError: the delay is impossible.
    """

    seconds: float = 0.0  # for a subclass that does not call `__init__`

    def __init__(self, delay: float | timedelta) -> None:
        seconds: object = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if not _is_wait(seconds):
            raise InvalidOptionError(
                f"delay must be a timedelta, or a number of seconds, from 0 to {_LONGEST} seconds",
                option="delay",
            )
        super().__init__(delay)
        self.seconds = seconds


def with_members(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and if it is a group, as of a `TaskGroup`, all that are in it."""
    left = deque([error])
    while left:
        error = left.popleft()
        yield error
        if isinstance(error, BaseExceptionGroup):
            left.extend(error.exceptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, and after which waits, the delivery to a durable handler is tried again.

    The waits double: with the defaults they are 1, 2, 4 seconds and so on up to an hour, each with
    up to a second more, so that deliveries that failed together do not come back together. Twenty
    attempts take about nine hours.

    Attributes:
        attempts: how often the handler is called at most. Calls that end the process count, too.
        wait_initial: the wait after the first failure, in seconds.
        wait_max: the longest wait, in seconds.
        wait_jitter: up to how many seconds are added to each wait, at random.
        give_up_on: the classes of exceptions after which no attempt follows, also in a group.

    Raises:
        InvalidOptionError: a value is impossible.
    """

    attempts: int = 20
    wait_initial: float = 1.0
    wait_max: float = 3600.0
    wait_jitter: float = 1.0
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise InvalidOptionError(
                "attempts must be a positive int, 1 for no second attempt", option="attempts"
            )
        for name in ("wait_initial", "wait_max", "wait_jitter"):
            if not _is_wait(getattr(self, name)):
                raise InvalidOptionError(
                    f"{name} must be a number of seconds from 0 to {_LONGEST}", option=name
                )
        classes: object = self.give_up_on
        if not isinstance(classes, tuple) or not all(
            isinstance(it, type) and issubclass(it, BaseException) for it in classes
        ):
            raise InvalidOptionError(
                "give_up_on must be a tuple of classes of exceptions, such as (PermissionError,)",
                option="give_up_on",
            )

    def wait_after(self, attempt: int) -> float:
        """Return the wait after a failed attempt, in seconds.

        Args:
            attempt: which attempt it was; 1 for the first.
        """
        doubled = self.wait_initial * 2.0 ** min(attempt - 1, 60)
        jitter = random.uniform(0, self.wait_jitter)  # noqa: S311  # nobody needs to guess it
        return min(self.wait_max, doubled) + jitter


_LONGEST: Final = 366 * 24 * 3600
"""In seconds."""


def _is_wait(seconds: object) -> TypeGuard[float]:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return False
    return 0 <= seconds <= _LONGEST
