"""The security windows against a plain recount (E3): no alert missed, none doubled."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from madcrow_events import (
    EventDispatcher,
    LoginEventContext,
    LoginFailedEventContext,
    SignalRegistry,
    madcrow_signals,
)
from madcrow_events.event_handlers import security_group
from madcrow_events.event_handlers.security_handlers import SecurityLimits, set_security_limits

WINDOW = 100.0
EMAILS = ["a@b.c", "A@B.C ", "é@x.org", "É@X.ORG", "e\u0301@x.org", "z@z", "straße@x", "STRASSE@x"]
ADDRESSES = [None, "10.0.0.1", "10.0.0.2"]


@dataclass(frozen=True)
class Attempt:
    """One attempt to sign in, as an application tells it."""

    at: float
    email: str
    address: str | None
    failed: bool
    form: str  # how the time is told: aware, naive, none, number, typed


attempts = st.builds(
    Attempt,
    at=st.integers(0, 500).map(float),
    email=st.sampled_from(EMAILS),
    address=st.sampled_from(ADDRESSES),
    failed=st.sampled_from([True, True, True, False]),
    form=st.sampled_from(["aware", "naive", "none", "number", "typed"]),
)


def subject(email: str) -> str:
    return unicodedata.normalize("NFKC", email).casefold().strip()


class Recount:
    """Counts everything anew for each attempt, from the list of all attempts so far."""

    def __init__(self, limits: SecurityLimits) -> None:
        self.limits = limits
        self.failures: list[tuple[float, str, str | None]] = []
        self.accepted: dict[tuple[str, str | None], list[tuple[float, str]]] = {}
        self.alerted: dict[tuple[str, str], float] = {}

    def add(self, attempt: Attempt) -> list[tuple[str, str, int]]:
        who = subject(attempt.email)
        if not attempt.failed:
            return self._success(who, attempt.at)
        alerts = []
        for kind, key, limit in (
            ("brute_force", who, self.limits.brute_force),
            ("many_accounts", attempt.address, self.limits.many_accounts),
        ):
            if key is None:
                continue
            counted = self.accepted.setdefault((kind, key), [])
            newest = max((at for at, _ in counted), default=attempt.at)
            if attempt.at < newest - WINDOW:
                continue
            counted.append((attempt.at, who))
            newest = max(newest, attempt.at)
            within = [(at, email) for at, email in counted if newest - WINDOW <= at <= newest]
            number = len(within if kind == "brute_force" else {email for _, email in within})
            if number >= limit and self._is_due(kind, key, newest):
                alerts.append((kind, key, number))
        return alerts

    def _success(self, who: str, at: float) -> list[tuple[str, str, int]]:
        counted = self.accepted.get(("brute_force", who), [])
        newest = max((time for time, _ in counted), default=at)
        if at < newest - WINDOW:
            return []
        # What is older than a window before the newest failure is forgotten.
        number = sum(max(at, newest) - WINDOW <= time <= at for time, _ in counted)
        if number >= self.limits.success_after_failures and self._is_due(
            "success_after_failures", who, at
        ):
            return [("success_after_failures", who, number)]
        return []

    def _is_due(self, kind: str, key: str, at: float) -> bool:
        last = self.alerted.get((kind, key))
        if last is not None and at - last <= WINDOW:
            return False
        self.alerted[kind, key] = at
        return True


def tell(dispatcher: EventDispatcher, attempt: Attempt) -> None:
    context: dict[str, Any] = {"email": attempt.email, "ip_address": attempt.address}
    if attempt.failed:
        context["failure_reason"] = "wrong"
    else:
        context["user_id"] = 1
    name = "login_failed" if attempt.failed else "user_logged_in"
    moment = datetime.fromtimestamp(attempt.at, UTC)
    if attempt.form == "typed":
        model: Any = LoginFailedEventContext if attempt.failed else LoginEventContext
        assert dispatcher.emit_typed(name, model(timestamp=moment, **context)).ok
        return
    if attempt.form == "aware":
        context["timestamp"] = moment
    elif attempt.form == "naive":
        context["timestamp"] = datetime.fromtimestamp(attempt.at)  # noqa: DTZ006  # as datetime.now() is
    elif attempt.form == "number":
        context["timestamp"] = attempt.at
    with patch("time.time", return_value=attempt.at):
        assert dispatcher.emit(name, **context).ok


@pytest.mark.guarantee("E3")
@settings(max_examples=300, deadline=None)
@given(history=st.lists(attempts, max_size=60), limit=st.integers(1, 5))
def test_alerts_are_those_of_a_plain_recount(history: list[Attempt], limit: int) -> None:
    limits = SecurityLimits(WINDOW, limit, min(limit, 3), limit)
    with madcrow_signals.isolated(empty=True):
        set_security_limits(limits)
        signals = SignalRegistry()
        security_group.register(signals)
        dispatcher = EventDispatcher(signals)
        seen: list[tuple[str, str, int]] = []
        signals.subscribe(
            "suspicious_activity", lambda kind, subject, count: seen.append((kind, subject, count))
        )
        recount = Recount(limits)
        for attempt in history:
            seen.clear()
            tell(dispatcher, attempt)
            assert seen == recount.add(attempt)
