"""The examples of the reference document, each as a program that keeps what the document says.

`events` is read as `madcrow_events`. A block that says in which file it stands is
written to that file of a package of its own and imported; what a fragment leaves
out is filled in. `DIGESTS` lists the parts of the document, `renders` names the
part that a test stands for. Where the document lies beside the project, the last
tests check that none of its parts was forgotten, invented or changed.

One document, one file: hence its length.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import inspect
import io
import keyword
import logging
import re
import sys
import textwrap
import tokenize
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from uuid import UUID

import pytest
from pydantic import ValidationError

from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals

DOCUMENT = Path(__file__).parents[2].parent / "shared" / "reference" / "event-system.md"

EMAIL = "ada@example.com"
PASSWORD = "two owls, one lamp"
ADDRESS = "192.0.2.7"

HANDLING = "Event Handling Patterns"
EMITTING = "Event Emission Patterns"
ORGANIZATION = "Handler Organization"

DIGESTS = {
    ("Using the Dispatcher", 0): "a12f41f79c",
    ("In Services", 0): "729cdfe1fe",
    ("Method 1: Using Decorators (Recommended)", 0): "a14bcba709",
    ("Method 2: Programmatic Registration", 0): "3184db4acc",
    ("Method 3: Conditional Event Handling", 0): "1caca7a337",
    ("Method 4: Multiple Event Handler", 0): "e97bb47484",
    ("Method 5: Handler with Error Handling", 0): "8ea880cbf4",
    ("Method 6: Async Event Handlers (Advanced)", 0): "b5263b9166",
    ("2. Create Handler Function", 0): "13bcb8feef",
    ("1. Define the Signal", 0): "c42f8e82de",
    ("2. Create Context Model (Optional)", 0): "682f4cce8c",
    ("3. Create Event Handler", 0): "6b3418da98",
    ("4. Register Handler (if in new module)", 0): "478a685068",
    ("5. Emit the Event", 0): "32a964641c",
    ("1. Define the Signal and Context", 0): "de121de86f",
    ("2. Create Event Handlers", 0): "9f0e6d582d",
    ("3. Register Handlers", 0): "57b7e37cf3",
    ("4. Emit Events from Your Service", 0): "4b44bfca9c",
    ("5. Usage", 0): "86f32ffdab",
    ("Configuration", 0): "befb667c9f",
    ("Testing Event Emission", 0): "9774976146",
    ("Testing Event Handlers", 0): "e915a006cf",
    ("Debugging", 0): "87d51495da",
    (HANDLING, "@on_event('event_name')"): "6f23d44f8c",
    (HANDLING, "@on_user_login()"): "9c4470ee5b",
    (HANDLING, "@on_login_failed()"): "e3d32ba65d",
    (HANDLING, "@on_user_registered()"): "535d12fe19",
    (HANDLING, "register_handler()"): "ff0e2b64d7",
    (EMITTING, "emit_event('name', **data)"): "778072a8ec",
    (EMITTING, "emit_login_event(context)"): "2ed87c54fa",
    (EMITTING, "dispatcher.emit_typed()"): "69d33519bf",
    (EMITTING, "signal.send()"): "ac581e9b99",
    (ORGANIZATION, "auth_handlers.py"): "d1165ed7a1",
    (ORGANIZATION, "audit_handlers.py"): "70d654f525",
    (ORGANIZATION, "security_handlers.py"): "72bc4684a3",
    (ORGANIZATION, "system_handlers.py"): "301f43adcc",
}
"""Every Python block, by its heading and its index under it, and every row of the Quick
Reference, by its table's heading and its pattern; each with the digest of its text."""

RENDERINGS = defaultdict(list)
"""The source of the tests that stand for each part."""


def renders(heading, part=0, *pieces):
    """Note that a test stands for a part of the document.

    Args:
        heading: the heading above the part.
        part: the block's index under this heading, or the row's pattern.
        *pieces: what else belongs to the rendering: classes, functions, texts of modules.
    """

    def note(test):
        RENDERINGS[heading, part] += [test, *pieces]
        return test

    return note


