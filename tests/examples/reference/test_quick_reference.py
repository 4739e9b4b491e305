"""The Quick Reference of the reference document, row by row."""

from __future__ import annotations

import pytest

from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals
from support.reference import EMAIL, EMITTING, HANDLING, ORGANIZATION, renders


@renders(HANDLING, "@on_event('event_name')")
def test_on_event_handles_any_event_by_its_name():
    """Built-in events and others alike."""
    from madcrow_events import on_event

    madcrow_signals.signal("custom_event")
    for event_name in madcrow_signals:
        received = []

        @on_event(event_name)
        def handle(sender, **context):
            received.append(context)

        assert emit_event(event_name, number=1).ok
        assert received == [{"number": 1}]


@renders(HANDLING, "@on_user_login()")
@renders(HANDLING, "@on_login_failed()")
@renders(HANDLING, "@on_user_registered()")
def test_the_named_decorators_handle_their_own_events():
    """Each leaves the function as it is, and calls it for one event only."""
    from madcrow_events import on_login_failed, on_user_login, on_user_registered

    heard = []
    for decorate in (on_user_login(), on_login_failed(), on_user_registered()):

        def handle(sender, **context):
            heard.append(str(sender))

        assert decorate(handle) is handle
    for event in list(madcrow_signals):
        emit_event(event)
    assert sorted(heard) == ["login_failed", "user_logged_in", "user_registered"]


@renders(HANDLING, "register_handler()")
def test_register_handler_makes_handlers_come_and_go():
    """What it returns ends the registration; so does `unregister_handler`."""
    from madcrow_events import register_handler, unregister_handler

    received = []

    def handle(sender, **context):
        received.append(str(sender))

    def emit_both():
        emit_event("user_logged_in", user_id="1", email=EMAIL)
        emit_event("user_logged_out", user_id="1", email=EMAIL)

    subscription = register_handler("user_logged_in", handle)
    register_handler("user_logged_out", handle)
    emit_both()
    assert received == ["user_logged_in", "user_logged_out"]

    subscription.cancel()
    assert unregister_handler("user_logged_out", handle)
    emit_both()
    assert len(received) == 2


@renders(EMITTING, "emit_event('name', **data)")
def test_emit_event_passes_its_keywords_on():
    """And tells what came of it."""
    from madcrow_events import emit_event, on_event

    @on_event("system_startup")
    def handle(sender, **context):
        return context

    data = {"version": "2.1", "anything": object()}
    emission = emit_event("system_startup", **data)
    assert emission.results == ((handle, data),)


@renders(EMITTING, "emit_login_event(context)")
def test_login_and_logout_have_typed_emitters():
    """A context of another model is refused before any handler runs."""
    from madcrow_events import (
        ContextTypeError,
        LoginEventContext,
        LogoutEventContext,
        emit_login_event,
        emit_logout_event,
        on_event,
    )

    heard = []

    @on_event("user_logged_in")
    @on_event("user_logged_out")
    def handle(sender, **context):
        heard.append((str(sender), context["user_id"]))

    login = LoginEventContext(user_id=1, email=EMAIL)
    logout = LogoutEventContext(user_id=1, email=EMAIL, logout_reason="user")
    assert emit_login_event(login).ok
    assert emit_logout_event(logout).ok
    assert heard == [("user_logged_in", 1), ("user_logged_out", 1)]
    with pytest.raises(ContextTypeError):
        emit_login_event(logout)
    with pytest.raises(ContextTypeError):
        emit_logout_event(login)
    assert len(heard) == 2


@renders(EMITTING, "dispatcher.emit_typed()")
def test_emit_typed_carries_a_custom_context():
    """Handlers get the context itself, or its fields, as they ask for it."""
    from madcrow_events import BaseEventContext, on_event

    class OrderPlacedEventContext(BaseEventContext):
        number: int
        items: list[str]

    madcrow_signals.signal("order_placed", context=OrderPlacedEventContext)

    @on_event("order_placed")
    def by_context(context: OrderPlacedEventContext):
        return context

    @on_event("order_placed")
    def by_keywords(sender, **context):
        return context["number"], context["items"]

    context = OrderPlacedEventContext(number=7, items=["lamp"])
    dispatcher = get_event_dispatcher()
    emission = dispatcher.emit_typed("order_placed", context)
    assert emission.results == ((by_context, context), (by_keywords, (7, ["lamp"])))


@renders(EMITTING, "signal.send()")
def test_a_signal_sends_directly():
    """As with blinker: to the same handlers, with pairs as the result, and failures raised."""
    from madcrow_events.handlers import on_user_login
    from madcrow_events.signals import user_logged_in as signal

    @on_user_login()
    def handle(sender, **context):
        return sender, context

    sender = object()
    keywords = {"user_id": "1", "email": EMAIL}
    assert signal.send(sender, **keywords) == [(handle, (sender, keywords))]

    @on_user_login()
    def broken(sender, **context):
        raise ConnectionError

    assert emit_event("user_logged_in", **keywords).results[0].handler is handle
    with pytest.raises(ConnectionError):
        signal.send(sender, **keywords)


USER_ACTIONS = {
    "user_logged_in",
    "user_logged_out",
    "login_failed",
    "user_registered",
    "account_activated",
    "account_banned",
    "account_closed",
    "password_changed",
}


@renders(ORGANIZATION, "auth_handlers.py")
@renders(ORGANIZATION, "audit_handlers.py")
@renders(ORGANIZATION, "security_handlers.py")
@renders(ORGANIZATION, "system_handlers.py")
@pytest.mark.parametrize(
    ("module", "events"),
    [
        ("auth_handlers", {"user_logged_in", "user_logged_out", "user_registered"}),
        ("audit_handlers", USER_ACTIONS),
        ("security_handlers", {"login_failed", "suspicious_activity"}),
        ("system_handlers", {"system_startup", "system_shutdown"}),
    ],
)
def test_each_handler_module_handles_the_events_of_its_area(module, events):
    """`register_all_handlers` subscribes handlers of the module to each of them."""
    from madcrow_events.event_handlers import register_all_handlers

    register_all_handlers()
    handled = {
        entry.event
        for entry in madcrow_signals.subscriptions
        if entry.handler.__module__ == f"madcrow_events.event_handlers.{module}"
    }
    assert handled >= events
