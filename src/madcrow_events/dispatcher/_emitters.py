"""One emitter for each of the commonest built-in events, through the default dispatcher."""

from __future__ import annotations

from typing import Any, Protocol

from typing_extensions import TypeVar

from madcrow_events.dispatcher._default import get_event_dispatcher
from madcrow_events.emissions import Emission
from madcrow_events.models import (
    AccountActivatedEventContext,
    AccountBannedEventContext,
    AccountClosedEventContext,
    BaseEventContext,
    LoginEventContext,
    LoginFailedEventContext,
    LogoutEventContext,
    PasswordChangedEventContext,
    RegistrationEventContext,
)
from madcrow_events.signals import (
    EventSignal,
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
    "ContextEmitter",
    "emit_account_activated_event",
    "emit_account_banned_event",
    "emit_account_closed_event",
    "emit_login_event",
    "emit_login_failed_event",
    "emit_logout_event",
    "emit_password_changed_event",
    "emit_registration_event",
]

ContextT = TypeVar("ContextT", bound=BaseEventContext)


class ContextEmitter(Protocol[ContextT]):
    """Emits one built-in event through the default dispatcher: `emitter(context, sender=None)`.

    It raises what `EventDispatcher.emit_typed` raises.
    """

    def __call__(  # described by the class
        self, context: ContextT, sender: Any = None
    ) -> Emission[ContextT]: ...


def _emitter(function_name: str, signal: EventSignal[ContextT]) -> ContextEmitter[ContextT]:
    event = signal.name

    def emit(context: ContextT, sender: Any = None) -> Emission[ContextT]:
        return get_event_dispatcher().emit_typed(event, context, sender)

    emit.__name__ = emit.__qualname__ = function_name
    emit.__doc__ = f"Emit `{event}` with its context, through the default dispatcher."
    return emit


emit_login_event: ContextEmitter[LoginEventContext] = _emitter("emit_login_event", user_logged_in)
emit_logout_event: ContextEmitter[LogoutEventContext] = _emitter(
    "emit_logout_event", user_logged_out
)
emit_login_failed_event: ContextEmitter[LoginFailedEventContext] = _emitter(
    "emit_login_failed_event", login_failed
)
emit_registration_event: ContextEmitter[RegistrationEventContext] = _emitter(
    "emit_registration_event", user_registered
)
emit_account_activated_event: ContextEmitter[AccountActivatedEventContext] = _emitter(
    "emit_account_activated_event", account_activated
)
emit_account_banned_event: ContextEmitter[AccountBannedEventContext] = _emitter(
    "emit_account_banned_event", account_banned
)
emit_account_closed_event: ContextEmitter[AccountClosedEventContext] = _emitter(
    "emit_account_closed_event", account_closed
)
emit_password_changed_event: ContextEmitter[PasswordChangedEventContext] = _emitter(
    "emit_password_changed_event", password_changed
)