@pytest.fixture
def user():
    return SimpleNamespace(id=UUID(int=7), email=EMAIL, name="Ada")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that writes the modules of a package `app_events`, and then imports one."""

    def write(modules):
        for name, text in {"__init__.py": "", **modules}.items():
            path = tmp_path / "app_events" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        return lambda module: importlib.import_module(f"app_events.{module}")

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "app_events"]:
        del sys.modules[name]


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


# Usage: custom handlers and custom events, as modules of a package

CUSTOM_LOGIN_HANDLER = """
from madcrow_events.handlers import on_user_login

@on_user_login()
def my_custom_login_handler(sender, **context):
    user_id = context.get('user_id')
    print(f"own logic for user {user_id}")
"""

CUSTOM_SIGNAL = """
from madcrow_events.signals import madcrow_signals

custom_event = madcrow_signals.signal('custom-event')
"""

CUSTOM_MODEL = """
from pydantic import Field
from madcrow_events.models import BaseEventContext

class CustomEventContext(BaseEventContext):
    custom_field: str = Field(..., description="A field of our own")
"""

CUSTOM_EVENT_HANDLER = """
from madcrow_events.handlers import on_event

@on_event('custom_event')
def handle_custom_event(sender, **context):
    custom_field = context.get('custom_field')
    print(f"received: {custom_field}")
"""

CUSTOM_REGISTRATION = """
from . import your_handlers

def register_all_handlers() -> None:
    from . import auth_handlers
    from . import audit_handlers
    from . import security_handlers
    from . import system_handlers
    from . import your_handlers
"""

# What stands in the modules of which a block shows only the names.
OTHER_HANDLERS = """
from madcrow_events.handlers import on_event

@on_event('{event}')
def handle_{event}(sender, **context):
    print(__name__)
"""

OTHER_MODULES = {
    f"event_handlers/{module}.py": OTHER_HANDLERS.format(event=event)
    for module, event in {
        "auth_handlers": "user_logged_in",
        "audit_handlers": "user_logged_out",
        "security_handlers": "login_failed",
        "system_handlers": "system_startup",
    }.items()
}


@renders("2. Create Handler Function", 0, CUSTOM_LOGIN_HANDLER)
def test_importing_a_handler_module_registers_its_handlers(package, capsys):
    """The decorator registers as the module is imported, and leaves the function callable."""
    load = package(
        {"event_handlers/__init__.py": "", "event_handlers/auth_handlers.py": CUSTOM_LOGIN_HANDLER}
    )
    assert emit_event("user_logged_in", user_id="1", email=EMAIL).results == ()
    handler = load("event_handlers.auth_handlers").my_custom_login_handler
    assert emit_event("user_logged_in", user_id="1", email=EMAIL).results == ((handler, None),)
    handler(None, user_id="2")
    assert capsys.readouterr().out == "own logic for user 1\nown logic for user 2\n"


@renders("1. Define the Signal", 0, CUSTOM_SIGNAL)
def test_an_event_is_declared_with_a_hyphen_and_emitted_with_an_underscore(package):
    """Both spellings mean the same event, which did not exist before."""
    assert "custom_event" not in madcrow_signals
    custom_event = package({"signals.py": CUSTOM_SIGNAL})("signals").custom_event
    assert str(custom_event) == custom_event.name == "custom_event"
    assert madcrow_signals["custom-event"] is madcrow_signals["custom_event"] is custom_event
    for spelling in ("custom_event", "custom-event", custom_event):
        assert emit_event(spelling, custom_field="value").signal is custom_event


@renders("2. Create Context Model (Optional)", 0, CUSTOM_SIGNAL, CUSTOM_MODEL)
def test_a_context_model_of_ones_own_adds_checked_fields(package):
    """A signal that names no model takes it, and handlers get its fields beside the base's."""
    from madcrow_events.handlers import register_handler

    load = package({"signals.py": CUSTOM_SIGNAL, "models.py": CUSTOM_MODEL})
    custom_event, model = load("signals").custom_event, load("models").CustomEventContext
    assert model.model_fields["custom_field"].description == "A field of our own"
    with pytest.raises(ValidationError):
        model()
    with pytest.raises(ValidationError):
        model(custom_field="value", unknown_field=1)

    received = []
    register_handler("custom_event", lambda sender, **context: received.append(context))
    context = model(custom_field="value", request_id="r-1")
    assert get_event_dispatcher().emit_typed(custom_event, context).context is context
    (keywords,) = received
    assert keywords["custom_field"] == "value"
    assert keywords["request_id"] == "r-1"


