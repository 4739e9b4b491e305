"""What works beside the workers of an outbox."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.outbox._database import Access

__all__ = ["Companion"]


class Companion(Protocol):
    """Works as long as workers of an outbox do, as a bridge to other services."""

    def _prepare(self) -> None:
        """Declare its durable handlers, before they are announced."""
        ...

    def _working(self, engine: Any, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Return a `with` block for the time in which a worker works.

        Args:
            engine: the engine of the outbox.
            wake: called when handlers of the companion are ready that were not.
        """
        ...

    def _is_idle(self) -> bool:
        """Whether nothing comes in just now, so that a worker may end that works once."""
        ...

    def _drain(self, access: Access) -> int:
        """Take in what is there now, in a test; return how much it was."""
        ...
