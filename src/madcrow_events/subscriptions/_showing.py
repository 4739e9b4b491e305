"""The options of a subscription, as its `repr` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from madcrow_events._text import handler_name, printable
from madcrow_events.subscriptions._identity import sender_name
from madcrow_events.subscriptions._options import ANY

if TYPE_CHECKING:
    from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["options_shown"]


def options_shown(it: Subscription) -> list[str]:
    """Return the options of a subscription that are not the default, as they are written in code.

    Args:
        it: the subscription.
    """
    options = (
        ("sender", it._sender_key is ANY, _sender_shown(it)),
        ("priority", not it.priority, printable(it.priority)),
        ("once", not it.once, "True"),
        ("when", it.when is None, handler_name(it.when)),
        ("weak", it.weak is it._is_weak_by_default, str(it.weak)),
        ("timeout", it.timeout is None, printable(it.timeout)),
        ("batch", it.batch is None, str(it.batch)),
        ("background", not it.background or it.batch is not None, "True"),
        ("id", it.id is None, repr(it.id)),
        ("on_error", it.on_error is None, repr(it.on_error)),
        ("optional", not it._is_optional, "True"),
    )
    return [f"{name}={text}" for name, is_default, text in options if not is_default]


def _sender_shown(it: Subscription) -> str:
    """Return a sender in words, if it still exists."""
    sender = it.sender
    if sender is None and it._sender_is_weak:
        return "<gone>"
    return sender_name(sender)
