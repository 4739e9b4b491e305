"""How contexts are gathered for a handler that takes many of them at once (B3)."""

from __future__ import annotations

from threading import TIMEOUT_MAX
from typing import Final

from madcrow_events.exceptions import InvalidOptionError

__all__ = ["Batch"]

_LARGEST = 1_000_000


class Batch:
    """The option `batch`: the handler is called in the background, with a list of contexts.

    It is called when `max_size` contexts wait, or when the first of them has waited for
    `max_wait`, with one batch at a time. Two with the same limits are equal.

    Args:
        max_size: how many contexts a batch has at most.
        max_wait: for how many seconds a context waits at most, as long as a thread is free.

    Raises:
        InvalidOptionError: `max_size` is no whole number from 1 on, or `max_wait` no positive one.
    """

    __slots__ = ("max_size", "max_wait")

    def __init__(self, max_size: int = 100, max_wait: float = 1.0) -> None:
        size: object = max_size
        is_int = isinstance(size, int) and not isinstance(size, bool)
        if not (is_int and 1 <= max_size <= _LARGEST):
            raise InvalidOptionError(
                f"max_size must be a whole number from 1 to {_LARGEST}, such as 100",
                option="max_size",
            )
        wait: object = max_wait
        is_number = isinstance(wait, int | float) and not isinstance(wait, bool)
        if not (is_number and 0 < max_wait <= TIMEOUT_MAX):
            raise InvalidOptionError(
                "max_wait must be a number of seconds above 0, such as 2.5", option="max_wait"
            )
        self.max_size: Final[int] = max_size
        self.max_wait: Final[float] = max_wait

    def __eq__(self, other: object) -> bool:
        """Compare the limits."""
        if not isinstance(other, Batch):
            return NotImplemented
        return (self.max_size, self.max_wait) == (other.max_size, other.max_wait)

    def __hash__(self) -> int:
        """Agree with equality."""
        return hash((self.max_size, self.max_wait))

    def __repr__(self) -> str:
        """Show the limits."""
        return f"Batch(max_size={self.max_size}, max_wait={self.max_wait})"
