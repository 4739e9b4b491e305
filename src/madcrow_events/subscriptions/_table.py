"""The subscriptions of one signal, by sender and handler (N6).

Changing the table drops its plans; the next emission builds the one it needs,
under the lock, and later ones read it without. `cancel` and weak-reference callbacks may
run anywhere, in the middle of a garbage collection too, so they leave a note
and never wait. What a table drops, it drops after it let go of the lock, for a
finalizer is user code (F6).
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from madcrow_events._forks import renew_after_fork
from madcrow_events._text import handler_name
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import SubscriptionConflictError
from madcrow_events.subscriptions._identity import identity_key, sender_key
from madcrow_events.subscriptions._options import ANY
from madcrow_events.subscriptions._plan import NOBODY, Plan, Plans

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from madcrow_events.subscriptions._subscription import Subscription


__all__ = ["Recording", "SubscriptionTable", "check_same_options"]


_muted: ContextVar[frozenset[object]] = ContextVar("madcrow_events.muted", default=frozenset())
"""A token for each `muted` block of this context, and of those that it was copied from."""


class Recording(Protocol):
    """A block of a test in which emissions are recorded, and perhaps no handler is called."""

    is_open: bool

    def _is_faked(self, event: str, /) -> bool:
        """Tell whether the handlers of an event are not called in it."""
        ...

    def close(self) -> None:
        """End it; doing so again is no error."""


class SubscriptionTable:
    """The subscriptions of one signal, by sender and handler."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_by_sender",
        "_fakes",
        "_lock",
        "_mutes",
        "_notes",
        "plans",
    )

    def __init__(self) -> None:
        self._renew_after_fork()
        renew_after_fork(self)
        self._by_sender: dict[Hashable, dict[Hashable, Subscription]] = {}
        self._notes: deque[Subscription] = deque()
        self._mutes: set[object] = set()
        self._fakes: set[Recording] = set()
        self.plans = Plans()

    def _renew_after_fork(self) -> None:
        """Start with a free lock."""
        # Re-entrant: a garbage collection under the lock may run a finalizer that subscribes.
        self._lock = threading.RLock()
        self._busy = False

    # Changing

    def add(self, subscription: Subscription) -> Subscription:
        """Enter a subscription, or return the equal one that is here already (H6).

        Raises:
            SubscriptionConflictError: the handler is here with other options.
        """
        with self._exclusive() as dropped:
            present = self._bucket(subscription).get(subscription._handler_key)
            if present is None or not present.active:
                dropped.append(present)
                self._enter(subscription)
                return subscription
        check_same_options(present, subscription)
        return present

    def replace(self, subscription: Subscription) -> None:
        """Enter a subscription, in the place of one of the same handler and sender."""
        with self._exclusive() as dropped:
            replaced = self._bucket(subscription).get(subscription._handler_key)
            if replaced is not None and replaced is not subscription:
                replaced._active = False
                dropped.append(replaced)
            self._enter(subscription)

    def leave_note(self, subscription: Subscription) -> None:
        """Take a subscription out: now if the lock is free, else with the next change."""
        self._notes.append(subscription)
        self.plans = Plans()
        self._settle()

    def _bucket(self, subscription: Subscription) -> dict[Hashable, Subscription]:
        return self._by_sender.setdefault(subscription._sender_key, {})

    def _enter(self, subscription: Subscription) -> None:
        self._bucket(subscription)[subscription._handler_key] = subscription
        subscription._activate()
        self.plans = Plans()

    @contextmanager
    def _exclusive(self) -> Iterator[list[Any]]:
        """Hold the lock; yield a list of what is to be dropped after it."""
        dropped: list[Any] = []
        with self._lock:
            nested, self._busy = self._busy, True
            try:
                if not nested:
                    self._sweep(dropped)
                yield dropped
            finally:
                self._busy = nested
        if not nested:
            self._settle()

    def _settle(self) -> None:
        """Act on notes that nobody else will act on."""
        while self._notes and self._lock.acquire(blocking=False):
            dropped: list[Any] = []
            try:
                if self._busy:
                    return
                self._busy = True
                try:
                    self._sweep(dropped)
                finally:
                    self._busy = False
            finally:
                self._lock.release()

    def _sweep(self, dropped: list[Any]) -> None:
        while self._notes:
            subscription = self._notes.popleft()
            dropped.append(subscription)
            bucket = self._by_sender.get(subscription._sender_key, {})
            # One that an isolated() block cancelled is active again after the block.
            if bucket.get(subscription._handler_key) is subscription and not subscription.active:
                del bucket[subscription._handler_key]
                if not bucket:
                    del self._by_sender[subscription._sender_key]

    # Reading. Copies are made by list(), during which nothing else can run.

    def live(self) -> list[Subscription]:
        """Return the active subscriptions in the order in which they came, without recorders."""
        with self._exclusive():
            found = [
                entry
                for bucket in list(self._by_sender.values())
                for entry in list(bucket.values())
            ]
        active = (entry for entry in found if entry.active and entry.origin is not RECORDER)
        return sorted(active, key=lambda entry: entry._order)

    def of_handler(self, handler: Any, sender: Any = ANY) -> list[Subscription]:
        """Return the active subscriptions of a handler; with `ANY`, those to all senders."""
        key = identity_key(handler)
        with self._exclusive():
            if sender is ANY:
                buckets = list(self._by_sender.values())
            else:
                buckets = [self._by_sender.get(sender_key(sender), {})]
            found = [bucket[key] for bucket in buckets if key in bucket]
        return [entry for entry in found if entry.active]

    def find(self, handler: Any, sender: Any) -> Subscription | None:
        """Return the active subscription of a handler to exactly this sender, or to `ANY`."""
        key = ANY if sender is ANY else sender_key(sender)
        present = self._by_sender.get(key, {}).get(identity_key(handler))
        return present if present is not None and present.active else None

    def has_any_for(self, sender: Any) -> bool:
        """Tell whether an emission of `sender` would reach anybody; `ANY` asks for all senders."""
        keys = (ANY,) if sender is ANY else (ANY, sender_key(sender))
        return any(
            entry.active and entry.origin is not RECORDER
            for key in keys
            for entry in list(self._by_sender.get(key, {}).values())
        )

    def plan_for(self, sender: Any) -> Plan:
        """Return the plan for an emission of `sender`; the slow way to `plans.everyone`."""
        return NOBODY if self.is_muted else self.unmuted_plan_for(sender)

    def unmuted_plan_for(self, sender: Any) -> Plan:
        """Return the plan for an emission of `sender` in a context that did not mute."""
        key: Hashable = ANY
        if len(self._by_sender) > (ANY in self._by_sender):
            own = sender_key(sender)
            if own in self._by_sender:
                key = own
        plan = self.plans.by_sender.get(key)
        if plan is None:
            plan = self._build(key)
        if plan.bound_to is not None and not plan.bound_to._sender_is_alive:
            # That sender is gone, and this one has its id now (L2).
            plan = self._build(ANY)
        return plan

    def _build(self, key: Hashable) -> Plan:
        with self._exclusive():
            # Taken before reading: a change that comes later replaces it.
            plans = self.plans
            entries = list(self._by_sender.get(ANY, {}).values())
            if key is not ANY:
                connected = {entry._handler_key for entry in entries if entry._connected}
                entries += [
                    entry
                    for entry in list(self._by_sender.get(key, {}).values())
                    if not (entry._connected and entry._handler_key in connected)
                ]
            if any(block.is_open for block in self._fakes):
                entries = [entry for entry in entries if entry.origin is RECORDER]
            plan = Plan(entry for entry in entries if entry.active)
            plans.by_sender[key] = plan
            if not self._mutes and len(self._by_sender) == (ANY in self._by_sender):
                plans.everyone = plan
        return plan

    # Muting, faking and isolating

    def fake(self, block: Recording) -> None:
        """Call only recorders while a block is open; to be said again when it has ended."""
        with self._exclusive():
            if block.is_open:
                self._fakes.add(block)
            else:
                self._fakes.discard(block)
            self.plans = Plans()

    @property
    def is_muted(self) -> bool:
        """Whether the present context muted it, in a block that has not ended."""
        return bool(self._mutes) and not self._mutes.isdisjoint(_muted.get())

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Call nobody from this context until the block ends."""
        token = object()
        with self._exclusive():
            self._mutes = {*self._mutes, token}
            self.plans = Plans()
        _muted.set(_muted.get() | {token})
        try:
            yield
        finally:
            # Set, not reset: a test fixture may end in another context than it began in.
            _muted.set(_muted.get() - {token})
            with self._exclusive():
                self._mutes = self._mutes - {token}
                self.plans = Plans()

    def restore(self, subscriptions: Iterable[Subscription]) -> None:
        """Hold what `live` returned once, as far as it is alive, and nothing else."""
        for present in self.live():
            present.cancel()
        for subscription in subscriptions:
            if subscription._alive:
                self.replace(subscription)


def check_same_options(present: Subscription, requested: Subscription) -> None:
    """Refuse to subscribe a handler a second time with other options (H6).

    Raises:
        SubscriptionConflictError: the options differ.
    """
    if not present._same_options(requested):
        raise SubscriptionConflictError(
            f"{handler_name(present.handler)} is subscribed to {present.event} already, with "
            "other options: cancel that subscription first, or give the same options",
            event=present.event,
            handler=present.handler,
        )
