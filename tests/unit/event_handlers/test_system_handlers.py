"""Start, status and end of the application (E3)."""

from __future__ import annotations

import logging
import os
import time

import pytest

from madcrow_events import (
    EventDispatcher,
    SignalRegistry,
    SystemShutdownEventContext,
    SystemStartupEventContext,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    on_event,
)
from madcrow_events.event_handlers import auth_group, system_group
from madcrow_events.event_handlers.auth_handlers import handle_user_login, session_of
from madcrow_events.event_handlers.system_handlers import (
    cleanup_system_resources,
    handle_system_shutdown,
    handle_system_startup,
    initialize_system_monitoring,
    system_status,
)


def test_a_start_is_recorded() -> None:
    before = time.time()
    handle_system_startup(None, version="1.2")
    status = system_status()
    assert status.version == "1.2"
    assert status.process_id == os.getpid()
    assert status.started_at is not None
    assert status.started_at >= before
    handle_system_startup(None, process_id="x" * 30_000)  # type: ignore[arg-type]
    assert system_status().process_id is None
    handle_system_startup(None, process_id=5, timestamp=before - 60)
    assert system_status().process_id == 5
    assert 60 <= system_status().uptime < 120


def test_before_a_start_there_is_no_uptime() -> None:
    assert system_status().started_at is None
    assert system_status().uptime == 0.0


def test_monitoring_counts_events_and_failures_from_the_start_on() -> None:
    system_group.register()

    @on_event("login_failed")
    def broken(sender: object, **context: object) -> None:
        raise ValueError

    emit_event("login_failed", email="e")
    emit_event("system_startup", version="1")
    emit_event("login_failed", email="e")
    emit_event("user_logged_in", user_id=1, email="e")
    status = system_status()
    assert status.events_emitted == 2
    assert status.handlers_failed == 1


def test_a_second_start_counts_from_0_and_only_once_for_each_event() -> None:
    system_group.register()
    for _ in range(3):
        emit_event("system_startup")
    emit_event("login_failed", email="e")
    assert system_status().events_emitted == 1


def test_a_shutdown_reports_and_cleans_up(caplog: pytest.LogCaptureFixture) -> None:
    system_group.register()
    auth_group.register()
    emit_event("system_startup", version="1")
    emit_event("user_logged_in", user_id=7, email="a@b.c")
    with caplog.at_level(logging.INFO, logger="madcrow_events.system"):
        emission = get_event_dispatcher().emit_typed(
            "system_shutdown", SystemShutdownEventContext(reason="update\n")
        )
    assert emission.ok
    (line,) = caplog.records
    assert line.getMessage() == "system_shutdown"
    assert line.version == "1"  # type: ignore[attr-defined]
    assert line.events_emitted == 2  # type: ignore[attr-defined]
    assert line.reason == "update\\n"  # type: ignore[attr-defined]
    assert session_of(7) is None
    assert system_status().started_at is None
    emit_event("user_logged_in", user_id=7, email="a@b.c")
    assert system_status().events_emitted == 0


def test_called_by_hand_they_work_on_the_default_registry() -> None:
    initialize_system_monitoring(None)
    emit_event("user_logged_in")
    assert handle_system_shutdown(None).events_emitted == 1
    cleanup_system_resources(None)
    assert not madcrow_signals.subscriptions


def test_what_handlers_emit_is_counted_and_the_announcement_of_a_failure_is_not() -> None:
    """An event is one that somebody meant to emit."""
    system_group.register()

    @on_event("user_registered")
    def greet(sender: object, **context: object) -> None:
        emit_event("account_activated")

    @on_event("account_activated")
    def broken(sender: object, **context: object) -> None:
        raise ValueError

    announced: list[object] = []

    @on_event("handler_failed")
    def hear(sender: object, **context: object) -> None:
        announced.append(context)

    emit_event("system_startup")
    emit_event("user_registered")
    assert len(announced) == 1
    assert system_status().events_emitted == 2
    assert system_status().handlers_failed == 1


def test_only_the_dispatcher_that_emitted_the_start_is_counted(signals: SignalRegistry) -> None:
    """Neither another dispatcher's events nor those that are sent are among them."""
    system_group.register(signals)
    signals.signal("order_placed")
    started, other = EventDispatcher(signals), EventDispatcher(signals)
    started.emit_typed("system_startup", SystemStartupEventContext())
    started.emit("order_placed")
    other.emit("order_placed")
    signals["order_placed"].send("shop")
    emit_event("login_failed", email="e")
    assert system_status().events_emitted == 1


def test_after_the_shutdown_nothing_is_counted(signals: SignalRegistry) -> None:
    """The dispatcher that emitted it is no longer observed, and can be started again."""
    system_group.register(signals)
    signals.signal("order_placed")
    dispatcher = EventDispatcher(signals)
    for _ in range(2):
        dispatcher.emit("system_startup")
        dispatcher.emit("order_placed")
        assert system_status().events_emitted == 1
        dispatcher.emit("system_shutdown")
        dispatcher.emit("order_placed")
        assert system_status().events_emitted == 0


def test_the_counting_goes_on_when_the_group_is_unregistered(signals: SignalRegistry) -> None:
    """It ends with the shutdown, or when `cleanup_system_resources` is called."""
    system_group.register(signals)
    signals.signal("order_placed")
    dispatcher = EventDispatcher(signals)
    dispatcher.emit("system_startup")
    system_group.unregister(signals)
    assert not signals.subscriptions
    dispatcher.emit("order_placed")
    assert system_status().events_emitted == 1


def test_the_stores_are_isolated() -> None:
    handle_user_login(None, user_id=7)
    with madcrow_signals.isolated():
        assert session_of(7) is not None
        handle_user_login(None, user_id=8)
    assert session_of(8) is None
    with madcrow_signals.isolated(empty=True):
        assert session_of(7) is None
    assert session_of(7) is not None


def test_the_counts_are_isolated() -> None:
    """A block goes on with them, or from 0, and leaves them as they were."""
    initialize_system_monitoring(None)
    emit_event("user_logged_in")
    with madcrow_signals.isolated():
        emit_event("user_logged_in")
        assert system_status().events_emitted == 2
    assert system_status().events_emitted == 1
    with madcrow_signals.isolated(empty=True):
        assert system_status().events_emitted == 0
        initialize_system_monitoring(None)
        emit_event("user_logged_in")
        assert system_status().events_emitted == 1
    emit_event("user_logged_in")
    assert system_status().events_emitted == 2


def test_the_counting_that_a_block_began_ends_with_it() -> None:
    """The default dispatcher is observed afterwards only if it was before."""
    with madcrow_signals.isolated():
        initialize_system_monitoring(None)
    emit_event("user_logged_in")
    assert system_status().events_emitted == 0
