"""Emitting: loose and typed, checked and unchecked (C4, C5, E1)."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest

import madcrow_events
from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    EventDispatcher,
    InvalidOptionError,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    UnknownEventError,
    emit_event,
    emit_login_event,
    get_event_dispatcher,
    login_failed,
    madcrow_signals,
    on_user_login,
    set_event_dispatcher,
    user_logged_in,
)

CONTEXT = LoginEventContext(user_id=1, email="a@b.c")


class Special(LoginEventContext):
    level: int = 1


@pytest.fixture
def seen() -> list[tuple[Any, dict[str, Any]]]:
    return []


@pytest.fixture
def dispatcher(seen: list[Any]) -> EventDispatcher:
    @on_user_login()
    def record(sender: Any, **context: Any) -> None:
        seen.append((sender, context))

    return EventDispatcher()


@pytest.mark.guarantee("C4")
def test_a_loose_emission_passes_on_exactly_what_it_is_given(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    dispatcher.emit("user_logged_in", user_id="123", unknown=[1])
    assert seen == [(user_logged_in, {"user_id": "123", "unknown": [1]})]


@pytest.mark.guarantee("C4")
def test_a_context_key_may_be_called_like_a_parameter_of_ours(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    dispatcher.emit("user_logged_in", event="e", name="n", self="s", context="c")
    emit_event("user_logged_in", event="e", signal="s")
    assert seen[0][1] == {"event": "e", "name": "n", "self": "s", "context": "c"}
    assert seen[1][1] == {"event": "e", "signal": "s"}


@pytest.mark.guarantee("C4")
@pytest.mark.parametrize(
    "context",
    [
        LogoutEventContext(user_id=1, email="e"),
        BaseEventContext(),
        {"user_id": 1},
        None,
        LoginEventContext,
    ],
)
def test_a_context_of_another_class_is_refused_before_any_handler_runs(
    dispatcher: EventDispatcher, seen: list[Any], context: Any
) -> None:
    with pytest.raises(
        ContextTypeError, match=r"carries LoginEventContext, not [\w ]+: emit LoginE"
    ):
        dispatcher.emit_typed("user_logged_in", context)
    with pytest.raises(ContextTypeError) as caught:
        dispatcher.emit_typed(user_logged_in, context)
    assert caught.value.expected == (LoginEventContext,)
    assert caught.value.event == "user_logged_in"
    assert seen == []


@pytest.mark.guarantee("C4")
def test_a_context_in_the_place_of_the_sender_is_refused(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    with pytest.raises(ContextTypeError, match=r"as the sender: write emit_event\(Login"):
        dispatcher.emit("user_logged_in", CONTEXT)
    with pytest.raises(ContextTypeError):
        emit_event("user_logged_in", sender=CONTEXT)
    with pytest.raises(ContextTypeError, match=r"write emit_event\('user_logged_in', \*\*fields\)"):
        emit_event("user_logged_in", {"user_id": 1})
    assert seen == []


@pytest.mark.guarantee("C4")
def test_a_signal_without_model_wants_a_context_all_the_same() -> None:
    signals = SignalRegistry(strict=False)
    with pytest.raises(ContextTypeError, match="a context derived from BaseEventContext"):
        EventDispatcher(signals).emit_typed("anything", {"a": 1})  # type: ignore[call-overload]


@pytest.mark.guarantee("C4")
def test_an_instance_of_a_derived_model_is_accepted(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    special = Special(user_id=1, email="e", level=3)
    assert dispatcher.emit_typed("user_logged_in", special).context is special
    assert seen[0][1]["level"] == 3


@pytest.mark.guarantee("C4")
@pytest.mark.parametrize(
    ("keywords", "field", "fix"),
    [
        ({"user_id": 1}, "email", r"missing, emit it with email=\.\.\."),
        ({"user_id": 1, "email": "e", "nickname": "n"}, "nickname", "not a field, leave it out"),
        ({"user_id": 1, "email": 5}, "email", r"must be str, got int \(string_type\)"),
        (
            {"user_id": 1, "email": "e", "session_duration": "long"},
            "session_duration",
            r"must be float \| None, got str",
        ),
        (
            {"user_id": 1, "email": "e", "timestamp": "2026-01-01T00:00:00"},
            "timestamp",
            r"no time zone, give an aware one such as datetime\.now\(UTC\)",
        ),
    ],
)
def test_a_validating_dispatcher_refuses_keywords_that_do_not_fit(
    dispatcher: EventDispatcher, seen: list[Any], keywords: Any, field: str, fix: str
) -> None:
    validating = dispatcher.with_options(validate=True)
    with pytest.raises(ContextValidationError, match=fix) as caught:
        validating.emit("user_logged_in", **keywords)
    assert [name for name, _ in caught.value.problems] == [field]
    assert caught.value.event == "user_logged_in"
    assert caught.value.__cause__ is None
    assert seen == []
    dispatcher.emit("user_logged_in", **keywords)
    assert seen[0][1] == keywords


@pytest.mark.guarantee("C4")
def test_a_validating_dispatcher_passes_on_what_fits_as_it_is_given(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    validating = dispatcher.with_options(validate=True)
    validating.emit("user_logged_in", user_id=1, email="e")
    assert seen[0][1] == {"user_id": 1, "email": "e"}
    madcrow_signals.signal("anything")
    assert validating.emit("anything", whatever=1).ok


@pytest.mark.guarantee("C5")
def test_each_handler_gets_a_dictionary_of_its_own_with_the_same_values(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    def spoil(**context: Any) -> None:
        context.clear()

    def spoil_too(sender: Any, **context: Any) -> None:
        context["email"] = "spoilt"

    for handler in (spoil, spoil_too):
        user_logged_in.subscribe(handler, priority=1)
    shared = ["list"]
    emission = dispatcher.emit("user_logged_in", email=shared)
    assert seen[0][1] == {"email": shared}
    assert seen[0][1]["email"] is shared
    assert emission.context == {"email": shared}
    dispatcher.emit_typed("user_logged_in", CONTEXT)
    assert seen[1][1]["email"] == "a@b.c"
    assert CONTEXT.email == "a@b.c"


@pytest.mark.guarantee("E1")
def test_without_a_sender_the_sender_is_the_signal(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    me = object()
    dispatcher.emit("user_logged_in")
    dispatcher.emit("user_logged_in", me)
    dispatcher.emit("user_logged_in", sender=me)
    dispatcher.emit(user_logged_in)
    dispatcher.emit_typed("user_logged_in", CONTEXT)
    dispatcher.emit_typed(user_logged_in, CONTEXT, me)
    emit_event("user_logged_in", me)
    emit_login_event(CONTEXT, sender=me)
    senders = [sender for sender, _ in seen]
    assert senders == [user_logged_in, me, me, user_logged_in, user_logged_in, me, me, me]
    assert "user_logged_in" in str(senders[0])


@pytest.mark.guarantee("E1")
def test_a_false_sender_is_a_sender(dispatcher: EventDispatcher, seen: list[Any]) -> None:
    for sender in (0, "", False):
        dispatcher.emit("user_logged_in", sender)
    assert [sender for sender, _ in seen] == [0, "", False]


def test_every_spelling_of_a_name_and_the_signal_itself_can_be_emitted(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    for event in ("user_logged_in", "user-logged-in", user_logged_in):
        assert dispatcher.emit(event).signal is user_logged_in
        assert dispatcher.emit_typed(event, CONTEXT).signal is user_logged_in
    assert len(seen) == 6


@pytest.mark.guarantee("N9")
def test_a_signal_of_another_registry_is_emitted_by_a_dispatcher_of_its_own() -> None:
    signals = SignalRegistry()
    elsewhere = signals.signal("elsewhere")
    elsewhere.subscribe(lambda: "heard")
    assert EventDispatcher(signals).emit(elsewhere).results[0].value == "heard"
    for event in (elsewhere, "elsewhere"):
        with pytest.raises(UnknownEventError):
            emit_event(event)

    class Derived(madcrow_events.EventSignal[Any]): ...

    assert emit_event(Derived("derived")).event == "derived"


def test_options_that_mean_nothing_are_refused() -> None:
    with pytest.raises(InvalidOptionError, match="on_error must be 'log' or 'raise'"):
        EventDispatcher(on_error="explode")  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="signals must be a SignalRegistry"):
        EventDispatcher(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="must be an EventDispatcher"):
        set_event_dispatcher("mine")  # type: ignore[arg-type]


def test_with_options_changes_what_it_names_and_nothing_else() -> None:
    signals = SignalRegistry()
    first = EventDispatcher(signals, validate=True)
    second = first.with_options(on_error="raise", log_tracebacks=False)
    assert second.signals is signals
    assert (second.on_error, second.validate, second.log_tracebacks) == ("raise", True, False)
    third = second.with_options(validate=False)
    assert (third.on_error, third.validate, third.log_tracebacks) == ("raise", False, False)
    assert "on_error='raise'" in repr(second)


@pytest.mark.guarantee("E6")
def test_the_default_dispatcher_can_be_replaced() -> None:
    default = get_event_dispatcher()
    assert get_event_dispatcher() is default is madcrow_signals.dispatcher
    assert default.signals is madcrow_signals
    other = EventDispatcher(on_error="raise")
    set_event_dispatcher(other)
    assert get_event_dispatcher() is other is madcrow_signals.dispatcher
    assert emit_event("user_logged_in").dispatcher is other
    assert emit_login_event(CONTEXT).dispatcher is other
    set_event_dispatcher(None)
    assert get_event_dispatcher() not in (default, other)
    assert get_event_dispatcher().signals is madcrow_signals


@pytest.mark.guarantee("E2")
def test_an_emission_tells_what_came_of_it(dispatcher: EventDispatcher) -> None:
    def failing() -> None:
        raise ValueError("canary-4711")

    login_failed.subscribe(lambda: "canary-4712")
    login_failed.subscribe(failing)
    login_failed.subscribe(lambda: None, when=lambda context: False)
    emission = dispatcher.emit("login_failed", "me", email="canary-4713")
    assert emission.event == "login_failed"
    assert emission.signal is login_failed
    assert emission.sender == "me"
    assert emission.context == {"email": "canary-4713"}
    assert emission.dispatcher is dispatcher
    assert emission.parent is None
    assert emission.depth == 0
    assert emission.pending == 0
    assert emission.wait(0.1) is True
    assert [result.value for result in emission.results] == ["canary-4712"]
    assert [type(failure.exception) for failure in emission.failures] == [ValueError]
    assert repr(emission) == "<Emission login_failed, results: 1, failures: 1>"
    shown = repr(emission) + repr(emission.results) + repr(emission.failures)
    assert "canary" not in shown
    assert "ValueError" in shown
    with pytest.raises(TypeError):
        emission.context["email"] = "other"  # type: ignore[index]


@pytest.mark.guarantee("E2")
async def test_nothing_is_pending_after_a_sync_emission(dispatcher: EventDispatcher) -> None:
    pending: list[Any] = []
    user_logged_in.subscribe(lambda: pending.append(1))

    def during(emission: madcrow_events.Emission[Any]) -> None:
        pending.append((emission.pending, emission.wait(0)))

    user_logged_in.subscribe(during)
    emission = dispatcher.emit("user_logged_in")
    await emission.wait_async()
    assert pending == [1, (1, False)]
    assert emission.pending == 0


def test_a_test_can_patch_a_method_of_one_dispatcher_and_the_patch_is_undone(
    dispatcher: EventDispatcher, seen: list[Any]
) -> None:
    set_event_dispatcher(dispatcher)
    other = dispatcher.with_options()
    with mock.patch.object(dispatcher, "emit") as emit:
        emit_event("user_logged_in", user_id=1)
        other.emit("user_logged_in", user_id=2)
    emit.assert_called_once_with("user_logged_in", None, user_id=1)
    with (
        mock.patch.object(dispatcher, "emit", side_effect=OSError),
        pytest.raises(OSError),
    ):  # no message
        dispatcher.emit("user_logged_in", user_id=3)
    dispatcher.emit("user_logged_in", user_id=4)
    assert [keywords["user_id"] for _, keywords in seen] == [2, 4]


def test_a_sibling_is_of_the_same_class_and_has_the_same_attributes() -> None:
    class Named(EventDispatcher):
        name = ""

    dispatcher = Named()
    dispatcher.name = "billing"
    sibling = dispatcher.with_options(validate=True)
    assert isinstance(sibling, Named)
    assert sibling is not dispatcher
    assert (sibling.name, sibling.validate, dispatcher.validate) == ("billing", True, False)
