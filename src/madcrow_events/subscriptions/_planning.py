"""The order and the form of the calls of an emission; `_table` says whose they are."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from madcrow_events._text import handler_name
from madcrow_events.emissions._plan import Plan, Segments
from madcrow_events.subscriptions._identity import identity_key
from madcrow_events.subscriptions._options import ANY
from madcrow_events.subscriptions._subscription import entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["comes_last", "extended", "plan_calls"]


def plan_calls(subscriptions: Iterable[Subscription]) -> Plan:
    """Return the plan of an emission that reaches these subscriptions."""
    ordered = sorted(subscriptions, key=lambda it: (-it.priority, it._order))
    inline = [it for it in ordered if it._runs_inline]
    awaited = [it for it in ordered if not (it._runs_inline or it.background)]
    named = {identity_key(it.handler): it.id for it in ordered if it.id is not None}
    return Plan(
        inline,
        awaited,
        [it for it in ordered if it.background],
        ordered,
        segments=_runs(it._prepared() for it in inline),
        to_await=_runs(it._prepared_to_await() for it in awaited),
        bound_to=next((it for it in ordered if it._sender_is_weak), None),
        entry_of=entry_of,
        name_of=partial(_name_of, named) if named else handler_name,
    )


def comes_last(plan: Plan, subscription: Subscription) -> bool:
    """Whether a subscription to all senders would be called after those of a plan.

    Not one with an id, which changes the names of the plan. An empty plan is built anew, which
    costs nothing.
    """
    last: Any = plan.by_priority[-1] if plan.by_priority else None
    return (
        last is not None
        and (-last.priority, last._order) < (-subscription.priority, subscription._order)
        and subscription.id is None
        and subscription._sender_key is ANY
    )


def extended(plan: Plan, added: Subscription) -> Plan:
    """Return the plan with one more subscription, which `comes_last`."""
    first, second = plan.inline, plan.inline + plan.awaited
    inline: tuple[Any, ...] = plan.subscriptions[:first]
    awaited: tuple[Any, ...] = plan.subscriptions[first:second]
    queued: tuple[Any, ...] = plan.subscriptions[second:]
    segments, to_await = plan.segments, plan.to_await
    if added._runs_inline:
        inline = (*inline, added)
        segments = _followed_by(segments, added._prepared())
    elif added.background:
        queued = (*queued, added)
    else:
        awaited = (*awaited, added)
        to_await = _followed_by(to_await, added._prepared_to_await())
    by_priority: tuple[Any, ...] = (*plan.by_priority, added)
    return Plan(
        inline,
        awaited,
        queued,
        by_priority,
        segments=segments,
        to_await=to_await,
        bound_to=None,
        entry_of=entry_of,
        name_of=plan.name_of,
    )


def _followed_by(segments: Segments, call: tuple[int, Any]) -> Segments:
    style, function = call
    if segments and segments[-1][0] == style:
        return (*segments[:-1], (style, (*segments[-1][1], function)))
    return (*segments, (style, (function,)))


def _name_of(named: dict[Any, str], handler: object) -> str:
    """Return the id of a handler's subscription, or else the function's dotted name."""
    return named.get(identity_key(handler)) or handler_name(handler)


def _runs(calls: Iterable[tuple[int, Any]]) -> Segments:
    return tuple(
        (style, tuple(call for _, call in run))
        for style, run in groupby(calls, key=lambda call: call[0])
    )
