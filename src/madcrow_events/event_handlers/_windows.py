"""Failed attempts to sign in: how often, and the sliding windows that make them suspicious.

A window ends at the newest failure of its subject. A failure that arrives late, by
more than a whole window, does not count.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from madcrow_events.event_handlers._bounded import Store, count_one, touch

__all__ = [
    "MAX_TIMES",
    "FailureAnalytics",
    "FailureStore",
    "SecurityLimits",
    "Suspicion",
]

MAX_TIMES = 100
"""The largest number of failures that a window counts for one subject."""


class FailureAnalytics(NamedTuple):
    """The numbers of failed sign-ins: in all, for each reason, from each address."""

    total: int
    by_reason: dict[str, int]
    by_address: dict[str, int]


class SecurityLimits(NamedTuple):
    """How many failures raise an alert, and within how many seconds.

    Each number of failures is 100 at most, because a window holds at most 100 failures.

    Attributes:
        window_seconds: the length of the window in which failures are counted, in seconds. Each
            kind of alert is raised at most once in it for the same subject.
        brute_force: how many failures for one e-mail address raise `brute_force`.
        many_accounts: for how many e-mail addresses failures from one network address raise
            `many_accounts`.
        success_after_failures: after how many failures for its e-mail address a sign-in raises
            `success_after_failures`.
    """

    window_seconds: float = 15 * 60.0
    brute_force: int = 5
    many_accounts: int = 5
    success_after_failures: int = 5


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding of the windows; its fields are those of `SuspiciousActivityEventContext`."""

    kind: str
    subject: str
    count: int


_NO_EMAILS = array("q")
_NEVER = array("d")


class _Window:
    """The failures of one subject, from a window's length before the newest one on.

    There may be many windows, so each keeps arrays, and hashes in place of e-mail addresses. An
    attribute that is named after a kind of alert says when that alert was last raised.
    """

    __slots__ = (
        "brute_force",
        "emails",
        "latest",
        "many_accounts",
        "success_after_failures",
        "times",
    )

    def __init__(self) -> None:
        self.times = array("d")
        self.emails = _NO_EMAILS
        self.latest = _NEVER  # when each of the e-mails was tried last
        self.brute_force: float | None = None
        self.many_accounts: float | None = None
        self.success_after_failures: float | None = None

    def is_too_late(self, at: float, seconds: float) -> bool:
        return bool(self.times) and at < self.times[-1] - seconds

    def add(self, at: float, seconds: float) -> None:
        insort(self.times, at)
        oldest = self.times[-1] - seconds
        del self.times[: max(bisect_left(self.times, oldest), len(self.times) - MAX_TIMES)]

    def add_email(self, at: float, email: str, seconds: float) -> None:
        """Note the e-mail address of a failure, after `add`."""
        latest = dict(zip(self.emails, self.latest, strict=True))
        key = hash(email)  # nobody outside of the process can predict it
        latest[key] = max(at, latest.get(key, at))
        oldest = self.times[-1] - seconds
        kept = [known for known, last in latest.items() if last >= oldest]
        if len(kept) > MAX_TIMES:
            kept.remove(min(kept, key=latest.__getitem__))
        self.emails = array("q", kept)
        self.latest = array("d", [latest[known] for known in kept])

    def raises(self, kind: str, at: float, seconds: float) -> bool:
        """Whether an alert is due, at most one in each window; an alert that is due is noted."""
        last: float | None = getattr(self, kind)
        if last is not None and at - last <= seconds:
            return False
        setattr(self, kind, at)
        return True


class _Failures:
    def __init__(self) -> None:
        self.total = 0
        self.by_reason: OrderedDict[str, int] = OrderedDict()
        self.by_address: OrderedDict[str, int] = OrderedDict()
        self.emails: OrderedDict[str, _Window] = OrderedDict()
        self.addresses: OrderedDict[str, _Window] = OrderedDict()


class FailureStore(Store[_Failures]):
    """Failed attempts to sign in: counts, and sliding windows.

    It takes at most 96 MiB: 10,000 e-mail addresses, 10,000 reasons and twice 10,000 network
    addresses, of 320 characters each. A window holds 100 times. The window of a network address
    also holds 100 e-mail addresses, as hashes.
    """

    def __init__(self) -> None:
        super().__init__(_Failures)
        self.limits = SecurityLimits()

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy, or empty; return a function that puts state and limits back."""
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
            count_one(self._state.by_reason, reason)
            if address is not None:
                count_one(self._state.by_address, address)

    def analytics(self) -> FailureAnalytics:
        """Return the counts as they are now."""
        with self._lock:
            return FailureAnalytics(
                self._state.total,
                dict(self._state.by_reason),
                dict(self._state.by_address),
            )

    def failed(self, email: str, address: str | None, at: float) -> list[Suspicion]:
        """Add a failure, at a time in seconds since 1970; return the suspicions it raises."""
        with self._lock:
            return self._failed(email, address, at)

    def _failed(self, email: str, address: str | None, at: float) -> list[Suspicion]:
        limits = self.limits
        seconds = limits.window_seconds
        found: list[Suspicion] = []
        for kind, subject, limit, windows in (
            ("brute_force", email, limits.brute_force, self._state.emails),
            ("many_accounts", address, limits.many_accounts, self._state.addresses),
        ):
            if subject is None:
                continue
            window = touch(windows, subject, _Window)
            if window.is_too_late(at, seconds):
                continue
            window.add(at, seconds)
            # For an e-mail address, count its failed attempts; for a network address, the different
            # e-mail addresses that were tried from it.
            attempts: Sequence[float] = window.times
            if kind == "many_accounts":
                window.add_email(at, email, seconds)
                attempts = window.emails
            if len(attempts) >= limit and window.raises(kind, window.times[-1], seconds):
                found.append(Suspicion(kind, subject, len(attempts)))
        return found

    def succeeded(self, email: str, at: float) -> list[Suspicion]:
        """Check a sign-in, at a time in seconds since 1970; return the suspicions it raises."""
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
        """Return the number of subjects in the fullest of the parts."""
        state = self._state
        parts: tuple[OrderedDict[str, Any], ...]
        parts = (state.emails, state.addresses, state.by_address, state.by_reason)
        return max(len(part) for part in parts)
