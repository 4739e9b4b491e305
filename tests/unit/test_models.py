"""Contexts: the base, the built-in ones, the generic one (C1, C2, C3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

import madcrow_events
from madcrow_events import (
    BaseEventContext,
    ContextModelError,
    ContextTypeError,
    ContextValidationError,
    EventDispatcher,
    GenericEventContext,
    LoginEventContext,
    LoginFailedEventContext,
    SignalConflictError,
    SignalRegistry,
    SystemShutdownEventContext,
    madcrow_signals,
)


class OrderPlaced(BaseEventContext):
    order_id: int
    note: str = ""

    @cached_property
    def label(self) -> str:
        return f"order {self.order_id}"


@pytest.mark.guarantee("C1")
def test_a_context_says_when_it_happened_in_utc() -> None:
    before = datetime.now(UTC)
    context = BaseEventContext()
    assert before <= context.timestamp <= datetime.now(UTC)
    assert context.timestamp.tzinfo is UTC


@pytest.mark.guarantee("C1")
def test_another_zone_is_kept_as_the_same_moment_in_utc() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    kept = BaseEventContext(timestamp=moment).timestamp
    assert kept == moment
    assert kept.utcoffset() == timedelta(0)


@pytest.mark.guarantee("C1")
def test_a_naive_timestamp_is_refused_with_what_to_write() -> None:
    with pytest.raises(ValidationError, match=r"no time zone.*datetime\.now\(UTC\)"):
        BaseEventContext(timestamp=datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.guarantee("C1")
def test_a_context_is_frozen_and_closed() -> None:
    context = LoginEventContext(user_id=1, email="a@b.c")
    with pytest.raises(ValidationError, match="frozen") as caught:
        context.email = "canary-4711"  # type: ignore[misc]
    assert "canary" not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        context.nickname = "canary-4711"  # type: ignore[attr-defined]
    assert "canary" not in str(caught.value)


@pytest.mark.guarantee("C1")
def test_a_moment_that_utc_cannot_show_is_refused() -> None:
    with pytest.raises(ValidationError, match="outside of the years 1 to 9999"):
        BaseEventContext(timestamp="0001-01-01T00:00:00+01:00")  # type: ignore[arg-type]


class WithPrivate(BaseEventContext):
    _note: str = ""


@pytest.mark.guarantee("C1")
def test_a_private_attribute_of_a_context_is_nobodys_field() -> None:
    context = WithPrivate()
    context._note = "set"
    assert context._note == "set"
    assert "_note" not in context._keywords()


@pytest.mark.guarantee("C1")
def test_a_derived_context_with_a_reserved_field_is_refused_when_it_is_emitted(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Sneaky(OrderPlaced):
        sender: str = "x"

    signals.signal("order_placed", context=OrderPlaced)
    with pytest.raises(ContextModelError, match="'sender'"):
        dispatcher.emit_typed("order_placed", Sneaky(order_id=1))
    with pytest.raises(ValidationError, match="Extra inputs"):
        LoginEventContext(user_id=1, email="a@b.c", nickname="x")  # type: ignore[call-arg]


@pytest.mark.guarantee("C1")
@pytest.mark.guarantee("G1")
def test_a_validation_error_does_not_show_what_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        LoginEventContext(user_id=1, email=["canary-4711"], password="canary-4712")  # type: ignore[arg-type, call-arg]
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)


@pytest.mark.guarantee("C1")
@pytest.mark.parametrize("field", ["sender", "self"])
def test_a_model_whose_field_the_call_needs_is_refused_as_its_signal_is_declared(
    signals: SignalRegistry, field: str
) -> None:
    from pydantic import create_model

    model: Any = create_model("Bad", __base__=BaseEventContext, **{field: (str, "x")})  # type: ignore[call-overload]
    with pytest.raises(ContextModelError, match=f"'{field}'.*rename it") as caught:
        signals.signal("order_placed", context=model)
    assert caught.value.model is model
    assert "order_placed" not in signals


@pytest.mark.parametrize(
    "model", [dict, "LoginEventContext", LoginEventContext(user_id=1, email="")]
)
def test_a_context_that_is_no_model_class_is_refused(signals: SignalRegistry, model: Any) -> None:
    with pytest.raises(ContextModelError, match="derived from BaseEventContext"):
        signals.signal("order_placed", context=model)


@pytest.mark.guarantee("N2")
def test_a_model_in_the_place_of_the_description_is_refused(signals: SignalRegistry) -> None:
    with pytest.raises(ContextModelError, match=r"signal\('order_placed', context=OrderPlaced\)"):
        signals.signal("order_placed", OrderPlaced)  # type: ignore[call-overload]
    assert not signals


@pytest.mark.guarantee("C2")
def test_the_built_in_events_are_declared_with_their_contexts() -> None:
    expected = {
        "user_logged_in": "LoginEventContext",
        "user_logged_out": "LogoutEventContext",
        "login_failed": "LoginFailedEventContext",
        "user_registered": "RegistrationEventContext",
        "account_activated": "AccountActivatedEventContext",
        "account_banned": "AccountBannedEventContext",
        "account_closed": "AccountClosedEventContext",
        "password_changed": "PasswordChangedEventContext",
        "suspicious_activity": "SuspiciousActivityEventContext",
        "session_expired": "SessionExpiredEventContext",
        "token_refreshed": "TokenRefreshedEventContext",
        "system_startup": "SystemStartupEventContext",
        "system_shutdown": "SystemShutdownEventContext",
    }
    declared = {
        name: signal.context_model.__name__
        for name, signal in madcrow_signals.items()  # type: ignore[attr-defined]
    }
    assert declared == expected
    for name in expected:
        signal = getattr(madcrow_events, name)
        assert signal is madcrow_signals[name]
        assert signal.doc


@pytest.mark.guarantee("C2")
@pytest.mark.parametrize(
    ("event", "emitter", "decorator", "values"),
    [
        ("user_logged_in", "emit_login_event", "on_user_login", {"user_id": 1, "email": "e"}),
        ("user_logged_out", "emit_logout_event", "on_user_logout", {"user_id": 1, "email": "e"}),
        (
            "login_failed",
            "emit_login_failed_event",
            "on_login_failed",
            {"email": "e", "failure_reason": "r"},
        ),
        (
            "user_registered",
            "emit_registration_event",
            "on_user_registered",
            {"user_id": 1, "email": "e"},
        ),
        (
            "account_activated",
            "emit_account_activated_event",
            "on_account_activated",
            {"user_id": 1},
        ),
        ("account_banned", "emit_account_banned_event", "on_account_banned", {"user_id": 1}),
        ("account_closed", "emit_account_closed_event", "on_account_closed", {"user_id": 1}),
        ("password_changed", "emit_password_changed_event", "on_password_changed", {"user_id": 1}),
    ],
)
def test_each_event_with_helpers_has_an_emitter_and_a_decorator_of_its_own(
    event: str, emitter: str, decorator: str, values: dict[str, Any]
) -> None:
    emit, on = getattr(madcrow_events, emitter), getattr(madcrow_events, decorator)
    assert (emit.__name__, on.__name__) == (emitter, decorator)
    assert event in emit.__doc__
    assert event in on.__doc__
    model = madcrow_signals[event].context_model
    assert model is not None
    seen: list[Any] = []

    @on()
    def handler(sender: Any, **context: Any) -> None:
        seen.append((sender, context["timestamp"]))

    context = model(**values)
    emission = emit(context, "somebody")
    assert emission.event == event
    assert seen == [("somebody", context.timestamp)]


@pytest.mark.guarantee("C2")
@pytest.mark.parametrize("user_id", [UUID(int=7), 7, "7", str(UUID(int=7))])
def test_an_account_id_keeps_its_type(user_id: object) -> None:
    kept = LoginEventContext(user_id=user_id, email="e").user_id  # type: ignore[arg-type]
    assert kept == user_id
    assert type(kept) is type(user_id)


@pytest.mark.guarantee("C2")
def test_durations_are_seconds_and_may_be_whole_numbers() -> None:
    assert SystemShutdownEventContext(uptime=3).uptime == 3.0
    assert LoginEventContext(user_id=1, email="e", session_duration=1800).session_duration == 1800.0


@pytest.mark.guarantee("C2")
def test_a_failed_login_counts_itself_unless_told_otherwise() -> None:
    assert LoginFailedEventContext(email="e", failure_reason="r").attempt_count == 1


@pytest.mark.guarantee("C2")
def test_handler_failed_is_declared_in_any_registry_when_first_needed(
    signals: SignalRegistry,
) -> None:
    assert "handler_failed" not in signals
    assert "handler_failed" not in madcrow_signals
    signals.subscribe("handler_failed", lambda event_name, handler_name, exception_type: None)
    model = signals["handler_failed"].context_model
    assert model is madcrow_events.HandlerFailedEventContext
    assert signals.signal("handler_failed").context_model is model
    with pytest.raises(SignalConflictError):
        SignalRegistry().signal("handler_failed", context=LoginEventContext)


@pytest.mark.guarantee("C3")
def test_a_generic_context_gives_its_data_as_keywords_and_its_fields_win(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("custom-event")
    seen: list[dict[str, Any]] = []
    signals.subscribe("custom_event", lambda sender, **context: seen.append(context))
    context = GenericEventContext(
        event_type="custom_event",
        data={"custom_field": "value", "additional_data": 123, "ip_address": "loses"},
        ip_address="wins",
    )
    assert dispatcher.emit_typed("custom_event", context).ok
    (keywords,) = seen
    assert keywords["custom_field"] == "value"
    assert keywords["additional_data"] == 123
    assert keywords["ip_address"] == "wins"
    assert keywords["event_type"] == "custom_event"
    assert keywords["data"] is context.data


@pytest.mark.guarantee("C3")
def test_a_typed_handler_gets_its_model_from_a_generic_context(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed", context=OrderPlaced)
    seen: list[OrderPlaced] = []

    def handler(context: OrderPlaced) -> None:
        seen.append(context)

    signals.subscribe("order_placed", handler)
    generic = GenericEventContext(event_type="order-placed", data={"order_id": "7"}, request_id="r")
    assert dispatcher.emit_typed("order_placed", generic).ok
    assert seen == [OrderPlaced(order_id=7, request_id="r", timestamp=generic.timestamp)]
    bad = GenericEventContext(event_type="order_placed", data={"order": 7})
    (failure,) = dispatcher.emit_typed("order_placed", bad).failures
    assert isinstance(failure.exception, ContextValidationError)


@pytest.mark.guarantee("C3")
def test_the_generic_context_is_no_events_own_model(signals: SignalRegistry) -> None:
    with pytest.raises(ContextModelError, match="declare order_placed without context="):
        signals.signal("order_placed", context=GenericEventContext)


@pytest.mark.guarantee("C3")
def test_a_generic_context_is_refused_under_another_events_name(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed")
    with pytest.raises(ContextTypeError, match="event_type='order_placed'"):
        dispatcher.emit_typed("order_placed", GenericEventContext(event_type="order_paid"))


@pytest.mark.guarantee("C3")
@pytest.mark.parametrize("key", ["sender", "self"])
def test_a_generic_context_refuses_keys_that_the_call_needs(key: str) -> None:
    with pytest.raises(ValidationError, match="rename them"):
        GenericEventContext(event_type="custom_event", data={key: 1})


@pytest.mark.guarantee("C5")
def test_keywords_are_the_models_attributes_and_nothing_that_is_cached_beside_them(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_placed", context=OrderPlaced)
    context = OrderPlaced(order_id=1)
    assert context.label == "order 1"
    seen: list[dict[str, Any]] = []
    signals.subscribe("order_placed", lambda sender, **context: seen.append(context))
    dispatcher.emit_typed("order_placed", context)
    assert set(seen[0]) == set(OrderPlaced.model_fields)
    assert seen[0]["timestamp"] is context.timestamp
