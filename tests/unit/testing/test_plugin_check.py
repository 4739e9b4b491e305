"""A plugin's author is told what is wrong with the plugin, or nothing."""

import asyncio
import functools
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import HttpUrl

from madcrow_events import (
    BaseEventContext,
    Batch,
    HandlerGroup,
    LoginEventContext,
    LogoutEventContext,
    emit_event,
    madcrow_signals,
    on_event,
    user_logged_in,
)
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.testing import assert_plugin_works


class Paid(BaseEventContext):
    amount: float
    currency: str


def test_a_plugin_that_works_is_called_twice_in_every_way() -> None:
    group = HandlerGroup("good")
    group.signal("good.paid", context=Paid)
    called: list[str] = []

    @group.on(user_logged_in)
    def greet(login: LoginEventContext) -> None:
        called.append("typed")
        emit_event("good.paid", amount=1.0, currency="EUR")

    @group.on("good.paid")
    async def note(sender: object, amount: float, **rest: Any) -> None:
        called.append("async")

    @group.on("good.*", background=True)
    def later(**context: Any) -> None:
        called.append("background")

    @group.on("good.paid", batch=Batch(10, 0.01))
    def many(batch: list[Paid]) -> None:
        called.append("batch")

    before = set(madcrow_signals), madcrow_signals.subscriptions
    threads = set(threading.enumerate())
    assert_plugin_works(group)
    assert set(called) == {"typed", "async", "background", "batch"}
    assert called.count("typed") == 2
    assert (set(madcrow_signals), madcrow_signals.subscriptions) == before
    assert set(threading.enumerate()) <= threads


@pytest.mark.guarantee("H8")
def test_a_plugin_whose_handlers_are_for_classes_is_called_for_each_event() -> None:
    class Sent(Paid): ...

    group = HandlerGroup("good")
    group.signal("good.paid", context=Paid)
    group.signal("good.sent", context=Sent)
    called: list[Any] = []

    @group.on(Paid)
    def of_paid(context: Paid) -> None:
        called.append(type(context))

    @group.on(Unknown, batch=Batch(10, 0.01))
    def of_unknown(contexts: list[Unknown]) -> None:
        called.extend(map(type, contexts))

    example = Unknown(url=HttpUrl("https://example.com"))
    assert_plugin_works(group, examples={"app.seen": example})
    assert called.count(Paid) == called.count(Sent) == called.count(Unknown) == 2
    assert "good.paid" not in madcrow_signals


def broken(add: Callable[[HandlerGroup], object]) -> HandlerGroup:
    group = HandlerGroup("bad")
    add(group)
    return group


class Unknown(BaseEventContext):
    url: HttpUrl


def print_nothing(**context: Any) -> None: ...


def raises(**context: Any) -> None:
    raise ZeroDivisionError


async def raises_later(**context: Any) -> None:
    raise ZeroDivisionError


def subscribes_more(**context: Any) -> None:
    on_event("user_logged_out")(lambda: None)


def declares_more(**context: Any) -> None:
    madcrow_signals.signal("left.behind")


