"""What the ready-made handlers remember: one of the package's three pieces of global state.

Every store is bounded: the least recently used subject makes room for a new
one. Every store has a lock of its own, which is never held while user code
runs. `madcrow_signals.isolated()` puts all of it back as it was.
"""

from __future__ import annotations

import copy
import threading
import time
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from madcrow_events._tables import renew_lock_after_fork
from madcrow_events.models import SuspiciousActivityEventContext
from madcrow_events.signals import madcrow_signals

__all__ = [
    "ActivitySnapshot",
    "ActivityStore",
    "AlertStore",
    "Bounded",
    "FailureAnalytics",
    "FailureStore",
    "SecurityLimits",
    "Session",
    "SessionStore",
    "StatusStore",
    "SystemStatus",
    "activity",
    "alerts",
    "clear_stores",
    "failures",
    "moment",
    "sessions",
    "status",
]

MAX_SUBJECTS = 10_000
"""How many users, e-mails or addresses a store remembers."""

MAX_TIMES = 100
"""How many failures of one subject are counted within a window; its count ends there."""

MAX_KEY_LENGTH = 320
"""How many characters of an e-mail, an address or a reason are kept; an e-mail has 320 at most."""

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


def moment(timestamp: object) -> float:
    """Return a context's timestamp in seconds since 1970.

    Args:
        timestamp: a datetime, a naive one being local time, or seconds since
            1970; anything else stands for now.
    """
    if isinstance(timestamp, datetime):
        return timestamp.timestamp()
    if isinstance(timestamp, int | float) and not isinstance(timestamp, bool):
        return float(timestamp)
    return time.time()


