"""Subscriptions to patterns of event names, each with a part for every event that matches."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from madcrow_events._names import HANDLER_FAILED
from madcrow_events.emissions._plan import STALE, CallSpec, Plans
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.subscriptions._identity import identity_key
from madcrow_events.subscriptions._options import ANY, SubscriptionOptions
from madcrow_events.subscriptions._subscription import Subscription, next_order
from madcrow_events.subscriptions._table import (
    SubscriptionTable,
    check_same_handler,
    check_same_options,
    forget_id,
)

if TYPE_CHECKING:
    from madcrow_events.subscriptions._endings import EndReason

__all__ = ["PatternSubscription", "PatternTable", "end_parts", "extend", "matches_nothing"]


class PatternTable:
    """The subscriptions to patterns of one registry."""

    def __init__(self) -> None:
        self._by_order: dict[int, PatternSubscription] = {}
        self._by_key: dict[Hashable, PatternSubscription] = {}
        self._ids: dict[tuple[str, str | None], Subscription] = {}
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
        namesake = self._ids.get((pattern.event, pattern.id))
        if namesake is not None and namesake.active and namesake not in replaced:
            check_same_handler(namesake, pattern)
        self._enter(pattern)
        return pattern

    def _enter(self, pattern: PatternSubscription) -> None:
        self._by_order[pattern._order] = self._by_key[pattern._key] = pattern
        if pattern.id is not None:
            self._ids[pattern.event, pattern.id] = pattern
        pattern._activate()

    def mark_stale(self, pattern: PatternSubscription) -> None:
        """Remove a pattern that has ended."""
        self._by_order.pop(pattern._order, None)
        if self._by_key.get(pattern._key) is pattern:
            self._by_key.pop(pattern._key, None)
        forget_id(self._ids, (pattern.event, pattern.id), pattern)

    def note_end(self, _pattern: PatternSubscription, _reason: EndReason) -> None:
        """Do nothing: the tables of the events record the ends of its parts."""

    def live(self, pattern: str | None = None) -> list[PatternSubscription]:
        """Return the active patterns, or those with one text, in order and without recorders."""
        return [
            entry
            for entry in self.live_and_recording()
            if entry.origin is not RECORDER and pattern in (None, entry.event)
        ]

    def of_handler(self, handler: object, pattern: str) -> list[PatternSubscription]:
        """Return the active subscriptions of a handler to exactly this pattern."""
        key = identity_key(handler)
        return [entry for entry in self.live(pattern) if entry._handler_key == key]

    def live_and_recording(self) -> list[PatternSubscription]:
        """Return the active patterns, recorders included."""
        return [entry for entry in list(self._by_order.values()) if entry.active]

    def restore(self, patterns: Iterable[PatternSubscription]) -> None:
        """Restore the patterns that `live` returned earlier; the tables restore the parts."""
        restored = [*patterns]
        kept = {*restored}
        for pattern in self.live():
            pattern._end(None if pattern in kept else "isolated")
        for pattern in restored:
            if pattern._alive:
                self._enter(pattern)


class PatternSubscription(Subscription):
    """One handler's subscription to every event whose name fits a pattern.

    `event` is the pattern. Its `*` stands for any characters, dots included. `cancel` ends the
    subscription to all of these events.
    """

    __slots__ = ("_children", "_key", "_matches", "_options")

    def __init__(
        self,
        table: PatternTable,
        pattern: str,
        handler: Any,
        spec: CallSpec,
        options: SubscriptionOptions,
    ) -> None:
        super().__init__(table, pattern, handler, spec, options)
        self._key = (pattern, self._handler_key, self._sender_key)
        # With several stars, the expression of `fnmatch` takes linear time, unlike a chain of ".*".
        self._matches = re.compile(fnmatch.translate(pattern)).match
        # Without the sender, which this would keep alive.
        self._options: SubscriptionOptions = {**options, "sender": ANY}
        self._children: WeakValueDictionary[int, Subscription] = WeakValueDictionary()

    def _extend_to(self, table: SubscriptionTable, event: str) -> None:
        """Subscribe the handler to one more event."""
        handler, sender = self.handler, self.sender
        if not self.active:
            return
        child = Subscription(
            table,
            event,
            handler,
            self._call_spec,
            {**self._options, "sender": sender},
            order=self._order,
            owner=self,
            key=self._key[:2],  # of its own, so that a handler of two patterns is called for each
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


def matches_nothing(pattern: PatternSubscription) -> bool:
    """Whether a pattern is subscribed to no event at all."""
    return not any(part.active for part in pattern._parts())


def extend(
    pattern: PatternSubscription, table: SubscriptionTable, event: str, *formerly: str
) -> None:
    """Subscribe a pattern's handler to an event, once, if one of the event's names matches.

    A registry calls this for each pair of a pattern and an event.

    Args:
        pattern: the pattern.
        table: the subscriptions of the event.
        event: the name of the event.
        *formerly: its old names.
    """
    if _fits(pattern, event, formerly):
        pattern._extend_to(table, event)


def _fits(pattern: PatternSubscription, event: str, formerly: Iterable[str]) -> bool:
    if event == HANDLER_FAILED != pattern.event:
        return False  # no star matches it
    return any(map(pattern._matches, (event, *formerly)))


def end_parts(table: SubscriptionTable, *names: str) -> None:
    """End the parts of patterns that match none of these names of an event.

    Args:
        table: the subscriptions of the event.
        *names: the name of the event, and its old names; none to end every part.
    """
    for part in table._exclusively(table._entries):
        pattern = part._owner
        if isinstance(pattern, PatternSubscription) and not (
            names and _fits(pattern, names[0], names[1:])
        ):
            part._end(None)  # as if the pattern had never matched
