"""Who is called, and how."""

from madcrow_events.subscriptions._options import ANY, SingleOptions, SubscriptionOptions
from madcrow_events.subscriptions._patterns import PatternSubscription
from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["ANY", "PatternSubscription", "SingleOptions", "Subscription", "SubscriptionOptions"]
