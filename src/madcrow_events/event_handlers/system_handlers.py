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
"""The logger `madcrow_events.system`. It gets a record at INFO when the application goes down."""

system_group: HandlerGroup = HandlerGroup("system")
"""The handlers that note when the application starts and ends, and count its events."""

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
    """Note the version, the process id and the time of the start. Handles `system_startup`.

    Args:
        sender: the sender of the event; not used.
        version: the version of the application, or None.
        process_id: the id of its process; None for this process.
        timestamp: when it happened: a `datetime`, or seconds since 1970. None stands for now.
    """
    status.start(version, os.getpid() if process_id is None else process_id, moment(timestamp))


@system_group.on(system_startup)
def initialize_system_monitoring(sender: Any, **_context: Any) -> None:
    """Begin to count events and failed handlers at 0. Handles `system_startup`.

    It counts those of the dispatcher that emitted the event, and of its siblings. If you call the
    function yourself, it counts those of the default dispatcher. `system_status` returns the
    counts.

    Args:
        sender: the sender of the event; not used.
    """
    status.observer.reset()
    _dispatcher_at_hand().add_observer(status.observer)


def _dispatcher_at_hand() -> EventDispatcher:
    emission = current_event()
    dispatcher = None if emission is None else emission.dispatcher
    return dispatcher or get_event_dispatcher()


@system_group.on(system_shutdown)
def handle_system_shutdown(sender: Any, *, reason: str | None = None, **_rest: Any) -> SystemStatus:
    """Write the status of the application to the log. Handles `system_shutdown`.

    The record goes to the logger `madcrow_events.system`, at INFO, with the status in its fields.

    Args:
        sender: the sender of the event; not used.
        reason: why the application goes down, or None.

    Returns:
        The status, as `system_status` returns it.
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
    """Stop counting, and empty the stores of all ready-made handlers. Handles `system_shutdown`.

    Its priority is -100, so that handlers with a higher priority still find what is stored.
    Security limits and alert functions stay.

    Args:
        sender: the sender of the event; not used.
    """
    _dispatcher_at_hand().remove_observer(status.observer)
    clear_stores()


def system_status() -> SystemStatus:
    """Return when the application started, and what was counted since then.

    Returns:
        The status as it is now. It has `version`, `process_id`, `started_at` (in seconds since
            1970), `uptime` (in seconds), `events_emitted` and `handlers_failed`.
    """
    return status.snapshot()
