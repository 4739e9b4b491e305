"""One emitter for each of the commonest built-in events, through the default dispatcher."""

from __future__ import annotations

from typing import Final, Protocol

from typing_extensions import TypeVar

from madcrow_events import signals
from madcrow_events.dispatcher._default import get_event_dispatcher
from madcrow_events.emissions import Emission
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal

__all__ = [
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

    It takes the context of the event, returns the emission, and raises the same errors as
    `EventDispatcher.emit_typed`.
    """

    def __call__(  # described by the class
        self, context: ContextT, sender: object = None
    ) -> Emission[ContextT]: ...


def _emitter(name: str, signal: EventSignal[ContextT]) -> ContextEmitter[ContextT]:
    event = signal.name

    def emit(context: ContextT, sender: object = None) -> Emission[ContextT]:
        return get_event_dispatcher().emit_typed(event, context, sender)

    emit.__name__ = emit.__qualname__ = f"emit_{name}_event"
    emit.__doc__ = f"Emit `{event}`: {signal.doc}"
    return emit


emit_login_event: Final = _emitter("login", signals.user_logged_in)
"""Emit `user_logged_in`: A user signed in."""
emit_logout_event: Final = _emitter("logout", signals.user_logged_out)
"""Emit `user_logged_out`: A user signed out."""
emit_login_failed_event: Final = _emitter("login_failed", signals.login_failed)
"""Emit `login_failed`: An attempt to sign in was refused."""
emit_registration_event: Final = _emitter("registration", signals.user_registered)
"""Emit `user_registered`: A new account exists."""
emit_account_activated_event: Final = _emitter("account_activated", signals.account_activated)
"""Emit `account_activated`: An account may be used."""
emit_account_banned_event: Final = _emitter("account_banned", signals.account_banned)
"""Emit `account_banned`: An account was shut out."""
emit_account_closed_event: Final = _emitter("account_closed", signals.account_closed)
"""Emit `account_closed`: An account was given up."""
emit_password_changed_event: Final = _emitter("password_changed", signals.password_changed)
"""Emit `password_changed`: An account has a new password."""
