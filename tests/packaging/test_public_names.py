"""What the package offers by name is what it says it offers."""

from __future__ import annotations

import importlib
import pkgutil
import re
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any, get_type_hints

import madcrow_events
from madcrow_events import BaseEventContext, event_handlers, plugins, testing

FRONT_DOOR = [
    "ANY",
    "ENTRY_POINT_GROUP",
    "LATENCY_BOUNDS",
    "AccountActivatedEventContext",
    "AccountBannedEventContext",
    "AccountClosedEventContext",
    "BaseEventContext",
    "Batch",
    "BatchHandler",
    "BatchHandlerDecorator",
    "ContextEmitter",
    "ContextModelError",
    "ContextTypeError",
    "ContextValidationError",
    "Deferral",
    "DispatcherClosedError",
    "Emission",
    "EmissionDepthError",
    "EmissionState",
    "EventDispatcher",
    "EventLoopError",
    "EventSignal",
    "EventTiming",
    "GenericEventContext",
    "Handler",
    "HandlerCancelledError",
    "HandlerDecorator",
    "HandlerErrors",
    "HandlerFailedEventContext",
    "HandlerFailure",
    "HandlerGroup",
    "HandlerResult",
    "HandlerSignatureError",
    "HandlerTimeoutError",
    "HandlerTiming",
    "InvalidEventNameError",
    "InvalidOptionError",
    "KeywordHandler",
    "LoginEventContext",
    "LoginFailedEventContext",
    "LogoutEventContext",
    "MadcrowEventsError",
    "Observer",
    "OnError",
    "Overflow",
    "PasswordChangedEventContext",
    "PatternSubscription",
    "Plugin",
    "PluginError",
    "PluginReport",
    "PluginReports",
    "PluginStatus",
    "QueueFullError",
    "RegistrationEventContext",
    "ScopeFields",
    "SessionExpiredEventContext",
    "SignalConflictError",
    "SignalRegistry",
    "SignalSubscriber",
    "SingleOptions",
    "Subscription",
    "SubscriptionConflictError",
    "SubscriptionOptions",
    "SuspiciousActivityEventContext",
    "SystemShutdownEventContext",
    "SystemStartupEventContext",
    "TimingObserver",
    "TimingSnapshot",
    "TokenRefreshedEventContext",
    "UnknownEventError",
    "WouldDeadlockError",
    "__version__",
    "account_activated",
    "account_banned",
    "account_closed",
    "check_plugins",
    "clear_all_handlers",
    "current_event",
    "discover_plugins",
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
    "event_scope",
    "get_event_dispatcher",
    "load_plugins",
    "login_failed",
    "madcrow_signals",
    "on_account_activated",
    "on_account_banned",
    "on_account_closed",
    "on_event",
    "on_login_failed",
    "on_password_changed",
    "on_user_login",
    "on_user_logout",
    "on_user_registered",
    "password_changed",
    "register_handler",
    "request_fields",
    "session_expired",
    "set_event_dispatcher",
    "suspicious_activity",
    "system_shutdown",
    "system_startup",
    "token_refreshed",
    "unload_plugin",
    "unregister_handler",
    "user_logged_in",
    "user_logged_out",
    "user_registered",
]
"""What can be imported from `madcrow_events`; changing it changes what users can rely on."""


def all_modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(madcrow_events.__path__, "madcrow_events.")
    return [madcrow_events, *(importlib.import_module(info.name) for info in found)]


def is_public(module: ModuleType) -> bool:
    return not any(part.startswith("_") for part in module.__name__.split("."))


def isort_order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Return ruff's order for RUF022: constants, classes, the rest; numbers by their value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return kind, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def test_the_front_door_offers_exactly_these_names() -> None:
    assert madcrow_events.__all__ == FRONT_DOOR


def test_the_front_door_offers_what_every_public_module_offers() -> None:
    # The ready-made handlers and the test kit are imported from their own packages, by who wants
    # them.
    public = [
        module
        for module in all_modules()
        if is_public(module) and not {"event_handlers", "testing"} & {*module.__name__.split(".")}
    ]

    offered = {name for module in public for name in module.__all__}

    assert offered - set(madcrow_events.__all__) == set()


def test_the_front_door_has_no_name_that_it_does_not_offer() -> None:
    modules = {module.__name__.rpartition(".")[2] for module in all_modules()}
    present = {name for name in vars(madcrow_events) if not name.startswith("_")} - modules

    assert present == set(madcrow_events.__all__) - {"__version__"}


def test_every_module_lists_its_names_in_order_and_once() -> None:
    in_disorder = [
        module.__name__
        for module in all_modules()
        if module.__all__ != sorted(set(module.__all__), key=isort_order)
    ]

    assert in_disorder == []


def test_every_module_has_the_names_that_it_lists_and_no_private_one_but_the_version() -> None:
    listed = [(module, name) for module in all_modules() for name in module.__all__]

    missing = [f"{module.__name__}.{name}" for module, name in listed if not hasattr(module, name)]
    private = {name for _, name in listed if name.startswith("_")}

    assert missing == []
    assert private == {"__version__"}


class OrderPlaced(BaseEventContext):
    order_id: int


def public_things() -> Iterator[Any]:
    """Yield the classes and functions that have names, and the methods and properties of those."""
    yield OrderPlaced
    for module in (madcrow_events, event_handlers, plugins, testing):
        for thing in (getattr(module, name) for name in module.__all__):
            yield thing
            if isinstance(thing, type):
                for name, member in list(vars(thing).items()):
                    if not name.startswith("_") or name in ("__init__", "__enter__", "__aexit__"):
                        yield getattr(member, "fget", getattr(member, "__func__", member))


def test_the_annotations_of_public_things_can_be_read_from_outside() -> None:
    """As serialisers, containers and documentation do; a context of a user's is one, too."""
    read = 0
    for thing in public_things():
        # Of `model_post_init`, which older versions of pydantic add, the annotations are theirs.
        if isinstance(thing, type | FunctionType) and not thing.__module__.startswith("pydantic."):
            # asyncio is imported when it is needed.
            get_type_hints(thing, localns={"AbstractEventLoop": AbstractEventLoop})
            read += 1
    assert read > 200
