"""What the package offers by name is what it says it offers."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, get_type_hints

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

import madcrow_events
from madcrow_events import BaseEventContext, event_handlers, testing
from madcrow_events.outbox import Outbox
from support.built_in import NAMES

FRONT_DOOR = [
    "ANY",
    "BaseEventContext",
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
    "EventSignal",
    "GenericEventContext",
    "HandlerCancelledError",
    "HandlerErrors",
    "HandlerFailedEventContext",
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
    "SignalRegistry",
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
    "madcrow_signals",
    "on_event",
    "register_handler",
    "request_fields",
    "set_event_dispatcher",
    "unload_plugin",
    "unregister_handler",
]
"""What can be imported from `madcrow_events`, beside the names of the built-in events.

To change it changes what users can rely on.
"""

ELSEWHERE = {
    "bridge": {
        "Bridge",
        "BridgeError",
        "BrokerAwayError",
        "MemoryBridge",
        "MemoryBroker",
        "MessageTooLargeError",
        "TopologyError",
    },
    "catalog": {"asyncapi", "json_schema"},
    "contrib.asgi": {"DISPATCHER", "EventsMiddleware"},
    "contrib.sqlalchemy": {"after_commit"},
    "contrib.wsgi": {"EventsMiddleware"},
    "dispatcher": {"ContextEmitter", "OnError", "Overflow"},
    "emissions": {"EmissionState", "HandlerFailure", "HandlerResult", "ScopeFields"},
    "handlers": {"SignalSubscriber"},
    "observers": {"LATENCY_BOUNDS", "EventTiming", "HandlerTiming", "TimingSnapshot"},
    "outbox": {
        "BlockedKey",
        "CloudEvent",
        "DeadGroup",
        "DeliveryRecord",
        "GiveUp",
        "HandlerIdError",
        "HandlerStatus",
        "Inspection",
        "InvalidCloudEventError",
        "LeaseLostError",
        "MalformedPayloadError",
        "NoTransactionError",
        "NotInOutboxError",
        "NotSerialisableError",
        "Outbox",
        "OutboxError",
        "OutboxSchemaError",
        "OutboxStatus",
        "Retry",
        "RetryLater",
        "UnknownVersionError",
        "UnreadablePayloadError",
        "WaitingEvents",
        "Worker",
        "WorkerDiedError",
    },
    "plugins": {"ENTRY_POINT_GROUP", "Plugin", "PluginReport", "PluginReports", "PluginStatus"},
    "signals": {"CallMode", "CalledHandler", "Explanation", "LeftOutHandler", "LeftOutReason"},
    "subscriptions": {
        "BatchHandler",
        "BatchHandlerDecorator",
        "BoundOptions",
        "Handler",
        "HandlerDecorator",
        "KeywordHandler",
        "PatternSubscription",
        "SingleOptions",
        "SubscriptionOptions",
    },
}
"""What is imported from its own module: mostly types that stand in annotations only."""


def all_modules() -> list[ModuleType]:
    """Return the modules of the package; nobody imports `__main__`."""
    found = pkgutil.walk_packages(madcrow_events.__path__, "madcrow_events.")
    names = [info.name for info in found if not info.name.endswith(".__main__")]
    return [madcrow_events, *map(importlib.import_module, names)]


def is_public(module: ModuleType) -> bool:
    return not any(part.startswith("_") for part in module.__name__.split("."))


def behind_the_front_door() -> list[ModuleType]:
    """Return the public modules but for the ready-made handlers and the test kit.

    Those who want these import them from their own packages. The command is typed in a shell.
    """
    aside = {"cli", "event_handlers", "testing"}
    public = filter(is_public, all_modules())
    return [module for module in public if not aside & {*module.__name__.split(".")}]


def isort_order(name: str) -> tuple[int, list[tuple[int, str]]]:
    """Return ruff's order for RUF022: constants, classes, the rest; numbers by their value."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    parts = re.findall(r"\d+|\D+", name)
    return kind, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def lists_in(module: ModuleType) -> list[list[str]]:
    """Return the list that a module writes down as its `__all__`, and those that it adds to it."""
    lists = []
    for node in ast.parse(Path(module.__file__ or "").read_text("utf-8")).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.AST() as value)
            ):
                lists.append(ast.literal_eval(value))
            case ast.AugAssign(
                target=ast.Name(id="__all__"),
                value=ast.Attribute(value=ast.Name(id=room), attr="__all__"),
            ):
                lists.append(getattr(module, room).__all__)
    return lists


def test_the_front_door_offers_exactly_these_names() -> None:
    assert sorted(madcrow_events.__all__) == sorted([*FRONT_DOOR, *NAMES])


def test_what_the_front_door_does_not_offer_is_offered_by_one_public_module() -> None:
    others = {
        module.__name__.removeprefix("madcrow_events."): left
        for module in behind_the_front_door()
        if (left := set(module.__all__) - set(madcrow_events.__all__))
    }

    assert others == ELSEWHERE


def test_the_front_door_has_no_name_that_it_does_not_offer() -> None:
    modules = {module.__name__.rpartition(".")[2] for module in all_modules()}
    # pytest rewrites what is installed with a plugin, and adds names such as @py_builtins.
    present = {name for name in dir(madcrow_events) if not name.startswith(("_", "@"))} - modules

    assert present == set(madcrow_events.__all__) - {"__version__"}


def test_every_module_lists_its_names_in_order_and_once() -> None:
    """Those of rooms that it hands on whole, which come behind its own, are in the rooms' order."""
    in_disorder = []
    for module in all_modules():
        own, *handed_on = lists_in(module)
        names = [*own, *(name for names in handed_on for name in names)]
        is_sorted = own == sorted(own, key=isort_order)
        if not is_sorted or names != module.__all__ or len({*names}) < len(names):
            in_disorder.append(module.__name__)

    assert in_disorder == []


def test_every_module_has_the_names_that_it_lists_and_no_private_one_but_the_version() -> None:
    listed = [(module, name) for module in all_modules() for name in module.__all__]

    missing = [f"{module.__name__}.{name}" for module, name in listed if not hasattr(module, name)]
    private = {name for _, name in listed if name.startswith("_")}

    assert missing == []
    assert private == {"__version__"}


IMPORTED_LATE = {
    "AbstractEventLoop": AbstractEventLoop,
    "AsyncEngine": AsyncEngine,
    "Engine": Engine,
    "Outbox": Outbox,
}


class OrderPlaced(BaseEventContext):
    order_id: int


def public_things() -> Iterator[Any]:
    """Yield the classes and functions that have names, and the methods and properties of those."""
    yield OrderPlaced
    for module in (event_handlers, testing, *behind_the_front_door()):
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
            # asyncio and SQLAlchemy are imported when they are needed.
            get_type_hints(thing, localns=IMPORTED_LATE)
            read += 1
    assert read > 200
