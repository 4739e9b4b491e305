"""A shop with handlers of each kind, ways to use it, and ways to see that all is well with it."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from madcrow_events import (
    BaseEventContext,
    Batch,
    Emission,
    EventDispatcher,
    HandlerCancelledError,
    SignalRegistry,
    TimingObserver,
    current_event,
    event_scope,
)
from support.inside import backlog_of

LIMIT = 10  # seconds
QUEUE_SIZE = 12
KINDS = ("inline", "awaited", "background", "background_async", "batch", "batch_async")
LATER = KINDS[2:]  # those of which none depends on how the emitter ends


class Thing(BaseEventContext):
    number: int


class Shop:
    """A registry with handlers of each kind, which note what they are called with."""

    def __init__(self) -> None:
        self.signals = SignalRegistry()
        self.signal = self.signals.signal("thing_happened", context=Thing)
        self.other = self.signals.signal("other")
        self.nested = self.signals.signal("nested")
        self.dispatcher = EventDispatcher(self.signals, queue_size=QUEUE_SIZE, max_workers=2)
        self.timing = TimingObserver()
        self.dispatcher.add_observer(self.timing)
        self.dispatcher.add_observer(self)
        self.heard: list[tuple[str, int]] = []
        self.emissions: dict[int, list[Emission[Any]]] = {}
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.without_observers: EventDispatcher | None = None  # made if it is used
        self.signal.subscribe(self.inline)
        self.signal.subscribe(self.awaited, weak=False)
        self.signal.subscribe(self.background, background=True)
        self.signal.subscribe(self.background_async, background=True)
        self.signal.subscribe(self.batch, batch=Batch(2, 0.01))
        self.signal.subscribe(self.batch_async, batch=Batch(2, 0.01))
        self.nested.subscribe(self.emit_nested)

    # Its handlers

    def inline(self, number: int) -> None:
        self.heard.append(("inline", number))

    async def awaited(self, number: int) -> None:
        self.heard.append(("awaited", number))

    def background(self, number: int) -> None:
        self.heard.append(("background", number))

    async def background_async(self, number: int) -> None:
        self.heard.append(("background_async", number))

    def batch(self, batch: list[Any]) -> None:
        self.heard.extend([("batch", number_of(context)) for context in batch])

    async def batch_async(self, batch: list[Any]) -> None:
        self.heard.extend([("batch_async", number_of(context)) for context in batch])

    def emit_nested(self, number: int) -> None:
        self.dispatcher.emit("thing_happened", number=number)

    # Its event loops

    def run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Do as `asyncio.run`, which an interrupt may keep from closing the loop."""
        self.loops.append(asyncio.new_event_loop())
        with asyncio.Runner(loop_factory=lambda: self.loops[-1]) as runner:
            runner.run(coroutine)

    def close_loops(self) -> None:
        """Close what was left, as who runs an application does."""
        for loop in self.loops:
            with suppress(OSError, ValueError):  # it was interrupted as it closed
                loop.close()
        self.loops.clear()

    # As an observer, it keeps the emissions of which their emitters may hear nothing.

    def emission(self, emission: Emission[Any], /) -> AbstractContextManager[object]:
        if emission.event == "thing_happened":
            self.emissions.setdefault(number_of(emission.context), []).append(emission)
        return nullcontext()

    def handling(self, _emission: Any, _handler: Any, /) -> AbstractContextManager[object]:
        return nullcontext()

    # What must be so

    def assert_all_is_well(self, emissions: int = 3) -> None:
        """Nothing is pending, held or lost, and the next emissions are as all others."""
        assert self.dispatcher.drain(LIMIT), "something is pending for ever"
        assert current_event() is None
        first = len(self.heard)
        before = {t.event: t.emissions for t in self.timing.snapshot().events}
        made = [
            self.dispatcher.emit("thing_happened", number=-number)
            for number in range(1, emissions + 1)
        ]
        for emission in made:
            assert emission.wait(LIMIT), "a worker or a batch's turn is gone"
            assert emission.depth == 0
            assert emission.causation_id is None
            assert emission.state == "done"
            assert emission.context.keys() == {"number"}, "a scope is left"
        heard = sorted(entry for entry in self.heard[first:] if entry[1] < 0)
        assert heard == sorted((kind, -n) for kind in KINDS for n in range(1, emissions + 1))
        after = {t.event: t.emissions for t in self.timing.snapshot().events}
        assert after["thing_happened"] == before.get("thing_happened", 0) + emissions
        self.assert_locks_are_free()
        self.assert_places_are_free()
        if self.without_observers is not None:
            self.assert_unobserved_emissions_are_handled(self.without_observers)

    def assert_unobserved_emissions_are_handled(self, dispatcher: EventDispatcher) -> None:
        assert dispatcher.drain(LIMIT), "something is pending for ever"
        first = len(self.heard)
        emission = dispatcher.emit("thing_happened", number=-1)
        assert emission.wait(LIMIT)
        assert emission.depth == 0
        assert sorted(self.heard[first:]) == sorted((kind, -1) for kind in KINDS)
        assert len(backlog_of(dispatcher).permits.free) == QUEUE_SIZE

    def assert_locks_are_free(self) -> None:
        done: list[bool] = []

        def use() -> None:
            self.signal.subscribe(lambda: None).cancel()
            self.signals.signal("declared").subscribe(lambda: None).cancel()
            done.append(self.dispatcher.emit("other").ok)

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(LIMIT)
        stack = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(stack)) if thread.is_alive() else ""
        assert done == [True], f"a lock is held\n{where}"

    def assert_places_are_free(self) -> None:
        """Workers are there, and as many places as the queue has."""
        release, blocked = threading.Event(), threading.Semaphore(0)

        def block() -> None:
            blocked.release()
            release.wait(LIMIT)

        backlog = backlog_of(self.dispatcher)
        threads = backlog.workers.threads
        assert self.dispatcher.drain(LIMIT)
        assert len(backlog.permits.free) == QUEUE_SIZE
        with self.other.subscribe(block, background=True):
            for _ in range(2):
                self.dispatcher.emit("other")
            for _ in range(2):
                assert blocked.acquire(timeout=LIMIT), f"a worker is gone of {threads}"
            for _ in range(QUEUE_SIZE):
                self.dispatcher.emit("other")
            assert not backlog.permits.free
            release.set()
            assert self.dispatcher.drain(LIMIT)
        assert len(backlog.permits.free) == QUEUE_SIZE
        assert not backlog.batches.flushing, "batches do not wait any more"

    def assert_accounted_for(self, number: int, *, returned: bool) -> None:
        """Each call that waits for nobody was made once, or is reported once.

        Args:
            number: of an emission.
            returned: whether its emitter has heard of no interrupt.
        """
        made = self.emissions.get(number, [])
        for emission in made:
            assert not emission.pending, f"pending for ever: {emission.pending}"
        assert not any(emission.state == "deferred" for emission in made)
        for kind in LATER:
            runs = self.heard.count((kind, number))
            failures = [
                failure.exception
                for emission in made
                for failure in emission.failures
                if getattr(failure.handler, "__name__", "") == kind
            ]
            reports = [error for error in failures if isinstance(error, HandlerCancelledError)]
            # A handler that was interrupted as it began could not note that.
            runs = max(runs, len(failures) - len(reports))
            # One in the emitter's loop may be interrupted after its end, before that is noted.
            most = 1 if returned or not kind.endswith("async") else 2
            assert max(runs, len(reports)) <= 1, f"{kind}: {runs} runs, {failures}"
            assert runs + len(reports) <= most, f"{kind}: {runs} runs, {failures}"
            assert runs + len(reports) == 1 or not returned, f"{kind} was lost without a word"

    def told(self) -> set[int]:
        """Return the ids of all exceptions that stand in the emissions' failures."""
        return {
            id(failure.exception)
            for made in self.emissions.values()
            for emission in made
            for failure in emission.failures
        }