@renders("3. Create Event Handler", 0, CUSTOM_EVENT_HANDLER)
def test_a_module_of_ones_own_handles_the_custom_event(package, capsys):
    """The handler gets the event's keywords, and need not find the one it looks for."""
    load = package({"signals.py": CUSTOM_SIGNAL, "event_handlers.py": CUSTOM_EVENT_HANDLER})
    load("signals")
    handler = load("event_handlers").handle_custom_event
    assert emit_event("custom_event", custom_field="value").results == ((handler, None),)
    emit_event("custom_event")
    assert capsys.readouterr().out == "received: value\nreceived: None\n"


@renders("4. Register Handler (if in new module)", 0, CUSTOM_REGISTRATION)
def test_a_new_handler_module_is_registered_with_the_package(package, capsys):
    """Importing the package registers the new module, calling its function all of them, once."""
    load = package(
        {
            "signals.py": CUSTOM_SIGNAL,
            "event_handlers/__init__.py": CUSTOM_REGISTRATION,
            "event_handlers/your_handlers.py": CUSTOM_EVENT_HANDLER,
            **OTHER_MODULES,
        }
    )
    load("signals")
    event_handlers = load("event_handlers")
    assert [entry.event for entry in madcrow_signals.subscriptions] == ["custom_event"]

    for _ in range(2):
        event_handlers.register_all_handlers()
        assert Counter(entry.event for entry in madcrow_signals.subscriptions) == {
            "custom_event": 1,
            "user_logged_in": 1,
            "user_logged_out": 1,
            "login_failed": 1,
            "system_startup": 1,
        }
    emit_event("custom_event", custom_field="value")
    emit_event("system_startup")
    assert capsys.readouterr().out.splitlines() == [
        "received: value",
        "app_events.event_handlers.system_handlers",
    ]


@renders("5. Emit the Event")
def test_a_custom_event_is_emitted_with_keywords_or_a_generic_context():
    """The entries of a generic context's data arrive as keywords of their own."""
    from madcrow_events import emit_event
    from madcrow_events.dispatcher import get_event_dispatcher
    from madcrow_events.handlers import on_event
    from madcrow_events.models import GenericEventContext

    madcrow_signals.signal("custom-event")
    received = []

    @on_event("custom_event")
    def handle_custom_event(sender, **context):
        received.append((str(sender), context))

    emit_event("custom_event", custom_field="value")
    assert received.pop() == ("custom_event", {"custom_field": "value"})

    context = GenericEventContext(
        event_type="custom_event", data={"custom_field": "value", "additional_data": 123}
    )
    dispatcher = get_event_dispatcher()
    emission = dispatcher.emit_typed("custom_event", context)
    assert emission.ok
    assert emission.context is context
    ((sender, keywords),) = received
    assert sender == "custom_event"
    assert keywords["custom_field"] == "value"
    assert keywords["additional_data"] == 123
    assert keywords["event_type"] == "custom_event"
    assert keywords["data"] == {"custom_field": "value", "additional_data": 123}
    assert keywords["timestamp"] == context.timestamp


# The complete example: one package for its five blocks

NOTIFICATION_SIGNAL = """
from madcrow_events.signals import madcrow_signals

user_notification_sent = madcrow_signals.signal('user-notification-sent')
"""

NOTIFICATION_MODEL = """
from uuid import UUID
from pydantic import Field
from madcrow_events.models import BaseEventContext

class NotificationEventContext(BaseEventContext):
    user_id: UUID = Field(..., description="Whom it is for")
    notification_type: str = Field(..., description="What kind it is")
    message: str = Field(..., description="What it says")
    channel: str = Field(..., description="How it goes: email, sms or push")
    success: bool = Field(..., description="Whether it went out")
"""

