"""Options and lifetimes of subscriptions, most of them in every way of emitting (H5, L1)."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from types import MethodType
from typing import Any
from unittest.mock import create_autospec

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    ContextValidationError,
    Emission,
    EventDispatcher,
    InvalidOptionError,
    SignalRegistry,
    SubscriptionConflictError,
    TimingObserver,
    on_event,
    register_handler,
    user_logged_in,
)
from madcrow_events.subscriptions import SubscriptionOptions
from support.outcomes import logged, values
from support.ways import Way, in_every_way


@pytest.mark.guarantee("H5")
@in_every_way
async def test_once_is_called_once(way: Way) -> None:
    subscription = way.signal.subscribe(way.returning("now"), once=True)
    assert values(await way.emit()) == ["now"]
    assert values(await way.emit()) == []
    assert not subscription.active
    assert not way.signal.subscriptions


@pytest.mark.guarantee("H5")
@in_every_way
async def test_once_waits_for_its_sender_and_its_when(way: Way) -> None:
    way.signal.subscribe(
        way.returning("now"), once=True, sender="me", when=lambda context: context["ready"]
    )
    assert values(await way.emit(sender="you", ready=True)) == []
    assert values(await way.emit(sender="me", ready=False)) == []
    assert values(await way.emit(sender="me", ready=True)) == ["now"]
    assert values(await way.emit(sender="me", ready=True)) == []


@pytest.mark.guarantee("H5")
@in_every_way
async def test_a_nested_emission_finds_once_claimed(way: Way) -> None:
    calls: list[int] = []

    async def body(emission: Emission[Any]) -> None:
        calls.append(emission.depth)
        await way.emit_inside()

    way.signal.subscribe(way.handler(body), once=True)
    assert (await way.emit()).ok
    assert calls == [0]


@pytest.mark.guarantee("H5")
@in_every_way
async def test_when_decides_and_sees_the_context_read_only(way: Way) -> None:
    seen: list[Any] = []

    def when(context: Any) -> bool:
        seen.append(context)
        return bool(context["ready"])

    way.signal.subscribe(way.returning("ready"), when=when)
    way.signal.subscribe(way.returning("always"))
    assert values(await way.emit(ready=False)) == ["always"]
    assert values(await way.emit(ready=True)) == ["ready", "always"]
    with pytest.raises(TypeError):
        seen[0]["ready"] = True


@pytest.mark.guarantee("H5")
@in_every_way
async def test_a_when_that_raises_is_that_handlers_failure(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = way.signal.subscribe(
        way.returning("guarded"), when=lambda context: context["missing"], once=True
    )
    way.signal.subscribe(way.returning("other"))
    emission = await way.emit()
    (failure,) = emission.failures
    assert failure.handler is subscription.handler
    assert isinstance(failure.exception, KeyError)
    assert values(emission) == ["other"]
    assert len(logged(caplog)) == 1
    assert subscription.active


@pytest.mark.guarantee("H5")
@in_every_way
async def test_a_handler_for_one_sender_hears_no_other(way: Way) -> None:
    way.signal.subscribe(way.returning("everyone"))
    way.signal.subscribe(way.returning("me"), sender="me")
    way.signal.subscribe(way.returning("zero"), sender=0)
    assert values(await way.emit()) == ["everyone"]
    assert values(await way.emit(sender="me")) == ["everyone", "me"]
    assert values(await way.emit(sender=0)) == ["everyone", "zero"]
    assert values(await way.emit(sender=False)) == ["everyone"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_a_method_goes_with_its_object_unless_it_is_held(way: Way) -> None:
    gone, kept = way.owner("gone"), way.owner("kept")
    way.signal.subscribe(gone.handle)
    way.signal.subscribe(kept.handle, weak=False)
    emission = await way.emit()
    assert values(emission) == ["gone", "kept"]
    assert [result.handler for result in emission.results] == [gone.handle, kept.handle]
    del gone, kept, emission
    gc.collect()
    assert values(await way.emit()) == ["kept"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_a_method_of_a_class_does_not_go_with_the_class(way: Way) -> None:
    """Nothing else may hold a class that a function made."""
    owner = type(way.owner("kept"))
    way.signal.subscribe(MethodType(owner.handle, owner))
    del owner
    gc.collect()
    assert values(await way.emit()) == ["kept"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_a_function_is_held_unless_it_is_not_to_be(way: Way) -> None:
    way.signal.subscribe(way.returning("held"))
    let_go = way.returning("let go")
    way.signal.subscribe(let_go, weak=True)
    assert values(await way.emit()) == ["held", "let go"]
    del let_go
    gc.collect()
    assert values(await way.emit()) == ["held"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_an_object_that_goes_away_during_an_emission_is_not_called_or_called_whole(
    way: Way,
) -> None:
    owners = [way.owner("heard")]

    async def clear(emission: Emission[Any]) -> str:
        owners.clear()
        return "cleared"

    way.signal.subscribe(way.handler(clear))
    way.signal.subscribe(owners[0].handle)
    emission = await way.emit()
    assert emission.ok
    assert values(emission) in (["cleared"], ["cleared", "heard"])
    del emission  # which names the method, and so keeps the object
    gc.collect()
    assert values(await way.emit()) == ["cleared"]


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
def test_the_registry_is_listed_where_it_is_an_option() -> None:
    for subscribe in (on_event, lambda *args, **options: register_handler(*args, print, **options)):
        with pytest.raises(InvalidOptionError, match="priority, sender, signals, timeout"):
            subscribe("user_logged_in", registry=None)
        with pytest.raises(InvalidOptionError, match="did you mean 'signals'"):
            subscribe("user_logged_in", signal=None)


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
            "'prority': did you mean 'priority'. The options are background, batch, id, on_error",
        ),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: Any, fix: str) -> None:
    with pytest.raises(InvalidOptionError, match=fix) as caught:
        user_logged_in.subscribe(lambda: None, **options)
    assert caught.value.option in options
    assert not user_logged_in.subscriptions


OTHER_VALUES: dict[str, Any] = {
    "priority": 1,
    "once": True,
    "when": lambda context: True,
    "weak": True,
    "timeout": 1.0,
    "background": True,
    "batch": Batch(),
    "id": "another",
    "on_error": "raise",
}
"""By option, a value that is not its default; another sender makes another subscription."""


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize("option", sorted(SubscriptionOptions.__annotations__.keys() - {"sender"}))
def test_to_subscribe_again_with_another_value_of_an_option_is_a_conflict(
    option: str, signal: Any
) -> None:
    async def handler(contexts: Any) -> None: ...

    signal.subscribe(handler)
    with pytest.raises(SubscriptionConflictError, match="with other options"):
        signal.subscribe(handler, **{option: OTHER_VALUES[option]})


def test_an_async_when_is_refused(signal: Any) -> None:
    async def when(context: Any) -> bool:
        return True

    with pytest.raises(InvalidOptionError, match="plain function"):
        signal.subscribe(lambda: None, when=when)


class Numbered(BaseEventContext):
    number: int


def by_model(context: Numbered) -> None:
    """Take the context."""


def by_any_model(context: BaseEventContext) -> None:
    """Take the context of any event."""


def by_emission(emission: Emission[Numbered]) -> None:
    """Take the emission with the context."""


def by_field(number: int, other: str) -> None:
    """Take two fields."""


async def awaited(context: Numbered) -> None:
    """Take the context, and be awaited."""


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize(
    ("name", "handler"),
    [
        ("numbered", by_model),
        ("numbered", by_emission),
        ("numbered", by_field),
        ("numbered", awaited),
        ("num*", by_any_model),
    ],
)
@pytest.mark.parametrize("how", ["inline", "background", "send"])
def test_an_emission_that_does_not_fit_uses_no_once_up(
    signals: SignalRegistry, dispatcher: EventDispatcher, name: str, handler: Any, how: str
) -> None:
    """It is the handler's failure, which names the handler; the next emission is its one."""
    signal = signals.signal("numbered", context=None if handler is by_field else Numbered)
    subscription = signals.subscribe(name, handler, once=True, background=how == "background")
    misfit: dict[str, Any] = {"number": "none"} if handler is not by_field else {"number": 1}

    def emit(**context: Any) -> Emission[Any]:
        emission = asyncio.run(dispatcher.emit_async(signal, **context))
        assert dispatcher.drain(5)
        return emission

    if how == "send":
        with pytest.raises(ContextValidationError):
            signal.send(_async_wrapper=lambda call: call, **misfit)
    else:
        (failure,) = emit(**misfit).failures
        assert failure.handler is handler
        assert isinstance(failure.exception, ContextValidationError)
        if handler is by_field:
            assert "by_field takes by name" in str(failure.exception)
    assert subscription.active
    assert emit(number=2, **({"other": "x"} if handler is by_field else {})).ok
    assert not subscription.active


