"""Publish and subscribe within a Python application: named, typed, isolated events."""

from madcrow_events import dispatcher, handlers, models, signals
from madcrow_events.batches import Batch
from madcrow_events.deferrals import Deferral
from madcrow_events.dispatcher import *
from madcrow_events.emissions import (
    Emission,
    EmissionState,
    HandlerFailure,
    HandlerResult,
    ScopeFields,
    current_event,
    event_scope,
    request_fields,
)
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
from madcrow_events.handlers import *
from madcrow_events.models import *
from madcrow_events.observers import (
    LATENCY_BOUNDS,
    EventTiming,
    HandlerTiming,
    Observer,
    TimingObserver,
    TimingSnapshot,
)
from madcrow_events.plugins import (
    ENTRY_POINT_GROUP,
    Plugin,
    PluginReport,
    PluginReports,
    PluginStatus,
    check_plugins,
    discover_plugins,
    load_plugins,
    unload_plugin,
)
from madcrow_events.signals import *
from madcrow_events.subscriptions import (
    ANY,
    PatternSubscription,
    SingleOptions,
    Subscription,
    SubscriptionOptions,
)

__version__ = "0.1.0"

__all__ = [
    "ANY",
    "ENTRY_POINT_GROUP",
    "LATENCY_BOUNDS",
    "Batch",
    "ContextModelError",
    "ContextTypeError",
    "ContextValidationError",
    "Deferral",
    "DispatcherClosedError",
    "Emission",
    "EmissionDepthError",
    "EmissionState",
    "EventLoopError",
    "EventTiming",
    "HandlerCancelledError",
    "HandlerErrors",
    "HandlerFailure",
    "HandlerResult",
    "HandlerSignatureError",
    "HandlerTimeoutError",
    "HandlerTiming",
    "InvalidEventNameError",
    "InvalidOptionError",
    "MadcrowEventsError",
    "Observer",
    "PatternSubscription",
    "Plugin",
    "PluginError",
    "PluginReport",
    "PluginReports",
    "PluginStatus",
    "QueueFullError",
    "ScopeFields",
    "SignalConflictError",
    "SingleOptions",
    "Subscription",
    "SubscriptionConflictError",
    "SubscriptionOptions",
    "TimingObserver",
    "TimingSnapshot",
    "UnknownEventError",
    "WouldDeadlockError",
    "__version__",
    "check_plugins",
    "current_event",
    "discover_plugins",
    "event_scope",
    "load_plugins",
    "request_fields",
    "unload_plugin",
]
__all__ += dispatcher.__all__
__all__ += handlers.__all__
__all__ += models.__all__
__all__ += signals.__all__
