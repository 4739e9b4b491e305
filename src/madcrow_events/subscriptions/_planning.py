"""The order and the form of the calls of an emission; `_table` says whose they are."""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from madcrow_events._text import handler_name
from madcrow_events.emissions._plan import Plan, Segments
from madcrow_events.subscriptions._identity import identity_key
from madcrow_events.subscriptions._subscription import entry_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.subscriptions._subscription import Subscription

__all__ = ["plan_calls"]


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


def _name_of(named: dict[Any, str], handler: object) -> str:
    """Return the id of a handler's subscription, or else the function's dotted name."""
    return named.get(identity_key(handler)) or handler_name(handler)


def _runs(calls: Iterable[tuple[int, Any]]) -> Segments:
    return tuple(
        (style, tuple(call for _, call in run))
        for style, run in groupby(calls, key=lambda call: call[0])
    )
