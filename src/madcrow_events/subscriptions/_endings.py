"""Why subscriptions end, and the record of the last ones of an event."""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, NamedTuple, TypeAlias

from madcrow_events._text import printable

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
        named: the name of its handler; of a plain function the module and the qualified name.
        pattern: the pattern that it was a part of, or None.
        reason: why it ended.
    """

    order: int
    named: str | tuple[str, str]
    pattern: str | None
    reason: EndReason

    @property
    def name(self) -> str:
        """The name of the handler."""
        if isinstance(self.named, str):
            return self.named
        module, name = self.named
        return printable(f"{module}.{name}" if module else name)


Endings: TypeAlias = "deque[tuple[int, str | tuple[str, str], str | None, EndReason]]"
"""The last endings of an event, the newest last, as the plain tuples that take the least time."""


def new_endings() -> Endings:
    """Return an empty record, which keeps the last ones."""
    return deque(maxlen=MOST_ENDINGS)
