"""Emitting and handling, as the reference document shows them."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals
from support.reference import EMAIL, renders

PASSWORD = "two owls, one lamp"
ADDRESS = "192.0.2.7"


# Usage: emitting


@renders("Using the Dispatcher")
def test_an_event_is_emitted_with_keywords_or_with_a_typed_context(user):
    """The handlers get just the keywords, or every field of the context."""
    from madcrow_events import emit_event
    from madcrow_events.dispatcher import emit_login_event
    from madcrow_events.handlers import on_user_login
    from madcrow_events.models import LoginEventContext

    received = []

    @on_user_login()
    def receive(sender, **context):
        received.append(context)

    emit_event("user_logged_in", user_id="123", email="user@example.com")
    assert received.pop() == {"user_id": "123", "email": "user@example.com"}

    request_ip = ADDRESS
    context = LoginEventContext(
        user_id=user.id, email=user.email, name=user.name, ip_address=request_ip
    )
    emit_login_event(context)
    (keywords,) = received
    assert keywords == {name: getattr(context, name) for name in LoginEventContext.model_fields}
    assert keywords["user_id"] == user.id
    assert keywords["ip_address"] == request_ip
    assert keywords["timestamp"].utcoffset() is not None


class TokenPair(NamedTuple):
    access_token: str
    refresh_token: str


class AuthService:
    """The service of the document, with one account and made-up tokens."""

    def __init__(self, user, client_ip=ADDRESS):
        self.user = user
        self.client_ip = client_ip

    def authenticate_user(self, email: str, password: str) -> TokenPair:
        user, login_ip = self.user, self.client_ip
        if (email, password) != (user.email, PASSWORD):
            raise PermissionError(email)
        token_pair = TokenPair("access", "refresh")
        self._emit_login_success_event(user=user, ip_address=login_ip, timestamp=datetime.now(UTC))
        return token_pair

    def _emit_login_success_event(self, user, ip_address, timestamp):
        from madcrow_events.dispatcher import emit_login_event
        from madcrow_events.models import LoginEventContext

        emit_login_event(
            LoginEventContext(
                user_id=user.id, email=user.email, ip_address=ip_address, timestamp=timestamp
            )
        )


@pytest.fixture
def auth_service(user):
    return AuthService(user)


@renders("In Services", 0, AuthService)
def test_a_service_emits_after_success_and_returns_its_result(auth_service, user):
    """The event comes with the login, not without it, and a broken handler does not stop it."""
    from madcrow_events.handlers import on_user_login

    received = []

    @on_user_login()
    def broken(sender, **context):
        raise ConnectionError

    @on_user_login()
    def receive(sender, **context):
        received.append((context["user_id"], context["ip_address"], context["timestamp"].tzinfo))

    with pytest.raises(PermissionError):
        auth_service.authenticate_user(EMAIL, "wrong")
    assert received == []

    assert auth_service.authenticate_user(EMAIL, PASSWORD) == TokenPair("access", "refresh")
    assert received == [(user.id, ADDRESS, UTC)]


# Usage: handling


@renders("Method 1: Using Decorators (Recommended)")
def test_decorators_subscribe_to_built_in_and_other_events(capsys):
    """Each handler hears its own event and nothing else."""
    from madcrow_events.handlers import on_event, on_login_failed, on_user_login

    madcrow_signals.signal("custom_event")

    @on_user_login()
    def handle_user_login(sender, **context):
        user_id = context["user_id"]
        email = context["email"]
        print(f"{email} ({user_id}) logged in")

    @on_login_failed()
    def handle_login_failure(sender, **context):
        email = context["email"]
        reason = context["failure_reason"]
        print(f"{email} did not: {reason}")

    @on_event("custom_event")
    def handle_custom_event(sender, **context):
        print(f"custom event: {context}")

    @on_event("system_startup")
    def handle_startup(sender, **context):
        version = context.get("version", "unknown")
        print(f"started, version {version}")

    emit_event("user_logged_in", user_id="1", email=EMAIL)
    emit_event("login_failed", email=EMAIL, failure_reason="wrong password")
    emit_event("custom_event", size=3)
    emit_event("system_startup", version="2.1")
    emit_event("system_startup")
    assert capsys.readouterr().out.splitlines() == [
        f"{EMAIL} (1) logged in",
        f"{EMAIL} did not: wrong password",
        "custom event: {'size': 3}",
        "started, version 2.1",
        "started, version unknown",
    ]


@renders("Method 2: Programmatic Registration")
def test_several_handlers_are_registered_by_a_function(capsys):
    """Both handlers of the event are called, in the order of their registration."""
    from madcrow_events.handlers import register_handler

    def my_handler(sender, **context):
        print(f"received: {context}")

    register_handler("user_logged_in", my_handler)

    def another_handler(sender, **context):
        print("received by another")

    register_handler("user_logged_in", another_handler)

    emission = emit_event("user_logged_in", user_id="1", email=EMAIL)
    assert [result.handler for result in emission.results] == [my_handler, another_handler]
    assert capsys.readouterr().out.splitlines() == [
        f"received: {{'user_id': '1', 'email': '{EMAIL}'}}",
        "received by another",
    ]


@renders("Method 3: Conditional Event Handling")
def test_a_handler_looks_at_the_context_before_it_acts(capsys):
    """Admins and repeated failures are told, the others are not."""
    from madcrow_events.handlers import on_login_failed, on_user_login

    @on_user_login()
    def handle_admin_login(sender, **context):
        if context.get("is_admin"):
            print(f"admin {context['email']}")

    @on_login_failed()
    def handle_brute_force(sender, **context):
        attempt_count = context.get("attempt_count", 0)
        if attempt_count >= 5:
            ip_address = context.get("ip_address")
            print(f"brute force from {ip_address}")

    failure = {"email": EMAIL, "failure_reason": "wrong password", "ip_address": ADDRESS}
    assert emit_event("user_logged_in", user_id="1", email=EMAIL).ok
    assert emit_event("user_logged_in", user_id="1", email=EMAIL, is_admin=False).ok
    assert emit_event("login_failed", **failure).ok
    assert emit_event("login_failed", **failure, attempt_count=4).ok
    assert capsys.readouterr().out == ""

    emit_event("user_logged_in", user_id="1", email=EMAIL, is_admin=True)
    emit_event("login_failed", **failure, attempt_count=5)
    assert capsys.readouterr().out.splitlines() == [f"admin {EMAIL}", f"brute force from {ADDRESS}"]


@renders("Method 4: Multiple Event Handler")
def test_one_handler_of_two_events_tells_them_apart_by_the_sender(capsys):
    """Without a sender of its own an event is its own sender, and its text is its name."""
    from madcrow_events.dispatcher import emit_login_event, emit_logout_event
    from madcrow_events.handlers import on_event
    from madcrow_events.models import LoginEventContext, LogoutEventContext

    @on_event("user_logged_in")
    @on_event("user_logged_out")
    def track_user_activity(sender, **context):
        event_type = "login" if "user_logged_in" in str(sender) else "logout"
        user_id = context.get("user_id")
        print(event_type, user_id)

    emit_event("user_logged_in", user_id="1", email=EMAIL)
    emit_event("user_logged_out", user_id="1", email=EMAIL)
    emit_login_event(LoginEventContext(user_id=2, email=EMAIL))
    emit_logout_event(LogoutEventContext(user_id=2, email=EMAIL))
    assert capsys.readouterr().out.split("\n") == ["login 1", "logout 1", "login 2", "logout 2", ""]


@renders("Method 5: Handler with Error Handling")
def test_a_robust_handler_logs_its_error_and_lets_the_others_continue(caplog):
    """What the handler catches is no failure of the emission."""
    from madcrow_events.handlers import on_user_login

    logger = logging.getLogger(__name__)
    caplog.set_level(logging.INFO, __name__)
    known, others = {"1": "welcome back"}, []

    def process_user_login(user_id, email):
        return known[user_id]

    @on_user_login()
    def robust_login_handler(sender, **context):
        try:
            user_id = context.get("user_id")
            email = context.get("email")
            result = process_user_login(user_id, email)
            logger.info("processed login for %s", email)
            return result  # noqa: TRY300  # as in the document
        except Exception as e:
            logger.exception("error processing login event: %s", e)  # noqa: TRY401  # likewise

    @on_user_login()
    def another_handler(sender, **context):
        others.append(context["user_id"])

    emission = emit_event("user_logged_in", user_id="1", email=EMAIL)
    assert emission.results[0] == (robust_login_handler, "welcome back")
    assert caplog.messages == [f"processed login for {EMAIL}"]

    caplog.clear()
    emission = emit_event("user_logged_in", user_id="2", email=EMAIL)
    assert emission.ok
    assert emission.results[0] == (robust_login_handler, None)
    assert others == ["1", "2"]
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "error processing login event: '2'")
    assert record.exc_info[0] is KeyError


@renders("Method 6: Async Event Handlers (Advanced)")
async def test_a_handler_starts_a_task_of_the_running_loop():
    """The emitter does not wait for it, and it runs as soon as the emitter awaits."""
    from madcrow_events.handlers import on_user_login

    welcomed, tasks = [], []

    @on_user_login()
    def async_login_handler(sender, **context):
        user_id = context.get("user_id")
        tasks.append(asyncio.create_task(send_welcome_email(user_id)))

    async def send_welcome_email(user_id):
        await asyncio.sleep(0)
        welcomed.append(user_id)

    assert emit_event("user_logged_in", user_id="1", email=EMAIL).ok
    (task,) = tasks
    assert not task.done()
    assert welcomed == []
    await task
    assert welcomed == ["1"]


# Configuration


EXTENSION = """
from types import SimpleNamespace
from madcrow_events.dispatcher import get_event_dispatcher
from madcrow_events.event_handlers import register_default_handlers

