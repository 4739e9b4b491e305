"""How long the bridge waits for an answer of a broker, whatever the client does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from madcrow_events.bridge import _patience
from madcrow_events.bridge._errors import BrokerAwayError, TopologyError
from madcrow_events.bridge._patience import close, within_patience


async def answer() -> str:
    return "yes"


async def fail(error: BaseException) -> str:
    raise error


async def go_on(seconds: float) -> str:
    """Do so, as some clients do when they are cancelled at the wrong moment."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        await asyncio.sleep(seconds)
    raise ConnectionError("nobody hears of this")


async def test_an_answer_is_returned():
    """It is that of the client."""
    assert await within_patience("Redis", "answered", answer()) == "yes"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionError("no route"), "Redis has not answered: no route"),
        (TimeoutError(), "Redis has not answered: TimeoutError"),
        (ValueError("hunter2"), "Redis has not answered: ValueError"),
        (asyncio.CancelledError(), "Redis has not answered: the connection is closed"),
    ],
)
async def test_an_error_of_the_client_says_what_was_asked_of_which_broker(error, words):
    """Of other errors, such as those of a middleware, it shows no text, which may have a value.

    The client may also end by a cancellation, which the caller must not take for its own.
    """
    with pytest.raises(BrokerAwayError, match=f"^{words}$") as caught:
        await within_patience("Redis", "answered", fail(error))
    assert type(caught.value.__cause__) is type(error)


async def test_an_error_of_the_bridge_stays_as_it_is():
    """Its words are better."""
    error = TopologyError("delete it")
    with pytest.raises(TopologyError) as caught:
        await within_patience("Redis", "answered", fail(error))
    assert caught.value is error


async def test_a_client_that_goes_on_when_it_is_cancelled_is_left_to_itself(monkeypatch, caplog):
    """The broker is away by then; and how the client ends later is nobody's concern."""
    monkeypatch.setattr(_patience, "PATIENCE", 0.01)
    caplog.set_level(logging.DEBUG)
    with pytest.raises(BrokerAwayError, match=r"has not answered within 0\.01 seconds"):
        await within_patience("Redis", "answered", go_on(0.05))
    await asyncio.sleep(0.1)
    assert not caplog.records


async def test_who_is_cancelled_need_not_wait_for_the_client():
    """The cancellation comes through at once, and the client hears of it."""
    ended = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    asking = asyncio.create_task(within_patience("Redis", "answered", wait()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert ended


async def test_closing_succeeds_also_if_the_broker_is_away():
    """What was to be closed is closed by that, too."""
    await close("Redis", "closed", answer())
    await close("Redis", "closed", fail(ConnectionError()))
