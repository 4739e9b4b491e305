"""A decorator for each of the most common built-in events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Never, Protocol, cast, overload

from typing_extensions import TypeVar, Unpack

from madcrow_events import signals
from madcrow_events.batches import Batch
from madcrow_events.exceptions import HandlerSignatureError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal
from madcrow_events.subscriptions import (
    BatchHandlerDecorator,
    HandlerDecorator,
    SingleOptions,
    SubscriptionOptions,
)

__all__ = [
    "on_account_activated",
    "on_account_banned",
    "on_account_closed",
    "on_login_failed",
    "on_password_changed",
    "on_user_login",
    "on_user_logout",
    "on_user_registered",
]

ContextT = TypeVar("ContextT", bound=BaseEventContext, default=BaseEventContext)


class SignalSubscriber(Protocol[ContextT]):
    """Makes decorators for one built-in event: `@on_user_login()`, or with options.

    A call takes the same options, and raises the same errors, as `EventSignal.on`.
    """

    @overload
    def __call__(
        self, *misplaced: Never, batch: Batch, **options: Unpack[SingleOptions]
    ) -> BatchHandlerDecorator[ContextT]: ...
    @overload
    def __call__(
        self, *misplaced: Never, batch: None = None, **options: Unpack[SingleOptions]
    ) -> HandlerDecorator[ContextT]: ...


def _decorator(name: str, signal: EventSignal[ContextT]) -> SignalSubscriber[ContextT]:
    function_name = f"on_{name}"

    def on(*misplaced: object, **options: Unpack[SubscriptionOptions]) -> Any:
        if misplaced:
            raise HandlerSignatureError(
                f"{function_name} needs its parentheses: write @{function_name}()",
                event=signal.name,
                handler=misplaced[0],
            )
        decorator: Callable[..., Any] = signal.on
        return decorator(**options)

    on.__name__ = on.__qualname__ = function_name
    on.__doc__ = f"Subscribe a function to `{signal.name}`: {signal.doc}"
    return cast("SignalSubscriber[ContextT]", on)


on_user_login: Final = _decorator("user_login", signals.user_logged_in)
"""Subscribe a function to `user_logged_in`: A user signed in."""
on_user_logout: Final = _decorator("user_logout", signals.user_logged_out)
"""Subscribe a function to `user_logged_out`: A user signed out."""
on_login_failed: Final = _decorator("login_failed", signals.login_failed)
"""Subscribe a function to `login_failed`: An attempt to sign in was refused."""
on_user_registered: Final = _decorator("user_registered", signals.user_registered)
"""Subscribe a function to `user_registered`: A new account exists."""
on_account_activated: Final = _decorator("account_activated", signals.account_activated)
"""Subscribe a function to `account_activated`: An account may be used."""
on_account_banned: Final = _decorator("account_banned", signals.account_banned)
"""Subscribe a function to `account_banned`: An account was shut out."""
on_account_closed: Final = _decorator("account_closed", signals.account_closed)
"""Subscribe a function to `account_closed`: An account was given up."""
on_password_changed: Final = _decorator("password_changed", signals.password_changed)
"""Subscribe a function to `password_changed`: An account has a new password."""
