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
"""The handlers that keep the sessions of users, and count what users do."""

_AFTER_THE_OTHERS = -100


@auth_group.on(user_logged_in)  # type: ignore[type-var]  # it takes fields by name
def handle_user_login(
    sender: Any, *, user_id: Any, email: str | None = None, timestamp: Any = None, **_rest: Any
) -> Session:
    """Open the session of the user. Handles `user_logged_in`.

    Args:
        sender: the sender of the event; not used.
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        timestamp: when it happened: a `datetime`, or seconds since 1970. None stands for now.

    Returns:
        The session, which is open.
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
    """Close the session of the user. Handles `user_logged_out`.

    Args:
        sender: the sender of the event; not used.
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        timestamp: when it happened: a `datetime`, or seconds since 1970. None stands for now.
        session_duration: how long the session lasted, in seconds; None for the time since it was
            opened.
        logout_reason: why the session ended, or None.

    Returns:
        The session, which is closed. Its `duration` is in seconds.
    """
    return sessions.close(
        user_id, email, moment(timestamp), duration=session_duration, reason=logout_reason
    )


@auth_group.on(user_registered)  # type: ignore[type-var]  # it takes fields by name
def handle_user_registration(
    sender: Any, *, user_id: Any, email: str | None = None, timestamp: Any = None, **_rest: Any
) -> Session:
    """Note when an account was registered. This opens no session. Handles `user_registered`.

    Args:
        sender: the sender of the event; not used.
        user_id: the id of the account.
        email: the e-mail address of the account, or None.
        timestamp: when it happened: a `datetime`, or seconds since 1970. None stands for now.

    Returns:
        The session of the user.
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
    """Count an event, in all and for its user; `activity_snapshot` returns the counts.

    Handles the events about sign-ins, sessions, accounts and passwords.

    Args:
        sender: the sender of the event; not used. But if you call the function yourself, give the
            name of the event here.
        user_id: the id of the account; None for an event that concerns no user.
    """
    emission = current_event()
    activity.count(cut(sender) if emission is None else emission.event, user_id)


@auth_group.on(user_logged_out, priority=_AFTER_THE_OTHERS)  # type: ignore[type-var]  # it takes fields by name
@auth_group.on(account_closed, priority=_AFTER_THE_OTHERS)
def cleanup_user_session_data(sender: Any, *, user_id: Any, **_rest: Any) -> Session | None:
    """Remove the session of a user. Handles `user_logged_out` and `account_closed`.

    Its priority is -100, so that handlers with a higher priority still find the session.

    Args:
        sender: the sender of the event; not used.
        user_id: the id of the account.

    Returns:
        The session, or None if there was none.
    """
    return sessions.forget(user_id)


def session_of(user_id: Any) -> Session | None:
    """Return the session of a user, or None if there is none.

    The session has `user_id`, `email`, `created_at`, `opened_at`, `closed_at`, `duration`, `reason`
    and `is_open`. The times are in seconds since 1970, and the duration is in seconds.

    Args:
        user_id: the id of the account. `7` and `"7"` are the same account.
    """
    return sessions.get(user_id)


def activity_snapshot() -> ActivitySnapshot:
    """Return how often each event happened.

    Returns:
        The counts as they are now. Its `by_event` has the number for each event. Its `by_user` has,
            for each user id as text, the number for each event.
    """
    return activity.snapshot()