class Session(NamedTuple):
    """What is known of one user's session.

    Attributes:
        user_id: the account, as text.
        email: the account's e-mail, if an event told it.
        created_at: when the account was registered, in seconds since 1970, if that was seen.
        opened_at: when the user signed in, in seconds since 1970, if that was seen.
        closed_at: when the session ended, in seconds since 1970; None while it is open.
        duration: how long it lasted, in seconds, if that is known.
        reason: why it ended.
    """

    user_id: str
    email: str | None = None
    created_at: float | None = None
    opened_at: float | None = None
    closed_at: float | None = None
    duration: float | None = None
    reason: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the user is signed in."""
        return self.opened_at is not None and self.closed_at is None


class ActivitySnapshot(NamedTuple):
    """How often each event happened, in all and for each user."""

    by_event: dict[str, int]
    by_user: dict[str, dict[str, int]]


class FailureAnalytics(NamedTuple):
    """How many attempts to sign in failed: in all, for each reason, from each address."""

    total: int
    by_reason: dict[str, int]
    by_address: dict[str, int]


class SystemStatus(NamedTuple):
    """What is known of the application.

    Attributes:
        version: as its start-up event told it.
        process_id: likewise.
        started_at: when it started, in seconds since 1970; None before it did.
        uptime: how long it has been running, in seconds.
        events_emitted: how many events were emitted since monitoring began,
            those that handlers emitted included.
        handlers_failed: how many handlers failed since then.
    """

    version: str | None
    process_id: int | None
    started_at: float | None
    uptime: float
    events_emitted: int
    handlers_failed: int


class SecurityLimits(NamedTuple):
    """From how many failures on an alert is raised, and within how many seconds."""

    window_seconds: float = 15 * 60.0
    brute_force: int = 5
    many_accounts: int = 5
    success_after_failures: int = 5


class Bounded(Generic[KeyT, ValueT]):
    """A mapping that forgets its least recently used key when it has too many."""

    def __init__(self, make: Callable[[], ValueT], limit: int = MAX_SUBJECTS) -> None:
        self._make = make
        self._limit = limit
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()

    def touch(self, key: KeyT) -> ValueT:
        """Return the value of a key, made if need be, and remember the key longest."""
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = self._make()
            if len(self._values) > self._limit:
                self._values.popitem(last=False)
        else:
            self._values.move_to_end(key)
        return value

    def put(self, key: KeyT, value: ValueT) -> None:
        """Set the value of a key, and remember the key longest."""
        self.touch(key)
        self._values[key] = value

    def get(self, key: KeyT) -> ValueT | None:
        """Return the value of a key, if it has one."""
        return self._values.get(key)

    def pop(self, key: KeyT) -> ValueT | None:
        """Forget a key; return its value, if it had one."""
        return self._values.pop(key, None)

    def items(self) -> list[tuple[KeyT, ValueT]]:
        """Return the keys and values, the least recently used first."""
        return list(self._values.items())

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._values)


def _count(counts: Bounded[str, int], key: str) -> None:
    counts.put(key, counts.touch(key) + 1)


StateT = TypeVar("StateT")


class _Store(Generic[StateT]):
    """Some state, and the lock that guards it."""

    def __init__(self, make: Callable[[], StateT]) -> None:
        self._make = make
        self._state = make()
        self._renew_lock()
        renew_lock_after_fork(self)

    def _renew_lock(self) -> None:
        """Start with a free lock; a forked child does."""
        # Re-entrant: a signal handler or a finalizer may emit while the lock is held.
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget everything."""
        empty = self._make()
        with self._lock:
            # Dropped by the caller of the lock, not under it: a finalizer is user code (F6).
            _dropped, self._state = self._state, empty

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy, or empty; return what puts the present state back."""
        with self._lock:
            saved = self._state
            self._state = self._make() if empty else copy.deepcopy(saved)

        def restore() -> None:
            with self._lock:
                _dropped, self._state = self._state, saved

        return restore


class SessionStore(_Store[Bounded[str, Session]]):
    """One session for each user: created, opened, closed, forgotten."""

    def __init__(self) -> None:
        super().__init__(lambda: Bounded(lambda: Session("")))

    def create(self, user_id: object, email: str | None, at: float) -> Session:
        """Note that an account was registered, at a time in seconds since 1970."""
        return self._change(user_id, email, created_at=at)

    def open(self, user_id: object, email: str | None, at: float) -> Session:
        """Note that a user signed in, at a time in seconds since 1970."""
        return self._change(
            user_id, email, opened_at=at, closed_at=None, duration=None, reason=None
        )

    def close(
        self,
        user_id: object,
        email: str | None,
        at: float,
        *,
        duration: float | None = None,
        reason: str | None = None,
    ) -> Session:
        """Note that a session ended; what ended already keeps its first end.

        Args:
            user_id: the account.
            email: the account's e-mail, if it is known.
            at: when it ended, in seconds since 1970.
            duration: how long it lasted, in seconds; None to count from its opening.
            reason: why it ended.
        """
        with self._lock:
            present = self._state.get(str(user_id))
            if present is not None and present.closed_at is not None:
                return present
            if duration is None and present is not None and present.opened_at is not None:
                duration = max(0.0, at - present.opened_at)
            return self._change(user_id, email, closed_at=at, duration=duration, reason=reason)

    def forget(self, user_id: object) -> Session | None:
        """Remove what is kept of a user; return it, if there was anything."""
        with self._lock:
            return self._state.pop(str(user_id))

    def get(self, user_id: object) -> Session | None:
        """Return what is kept of a user, if anything."""
        with self._lock:
            return self._state.get(str(user_id))

    def __len__(self) -> int:
        """Count the users of whom something is kept."""
        return len(self._state)

    def _change(self, user_id: object, email: str | None, **changes: Any) -> Session:
        key = str(user_id)
        with self._lock:
            session = self._state.touch(key)._replace(user_id=key, **changes)
            if email is not None:
                session = session._replace(email=email)
            self._state.put(key, session)
        return session


class _Activity:
    def __init__(self) -> None:
        self.by_event: Bounded[str, int] = Bounded(int)
        self.by_user: Bounded[str, dict[str, int]] = Bounded(dict)


class ActivityStore(_Store[_Activity]):
    """How often each event happened."""

    def __init__(self) -> None:
        super().__init__(_Activity)

    def count(self, event: str, user_id: object) -> None:
        """Count one event; `user_id` is None for one that is nobody's."""
        with self._lock:
            _count(self._state.by_event, event)
            if user_id is not None:
                counts = self._state.by_user.touch(str(user_id))
                counts[event] = counts.get(event, 0) + 1

    def snapshot(self) -> ActivitySnapshot:
        """Return the counts as they are now."""
        with self._lock:
            return ActivitySnapshot(
                dict(self._state.by_event.items()),
                {user: dict(counts) for user, counts in self._state.by_user.items()},
            )


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What the windows found: see `SuspiciousActivityEventContext`."""

    kind: str
    subject: str
    count: int


class _Window:
    """The failures of one subject within the window before the newest of them."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.latest_by_email: dict[str, float] = {}
        self.alerted: dict[str, float] = {}

    def is_too_late(self, at: float, seconds: float) -> bool:
        return bool(self.times) and at < self.times[-1] - seconds

    def add(self, at: float, email: str, seconds: float) -> None:
        insort(self.times, at)
        oldest = self.times[-1] - seconds
        del self.times[: max(bisect_left(self.times, oldest), len(self.times) - MAX_TIMES)]
        self.latest_by_email[email] = max(at, self.latest_by_email.pop(email, at))
        if len(self.latest_by_email) > MAX_TIMES:
            del self.latest_by_email[
                min(self.latest_by_email, key=self.latest_by_email.__getitem__)
            ]
        for known, latest in list(self.latest_by_email.items()):
            if latest < oldest:
                del self.latest_by_email[known]

    def raises(self, kind: str, at: float, seconds: float) -> bool:
        """Tell whether an alert is due, which it is once a window; and note it."""
        last = self.alerted.get(kind)
        if last is not None and at - last <= seconds:
            return False
        self.alerted[kind] = at
        return True


