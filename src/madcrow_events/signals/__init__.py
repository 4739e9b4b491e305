"""Named signals, the registry that declares them, and the built-in events.

This module holds the default registry, `madcrow_signals`, one of the package's
three pieces of global state.
"""

from __future__ import annotations

from typing import Final, TypeVar

from madcrow_events import models
from madcrow_events.signals._registry import SignalRegistry
from madcrow_events.signals._signal import EventSignal
from madcrow_events.subscriptions import (
    BatchHandler,
    BatchHandlerDecorator,
    Handler,
    HandlerDecorator,
    KeywordHandler,
)

__all__ = [
    "BatchHandler",
    "BatchHandlerDecorator",
    "EventSignal",
    "Handler",
    "HandlerDecorator",
    "KeywordHandler",
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
"""The default registry."""


def _declare(name: str, model: type[ContextT]) -> EventSignal[ContextT]:
    """Declare a built-in event, which its model's docstring describes in the first line."""
    doc, _, _ = (model.__doc__ or "").partition("\n")
    return madcrow_signals.signal(name, doc or None, context=model)


user_logged_in: Final = _declare("user_logged_in", models.LoginEventContext)
"""Emitted when a user has signed in."""
user_logged_out: Final = _declare("user_logged_out", models.LogoutEventContext)
"""Emitted when a user has signed out."""
login_failed: Final = _declare("login_failed", models.LoginFailedEventContext)
"""Emitted when an attempt to sign in was refused."""
user_registered: Final = _declare("user_registered", models.RegistrationEventContext)
"""Emitted when a new account exists."""
account_activated: Final = _declare("account_activated", models.AccountActivatedEventContext)
"""Emitted when an account may be used from now on."""
account_banned: Final = _declare("account_banned", models.AccountBannedEventContext)
"""Emitted when an account was shut out."""
account_closed: Final = _declare("account_closed", models.AccountClosedEventContext)
"""Emitted when an account was given up."""
password_changed: Final = _declare("password_changed", models.PasswordChangedEventContext)
"""Emitted when an account has a new password, which is no part of the event."""
suspicious_activity: Final = _declare("suspicious_activity", models.SuspiciousActivityEventContext)
"""Emitted when something looks like an attack."""
session_expired: Final = _declare("session_expired", models.SessionExpiredEventContext)
"""Emitted when a session ran out."""
token_refreshed: Final = _declare("token_refreshed", models.TokenRefreshedEventContext)
"""Emitted when a session has a new token, which is no part of the event."""
system_startup: Final = _declare("system_startup", models.SystemStartupEventContext)
"""Emitted when the application is up."""
system_shutdown: Final = _declare("system_shutdown", models.SystemShutdownEventContext)
"""Emitted when the application goes down."""
madcrow_signals._built_in = tuple(madcrow_signals)  # what isolated(empty=True) keeps
