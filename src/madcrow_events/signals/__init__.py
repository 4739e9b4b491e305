"""Named signals, the registry that declares them, and the built-in events.

This module holds the default registry, `madcrow_signals`, one of the package's
three pieces of global state.
"""

from __future__ import annotations

from madcrow_events.models import (
    AccountActivatedEventContext,
    AccountBannedEventContext,
    AccountClosedEventContext,
    LoginEventContext,
    LoginFailedEventContext,
    LogoutEventContext,
    PasswordChangedEventContext,
    RegistrationEventContext,
    SessionExpiredEventContext,
    SuspiciousActivityEventContext,
    SystemShutdownEventContext,
    SystemStartupEventContext,
    TokenRefreshedEventContext,
)
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

madcrow_signals: SignalRegistry = SignalRegistry()
"""The default registry."""

user_logged_in: EventSignal[LoginEventContext] = madcrow_signals.signal(
    "user_logged_in", "A user signed in.", context=LoginEventContext
)
user_logged_out: EventSignal[LogoutEventContext] = madcrow_signals.signal(
    "user_logged_out", "A user signed out.", context=LogoutEventContext
)
login_failed: EventSignal[LoginFailedEventContext] = madcrow_signals.signal(
    "login_failed", "An attempt to sign in was refused.", context=LoginFailedEventContext
)
user_registered: EventSignal[RegistrationEventContext] = madcrow_signals.signal(
    "user_registered", "A new account exists.", context=RegistrationEventContext
)
account_activated: EventSignal[AccountActivatedEventContext] = madcrow_signals.signal(
    "account_activated", "An account may be used.", context=AccountActivatedEventContext
)
account_banned: EventSignal[AccountBannedEventContext] = madcrow_signals.signal(
    "account_banned", "An account was shut out.", context=AccountBannedEventContext
)
account_closed: EventSignal[AccountClosedEventContext] = madcrow_signals.signal(
    "account_closed", "An account was given up.", context=AccountClosedEventContext
)
password_changed: EventSignal[PasswordChangedEventContext] = madcrow_signals.signal(
    "password_changed", "An account has a new password.", context=PasswordChangedEventContext
)
suspicious_activity: EventSignal[SuspiciousActivityEventContext] = madcrow_signals.signal(
    "suspicious_activity", "Something looks like an attack.", context=SuspiciousActivityEventContext
)
session_expired: EventSignal[SessionExpiredEventContext] = madcrow_signals.signal(
    "session_expired", "A session ran out.", context=SessionExpiredEventContext
)
token_refreshed: EventSignal[TokenRefreshedEventContext] = madcrow_signals.signal(
    "token_refreshed", "A session has a new token.", context=TokenRefreshedEventContext
)
system_startup: EventSignal[SystemStartupEventContext] = madcrow_signals.signal(
    "system_startup", "The application is up.", context=SystemStartupEventContext
)
system_shutdown: EventSignal[SystemShutdownEventContext] = madcrow_signals.signal(
    "system_shutdown", "The application goes down.", context=SystemShutdownEventContext
)
madcrow_signals._built_in = tuple(madcrow_signals)  # what isolated(empty=True) keeps
