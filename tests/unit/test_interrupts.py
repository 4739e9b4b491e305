"""What a signal handler raises, at any moment: it costs at most that emission (F3).

Python runs signal handlers where a function is entered, and after a call of a built-in one. A
profile function is called at just these places, so that each of them can be tried in turn.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import madcrow_events
from madcrow_events import (
    Batch,
    EventDispatcher,
    SignalRegistry,
    TimingObserver,
    current_event,
    event_scope,
)

PACKAGE = f"{Path(madcrow_events.__file__).parent}{os.sep}"
LIMIT = 5  # seconds

pytestmark = [
    pytest.mark.guarantee("F3"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # finalizers
]


class Interrupt(BaseException):
    """As KeyboardInterrupt, which pytest keeps for itself."""


class TimeLimit(Exception):
    """As what task queues raise when a job takes too long."""


class Interrupter:
    """Sends a signal at the so-and-so-many-th place in the package where its handler could run."""

    def __init__(self, place: int, error: type[BaseException]) -> None:
        self.left = place
        self.error = error

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call":
            caller = frame.f_back.f_code.co_filename if frame.f_back else ""
            is_place = name.startswith(PACKAGE) or (
                # A loop that is interrupted itself is asyncio's matter.
                caller.startswith(PACKAGE) and name != __file__ and "asyncio" not in name
            )
        else:
            is_place = event == "c_return" and name.startswith(PACKAGE)
        if is_place:
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGALRM)

    def _handle(self, *_arguments: object) -> None:
        raise self.error("time is up")

    def run(self, act: Callable[[], object]) -> BaseException | None:
        """Do something; return what came through, if anything did."""
        before = signal.signal(signal.SIGALRM, self._handle)
        sys.setprofile(self)
        try:
            act()
        except (Interrupt, TimeLimit) as error:
            return error.with_traceback(None)
        finally:
            sys.setprofile(None)
            signal.signal(signal.SIGALRM, before)
        return None


class Shop:
    """A registry with handlers of each kind, and ways to see that all is well."""

    def __init__(self) -> None:
        self.signals = SignalRegistry()
        self.signal = self.signals.signal("thing_happened")
        self.other = self.signals.signal("other")
        self.dispatcher = EventDispatcher(self.signals, queue_size=6, max_workers=2)
        self.timing = TimingObserver()
        self.dispatcher.add_observer(self.timing)
        self.heard: list[str] = []
        self.signal.subscribe(self.inline)
        self.signal.subscribe(self.awaited, weak=False)
        self.signal.subscribe(lambda number: self.heard.append("background"), background=True)
        self.signal.subscribe(lambda batch: self.heard.append("batch"), batch=Batch(2, 0.01))

    def inline(self, number: int) -> None:
        self.heard.append("inline")

    async def awaited(self, number: int) -> None:
        self.heard.append("awaited")

    def assert_all_is_well(self) -> None:
        assert self.dispatcher.drain(LIMIT), "something is pending for ever"
        assert current_event() is None
        self.heard.clear()
        before = {t.event: t.emissions for t in self.timing.snapshot().events}
        for number in range(3):
            emission = self.dispatcher.emit("thing_happened", number=number)
            assert emission.depth == 0
            assert emission.causation_id is None
            assert emission.state != "deferred"
        assert self.dispatcher.drain(LIMIT)
        assert sorted({*self.heard}) == ["awaited", "background", "batch", "inline"]
        assert self.heard.count("inline") == self.heard.count("awaited") == 3
        after = {t.event: t.emissions for t in self.timing.snapshot().events}
        assert after["thing_happened"] == before.get("thing_happened", 0) + 3
        self.assert_locks_are_free()
        self.assert_places_are_free()

    def assert_locks_are_free(self) -> None:
        done: list[bool] = []

        def use() -> None:
            self.signal.subscribe(lambda: None).cancel()
            self.signals.signal("declared").subscribe(lambda: None).cancel()
            done.append(self.dispatcher.emit("other").ok)

        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(LIMIT)
        assert done == [True]

    def assert_places_are_free(self) -> None:
        """Workers are there, and as many places as the queue has."""
        release, blocked = threading.Event(), threading.Semaphore(0)

        def block() -> None:
            blocked.release()
            release.wait(LIMIT)

        with self.other.subscribe(block, background=True):
            for _ in range(2):
                self.dispatcher.emit("other")
            for _ in range(2):
                assert blocked.acquire(timeout=LIMIT), "a worker is gone"
            for _ in range(6):
                self.dispatcher.emit("other")
            assert not self.dispatcher._workers._backlog.places
            release.set()
            assert self.dispatcher.drain(LIMIT)
        assert len(self.dispatcher._workers._backlog.places) == 6


def emit(shop: Shop) -> None:
    shop.dispatcher.emit("thing_happened", number=1)


def emit_async(shop: Shop) -> None:
    asyncio.run(shop.dispatcher.emit_async("thing_happened", number=1))


def subscribe_and_cancel(shop: Shop) -> None:
    shop.signal.subscribe(shop_handler).cancel()
    shop.signals.subscribe("thing_*", shop_handler).cancel()


def shop_handler(**context: object) -> None:
    pass


def emit_deferred(shop: Shop) -> None:
    with shop.dispatcher.deferred():
        shop.dispatcher.emit("thing_happened", number=1)
        with shop.dispatcher.deferred():
            shop.dispatcher.emit("thing_happened", number=2)


def emit_in_scope(shop: Shop) -> None:
    with event_scope(request_id="it"):
        shop.dispatcher.emit("thing_happened", number=1)


def emit_muted(shop: Shop) -> None:
    with shop.signal.muted():
        shop.dispatcher.emit("thing_happened", number=1)


def emit_as_cause(shop: Shop) -> None:
    emission = shop.dispatcher.emit("other")
    with emission.as_cause():
        shop.dispatcher.emit("other")


def send(shop: Shop) -> None:
    shop.signal.send(None, number=1, _async_wrapper=lambda _: lambda *_, **__: None)


WAYS = [
    emit,
    emit_async,
    subscribe_and_cancel,
    emit_deferred,
    emit_in_scope,
    emit_muted,
    emit_as_cause,
    send,
]


@pytest.mark.parametrize("error", [Interrupt, TimeLimit])
@pytest.mark.parametrize("way", WAYS)
def test_all_is_well_after_an_interrupt_at_any_place(
    way: Callable[[Shop], None], error: type[BaseException]
) -> None:
    place = 0
    bad = []
    while True:
        place += 1
        shop = Shop()
        way(shop)  # what is made when first needed
        assert shop.dispatcher.drain(LIMIT)
        interrupter = Interrupter(place, error)
        raised = interrupter.run(lambda: way(shop))
        if interrupter.left > 0:
            break
        try:
            shop.assert_all_is_well()
        except BaseException as problem:
            bad.append((place, repr(raised), repr(problem)[:150]))
    print(place, bad[:40])
    assert not bad
