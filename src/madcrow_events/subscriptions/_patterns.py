"""Subscriptions to many events, each with a part for every event that matches.

They are to a pattern of names, or to a class that the models of the events derive from. Or they are
to the name of one event that may never be declared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakValueDictionary

from madcrow_events._text import type_name
from madcrow_events.emissions._plan import STALE, CallSpec, Plans
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.models import BaseEventContext
from madcrow_events.subscriptions._identity import identity_key
from madcrow_events.subscriptions._options import ANY, SubscriptionOptions
from madcrow_events.subscriptions._subscription import (
    OptionsSubscription,
    Subscription,
    next_order,
)
from madcrow_events.subscriptions._table import (
    SubscriptionTable,
    check_same_handler,
    check_same_options,
    forget_id,
)

if TYPE_CHECKING:
    from madcrow_events.subscriptions._endings import EndReason

__all__ = [
    "OptionalSubscription",
    "Pattern",
    "PatternSubscription",
    "PatternTable",
    "end_parts",
    "extend",
    "matches_nothing",
]

Pattern: TypeAlias = str | type[BaseEventContext]
"""A pattern of names, or a class from which the models of events derive."""


class PatternTable:
    """The subscriptions to patterns and classes of one registry."""

    def __init__(self) -> None:
        self._by_order: dict[int, PatternSubscription] = {}
        self._by_key: dict[Hashable, PatternSubscription] = {}
        self._ids: dict[tuple[Pattern, str | None], Subscription] = {}
        self.plans: Plans = STALE  # always: the plans are in the tables of the events

    def add(
        self, pattern: PatternSubscription, replaced: Collection[Subscription] = ()
    ) -> PatternSubscription:
        """Enter a pattern and return it, or return the equal one that is entered already.

        Args:
            pattern: the new pattern.
            replaced: the subscriptions that it replaces, and whose id it may take.

        Raises:
            SubscriptionConflictError: its handler is entered with other options, or another
                handler has its id.
        """
        present = self._by_key.get(pattern._key)
        if present is not None and present.active:
            check_same_options(present, pattern)
            return present
        namesake = self._ids.get((pattern.pattern, pattern.id))
        if namesake is not None and namesake.active and namesake not in replaced:
            check_same_handler(namesake, pattern)
        self._enter(pattern)
        return pattern

    def _enter(self, pattern: PatternSubscription) -> None:
        self._by_order[pattern._order] = self._by_key[pattern._key] = pattern
        if pattern.id is not None:
            self._ids[pattern.pattern, pattern.id] = pattern
        pattern._activate()

    def move(self, entry: PatternSubscription, class_: type[BaseEventContext]) -> bool:
        """Let a subscription be for the class that has replaced its class.

        Returns:
            Whether it is; not if its handler is subscribed to that class already.
        """
        former_key, former_id = entry._key, (entry.pattern, entry.id)
        entry.pattern = class_
        present = self._by_key.get(entry._key)
        is_free = present is None or not present.active
        if is_free:
            self._by_key[entry._key] = entry
        if entry.id is not None and is_free:
            self._ids.setdefault((class_, entry.id), entry)
        self._by_key.pop(former_key, None)
        forget_id(self._ids, former_id, entry)
        return is_free

    def mark_stale(self, pattern: PatternSubscription) -> None:
        """Remove a pattern that has ended."""
        self._by_order.pop(pattern._order, None)
        if self._by_key.get(pattern._key) is pattern:
            self._by_key.pop(pattern._key, None)
        forget_id(self._ids, (pattern.pattern, pattern.id), pattern)

    def note_end(self, _pattern: PatternSubscription, _reason: EndReason) -> None:
        """Do nothing: the tables of the events record the ends of its parts."""

    def live(self, pattern: Pattern | None = None) -> list[PatternSubscription]:
        """Return the active subscriptions, or those to one pattern, in order, without recorders."""
        return [
            entry
            for entry in self.live_and_recording()
            if entry.origin is not RECORDER and pattern in (None, entry.pattern)
        ]

    def of_handler(self, handler: object, pattern: Pattern) -> list[PatternSubscription]:
        """Return the active subscriptions of a handler to exactly this pattern."""
        key = identity_key(handler)
        return [entry for entry in self.live(pattern) if entry._handler_key == key]

    def live_and_recording(self) -> list[PatternSubscription]:
        """Return the active patterns, recorders included."""
        return [entry for entry in list(self._by_order.values()) if entry.active]

    def of_classes(self) -> list[PatternSubscription]:
        """Return the active subscriptions to classes, recorders included."""
        return [it for it in self.live_and_recording() if not isinstance(it.pattern, str)]

    def restore(self, entries: Iterable[tuple[PatternSubscription, Pattern]]) -> None:
        """Restore what `live` returned earlier, for these patterns; the tables restore the parts.

        Args:
            entries: the subscriptions, each with the pattern or class that it was for.
        """
        restored = [*entries]
        kept = {entry for entry, _ in restored}
        for entry in self.live():
            entry._end(None if entry in kept else "isolated")
        for entry, pattern in restored:
            if entry._alive:
                entry.pattern = pattern
                self._enter(entry)
                entry._end_if_gone()


class PatternSubscription(OptionsSubscription):
    """One handler's subscription to every event that a pattern or a context class matches.

    `cancel` ends the subscription to all of these events.

    Attributes:
        event: the pattern, or the name of the class.
        pattern: the pattern, in which `*` stands for any characters, dots included; or the class,
            from which the models of the events derive.
    """

    __slots__ = ("_children", "_options", "pattern")

    def __init__(
        self,
        table: PatternTable,
        pattern: Pattern,
        handler: Any,
        spec: CallSpec,
        options: SubscriptionOptions,
    ) -> None:
        name = pattern if isinstance(pattern, str) else type_name(pattern)
        super().__init__(table, name, handler, spec, options)
        self.pattern: Pattern = pattern
        # Without the sender, which this would keep alive.
        self._options: SubscriptionOptions = {**options, "sender": ANY}
        self._children: WeakValueDictionary[int, Subscription] = WeakValueDictionary()

    @property
    def _key(self) -> Hashable:
        return self.pattern, self._handler_key, self._sender_key

    def _extend_to(
        self, table: SubscriptionTable, event: str, spec: CallSpec | None = None
    ) -> None:
        """Subscribe the handler to one more event, in which it may have a call spec of its own."""
        handler, sender = self.handler, self.sender
        if not self.active:
            return
        child = OptionsSubscription(
            table,
            event,
            handler,
            spec or self._call_spec,
            {**self._options, "sender": sender},
            order=self._order,
            owner=self,
            # Of its own, so that a handler of two patterns is called for each.
            key=(PatternSubscription, self._order),
        )
        self._children[next_order()] = table.add(child)
        if not self._active:  # pragma: no cover  # another thread cancelled it meanwhile
            child.cancel()

    def _end(self, reason: EndReason | None) -> None:
        """End it for every event."""
        try:
            self._end_all(reason)
        except BaseException:
            self._end_all(reason)  # once more, because it was interrupted
            raise

    def _end_all(self, reason: EndReason | None) -> None:
        super()._end(reason)
        for child in self._parts():
            child._end(reason)

    def _parts(self) -> Iterator[Subscription]:
        for reference in self._children.valuerefs():  # a copy, while others may extend it
            child = reference()
            if child is not None:  # pragma: no branch  # one may go away meanwhile
                yield child


class OptionalSubscription(PatternSubscription):
    """One handler's subscription to one event, by its name, whenever that is declared.

    The signature is read anew for the model of the event, once that is known.

    Attributes:
        wrap: takes the handler's call spec, and returns the one to call it by; or None.
    """

    __slots__ = ("wrap",)

    _is_optional = True

    def __init__(
        self,
        table: PatternTable,
        name: str,
        handler: Any,
        spec: CallSpec,
        options: SubscriptionOptions,
        wrap: Callable[[CallSpec], CallSpec] | None,
    ) -> None:
        super().__init__(table, name, handler, spec, options)
        self.wrap = wrap


def matches_nothing(subscription: PatternSubscription) -> bool:
    """Whether a pattern or a class is subscribed to no event at all."""
    return not any(part.active for part in subscription._parts())


def extend(
    subscription: PatternSubscription,
    table: SubscriptionTable,
    event: str,
    spec: CallSpec | None = None,
) -> None:
    """Subscribe the handler of a pattern or class to an event that matches; a registry calls this.

    Doing so again changes nothing.

    Args:
        subscription: the subscription to the pattern or class.
        table: the table of the event's signal.
        event: the name of the event.
        spec: how the handler of an optional subscription is called in this event; None for a
            pattern or class, whose handler is called alike in all its events.
    """
    subscription._extend_to(table, event, spec)


def end_parts(table: SubscriptionTable, still_matches: Callable[[Pattern], bool]) -> None:
    """End the parts of patterns and classes that match an event no more.

    Args:
        table: the subscriptions of the event.
        still_matches: whether a pattern or class matches the event.
    """
    for part in table._exclusively(table._entries):
        owner = part._owner
        if isinstance(owner, PatternSubscription) and not still_matches(owner.pattern):
            part._end(None)  # as if it had never matched