def with_rest(sender: Any, number: Any, **rest: Any) -> None:
    """Take a field by name, and the rest."""


async def awaited_with_rest(sender: Any, number: Any, **rest: Any) -> None:
    """Likewise, and be awaited."""


def with_emission(emission: Emission[Any], /, *, other: str, **rest: Any) -> None:
    """Likewise, after the emission."""


def who_comes_first(who: Any, **context: Any) -> None:
    """Take the sender under another name."""


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("how", ["emit", "background", "observed"])
@pytest.mark.parametrize(
    ("handler", "misfit", "told"),
    [
        (with_rest, {}, "emitted without 'number', which"),
        (awaited_with_rest, {}, "emitted without 'number', which"),
        (with_emission, {"number": 1}, "emitted without 'other', which"),
        (who_comes_first, {"who": "ada"}, r"keyword 'who', .*only: \(who, /, \*\*context\)"),
    ],
)
def test_keywords_that_a_call_would_not_take_use_no_once_up(
    signals: SignalRegistry, handler: Any, misfit: Any, told: str, how: str, once: bool
) -> None:
    """The failure says what to write, without `once` too."""
    dispatcher = EventDispatcher(signals)
    if how == "observed":
        dispatcher.add_observer(TimingObserver())
    signal = signals.signal("renamed")
    subscription = signals.subscribe("ren*", handler, once=once, background=how == "background")
    emission = asyncio.run(_emit_and_drain(dispatcher, signal, **misfit))
    (failure,) = emission.failures
    assert isinstance(failure.exception, ContextValidationError)
    assert re.search(told, str(failure.exception))
    assert subscription.active
    assert asyncio.run(_emit_and_drain(dispatcher, signal, number=1, other="")).ok
    assert subscription.active is not once


