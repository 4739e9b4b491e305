"""Subscriptions: which handlers an emission reaches, and how each is called."""

from madcrow_events.subscriptions._handler_types import (
    BatchHandler,
    BatchHandlerDecorator,
    Handler,
    HandlerDecorator,
    KeywordHandler,
)
from madcrow_events.subscriptions._options import (
    ANY,
    BoundOptions,
    SingleOptions,
    SubscriptionOptions,
)
from madcrow_events.subscriptions._patterns import PatternSubscription
from madcrow_events.subscriptions._subscription import Subscription

__all__ = [
    "ANY",
    "BatchHandler",
    "BatchHandlerDecorator",
    "BoundOptions",
    "Handler",
    "HandlerDecorator",
    "KeywordHandler",
    "PatternSubscription",
    "SingleOptions",
    "Subscription",
    "SubscriptionOptions",
]