class _Failures:
    def __init__(self) -> None:
        self.total = 0
        self.by_reason: Bounded[str, int] = Bounded(int)
        self.by_address: Bounded[str, int] = Bounded(int)
        self.emails: Bounded[str, _Window] = Bounded(_Window)
        self.addresses: Bounded[str, _Window] = Bounded(_Window)


class FailureStore(_Store[_Failures]):
    """Failed attempts to sign in: counts, and sliding windows.

    A window ends at the newest failure of its subject. A failure that is told
    later than a whole window after it happened no longer counts.
    """

    def __init__(self) -> None:
        super().__init__(_Failures)
        self.limits = SecurityLimits()

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Put the limits back, too."""
        limits = self.limits
        restore_state = super().isolate(empty=empty)
        if empty:
            self.limits = SecurityLimits()

        def restore() -> None:
            restore_state()
            self.limits = limits

        return restore

    def count(self, reason: str, address: str | None) -> None:
        """Count one failure for the analytics."""
        with self._lock:
            self._state.total += 1
            _count(self._state.by_reason, reason)
            if address is not None:
                _count(self._state.by_address, address)

    def analytics(self) -> FailureAnalytics:
        """Return the counts as they are now."""
        with self._lock:
            return FailureAnalytics(
                self._state.total,
                dict(self._state.by_reason.items()),
                dict(self._state.by_address.items()),
            )

    def failed(self, email: str, address: str | None, at: float) -> list[Suspicion]:
        """Add a failure, at a time in seconds since 1970; return what became suspicious by it."""
        limits, found = self.limits, []
        seconds = limits.window_seconds
        with self._lock:
            window = self._state.emails.touch(email)
            if not window.is_too_late(at, seconds):
                window.add(at, email, seconds)
                count = len(window.times)
                if count >= limits.brute_force and window.raises(
                    "brute_force", window.times[-1], seconds
                ):
                    found.append(Suspicion("brute_force", email, count))
            if address is None:
                return found
            window = self._state.addresses.touch(address)
            if not window.is_too_late(at, seconds):
                window.add(at, email, seconds)
                count = len(window.latest_by_email)
                if count >= limits.many_accounts and window.raises(
                    "many_accounts", window.times[-1], seconds
                ):
                    found.append(Suspicion("many_accounts", address, count))
        return found

    def succeeded(self, email: str, at: float) -> list[Suspicion]:
        """Look at a sign-in, at a time in seconds since 1970; return what is suspicious of it."""
        limits = self.limits
        seconds = limits.window_seconds
        with self._lock:
            window = self._state.emails.get(email)
            if window is None or window.is_too_late(at, seconds):
                return []
            count = sum(at - seconds <= failure <= at for failure in window.times)
            if count >= limits.success_after_failures and window.raises(
                "success_after_failures", at, seconds
            ):
                return [Suspicion("success_after_failures", email, count)]
        return []

    def __len__(self) -> int:
        """Count the subjects that are remembered in the fullest of its parts."""
        state = self._state
        parts: tuple[Bounded[str, Any], ...]
        parts = (state.emails, state.addresses, state.by_address, state.by_reason)
        return max(len(part) for part in parts)


AlertFunction = Callable[[SuspiciousActivityEventContext], object]


class AlertStore(_Store[list[AlertFunction]]):
    """The functions that an application wants called with each alert."""

    def __init__(self) -> None:
        super().__init__(list)

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Copy the list, not the functions."""
        with self._lock:
            saved = self._state
            self._state = [] if empty else list(saved)

        def restore() -> None:
            with self._lock:
                _dropped, self._state = self._state, saved

        return restore

    def add(self, function: AlertFunction) -> None:
        """Add a function, unless it is there."""
        with self._lock:
            if function not in self._state:
                self._state.append(function)

    def remove(self, function: AlertFunction) -> bool:
        """Remove a function; return whether it was there."""
        with self._lock:
            found = function in self._state
            if found:
                self._state.remove(function)
            return found

    def all(self) -> tuple[AlertFunction, ...]:
        """Return the functions, in the order in which they were added."""
        with self._lock:
            return tuple(self._state)


