"""Emitting: the dispatcher, the default one, and an emitter for each of the commonest events."""

from madcrow_events._background.admission import Overflow
from madcrow_events.dispatcher import _emitters
from madcrow_events.dispatcher._default import (
    emit_event,
    emit_event_async,
    get_event_dispatcher,
    set_event_dispatcher,
)
from madcrow_events.dispatcher._dispatcher import EventDispatcher, OnError
from madcrow_events.dispatcher._emitters import *
from madcrow_events.dispatcher._emitters import ContextEmitter

__all__ = [
    "ContextEmitter",
    "EventDispatcher",
    "OnError",
    "Overflow",
    "emit_event",
    "emit_event_async",
    "get_event_dispatcher",
    "set_event_dispatcher",
]
__all__ += _emitters.__all__
