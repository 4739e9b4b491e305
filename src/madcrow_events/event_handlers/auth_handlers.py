"""Ready-made handlers that keep sessions up to date and count the actions of users.

Each one is a plain function, so a test can call it: `handle_user_login(None,
user_id="1", email="ada@example.com")`.
"""

from __future__ import annotations

from typing import Any

from madcrow_events.emissions import current_event
from madcrow_events.event_handlers._bounded import cut, moment
from madcrow_events.event_handlers._stores import ActivitySnapshot, Session, activity, sessions
from madcrow_events.handlers import HandlerGroup
from madcrow_events.signals import (
    account_activated,
    account_banned,
    account_closed,
    password_changed,
    session_expired,
    token_refreshed,
    user_logged_in,
    user_logged_out,
    user_registered,
)

__all__ = [
    "activity_snapshot",
    "auth_group",
    "cleanup_user_session_data",
    "handle_user_login",
    "handle_user_logout",
    "handle_user_registration",
    "session_of",
    "update_user_activity_metrics",
]

auth_group: HandlerGroup = HandlerGroup("auth")
"""The handlers of this module."""

_AFTER_THE_OTHERS = -100


@auth_group.on(user_logged_in)  # type: ignore[type-var]  # it takes fields by name
def handle_user_login(
    sender: Any, *, user_id: Any, email: str | None = None, timestamp: Any = None, **_rest: Any
) -> Session:
    """Open the user's session.

    Args:
        sender: who emitted the event.
        user_id: the account.
        email: the account's e-mail.
        timestamp: when it happened; now if left out.

    Returns:
        The session, open.
    """
    return sessions.open(user_id, email, moment(timestamp))


@auth_group.on(user_logged_out)  # type: ignore[type-var]  # it takes fields by name
def handle_user_logout(
    sender: Any,
    *,
    user_id: Any,
    email: str | None = None,
    timestamp: Any = None,
    session_duration: float | None = None,
    logout_reason: str | None = None,
    **_rest: Any,
) -> Session:
    """Close the user's session, with its duration.

    Args:
        sender: who emitted the event.
        user_id: the account.
        email: the account's e-mail.
        timestamp: when it happened; now if left out.
        session_duration: in seconds; counted from the sign-in if left out.
        logout_reason: why.

    Returns:
        The session, closed.
    """
    return sessions.close(
        user_id, email, moment(timestamp), duration=session_duration, reason=logout_reason
    )


@auth_group.on(user_registered)  # type: ignore[type-var]  # it takes fields by name
def handle_user_registration(
    sender: Any, *, user_id: Any, email: str | None = None, timestamp: Any = None, **_rest: Any
) -> Session:
    """Note when the account was registered; this signs nobody in.

    Args:
        sender: who emitted the event.
        user_id: the account.
        email: the account's e-mail.
        timestamp: when it happened; now if left out.

    Returns:
        The user's session.
    """
    return sessions.create(user_id, email, moment(timestamp))


@auth_group.on(user_logged_in)
@auth_group.on(user_logged_out)
@auth_group.on(user_registered)
@auth_group.on(account_activated)
@auth_group.on(account_banned)
@auth_group.on(account_closed)
@auth_group.on(password_changed)
@auth_group.on(session_expired)
@auth_group.on(token_refreshed)
def update_user_activity_metrics(sender: Any, *, user_id: Any = None, **_rest: Any) -> None:
    """Count the event, in all and for its user; `activity_snapshot` returns the counts.

    Args:
        sender: who emitted the event; if the function is called directly, the event.
        user_id: the account.
    """
    emission = current_event()
    activity.count(cut(sender) if emission is None else emission.event, user_id)


@auth_group.on(user_logged_out, priority=_AFTER_THE_OTHERS)  # type: ignore[type-var]  # it takes fields by name
@auth_group.on(account_closed, priority=_AFTER_THE_OTHERS)
def cleanup_user_session_data(sender: Any, *, user_id: Any, **_rest: Any) -> Session | None:
    """Remove the user's session from the store, after all other handlers.

    Args:
        sender: who emitted the event.
        user_id: the account.

    Returns:
        The session, or None if there was none.
    """
    return sessions.forget(user_id)


def session_of(user_id: Any) -> Session | None:
    """Return a user's session, or None.

    Args:
        user_id: the account; `7` and `"7"` are the same account.
    """
    return sessions.get(user_id)


def activity_snapshot() -> ActivitySnapshot:
    """Return how often each event happened, in all and for each user."""
    return activity.snapshot()