class FastAPI:
    def __init__(self):
        self.state = SimpleNamespace()

def init_events(app: FastAPI) -> None:
    dispatcher = get_event_dispatcher()
    register_default_handlers()
    app.state.event_dispatcher = dispatcher
"""


@renders("Configuration", 0, EXTENSION)
def test_an_extension_registers_the_default_handlers_and_offers_the_dispatcher(package, caplog):
    """The dispatcher in the application's state is the default one, and its events are audited."""
    from madcrow_events.event_handlers import ALL_GROUPS

    ext_events = package({"extensions/ext_events.py": EXTENSION})("extensions.ext_events")
    app = ext_events.FastAPI()
    assert madcrow_signals.subscriptions == ()
    ext_events.init_events(app)

    assert app.state.event_dispatcher is get_event_dispatcher()
    registered = {(entry.event, entry.handler) for entry in madcrow_signals.subscriptions}
    assert registered == {entry for group in ALL_GROUPS for entry in group.handlers}
    caplog.set_level(logging.INFO, "madcrow_events.audit")
    assert app.state.event_dispatcher.emit("user_logged_in", user_id="1", email=EMAIL).ok
    assert [record.name for record in caplog.records] == ["madcrow_events.audit"]


# Testing


@renders("Testing Event Emission")
def test_login_emits_event(auth_service):
    """An application's test subscribes a function of its own, and sees what a login emits."""
    from madcrow_events import get_event_dispatcher
    from madcrow_events.handlers import on_user_login

    email, password = EMAIL, PASSWORD
    dispatcher = get_event_dispatcher()
    events_received = []

    @on_user_login()
    def capture_event(sender, **context):
        events_received.append(context)

    auth_service.authenticate_user(email, password)

    assert len(events_received) == 1
    assert events_received[0]["email"] == email
    assert dispatcher is get_event_dispatcher()


