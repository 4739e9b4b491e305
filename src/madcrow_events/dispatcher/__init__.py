"""Emitting: the dispatcher, the default one, and an emitter for each of the commonest events."""

from madcrow_events._background.admission import Overflow
from madcrow_events.dispatcher._default import (
    emit_event,
    emit_event_async,
    get_event_dispatcher,
    set_event_dispatcher,
)
from madcrow_events.dispatcher._dispatcher import EventDispatcher, OnError
from madcrow_events.dispatcher._emitters import (
    ContextEmitter,
    emit_account_activated_event,
    emit_account_banned_event,
    emit_account_closed_event,
    emit_login_event,
    emit_login_failed_event,
    emit_logout_event,
    emit_password_changed_event,
    emit_registration_event,
)

__all__ = [
    "ContextEmitter",
    "EventDispatcher",
    "OnError",
    "Overflow",
    "emit_account_activated_event",
    "emit_account_banned_event",
    "emit_account_closed_event",
    "emit_event",
    "emit_event_async",
    "emit_login_event",
    "emit_login_failed_event",
    "emit_logout_event",
    "emit_password_changed_event",
    "emit_registration_event",
    "get_event_dispatcher",
    "set_event_dispatcher",
]
