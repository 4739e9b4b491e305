"""The audit trail: which lines are written, and what is never in them (E3, G1)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

import pytest

from madcrow_events import LoginEventContext, emit_event, emit_login_event
from madcrow_events.event_handlers import audit_group
from madcrow_events.event_handlers.audit_handlers import log_user_login

STANDARD = set(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
AT = datetime(2026, 1, 1, tzinfo=UTC)

BASE: dict[str, Any] = {
    "timestamp": AT,
    "ip_address": "10.0.0.1",
    "user_agent": "test",
    "request_id": "r-1",
}
ACCOUNT: dict[str, Any] = {"user_id": 7, "email": "a@b.c"}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in STANDARD}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    audit_group.register()
    caplog.set_level(logging.INFO, logger="madcrow_events.audit")
    return caplog


@pytest.mark.parametrize(
    ("event", "context", "renamed"),
    [
        (
            "user_logged_in",
            {
                **ACCOUNT,
                "name": "A",
                "is_admin": True,
                "remember_me": False,
                "session_duration": 1.5,
            },
            {"name": "user_name"},
        ),
        ("user_logged_out", {**ACCOUNT, "session_duration": 3, "logout_reason": "tired"}, {}),
        ("login_failed", {"email": "e", "failure_reason": "wrong", "attempt_count": 2}, {}),
        (
            "user_registered",
            {**ACCOUNT, "name": "A", "account_status": "new"},
            {"name": "user_name"},
        ),
        ("account_activated", ACCOUNT, {}),
        ("account_banned", {**ACCOUNT, "reason": "spam"}, {}),
        ("account_closed", {**ACCOUNT, "reason": "bored"}, {}),
        ("password_changed", ACCOUNT, {}),
    ],
)
@pytest.mark.guarantee("G1")
def test_each_action_of_a_user_is_one_line_with_listed_fields_only(
    lines: pytest.LogCaptureFixture, event: str, context: dict[str, Any], renamed: dict[str, str]
) -> None:
    secrets = {"password": "canary-password", "token": "canary-token", "unknown": "canary"}
    emission = emit_event(event, **BASE, **context, **secrets)
    assert emission.ok
    (line,) = lines.records
    assert line.name == "madcrow_events.audit"
    assert line.levelno == logging.INFO
    assert line.getMessage() == event
    expected = {renamed.get(name, name): value for name, value in context.items()}
    expected |= {**BASE, "timestamp": AT.isoformat(), "event": event}
    expected.setdefault("user_id", None)
    assert fields(line) == expected
    assert "canary" not in repr(line.__dict__)


def test_a_typed_event_is_written_with_the_same_fields(lines: pytest.LogCaptureFixture) -> None:
    emit_login_event(LoginEventContext(user_id=7, email="a@b.c", name="A", timestamp=AT))
    assert fields(lines.records[0])["user_name"] == "A"
    assert fields(lines.records[0])["is_admin"] is False
    assert fields(lines.records[0])["ip_address"] is None


@pytest.mark.guarantee("G1")
def test_what_a_client_sends_cannot_forge_a_line(lines: pytest.LogCaptureFixture) -> None:
    emit_event("login_failed", email="a\nINFO root forged", user_agent="\x1b[31m" + "x" * 500)
    written = fields(lines.records[0])
    assert written["email"] == "a\\nINFO root forged"
    assert written["user_agent"].startswith("\\x1b[31m")
    assert len(written["user_agent"]) < 220


def test_a_handler_can_be_called_in_a_test_as_the_reference_shows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    context = {"user_id": "123", "email": "test@example.com", "timestamp": datetime.now()}  # noqa: DTZ005
    with caplog.at_level(logging.INFO, logger="madcrow_events.audit"):
        log_user_login(sender=None, **context)
    assert caplog.records[0].email == "test@example.com"  # type: ignore[attr-defined]


def test_nothing_is_put_together_for_a_logger_that_is_off(
    lines: pytest.LogCaptureFixture,
) -> None:
    lines.set_level(logging.WARNING, logger="madcrow_events.audit")
    assert emit_event("password_changed", user_id=7).ok
    assert not lines.records
