"""Without an outbox: the ordinary handlers are called, at least once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from madcrow_events import SignalRegistry, current_event
from madcrow_events.bridge import MemoryBridge, MemoryBroker, _direct
from madcrow_events.bridge._direct import DirectIntake
from madcrow_events.bridge._routes import Routes, route_for
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import Worker
from support.incoming import EVERYTHING
from support.outboxes import lines_of, wait_for
from support.services import TOPIC, OrderPlaced, placed


@pytest.fixture
def signals() -> Any:
    """Return the events of a service without a database."""
    signals = SignalRegistry()
    signals.signal("order_placed", context=OrderPlaced)
    with signals.dispatcher:
        yield signals


@pytest.fixture
def bridge(signals: SignalRegistry, broker: MemoryBroker) -> MemoryBridge:
    bridge = MemoryBridge(signals, broker, consumer="cache", inbox=None)
    bridge.incoming("order_*")
    return bridge


# From the user's side


def test_the_handlers_of_this_process_are_called(bridge, broker, signals, shop):
    """With what the other service has said of the event; async handlers, too."""
    seen: list[Any] = []

    @signals["order_placed"].on()
    def note(context: OrderPlaced) -> None:
        seen.append((context.number, dict(current_event().origin)["source"]))

    @signals["order_placed"].on()
    async def note_later() -> None:
        await asyncio.sleep(0)
        seen.append(threading.current_thread().name)

    with bridge:
        shop.emit(OrderPlaced(number=7))
        shop.drain()
        wait_for(lambda: len(seen) == 2)
    assert sorted(seen, key=str) == [(7, "/shop"), "madcrow-bridge-cache"]


def test_what_comes_while_nobody_receives_is_handled_later(bridge, broker, signals):
    """The broker keeps it for the consumer, and what was not handled."""
    seen: list[int] = []
    signals["order_placed"].subscribe(lambda number: seen.append(number), weak=False)
    broker.publish(TOPIC, *placed(1))
    for number in (2, 3):
        with bridge:
            wait_for(lambda: len(seen) == number - 1)
        broker.publish(TOPIC, *placed(number))
    assert seen == [1, 2]


def test_a_bridge_is_at_work_once(bridge):
    with bridge, pytest.raises(RuntimeError, match="make another one"):
        bridge.__enter__()
    with bridge:
        pass


def test_a_bridge_without_an_outbox_sends_nothing(bridge):
    with pytest.raises(InvalidOptionError, match="only an outbox can send: give") as caught:
        bridge.outgoing("order_placed")
    assert caught.value.option == "outbox"


@pytest.mark.parametrize("start", ["run", "__enter__"])
def test_a_bridge_with_an_outbox_works_beside_its_workers(shop, start):
    with pytest.raises(InvalidOptionError, match=r"with Worker\(outbox, engine\):") as caught:
        getattr(shop.bridge, start)()
    assert caught.value.option == "outbox"


def test_an_outbox_may_send_and_not_take_in(service, broker, outbox_engine):
    """Its workers then call the ordinary handlers; a drain does not."""
    both = service("both", engine=outbox_engine, inbox=None)
    both.bridge.incoming("order_placed")
    seen: list[int] = []
    both.placed.subscribe(lambda number: seen.append(number), weak=False)
    both.listen()
    broker.publish(TOPIC, *placed(1, "/till"))
    both.drain()
    assert seen == []
    with Worker(both.outbox, outbox_engine, poll=0.02):
        wait_for(lambda: seen)
    assert (seen, both.handled) == ([1], [])


# Message by message


@dataclass
class Message:
    """A message of a broker, which notes what becomes of it."""

    headers: Mapping[str, str]
    body: bytes
    deliveries: int = 1
    place: str = "message 7 of the stream events"
    fate: list[Any] = field(default_factory=list)

    async def settle(self) -> None:
        self.fate.append("settled")

    async def refuse(self) -> None:
        self.fate.append("refused")

    async def give_back(self, delay: float) -> None:
        self.fate.append(delay)


@pytest.fixture
def fate(signals: SignalRegistry) -> Any:
    """Return a function that takes a message in, and returns what became of it."""
    routes = Routes(signals, None)
    routes.add(route_for(signals, "order_*"))

    def take_in(*published: Any, deliveries: int = 1) -> Any:
        intake = DirectIntake(signals, routes, "cache")
        message = Message(*published, deliveries)
        asyncio.run(intake.take_in([message]))
        (fate,) = message.fate
        return fate

    return take_in


@pytest.mark.parametrize(
    ("given", "expected", "reason"),
    [
        ({}, "settled", None),
        ({"type": "paid"}, "settled", None),
        ({"source": ""}, "refused", "the attribute source is empty: fill it in"),
        ({"data": b"[1]"}, "refused", "the data is no JSON object"),
        ({"attributes": {"eventversion": "x"}}, "refused", "no number from 1 to 32767"),
    ],
)
def test_a_message_is_handled_passed_over_or_refused(fate, caplog, given, expected, reason):
    """What no delivery can mend is refused at the first one."""
    headers, body = placed(1, **{**given, "source": "/shop"})
    headers["ce-source"] = given.get("source", "/shop")
    assert fate(headers, body) == expected
    lines = lines_of(caplog)
    assert len(lines) == (reason is not None)
    if reason is not None:
        assert reason in lines[0]
        assert "the bridge of cache refuses message 7 of the stream events: " in lines[0]


def fail(signals: SignalRegistry) -> None:
    @signals["order_placed"].on()
    def buggy() -> None:
        raise LookupError("hunter2")

    @signals["order_placed"].on()
    async def buggy_too() -> None:
        raise ValueError("hunter2")


def fail_and_raise(signals: SignalRegistry) -> None:
    fail(signals)
    signals.dispatcher.on_error = "raise"


@pytest.mark.parametrize(
    ("given", "disturb", "problem"),
    [
        ({}, fail, "its handlers have failed with LookupError, ValueError"),
        ({}, fail_and_raise, "its handlers have failed with HandlerErrors"),
        ({"type": "order_gone"}, None, "no such event is declared here"),
        ({"data": b'{"number": "hunter2"}'}, None, "order_placed"),
        (
            {"attributes": {"eventversion": "2"}},
            None,
            "order_placed comes in version 2, and its model here has version 1: deploy",
        ),
    ],
)
def test_what_cannot_be_handled_is_delivered_again_and_refused_at_last(
    fate, signals, caplog, given, disturb, problem
):
    """Later from time to time; lines say what was wrong, and show no value."""
    if disturb is not None:
        disturb(signals)
    published = placed(1, **given)
    fates = [fate(*published, deliveries=it) for it in (1, 2, 5, 9, 10)]
    assert fates == [1.0, 2.0, 16.0, 60.0, "refused"]
    lines = [it for it in lines_of(caplog) if it.startswith("the bridge")]
    assert lines[0].startswith("the bridge of cache tries message 7 of the stream events again in")
    assert lines[-1].endswith(", 10 times")
    assert lines[-1].startswith("the bridge of cache refuses message 7 of the stream events: ")
    assert all(problem in it for it in lines)
    assert "hunter2" not in "".join(lines)


def test_what_others_say_of_an_event_fills_nothing_in(fate, signals):
    seen: list[Any] = []
    signals["order_placed"].subscribe(lambda: seen.append(current_event()), weak=False)
    assert fate(*placed(1, attributes=EVERYTHING)) == "settled"
    (emission,) = seen
    assert emission.origin["sender"] == "till 3"
    assert emission.correlation_id == emission.id
    assert (emission.causation_id, emission.context.request_id) == (None, None)
    assert emission.sender is signals["order_placed"]


def test_a_failing_message_holds_up_no_other(bridge, broker, signals, monkeypatch):
    """It comes again while others are handled."""
    monkeypatch.setattr(_direct, "_LONGEST_WAIT", 0.01)
    calls: list[int] = []

    @signals["order_placed"].on()
    def fail_first(context: OrderPlaced) -> None:
        calls.append(context.number)
        if calls == [1]:
            raise LookupError

    for number in (1, 2):
        broker.publish(TOPIC, *placed(number))
    with bridge:
        wait_for(lambda: len(calls) == 3)
    assert calls == [1, 2, 1]