async def _emit_and_drain(dispatcher: Any, signal: Any, **context: Any) -> Emission[Any]:
    emission: Emission[Any] = await dispatcher.emit_async(signal, **context)
    assert await dispatcher.drain_async(5)
    return emission


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("handler", [with_rest, by_field, by_any_model])
def test_a_type_error_of_a_handler_itself_is_its_failure(
    signals: SignalRegistry, dispatcher: EventDispatcher, handler: Any
) -> None:
    """Though it could be called."""
    error = TypeError("mine")
    signals.signal("numbered").subscribe(create_autospec(handler, side_effect=error))
    (failure,) = dispatcher.emit("numbered", number=1, other="").failures
    assert failure.exception is error


@pytest.mark.guarantee("H5")
async def test_a_send_without_the_wrapper_that_it_needs_uses_no_once_up(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """One that is used up meanwhile needs no wrapper."""
    signal = signals.signal("numbered", context=Numbered)
    to_await = signal.subscribe(awaited, once=True)
    with pytest.raises(RuntimeError, match="give _async_wrapper"):
        signal.send(number=1)
    assert to_await.active

    signal.subscribe(lambda: dispatcher.emit(signal, number=1), priority=1, once=True)
    assert signal.send(number=1)
    assert not to_await.active

    plain = signal.subscribe(by_model, once=True)
    with pytest.raises(RuntimeError, match="give _sync_wrapper"):
        await signal.send_async(number=1)
    assert plain.active


@pytest.mark.guarantee("H5")
def test_a_once_that_is_used_up_does_not_fail_for_what_does_not_fit(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """An emission that began before finds it claimed, and makes no arguments."""
    signal = signals.signal("numbered", context=Numbered)

    def first(number: Any) -> None:
        if number == "none":
            assert dispatcher.emit(signal, number=1).ok

    signal.subscribe(first)
    signal.subscribe(by_model, once=True)
    assert dispatcher.emit(signal, number="none").ok
