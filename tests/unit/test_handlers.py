"""Declaring handlers: decorators, functions and groups (H2, H3)."""

from __future__ import annotations

from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    EventDispatcher,
    HandlerGroup,
    HandlerSignatureError,
    InvalidEventNameError,
    InvalidOptionError,
    LoginEventContext,
    SignalConflictError,
    SignalRegistry,
    SubscriptionConflictError,
    UnknownEventError,
    clear_all_handlers,
    emit_event,
    madcrow_signals,
    on_event,
    on_login_failed,
    on_user_login,
    register_handler,
    unregister_handler,
    user_logged_in,
    user_logged_out,
)


class OrderPlaced(BaseEventContext):
    order_id: int


@pytest.mark.guarantee("H2")
def test_decorators_return_the_function_itself() -> None:
    def handler(sender: Any, **context: Any) -> Any:
        return context["email"]

    group = HandlerGroup("mine")
    for decorate in (
        on_event("user_logged_in"),
        on_event("user_*"),
        on_user_login(),
        on_login_failed(),
        user_logged_out.on(),
        group.on("user_logged_in"),
    ):
        assert decorate(handler) is handler
    assert handler(sender=None, email="called in a test") == "called in a test"


@pytest.mark.guarantee("H2")
def test_stacked_decorators_subscribe_one_handler_to_many_events() -> None:
    seen: list[str] = []

    @on_event("user_logged_in")
    @on_event("user_logged_out")
    def track(sender: Any, **context: Any) -> None:
        seen.append("login" if "user_logged_in" in str(sender) else "logout")

    emit_event("user_logged_in", user_id="1")
    emit_event("user_logged_out", user_id="1")
    assert seen == ["login", "logout"]


@pytest.mark.guarantee("H3")
def test_every_way_to_subscribe_takes_the_same_options() -> None:
    def when(context: Any) -> bool:
        return bool(context.get("yes"))

    signals = SignalRegistry()
    signal = signals.signal("thing_happened")
    options: dict[str, Any] = {"sender": "me", "priority": 3, "once": True, "when": when}
    group = HandlerGroup("mine")

    def handlers() -> Any:
        while True:
            yield lambda: "called"

    each = handlers()
    on_event("thing_happened", signals=signals, **options)(next(each))
    register_handler("thing_happened", next(each), signals=signals, **options)
    signal.on(**options)(next(each))
    signal.subscribe(next(each), **options)
    signals.subscribe("thing_happened", next(each), **options)
    signals.subscribe("thing_*", next(each), **options)
    group.on("thing_happened", **options)(next(each))
    group.register(signals)
    assert len(signal.subscriptions) == 7
    for subscription in signal.subscriptions:
        assert subscription.priority == 3
        assert subscription.once
        assert subscription.when is when
        assert subscription.sender == "me"
    emit = EventDispatcher(signals).emit
    assert len(emit("thing_happened", "me").results) == 0
    assert len(emit("thing_happened", "you", yes=1).results) == 0
    assert len(emit("thing_happened", "me", yes=1).results) == 7
    assert len(emit("thing_happened", "me", yes=1).results) == 0


@pytest.mark.guarantee("H3")
def test_a_decorator_refuses_a_wrong_name_or_option_where_it_is_written() -> None:
    with pytest.raises(UnknownEventError):
        on_event("user_loged_in")
    with pytest.raises(InvalidEventNameError):
        on_event("User*").__call__(print)
    for make in (on_user_login, user_logged_in.on, lambda **o: on_event("user_logged_in", **o)):
        with pytest.raises(InvalidOptionError):
            make(priorty=1)


@pytest.mark.guarantee("H3")
def test_handlers_are_unregistered_by_name_or_pattern() -> None:
    def handler() -> None: ...

    register_handler("user_logged_in", handler)
    register_handler("user_*", handler)
    assert unregister_handler("user-logged-in", handler) is True
    assert unregister_handler("user_logged_in", handler) is False
    assert unregister_handler("user_*", handler) is True
    assert unregister_handler("user_*", handler) is False
    with pytest.raises(UnknownEventError):
        unregister_handler("user_loged_in", handler)
    assert emit_event("user_logged_in").results == ()


@pytest.mark.guarantee("H3")
def test_clear_all_handlers_leaves_the_events() -> None:
    register_handler("user_logged_in", lambda: None)
    register_handler("*", lambda: None)
    user_logged_in.connect(lambda sender: None, weak=False)
    other = SignalRegistry()
    other.signal("kept").subscribe(lambda: None)
    declared = [*madcrow_signals]
    clear_all_handlers()
    assert not user_logged_in.subscriptions
    assert [*madcrow_signals] == declared
    assert not madcrow_signals.signal("later").subscriptions
    assert other["kept"].subscriptions
    clear_all_handlers(signals=other)
    assert not other["kept"].subscriptions


