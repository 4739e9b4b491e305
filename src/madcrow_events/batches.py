"""The option `batch`, for handlers that take many contexts at once."""

from __future__ import annotations

from dataclasses import dataclass
from threading import TIMEOUT_MAX

from madcrow_events.exceptions import InvalidOptionError

__all__ = ["Batch"]

_LARGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The value of the option `batch`: the handler gets lists of contexts, in the background.

    The handler is called when `max_size` contexts wait, or when the first of them has waited for
    `max_wait` seconds. It is called with one batch at a time.

    Args:
        max_size: how many contexts a batch has at most, from 1 to a million.
        max_wait: how many seconds a context waits at most. It waits longer if no thread is free.

    Raises:
        InvalidOptionError: `max_size` is not a whole number from 1 to a million, or `max_wait` is
            not a positive, finite number.

    Example:
        ```python
        from madcrow_events import Batch, get_event_dispatcher, madcrow_signals

        order_placed = madcrow_signals.signal("order_placed", "A customer placed an order.")
        dispatcher = get_event_dispatcher()


        @order_placed.on(batch=Batch(max_size=2, max_wait=0.5))
        def store_orders(contexts: list) -> None:
            print("stored:", [context["order_id"] for context in contexts])


        for order_id in (7, 8, 9):
            dispatcher.emit(order_placed, order_id=order_id)
        dispatcher.drain()
        ```

        ```text
        stored: [7, 8]
        stored: [9]
        ```
    """

    max_size: int = 100
    max_wait: float = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible limits."""
        size: object = self.max_size
        is_int = isinstance(size, int) and not isinstance(size, bool)
        if not (is_int and 1 <= self.max_size <= _LARGEST):
            raise InvalidOptionError(
                f"max_size must be a whole number from 1 to {_LARGEST}, such as 100",
                option="max_size",
            )
        wait: object = self.max_wait
        is_number = isinstance(wait, int | float) and not isinstance(wait, bool)
        if not (is_number and 0 < self.max_wait <= TIMEOUT_MAX):
            raise InvalidOptionError(
                "max_wait must be a finite number of seconds above 0, such as 2.5",
                option="max_wait",
            )
