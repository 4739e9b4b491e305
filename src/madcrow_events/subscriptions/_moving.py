"""Moving subscriptions from one event to another, which takes over its name.

A subscription is in both tables for a moment, so that no emission misses it. Each function may be
called again, also after an interrupt has cut it short.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events.emissions._plan import STALE
from madcrow_events.subscriptions._table import (
    SubscriptionTable,
    check_same_handler,
    check_same_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["check_all_fit", "move", "own_subscriptions", "share"]


def own_subscriptions(table: SubscriptionTable) -> list[Subscription]:
    """Return the active subscriptions to an event by its name, without the parts of patterns."""
    return [it for it in table.live() if it._owner is None]


def check_all_fit(tables: Iterable[SubscriptionTable]) -> None:
    """Refuse to put into one table what would be subscribed twice there, with other options.

    Raises:
        SubscriptionConflictError: two of the tables have a handler with other options each, or
            have given one id to two handlers.
    """
    together = SubscriptionTable()
    for table in tables:
        for requested in own_subscriptions(table):
            for present in (together._present(requested), together._ids.get(requested.id or "")):
                if present is not None:
                    check_same_handler(present, requested)
                    check_same_options(present, requested)
            together._put(requested)


def share(moving: list[Subscription], table: SubscriptionTable) -> None:
    """Enter subscriptions in one more table, except those whose handler it has already."""
    table._exclusively(partial(_share, table), moving)


def _share(table: SubscriptionTable, dropped: list[Any], moving: list[Subscription]) -> None:
    for subscription in moving:
        present = table._present(subscription)
        # One that has ended meanwhile stays as it is: a `once` may have had its call.
        if subscription._active and (present is None or not present.active):
            dropped.append(present)
            table._put(subscription)


def move(
    moving: list[Subscription], old: SubscriptionTable, new: SubscriptionTable, event: str
) -> None:
    """Let shared subscriptions belong to the new table alone.

    Args:
        moving: the subscriptions.
        old: the table that they leave.
        new: the table that they are shared with.
        event: the name of the new table's event.
    """
    for subscription in moving:
        subscription.event = event
        subscription._table = new
    old._exclusively(partial(_leave, old), moving)
    for subscription in moving:
        # Another thread may have ended it, or subscribed its handler, meanwhile.
        if not subscription._active or new._present(subscription) is not subscription:
            subscription._end(None)  # the other one is still called


def _leave(table: SubscriptionTable, _dropped: list[Any], moving: list[Subscription]) -> None:
    for subscription in moving:
        table._take_out(subscription)
    table.plans = STALE
