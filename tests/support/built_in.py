"""The built-in events that users rely on, with what emits and what handles each."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """An event; without helpers the two names are empty."""

    event: str
    emitter: str
    decorator: str
    context: str


_ROWS = [
    Row("user_logged_in", "emit_login_event", "on_user_login", "LoginEventContext"),
    Row("user_logged_out", "emit_logout_event", "on_user_logout", "LogoutEventContext"),
    Row("login_failed", "emit_login_failed_event", "on_login_failed", "LoginFailedEventContext"),
    Row(
        "user_registered",
        "emit_registration_event",
        "on_user_registered",
        "RegistrationEventContext",
    ),
    Row(
        "account_activated",
        "emit_account_activated_event",
        "on_account_activated",
        "AccountActivatedEventContext",
    ),
    Row(
        "account_banned",
        "emit_account_banned_event",
        "on_account_banned",
        "AccountBannedEventContext",
    ),
    Row(
        "account_closed",
        "emit_account_closed_event",
        "on_account_closed",
        "AccountClosedEventContext",
    ),
    Row(
        "password_changed",
        "emit_password_changed_event",
        "on_password_changed",
        "PasswordChangedEventContext",
    ),
    Row("suspicious_activity", "", "", "SuspiciousActivityEventContext"),
    Row("session_expired", "", "", "SessionExpiredEventContext"),
    Row("token_refreshed", "", "", "TokenRefreshedEventContext"),
    Row("system_startup", "", "", "SystemStartupEventContext"),
    Row("system_shutdown", "", "", "SystemShutdownEventContext"),
]

BUILT_IN = {row.event: row for row in _ROWS}
NAMES = {name for row in _ROWS for name in row if name}
"""All that can be imported from the front door for the built-in events."""