NOTIFICATION_HANDLERS = """
from madcrow_events.handlers import on_event
import collections
import logging

logger = logging.getLogger(__name__)
metrics = collections.Counter()

@on_event('user_notification_sent')
def log_notification(sender, **context):
    user_id = context.get('user_id')
    notification_type = context.get('notification_type')
    channel = context.get('channel')
    success = context.get('success')
    status = "SUCCESS" if success else "FAILED"
    logger.info(f"{status}: {notification_type} to {user_id} via {channel}")

@on_event('user_notification_sent')
def track_notification_metrics(sender, **context):
    notification_type = context.get('notification_type')
    channel = context.get('channel')
    success = context.get('success')
    metrics[notification_type, channel, success] += 1

@on_event('user_notification_sent')
def handle_failed_notifications(sender, **context):
    if not context.get('success'):
        user_id = context.get('user_id')
        notification_type = context.get('notification_type')
        logger.warning(f"no {notification_type} for {user_id}")
"""

NOTIFICATION_REGISTRATION = """
from . import notification_handlers

def register_all_handlers() -> None:
    from . import auth_handlers
    from . import audit_handlers
    from . import security_handlers
    from . import system_handlers
    from . import notification_handlers
"""

NOTIFICATION_SERVICE = """
from uuid import UUID
from app_events.models import NotificationEventContext
from madcrow_events.dispatcher import get_event_dispatcher

class NotificationService:
    channels = {}

    def _send_via_channel(self, user_id, message, channel):
        return self.channels[channel](user_id, message)

    def send_notification(self, user_id: UUID, message: str, channel: str = "email"):
        try:
            success = self._send_via_channel(user_id, message, channel)
            context = NotificationEventContext(
                user_id=user_id,
                notification_type="general",
                message=message,
                channel=channel,
                success=success
            )
            dispatcher = get_event_dispatcher()
            dispatcher.emit_typed('user_notification_sent', context)
            return success
        except Exception as e:
            context = NotificationEventContext(
                user_id=user_id,
                notification_type="general",
                message=message,
                channel=channel,
                success=False
            )
            dispatcher = get_event_dispatcher()
            dispatcher.emit_typed('user_notification_sent', context)
            raise
"""

NOTIFICATION_MODULES = {
    "signals.py": NOTIFICATION_SIGNAL,
    "models.py": NOTIFICATION_MODEL,
    "event_handlers/__init__.py": NOTIFICATION_REGISTRATION,
    "event_handlers/notification_handlers.py": NOTIFICATION_HANDLERS,
    "services.py": NOTIFICATION_SERVICE,
    **OTHER_MODULES,
}


@pytest.fixture
def notifications(package, caplog):
    """The package of the complete example, its handlers registered."""
    load = package(NOTIFICATION_MODULES)
    caplog.set_level(logging.INFO, "app_events")
    load("signals")
    event_handlers = load("event_handlers")
    event_handlers.register_all_handlers()
    return SimpleNamespace(
        handlers=event_handlers.notification_handlers,
        model=load("models").NotificationEventContext,
        service=load("services").NotificationService,
    )


@renders("1. Define the Signal and Context", 0, NOTIFICATION_SIGNAL, NOTIFICATION_MODEL)
def test_the_notification_event_has_a_signal_and_a_context(package, user):
    """Every field of the context is required and described, and the event carries them."""
    load = package(NOTIFICATION_MODULES)
    user_notification_sent = load("signals").user_notification_sent
    model = load("models").NotificationEventContext
    assert user_notification_sent.name == "user_notification_sent"
    own = set(model.model_fields) - {"timestamp", "request_id", "user_agent", "ip_address"}
    assert own == {"user_id", "notification_type", "message", "channel", "success"}
    assert all(model.model_fields[name].is_required() for name in own)
    assert all(model.model_fields[name].description for name in own)
    context = model(
        user_id=str(user.id), notification_type="general", message="hi", channel="sms", success=True
    )
    assert context.user_id == user.id
    assert get_event_dispatcher().emit_typed(user_notification_sent, context).context is context


