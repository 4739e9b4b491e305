"""What becomes of a message: it is taken in, passed over, or refused with a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from madcrow_events.bridge._routes import Accepted, Refusal
from madcrow_events.outbox import CloudEvent, InvalidCloudEventError

if TYPE_CHECKING:
    from madcrow_events.bridge._routes import Routes
    from madcrow_events.bridge._transport import Message

__all__ = ["LARGEST", "judge"]

LARGEST: Final = 1024 * 1024
"""How many bytes the data of an event have at most, on their way out and in."""
_LARGEST_BODY: Final = LARGEST + 512 * 1024
"""The same of a body, which may have the attributes, too: 65,536 characters at most."""


def judge(message: Message, routes: Routes) -> Accepted | Refusal:
    """Return the event of a message, or why it is not taken in.

    Args:
        message: the message.
        routes: the events that come in.
    """
    size = len(message.body)
    if size > _LARGEST_BODY:  # before it is read
        return Refusal(f"its body has {size:,} bytes, and {_LARGEST_BODY:,} are allowed")
    try:
        event = CloudEvent.read(message.headers, message.body)
    except InvalidCloudEventError as error:
        return Refusal(str(error))
    size = len(event.data)
    if size > LARGEST:
        return Refusal(f"its data has {size:,} bytes, and {LARGEST:,} are allowed")
    return routes.judge(event)
