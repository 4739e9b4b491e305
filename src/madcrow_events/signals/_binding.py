"""Which event a subscription is to, for a delivery to its handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events.exceptions import UnknownEventError
from madcrow_events.subscriptions._bound import BoundSubscription

if TYPE_CHECKING:
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.signals._signal import EventSignal
    from madcrow_events.subscriptions import Subscription

__all__ = ["signal_of"]


def signal_of(registry: SignalRegistry, subscription: Subscription) -> EventSignal[Any]:
    """Return the signal whose event a subscription is to, under the name that it has now.

    Args:
        registry: the registry of the dispatcher.
        subscription: a bound subscription, or one that a signal of the registry lists.

    Raises:
        UnknownEventError: the subscription belongs to another registry.
    """
    if isinstance(subscription, BoundSubscription):
        return registry.resolve(subscription.signal._itself())
    signal = registry._find(subscription.event)
    if signal is None or signal._table is not subscription._table:
        raise UnknownEventError(
            f"the subscription of {subscription.name} to {subscription.event} belongs to no event "
            f"of {registry._described()}: use a dispatcher of its own registry",
            event=subscription.event,
        )
    return signal