@renders("2. Create Event Handlers", 0, NOTIFICATION_HANDLERS)
def test_the_notification_handlers_log_count_and_warn(notifications, user, caplog):
    """All three are called for each event; the last acts on failures alone."""
    handlers = notifications.handlers
    for success in (True, False):
        emission = emit_event(
            "user_notification_sent",
            user_id=user.id,
            notification_type="general",
            channel="sms",
            success=success,
        )
        assert [result.handler for result in emission.results] == [
            handlers.log_notification,
            handlers.track_notification_metrics,
            handlers.handle_failed_notifications,
        ]
    assert handlers.metrics == {("general", "sms", True): 1, ("general", "sms", False): 1}
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"SUCCESS: general to {user.id} via sms"),
        ("INFO", f"FAILED: general to {user.id} via sms"),
        ("WARNING", f"no general for {user.id}"),
    ]


@renders("3. Register Handlers", 0, NOTIFICATION_REGISTRATION)
def test_the_notification_handlers_are_registered_with_the_package(package):
    """Importing the package registers the new handlers; its function adds the others."""
    load = package(NOTIFICATION_MODULES)
    load("signals")
    event_handlers = load("event_handlers")
    notification_events = Counter({"user_notification_sent": 3})
    assert Counter(s.event for s in madcrow_signals.subscriptions) == notification_events
    event_handlers.register_all_handlers()
    others = Counter(["user_logged_in", "user_logged_out", "login_failed", "system_startup"])
    assert Counter(s.event for s in madcrow_signals.subscriptions) == notification_events + others


@renders("4. Emit Events from Your Service", 0, NOTIFICATION_SERVICE)
@pytest.mark.parametrize("outcome", [True, False, ConnectionError])
def test_the_notification_service_emits_whatever_the_channel_does(notifications, user, outcome):
    """Success, refusal and an exception each make one event, and reach the caller unchanged."""
    from madcrow_events import Emission
    from madcrow_events.handlers import on_event

    received = []

    @on_event("user_notification_sent")
    def receive(emission: Emission):
        received.append(emission.context)

    def send(user_id, message):
        if outcome is ConnectionError:
            raise ConnectionError
        return outcome

    service = notifications.service()
    service.channels = {"email": send}
    if outcome is ConnectionError:
        with pytest.raises(ConnectionError):
            service.send_notification(user.id, "hi")
    else:
        assert service.send_notification(user.id, "hi") is outcome
    (context,) = received
    assert type(context) is notifications.model
    assert (context.user_id, context.message, context.channel) == (user.id, "hi", "email")
    assert context.notification_type == "general"
    assert context.success is (outcome is True)


@renders("5. Usage")
def test_the_caller_of_the_notification_service_triggers_all_handlers(notifications, user, caplog):
    """The attempt is logged, counted and, where it failed, handled; the service knows of none."""
    NotificationService = notifications.service  # noqa: N806  # the name of the class
    sent = []
    notification_service = NotificationService()
    notification_service.channels = {"email": lambda *letter: sent.append(letter) or True}

    notification_service.send_notification(
        user_id=user.id, message="Welcome to our platform!", channel="email"
    )
    assert sent == [(user.id, "Welcome to our platform!")]
    assert caplog.messages == [f"SUCCESS: general to {user.id} via email"]
    assert notifications.handlers.metrics == {("general", "email", True): 1}

    caplog.clear()
    with pytest.raises(KeyError):
        notification_service.send_notification(user_id=user.id, message="Hi", channel="pigeon")
    assert caplog.messages == [
        f"FAILED: general to {user.id} via pigeon",
        f"no general for {user.id}",
    ]


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


# Quick Reference


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
    from madcrow_events import BaseEventContext, get_event_dispatcher, on_event

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


# The document itself


class Part(NamedTuple):
    """A Python block or a row of the Quick Reference."""

    heading: str
    name: int | str
    text: str

    @property
    def digest(self):
        """Ten digits that change with the text, but not with its indentation or width."""
        lines = [line.rstrip() for line in textwrap.dedent(self.text).strip().splitlines()]
        if isinstance(self.name, str):
            lines = [" ".join(line.split()) for line in lines]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:10]


