"""Storing senders: those that another process can tell apart."""

from __future__ import annotations

import json
from uuid import UUID

from madcrow_events.outbox._errors import UnreadablePayloadError

__all__ = ["is_plain", "read", "write"]

_MOST_BITS = 2048
"""How long an int may be; Python may refuse to write longer ones."""


def is_plain(sender: object) -> bool:
    """Whether a sender can be stored: a `str`, `int`, `UUID` or None.

    It must be of just this class. A `bool` or a member of an `IntEnum` equals an `int`, but would
    come back as one.
    """
    if isinstance(sender, int):
        return type(sender) is int and sender.bit_length() <= _MOST_BITS
    return sender is None or type(sender) in (str, UUID)


def write(sender: object) -> str | None:
    """Return a sender as JSON, or None if it cannot be stored and the delivery will have no sender.

    Equal senders have equal texts, and others have others; so texts can be compared in SQL.
    """
    if sender is None:
        return "null"
    if not is_plain(sender):
        return None
    return json.dumps({"uuid": sender.hex} if isinstance(sender, UUID) else sender)


def read(text: str) -> str | int | UUID | None:
    """Return the sender that was stored.

    Args:
        text: what `write` has returned.

    Raises:
        UnreadablePayloadError: the text is something else.
    """
    try:
        match json.loads(text):
            case {"uuid": str(digits)}:
                return UUID(digits)
            case None | str() | int() as sender if not isinstance(sender, bool):
                return sender
    except ValueError:
        pass
    raise UnreadablePayloadError("the text is no sender that the outbox has written")
