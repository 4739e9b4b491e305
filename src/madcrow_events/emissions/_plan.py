"""The calls of one emission, prepared and in order: all that the loops know of subscriptions."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

from madcrow_events._names import HANDLER_FAILED
from madcrow_events._text import handler_name
from madcrow_events.emissions._outcomes import PENDING
from madcrow_events.emissions._styles import BY_CONTEXT, BY_KEYWORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from madcrow_events.batches import Batch
    from madcrow_events.emissions._emission import Emission


__all__ = [
    "FAKED",
    "NOBODY",
    "STALE",
    "CallSpec",
    "Entry",
    "OutgrownPlans",
    "Plan",
    "Plans",
    "Segments",
    "Subscribed",
    "call_with",
    "plan_for",
]


Segments: TypeAlias = "tuple[tuple[int, tuple[Callable[..., Any], ...]], ...]"
"""The calls of a plan, as runs of neighbours of one style: `(style, callables)`."""


def call_with(function: Any, argument: Any) -> Any:
    """Call a function with one argument, for a `CallSpec` that has nothing better."""
    return function(argument)


class CallSpec:
    """How a handler is called.

    Attributes:
        style: the call loop's way to call it: one of the constants of `_styles`.
        invoke: `invoke(handler, emission)` calls the handler.
        fit: `fit(stand_in, emission)` makes the arguments and calls a stand-in with them, without
            wrappers around the call; it raises `ContextValidationError` if they do not fit.
        is_async: whether a call returns a coroutine.
        item: `item(emission)` returns an emission's item for a batch; None without batches.
        item_is_context: whether the item is the context itself, if that is of the signal's model.
        invoke_batch: `invoke_batch(handler, items)` calls a handler of batches.
        ask: `ask(when, context)` calls the predicate of a subscription.
    """

    __slots__ = (
        "ask",
        "fit",
        "invoke",
        "invoke_batch",
        "is_async",
        "item",
        "item_is_context",
        "style",
    )

    def __init__(
        self,
        style: int,
        invoke: Callable[[Any, Emission], Any],
        *,
        is_async: bool = False,
        item: Callable[[Emission], Any] | None = None,
        item_is_context: bool = False,
        invoke_batch: Callable[[Any, list[Any]], Any] | None = None,
        ask: Callable[[Any, Mapping[str, Any]], object] | None = None,
        fit: Callable[[Any, Emission], Any] | None = None,
    ) -> None:
        self.style: int = style
        self.invoke: Callable[[Any, Emission], Any] = invoke
        self.fit: Callable[[Any, Emission], Any] = fit or invoke
        self.is_async: bool = is_async
        self.item: Callable[[Emission], Any] | None = item
        self.item_is_context: bool = item_is_context
        self.invoke_batch: Callable[[Any, list[Any]], Any] = invoke_batch or call_with
        self.ask: Callable[[Any, Mapping[str, Any]], object] = ask or call_with


class Subscribed(Protocol):
    """The part of a subscription that emissions may use; `subscriptions.Subscription` is one."""

    event: str
    once: bool
    when: Callable[[Mapping[str, Any]], object] | None
    timeout: float | None
    batch: Batch | None
    on_error: Literal["raise"] | None

    @property
    def handler(self) -> Any:
        """The handler; None if it was held weakly and no longer exists."""
        ...

    @property
    def name(self) -> str:
        """The name of the handler in logs."""
        ...

    @property
    def origin(self) -> object:
        """The group that made it, or `RECORDER`."""
        ...

    @property
    def weak(self) -> bool:
        """Whether the handler is held weakly."""
        ...


SubscribedT = TypeVar("SubscribedT", bound=Subscribed)


class Entry(NamedTuple):
    """One handler of a plan, with all that is needed to call it.

    Made by `subscriptions` when first asked for: by the loops, by the jobs of the background, or by
    a plan whose only handler runs later.

    Attributes:
        subscription: the subscription of the handler.
        owner: the subscription that the user made: the pattern, for a pattern's part.
        spec: how the handler is called.
        handler: the handler, if it is held strongly; else None.
        match: `match(emission)` returns the handler if it exists and its `when` agrees, else None.
        admit: `admit(emission)` does as `match`, and claims the one call of a `once`.
        take: `take(handler, emission)` claims the one call of a `once` for a handler that matched;
            it returns the handler, or None if the call was claimed before.
        claim: `claim()` claims the one call of a `once`; it returns whether the call is free.
        check_arguments: `check_arguments(handler, emission)` raises if the arguments of a `once`
            cannot be made, and leaves its one call unclaimed.
        explain: `explain(error, emission)` returns the exception of a call, or a clearer one if the
            arguments did not fit, so that the handler was not reached.
        is_used_up: `is_used_up()` returns whether the one call of a `once` has been claimed.
    """

    subscription: Subscribed
    owner: Subscribed
    spec: CallSpec
    handler: Any
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
        awaited: the subscriptions whose handlers are async and not in the background.
        queued: the subscriptions whose handlers are in the background.
        by_priority: all subscriptions, in the order in which blinker's `send` calls them.
        segments: the inline calls, as runs of neighbours of one style: `(style, callables)`.
        to_await: the awaited calls, in that form, too.
        bound_to: a subscription that holds this plan's sender weakly, or None.
        entry_of: returns the entry of a subscription.
        name_of: returns the name of a handler in logs and metrics.

    Attributes:
        subscriptions: all subscriptions: inline, then awaited, then in the background.
        inline: how many handlers are called inline.
        awaited: how many handlers are async and not in the background; under `emit` these run
            later, too.
        queued: how many handlers are in the background.
        pending: the first outcomes of the awaited and queued handlers: `PENDING` for each.
        later: whether there are awaited or queued handlers.
        by_keywords: the callables of all handlers, if all are inline and take keywords; `()` if
            there are no handlers; None in all other cases. Read by `_short_way`.
        by_context: the callables of all handlers, if all are inline and take the context; `()` if
            there are no handlers; None in all other cases. Read by `_short_way`.
        alone: the entry of the only handler, if that is a plain one in the background, without a
            `when`, not for `once`, and not of `handler_failed`; else None. Read by `_short_way`.
    """

    __slots__ = (
        "_entries",
        "_entries_by_priority",
        "_entry_of",
        "alone",
        "awaited",
        "bound_to",
        "by_context",
        "by_keywords",
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
        self.segments: Segments = segments
        self.to_await: Segments = to_await
        self.pending: tuple[Any, ...] = (PENDING,) * (len(awaited) + len(queued))
        self.later: bool = bool(self.pending)
        self.bound_to: Any = bound_to
        self.name_of: Callable[[Any], str] = name_of
        self._entry_of: Callable[[Any], Entry] = entry_of
        self._entries: tuple[Entry, ...] | None = None
        self._entries_by_priority: tuple[Entry, ...] | None = None
        self.by_keywords: tuple[Any, ...] | None = self._all_of(BY_KEYWORDS)
        self.by_context: tuple[Any, ...] | None = self._all_of(BY_CONTEXT)
        # What `Admission.start_alone` leaves out: a predicate, a claim, a loop, `is_announcing`.
        self.alone: Entry | None = None
        if len(self.subscriptions) == self.queued == 1:
            (entry,) = self.entries
            if entry.subscription.when is None and not (
                entry.subscription.once
                or entry.spec.is_async
                or entry.subscription.event == HANDLER_FAILED
            ):
                self.alone = entry

    def _all_of(self, wanted: int) -> tuple[Any, ...] | None:
        if self.later or any(style != wanted for style, _ in self.segments):
            return None
        # Neighbours of one style are one segment, so a single style is a single segment.
        return self.segments[0][1] if self.segments else ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries of `subscriptions`, in the same order."""
        if self._entries is None:
            self._entries = tuple(map(self._entry_of, self.subscriptions))
        return self._entries

    @property
    def entries_by_priority(self) -> tuple[Entry, ...]:
        """The entries in the order in which blinker's `send` calls them."""
        if self._entries_by_priority is None:
            self._entries_by_priority = tuple(map(self._entry_of, self.by_priority))
        return self._entries_by_priority


class Plans:
    """The plans of a signal, valid until its subscriptions change; then another object replaces it.

    A thread that was still building a plan stores it in the replaced object, which nothing reads
    any more.

    Attributes:
        everyone: the plan of every emission, whoever emits; None if it is not built, if a handler
            is for one sender only, or while a block mutes the signal.
        by_sender: the plans by sender; the one under `ANY` is for all senders without their own.
    """

    __slots__ = ("by_sender", "everyone")

    def __init__(self) -> None:
        self.everyone: Plan | None = None
        self.by_sender: dict[Hashable, Plan] = {}


class OutgrownPlans(Plans):
    """Empty plans that remember how to build the next one quickly.

    They keep the last plan for all senders, and the one subscription that was added at its end.
    So the next plan is the last one with one more call. For thousands of subscriptions, that takes
    a hundredth of the time.

    Attributes:
        plan: the plan for all senders.
        added: the new subscription.
    """

    __slots__ = ("added", "plan")

    def __init__(self, plan: Plan, added: Any) -> None:
        # not by `super().__init__`: its dictionary would be one that can hold plans
        self.everyone = None
        self.by_sender = STALE.by_sender
        self.plan: Plan = plan
        self.added: Any = added


STALE = Plans()
STALE.by_sender = MappingProxyType({})  # type: ignore[assignment]  # no plan can be put there
"""Stands for plans that a change has made stale; always empty.

There is only one, so that a change is followed by a plain store, which no interrupt can split.
"""


def _empty() -> Plan:
    return Plan(
        (),
        (),
        (),
        (),
        segments=(),
        to_await=(),
        bound_to=None,
        entry_of=dict[Any, Entry]().__getitem__,
        name_of=handler_name,
    )


NOBODY = _empty()
"""The plan of an emission that is muted, and of one as long as a block holds it back."""

FAKED = _empty()
"""The plan of a delivery that a test fakes."""


def plan_for(emission: Emission) -> Plan:
    """Return the plan that an emission would have if it were emitted now."""
    return emission.signal._table.plan_for(emission.sender)