class _Status:
    def __init__(self) -> None:
        self.version: str | None = None
        self.process_id: int | None = None
        self.started_at: float | None = None
        self.events_emitted = 0
        self.handlers_failed = 0


class StatusStore(_Store[_Status]):
    """The application's start, and what was counted since."""

    def __init__(self) -> None:
        super().__init__(_Status)

    def start(self, version: str | None, process_id: int | None, at: float) -> None:
        """Note a start, at a time in seconds since 1970."""
        with self._lock:
            self._state.version = version
            self._state.process_id = process_id
            self._state.started_at = at

    def reset_counts(self) -> None:
        """Count from 0."""
        with self._lock:
            self._state.events_emitted = self._state.handlers_failed = 0

    def count_emission(self) -> None:
        """Count one event."""
        with self._lock:
            self._state.events_emitted += 1

    def count_failure(self) -> None:
        """Count one handler that failed."""
        with self._lock:
            self._state.handlers_failed += 1

    def snapshot(self) -> SystemStatus:
        """Return the status as it is now."""
        with self._lock:
            state = self._state
            started = state.started_at
            uptime = 0.0 if started is None else max(0.0, time.time() - started)
            return SystemStatus(
                state.version,
                state.process_id,
                started,
                uptime,
                state.events_emitted,
                state.handlers_failed,
            )


sessions = SessionStore()
activity = ActivityStore()
failures = FailureStore()
alerts = AlertStore()
status = StatusStore()


def clear_stores() -> None:
    """Empty all stores; limits and alert functions are settings, and stay."""
    for store in (sessions, activity, failures, status):
        store.clear()


def _isolate(empty: bool) -> Callable[[], None]:  # noqa: FBT001  # called by isolated()
    stores = (sessions, activity, failures, alerts, status)
    restores = [store.isolate(empty=empty) for store in stores]

    def restore() -> None:
        for put_back in restores:
            put_back()

    return restore


madcrow_signals._isolate_too(_isolate)