def parts_of(document):
    """Return the Python blocks of a document and the rows of its Quick Reference.

    Raises:
        ValueError: a fence is of another language, or not closed.
    """
    parts, found = [], Counter()
    heading, in_quick_reference = "", False
    lines = iter(document.splitlines())
    for line in lines:
        if line.lstrip().startswith("```"):
            language, body = line.strip(" `"), []
            while not (inner := next(lines, "not closed")).lstrip().startswith("```"):
                if inner == "not closed":
                    raise ValueError(f"a fence under '{heading}' is not closed")
                body.append(inner)
            if language == "python":
                parts.append(Part(heading, found[heading], "\n".join(body)))
                found[heading] += 1
            elif language:
                raise ValueError(f"a fence under '{heading}' is in {language}")
        elif title := re.fullmatch(r"(#+) (.+)", line):
            heading = title[2].strip()
            if len(title[1]) <= 2:
                in_quick_reference = heading == "Quick Reference"
        elif in_quick_reference and (row := re.match(r"\| `([^`]+)`", line)):
            parts.append(Part(heading, row[1], line))
    return parts


def names_in(code):
    """Return the names in a block as they are read here, its events and context keys included."""
    names = set()
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(code)).readline):
        if token.type == tokenize.NAME and not keyword.iskeyword(token.string):
            names.add("madcrow_events" if token.string == "events" else token.string)
        elif literal := re.fullmatch(r"([\"'])([a-z_-]+)\1", token.string):
            names.add(literal[2])
    return names


def words_in(pieces):
    """Return the words, hyphens included, in the sources of what stands for a block."""
    sources = [piece if isinstance(piece, str) else inspect.getsource(piece) for piece in pieces]
    return {word for source in sources for word in re.findall(r"[\w-]+", source)}


@pytest.fixture
def reference():
    if not DOCUMENT.is_file():
        pytest.skip("the reference document does not lie beside the project")
    return parts_of(DOCUMENT.read_text(encoding="utf-8"))


def test_a_test_stands_for_every_part_on_the_list():
    """And none for a part that is not on it."""
    assert RENDERINGS.keys() == DIGESTS.keys()


def test_no_part_of_the_document_is_forgotten_invented_or_changed(reference):
    """Whoever changes a block finds the test that stands for it, and the digest to renew."""
    assert {part[:2]: part.digest for part in reference} == DIGESTS
    assert len(reference) == len(DIGESTS)


def test_a_test_has_the_names_of_the_block_that_it_stands_for(reference):
    """Modules, functions, arguments, events and context keys have the names they have there."""
    missing = {
        part[:2]: names_in(part.text) - words_in(RENDERINGS.get(part[:2], ()))
        for part in reference
        if isinstance(part.name, int)
    }
    assert {part: names for part, names in missing.items() if names} == {}


def test_the_parts_of_a_document_are_its_blocks_and_the_rows_of_its_quick_reference():
    """Blocks are counted under their heading; other tables and plain fences are no parts."""
    document = """
# One

| `no` | part |

```python
# no heading
x = 1
```

```
# no heading
```

```python
y = 2
```

## Quick Reference

### Table

| Pattern | Use |
| ------- | --- |
| `a()`   | b   |

## Two

| `no` | part |
"""
    parts = parts_of(document)
    assert parts == [
        Part("One", 0, "# no heading\nx = 1"),
        Part("One", 1, "y = 2"),
        Part("Table", "a()", "| `a()`   | b   |"),
    ]
    assert parts[2].digest == Part("Table", "a()", "| `a()` | b |").digest
    assert parts[0].digest == Part("One", 0, "  # no heading\n  x = 1  \n").digest
    assert parts[0].digest != Part("One", 0, "# no heading\nx = 2").digest


@pytest.mark.parametrize(
    ("document", "message"),
    [("# A\n```js\n1\n```\n", "'A' is in js"), ("# A\n```python\n1\n", "'A' is not closed")],
)
def test_no_block_escapes_by_its_language_or_its_end(document, message):
    """A fence that is neither Python nor plain, or never ends, would hide a block."""
    with pytest.raises(ValueError, match=message):
        parts_of(document)
