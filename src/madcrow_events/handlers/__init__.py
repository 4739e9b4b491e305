"""Declaring handlers: decorators, functions, and groups that are registered together."""

from madcrow_events.handlers import _decorators
from madcrow_events.handlers._declaring import (
    HandlerGroup,
    clear_all_handlers,
    on_event,
    register_handler,
    unregister_handler,
)
from madcrow_events.handlers._decorators import *
from madcrow_events.handlers._decorators import SignalSubscriber

__all__ = [
    "HandlerGroup",
    "SignalSubscriber",
    "clear_all_handlers",
    "on_event",
    "register_handler",
    "unregister_handler",
]
__all__ += _decorators.__all__
