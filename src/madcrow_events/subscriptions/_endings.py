"""Why subscriptions end, and the record of the last ones of an event."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["MOST_ENDINGS", "EndReason", "Ending", "Endings", "new_endings"]

EndReason: TypeAlias = Literal[
    "cancelled", "once", "collected", "sender_collected", "replaced", "isolated", "unloaded"
]
"""Why a subscription has ended."""

MOST_ENDINGS: Final = 16
"""How many endings of an event are recorded."""


class Ending(NamedTuple):
    """The end of one subscription; it keeps nothing alive.

    Attributes:
        order: the number of the subscription, by which one is known that was restored since.
        name: the name of its handler.
        pattern: the pattern that it was a part of, or None.
        reason: why it ended.
    """

    order: int
    name: str
    pattern: str | None
    reason: EndReason


Endings: TypeAlias = "deque[Ending]"
"""The last endings of an event, the newest last."""


def new_endings() -> Endings:
    """Return an empty record, which keeps the last ones."""
    return deque(maxlen=MOST_ENDINGS)