def number_of(context: Any) -> int:
    number: int = context.number if isinstance(context, Thing) else context["number"]
    return number


# Ways to use it


def emit(shop: Shop, number: int) -> None:
    shop.dispatcher.emit("thing_happened", number=number)


def emit_async(shop: Shop, number: int) -> None:
    shop.run(shop.dispatcher.emit_async("thing_happened", number=number))


def emit_typed(shop: Shop, number: int) -> None:
    shop.dispatcher.emit_typed(shop.signal, Thing(number=number))


def emit_typed_async(shop: Shop, number: int) -> None:
    shop.run(shop.dispatcher.emit_typed_async(shop.signal, Thing(number=number)))


def emit_in_handler(shop: Shop, number: int) -> None:
    shop.dispatcher.emit("nested", number=number)


def emit_deferred(shop: Shop, number: int) -> None:
    with shop.dispatcher.deferred():
        shop.dispatcher.emit("thing_happened", number=number)


def emit_deferred_twice(shop: Shop, number: int) -> None:
    with shop.dispatcher.deferred():
        shop.dispatcher.emit("other")
        with shop.dispatcher.deferred():
            shop.dispatcher.emit("thing_happened", number=number)


def emit_deferred_async(shop: Shop, number: int) -> None:
    async def main() -> None:
        async with shop.dispatcher.deferred():
            await shop.dispatcher.emit_async("thing_happened", number=number)

    shop.run(main())


def emit_in_scope(shop: Shop, number: int) -> None:
    with event_scope(request_id="it"):
        shop.dispatcher.emit("thing_happened", number=number)


def emit_muted(shop: Shop, number: int) -> None:
    with shop.signal.muted():
        shop.dispatcher.emit("thing_happened", number=number)


def emit_as_cause(shop: Shop, number: int) -> None:
    emission = shop.dispatcher.emit("other")
    with emission.as_cause():
        shop.dispatcher.emit("thing_happened", number=number)


