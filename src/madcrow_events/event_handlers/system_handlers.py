"""Ready-made handlers for the start and the end of the application."""

from __future__ import annotations

import logging
import os
from typing import Any

from madcrow_events.dispatcher import EventDispatcher, get_event_dispatcher
from madcrow_events.emissions import current_event
from madcrow_events.event_handlers._bounded import as_field, moment
from madcrow_events.event_handlers._stores import SystemStatus, clear_stores, status
from madcrow_events.handlers import HandlerGroup
from madcrow_events.signals import system_shutdown, system_startup

__all__ = [
    "SYSTEM_LOGGER",
    "cleanup_system_resources",
    "handle_system_shutdown",
    "handle_system_startup",
    "initialize_system_monitoring",
    "system_group",
    "system_status",
]

SYSTEM_LOGGER: logging.Logger = logging.getLogger("madcrow_events.system")

system_group: HandlerGroup = HandlerGroup("system")
"""The handlers of this module."""

_AFTER_THE_OTHERS = -100


@system_group.on(system_startup)
def handle_system_startup(
    sender: Any,
    *,
    version: str | None = None,
    process_id: int | None = None,
    timestamp: Any = None,
    **_rest: Any,
) -> None:
    """Record the version, the process id and the time of the start.

    Args:
        sender: who emitted the event.
        version: the application's version.
        process_id: its process id; that of this process if left out.
        timestamp: when it happened; now if left out.
    """
    status.start(version, os.getpid() if process_id is None else process_id, moment(timestamp))


@system_group.on(system_startup)
def initialize_system_monitoring(sender: Any, **_context: Any) -> None:
    """Count events and failed handlers from now on; `system_status` returns the counts.

    Counts those of the dispatcher that emitted the event. If the function is called directly, it
    counts those of the default dispatcher.

    Args:
        sender: who emitted the event.
    """
    status.observer.reset()
    _dispatcher_at_hand().add_observer(status.observer)


def _dispatcher_at_hand() -> EventDispatcher:
    emission = current_event()
    dispatcher = None if emission is None else emission.dispatcher
    return dispatcher or get_event_dispatcher()


@system_group.on(system_shutdown)
def handle_system_shutdown(sender: Any, *, reason: str | None = None, **_rest: Any) -> SystemStatus:
    """Write the status to the logger `madcrow_events.system`, in fields of the record.

    Args:
        sender: who emitted the event.
        reason: why the application ends.

    Returns:
        The status.
    """
    at_the_end = system_status()
    SYSTEM_LOGGER.info(
        "system_shutdown",
        extra={
            "event": system_shutdown.name,
            "reason": as_field(reason),
            **at_the_end._asdict(),
        },
    )
    return at_the_end


@system_group.on(system_shutdown, priority=_AFTER_THE_OTHERS)
def cleanup_system_resources(sender: Any, **_context: Any) -> None:
    """Stop counting and empty the stores, after all other handlers.

    Args:
        sender: who emitted the event.
    """
    _dispatcher_at_hand().remove_observer(status.observer)
    clear_stores()


def system_status() -> SystemStatus:
    """Return the version, the process id, the uptime, and the counts since the start."""
    return status.snapshot()
