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
"""How many bytes the body of a message has at most, on its way out and in."""


def judge(message: Message, routes: Routes) -> Accepted | Refusal:
    """Return the event of a message, or why it is not taken in.

    Args:
        message: the message.
        routes: the events that come in.
    """
    size = len(message.body)
    if size > LARGEST:
        return Refusal(f"its body has {size:,} bytes, and {LARGEST:,} are allowed")
    try:
        event = CloudEvent.read(message.headers, message.body)
    except InvalidCloudEventError as error:
        return Refusal(str(error))
    return routes.judge(event)