def unobserved(shop: Shop) -> EventDispatcher:
    """Return a dispatcher whose emissions are called in the fastest way."""
    if shop.without_observers is None:
        shop.without_observers = EventDispatcher(shop.signals, queue_size=QUEUE_SIZE, max_workers=2)
    return shop.without_observers


def emit_unobserved(shop: Shop, number: int) -> None:
    unobserved(shop).emit("thing_happened", number=number)


def emit_unobserved_async(shop: Shop, number: int) -> None:
    shop.run(unobserved(shop).emit_async("thing_happened", number=number))


def emit_typed_unobserved(shop: Shop, number: int) -> None:
    unobserved(shop).emit_typed(shop.signal, Thing(number=number))


def send(shop: Shop, number: int) -> None:
    shop.signal.send(None, number=number, _async_wrapper=lambda _: lambda *_, **__: None)


def send_async(shop: Shop, number: int) -> None:
    shop.run(
        shop.signal.send_async(
            None, number=number, _sync_wrapper=lambda _: lambda *_, **__: asyncio.sleep(0)
        )
    )


def deliver(shop: Shop, _number: int) -> None:
    shop.dispatcher.deliver(shop.other.bind(do_nothing), BaseEventContext())


def deliver_elsewhere(shop: Shop, _number: int) -> None:
    shop.dispatcher.deliver(shop.other.bind(do_nothing_async), BaseEventContext())


def deliver_async(shop: Shop, _number: int) -> None:
    bound = shop.other.bind(do_nothing_async, timeout=LIMIT)
    shop.run(shop.dispatcher.deliver_async(bound, BaseEventContext()))


def deliver_and_announce(shop: Shop, _number: int) -> None:
    delivery = shop.dispatcher.deliver(shop.other.bind(fail), BaseEventContext())
    shop.dispatcher.announce(delivery)


def subscribe_and_cancel(shop: Shop, _number: int) -> None:
    shop.signal.subscribe(do_nothing).cancel()


def subscribe_to_a_sender(shop: Shop, number: int) -> None:
    sender = Sender()
    with shop.signal.subscribe(do_nothing, sender=sender):
        shop.dispatcher.emit("other", sender=sender, number=number)


def subscribe_to_a_pattern(shop: Shop, number: int) -> None:
    with shop.signals.subscribe("oth*", do_nothing):
        shop.dispatcher.emit("other", number=number)


def explain(shop: Shop, number: int) -> None:
    called = shop.signals.explain("thing_happened", number=number).called
    # An interrupt may have come between a `subscribe` and its `cancel`.
    own = [it for it in called if not it.name.endswith(do_nothing.__name__)]
    assert len(own) == len(KINDS)


def subscribe_once(shop: Shop, number: int) -> None:
    with shop.other.subscribe(do_nothing, once=True):
        shop.dispatcher.emit("other", number=number)


def subscribe_a_weak_method(shop: Shop, number: int) -> None:
    sender = Sender()
    shop.other.subscribe(sender.handle)
    shop.dispatcher.emit("other", number=number)
    del sender
    shop.dispatcher.emit("other", number=number)


def emit_with_another_observer(shop: Shop, number: int) -> None:
    observer = TimingObserver()
    try:
        shop.dispatcher.add_observer(observer)
        shop.dispatcher.emit("thing_happened", number=number)
    finally:
        shop.dispatcher.remove_observer(observer)


def drain(shop: Shop, number: int) -> None:
    shop.dispatcher.emit("thing_happened", number=number)
    assert shop.dispatcher.drain(LIMIT)


class Sender:
    def handle(self, **context: object) -> None:
        pass


def do_nothing(**context: object) -> None:
    pass


async def do_nothing_async(**context: object) -> None:
    await asyncio.sleep(0)


def fail(**context: object) -> None:
    raise ValueError("on purpose")


Way = Callable[[Shop, int], None]

ALL: list[Way] = [
    emit,
    emit_async,
    emit_typed,
    emit_typed_async,
    emit_in_handler,
    emit_deferred,
    emit_deferred_twice,
    emit_deferred_async,
    emit_in_scope,
    emit_muted,
    emit_as_cause,
    send,
    send_async,
    deliver,
    deliver_elsewhere,
    deliver_async,
    deliver_and_announce,
    subscribe_and_cancel,
    subscribe_to_a_sender,
    subscribe_to_a_pattern,
    explain,
    subscribe_once,
    subscribe_a_weak_method,
    emit_with_another_observer,
    drain,
]

UNOBSERVED: list[Way] = [emit_unobserved, emit_unobserved_async, emit_typed_unobserved]

QUIET: frozenset[Way] = frozenset({emit_muted, explain, send, send_async})
"""Those after which a handler may have been called by the sender, or by nobody."""

HEARD: frozenset[Way] = frozenset(
    way for way in ALL if way not in QUIET and not way.__name__.startswith(("deliver", "subscribe"))
)
"""Those after which each handler has been called."""
