"""Who would be called for an event, and who would not and why?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from madcrow_events._text import printable
from madcrow_events.emissions._rehearsing import rehearse
from madcrow_events.signals._blinker_signal import translated_sender
from madcrow_events.signals._models import matches
from madcrow_events.subscriptions._asking import (
    last_endings,
    reach,
    why_not_called,
    why_unreached,
)
from madcrow_events.subscriptions._identity import sender_name
from madcrow_events.subscriptions._options import ANY
from madcrow_events.subscriptions._patterns import matches_nothing
from madcrow_events.subscriptions._subscription import is_optional, pattern_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import Plan
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.signals._signal import EventSignal
    from madcrow_events.subscriptions import PatternSubscription, Subscription

__all__ = [
    "CallMode",
    "CalledHandler",
    "Explanation",
    "LeftOutHandler",
    "LeftOutReason",
    "calling_order",
    "explain",
    "origin_of",
]

CallMode: TypeAlias = Literal["inline", "awaited", "background", "batch"]
"""How a handler is called: `inline` by the emitter; `awaited` by `emit_async`, and started by
`emit`; later in the `background`; or later with a `batch`, a list of contexts.
"""

LeftOutReason: TypeAlias = Literal[
    "muted",
    "faked",
    "sender",
    "connected_twice",
    "when",
    "when_raised",
    "context",
    "unmatched",
    "once",
    "cancelled",
    "collected",
    "sender_collected",
    "replaced",
    "isolated",
    "unloaded",
]
"""Why a handler is left out of an explanation; the `detail` beside it says it in words."""

_BECAUSE: dict[str, str] = {
    "muted": "the signal is muted here",
    "faked": "a fake_events() block is open",
    "sender": "it listens to another sender",
    "connected_twice": "it is connected to every sender, too, and is called once",
    "when": "its `when` says no",
    "when_raised": "its `when` raised an exception",
    "context": "the context does not fit it",
    "unmatched": "its pattern matches no declared event",
    "once": "its one call is used up",
    "cancelled": "it was cancelled",
    "collected": "it was held weakly, and no longer exists",
    "sender_collected": "the sender that it listened to no longer exists",
    "replaced": "a later execution of its module replaced it",
    "isolated": "an isolated() block ended, or began without it",
    "unloaded": "its plugin was unloaded",
}

_CALLED = {"awaited": "async (awaited by emit_async, started by emit)"}

_NO_MODEL = "no declared event has a model of its class"

_WIDTH = 80


class CalledHandler(NamedTuple):
    """A handler that an explanation lists as called.

    Attributes:
        name: the handler's `id`, or else the function's dotted name.
        mode: how the handler is called; see `CallMode`.
        priority: this option of the subscription.
        once: this option of the subscription.
        timeout: this option of the subscription, in seconds.
        id: this option of the subscription.
        on_error: this option of the subscription.
        origin: the group or the plugin that subscribed the handler, such as `group audit`; or None.
        sender: the one sender that the handler listens to, in words; None for all senders.
        pattern: the pattern that the handler is subscribed to, or the name of the context class;
            None for the event itself.
        depends_on_when: whether the subscription has a `when` that was not asked, because no
            context was given.
    """

    name: str
    mode: CallMode
    priority: int
    once: bool
    timeout: float | None
    id: str | None
    on_error: Literal["raise"] | None
    origin: str | None
    sender: str | None
    pattern: str | None
    depends_on_when: bool

    def __str__(self) -> str:
        """Return the name, and how it is called, in one line."""
        details: dict[str, object] = {
            _CALLED.get(self.mode, self.mode): True,
            f"priority {self.priority}": self.priority,
            "once": self.once,
            f"timeout {self.timeout} s": self.timeout is not None,
            "failures are raised": self.on_error,
            f"for {self.sender} only": self.sender,
            f"by the {_kind(self.pattern)}": self.pattern,
            f"of {self.origin}": self.origin,
            "depends on `when`": self.depends_on_when,
        }
        return f"{self.name}: {', '.join(text for text, is_shown in details.items() if is_shown)}"


class LeftOutHandler(NamedTuple):
    """A handler that an explanation lists as not called.

    Attributes:
        name: the handler's `id`, or else the function's dotted name.
        reason: why the handler is not called; see `LeftOutReason`.
        detail: the reason in words, without values of the context.
        pattern: the pattern that the handler is or was subscribed to, or the name of the context
            class; None for the event itself.
        has_ended: whether the subscription has ended.
    """

    name: str
    reason: LeftOutReason
    detail: str
    pattern: str | None
    has_ended: bool

    def __str__(self) -> str:
        """Return the name and the reason in one line."""
        by = f" (by the {_kind(self.pattern)})" if self.pattern else ""
        return f"{self.name}{by}: {self.detail}"


class Explanation(NamedTuple):
    """Who would be called for an event, and who would not; made by `SignalRegistry.explain`.

    Print it to read it.

    Attributes:
        event: the name of the event.
        called: the handlers that would be called, in order.
        left_out: the other handlers of the event; then handlers for patterns and context classes
            that match no declared event at all, and optional handlers that wait for their event;
            then the last 16 handlers of the event whose subscriptions have ended.
        has_context: whether a context was given. If not, no `when` was asked, and no parameters
            were compared.
    """

    event: str
    called: tuple[CalledHandler, ...]
    left_out: tuple[LeftOutHandler, ...]
    has_context: bool

    def __str__(self) -> str:
        """Return a text for people, in lines of 80 columns."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        ended = [it for it in self.left_out if it.has_ended]
        present = [it for it in self.left_out if not it.has_ended]
        if self.called:
            yield f"{self.event} would call, in this order:"
            yield from _wrapped(f"{n}. {it}" for n, it in enumerate(self.called, 1))
        else:
            yield f"{self.event} would call nobody."
        if self.called and not self.has_context:
            yield "Without a context, no `when` was asked, and no parameters were compared: give"
            yield "the context, as in explain(OrderPlaced(...)), to ask them."
        if present:
            yield "Left out:"
            yield from _wrapped(f"- {it}" for it in present)
        if ended:
            yield "Ended:"
            yield from _wrapped(f"- {it}" for it in ended)

    def __repr__(self) -> str:
        """Count the handlers."""
        return (
            f"<Explanation of {self.event}, called: {len(self.called)}, "
            f"left out: {len(self.left_out)}>"
        )


