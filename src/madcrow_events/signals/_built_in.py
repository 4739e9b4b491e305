"""The default registry, `madcrow_signals`, and the built-in events that it declares."""

from __future__ import annotations

from typing import Final

from typing_extensions import TypeVar

from madcrow_events import models
from madcrow_events.signals._registry import SignalRegistry
from madcrow_events.signals._signal import EventSignal

__all__ = [
    "EventSignal",
    "SignalRegistry",
    "account_activated",
    "account_banned",
    "account_closed",
    "login_failed",
    "madcrow_signals",
    "password_changed",
    "session_expired",
    "suspicious_activity",
    "system_shutdown",
    "system_startup",
    "token_refreshed",
    "user_logged_in",
    "user_logged_out",
    "user_registered",
]

ContextT = TypeVar("ContextT", bound=models.BaseEventContext)

madcrow_signals: SignalRegistry = SignalRegistry()
"""The default registry. It has the built-in events, and those that your modules declare in it."""

# The `doc` of each signal, repeated below it, because editors read only that.
_DOCS: Final = {
    "user_logged_in": "A user signed in.",
    "user_logged_out": "A user signed out.",
    "login_failed": "An attempt to sign in was refused.",
    "user_registered": "A new account exists.",
    "account_activated": "An account may be used.",
    "account_banned": "An account was shut out.",
    "account_closed": "An account was given up.",
    "password_changed": "An account has a new password.",
    "suspicious_activity": "Something looks like an attack.",
    "session_expired": "A session ran out.",
    "token_refreshed": "A session has a new token.",
    "system_startup": "The application is up.",
    "system_shutdown": "The application goes down.",
}


def _declare(name: str, model: type[ContextT]) -> EventSignal[ContextT]:
    return madcrow_signals.signal(name, _DOCS[name], context=model)


user_logged_in: Final = _declare("user_logged_in", models.LoginEventContext)
"""A user signed in."""
user_logged_out: Final = _declare("user_logged_out", models.LogoutEventContext)
"""A user signed out."""
login_failed: Final = _declare("login_failed", models.LoginFailedEventContext)
"""An attempt to sign in was refused."""
user_registered: Final = _declare("user_registered", models.RegistrationEventContext)
"""A new account exists."""
account_activated: Final = _declare("account_activated", models.AccountActivatedEventContext)
"""An account may be used."""
account_banned: Final = _declare("account_banned", models.AccountBannedEventContext)
"""An account was shut out."""
account_closed: Final = _declare("account_closed", models.AccountClosedEventContext)
"""An account was given up."""
password_changed: Final = _declare("password_changed", models.PasswordChangedEventContext)
"""An account has a new password."""
suspicious_activity: Final = _declare("suspicious_activity", models.SuspiciousActivityEventContext)
"""Something looks like an attack."""
session_expired: Final = _declare("session_expired", models.SessionExpiredEventContext)
"""A session ran out."""
token_refreshed: Final = _declare("token_refreshed", models.TokenRefreshedEventContext)
"""A session has a new token."""
system_startup: Final = _declare("system_startup", models.SystemStartupEventContext)
"""The application is up."""
system_shutdown: Final = _declare("system_shutdown", models.SystemShutdownEventContext)
"""The application goes down."""
madcrow_signals._built_in = tuple(madcrow_signals)  # isolated(empty=True) keeps these
