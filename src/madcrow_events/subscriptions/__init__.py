"""Who is called, and how."""

from madcrow_events.subscriptions._patterns import PatternSubscription
from madcrow_events.subscriptions._subscription import (
    ANY,
    SingleOptions,
    Subscription,
    SubscriptionOptions,
)

__all__ = ["ANY", "PatternSubscription", "SingleOptions", "Subscription", "SubscriptionOptions"]
