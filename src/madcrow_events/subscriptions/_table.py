"""The subscriptions of one signal, by sender and handler.

A change of the table drops its plans. The next emission builds the plan that it needs, under the
lock; later emissions read it without the lock. `cancel` and the callbacks of weak references may
run anywhere, also during a garbage collection. So they mark their subscription stale and never
wait. The table removes it later. It drops the last reference only after it has released the lock,
because a finalizer, which is user code, may run then.
"""

from __future__ import annotations

import logging
import weakref
from contextlib import ContextDecorator
from contextvars import ContextVar
from functools import partial
from itertools import starmap
from operator import attrgetter
from types import FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from typing_extensions import TypeVar

from madcrow_events._copies import Unique
from madcrow_events._forks import renew_after_fork
from madcrow_events._interrupts import is_interrupt
from madcrow_events._locks import Lock
from madcrow_events._logs import log
from madcrow_events.emissions._plan import NOBODY, STALE, OutgrownPlans, Plan, Plans
from madcrow_events.emissions._styles import RECORDER
from madcrow_events.exceptions import SubscriptionConflictError
from madcrow_events.subscriptions._endings import MOST_ENDINGS, Ending, Endings, new_endings
from madcrow_events.subscriptions._identity import identity_key, sender_key
from madcrow_events.subscriptions._options import ANY
from madcrow_events.subscriptions._planning import comes_last, extended, plan_calls
from madcrow_events.subscriptions._subscription import pattern_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable

    from madcrow_events.emissions import Emission
    from madcrow_events.subscriptions._endings import EndReason
    from madcrow_events.subscriptions._subscription import Subscription


__all__ = [
    "Mute",
    "Recording",
    "SavedTable",
    "SubscriptionTable",
    "check_same_handler",
    "check_same_options",
    "forget_id",
    "note_delivery",
]


ReturnedT = TypeVar("ReturnedT")
IdT = TypeVar("IdT")

Muting: TypeAlias = "weakref.ref[Mute]"
"""A `muted` block, held weakly: it exists as long as its `with` goes on."""

_is_marked_active = attrgetter("_active")

# shared, because each `frozenset()` is a new object of 216 bytes
_NONE: Final[frozenset[Any]] = frozenset()
_NO_IDS: Final[dict[str, Any]] = MappingProxyType({})  # type: ignore[assignment]  # for reading

_muted: ContextVar[frozenset[Muting]] = ContextVar("madcrow_events.muted", default=frozenset())
"""The `muted` blocks of this context, and of the contexts that it was copied from."""


class Mute(Unique, ContextDecorator):
    """A block in which the handlers of one signal are not called from its context."""

    _instead_of_pickling = "mute the signal there"

    def __init__(self, table: SubscriptionTable) -> None:
        self._table = table
        self._muting: Muting = weakref.ref(self)

    def _recreate_cm(self) -> Mute:
        return Mute(self._table)  # one for each call of the decorated function

    def __enter__(self) -> None:
        """Mute the signal."""
        try:
            self._table.mute(self._muting)
        except BaseException:
            self._table.unmute(self._muting)
            raise

    def __exit__(self, *exc_info: object) -> None:
        """End the muting."""
        try:
            self._table.unmute(self._muting)
        except BaseException:
            self._table.unmute(self._muting)  # once more, because it was interrupted
            raise


class Recording(Protocol):
    """A block of a test that records emissions, and may keep handlers from being called."""

    is_open: bool

    def _is_faked(self, signal: Any, /) -> bool:
        """Whether it keeps the handlers of a signal from being called."""
        ...

    def _record_delivery(self, emission: Emission, /) -> None:
        """Record a delivery if it records its event."""
        ...

    def close(self) -> None:
        """End it; doing so again is no error."""


def note_delivery(blocks: Iterable[Recording], emission: Emission) -> None:
    """Have the blocks that are open record a delivery, which calls no subscribed recorder."""
    for block in blocks:
        if block.is_open:  # pragma: no branch  # another thread may close it meanwhile
            block._record_delivery(emission)