def explain(
    registry: SignalRegistry,
    signal: EventSignal[Any],
    sender: object,
    context: BaseEventContext | dict[str, Any],
) -> Explanation:
    """Explain an emission that does not happen, as `SignalRegistry.explain` says."""
    has_context = type(context) is not dict or bool(context)
    table, sender = signal._table, signal if sender is None else translated_sender(sender)
    subscriptions, plan = reach(table, sender)
    reached = cast("tuple[Subscription, ...]", plan.subscriptions)
    why: dict[Subscription, tuple[LeftOutReason, str]]
    if table.is_muted or table.is_faked:
        why = dict.fromkeys(subscriptions, ("muted" if table.is_muted else "faked", ""))
    else:
        why = {it: (why_unreached(it, sender), "") for it in {*subscriptions} - {*reached}}
        emitter = signal if sender is ANY else sender
        ask = partial(_refusals, reached, has_context)
        why |= rehearse(signal, registry.dispatcher, emitter, context, ask)
    waiting = [it for it in registry._patterns.live() if matches_nothing(it)]
    return Explanation(
        signal.name,
        tuple(_called(registry, plan, reached, why, has_context=has_context)),
        (
            *(_left_out(it, *why[it]) for it in subscriptions if it in why),
            *(_unmatched(registry, it) for it in waiting),
            *(
                LeftOutHandler(it.name, it.reason, _BECAUSE[it.reason], it.pattern, has_ended=True)
                for it in last_endings(table)
            ),
        ),
        has_context=has_context,
    )


