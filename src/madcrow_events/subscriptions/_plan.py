"""The calls of one emission, in order and prepared."""

from __future__ import annotations

from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from madcrow_events._text import handler_name
from madcrow_events.emissions._outcomes import PENDING
from madcrow_events.subscriptions._identity import identity_key

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from madcrow_events.subscriptions._subscription import Subscription


__all__ = ["NOBODY", "STALE", "Plan", "Plans", "Segments"]


Segments: TypeAlias = "tuple[tuple[int, tuple[Callable[..., Any], ...]], ...]"
"""Runs of neighbouring calls of one style."""


class Plan:
    """The calls of one emission.

    Attributes:
        segments: the inline calls, as runs of neighbours of one style: `(style, callables)`.
        subscriptions: all that are called: inline, then awaited, then in the background.
        by_priority: the same in the order in which blinker's `send` calls them.
        inline: how many are called inline.
        awaited: how many are async and not in the background.
        to_await: these, as runs of neighbours like `segments`.
        queued: how many are in the background.
        pending: what an emission's values hold for those two until they have finished.
        later: whether there are any.
        bound_to: a subscription that holds this plan's sender weakly, or None.
        named: those that have an id.
    """

    __slots__ = (
        "awaited",
        "bound_to",
        "by_priority",
        "inline",
        "later",
        "named",
        "pending",
        "queued",
        "segments",
        "subscriptions",
        "to_await",
    )

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        ordered = sorted(subscriptions, key=lambda entry: (-entry.priority, entry._order))
        self.by_priority: tuple[Subscription, ...] = tuple(ordered)
        inline = [entry for entry in ordered if entry._runs_inline]
        awaited = [entry for entry in ordered if not (entry._runs_inline or entry.background)]
        queued = [entry for entry in ordered if entry.background]
        self.subscriptions: tuple[Subscription, ...] = (*inline, *awaited, *queued)
        self.inline: int = len(inline)
        self.awaited: int = len(awaited)
        self.to_await: Segments = _runs(entry._prepared_to_await() for entry in awaited)
        self.queued: int = len(queued)
        self.pending: tuple[Any, ...] = (PENDING,) * (len(awaited) + len(queued))
        self.later: bool = bool(self.pending)
        self.segments: Segments = _runs(entry._prepared() for entry in inline)
        self.bound_to: Subscription | None = next(
            (entry for entry in ordered if entry._sender_is_weak), None
        )
        self.named: dict[Any, str] = {
            identity_key(entry.handler): entry.id for entry in ordered if entry.id is not None
        }

    def name_of(self, handler: Any) -> str:
        """Return the id of a handler's subscription, or else the function's dotted name."""
        return self.named.get(identity_key(handler)) or handler_name(handler)


def _runs(calls: Iterable[tuple[int, Any]]) -> Segments:
    return tuple(
        (style, tuple(call for _, call in run))
        for style, run in groupby(calls, key=lambda call: call[0])
    )


class Plans:
    """The plans that are valid until the next change, which puts a new object in this one's place.

    A plan that was built from an older state so lands where nobody looks.
    """

    __slots__ = ("by_sender", "everyone")

    def __init__(self) -> None:
        self.everyone: Plan | None = None
        self.by_sender: dict[Hashable, Plan] = {}


STALE = Plans()
STALE.by_sender = MappingProxyType({})  # type: ignore[assignment]  # nobody may put a plan there
"""Stands for plans that a change has made stale; always empty.

It is one object, so that a change is followed by a plain store, which nothing interrupts.
"""


NOBODY = Plan(())
"""The plan of an emission that reaches no handler."""