class SavedTable:
    """The subscriptions of a signal as an `isolated` block began.

    Attributes:
        plans: the plans, which are the same object as long as nothing has changed.
        subscriptions: the active subscriptions, recorders included.
    """

    __slots__ = ("plans", "subscriptions")

    def __init__(self, plans: Plans, subscriptions: list[Subscription]) -> None:
        self.plans: Plans = plans
        self.subscriptions: list[Subscription] = subscriptions

    def handlers(self) -> list[Subscription]:
        """Return the subscriptions in the order of registration, without recorders."""
        found = [entry for entry in self.subscriptions if entry.origin is not RECORDER]
        return sorted(found, key=lambda entry: entry._order)


class SubscriptionTable:
    """The subscriptions of one signal, by sender and handler."""

    __slots__ = (
        "__weakref__",
        "_busy",
        "_by_sender",
        "_collected",
        "_endings",
        "_fakes",
        "_ids",
        "_lock",
        "_mutes",
        "_stale",
        "plans",
    )

    def __init__(self) -> None:
        self._renew_after_fork()
        renew_after_fork(self)
        self._by_sender: dict[Hashable, dict[Hashable, Subscription]] = {}
        # Few tables have any of these three. So all share what is empty, and a change replaces it.
        self._ids: dict[str, Subscription] = _NO_IDS
        self._mutes: frozenset[Muting] = _NONE
        self._fakes: frozenset[weakref.ref[Recording]] = _NONE
        self._stale: list[Subscription] = []  # 72 bytes, and a deque takes 640
        self._endings: Endings | None = None  # made with the first
        self._collected: tuple[str, ...] = ()  # the names that the log does not have yet
        self.plans: Plans = STALE

    def _renew_after_fork(self) -> None:
        """Start with a free lock."""
        # Re-entrant: a garbage collection under the lock may run a finalizer that subscribes.
        self._lock = Lock()
        self._busy = False

    # Changing

    def add(
        self, subscription: Subscription, replaced: Collection[Subscription] = ()
    ) -> Subscription:
        """Enter a subscription and return it, or return the equal one that is entered already.

        Args:
            subscription: the new subscription.
            replaced: the subscriptions that it replaces, and whose id it may take.

        Raises:
            SubscriptionConflictError: its handler is entered with other options, or another
                handler has its id.
        """
        present = self._exclusively(self._add, subscription, replaced)
        if present is not subscription:
            check_same_handler(present, subscription)
            check_same_options(present, subscription)
        return present

    def _add(
        self, dropped: list[Any], subscription: Subscription, replaced: Collection[Subscription]
    ) -> Subscription:
        present = self._present(subscription)
        if present is not None and present.active:
            return present
        # The id of a pattern's part is unique among patterns, not here.
        if subscription.id is not None and subscription._owner is None:
            namesake = self._ids.get(subscription.id)
            if namesake is not None and namesake.active and namesake not in replaced:
                return namesake
        dropped.append(present)
        self._enter(subscription)
        return subscription

    def replace(self, subscription: Subscription) -> None:
        """Enter a subscription; it replaces one of the same handler and sender."""
        self._exclusively(self._enter_instead, subscription)

    def _enter_instead(self, dropped: list[Any], subscription: Subscription) -> None:
        replaced = self._present(subscription)
        if replaced is not None and replaced is not subscription:
            dropped.append(replaced)
            replaced._active = False
            replaced._link(False)
        self._enter(subscription)

    def mark_stale(self, subscription: Subscription) -> None:
        """Remove an ended subscription: now if the lock is free, else with the next change."""
        self._stale.append(subscription)
        self._sweep_if_free()

    def note_end(self, subscription: Subscription, reason: EndReason) -> None:
        """Record why a subscription has ended, without waiting.

        The callback of a weak reference calls this, which may run anywhere. So it writes no line:
        `log_collected` does.
        """
        owner, handler = subscription._owner, subscription._handler
        if (owner or subscription)._origin is RECORDER:
            return
        named: str | tuple[str, str]
        # Put together when somebody asks, because programs cancel more often than they ask.
        if subscription.id is None and type(handler) is FunctionType:
            named = handler.__module__, handler.__qualname__
        else:
            named = subscription.name
        if self._endings is None:
            self._endings = new_endings()
        pattern = pattern_of(subscription)
        self._endings.append((subscription._order, named, pattern, reason))
        if reason == "collected":
            self._collected = (*self._collected, subscription.name)[-MOST_ENDINGS:]

    def endings(self) -> list[Ending]:
        """Return the recorded endings, the oldest first."""
        while self._endings is not None:
            try:
                return [*starmap(Ending, self._endings.copy())]
            except RuntimeError as error:  # without the GIL, another thread has just added one
                if is_interrupt(error):
                    raise
        return []

    def log_collected(self, event: str) -> None:
        """Write at DEBUG which handlers of this event no longer exist, each once."""
        collected, self._collected = self._collected, ()
        for handler in collected:
            log(
                logging.DEBUG,
                "handler %s of %s was collected, because nothing else held it: hold its object, or "
                "subscribe it with weak=False",
                handler,
                event,
            )

    def _present(self, subscription: Subscription) -> Subscription | None:
        bucket = self._by_sender.get(subscription._sender_key)
        return None if bucket is None else bucket.get(subscription._handler_key)

    def _enter(self, subscription: Subscription) -> None:
        subscription._activate()
        self._put(subscription)

    def _put(self, subscription: Subscription) -> None:
        bucket = self._by_sender.get(subscription._sender_key)
        if subscription.id is not None and subscription._owner is None:
            if self._ids is _NO_IDS:
                self._ids = {}
            self._ids[subscription.id] = subscription
        plan, plans = self.plans.everyone, STALE
        if (
            plan is not None
            and bucket is not None
            and subscription._handler_key not in bucket
            and comes_last(plan, subscription)
            and not self._fakes
        ):
            plans = OutgrownPlans(plan, subscription)
        # No interrupt comes between an entry and the plain store that makes the plans stale.
        if bucket is None:
            self._by_sender[subscription._sender_key] = {subscription._handler_key: subscription}
        else:
            bucket[subscription._handler_key] = subscription
        self.plans = plans

    def _exclusively(self, change: Callable[..., ReturnedT], *arguments: object) -> ReturnedT:
        """Call `change(dropped, *arguments)` under the lock, and return what it returns.

        Objects in `dropped` are dropped after the lock is released.
        """
        dropped: list[Any] = []
        with self._lock:
            nested, self._busy = self._busy, True
            try:
                if self._stale and not nested:
                    self._sweep(dropped)
                returned = change(dropped, *arguments)
            finally:
                self._busy = nested
        if self._stale and not nested:
            self._sweep_if_free()
        return returned

    def _sweep_if_free(self) -> None:
        """Remove stale subscriptions now, unless a thread that has the lock will do it."""
        dropped: list[Any] = []
        while self._stale and self._lock.run_if_free(partial(self._sweep_under_lock, dropped)):
            # This thread has the lock already, farther out, or another has it now, and sweeps at
            # its end.
            if self._busy:
                return
            dropped.clear()

    def _sweep_under_lock(self, dropped: list[Any]) -> None:
        if not self._busy:
            self._busy = True
            try:
                self._sweep(dropped)
            finally:
                self._busy = False

    def _sweep(self, dropped: list[Any]) -> None:
        while self._stale:
            subscription = self._stale[0]
            dropped.append(subscription)
            # A subscription that an isolated() block cancelled is active again after the block,
            # here or in the table from which it had moved here.
            if not subscription.active or subscription._table is not self:
                self._take_out(subscription)
            # Last: if an interrupt comes before this, the next sweep removes the subscription.
            del self._stale[0]

    def _take_out(self, subscription: Subscription) -> None:
        bucket = self._by_sender.get(subscription._sender_key, {})
        if bucket.get(subscription._handler_key) is subscription:
            del bucket[subscription._handler_key]
            if not bucket:
                del self._by_sender[subscription._sender_key]
        if subscription.id is not None:
            forget_id(self._ids, subscription.id, subscription)

    # Reading. list() makes the copies, because no other code can run during it.

    def live(self) -> list[Subscription]:
        """Return the active subscriptions in the order of registration, without recorders."""
        found = self._exclusively(self._entries)
        active = (entry for entry in found if entry.active and entry.origin is not RECORDER)
        return sorted(active, key=lambda entry: entry._order)

    def _entries(self, _dropped: list[Any]) -> list[Subscription]:
        buckets = list(self._by_sender.values())
        if len(buckets) == 1:  # most often
            return list(buckets[0].values())
        return [entry for bucket in buckets for entry in list(bucket.values())]

    def of_handler(self, handler: object, sender: object = ANY) -> list[Subscription]:
        """Return the active subscriptions of a handler to a sender; `ANY` means all senders."""
        found = self._exclusively(self._of_handler, identity_key(handler), sender)
        return [entry for entry in found if entry.active]

    def _of_handler(self, _dropped: list[Any], key: Hashable, sender: object) -> list[Subscription]:
        if sender is ANY:
            buckets = list(self._by_sender.values())
        else:
            buckets = [self._by_sender.get(sender_key(sender), {})]
        return [bucket[key] for bucket in buckets if key in bucket]

    def find(self, handler: object, sender: object) -> Subscription | None:
        """Return the active subscription of a handler to exactly this sender, or to `ANY`."""
        key = ANY if sender is ANY else sender_key(sender)
        present = self._by_sender.get(key, {}).get(identity_key(handler))
        return present if present is not None and present.active else None

    def has_any_for(self, sender: object) -> bool:
        """Whether an emission of `sender` would reach a handler; `ANY` asks for all senders."""
        keys = (ANY,) if sender is ANY else (ANY, sender_key(sender))
        return any(
            entry.active and entry.origin is not RECORDER
            for key in keys
            for entry in list(self._by_sender.get(key, {}).values())
        )

    def plan_for(self, sender: object) -> Plan:
        """Return the plan for an emission of `sender`; the loop tries `plans.everyone` first."""
        return NOBODY if self.is_muted else self.unmuted_plan_for(sender)

    def unmuted_plan_for(self, sender: object) -> Plan:
        """Return the plan for an emission of `sender` in a context without muting."""
        key: Hashable = ANY
        if self._has_own_senders():
            own = sender_key(sender)
            if own in self._by_sender:
                key = own
        plan = self.plans.by_sender.get(key)
        if plan is None:
            plan = self._exclusively(self._build, key)
        if plan.bound_to is not None and not plan.bound_to._sender_is_alive:
            # That sender no longer exists, and this one has got its `id()`.
            plan = self._exclusively(self._build, ANY)
        return plan

    def _build(self, _dropped: list[Any], key: Hashable) -> Plan:
        # Taken before the subscriptions are read: a change after this puts another object there.
        plans = before = self.plans
        if plans.by_sender is STALE.by_sender:  # stale or outgrown: it can hold no plan
            plans = self.plans = Plans()
        if type(before) is OutgrownPlans and key is ANY and not self._fakes:
            known = (*before.plan.by_priority, before.added)
            # Another thread's end of one may have come just before the addition.
            if all(map(_is_marked_active, known)):
                plan = extended(before.plan, before.added)
                return self._store(plans, key, plan)
        entries = self._reached(() if key is ANY else (key,))
        # If an interrupt ended the `with` without its `__exit__`, the block no longer exists.
        if self._fakes:
            self._fakes = frozenset(it for it in self._fakes if getattr(it(), "is_open", False))
        if self._fakes:
            entries = [entry for entry in entries if entry.origin is RECORDER]
        return self._store(plans, key, plan_calls(entry for entry in entries if entry.active))

    def _store(self, plans: Plans, key: Hashable, plan: Plan) -> Plan:
        plans.by_sender[key] = plan
        if not (self._mutes or self._has_own_senders()):
            plans.everyone = plan
        return plan

    def _has_own_senders(self) -> bool:
        """Whether a handler is for one sender only."""
        return len(self._by_sender) > (ANY in self._by_sender)

    def _reached(self, keys: Collection[Hashable]) -> list[Subscription]:
        """Return the subscriptions to all senders and to these, without second connections."""
        entries = list(self._by_sender.get(ANY, {}).values())
        if keys:
            connected = {entry._handler_key for entry in entries if entry._connected}
            entries += [
                entry
                for key in keys
                for entry in list(self._by_sender.get(key, {}).values())
                if not (entry._connected and entry._handler_key in connected)
            ]
        return entries

    # Muting, faking and isolating

    def fake(self, block: Recording, signal: object) -> None:
        """Keep the handlers from being called while a block that fakes the signal is open.

        Recorders are still called. Call this again when the block has ended.

        Args:
            block: the block.
            signal: the signal that has this table.
        """
        if block._is_faked(signal) or weakref.ref(block) in self._fakes:
            self._exclusively(self._fake, block)

    def _fake(self, _dropped: list[Any], block: Recording) -> None:
        try:
            if block.is_open:
                self._fakes |= {weakref.ref(block, self._make_plans_stale)}
            else:
                self._fakes -= {weakref.ref(block)}
        finally:
            self.plans = STALE

    def _make_plans_stale(self, _: object) -> None:
        self.plans = STALE

    @property
    def is_faked(self) -> bool:
        """Whether a block goes on that keeps the handlers from being called."""
        return any(getattr(fake(), "is_open", False) for fake in list(self._fakes))

    @property
    def is_muted(self) -> bool:
        """Whether a `muted` block of the present context goes on."""
        return bool(self._mutes) and self._is_muted_here()

    def _is_muted_here(self) -> bool:
        for mute in list(self._mutes):
            if mute() is None:  # an interrupt ended the `with` without its `__exit__`
                self.unmute(mute)
        return not self._mutes.isdisjoint(_muted.get())

    def mute(self, mute: Muting) -> None:
        """Call no handlers from this context from now on."""
        self._exclusively(self._mute, {mute})
        _muted.set(frozenset(it for it in _muted.get() if it() is not None) | {mute})

    def unmute(self, mute: Muting) -> None:
        """Call handlers again, unless another block mutes, too; doing so again is no error."""
        self._exclusively(self._unmute, {mute})
        # Set, not reset: a test fixture may end in another context than it began in.
        _muted.set(_muted.get() - {mute})

    def _mute(self, _dropped: list[Any], mutes: set[Muting]) -> None:
        try:
            self._mutes |= mutes
        finally:
            self.plans = STALE

    def _unmute(self, _dropped: list[Any], mutes: set[Muting]) -> None:
        try:
            self._mutes -= mutes
        finally:
            self.plans = STALE

    def clear(self, reason: EndReason) -> None:
        """End all subscriptions."""
        for present in self.live():
            present._end(reason)

    def saved(self) -> SavedTable:
        """Return the present subscriptions, for `restore`."""
        return self._exclusively(self._saved)

    def _saved(self, _dropped: list[Any]) -> SavedTable:
        # Any change puts another object in the place of these plans. Taken before the rest.
        plans = self.plans
        if plans.by_sender is STALE.by_sender:  # stale or outgrown: the next emission replaces it
            plans = self.plans = Plans()
        return SavedTable(plans, [it for it in self._entries(_dropped) if it._active])

    def restore(self, event: str, saved: SavedTable) -> None:
        """Make the subscriptions that `saved` returned earlier the only active ones.

        Those whose handler or sender is gone stay inactive. Those that have moved to another
        event come back.

        Args:
            event: the name of the event.
            saved: what `saved` returned.
        """
        if self.plans is saved.plans:
            return
        restored = saved.handlers()
        kept = {*restored}
        for present in self.live():
            present._end(None if present in kept else "isolated")
        for subscription in restored:
            if subscription._alive:
                subscription.event = event
                subscription._table = self
                self.replace(subscription)
                subscription._end_if_gone()


