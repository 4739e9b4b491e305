"""Which subscriptions a handler takes the place of, when its module runs again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from madcrow_events._executions import definition_of, execution_of, was_executed_again
from madcrow_events._logs import log
from madcrow_events._text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from madcrow_events._executions import Execution
    from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["defined_earlier", "end_replaced", "find_replaced"]


def find_replaced(
    requested: Subscription, present: Callable[[], Iterable[Subscription]]
) -> list[Subscription]:
    """Return the subscriptions of what the handler was in earlier executions of its module.

    Args:
        requested: the new subscription, which gets to know its execution.
        present: returns those that may be concerned; not called unless a module ran again.
    """
    # Not under a lock, for a handler's attributes may be code of its author's (F6).
    requested._execution, found = _earlier(requested.handler, present)
    return found


def defined_earlier(
    handler: object, present: Callable[[], Iterable[Subscription]]
) -> list[Subscription]:
    """Return the same for a handler that is not to be subscribed."""
    return _earlier(handler, present)[1]


def _earlier(
    handler: object, present: Callable[[], Iterable[Subscription]]
) -> tuple[Execution | None, list[Subscription]]:
    definition = definition_of(handler)
    if definition is None:
        return None, []
    module, name, function = definition
    execution = execution_of(function, module)
    found: list[Subscription] = []
    if execution is None or not was_executed_again(module):
        return execution, found
    for entry in present():
        if entry._owner is not None or entry._connected or entry._execution is None:
            continue
        other = definition_of(entry.handler)
        if other is None or other[:2] != (module, name):
            continue
        if other.function is function:
            return execution, []  # it is no new one
        if execution.is_again(entry._execution):
            found.append(entry)
    return execution, found


def end_replaced(replaced: Iterable[Subscription]) -> None:
    """Cancel what a handler has taken the place of."""
    for subscription in replaced:
        subscription.cancel()
        log(
            logging.INFO,
            "%s on %s takes the place of what it was before its module ran again",
            subscription.name,
            printable(subscription.event),
        )
