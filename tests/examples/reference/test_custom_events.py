"""Custom handlers and custom events, and the complete example of the reference document."""

from __future__ import annotations

import logging
from collections import Counter
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals
from support.reference import EMAIL, renders

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
