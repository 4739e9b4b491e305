"""What a delivery needs to know of the event that it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events.exceptions import UnknownEventError
from madcrow_events.subscriptions._bound import BoundSubscription

if TYPE_CHECKING:
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.signals._signal import EventSignal
    from madcrow_events.subscriptions import Subscription

__all__ = ["is_faked", "signal_of"]


def signal_of(registry: SignalRegistry, subscription: Subscription) -> EventSignal[Any]:
    """Return the signal whose event a subscription is to, under the name that it has now.

    Args:
        registry: the registry of the dispatcher.
        subscription: a bound subscription, or one that a signal of the registry lists.

    Raises:
        UnknownEventError: the subscription belongs to another registry, or its event was removed.
    """
    signal: EventSignal[Any] | None
    if isinstance(subscription, BoundSubscription):
        signal = registry.resolve(subscription.signal._itself())
        if signal._registry is None or registry._find(signal.name) is signal:
            return signal
    else:
        signal = registry._find(subscription.event)
        if signal is not None and signal._table is subscription._table:
            return signal
    raise UnknownEventError(
        f"the subscription of {subscription.name} to {subscription.event} belongs to no event of "
        f"{registry._described()}: the event was removed, or use a dispatcher of its own registry",
        event=subscription.event,
    )


def is_faked(signal: EventSignal[Any]) -> bool:
    """Whether a block of a test keeps the handlers of an event from being called."""
    return signal._table.is_faked
