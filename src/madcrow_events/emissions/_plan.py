"""The calls of one emission, in order and prepared: all that the loops know of subscriptions."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from madcrow_events._text import handler_name
from madcrow_events.emissions._outcomes import PENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from madcrow_events.batches import Batch
    from madcrow_events.emissions._emission import Emission


__all__ = [
    "NOBODY",
    "STALE",
    "CallSpec",
    "Entry",
    "Plan",
    "Plans",
    "Segments",
    "Subscribed",
    "call_with",
    "plan_for",
]


Segments: TypeAlias = "tuple[tuple[int, tuple[Callable[..., Any], ...]], ...]"
"""Runs of neighbouring calls of one style."""


def call_with(function: Any, argument: Any) -> Any:
    """Call a function with one argument, for a `CallSpec` that has nothing better."""
    return function(argument)


class CallSpec:
    """How a handler is called.

    Attributes:
        style: which of the call loop's three ways fits.
        invoke: `invoke(handler, emission)`, the general way.
        fit: `fit(stand_in, emission)`, the same with something else than the handler, and without
            what wraps the calls: makes the arguments, and raises a `ContextValidationError` if the
            call would not take them.
        is_async: whether a call gives a coroutine.
        item: `item(emission)`, what a handler for batches gets of each; None for other handlers.
        invoke_batch: `invoke_batch(handler, items)`, for handlers of batches.
        ask: `ask(when, context)`, for subscriptions with a predicate.
    """

    __slots__ = ("ask", "fit", "invoke", "invoke_batch", "is_async", "item", "style")

    def __init__(
        self,
        style: int,
        invoke: Callable[[Any, Emission], Any],
        *,
        is_async: bool = False,
        item: Callable[[Emission], Any] | None = None,
        invoke_batch: Callable[[Any, list[Any]], Any] | None = None,
        ask: Callable[[Any, Mapping[str, Any]], object] | None = None,
        fit: Callable[[Any, Emission], Any] | None = None,
    ) -> None:
        self.style: int = style
        self.invoke: Callable[[Any, Emission], Any] = invoke
        self.fit: Callable[[Any, Emission], Any] = fit or invoke
        self.is_async: bool = is_async
        self.item: Callable[[Emission], Any] | None = item
        self.invoke_batch: Callable[[Any, list[Any]], Any] = invoke_batch or call_with
        self.ask: Callable[[Any, Mapping[str, Any]], object] = ask or call_with


class Subscribed(Protocol):
    """What everybody may know of a subscription; `subscriptions.Subscription` is one."""

    event: str
    once: bool
    timeout: float | None
    batch: Batch | None

    @property
    def handler(self) -> Any:
        """The handler; None if it was held weakly and is gone."""

    @property
    def name(self) -> str:
        """How logs name the handler."""

    @property
    def origin(self) -> object:
        """The group that made it, or `RECORDER`."""

    @property
    def weak(self) -> bool:
        """Whether the handler is held weakly."""


SubscribedT = TypeVar("SubscribedT", bound=Subscribed)


class Entry(NamedTuple):
    """One handler of a plan: what those that call it need to know.

    Made by `subscriptions` for a plan, when the loops first ask for it; used by the loops, and
    by the jobs of the background.

    Attributes:
        subscription: whose handler it is.
        owner: the subscription that the user made: the pattern's for a pattern's part.
        spec: how the handler is called.
        match: `match(emission)` returns the handler if it lives and its `when` agrees, else None.
        admit: `admit(emission)`, the same; it takes the one call of a `once`.
        take: `take(handler, emission)` returns a handler that matched; None if it was a `once` that
            somebody else was faster to call.
        claim: takes the one call of a `once`; returns whether the handler may be called.
        check_arguments: `check_arguments(handler, emission)` raises what the making of a `once`'s
            arguments raises, which does not use it up.
        explain: `explain(error, emission)` returns what the handler raised, or what tells better
            that the call did not reach it.
        is_used_up: returns whether it was a `once` whose call has been taken.
    """

    subscription: Subscribed
    owner: Subscribed
    spec: CallSpec
    match: Callable[[Emission], Any]
    admit: Callable[[Emission], Any]
    take: Callable[[Any, Emission], Any]
    claim: Callable[[], bool]
    check_arguments: Callable[[Any, Emission], None]
    explain: Callable[[Exception, Emission], Exception]
    is_used_up: Callable[[], bool]


class Plan:
    """The calls of one emission; made by `subscriptions`.

    Args:
        inline: the subscriptions whose handlers the loop calls itself, in order.
        awaited: those whose handlers are async and not in the background.
        queued: those whose handlers are in the background.
        by_priority: all of them in the order in which blinker's `send` calls them.
        segments: the inline calls, as runs of neighbours of one style: `(style, callables)`.
        to_await: the awaited calls, in the same form.
        bound_to: a subscription that holds this plan's sender weakly, or None.
        entry_of: returns the entry of a subscription.
        name_of: returns how logs and metrics name a handler.

    Attributes:
        subscriptions: all that are called: inline, then awaited, then in the background.
        inline: how many are called inline.
        awaited: how many are async and not in the background.
        queued: how many are in the background.
        pending: what an emission's values hold for those two until they have finished.
        later: whether there are any.
    """

    __slots__ = (
        "_by_priority",
        "_entries",
        "_entry_of",
        "awaited",
        "bound_to",
        "by_priority",
        "inline",
        "later",
        "name_of",
        "pending",
        "queued",
        "segments",
        "subscriptions",
        "to_await",
    )

    def __init__(
        self,
        inline: Sequence[SubscribedT],
        awaited: Sequence[SubscribedT],
        queued: Sequence[SubscribedT],
        by_priority: Sequence[SubscribedT],
        *,
        segments: Segments,
        to_await: Segments,
        bound_to: SubscribedT | None,
        entry_of: Callable[[SubscribedT], Entry],
        name_of: Callable[[Any], str],
    ) -> None:
        self.subscriptions: tuple[Subscribed, ...] = (*inline, *awaited, *queued)
        self.by_priority: tuple[Subscribed, ...] = tuple(by_priority)
        self.inline: int = len(inline)
        self.awaited: int = len(awaited)
        self.queued: int = len(queued)
        self.segments = segments
        self.to_await = to_await
        self.pending: tuple[Any, ...] = (PENDING,) * (len(awaited) + len(queued))
        self.later: bool = bool(self.pending)
        self.bound_to: Any = bound_to
        self.name_of: Callable[[Any], str] = name_of
        self._entry_of: Callable[[Any], Entry] = entry_of
        self._entries: tuple[Entry, ...] | None = None
        self._by_priority: tuple[Entry, ...] | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What the loops need to know of `subscriptions`, in the same order."""
        if self._entries is None:
            self._entries = tuple(map(self._entry_of, self.subscriptions))
        return self._entries

    @property
    def entries_by_priority(self) -> tuple[Entry, ...]:
        """The same, in the order in which blinker's `send` calls them."""
        if self._by_priority is None:
            self._by_priority = tuple(map(self._entry_of, self.by_priority))
        return self._by_priority


class Plans:
    """The plans that are valid until the next change, which puts a new object in this one's place.

    A plan that was built from an older state is put where nobody looks.
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


def _no_entry(subscription: Subscribed) -> Entry:
    raise LookupError(subscription)


NOBODY = Plan(
    (),
    (),
    (),
    (),
    segments=(),
    to_await=(),
    bound_to=None,
    entry_of=_no_entry,
    name_of=handler_name,
)
"""The plan of an emission that reaches no handler."""


def plan_for(emission: Emission) -> Plan:
    """Return the calls that an emission would make if it went out now."""
    return emission.signal._table.plan_for(emission.sender)
