"""Waits inside of a delivery, by code that somebody else waits for (A3)."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    QueueFullError,
    SignalRegistry,
    WouldDeadlockError,
)
from support.deliveries import WAYS, Delivers, Happened
from support.waiting import LIMIT, eventually

pytestmark = pytest.mark.guarantee("A3")


@pytest.fixture(params=WAYS, ids=str)
def delivers(request: pytest.FixtureRequest, dispatcher: EventDispatcher) -> Delivers:
    return Delivers(request.param, dispatcher)


@pytest.fixture
def plain(dispatcher: EventDispatcher) -> Delivers:
    return Delivers(WAYS[0], dispatcher)


def refused(delivery: Emission[Any]) -> bool:
    return [type(it.exception) for it in delivery.failures] == [WouldDeadlockError]


@pytest.mark.parametrize("method", ["drain", "close"])
def test_a_handler_that_runs_later_cannot_wait_for_all(delivers: Delivers, method: str) -> None:
    delivered: list[Emission[Any]] = []
    bound = delivers.bind(lambda _: getattr(delivers.dispatcher, method)(LIMIT))
    outer = delivers.signals.signal("outer")
    outer.subscribe(lambda: delivered.append(delivers(bound)), background=True)
    assert delivers.dispatcher.emit(outer).wait(LIMIT)
    assert refused(delivered[0])


@pytest.mark.parametrize("awaits", [False, True], ids=["deliver", "deliver_async"])
@pytest.mark.parametrize("method", ["drain_async", "close_async"])
def test_nor_can_it_await_that(dispatcher: EventDispatcher, awaits: bool, method: str) -> None:
    async def wait() -> None:
        await (dispatcher.drain_async(LIMIT) if method == "drain_async" else use_block())

    async def use_block() -> None:
        async with dispatcher:
            pass

    async def deliver_async() -> None:
        delivered.append(await dispatcher.deliver_async(bound, Happened()))

    def deliver() -> None:
        delivered.append(dispatcher.deliver(bound, Happened()))

    delivered: list[Emission[Any]] = []
    bound = dispatcher.signals.signal("thing_happened", context=Happened).bind(wait)
    outer = dispatcher.signals.signal("outer")
    outer.subscribe(deliver_async if awaits else deliver, background=True)
    assert dispatcher.emit(outer).wait(LIMIT)
    assert refused(delivered[0])


def test_an_emission_is_not_waited_for_by_what_its_handler_delivers(delivers: Delivers) -> None:
    delivered: list[Emission[Any]] = []

    def deliver(emission: Emission[Any]) -> None:
        delivered.append(delivers(delivers.bind(lambda _: emission.wait(LIMIT))))

    delivers.signals.signal("outer").subscribe(deliver)
    delivers.dispatcher.emit("outer")
    assert refused(delivered[0])


def test_nor_if_one_delivery_is_in_another(delivers: Delivers) -> None:
    delivered: list[Emission[Any]] = []

    plain = Delivers(WAYS[0], delivers.dispatcher)

    def deliver(emission: Emission[Any]) -> None:
        delivered.append(plain(plain.bind(lambda _: emission.wait(LIMIT))))

    assert delivers(delivers.bind(deliver)).ok
    assert refused(delivered[0])


def test_what_a_block_holds_back_is_not_waited_for_in_the_block(delivers: Delivers) -> None:
    """Nor at its end, by what goes out before."""
    first, second = (delivers.signals.signal(name) for name in ("first", "second"))
    delivered: list[Emission[Any]] = []

    def deliver() -> None:
        delivered.append(delivers(delivers.bind(lambda _: held.wait(LIMIT))))

    first.subscribe(deliver)
    with delivers.dispatcher.deferred():
        delivers.dispatcher.emit(first)
        held = delivers.dispatcher.emit(second)
        deliver()
    assert list(map(refused, delivered)) == [True, True]
    assert held.state == "done"


def test_a_full_queue_is_not_waited_for_by_what_has_a_place_in_it(
    signals: SignalRegistry,
) -> None:
    async def emit() -> None:
        await dispatcher.emit_async(later)

    async def deliver() -> None:
        delivered.append(await dispatcher.deliver_async(bound, Happened()))

    delivered: list[Emission[Any]] = []
    bound = signals.signal("thing_happened", context=Happened).bind(emit)
    later, outer = signals.signal("later"), signals.signal("outer")
    later.subscribe(lambda: None, background=True)
    outer.subscribe(deliver, background=True)
    with EventDispatcher(signals, queue_size=1) as dispatcher:
        assert dispatcher.emit(outer).wait(LIMIT)
    assert [type(it.exception) for it in delivered[0].failures] == [QueueFullError]


def test_a_plain_background_handler_waits_for_no_other(plain: Delivers) -> None:
    release = threading.Event()
    delivered: list[Emission[Any]] = []
    queued, outer = plain.signals.signal("queued"), plain.signals.signal("outer")
    queued.subscribe(lambda: release.wait(LIMIT), background=True)
    bound = plain.bind(lambda _: pending.wait(LIMIT))
    outer.subscribe(lambda: delivered.append(plain(bound)), background=True)
    pending = plain.dispatcher.emit(queued)
    assert plain.dispatcher.emit(outer).wait(LIMIT)
    release.set()
    assert refused(delivered[0])


def test_a_handler_of_batches_does_not_wait_for_its_batch(plain: Delivers) -> None:
    known = threading.Event()
    delivered: list[Emission[Any]] = []

    def handle(batch: Any) -> None:
        known.wait(LIMIT)
        delivered.append(plain(plain.bind(lambda _: emission.wait(LIMIT))))

    outer = plain.signals.signal("outer")
    outer.subscribe(handle, batch=Batch(1, 1))
    emission = plain.dispatcher.emit(outer)
    known.set()
    assert emission.wait(LIMIT)
    assert refused(delivered[0])


@pytest.mark.parametrize("method", ["wait", "drain", "close"])
async def test_a_loop_is_not_stopped_for_handlers_that_are_pending_in_it(
    plain: Delivers, method: str
) -> None:
    async def sleep() -> None:
        await asyncio.sleep(0)

    outer = plain.signals.signal("outer")
    outer.subscribe(sleep)
    emission = plain.dispatcher.emit(outer)
    waits: dict[str, Any] = {
        "wait": emission.wait,
        "drain": plain.dispatcher.drain,
        "close": plain.dispatcher.close,
    }
    assert refused(plain(plain.bind(lambda _: waits[method](LIMIT))))
    assert await emission.wait_async(LIMIT)


@pytest.mark.parametrize("method", ["wait", "drain", "close"])
def test_handlers_in_a_loop_that_does_not_run_are_not_waited_for(
    plain: Delivers, method: str
) -> None:
    async def sleep() -> None:
        await asyncio.sleep(0)

    async def emit() -> Emission[Any]:
        return plain.dispatcher.emit("outer")

    plain.signals.signal("outer").subscribe(sleep)
    loop = asyncio.new_event_loop()
    emission = loop.run_until_complete(emit())
    waits: dict[str, Any] = {
        "wait": emission.wait,
        "drain": plain.dispatcher.drain,
        "close": plain.dispatcher.close,
    }
    assert refused(plain(plain.bind(lambda _: waits[method](LIMIT))))
    loop.run_until_complete(emission.wait_async(LIMIT))
    loop.close()


@pytest.mark.guarantee("K2")
def test_a_delivery_that_is_over_keeps_nothing_of_its_caller(delivers: Delivers) -> None:
    """Nor may a chain of deliveries keep its beginning."""
    kept: list[Emission[Any]] = []
    bound = delivers.bind(lambda _: None)

    def deliver(emission: Emission[Any]) -> Any:
        kept.append(delivers(bound))
        return weakref.ref(emission)

    delivers(bound)  # a new event loop keeps the context that it is made in
    delivers.signals.signal("outer").subscribe(deliver)
    outer = delivers.dispatcher.emit("outer").results[0].value

    def is_gone() -> bool:
        gc.collect()
        return outer() is None

    assert eventually(is_gone)  # the loop has it a moment longer


def test_a_handler_that_a_thread_waits_for_is_pending_work(
    dispatcher: EventDispatcher,
) -> None:
    """So it cannot wait for all that is pending."""

    async def wait() -> None:
        await dispatcher.drain_async(LIMIT)

    bound = dispatcher.signals.signal("thing_happened", context=Happened).bind(wait)
    assert refused(dispatcher.deliver(bound, Happened()))
