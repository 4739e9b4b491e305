"""A bridge at work: beside workers of its outbox, or by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from madcrow_events import SignalRegistry
from madcrow_events.bridge import (
    Bridge,
    MemoryBridge,
    MessageTooLargeError,
    TopologyError,
    _intake,
)
from madcrow_events.bridge._memory import MemoryTransport
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import NotSerialisableError, Worker
from support.outboxes import lines_of, sqlite_engine, wait_for
from support.services import TOPIC, OrderPaid, OrderPlaced, Service, Unstorable, placed


@pytest.fixture(params=[Bridge, MemoryBridge])
def kind(request: pytest.FixtureRequest) -> Any:
    """Return the bridge to a broker, whose broker is in memory here, and that without one."""
    return request.param


@pytest.fixture
def shop(service: Any, tmp_path: Any, kind: Any) -> Service:
    (tmp_path / "shop").mkdir()
    shop = service("shop", bridge=kind, engine=sqlite_engine(tmp_path / "shop"))
    shop.bridge.outgoing("order_placed")
    return shop


@pytest.fixture
def shipping(service: Any, tmp_path: Any, kind: Any) -> Service:
    (tmp_path / "shipping").mkdir()
    shipping = service("shipping", bridge=kind, engine=sqlite_engine(tmp_path / "shipping"))
    shipping.bridge.incoming("order_placed")
    shipping.listen()
    return shipping


def worker_of(service: Service, **options: Any) -> Worker:
    return Worker(service.outbox, service.engine, **{"poll": 60.0, **options})


def threads() -> list[str]:
    names = [it.name for it in threading.enumerate()]
    return sorted(it for it in names if it.startswith(("madcrow-bridge", "madcrow-intake")))


def test_workers_carry_events_from_one_service_to_another(shop, shipping):
    """Each has a thread for its broker as long as it works; nobody waits for a poll."""
    with worker_of(shop), worker_of(shipping):
        for number in range(3):
            shop.emit(OrderPlaced(number=number, customer="a"))
        wait_for(lambda: len(shipping.handled) == 3)
        assert threads() == [
            "madcrow-bridge-shipping",
            "madcrow-bridge-shop",
            "madcrow-intake_0",
        ]
    assert [it[1] for it in shipping.handled] == [0, 1, 2]
    assert threads() == []


def test_a_worker_sends_many_events_at_once_between_its_other_work(shop, shipping):
    """What it handles itself is neither lost nor done twice by that."""
    shop.listen()
    shop.bridge.outgoing("order_paid")
    shipping.bridge.incoming("order_paid")
    shop.emit(*(OrderPaid(number=it) for it in range(40)))
    with worker_of(shipping), worker_of(shop, concurrency=1):
        wait_for(lambda: len(shipping.handled) == len(shop.handled) == 40)
    for it in (shop, shipping):
        assert sorted(number for _, number in it.handled) == list(range(40))


async def test_a_worker_beside_an_event_loop_carries_events_too(shop, shipping):
    async with worker_of(shop), worker_of(shipping):
        await asyncio.to_thread(shop.emit, OrderPlaced(number=1))
        async with asyncio.timeout(20):
            while not shipping.handled:  # noqa: ASYNC110  # set in another thread
                await asyncio.sleep(0.01)
    assert threads() == []


def test_two_workers_of_one_bridge_share_its_connection(shop, shipping):
    """It ends with the last of them."""
    with worker_of(shipping):
        with worker_of(shop), worker_of(shop):
            assert threads().count("madcrow-bridge-shop") == 1
            shop.emit(OrderPlaced(number=1))
            wait_for(lambda: len(shipping.handled) == 1)
        assert "madcrow-bridge-shop" not in threads()
        first, second = worker_of(shop), worker_of(shop)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        shop.emit(OrderPlaced(number=2))
        wait_for(lambda: len(shipping.handled) == 2)
        second.__exit__(None, None, None)
    assert threads() == []


def test_a_bridge_works_again_when_its_worker_does(shop, shipping):
    """What was published meanwhile comes in."""
    worker = worker_of(shipping)
    with worker:
        pass  # from now on, the broker knows this service
    for number in (1, 2):
        with worker_of(shop):
            shop.emit(OrderPlaced(number=number))
            published = shop.outbox.inspect(shop.engine).status
            wait_for(lambda: not published().new and not any(h.due for h in published().handlers))
        with worker:
            wait_for(lambda: len(shipping.handled) == number)


def test_a_database_that_is_away_while_events_come_in_loses_none(
    shipping, broker, monkeypatch, caplog
):
    """The broker delivers them again; a line says that it must, and shows no value."""

    def raise_once(*_: object) -> None:
        monkeypatch.undo()
        raise OperationalError("insert", {"customer": "hunter2"}, ConnectionError("hunter2"))

    broker._queue_of(shipping.bridge._topology)
    for number in range(3):
        broker.publish(TOPIC, *placed(number))
    statements = shipping.outbox._statements_for(shipping.engine)
    monkeypatch.setattr(statements, "note", raise_once)
    with worker_of(shipping):
        wait_for(lambda: len(shipping.handled) == 3)
    assert lines_of(caplog) == [
        "the bridge of shipping receives anew from the broker in memory: OperationalError"
    ]


def test_what_does_not_fit_at_the_broker_keeps_a_worker_from_starting(shipping, monkeypatch):
    """Nothing is left open, and it can start when somebody has mended it."""

    async def refuse(_transport: object) -> None:
        raise TopologyError("the stream does not fit: make it anew")

    monkeypatch.setattr(MemoryTransport, "connect", refuse)
    with pytest.raises(TopologyError, match="make it anew"):
        worker_of(shipping).__enter__()
    assert threads() == []
    monkeypatch.undo()
    with worker_of(shipping):
        pass


def test_an_event_that_a_pattern_means_and_cannot_be_stored_keeps_a_worker_from_starting(shop):
    """It was declared after the bridge, and nothing else would say so."""
    shop.bridge.outgoing("order_*")
    shop.signals.signal("order_odd", context=Unstorable)
    with pytest.raises(NotSerialisableError, match="order_odd"):
        worker_of(shop).__enter__()


# Of a broker


@pytest.mark.parametrize("kind", [Bridge], indirect=True)
def test_what_goes_out_waits_as_long_as_the_broker_is_away(shop, shipping, monkeypatch):
    """It is no failed attempt; and it is sent at once when the broker is back."""
    with worker_of(shipping), contextlib.ExitStack() as stack:
        monkeypatch.setattr(MemoryTransport, "is_connected", False)
        stack.enter_context(worker_of(shop))
        shop.emit(OrderPlaced(number=1))
        status = shop.outbox.inspect(shop.engine).status
        wait_for(lambda: [it.due for it in status().handlers] == [1])
        assert shipping.handled == []
        monkeypatch.undo()
        wait_for(lambda: shipping.handled)
        wait_for(lambda: [it.due for it in status().handlers] == [0])


@pytest.mark.parametrize("kind", [Bridge], indirect=True)
def test_a_drain_sends_nothing_to_a_broker(shop, shipping, broker):
    """Nobody is connected then: the events wait for a worker."""
    with worker_of(shipping):
        pass  # from now on, the broker knows this service
    shop.emit(OrderPlaced(number=1))
    assert shop.drain() == (0, 0, 0)
    assert shipping.drain() == (0, 0, 0)
    with worker_of(shipping), worker_of(shop):
        wait_for(lambda: shipping.handled)


@pytest.mark.parametrize("kind", [Bridge], indirect=True)
def test_what_the_broker_does_not_acknowledge_is_sent_again(shop, shipping, monkeypatch):
    """That is no failed attempt; what no message may carry is one, and dead."""
    errors: list[Exception] = [ConnectionError("away"), MessageTooLargeError("too large")]
    publish = MemoryTransport.publish

    async def publish_later(transport: Any, event: Any) -> None:
        if errors:
            raise errors.pop(0)
        await publish(transport, event)

    monkeypatch.setattr(MemoryTransport, "publish", publish_later)
    with worker_of(shop, poll=0.05), worker_of(shipping):
        shop.emit(OrderPlaced(number=1, customer="a"))
        wait_for(lambda: not errors)
        shop.emit(OrderPlaced(number=2, customer="b"))
        wait_for(lambda: shipping.handled)
    (dead,) = shop.outbox.inspect(shop.engine).dead()
    assert (dead.error_type, dead.attempts) == ("MessageTooLargeError", 1)
    assert shipping.handled == [("order_placed", 2)]


@pytest.mark.parametrize("kind", [Bridge])
def test_a_broker_that_is_connected_already_is_refused(shop, broker, monkeypatch):
    """Its connection belongs to the event loop of the application, or of another bridge."""
    monkeypatch.setattr(broker, "_connection", object(), raising=False)
    with pytest.raises(InvalidOptionError, match="give each bridge a broker of its own"):
        worker_of(shop).run(once=True)
    assert threads() == []


def test_a_worker_ends_although_what_comes_in_is_not_stored_in_time(shipping, broker, monkeypatch):
    """A validator may never end; what is not committed comes again."""
    monkeypatch.setattr(_intake, "_CLOSED_WITHIN", 0.05)
    begun, released = threading.Event(), threading.Event()
    store = _intake.OutboxIntake.store

    def hang(*given: Any) -> Any:
        begun.set()
        released.wait(20)
        return store(*given)

    monkeypatch.setattr(_intake.OutboxIntake, "store", hang)
    with worker_of(shipping):
        broker.publish(TOPIC, *placed(1))
        begun.wait(20)
    assert not released.is_set()
    released.set()
    with worker_of(shipping):
        wait_for(lambda: shipping.handled)
    wait_for(lambda: not threads())
    assert shipping.handled == [("order_placed", 1)]


FORKING = """
import os