@pytest.mark.guarantee("H3")
def test_a_group_registers_its_events_and_handlers_when_told_to(signals: SignalRegistry) -> None:
    group = HandlerGroup("shop")
    group.signal("order-placed", "An order came in.", context=OrderPlaced)

    @group.on("order_placed", priority=1)
    def by_name(order_id: int) -> str:
        return f"order {order_id}"

    @group.on("*")
    def every(sender: Any, **context: Any) -> str:
        return "every"

    @group.on(user_logged_in)
    def login(context: LoginEventContext) -> str:
        return context.email

    assert repr(group) == "<HandlerGroup shop, handlers: 3>"
    assert group.handlers == (("order_placed", by_name), ("*", every), ("user_logged_in", login))
    assert not signals
    group.register(signals)
    group.register(signals)
    assert signals["order_placed"].context_model is OrderPlaced
    assert signals["user_logged_in"].context_model is LoginEventContext
    emit = EventDispatcher(signals).emit
    assert [r.value for r in emit("order_placed", order_id=1).results] == ["order 1", "every"]
    assert len(emit("user_logged_in", user_id=1, email="e").results) == 2
    assert not user_logged_in.subscriptions
    group.unregister(signals)
    assert emit("order_placed", order_id=1).results == ()
    group.unregister(signals)
    group.register(signals)
    assert len(emit("order_placed", order_id=1).results) == 2


@pytest.mark.guarantee("H6")
def test_a_group_cancels_only_what_it_created(signals: SignalRegistry) -> None:
    signal = signals.signal("thing_happened")

    def shared() -> str:
        return "shared"

    signal.subscribe(shared)
    first, second = HandlerGroup("first"), HandlerGroup("second")
    for group in (first, second):
        group.on("thing_happened")(shared)
    first.on("thing_happened")(lambda: "first")
    other = SignalRegistry()
    other.signal("thing_happened")
    first.register(signals)
    second.register(signals)
    first.register(other)
    first.unregister(signals)
    second.unregister(signals)
    assert [r.value for r in EventDispatcher(signals).emit(signal).results] == ["shared"]
    assert len(other["thing_happened"].subscriptions) == 2


@pytest.mark.guarantee("H6")
def test_a_group_knows_what_it_created_across_an_isolated_block(signals: SignalRegistry) -> None:
    signal = signals.signal("thing_happened")
    group = HandlerGroup("mine")
    group.on("thing_happened")(lambda: None)
    group.on("thing_*")(lambda: None)
    group.register(signals)
    with signals.isolated():
        group.unregister(signals)
        assert not signal.subscriptions
        group.register(signals)
    with signals.isolated(empty=True):
        signals.signal("thing_happened")
        group.register(signals)
    assert len(signal.subscriptions) == 2
    group.unregister(signals)
    assert not signals.subscriptions


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda group: group.on("order_placed")(lambda emial: None), HandlerSignatureError),
        (lambda group: group.on("nowhere")(lambda: None), UnknownEventError),
        (lambda group: group.signal("present", context=LoginEventContext), SignalConflictError),
    ],
)
def test_a_group_registers_all_or_nothing(
    signals: SignalRegistry, spoil: Any, error: type[Exception]
) -> None:
    present = signals.signal("present", context=OrderPlaced)

    def before() -> None: ...

    present.subscribe(before)
    group = HandlerGroup("shop")
    group.signal("order_placed", context=OrderPlaced)
    group.on("order_placed")(lambda order_id: None)
    group.on("present")(before)
    group.on("*")(lambda: None)
    spoil(group)
    with pytest.raises(error):
        group.register(signals)
    assert list(signals) == ["present"]
    assert [entry.handler for entry in present.subscriptions] == [before]
    assert not signals.signal("later").subscriptions


def test_a_group_that_cannot_be_registered_takes_back_what_is_its_own_only(
    signals: SignalRegistry,
) -> None:
    signal = signals.signal("present")

    def listener(sender: Any, /, **arguments: Any) -> None:
        signals.signal("declared_by_a_listener")
        raise ConnectionError

    signal.receiver_connected.connect(listener)
    group = HandlerGroup("mine")
    group.signal("its_own")
    group.on("present")(lambda: None)
    with pytest.raises(ConnectionError):
        group.register(signals)
    assert sorted(signals) == ["declared_by_a_listener", "present"]
    assert not signals.subscriptions


def test_a_group_reports_a_conflict_and_takes_nothing_back_that_was_there(
    signals: SignalRegistry,
) -> None:
    def handler() -> None: ...

    signal = signals.signal("thing_happened")
    signal.subscribe(handler, priority=1)
    group = HandlerGroup("mine")
    group.on("thing_happened")(handler)
    with pytest.raises(SubscriptionConflictError):
        group.register(signals)
    assert len(signal.subscriptions) == 1


def test_a_group_checks_names_and_options_where_they_are_written() -> None:
    group = HandlerGroup("mine")
    with pytest.raises(InvalidEventNameError):
        group.signal("No Name")
    with pytest.raises(InvalidEventNameError):
        group.on("No Name")
    with pytest.raises(InvalidOptionError):
        group.on("user_logged_in", once="yes")  # type: ignore[arg-type]


def test_a_group_registers_on_the_default_registry_unless_told_otherwise() -> None:
    group = HandlerGroup("mine")
    group.on("user_logged_in")(lambda: "mine")
    with madcrow_signals.isolated():
        group.register()
        assert len(emit_event("user_logged_in").results) == 1
    assert emit_event("user_logged_in").results == ()
    group.register()
    assert len(emit_event("user_logged_in").results) == 1
    group.unregister()
    assert emit_event("user_logged_in").results == ()
