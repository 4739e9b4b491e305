"""The memory of the ready-made handlers: with the default registry, the state that users can see.

`madcrow_signals.isolated()` puts all of it back at the end of its block.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from madcrow_events._names import HANDLER_FAILED
from madcrow_events.event_handlers._bounded import (
    Store,
    account_key,
    count_one,
    cut,
    finite,
    touch,
)
from madcrow_events.event_handlers._windows import FailureStore
from madcrow_events.models import SuspiciousActivityEventContext
from madcrow_events.observers import TimingObserver
from madcrow_events.signals import madcrow_signals
from madcrow_events.signals._isolation import isolate_too

__all__ = [
    "ActivitySnapshot",
    "AlertFunction",
    "Session",
    "SystemStatus",
    "activity",
    "alerts",
    "clear_stores",
    "failures",
    "sessions",
    "status",
]


MAX_EVENTS_OF_A_USER = 20
"""The largest number of different events for one user; the ready-made handlers count nine."""


class Session(NamedTuple):
    """One user's session, as far as it is known from events.

    Attributes:
        user_id: the account, as text; an id of more than 320 characters is cut, with a digest.
        email: the account's e-mail address, or None.
        created_at: when the account was registered, in seconds since 1970, or None.
        opened_at: when the user signed in, in seconds since 1970, or None.
        closed_at: when the session ended, in seconds since 1970; None while it is open.
        duration: how long the session lasted, in seconds, or None.
        reason: why the session ended, or None.
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
    """The counts of each event, in all and for each user."""

    by_event: dict[str, int]
    by_user: dict[str, dict[str, int]]


class SystemStatus(NamedTuple):
    """The application's start, and counts since then.

    Attributes:
        version: the application's version, from its start-up event.
        process_id: the application's process id.
        started_at: when the application started, in seconds since 1970; None before that.
        uptime: how long the application has been running, in seconds.
        events_emitted: how many events were emitted since monitoring began. The events
            that handlers emit are counted, those called `handler_failed` are not.
        handlers_failed: how many handlers failed since then.
    """

    version: str | None
    process_id: int | None
    started_at: float | None
    uptime: float
    events_emitted: int
    handlers_failed: int


class SessionStore(Store[OrderedDict[str, Session]]):
    """One session for each user: created, opened, closed, forgotten.

    It takes at most 48 MiB: 10,000 sessions, each with an id, an e-mail address and a reason
    of 320 characters.
    """

    def __init__(self) -> None:
        super().__init__(OrderedDict)

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
        """Note that a session ended; a session that has ended already stays as it is.

        Args:
            user_id: the account.
            email: the account's e-mail address, if it is known.
            at: when the session ended, in seconds since 1970.
            duration: how long it lasted, in seconds; None to count from its opening.
            reason: why it ended.
        """
        with self._lock:
            present = self._state.get(account_key(user_id))
            if present is not None and present.closed_at is not None:
                return present
            duration = finite(duration)
            if duration is None and present is not None and present.opened_at is not None:
                duration = max(0.0, at - present.opened_at)
            kept = None if reason is None else cut(reason)
            return self._change(user_id, email, closed_at=at, duration=duration, reason=kept)

    def forget(self, user_id: object) -> Session | None:
        """Remove a user's session and return it, or None."""
        with self._lock:
            return self._state.pop(account_key(user_id), None)

    def get(self, user_id: object) -> Session | None:
        """Return a user's session, or None."""
        with self._lock:
            return self._state.get(account_key(user_id))

    def __len__(self) -> int:
        """Return the number of users that have a session."""
        return len(self._state)

    def _change(self, user_id: object, email: str | None, **changes: Any) -> Session:
        key = account_key(user_id)
        with self._lock:
            session = touch(self._state, key, partial(Session, key))
            session = session._replace(**changes)
            if email is not None:
                session = session._replace(email=cut(email))
            self._state[key] = session
        return session


class _Activity:
    def __init__(self) -> None:
        self.by_event: OrderedDict[str, int] = OrderedDict()
        self.by_user: OrderedDict[str, dict[str, int]] = OrderedDict()


