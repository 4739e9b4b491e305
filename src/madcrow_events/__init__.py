"""Publish and subscribe within a Python application: named, typed, isolated events."""

import typing as _typing

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
from madcrow_events.signals import _built_in
from madcrow_events.signals._built_in import *
from madcrow_events.subscriptions import ANY, Subscription

if _typing.TYPE_CHECKING:  # pragma: no cover
    from madcrow_events.plugins import check_plugins, discover_plugins, load_plugins, unload_plugin

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

_WITH_PLUGINS = {"check_plugins", "discover_plugins", "load_plugins", "plugins", "unload_plugin"}

if not _typing.TYPE_CHECKING:  # pragma: no branch  # else type checkers accept every name

    def __getattr__(name: str) -> object:
        """Import the plugins when they are first asked for, which shortens the import by 4 %."""
        if name not in _WITH_PLUGINS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        import importlib

        # Not by `import`, which would ask here for it, once somebody has removed the name.
        plugins = importlib.import_module("madcrow_events.plugins")
        return globals().setdefault(name, plugins if name == "plugins" else getattr(plugins, name))


def __dir__() -> list[str]:
    """Name what the module has, and what it imports late."""
    return sorted({*globals(), *_WITH_PLUGINS})
