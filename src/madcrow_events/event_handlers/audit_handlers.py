"""Ready-made handlers that write an audit trail: one line for each action of a user.

The lines go to the logger `madcrow_events.audit`, at INFO. A line's message
names the event only. Its details stand in listed fields of the record
(`extra`), for a structured formatter. A field that is not listed is never
written, whatever the event carries.
"""

from __future__ import annotations

import logging
from typing import Any

from madcrow_events.event_handlers._bounded import as_field
from madcrow_events.handlers import HandlerGroup
from madcrow_events.signals import (
    account_activated,
    account_banned,
    account_closed,
    login_failed,
    password_changed,
    user_logged_in,
    user_logged_out,
    user_registered,
)

__all__ = [
    "AUDIT_LOGGER",
    "audit_group",
    "log_account_activation",
    "log_account_ban",
    "log_account_closure",
    "log_login_failure",
    "log_password_change",
    "log_user_login",
    "log_user_logout",
    "log_user_registration",
]

AUDIT_LOGGER: logging.Logger = logging.getLogger("madcrow_events.audit")
"""The logger `madcrow_events.audit`. It gets a record at INFO for each event about an account."""

audit_group: HandlerGroup = HandlerGroup("audit")
"""The handlers that write an audit trail to the logger `madcrow_events.audit`."""

_ALWAYS = ("user_id", "email", "timestamp", "ip_address", "user_agent", "request_id")
# A log record has a `name` of its own: that of its logger.
_RENAMED = {"name": "user_name"}


def _write(event: str, context: dict[str, Any], *fields: str) -> None:
    if not AUDIT_LOGGER.isEnabledFor(logging.INFO):
        return
    line = {
        _RENAMED.get(field, field): as_field(context.get(field)) for field in (*_ALWAYS, *fields)
    }
    AUDIT_LOGGER.info(event, extra={"event": event, **line})


@audit_group.on(user_logged_in)
def log_user_login(sender: Any, **context: Any) -> None:
    """Write to the audit trail that a user signed in. Handles `user_logged_in`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("user_logged_in", context, "name", "is_admin", "remember_me", "session_duration")


@audit_group.on(user_logged_out)
def log_user_logout(sender: Any, **context: Any) -> None:
    """Write to the audit trail that a user signed out, and why. Handles `user_logged_out`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("user_logged_out", context, "session_duration", "logout_reason")


@audit_group.on(login_failed)
def log_login_failure(sender: Any, **context: Any) -> None:
    """Write to the audit trail that a sign-in was refused, and why. Handles `login_failed`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("login_failed", context, "failure_reason", "attempt_count")


@audit_group.on(user_registered)
def log_user_registration(sender: Any, **context: Any) -> None:
    """Write to the audit trail that an account is new. Handles `user_registered`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("user_registered", context, "name", "account_status")


@audit_group.on(account_activated)
def log_account_activation(sender: Any, **context: Any) -> None:
    """Write to the audit trail that an account may be used. Handles `account_activated`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("account_activated", context)


@audit_group.on(account_banned)
def log_account_ban(sender: Any, **context: Any) -> None:
    """Write to the audit trail that an account was shut out, and why. Handles `account_banned`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("account_banned", context, "reason")


@audit_group.on(account_closed)
def log_account_closure(sender: Any, **context: Any) -> None:
    """Write to the audit trail that an account was given up, and why. Handles `account_closed`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("account_closed", context, "reason")


@audit_group.on(password_changed)
def log_password_change(sender: Any, **context: Any) -> None:
    """Write to the audit trail that a password is new. Handles `password_changed`.

    Args:
        sender: the sender of the event; not used.
        **context: the fields of the event.
    """
    _write("password_changed", context)
