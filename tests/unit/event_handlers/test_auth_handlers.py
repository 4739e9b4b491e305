"""The session store and the counts that the ready-made auth handlers keep (E3)."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from madcrow_events import (
    ContextValidationError,
    LoginEventContext,
    LogoutEventContext,
    emit_event,
    emit_login_event,
    emit_logout_event,
)
from madcrow_events.event_handlers import auth_group
from madcrow_events.event_handlers._bounded import MAX_SUBJECTS
from madcrow_events.event_handlers._stores import sessions
from madcrow_events.event_handlers.auth_handlers import (
    activity_snapshot,
    cleanup_user_session_data,
    handle_user_login,
    handle_user_logout,
    handle_user_registration,
    session_of,
    update_user_activity_metrics,
)

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def test_a_login_opens_a_session_and_a_logout_closes_it_with_its_duration() -> None:
    opened = handle_user_login(None, user_id=7, email="a@b.c", timestamp=AT)
    assert opened.is_open
    assert opened.opened_at == AT.timestamp()
    assert session_of("7") == opened
    closed = handle_user_logout(None, user_id="7", timestamp=LATER, logout_reason="tired")
    assert not closed.is_open
    assert closed.duration == 1800.0
    assert closed.reason == "tired"
    assert closed.email == "a@b.c"
    assert session_of(7) == closed


def test_a_duration_that_the_event_tells_is_taken() -> None:
    handle_user_login(None, user_id=7, timestamp=AT)
    closed = handle_user_logout(None, user_id=7, timestamp=LATER, session_duration=60.0)
    assert closed.duration == 60.0


def test_a_session_that_is_closed_keeps_its_first_end_until_it_is_opened_again() -> None:
    handle_user_login(None, user_id=7, timestamp=AT)
    first = handle_user_logout(None, user_id=7, timestamp=LATER)
    assert handle_user_logout(None, user_id=7, timestamp=AT, logout_reason="again") == first
    assert handle_user_login(None, user_id=7, timestamp=LATER).is_open


def test_a_logout_of_an_unseen_login_is_closed_without_a_duration() -> None:
    closed = handle_user_logout(None, user_id=7, timestamp=LATER)
    assert closed.closed_at == LATER.timestamp()
    assert closed.duration is None


def test_a_clock_that_goes_back_makes_no_negative_duration() -> None:
    handle_user_login(None, user_id=7, timestamp=LATER)
    assert handle_user_logout(None, user_id=7, timestamp=AT).duration == 0.0


def test_a_registration_is_noted_and_opens_nothing() -> None:
    created = handle_user_registration(None, user_id=7, email="a@b.c", timestamp=AT)
    assert created.created_at == AT.timestamp()
    assert not created.is_open
    opened = handle_user_login(None, user_id=7, timestamp=LATER)
    assert opened.created_at == AT.timestamp()
    assert opened.email == "a@b.c"


def test_cleaning_up_removes_what_was_kept() -> None:
    handle_user_login(None, user_id=7)
    removed = cleanup_user_session_data(None, user_id=7)
    assert removed is not None
    assert session_of(7) is None
    assert cleanup_user_session_data(None, user_id=7) is None


@pytest.mark.parametrize("user_id", [7, "7"])
def test_an_account_is_the_same_whatever_type_its_id_has(user_id: Any) -> None:
    handle_user_login(None, user_id=user_id)
    assert session_of(7) == session_of("7")
    number = UUID(int=1)
    handle_user_login(None, user_id=number)
    assert session_of(str(number)) is not None


def test_naive_missing_and_numeric_timestamps_are_understood() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001
    assert handle_user_login(None, user_id=1, timestamp=naive).opened_at == naive.timestamp()
    assert handle_user_login(None, user_id=1, timestamp=5).opened_at == 5.0
    before = datetime.now(UTC).timestamp()
    for unusable in (None, "yesterday", True):
        at = handle_user_login(None, user_id=1, timestamp=unusable).opened_at
        assert at is not None
        assert at >= before - 1


def test_registered_they_follow_a_user_from_login_to_logout() -> None:
    auth_group.register()
    emit_login_event(LoginEventContext(user_id=7, email="a@b.c", timestamp=AT))
    assert session_of(7) is not None
    emission = emit_logout_event(LogoutEventContext(user_id=7, email="a@b.c", timestamp=LATER))
    values = {result.handler: result.value for result in emission.results}
    assert values[handle_user_logout].duration == 1800.0
    assert emission.results[-1].handler is cleanup_user_session_data
    assert session_of(7) is None


def test_activity_is_counted_for_each_event_and_user() -> None:
    auth_group.register()
    emit_event("user_logged_in", user_id=7, email="a@b.c")
    emit_event("user_logged_in", "a sender", user_id="7", email="a@b.c")
    emit_event("password_changed", user_id=8)
    emit_event("account_activated", user_id=8)
    update_user_activity_metrics("user_logged_in", user_id=9)
    update_user_activity_metrics("user_logged_in")
    snapshot = activity_snapshot()
    assert snapshot.by_event == {
        "user_logged_in": 4,
        "password_changed": 1,
        "account_activated": 1,
    }
    assert snapshot.by_user == {
        "7": {"user_logged_in": 2},
        "8": {"password_changed": 1, "account_activated": 1},
        "9": {"user_logged_in": 1},
    }
    snapshot.by_user["7"]["user_logged_in"] = 100
    assert activity_snapshot().by_user["7"] == {"user_logged_in": 2}


def test_a_loose_event_without_an_account_fails_its_handlers_only() -> None:
    auth_group.register()
    emission = emit_event("user_logged_in", email="a@b.c")
    assert [failure.handler for failure in emission.failures] == [handle_user_login]
    assert isinstance(emission.failures[0].exception, ContextValidationError)
    assert "user_id" in str(emission.failures[0].exception)
    assert activity_snapshot().by_event == {"user_logged_in": 1}


def test_the_least_recently_used_user_is_forgotten_first() -> None:
    for number in range(MAX_SUBJECTS):
        handle_user_login(None, user_id=number)
    handle_user_login(None, user_id=0)
    handle_user_login(None, user_id="one more")
    assert len(sessions) == MAX_SUBJECTS
    assert session_of(0) is not None
    assert session_of(1) is None


LONG = "\U0001f600" * 10_000


@pytest.mark.guarantee("G2")
def test_two_accounts_with_long_ids_are_two_and_are_kept_short() -> None:
    handle_user_login(None, user_id=LONG + "a", email="a" + LONG)
    handle_user_login(None, user_id=LONG + "b", email="b" + LONG)
    handle_user_logout(None, user_id=LONG + "b", logout_reason=LONG)
    first, second = session_of(LONG + "a"), session_of(LONG + "b")
    assert first is not None
    assert second is not None
    assert first.is_open
    assert not second.is_open
    assert second.email == "b" + LONG[:319]
    assert second.reason == LONG[:320]
    kept_id = first.user_id
    assert len(kept_id) < 400
    assert session_of(kept_id) is None, "nobody can call himself by what is kept of another's id"
    assert set(activity_snapshot().by_user) == set()
    update_user_activity_metrics("seen", user_id=LONG + "a")
    assert list(activity_snapshot().by_user) == [kept_id]
    assert cleanup_user_session_data(None, user_id=LONG + "a") == first


def test_an_account_whose_number_has_thousands_of_digits_has_a_session() -> None:
    for user_id in (10**5000, -(10**5000), 10**5000 + 1):
        assert handle_user_login(None, user_id=user_id).is_open
    assert len(sessions) == 3
    assert session_of(2**200) is None


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize(
    "duration", ["x" * 30_000, 10**400, Decimal("nan"), math.inf, True, [1.5]], ids=repr
)
def test_a_duration_that_is_no_finite_number_is_not_kept(duration: Any) -> None:
    assert handle_user_logout(None, user_id=1, session_duration=duration).duration is None
    assert handle_user_logout(None, user_id=2, session_duration=Decimal("1.5")).duration == 1.5


@pytest.mark.guarantee("G2")
def test_of_one_user_twenty_events_are_counted() -> None:
    for number in range(30):
        for _ in range(2):
            update_user_activity_metrics(f"event_{number}", user_id=1)
    snapshot = activity_snapshot()
    assert len(snapshot.by_event) == 30
    assert snapshot.by_user["1"] == {f"event_{number}": 2 for number in range(20)}


@pytest.mark.parametrize(
    "timestamp",
    [datetime(1, 1, 1), 10**400, -(10**400)],  # noqa: DTZ001  # on purpose
    ids=["the year 1", "400 digits", "400 digits before"],
)
def test_a_time_that_no_clock_shows_stands_for_now(timestamp: Any) -> None:
    before = time.time()
    opened = handle_user_login(None, user_id=1, timestamp=timestamp).opened_at
    assert opened is not None
    assert opened >= before