def _refusals(
    reached: tuple[Subscription, ...], has_context: bool, emission: Emission
) -> dict[Subscription, tuple[LeftOutReason, str]]:
    """Return which of these handlers an emission would not call, and why."""
    asked = ((it, why_not_called(it, emission, with_context=has_context)) for it in reached)
    return {it: refusal for it, refusal in asked if refusal is not None}


def _called(
    registry: SignalRegistry,
    plan: Plan,
    reached: tuple[Subscription, ...],
    why: Mapping[Subscription, object],
    *,
    has_context: bool,
) -> Iterator[CalledHandler]:
    for index, it in enumerate(reached):
        if it not in why:
            yield CalledHandler(
                it.name,
                _mode_of(it, index, plan),
                it.priority,
                it.once,
                it.timeout,
                it.id,
                it.on_error,
                origin_of(registry, it),
                None if it.sender is ANY else sender_name(it.sender),
                pattern_of(it),
                depends_on_when=it.when is not None and not has_context,
            )


def _mode_of(subscription: Subscription, index: int, plan: Plan) -> CallMode:
    if index < plan.inline:
        return "inline"
    if index < plan.inline + plan.awaited:
        return "awaited"
    return "background" if subscription.batch is None else "batch"


def _left_out(subscription: Subscription, reason: LeftOutReason, detail: str) -> LeftOutHandler:
    if reason == "sender":
        detail = sender_name(subscription.sender)
    text = f"{_BECAUSE[reason]}: {detail}" if detail else _BECAUSE[reason]
    return LeftOutHandler(
        subscription.name, reason, text, pattern_of(subscription), has_ended=False
    )


def _unmatched(registry: SignalRegistry, subscription: PatternSubscription) -> LeftOutHandler:
    name, pattern = subscription.event, subscription.pattern
    shown: str | None = name
    if is_optional(subscription):
        is_declared = any(matches(it, pattern) for it in registry._declared())
        because = f"it is optional, and its event {name} is not declared"
        if is_declared:
            because = f"it is optional, and does not fit its event {name}"
        shown = None
    else:
        because = _BECAUSE["unmatched"] if isinstance(pattern, str) else _NO_MODEL
    return LeftOutHandler(subscription.name, "unmatched", because, shown, has_ended=False)


def _kind(pattern: str | None) -> str:
    """Return a pattern, or the name of a class, which has no star, with what it is."""
    return f"{'pattern' if '*' in (pattern or '') else 'class'} {pattern}"


def _wrapped(items: Iterable[str]) -> Iterator[str]:
    """Yield items as lines, indented, of 80 columns at most."""
    from textwrap import wrap  # loaded when first needed

    for item in items:
        yield from wrap(item, _WIDTH, initial_indent="  ", subsequent_indent="      ")


# For higher wings, not for users


def calling_order(signal: EventSignal[Any]) -> list[tuple[Subscription, CallMode]]:
    """Return the active subscriptions of an event, for all senders, as they are called.

    Args:
        signal: the signal of the event.

    Returns:
        The subscriptions in the order in which they are called or started, each with how it is
            called; recorders are none of them.
    """
    _, plan = reach(signal._table, ANY)
    subscriptions = cast("tuple[Subscription, ...]", plan.subscriptions)
    return [(it, _mode_of(it, index, plan)) for index, it in enumerate(subscriptions)]


def origin_of(registry: SignalRegistry, subscription: Subscription) -> str | None:
    """Return the plugin or the group that made a subscription, described; None if none did.

    Args:
        registry: the registry of the subscription's event.
        subscription: the subscription.
    """
    origin: Any = subscription.origin
    if origin is None:
        return None
    found = (it.described(origin) for it in list(registry._companions.values()))
    return next(filter(None, found), f"group {printable(origin.name)}")