class ActivityStore(Store[_Activity]):
    """The counts of each event, in all and for each user.

    It takes at most 48 MiB: 10,000 events and 10,000 users with names of 320 characters, and
    20 events for each user.
    """

    def __init__(self) -> None:
        super().__init__(_Activity)

    def count(self, event: str, user_id: object) -> None:
        """Count one event; `user_id` is None for an event that concerns no user."""
        with self._lock:
            event = cut(event)
            count_one(self._state.by_event, event)
            if user_id is not None:
                counts = touch(self._state.by_user, account_key(user_id), dict)
                if event in counts or len(counts) < MAX_EVENTS_OF_A_USER:
                    counts[event] = counts.get(event, 0) + 1

    def snapshot(self) -> ActivitySnapshot:
        """Return the counts as they are now."""
        with self._lock:
            return ActivitySnapshot(
                dict(self._state.by_event),
                {user: dict(counts) for user, counts in list(self._state.by_user.items())},
            )


AlertFunction = Callable[[SuspiciousActivityEventContext], object]
"""A function for `add_alert_function`. It gets the context of an alert; its result is not used."""


class AlertStore(Store[list[AlertFunction]]):
    """The functions that an application wants called with each alert."""

    def __init__(self) -> None:
        super().__init__(list)

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy of the list, but the same functions."""
        with self._lock:
            saved = self._state
            self._state = [] if empty else list(saved)

        def restore() -> None:
            with self._lock:
                _dropped, self._state = self._state, saved

        return restore

    def add(self, function: AlertFunction) -> None:
        """Add a function, unless the list has it."""
        with self._lock:
            if function not in self._state:
                self._state.append(function)

    def remove(self, function: AlertFunction) -> bool:
        """Remove a function; return whether the list had it."""
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


class StatusStore(Store[_Status]):
    """The application's start, and the observer that counts since then.

    Attributes:
        observer: counts the emissions and failures of the dispatchers it is added to.
    """

    def __init__(self) -> None:
        super().__init__(_Status)
        # Outside of the state: dispatchers hold this very object, so only its counts can be copied.
        self.observer = TimingObserver()

    def clear(self) -> None:
        """Forget the start, and count from 0."""
        super().clear()
        self.observer.reset()

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with copies of start and counts, or empty; return a function that restores both."""
        restore_start = super().isolate(empty=empty)
        restore_counts = self.observer._isolate(empty=empty)

        def restore() -> None:
            restore_start()
            restore_counts()

        return restore

    def start(self, version: str | None, process_id: int | None, at: float) -> None:
        """Note a start, at a time in seconds since 1970."""
        with self._lock:
            self._state.version = None if version is None else cut(version)
            number = finite(process_id)
            self._state.process_id = None if number is None else int(number)
            self._state.started_at = at

    def snapshot(self) -> SystemStatus:
        """Return the status as it is now."""
        timings = self.observer.snapshot()
        with self._lock:
            state = self._state
            started = state.started_at
            return SystemStatus(
                state.version,
                state.process_id,
                started,
                uptime=0.0 if started is None else max(0.0, time.time() - started),
                events_emitted=sum(
                    timing.emissions for timing in timings.events if timing.event != HANDLER_FAILED
                ),
                handlers_failed=sum(timing.failures for timing in timings.handlers),
            )


sessions = SessionStore()
activity = ActivityStore()
failures = FailureStore()
alerts = AlertStore()
status = StatusStore()


def clear_stores() -> None:
    """Empty all stores; limits and alert functions stay, because they are settings."""
    for store in (sessions, activity, failures, status):
        store.clear()


def _isolate(empty: bool) -> Callable[[], None]:  # called by isolated()
    stores = (sessions, activity, failures, alerts, status)
    restores = [store.isolate(empty=empty) for store in stores]

    def restore() -> None:
        for put_back in restores:
            put_back()

    return restore


isolate_too(madcrow_signals, _isolate)
