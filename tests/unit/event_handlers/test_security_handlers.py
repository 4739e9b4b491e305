"""Failure analytics, sliding windows and alerts (E3)."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    HandlerErrors,
    HandlerSignatureError,
    InvalidOptionError,
    SignalRegistry,
    SuspiciousActivityEventContext,
    emit_event,
    madcrow_signals,
    on_event,
)
from madcrow_events.event_handlers import auth_group, security_group
from madcrow_events.event_handlers._bounded import MAX_SUBJECTS
from madcrow_events.event_handlers._stores import failures
from madcrow_events.event_handlers._windows import MAX_TIMES
from madcrow_events.event_handlers.auth_handlers import session_of
from madcrow_events.event_handlers.security_handlers import (
    SecurityLimits,
    add_alert_function,
    failure_analytics,
    handle_session_expiration,
    handle_suspicious_activity_alert,
    monitor_suspicious_activity,
    normalized_email,
    remove_alert_function,
    set_security_limits,
    track_failed_login_attempts,
)

Alert = tuple[str, str, int]


@pytest.fixture
def alerts() -> list[Alert]:
    security_group.register()
    seen: list[Alert] = []

    @on_event("suspicious_activity")
    def see(context: SuspiciousActivityEventContext) -> None:
        seen.append((context.kind, context.subject, context.count))

    return seen


def fail(email: str = "a@b.c", at: float = 0.0, address: str | None = None) -> None:
    assert emit_event(
        "login_failed", email=email, failure_reason="wrong", timestamp=at, ip_address=address
    ).ok


def succeed(email: str = "a@b.c", at: float = 0.0) -> None:
    assert emit_event("user_logged_in", user_id=1, email=email, timestamp=at).ok


@pytest.mark.guarantee("E3")
def test_the_fifth_failure_in_a_quarter_of_an_hour_raises_one_alert(alerts: list[Alert]) -> None:
    for number in range(4):
        fail(at=number * 60)
    assert alerts == []
    for number in range(4, 20):
        fail(at=number * 45)
    assert alerts == [("brute_force", "a@b.c", 5)]


def test_failures_a_window_apart_do_not_add_up(alerts: list[Alert]) -> None:
    for number in range(20):
        fail(at=number * 15 * 60 / 3.9)
    assert alerts == []


def test_the_next_window_raises_the_next_alert_with_its_count(alerts: list[Alert]) -> None:
    for number in range(30):
        fail(at=number * 60)
    assert alerts == [("brute_force", "a@b.c", 5), ("brute_force", "a@b.c", 16)]


def test_one_address_that_tries_many_accounts_raises_an_alert(alerts: list[Alert]) -> None:
    for number in range(4):
        fail(f"{number}@b.c", address="10.0.0.1")
    fail("0@b.c", address="10.0.0.1")
    fail("4@b.c", address="10.0.0.2")
    assert alerts == []
    fail("5@b.c", address="10.0.0.1")
    fail("6@b.c", address="10.0.0.1")
    assert alerts == [("many_accounts", "10.0.0.1", 5)]


def test_a_login_after_many_failures_raises_an_alert(alerts: list[Alert]) -> None:
    for number in range(5):
        fail(at=number)
    succeed("A@B.C ", at=6)
    succeed(at=7)
    succeed("somebody@else", at=7)
    succeed(at=20 * 60)
    assert alerts == [("brute_force", "a@b.c", 5), ("success_after_failures", "a@b.c", 5)]


def test_failures_after_a_login_do_not_count_for_it(alerts: list[Alert]) -> None:
    for number in range(5):
        fail(at=100 + number)
    succeed(at=50)
    assert alerts == [("brute_force", "a@b.c", 5)]


def test_spellings_of_one_email_are_one_subject(alerts: list[Alert]) -> None:
    for email in ("É@x.org", "é@X.ORG", "e\u0301@x.org", " É@x.org ", "É@x.org"):
        fail(email)
    assert alerts == [("brute_force", "é@x.org", 5)]


def test_what_is_told_a_whole_window_late_no_longer_counts(alerts: list[Alert]) -> None:
    fail(at=10_000)
    for number in range(10):
        fail(at=number)
    succeed(at=5)
    assert alerts == []


def test_events_out_of_order_count_within_the_window(alerts: list[Alert]) -> None:
    for at in (500, 100, 300, 200, 400):
        fail(at=at)
    assert alerts == [("brute_force", "a@b.c", 5)]


def test_a_clock_in_the_future_does_not_switch_detection_off(alerts: list[Alert]) -> None:
    for wrong in (time.time() + 3600, 1e30, math.nan, math.inf):
        fail(at=wrong)
    now = time.time()
    for _ in range(3):
        fail(at=now)
    assert alerts == [("brute_force", "a@b.c", 5)]


def test_values_of_odd_types_and_lengths_are_cut_to_texts(alerts: list[Alert]) -> None:
    for _ in range(5):
        emission = emit_event(
            "login_failed", email="e" * 10_000, failure_reason=["r"], ip_address=["10.0.0.1"]
        )
        assert emission.ok, emission.failures
    assert alerts == [("brute_force", "e" * 320, 5)]
    assert failure_analytics().by_reason == {"['r']": 5}
    assert normalized_email("e" * 10_000) == "e" * 320


def test_limits_and_window_can_be_set(alerts: list[Alert]) -> None:
    set_security_limits(SecurityLimits(window_seconds=10, brute_force=2))
    fail(at=0)
    fail(at=20)
    assert alerts == []
    fail(at=25)
    assert alerts == [("brute_force", "a@b.c", 2)]
    with madcrow_signals.isolated(empty=True):
        assert failures.limits == SecurityLimits()
    assert failures.limits.brute_force == 2
    for wrong in (0, -1, "a", None, True, math.nan, math.inf, 10**400):
        with pytest.raises(InvalidOptionError, match="brute_force must be a finite number above 0"):
            set_security_limits(SecurityLimits(brute_force=wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["brute_force", "many_accounts", "success_after_failures"])
def test_a_limit_that_could_never_be_reached_is_refused(alerts: list[Alert], name: str) -> None:
    """A window counts a hundred failures of one subject, which is a limit that is reached."""
    for limit in (101, 100.5):
        with pytest.raises(InvalidOptionError, match=f"^{name} must be 100 at most") as caught:
            set_security_limits(SecurityLimits(**{name: limit}))
        assert caught.value.option == name
    assert failures.limits == SecurityLimits()
    limits = dict.fromkeys(("brute_force", "many_accounts", "success_after_failures"), 100)
    set_security_limits(SecurityLimits(window_seconds=1000, **limits))
    for number in range(100):
        email = f"{number}@b.c" if name == "many_accounts" else "a@b.c"
        fail(email, at=number, address="10.0.0.1")
    succeed(at=100)
    assert (name, "10.0.0.1" if name == "many_accounts" else "a@b.c", 100) in alerts


@pytest.mark.guarantee("E3")
def test_alerts_go_through_the_dispatcher_of_the_event_that_caused_them(
    signals: SignalRegistry,
) -> None:
    security_group.register(signals)
    dispatcher = EventDispatcher(signals)
    seen: list[Any] = []
    signals.subscribe("suspicious_activity", lambda emission=None, **context: seen.append(context))
    elsewhere: list[Any] = []
    on_event("suspicious_activity")(lambda sender, **context: elsewhere.append(context))
    for _ in range(5):
        dispatcher.emit("login_failed", email="a@b.c", failure_reason="r", ip_address="10.0.0.1")
    assert [context["kind"] for context in seen] == ["brute_force"]
    assert seen[0]["window_seconds"] == 900.0
    assert seen[0]["ip_address"] == "10.0.0.1"
    assert elsewhere == []


def test_called_by_hand_the_monitor_emits_through_the_default_dispatcher(
    alerts: list[Alert],
) -> None:
    for number in range(5):
        monitor_suspicious_activity(None, email="a@b.c", timestamp=number, failure_reason="r")
    monitor_suspicious_activity(None, email="a@b.c", timestamp=5)
    assert [kind for kind, _, _ in alerts] == ["brute_force", "success_after_failures"]


def test_analytics_count_by_reason_and_address() -> None:
    track_failed_login_attempts(None, failure_reason="wrong", ip_address="10.0.0.1")
    track_failed_login_attempts(None, failure_reason="wrong")
    track_failed_login_attempts(None, email="ignored")
    analytics = failure_analytics()
    assert analytics.total == 3
    assert analytics.by_reason == {"wrong": 2, "unknown": 1}
    assert analytics.by_address == {"10.0.0.1": 1}


def test_an_alert_warns_and_calls_the_functions_of_the_application(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[Any] = []

    @add_alert_function
    def lock(alert: SuspiciousActivityEventContext) -> None:
        called.append((alert.kind, alert.subject, alert.count, alert.window_seconds))

    add_alert_function(lock)
    handle_suspicious_activity_alert(None, kind="brute_force", subject="a\nb", count=5, odd=1)
    assert called == [("brute_force", "a\nb", 5, None)]
    (line,) = caplog.records
    assert line.name == "madcrow_events.security"
    assert line.levelno == logging.WARNING
    assert line.getMessage() == "suspicious_activity"
    assert line.subject == "a\\nb"  # type: ignore[attr-defined]
    assert line.kind == "brute_force"  # type: ignore[attr-defined]
    assert remove_alert_function(lock) is True
    assert remove_alert_function(lock) is False
    handle_suspicious_activity_alert(None, kind="k", subject="s", count=1)
    assert len(called) == 1


def test_an_alert_function_that_fails_stops_no_other() -> None:
    called: list[str] = []

    def broken(alert: SuspiciousActivityEventContext) -> None:
        raise ConnectionError

    add_alert_function(broken)
    add_alert_function(lambda alert: called.append(alert.kind))
    with pytest.raises(ConnectionError):
        handle_suspicious_activity_alert(None, kind="k", subject="s", count=1)
    add_alert_function(lambda alert: 1 / 0)
    with pytest.raises(HandlerErrors) as caught:
        handle_suspicious_activity_alert(None, kind="k", subject="s", count=1)
    assert len(caught.value.exceptions) == 2
    assert called == ["k", "k"]

    async def later(alert: SuspiciousActivityEventContext) -> None: ...

    for unusable in ("lock", lambda: 1, later):
        with pytest.raises(HandlerSignatureError, match="plain function of one argument"):
            add_alert_function(unusable)  # type: ignore[arg-type]


def test_alert_functions_are_isolated() -> None:
    add_alert_function(print)
    with madcrow_signals.isolated():
        assert remove_alert_function(print)
    with madcrow_signals.isolated(empty=True):
        assert not remove_alert_function(print)
    assert remove_alert_function(print)


def test_an_expired_session_is_closed() -> None:
    auth_group.register()
    security_group.register()
    emit_event("user_logged_in", user_id=7, email="a@b.c", timestamp=100)
    emit_event("session_expired", user_id=7, timestamp=160)
    session = session_of(7)
    assert session is not None
    assert (session.duration, session.reason) == (60.0, "expired")
    assert handle_session_expiration(None, user_id=8, session_duration=5.0).duration == 5.0


def test_the_windows_stay_within_their_bounds() -> None:
    for number in range(MAX_SUBJECTS + 100):
        monitor_suspicious_activity(
            None, email=f"{number}@b.c", ip_address=str(number), failure_reason="r", timestamp=0
        )
        track_failed_login_attempts(None, failure_reason=str(number), ip_address=str(number))
    assert len(failures) == MAX_SUBJECTS
    for number in range(MAX_TIMES * 2):
        monitor_suspicious_activity(
            None,
            email=f"{number}@b.c",
            ip_address="10.0.0.1",
            failure_reason="r",
            timestamp=number / 10,
        )
        monitor_suspicious_activity(
            None, email="a@b.c", ip_address="10.0.0.1", failure_reason="r", timestamp=number / 10
        )
    window = failures._state.emails.get("a@b.c")
    assert window is not None
    assert len(window.times) == MAX_TIMES
    window = failures._state.addresses.get("10.0.0.1")
    assert window is not None
    assert len(window.emails) == len(window.latest) == MAX_TIMES


def test_an_email_of_many_accents_takes_no_longer_than_one_of_letters() -> None:
    def seconds(email: str) -> float:
        started = time.thread_time()
        normalized_email(email)
        return time.thread_time() - started

    assert min(seconds("\u0301\u0327" * 50_000) for _ in range(3)) < 0.1  # it was 15 s
    assert normalized_email("  " * 10_000 + "A" * 1000) == "a" * 320
    three = "\u1112\u1161\u11ab"  # one syllable, typed as three
    assert normalized_email(three * 320) == "\ud55c" * 320
