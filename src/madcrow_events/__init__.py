"""Publish and subscribe within a Python application: named, typed, isolated events."""

from madcrow_events import models
from madcrow_events.batches import Batch
from madcrow_events.deferrals import Deferral
from madcrow_events.dispatcher import (
    EventDispatcher,
    _emitters,
    emit_event,
    emit_event_async,
    get_event_dispatcher,
    set_event_dispatcher,
)
from madcrow_events.dispatcher._emitters import *
from madcrow_events.emissions import Emission, current_event, event_scope, request_fields
from madcrow_events.exceptions import (
    ContextModelError,
    ContextTypeError,
    ContextValidationError,
    DispatcherClosedError,
    EmissionDepthError,
    EventLoopError,
    HandlerCancelledError,
    HandlerErrors,
    HandlerSignatureError,
    HandlerTimeoutError,
    InvalidEventNameError,
    InvalidOptionError,
    MadcrowEventsError,
    PluginError,
    QueueFullError,
    SignalConflictError,
    SubscriptionConflictError,
    UnknownEventError,
    WouldDeadlockError,
)
from madcrow_events.handlers import (
    HandlerGroup,
    _decorators,
    clear_all_handlers,
    on_event,
    register_handler,
    unregister_handler,
)
from madcrow_events.handlers._decorators import *
from madcrow_events.models import *
from madcrow_events.observers import Observer, SlowHandlers, TimingObserver
from madcrow_events.plugins import check_plugins, discover_plugins, load_plugins, unload_plugin
from madcrow_events.signals import _built_in
from madcrow_events.signals._built_in import *
from madcrow_events.subscriptions import ANY, Subscription

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "Batch",
    "ContextModelError",
    "ContextTypeError",
    "ContextValidationError",
    "Deferral",
    "DispatcherClosedError",
    "Emission",
    "EmissionDepthError",
    "EventDispatcher",
    "EventLoopError",
    "HandlerCancelledError",
    "HandlerErrors",
    "HandlerGroup",
    "HandlerSignatureError",
    "HandlerTimeoutError",
    "InvalidEventNameError",
    "InvalidOptionError",
    "MadcrowEventsError",
    "Observer",
    "PluginError",
    "QueueFullError",
    "SignalConflictError",
    "SlowHandlers",
    "Subscription",
    "SubscriptionConflictError",
    "TimingObserver",
    "UnknownEventError",
    "WouldDeadlockError",
    "__version__",
    "check_plugins",
    "clear_all_handlers",
    "current_event",
    "discover_plugins",
    "emit_event",
    "emit_event_async",
    "event_scope",
    "get_event_dispatcher",
    "load_plugins",
    "on_event",
    "register_handler",
    "request_fields",
    "set_event_dispatcher",
    "unload_plugin",
    "unregister_handler",
]
# Each of these modules lists what users type, and nothing else.
__all__ += models.__all__
__all__ += _built_in.__all__
__all__ += _emitters.__all__
__all__ += _decorators.__all__
