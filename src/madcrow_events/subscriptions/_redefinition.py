"""Finding the subscriptions that a handler replaces when its module runs again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from madcrow_events._executions import definition_of, execution_of, was_executed_again
from madcrow_events._logs import log
from madcrow_events._text import printable
from madcrow_events.subscriptions._subscription import end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from madcrow_events._executions import Execution
    from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["defined_earlier", "end_replaced", "find_replaced"]


def find_replaced(
    requested: Subscription, present: Callable[[], Iterable[Subscription]]
) -> list[Subscription]:
    """Return the subscriptions that the handler had in earlier executions of its module.

    Args:
        requested: the new subscription; the execution of its module is noted in it.
        present: returns the subscriptions to search; called only if a module ran again.
    """
    # Not under a lock, because reading a handler's attributes may run its author's code.
    requested._execution, found = _earlier(requested.handler, present)
    return found


def defined_earlier(
    handler: object, present: Callable[[], Iterable[Subscription]]
) -> list[Subscription]:
    """Return the subscriptions that a handler had in earlier executions, without subscribing it."""
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
        if other[2] is function:
            return execution, []  # the same function, not a new one
        if execution.is_again(entry._execution):
            found.append(entry)
    return execution, found


def end_replaced(replaced: Iterable[Subscription]) -> None:
    """Cancel the subscriptions that a handler has replaced."""
    for subscription in replaced:
        end(subscription, "replaced")
        log(
            logging.INFO,
            "handler %s of %s replaces its earlier version, because its module ran again",
            subscription.name,
            printable(subscription.event),
        )
