"""Registering all ready-made handlers (E3)."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    InvalidOptionError,
    SignalRegistry,
    clear_all_handlers,
    emit_event,
    madcrow_signals,
)
from madcrow_events.event_handlers import (
    ALL_GROUPS,
    _stores,
    audit_group,
    register_all_handlers,
    register_default_handlers,
    security_group,
)
from madcrow_events.event_handlers.security_handlers import add_alert_function
from support.inside import renew_after_fork

NAMED = {
    "handle_user_login",
    "handle_user_logout",
    "handle_user_registration",
    "update_user_activity_metrics",
    "cleanup_user_session_data",
    "log_user_login",
    "log_user_logout",
    "log_login_failure",
    "log_user_registration",
    "monitor_suspicious_activity",
    "track_failed_login_attempts",
    "handle_suspicious_activity_alert",
    "handle_session_expiration",
    "handle_system_startup",
    "handle_system_shutdown",
    "initialize_system_monitoring",
    "cleanup_system_resources",
}


@pytest.mark.guarantee("E3")
def test_all_functions_that_the_reference_names_are_registered() -> None:
    assert len(NAMED) == 17
    registered = {handler.__name__ for group in ALL_GROUPS for _, handler in group.handlers}
    assert registered >= NAMED


@pytest.mark.guarantee("E3")
def test_registering_again_changes_nothing_and_works_after_clearing() -> None:
    assert register_default_handlers is register_all_handlers
    register_all_handlers()
    once = len(madcrow_signals.subscriptions)
    register_all_handlers()
    assert len(madcrow_signals.subscriptions) == once
    clear_all_handlers()
    assert not madcrow_signals.subscriptions
    register_all_handlers()
    assert len(madcrow_signals.subscriptions) == once
    with madcrow_signals.isolated(empty=True):
        assert not madcrow_signals.subscriptions
        register_all_handlers()
        assert len(madcrow_signals.subscriptions) == once
    assert len(madcrow_signals.subscriptions) == once


@pytest.mark.guarantee("E3")
def test_groups_can_be_left_out() -> None:
    register_all_handlers(leave_out=[security_group, audit_group])
    origins = {subscription.origin for subscription in madcrow_signals.subscriptions}
    assert origins == set(ALL_GROUPS) - {security_group, audit_group}
    clear_all_handlers()
    register_all_handlers(leave_out=security_group)
    assert security_group not in {entry.origin for entry in madcrow_signals.subscriptions}
    with pytest.raises(InvalidOptionError, match="signals must be a SignalRegistry"):
        register_all_handlers(EventDispatcher())  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match=r"such as \[security_group\]"):
        register_all_handlers(leave_out=["security"])  # type: ignore[list-item]


@pytest.mark.guarantee("E3")
def test_on_a_registry_of_ones_own_they_work_the_same(signals: SignalRegistry) -> None:
    register_all_handlers(signals)
    dispatcher = EventDispatcher(signals, on_error="raise")
    dispatcher.emit("system_startup", version="1")
    dispatcher.emit("user_registered", user_id=7, email="a@b.c")
    for _ in range(5):
        dispatcher.emit("login_failed", email="a@b.c", failure_reason="r", ip_address="10.0.0.1")
    dispatcher.emit("user_logged_in", user_id=7, email="a@b.c")
    dispatcher.emit("user_logged_out", user_id=7, email="a@b.c")
    dispatcher.emit("system_shutdown")
    assert not madcrow_signals.subscriptions


def test_every_built_in_event_passes_through_all_handlers_without_a_failure() -> None:
    register_all_handlers()
    for name in list(madcrow_signals):
        model = madcrow_signals[name].context_model
        assert model is not None
        values = {
            field: {"count": 1}.get(field, "x")
            for field, declared in model.model_fields.items()
            if declared.is_required()
        }
        emission = emit_event(name, **values)
        assert emission.ok, (name, emission.failures)


@pytest.mark.guarantee("F6")
@pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="3.11 itself crashes when a finalizer sets a context variable that is being set",
)
def test_a_finalizer_may_emit_while_a_store_is_changed() -> None:
    """A collection may start under a store's lock, and run anybody's finalizer."""
    register_all_handlers()
    finalized: list[bool] = []

    class Owner:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            finalized.append(emit_event("session_expired", user_id=1).ok)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(300):
            Owner()
            emit_event("token_refreshed", user_id=number)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    assert finalized
    assert all(finalized)


@pytest.mark.guarantee("F6")
def test_what_a_store_drops_is_dropped_after_its_lock() -> None:
    reached: list[bool] = []

    class Alert:
        def __call__(self, alert: object) -> None: ...

        def __del__(self) -> None:
            thread = threading.Thread(target=lambda: add_alert_function(print))
            thread.start()
            thread.join(timeout=5)
            reached.append(not thread.is_alive())

    with madcrow_signals.isolated():
        add_alert_function(Alert())
    assert reached == [True]


@pytest.mark.guarantee("E3")
def test_every_subscription_of_a_group_knows_it(signals: SignalRegistry) -> None:
    register_all_handlers(signals)
    EventDispatcher(signals).emit("system_startup")
    assert all(subscription.origin in ALL_GROUPS for subscription in signals.subscriptions)


def test_the_stores_of_a_forked_child_have_free_locks() -> None:

    held, finish = threading.Event(), threading.Event()

    def hold() -> None:
        with _stores.sessions._lock:
            held.set()
            finish.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    try:
        renew_after_fork()
        assert _stores.sessions.get("nobody") is None
    finally:
        finish.set()
        thread.join()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1),  # noqa: DTZ001  # nobody checks a loose emission
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, tzinfo=timezone(-timedelta(hours=14))),
        10**400,
        -(10**400),
    ],
    ids=repr,
)
def test_a_moment_that_no_clock_shows_makes_no_handler_fail(moment: object) -> None:
    """Nor does a number that no float can hold."""
    signals = SignalRegistry()
    for name, signal in madcrow_signals.items():
        signals.signal(name, context=signal.context_model)  # type: ignore[arg-type]
    for group in ALL_GROUPS:
        group.register(signals)
    dispatcher = EventDispatcher(signals)
    account = {"user_id": 10**400, "email": "a@b.c", "timestamp": moment}
    for event in ("user_logged_in", "user_logged_out", "session_expired", "user_registered"):
        assert dispatcher.emit(event, session_duration=10**400, **account).ok
    assert dispatcher.emit("login_failed", failure_reason="x", **account).ok
    assert dispatcher.emit("system_startup", process_id=10**400, timestamp=moment).ok
    assert dispatcher.emit("system_shutdown", uptime=10**400, timestamp=moment).ok


class Untold:
    def __str__(self) -> str:
        raise OSError


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    "value",
    [10**5000, [10**5000], Fraction(10**5000), Untold()],
    ids=["int", "list", "fraction", "own"],
)
def test_what_has_no_text_makes_no_handler_fail(
    value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An integer of thousands of digits, say. Each line can be written, too."""
    caplog.set_level(logging.INFO, logger="madcrow_events")
    register_all_handlers()
    for event, signal in madcrow_signals.items():
        context = dict.fromkeys(signal.context_model.model_fields, value)
        if event not in ("suspicious_activity", "handler_failed"):
            assert not emit_event(event, **context).failures
    emit_event("suspicious_activity", kind=value, subject=value, count=value)
    written = {record.name for record in caplog.records}
    assert written > {"madcrow_events.audit", "madcrow_events.security", "madcrow_events.system"}
    assert all(str(vars(record)) for record in caplog.records)
