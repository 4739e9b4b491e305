"""Who would be called for an event, and who would not and why?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from madcrow_events._text import printable
from madcrow_events.emissions._rehearsing import rehearse
from madcrow_events.signals._signal import EventSignal, translated_sender
from madcrow_events.subscriptions._asking import (
    last_endings,
    reach,
    why_not_called,
    why_unreached,
)
from madcrow_events.subscriptions._identity import sender_name
from madcrow_events.subscriptions._options import ANY
from madcrow_events.subscriptions._patterns import matches_nothing
from madcrow_events.subscriptions._subscription import pattern_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from madcrow_events.emissions import Emission
    from madcrow_events.emissions._plan import Plan
    from madcrow_events.signals._registry import SignalRegistry
    from madcrow_events.subscriptions import Subscription
    from madcrow_events.subscriptions._endings import Ending

__all__ = [
    "CallMode",
    "CalledHandler",
    "Explanation",
    "LeftOutHandler",
    "LeftOutReason",
    "explain",
]

CallMode: TypeAlias = Literal["inline", "awaited", "background", "batch"]
"""How a handler is called: by the emitter itself; awaited by `emit_async`, and started by `emit`;
later, in the background; later, with a list of contexts."""

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
"""Why a handler is not called."""

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

_WIDTH = 80


class CalledHandler(NamedTuple):
    """A handler that would be called.

    Attributes:
        name: its id, or the dotted name of the function.
        mode: how it is called; see `CallMode`.
        priority: the option of its subscription.
        once: the same.
        timeout: the same, in seconds.
        id: the same.
        origin: the group or the plugin that subscribed it, such as `group audit`; or None.
        sender: the one sender that it listens to, described; None for every sender.
        pattern: the pattern that it is subscribed to; None for the event itself.
        depends_on_when: whether it has a `when` that was not asked, for want of a context.
    """

    name: str
    mode: CallMode
    priority: int
    once: bool
    timeout: float | None
    id: str | None
    origin: str | None
    sender: str | None
    pattern: str | None
    depends_on_when: bool

    def __str__(self) -> str:
        """Return the name, and how it is called, in one line."""
        details: dict[str, object] = {
            self.mode: True,
            f"priority {self.priority}": self.priority,
            "once": self.once,
            f"timeout {self.timeout} s": self.timeout is not None,
            f"for {self.sender} only": self.sender,
            f"by the pattern {self.pattern}": self.pattern,
            f"of {self.origin}": self.origin,
            "depends on `when`": self.depends_on_when,
        }
        return f"{self.name}: {', '.join(text for text, is_shown in details.items() if is_shown)}"


class LeftOutHandler(NamedTuple):
    """A handler that would not be called.

    Attributes:
        name: its id, or the dotted name of the function.
        reason: why it is left out; see `LeftOutReason`.
        detail: the reason in a sentence, which shows no value of a context.
        pattern: the pattern that it is subscribed to; None for the event itself.
        has_ended: whether its subscription has ended.
    """

    name: str
    reason: LeftOutReason
    detail: str
    pattern: str | None
    has_ended: bool

    def __str__(self) -> str:
        """Return the name and the reason in one line."""
        by = f" (by the pattern {self.pattern})" if self.pattern else ""
        return f"{self.name}{by}: {self.detail}"


class Explanation(NamedTuple):
    """Who would be called for an event, and who would not; `str` is a text of 80 columns.

    Made by `SignalRegistry.explain`.

    Attributes:
        event: the name of the event.
        called: the handlers that would be called, in order.
        left_out: the others: those subscribed to the event, patterns that match no event at all,
            and the last 16 that were subscribed to the event and have ended.
        has_context: whether a context was given; if not, no `when` was asked, and no handler's
            parameters were compared with it.
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
            yield "No context was given: no `when` was asked, no parameters were compared."
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
    registry: SignalRegistry, signal: EventSignal[Any], sender: object, context: dict[str, Any]
) -> Explanation:
    """Explain an emission that does not happen; see `SignalRegistry.explain`.

    Args:
        registry: the registry, whose patterns are looked at, too.
        signal: its signal.
        sender: the sender; None for the signal itself, `ANY` for all senders together.
        context: the keywords; if empty, no `when` is asked.
    """
    table, sender = signal._table, signal if sender is None else translated_sender(sender)
    subscriptions, plan = reach(table, sender)
    reached = cast("tuple[Subscription, ...]", plan.subscriptions)
    why: dict[Subscription, tuple[LeftOutReason, str]]
    if table.is_muted or table.is_faked:
        why = dict.fromkeys(subscriptions, ("muted" if table.is_muted else "faked", ""))
    else:
        why = {it: (why_unreached(it, sender), "") for it in {*subscriptions} - {*reached}}
        emitter = signal if sender is ANY else sender
        why |= rehearse(signal, emitter, context, partial(_refusals, reached, bool(context)))
    waiting = [it for it in registry._patterns.live() if matches_nothing(it)]
    return Explanation(
        signal.name,
        tuple(_called(registry, plan, reached, why, has_context=bool(context))),
        (
            *(_left_out(it, *why[it]) for it in subscriptions if it in why),
            *(_left_out(it, "unmatched", "") for it in waiting),
            *map(_ended, last_endings(table)),
        ),
        has_context=bool(context),
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
                _origin_of(registry, it.origin),
                None if it.sender is ANY else _described(it.sender),
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
        detail = _described(subscription.sender)
    text = f"{_BECAUSE[reason]}: {detail}" if detail else _BECAUSE[reason]
    pattern = subscription.event if reason == "unmatched" else pattern_of(subscription)
    return LeftOutHandler(subscription.name, reason, text, pattern, has_ended=False)


def _ended(ending: Ending) -> LeftOutHandler:
    detail = _BECAUSE[ending.reason]
    return LeftOutHandler(ending.name, ending.reason, detail, ending.pattern, has_ended=True)


def _origin_of(registry: SignalRegistry, origin: Any) -> str | None:
    """Return the plugin or the group that made a subscription, described; None if none did."""
    if origin is None:
        return None
    found = (it.described(origin) for it in list(registry._companions.values()))
    return next(filter(None, found), f"group {printable(origin.name)}")


def _described(sender: object) -> str:
    if issubclass(type(sender), EventSignal):
        return f"the signal {sender}"
    return sender_name(sender)


def _wrapped(items: Iterable[str]) -> Iterator[str]:
    """Yield items as lines, indented, of 80 columns at most."""
    from textwrap import wrap  # loaded when first needed

    for item in items:
        yield from wrap(item, _WIDTH, initial_indent="  ", subsequent_indent="      ")
