"""Async handlers are recognised, get what they ask for, and keep their options (A1, H5)."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from madcrow_events import (
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    HandlerSignatureError,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    UnknownEventError,
    current_event,
    emit_event_async,
    madcrow_signals,
    user_logged_in,
)
from support.async_handlers import KEYWORDS, OWNER, Emits, Owner, awaited, fail, plainly, run
from support.outcomes import values

# What is an async handler


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return "decorated " + await function(*arguments, **keywords)

    return wrapper


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize(
    ("handler", "value"),
    [
        (plainly, "function"),
        (OWNER.method, "method"),
        (OWNER, "object"),
        (Owner.of_class, "Owner"),
        (Owner.static, "static"),
        (decorated(plainly), "decorated function"),
        (functools.partial(plainly), "function"),
        (functools.partial(functools.partial(plainly), extra=1), "function"),
        (functools.partial(OWNER.method, extra=1), "method"),
        (functools.partial(OWNER), "object"),
    ],
)
@pytest.mark.parametrize("connected", [False, True])
def test_everything_that_gives_a_coroutine_is_awaited(
    signal: EventSignal[Any], emits: Emits, handler: Any, value: str, connected: bool
) -> None:
    if connected:
        signal.connect(handler)
    else:
        signal.subscribe(handler)
    emission = emits(signal, number=1)
    assert emission.results == ((handler, value),)
    assert emission.ok


@pytest.mark.guarantee("H1")
def test_generators_are_refused_also_if_they_are_async(signal: EventSignal[Any]) -> None:
    async def generator() -> AsyncIterator[int]:
        yield 1

    class Generates:
        async def __call__(self) -> AsyncIterator[int]:
            yield 1

    for handler in (generator, Generates(), functools.partial(generator)):
        with pytest.raises(HandlerSignatureError, match="return, not yield"):
            signal.subscribe(handler)


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("options", [{}, {"when": lambda context: True}, {"timeout": 60.0}])
def test_async_handlers_of_every_shape_get_what_they_ask_for(
    login: EventSignal[Any], emits: Emits, typed: bool, options: Any
) -> None:
    async def keywords(sender: Any, **context: Any) -> Any:
        return (sender, context["email"], "timestamp" in context)

    async def some(sender: Any, email: str, **rest: Any) -> Any:
        return (sender, email, "email" in rest)

    async def model(context: LoginEventContext) -> Any:
        return (type(context), context.email)

    async def union(context: LoginEventContext | LogoutEventContext) -> Any:
        return (type(context), context.email)

    async def emission(emission: Emission[Any]) -> Any:
        return (emission.event, current_event() is emission)

    async def typed_emission(emission: Emission[LoginEventContext]) -> Any:
        return emission.context.email

    async def by_name(sender: Any, email: str) -> Any:
        return (sender, email)

    async def nothing() -> Any:
        return None

    async def bound(word: str, context: LoginEventContext) -> Any:
        return (word, context.email)

    handlers = [keywords, some, model, union, emission, typed_emission, by_name, nothing]
    for handler in [*handlers, functools.partial(bound, "word")]:
        login.subscribe(handler, **options)
    if typed:
        ended = emits.typed(login, LoginEventContext(**KEYWORDS), "me")
    else:
        ended = emits(login, "me", **KEYWORDS)
    assert ended.failures == ()
    assert values(ended) == [
        ("me", "a@b.c", typed),
        ("me", "a@b.c", False),
        (LoginEventContext, "a@b.c"),
        (LoginEventContext, "a@b.c"),
        ("user_logged_in", True),
        "a@b.c",
        ("me", "a@b.c"),
        None,
        ("word", "a@b.c"),
    ]


@pytest.mark.guarantee("A1")
def test_each_async_handler_gets_keywords_of_its_own(
    signal: EventSignal[Any], emits: Emits
) -> None:
    async def spoiling(sender: Any, **context: Any) -> None:
        context.clear()

    async def reading(sender: Any, **context: Any) -> Any:
        await asyncio.sleep(0)
        return context

    signal.subscribe(spoiling)
    signal.subscribe(reading)
    assert values(emits(signal, a=1)) == [None, {"a": 1}]


@pytest.mark.guarantee("A1")
def test_keywords_that_do_not_fit_are_the_handlers_failure(
    login: EventSignal[Any], emits: Emits
) -> None:
    async def model(context: LoginEventContext) -> None: ...

    async def by_name(user_agent: str, email: str) -> None: ...

    async def other() -> str:
        return "other"

    login.subscribe(model)
    login.subscribe(by_name)
    login.subscribe(other)
    emission = emits(login, email="a@b.c")
    assert values(emission) == ["other"]
    assert len(emission.failures) == 2
    assert isinstance(emission.failures[0].exception, ContextValidationError)


@pytest.mark.guarantee("C3")
def test_a_generic_context_reaches_async_handlers_as_their_model(
    login: EventSignal[Any], emits: Emits
) -> None:
    async def model(context: LoginEventContext) -> str:
        return context.email

    async def keywords(sender: Any, **context: Any) -> str:
        return context["email"]

    login.subscribe(model)
    login.subscribe(keywords)
    generic = GenericEventContext(event_type="user_logged_in", data=KEYWORDS)
    assert values(emits.typed(login, generic)) == ["a@b.c", "a@b.c"]


# Options


@pytest.mark.guarantee("H5")
async def test_once_is_claimed_by_one_of_many_emissions_at_a_time(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0)
        return "once"

    signal.subscribe(handler, once=True)
    emissions = await asyncio.gather(*(dispatcher.emit_async(signal) for _ in range(5)))
    assert [value for emission in emissions for value in values(emission)] == ["once"]


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize("background", [False, True])
def test_when_and_once_are_decided_in_every_way_of_emitting(
    signal: EventSignal[Any], emits: Emits, background: bool
) -> None:
    signal.subscribe(
        plainly, once=True, when=lambda context: context["ready"], background=background
    )
    assert values(emits(signal, ready=False)) == []
    assert values(emits(signal, ready=True)) == ["function"]
    assert values(emits(signal, ready=True)) == []


@pytest.mark.guarantee("L1")
def test_a_method_that_has_begun_keeps_its_object(signal: EventSignal[Any], emits: Emits) -> None:
    class Short:
        def __init__(self) -> None:
            self.word = "whole"

        async def handle(self) -> str:
            owners.clear()
            await asyncio.sleep(0)
            gc.collect()
            return self.word

    owners = [Short()]
    signal.subscribe(owners[0].handle)
    assert values(emits(signal)) == ["whole"]
    deadline = time.monotonic() + 10
    while signal.subscriptions and time.monotonic() < deadline:
        gc.collect()  # the loop's thread may still be leaving the call
    assert values(emits(signal)) == []


@pytest.mark.guarantee("F4")
async def test_an_inline_handler_adds_no_async_one_to_its_own_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: signal.subscribe(plainly) and None)
    assert values(await dispatcher.emit_async(signal)) == [None]
    assert values(await dispatcher.emit_async(signal)) == [None, "function"]


# What an emitter can do wrong


@pytest.mark.guarantee("C4")
@pytest.mark.parametrize(
    ("emit", "error"),
    [
        (
            lambda d: d.emit_typed_async("user_logged_in", LogoutEventContext(**KEYWORDS)),
            ContextTypeError,
        ),
        (lambda d: d.emit_typed_async("user_logged_in", KEYWORDS), ContextTypeError),
        (lambda d: d.emit_async("user_logged_in", LoginEventContext(**KEYWORDS)), ContextTypeError),
        (lambda d: d.emit_async("user_loged_in", **KEYWORDS), UnknownEventError),
        (
            lambda d: d.with_options(validate=True).emit_async("user_logged_in", user_id=1),
            ContextValidationError,
        ),
    ],
)
async def test_an_emission_that_cannot_be_is_refused_before_any_handler(
    login: EventSignal[Any], dispatcher: EventDispatcher, emit: Any, error: type[Exception]
) -> None:
    calls: list[str] = []

    async def handler() -> None:
        calls.append("async")

    login.subscribe(handler)
    login.subscribe(lambda: calls.append("plain"))
    with pytest.raises(error):
        await emit(dispatcher)
    assert calls == []


@pytest.mark.guarantee("E1")
async def test_any_keyword_may_be_given_to_emit_async(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler(sender: Any, **context: Any) -> Any:
        return (sender, context)

    signal.subscribe(handler)
    emission = await dispatcher.emit_async("thing-happened", "me", event="e", context="c", name="n")
    assert values(emission) == [("me", {"event": "e", "context": "c", "name": "n"})]
    assert values(await dispatcher.emit_async(signal))[0][0] is signal


@pytest.mark.guarantee("E1")
async def test_the_module_function_emits_through_the_default_dispatcher() -> None:
    async def handler(email: str) -> str:
        return email

    user_logged_in.subscribe(handler)
    emission = await emit_event_async("user_logged_in", **KEYWORDS)
    assert values(emission) == ["a@b.c"]
    assert emission.signal is madcrow_signals["user_logged_in"]


# Logs


@pytest.mark.guarantee("G1")
def test_calls_of_async_handlers_are_logged_like_others(
    signal: EventSignal[Any], emits: Emits, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.02)

    def inline() -> None: ...

    async def behind() -> None: ...

    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    signal.subscribe(slow)
    signal.subscribe(fail)
    signal.subscribe(inline)
    signal.subscribe(behind, background=True)
    signal.subscribe(inline_background := functools.partial(inline), background=True)
    caplog.clear()
    emission = emits(signal)
    assert emits.dispatcher.drain(timeout=10)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert lines[0] == "thing_happened emitted by EventSignal to 5 handlers"
    calls = [
        re.fullmatch(r"handler (\S+) of thing_happened (\w+) after (\d+\.\d{3}) ms", line)
        for line in lines[1:]
    ]
    assert all(calls), lines
    found = sorted((match[1].rpartition(".")[2], match[2]) for match in calls if match)
    assert found == [
        ("behind", "returned"),
        ("fail", "raised"),
        ("inline", "returned"),
        ("inline", "returned"),
        ("slow", "returned"),
    ]
    took = {match[1].rpartition(".")[2]: float(match[3]) for match in calls if match}
    assert took["slow"] >= 15
    assert [result.handler for result in emission.results] == [
        inline,
        slow,
        behind,
        inline_background,
    ]


@pytest.mark.guarantee("G1")
def test_an_async_handler_that_is_skipped_is_logged_as_skipped(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    signal.subscribe(plainly, when=lambda context: False)
    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    assert run(dispatcher.emit_async(signal)).results == ()
    assert re.search(r"plainly of thing_happened skipped\b", caplog.text)


@pytest.mark.guarantee("G1")
def test_a_pending_emission_shows_no_value(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(password: str) -> str:
        await asyncio.sleep(60)
        return password

    async def main() -> None:
        emission = dispatcher.emit(signal, password="canary")
        assert repr(emission) == "<Emission thing_happened, results: 0, failures: 0, pending: 1>"
        await awaited(emission)
        assert "canary" not in repr(emission.failures)
        assert "canary" not in str(emission.failures[0].exception)

    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    signal.subscribe(slow, timeout=0.01)
    run(main())
    assert "canary" not in caplog.text


@pytest.mark.guarantee("A1", "H5")
async def test_a_handler_of_a_model_that_suspends_is_awaited_after_a_loose_emission(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    async def handle(context: LoginEventContext) -> str:
        await asyncio.sleep(0)
        return context.email

    signals.signal("user_came", context=LoginEventContext).subscribe(handle)
    emission = await dispatcher.emit_async("user_came", **KEYWORDS)
    assert [result.value for result in emission.results] == ["a@b.c"]
