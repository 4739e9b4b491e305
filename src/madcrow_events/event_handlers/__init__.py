"""Ready-made handlers for authentication, audit, security and the system's own events."""

from __future__ import annotations

from collections.abc import Iterable

from madcrow_events.event_handlers.audit_handlers import audit_group
from madcrow_events.event_handlers.auth_handlers import auth_group
from madcrow_events.event_handlers.security_handlers import security_group
from madcrow_events.event_handlers.system_handlers import system_group
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.handlers import HandlerGroup
from madcrow_events.signals import SignalRegistry, madcrow_signals

__all__ = [
    "ALL_GROUPS",
    "audit_group",
    "auth_group",
    "register_all_handlers",
    "register_default_handlers",
    "security_group",
    "system_group",
]

ALL_GROUPS: tuple[HandlerGroup, ...] = (auth_group, audit_group, security_group, system_group)
"""All groups of ready-made handlers, in the order in which they are registered."""


def register_all_handlers(
    signals: SignalRegistry = madcrow_signals,
    *,
    leave_out: HandlerGroup | Iterable[HandlerGroup] = (),
) -> None:
    """Register the ready-made handlers. A second call changes nothing.

    Args:
        signals: the registry.
        leave_out: a group that is not registered, or several, such as `[security_group]`.

    Raises:
        InvalidOptionError: `leave_out` holds something other than groups of this package, or
            `signals` is not a registry.
    """
    if not isinstance(signals, SignalRegistry):
        raise InvalidOptionError("signals must be a SignalRegistry", option="signals")
    left_out = [leave_out] if isinstance(leave_out, HandlerGroup) else list(leave_out)
    if any(group not in ALL_GROUPS for group in left_out):
        raise InvalidOptionError(
            "leave_out takes groups of this package, such as [security_group]", option="leave_out"
        )
    for group in ALL_GROUPS:
        if group not in left_out:
            group.register(signals)


register_default_handlers = register_all_handlers
"""Another name for `register_all_handlers`."""