from madcrow_events import SignalRegistry
from madcrow_events.bridge import MemoryBridge, MemoryBroker
from support.outboxes import wait_for
from support.services import TOPIC, OrderPlaced, placed

signals, broker, seen = SignalRegistry(), MemoryBroker(), []
signals.signal("order_placed", context=OrderPlaced)
signals["order_placed"].subscribe(lambda number: seen.append(number), weak=False)
bridge = MemoryBridge(signals, broker, consumer="cache", inbox=None)
bridge.incoming("order_placed")
with bridge:
    child = os.fork()
    if child == 0:
        with bridge:
            broker.publish(TOPIC, *placed(1))
            wait_for(lambda: seen)
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_bridge_at_work_can_work_in_a_forked_child_too():
    """The thread of the parent is not there. In a process of its own, which has no tracer."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ran.stdout == "0\n", ran.stderr


# By itself


@pytest.fixture
def alone(broker: Any, signals: SignalRegistry) -> Any:
    """Return a bridge without an outbox, and the numbers that its handler has noted."""
    noted: list[int] = []
    signals.signal("order_placed", context=OrderPlaced)
    signals["order_placed"].subscribe(lambda number: noted.append(number), weak=False)
    bridge = MemoryBridge(signals, broker, consumer="cache", inbox=None)
    bridge.incoming("order_placed")
    bridge.noted = noted  # type: ignore[attr-defined]
    with signals.dispatcher:
        yield bridge


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM to catch")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_a_bridge_runs_until_a_signal_comes(alone, broker, number):
    """The handlers of the signals are as they were, then."""
    before = [signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT)]

    def send() -> None:
        wait_for(lambda: alone.noted)
        os.kill(os.getpid(), number)

    broker.publish(TOPIC, *placed(1))
    threading.Thread(target=send).start()
    alone.run()
    assert alone.noted == [1]
    assert [signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT)] == before
    assert threads() == []


@pytest.fixture
def terminated() -> Any:
    """Return an event that is set by SIGTERM, as by a handler of the application."""
    event = threading.Event()

    def end(*_: object) -> None:
        event.set()

    before = signal.signal(signal.SIGTERM, end)
    yield event, end
    signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGTERM to catch")
def test_a_second_signal_does_what_it_does_without_a_bridge(alone, broker, signals, terminated):
    """A handler that never returns would else keep the process alive."""
    event, end = terminated
    signals["order_placed"].subscribe(lambda: event.wait(20), weak=False)

    def send() -> None:
        wait_for(lambda: alone.noted)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: signal.getsignal(signal.SIGTERM) is end)
        assert not event.is_set()
        os.kill(os.getpid(), signal.SIGTERM)

    broker.publish(TOPIC, *placed(1))
    threading.Thread(target=send).start()
    alone.run()
    assert event.is_set()


def test_a_bridge_that_runs_in_a_thread_is_stopped_by_a_call(alone, broker):
    """It can run again."""
    for number in (1, 2):
        running = threading.Thread(target=alone.run)
        running.start()
        broker.publish(TOPIC, *placed(number))
        wait_for(lambda: number in alone.noted)
        alone.stop()
        running.join()
    assert threads() == []


def test_a_bridge_that_is_stopped_before_it_runs_returns_at_once(alone):
    """The call may come from another thread a moment too early."""
    alone.stop()
    alone.run()
    assert threads() == []


class Undeclared(OrderPlaced):
    """A model with which no event is declared."""


def test_what_does_nothing_is_told_as_the_bridge_starts(shop, caplog):
    """A class or pattern that no declared event fits; patterns of what comes in wait for more."""
    shop.bridge.outgoing("ordre_*")
    shop.bridge.outgoing(Undeclared)
    shop.bridge.incoming(Undeclared)
    shop.bridge.incoming("parcel_*")
    with worker_of(shop):
        pass
    does_nothing = "of the bridge of shop does nothing: no event that is declared fits"
    assert lines_of(caplog) == [
        f"outgoing(ordre_*) {does_nothing}",
        f"outgoing(Undeclared) {does_nothing}",
        f"incoming(Undeclared) {does_nothing}",
    ]


def test_what_is_declared_once_a_worker_works_is_refused(shop):
    """Else it would do nothing until the next start."""
    with worker_of(shop):
        for declare in shop.bridge.outgoing, shop.bridge.incoming:
            with pytest.raises(RuntimeError, match="call outgoing and incoming before a worker"):
                declare("order_paid")
    shop.bridge.outgoing("order_paid")
