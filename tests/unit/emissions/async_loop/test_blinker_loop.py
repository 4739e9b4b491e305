"""blinker's own ways of sending, and async handlers (N5)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerTimeoutError,
    LoginEventContext,
    current_event,
)
from support.async_handlers import KEYWORDS, OWNER, awaited, plainly, run
from support.outcomes import values


def call_in_a_loop(handler: Any) -> Any:
    def called(*arguments: Any, **context: Any) -> Any:
        return asyncio.run(handler(*arguments, **context))

    return called


def call_as_async(handler: Any) -> Any:
    async def called(*arguments: Any, **context: Any) -> Any:
        return handler(*arguments, **context)

    return called


@pytest.mark.guarantee("N5")
async def test_connected_async_receivers_are_awaited_by_the_dispatcher(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def receiver(sender: Any, word: str = "") -> str:
        await asyncio.sleep(0)
        return word

    signal.connect(receiver)
    signal.connect(OWNER, sender="me")
    emission = await dispatcher.emit_async(signal, "me", word="heard")
    assert values(emission) == ["heard", "object"]
    emission = await awaited(dispatcher.emit(signal, "you", word="later"))
    assert values(emission) == ["later"]


@pytest.mark.guarantee("N5")
def test_a_send_reaches_async_handlers_of_every_shape_in_order(
    login: EventSignal[Any],
) -> None:
    async def model(context: LoginEventContext) -> str:
        return f"model {context.email}"

    async def by_name(email: str) -> str:
        await asyncio.sleep(0)
        return f"name {email}"

    async def emission(emission: Emission[Any]) -> str:
        assert current_event() is emission
        return "emission"

    def plain(email: str) -> str:
        return f"plain {email}"

    login.subscribe(model)
    login.subscribe(plain, priority=5)
    login.subscribe(by_name, priority=10)
    login.subscribe(plainly, priority=-1)
    login.subscribe(emission, priority=-2)
    expected = ["name a@b.c", "plain a@b.c", "model a@b.c", "function", "emission"]
    handlers = [by_name, plain, model, plainly, emission]
    sent = login.send("me", _async_wrapper=call_in_a_loop, **KEYWORDS)
    assert sent == list(zip(handlers, expected, strict=True))
    sent = run(login.send_async("me", _sync_wrapper=call_as_async, **KEYWORDS))
    assert sent == list(zip(handlers, expected, strict=True))
    with pytest.raises(RuntimeError, match="use send_async, or give _async_wrapper"):
        login.send("me", **KEYWORDS)
    with pytest.raises(RuntimeError, match="use send, or give _sync_wrapper"):
        run(login.send_async("me", **KEYWORDS))


@pytest.mark.guarantee("N5")
def test_a_send_calls_background_handlers_in_place(signal: EventSignal[Any]) -> None:
    def plain() -> Any:
        return ("plain", threading.current_thread())

    async def awaiting() -> Any:
        await asyncio.sleep(0)
        return ("async", threading.current_thread())

    signal.subscribe(awaiting, background=True)
    signal.subscribe(plain, background=True, priority=1)
    here = threading.current_thread()
    expected = [(plain, ("plain", here)), (awaiting, ("async", here))]
    assert signal.send(_async_wrapper=call_in_a_loop) == expected
    assert run(signal.send_async(_sync_wrapper=call_as_async)) == expected


@pytest.mark.guarantee("N5")
def test_send_async_keeps_the_options_and_stops_at_the_first_failure(
    signal: EventSignal[Any],
) -> None:
    calls: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(60)

    async def after() -> str:
        calls.append("after")
        return "after"

    async def skipped() -> None:
        calls.append("skipped")

    subscription = signal.subscribe(slow, timeout=0.01)
    signal.subscribe(skipped, when=lambda context: False)
    signal.subscribe(after, once=True)
    with pytest.raises(HandlerTimeoutError):
        run(signal.send_async())
    assert calls == []
    subscription.cancel()
    assert run(signal.send_async()) == [(after, "after")]
    assert run(signal.send_async()) == []


@pytest.mark.guarantee("N5")
@pytest.mark.parametrize("is_async", [False, True], ids=["send", "send_async"])
async def test_an_emission_of_a_send_that_a_failure_ended_has_ended(
    signal: EventSignal[Any], is_async: bool
) -> None:
    def failing(sender: Any) -> None:
        emissions.append(current_event())
        raise ValueError

    emissions: list[Any] = []
    signal.connect(failing)
    signal.connect(print)
    with pytest.raises(ValueError):
        if is_async:
            await signal.send_async("me", _sync_wrapper=call_as_async)
        else:
            signal.send("me")
    assert emissions[0].state == "done"
    assert emissions[0].wait(10)
