"""Asking which handlers an emission would call, and why not the others, without calling any."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import type_name
from madcrow_events.emissions._failures import is_failure
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import ContextValidationError
from madcrow_events.subscriptions._identity import sender_key
from madcrow_events.subscriptions._options import ANY
from madcrow_events.subscriptions._planning import plan_calls
from madcrow_events.subscriptions._subscription import NotCalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import Plan
    from madcrow_events.subscriptions._endings import Ending
    from madcrow_events.subscriptions._subscription import Subscription
    from madcrow_events.subscriptions._table import SubscriptionTable

__all__ = ["Refusal", "last_endings", "reach", "why_not_called", "why_unreached"]

Refusal: TypeAlias = Literal["once", "unloaded", "collected", "when", "when_raised", "context"]
"""Why a handler is not called although an emission reaches it."""

_MOST_PROBLEMS = 5


def reach(table: SubscriptionTable, sender: object) -> tuple[list[Subscription], Plan]:
    """Return the active subscriptions, and the plan of those that an emission would reach.

    The plan is that of a context in which nothing is muted or faked.

    Args:
        table: the subscriptions of an event.
        sender: the sender of the emission; `ANY` for all senders together.
    """
    found, reached = table._exclusively(_entries_and_reached, table, sender)
    live = {it for it in found if it.active and it.origin is not RECORDER}
    plan = plan_calls(it for it in reached if it in live)
    return sorted(live, key=lambda it: it._order), plan


def _entries_and_reached(
    dropped: list[Any], table: SubscriptionTable, sender: object
) -> tuple[list[Subscription], list[Subscription]]:
    keys = table._by_sender.keys() - {ANY} if sender is ANY else {sender_key(sender)}
    return table._entries(dropped), table._reached(keys)


def last_endings(table: SubscriptionTable) -> list[Ending]:
    """Return why the last subscriptions ended, the oldest first, without those that are back."""
    present = {entry._order for entry in table.live()}
    return [ending for ending in table.endings() if ending.order not in present]


def why_unreached(
    subscription: Subscription, sender: object
) -> Literal["sender", "connected_twice"]:
    """Return why an emission of `sender` does not reach a subscription."""
    is_for_it = sender is ANY or subscription._sender_key == sender_key(sender)
    return "connected_twice" if is_for_it else "sender"


def why_not_called(
    subscription: Subscription, emission: Emission, *, with_context: bool
) -> tuple[Refusal, str] | None:
    """Return why an emission would not call a handler that it reaches; None if it would.

    Args:
        subscription: the subscription of the handler.
        emission: the emission, which calls nobody.
        with_context: whether its context counts: whether to ask `when`, and to make the arguments.

    Returns:
        The reason, and a text that says more, which never shows values.
    """
    if subscription._is_used_up():
        return "once", ""
    # The gate of a plugin answers for each predicate, once it is closed.
    if not subscription._call_spec.ask(_agree, {}):
        return "unloaded", ""
    if not with_context:
        return None if subscription.active else ("collected", "")
    handler, failure = _tried(partial(subscription._match, emission), _kind)
    if failure:
        return "when_raised", failure
    if handler is None:
        return ("collected" if subscription.handler is None else "when"), ""
    make_arguments = partial(subscription._call_spec.fit, NotCalled(handler), emission)
    _, failure = _tried(make_arguments, _misfit)
    return ("context", failure) if failure else None


def _agree(_context: object) -> bool:
    return True


def _kind(error: BaseException) -> str:
    return type_name(type(error))


def _misfit(error: BaseException) -> str:
    if not isinstance(error, ContextValidationError):
        return f"making it raised {_kind(error)}"  # whose text may show values
    shown = [f"{field}: {problem}" for field, problem in error.problems[:_MOST_PROBLEMS]]
    return "; ".join(shown if len(shown) == len(error.problems) else [*shown, "and more"])


def _tried(call: Callable[[], Any], described: Callable[[BaseException], str]) -> tuple[Any, str]:
    """Return what a call returned, and an empty text; or None, and a description of its failure."""
    try:
        return call(), ""
    except BaseException as error:
        if not is_failure(error) or is_interrupt(error):
            raise
        return None, described(error)
