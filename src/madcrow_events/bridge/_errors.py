"""The errors of the bridge."""

from __future__ import annotations

from madcrow_events.exceptions import MadcrowEventsError

__all__ = ["BridgeError", "BrokerAwayError", "MessageTooLargeError", "TopologyError"]


class BridgeError(MadcrowEventsError):
    """An event could not be sent to another process, or taken in from one."""


class BrokerAwayError(BridgeError, ConnectionError):
    """The broker cannot be reached, or has not acknowledged a message."""


class MessageTooLargeError(BridgeError, ValueError):
    """An event is larger than a message may be."""


class TopologyError(BridgeError, ValueError):
    """A stream, exchange, queue or consumer of the broker does not fit, or cannot be made."""
