"""What an event may be called (N1, N3)."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, Union

import pytest

from madcrow_events import (
    BaseEventContext,
    EventSignal,
    HandlerSignatureError,
    InvalidEventNameError,
    SignalRegistry,
    UnknownEventError,
    emit_event,
    madcrow_signals,
    on_event,
    register_handler,
)
from madcrow_events.exceptions import MadcrowEventsError
from support.subscribers import OrderPlaced


@pytest.mark.guarantee("N1")
@pytest.mark.parametrize("name", ["a", "user_logged_in", "shop.order_placed", "a1.2b", "x" * 128])
def test_snake_case_names_with_dots_are_declared_as_they_are(
    signals: SignalRegistry, name: str
) -> None:
    assert signals.signal(name).name == name


@pytest.mark.guarantee("N1")
def test_hyphens_are_underscores_on_every_look_up(signals: SignalRegistry) -> None:
    declared = signals.signal("custom-event")
    assert declared.name == "custom_event"
    assert signals.signal("custom_event") is declared
    assert signals["custom-event"] is declared
    assert signals.get("custom-event") is declared
    assert "custom-event" in signals
    assert signals.resolve("custom-event") is declared


@pytest.mark.guarantee("N1")
@pytest.mark.parametrize(
    "name",
    [
        "",
        "User",
        "1st",
        "_private",
        "a b",
        "a.",
        ".a",
        "a..b",
        "naïve",
        "user\nlogged_in",
        "user_logged_in\n",
        "\x1b[31mred",
        "x" * 129,
        "*",
        "account_*",
    ],
)
def test_any_other_name_is_refused_with_one_printable_line_that_shows_how_to_write_it(
    signals: SignalRegistry, name: str
) -> None:
    with pytest.raises(InvalidEventNameError) as caught:
        signals.signal(name)
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.name == name
    assert "128 at most" in message or "as in '" in message or "is a pattern" in message
    assert not signals


@pytest.mark.guarantee("N1")
def test_a_refused_name_suggests_the_spelling_that_would_do(signals: SignalRegistry) -> None:
    for spelling in ("User Logged In", "UserLoggedIn", "userLoggedIn", "USER LOGGED IN"):
        expected = "as in 'user_logged_in'"
        with pytest.raises(InvalidEventNameError, match=expected):
            signals.signal(spelling)


@pytest.mark.guarantee("N4")
def test_a_pattern_cannot_be_declared_or_emitted(signals: SignalRegistry) -> None:
    with pytest.raises(InvalidEventNameError, match="is a pattern, which is for subscribing only"):
        signals.signal("user_*")


@pytest.mark.parametrize("name", [None, 3, {"a": 1}])
def test_a_name_that_is_no_string_is_refused_by_emit_too(name: object) -> None:
    from madcrow_events import BaseEventContext, emit_event, get_event_dispatcher

    with pytest.raises(InvalidEventNameError, match=r"give a context, as in emit_event\(OrderP"):
        emit_event(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidEventNameError, match=r"give a context, as in emit_event\(OrderP"):
        get_event_dispatcher().emit_typed(name, BaseEventContext())  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "events",
    [[OrderPlaced], (OrderPlaced, OrderPlaced), OrderPlaced | int, Union["OrderPlaced", int]],
)
def test_several_events_are_not_given_at_once(events: Any) -> None:
    for give in (on_event, emit_event, lambda events: register_handler(events, print)):
        with pytest.raises(InvalidEventNameError, match=r"write one @on_event\(\.\.\.\) above"):
            give(events)


def takes_the_class(context: OrderPlaced) -> None: ...
def takes_an_unknown_class(context: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def takes_a_number(number: int) -> None: ...


class Secretive:
    """As a proxy may be."""

    def __call__(self) -> None: ...

    @property
    def __annotations__(self) -> Any:  # type: ignore[override]  # the point
        raise RuntimeError("hunter2")


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize(
    ("handler", "event"),
    [
        (takes_the_class, "OrderPlaced"),
        (takes_an_unknown_class, "'event_name'"),
        (takes_a_number, "'event_name'"),
        (print, "'event_name'"),
        (Secretive(), "'event_name'"),
    ],
)
def test_a_handler_in_the_place_of_its_event_is_told_what_to_write(
    signals: SignalRegistry, handler: Any, event: str
) -> None:
    uses: list[Callable[[], object]] = [
        lambda: on_event(handler),
        lambda: register_handler(handler, OrderPlaced),
        lambda: signals.explain(handler),
    ]
    for use in uses:
        with pytest.raises(HandlerSignatureError) as caught:
            use()
        assert str(caught.value).endswith(
            f" is a handler, and the event comes first: write @on_event({event}) above it, or "
            f"register_handler({event}, handler)"
        )


def test_a_signal_made_by_hand_has_a_checked_name() -> None:
    with pytest.raises(InvalidEventNameError):
        EventSignal("Not A Name")
    assert EventSignal("some-name").name == "some_name"


@pytest.mark.guarantee("N3")
def test_an_undeclared_name_is_refused_with_its_nearest_neighbours() -> None:
    from madcrow_events import emit_event, on_event, register_handler

    for use in (
        lambda: emit_event("user_loged_in"),
        lambda: on_event("user_loged_in"),
        lambda: register_handler("user-loged-in", print),
    ):
        with pytest.raises(UnknownEventError, match="did you mean user_logged_in") as caught:
            use()
        assert caught.value.event == "user_loged_in"
        assert caught.value.suggestions[0] == "user_logged_in"
        assert isinstance(caught.value, LookupError)
        assert isinstance(caught.value, MadcrowEventsError)


@pytest.mark.guarantee("N3")
def test_a_name_like_no_other_is_refused_with_how_to_declare_it(signals: SignalRegistry) -> None:
    with pytest.raises(UnknownEventError) as caught:
        signals["order_placed"]
    assert str(caught.value) == (
        "no event is called 'order_placed': import the module that declares it, or declare it, by "
        "@registry.event above class OrderPlaced(BaseEventContext)"
    )
    assert caught.value.suggestions == ()


@pytest.mark.guarantee("N3")
@pytest.mark.parametrize(
    ("event", "declaration"),
    [
        ("qqq_placed", "@madcrow_signals.event above class QqqPlaced("),
        ("qq.zz", "@madcrow_signals.event(name='qq.zz') above class QqZz("),
        ("qqq_2", "@madcrow_signals.event(name='qqq_2') above class Qqq2("),
        ("q_z", "@madcrow_signals.event(name='q_z') above class QZ("),
        ("q.2z", "@madcrow_signals.event(name='q.2z') above class Q2z("),
    ],
)
def test_the_declaration_that_a_message_advises_declares_the_event(
    event: str, declaration: str
) -> None:
    with pytest.raises(UnknownEventError) as caught:
        madcrow_signals[event]
    assert declaration in str(caught.value)
    decorator, _, class_ = declaration.partition(" above ")
    code = f"{decorator}\n{class_}BaseEventContext): ..."
    with madcrow_signals.isolated():
        exec(code, {"madcrow_signals": madcrow_signals, "BaseEventContext": BaseEventContext})  # noqa: S102  # as a user does
        assert event in madcrow_signals


@pytest.mark.guarantee("N3")
def test_a_registry_that_is_not_strict_declares_on_first_use() -> None:
    from madcrow_events import EventDispatcher

    signals = SignalRegistry(strict=False)
    assert EventDispatcher(signals).emit("order-placed").event == "order_placed"
    signals.subscribe("order_paid", print)
    assert list(signals) == ["order_placed", "order_paid"]


@pytest.mark.guarantee("N3")
def test_similar_names_are_looked_for_when_somebody_reads_the_error(
    signals: SignalRegistry,
) -> None:
    with pytest.raises(UnknownEventError) as caught:
        signals["order_placd"]
    signals.signal("order_placed")
    signals.signal("order_placd")
    assert repr(caught.value) == (
        "UnknownEventError(\"no event is called 'order_placd': did you mean order_placed?\")"
    )
    assert caught.value.args == ("no event is called 'order_placd': did you mean order_placed?",)
    signals.signal("order_place")
    assert caught.value.suggestions == ("order_placed",)


@pytest.mark.guarantee("N3")
def test_an_error_that_is_sent_away_takes_its_suggestions_along(signals: SignalRegistry) -> None:
    signals.signal("order_placed")
    with pytest.raises(UnknownEventError) as caught:
        signals["order_placd"]
    returned = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own pickle
    assert returned.suggestions == ("order_placed",)
    assert str(returned) == "no event is called 'order_placd': did you mean order_placed?"


@pytest.mark.guarantee("N3")
@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("pad", "paid"),
        ("shop.order_plcaed", "shop.order_placed"),
        ("order_placed", "shop.order_placed"),
        ("x" * 100 + "_placd", "x" * 100 + "_placed"),
        ("shop.ordr_placed_7001", "shop.order_placed_7001"),
        ("n", None),
    ],
)
def test_among_thousands_of_names_the_nearest_is_suggested(
    signals: SignalRegistry, wrong: str, meant: str | None
) -> None:
    for name in ("paid", "shop.order_placed", "x" * 100 + "_placed"):
        signals.signal(name)
    for number in range(1000):
        signals.signal(f"billing.invoice_{number}_sent")
        signals.signal(f"shop.order_placed_7{number:03}")
    with pytest.raises(UnknownEventError) as caught:
        signals[wrong]
    assert caught.value.suggestions[:1] == (() if meant is None else (meant,))