def forget_id(ids: dict[IdT, Subscription], key: IdT, subscription: Subscription) -> None:
    """Free the id of a subscription that has ended."""
    if ids.get(key) is subscription:
        del ids[key]


def check_same_handler(present: Subscription, requested: Subscription) -> None:
    """Refuse to give the id of one handler to another.

    Raises:
        SubscriptionConflictError: the handlers or senders differ.
    """
    is_other = present._handler_key != requested._handler_key
    if is_other or present._sender_key != requested._sender_key:
        whose, fix = present._function_name, f"give {requested._function_name} another"
        if not is_other:
            whose, fix = f"{whose} for another sender", "give it another id for this sender"
        raise SubscriptionConflictError(
            f"id '{requested.id}' of {present.event} is that of {whose}: {fix}, or cancel that "
            "subscription first",
            event=present.event,
            handler=present.handler,
        )


def check_same_options(present: Subscription, requested: Subscription) -> None:
    """Refuse to subscribe a handler a second time with other options.

    Raises:
        SubscriptionConflictError: the options differ.
    """
    if not present._same_options(requested):
        raise SubscriptionConflictError(
            f"{present._function_name} is subscribed to {present.event} already, with "
            "other options: cancel that subscription first, or give the same options",
            event=present.event,
            handler=present.handler,
        )
