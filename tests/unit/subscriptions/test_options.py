"""Priority, `once` and `when` (H5)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from madcrow_events import EventDispatcher, InvalidOptionError, user_logged_in
from support.subscribers import emitted


@pytest.mark.guarantee("H5")
def test_higher_priorities_run_first_and_equals_in_order_of_registration(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: "b")
    signal.subscribe(lambda: "last", priority=-1)
    signal.subscribe(lambda: "first", priority=10)
    signal.subscribe(lambda: "c")
    assert emitted(dispatcher) == ["first", "b", "c", "last"]


@pytest.mark.guarantee("H5")
def test_once_is_called_once(signal: Any, dispatcher: EventDispatcher) -> None:
    subscription = signal.subscribe(lambda: "now", once=True)
    assert emitted(dispatcher) == ["now"]
    assert emitted(dispatcher) == []
    assert not subscription.active
    assert not signal.subscriptions


@pytest.mark.guarantee("H5")
def test_once_waits_for_its_sender_and_its_when(signal: Any, dispatcher: EventDispatcher) -> None:
    signal.subscribe(lambda: "now", once=True, sender="me", when=lambda context: context["ready"])
    assert emitted(dispatcher, "you", ready=True) == []
    assert emitted(dispatcher, "me", ready=False) == []
    assert emitted(dispatcher, "me", ready=True) == ["now"]
    assert emitted(dispatcher, "me", ready=True) == []


@pytest.mark.guarantee("H5")
def test_once_is_claimed_by_one_of_many_threads(signal: Any, dispatcher: EventDispatcher) -> None:
    for _ in range(50):
        calls: list[int] = []
        barrier = threading.Barrier(4)

        def emit(barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            dispatcher.emit("thing_happened")

        signal.subscribe(lambda calls=calls: calls.append(1), once=True)
        threads = [threading.Thread(target=emit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == [1]


@pytest.mark.guarantee("H5")
def test_an_emission_that_began_before_the_claim_finds_once_claimed(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []

    def early() -> None:
        if not calls:
            calls.append("early")
            dispatcher.emit("thing_happened")

    signal.subscribe(early)
    signal.subscribe(lambda: calls.append("once"), once=True)
    dispatcher.emit("thing_happened")
    assert calls == ["early", "once"]


@pytest.mark.guarantee("H5")
def test_a_nested_emission_finds_once_claimed(signal: Any, dispatcher: EventDispatcher) -> None:
    calls: list[int] = []

    def handler() -> None:
        calls.append(1)
        dispatcher.emit("thing_happened")

    signal.subscribe(handler, once=True)
    dispatcher.emit("thing_happened")
    assert calls == [1]


@pytest.mark.guarantee("H5")
def test_when_sees_the_context_read_only(signal: Any, dispatcher: EventDispatcher) -> None:
    seen: list[Any] = []

    def when(context: Mapping[str, Any]) -> bool:
        seen.append(context)
        return bool(context["is_admin"])

    signal.subscribe(lambda: "admin", when=when)
    assert emitted(dispatcher, is_admin=False) == []
    assert emitted(dispatcher, is_admin=True) == ["admin"]
    with pytest.raises(TypeError):
        seen[0]["is_admin"] = True


@pytest.mark.guarantee("H5")
def test_a_when_that_raises_is_that_handlers_failure(
    signal: Any, dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []
    subscription = signal.subscribe(
        lambda: calls.append("guarded"), when=lambda context: context["missing"], once=True
    )
    signal.subscribe(lambda: calls.append("other"))
    emission = dispatcher.emit("thing_happened")
    (failure,) = emission.failures
    assert failure.handler is subscription.handler
    assert isinstance(failure.exception, KeyError)
    assert calls == ["other"]
    assert subscription.active


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"priority": "high"}, "must be an int, such as 10"),
        ({"priority": True}, "must be an int"),
        ({"priority": 1.5}, "must be an int"),
        ({"when": "is_admin"}, "must be a plain function"),
        ({"once": 1}, "once must be True or False"),
        ({"once": None}, "once must be True or False"),
        ({"weak": "yes"}, "weak must be True, False or None"),
        (
            {"prority": 1},
            "'prority': did you mean 'priority'. The options are background, batch, once",
        ),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: Any, fix: str) -> None:
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        user_logged_in.subscribe(lambda: None, **options)
    assert caught.value.option in options
    assert not user_logged_in.subscriptions


def test_an_async_when_is_refused(signal: Any) -> None:
    async def when(context: Any) -> bool:
        return True

    with pytest.raises(InvalidOptionError, match="plain function"):
        signal.subscribe(lambda: None, when=when)