@renders("Testing Event Handlers")
def test_login_handler(caplog):
    """A ready-made handler is a function that a test may call, without emitting anything."""
    from madcrow_events.event_handlers.audit_handlers import log_user_login

    caplog.set_level(logging.INFO, "madcrow_events.audit")
    context = {
        "user_id": "123",
        "email": "test@example.com",
        "timestamp": datetime.now(),  # noqa: DTZ005  # as in the document
    }

    log_user_login(sender=None, **context)

    (record,) = caplog.records
    assert (record.name, record.event) == ("madcrow_events.audit", "user_logged_in")
    assert (record.user_id, record.email) == ("123", "test@example.com")
    assert record.timestamp == context["timestamp"].isoformat()


# Troubleshooting


@pytest.fixture
def _restored_logger():
    log = logging.getLogger("madcrow_events")
    level = log.level
    yield
    log.setLevel(level)


@renders("Debugging")
@pytest.mark.usefixtures("_restored_logger")
def test_debug_logging_shows_the_flow_of_events(caplog):
    """Emissions, registrations, executions and errors are told, each with event and handler."""
    from madcrow_events.handlers import register_handler

    logging.getLogger("madcrow_events").setLevel(logging.DEBUG)

    def count_visit(sender, **context):
        pass

    def send_receipt(sender, **context):
        raise ConnectionError("the post office is closed")

    register_handler("user_logged_in", count_visit)
    register_handler("user_logged_in", send_receipt)
    emit_event("user_logged_in", user_id="1", email=EMAIL)

    def told(pattern, level="DEBUG"):
        return [
            record
            for record in caplog.records
            if record.levelname == level and re.search(pattern, record.getMessage())
        ]

    assert {record.name.partition(".")[0] for record in caplog.records} == {"madcrow_events"}
    assert len(told(r"count_visit subscribed to user_logged_in")) == 1
    assert len(told(r"send_receipt subscribed to user_logged_in")) == 1
    assert len(told(r"user_logged_in emitted")) == 1
    assert len(told(r"count_visit of user_logged_in returned after \d")) == 1
    assert len(told(r"send_receipt of user_logged_in raised after \d")) == 1
    (error,) = told(r"send_receipt of user_logged_in failed: ConnectionError", level="ERROR")
    assert error.exc_info[0] is ConnectionError
    assert "the post office is closed" in caplog.text