def emits_to_raises(**context: Any) -> None:
    emit_event("user_logged_out")


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (lambda it: None, "add handlers"),
        (
            lambda it: it.on("no_such_event")(raises),
            r"cannot be loaded: UnknownEventError.*examples=\{'no_such_event': ...\}",
        ),
        (lambda it: it.on("user_logged_in")(lambda emial: None), "loaded: HandlerSignatureError"),
        (lambda it: it.on("no_such.*")(raises), "no declared event reaches"),
        (lambda it: it.on("user_logged_in")(raises), "raises failed on user_logged_in"),
        (lambda it: it.on("user_logged_in")(raises_later), "raises_later failed on user_logged_in"),
        (
            lambda it: it.on("user_logged_in", background=True)(raises),
            r"failed on user_logged_in\(.*email=''.*ZeroDivisionError.*examples=",
        ),
        (
            lambda it: (
                it.on("user_logged_out")(raises),
                it.on("user_logged_in")(emits_to_raises),
            ),
            "raises failed on user_logged_out",
        ),
        (
            lambda it: it.on("user_logged_in", when=lambda login: login["is_admin"])(raises),
            r"raises was not called for user_logged_in.*`when`",
        ),
        (lambda it: it.on("user_logged_in", sender="me")(raises), "raises failed on"),
        (lambda it: (it.signal("bad.url", context=Unknown), it.on("bad.url")(raises)), "made up"),
        (lambda it: it.on(Unknown)(raises), "no declared event reaches"),
        (lambda it: it.on(LoginEventContext)(raises), "raises failed on user_logged_in"),
        (
            lambda it: it.on(LoginEventContext, when=lambda login: login["is_admin"])(raises),
            r"raises was not called for LoginEventContext.*`when`.*examples=\{'user_logged_in': ",
        ),
        (
            lambda it: (it.on("user_logged_in")(print_nothing), it.on(Unknown)(raises)),
            r"raises was not called for Unknown: .*examples=\{'event_name': \.\.\.\}",
        ),
        (lambda it: it.on("user_logged_in")(subscribes_more), "leaves subscriptions behind"),
        (lambda it: it.on("user_logged_in")(declares_more), "leaves events behind.*left.behind"),
    ],
)
def test_what_is_wrong_is_named(add: Callable[[HandlerGroup], object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_plugin_works(broken(add))
    assert not madcrow_signals.subscriptions


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        ([1], InvalidOptionError, "examples must be a mapping"),
        ({"user_logged_in": 5}, InvalidOptionError, "must be a context or a mapping .*not int"),
        ({"user_logged_in": {"sender": 1}}, InvalidOptionError, "must be keywords of its context"),
        ({"user_logged_in": {1: 1}}, InvalidOptionError, "keywords of its context, not sender"),
        (
            {"user_loged_in": {}},
            AssertionError,
            "example of user_loged_in.*did you mean user_logged_in",
        ),
        (
            {"user_logged_in": LogoutEventContext(user_id=1, email="a")},
            AssertionError,
            "the example of user_logged_in cannot be emitted",
        ),
    ],
)
def test_an_example_that_is_none_is_named(
    examples: Any, error: type[Exception], message: str
) -> None:
    group = HandlerGroup("good")
    group.on("user_logged_in")(lambda: None)
    with pytest.raises(error, match=message):
        assert_plugin_works(group, examples=examples)


async def test_a_running_loop_is_named() -> None:
    group = HandlerGroup("good")

    @group.on("user_logged_in")
    async def wait() -> None:
        await asyncio.sleep(0.01)

    with pytest.raises(AssertionError, match="write its test as a plain function"):
        assert_plugin_works(group)
    await asyncio.sleep(0.05)


def test_a_handler_outside_of_the_group_is_named() -> None:
    group = HandlerGroup("half")
    group.on("user_logged_in")(subscribes_more)
    on_event("user_logged_out")(functools.partial(textwrap.dedent, "text"))  # of another module
    on_event("user_logged_out")(raises)
    with pytest.raises(AssertionError, match="raises is subscribed to user_logged_out outside of"):
        assert_plugin_works(group)


def test_handlers_for_a_sender_and_a_condition_are_called() -> None:
    group, called = HandlerGroup("good"), []
    group.on("user_logged_in", sender="me", when=lambda login: login["is_admin"])(
        lambda: called.append(1)
    )
    example = LoginEventContext(user_id=1, email="a@example.com", is_admin=True)
    assert_plugin_works(group, examples={"user_logged_in": example})
    assert called == [1, 1]


def test_a_handler_must_be_called_for_each_of_its_events() -> None:
    group = HandlerGroup("half")
    group.on("user_logged_in")(note := lambda **context: None)
    group.on("user_logged_out", when=lambda logout: False)(note)
    with pytest.raises(AssertionError, match="was not called for user_logged_out"):
        assert_plugin_works(group)


def test_a_handler_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("madcrow_events.testing._plugin_check._SECONDS", 0.05)
    over = threading.Event()
    group = HandlerGroup("slow")

    @group.on("user_logged_in", background=True)
    def wait() -> None:
        over.wait(10)

    with pytest.raises(AssertionError, match=r"did not end within 0\.05 s"):
        assert_plugin_works(group)
    over.set()


def test_what_is_no_group_is_named() -> None:
    with pytest.raises(AssertionError, match="one HandlerGroup, but this is function"):
        assert_plugin_works(raises)  # type: ignore[arg-type]


def test_an_example_declares_an_event_of_the_application_and_is_emitted() -> None:
    group = HandlerGroup("shop")
    amounts: list[float] = []

    @group.on("paid")
    def note(amount: float) -> None:
        amounts.append(1 / amount)

    @group.on("refunded")
    def note_too(amount: float) -> None:
        amounts.append(amount)

    assert_plugin_works(
        group, examples={"paid": Paid(amount=2, currency="EUR"), "refunded": {"amount": 5}}
    )
    assert amounts == [0.5, 5] * 2
    assert "paid" not in madcrow_signals
