"""20,000 emissions to slow background handlers, under each policy (B1).

The queue never holds more than its bound, each emission is handled or told to
have been refused, and no event loop is ever kept waiting.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container
from typing import Any

import pytest

from madcrow_events import Emission, EventDispatcher, EventSignal, QueueFullError, SignalRegistry

EMISSIONS = 20_000
QUEUE_SIZE = 50
WORKERS = 2
SLOW = 0.0001  # seconds
EMITTERS = 4
PAUSE = 1.0  # seconds for which now and then nothing is taken out of the queue

pytestmark = [pytest.mark.soak, pytest.mark.guarantee("B1")]


class Load:
    """Emits numbers to a slow handler, and sees what becomes of each."""

    def __init__(
        self,
        signals: SignalRegistry,
        overflow: str,
        *,
        is_async: bool,
        workers: int = WORKERS,
        pause_at: Container[int] = (),
    ) -> None:
        self.signal: EventSignal[Any] = signals.signal("thing_happened")
        self.dispatcher = EventDispatcher(
            signals, queue_size=QUEUE_SIZE, overflow=overflow, max_workers=workers
        )
        self.is_async = is_async
        self.pause_at = pause_at
        self.pauses = 0
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.accepted: list[int] = []
        self.refused: list[int] = []
        self.longest_queue = 0
        self.signal.subscribe(self.async_work if is_async else self.work, background=True)

    def work(self, number: int) -> None:
        time.sleep(PAUSE if self.begin(number) else SLOW)
        self.ended.append(number)

    async def async_work(self, number: int) -> None:
        await asyncio.sleep(PAUSE if self.begin(number) else SLOW)
        self.ended.append(number)

    def begin(self, number: int) -> bool:
        """Note that a handler has begun; return whether it is one that gets stuck."""
        self.begun.append(number)
        # With async handlers all that are in the queue at that moment run, and get stuck.
        stuck = range(len(self.begun) - QUEUE_SIZE, len(self.begun)) if self.is_async else ()
        is_stuck = len(self.begun) in self.pause_at or any(at in stuck for at in self.pause_at)
        self.pauses += is_stuck
        return is_stuck

    def note(self, number: int, emission: Emission[Any] | None) -> None:
        """Note whether the emission left work, and how long the queue is by now."""
        if emission is None:
            self.refused.append(number)
            return
        if emission.pending or emission.results:
            self.accepted.append(number)
        # An async handler keeps its place until it has ended.
        accepted, gone = len(self.accepted), len(self.ended if self.is_async else self.begun)
        self.longest_queue = max(self.longest_queue, accepted - gone)

    def emit(self, number: int) -> None:
        try:
            emission = self.dispatcher.emit(self.signal, number=number)
        except QueueFullError:
            self.note(number, None)
        else:
            self.note(number, emission)

    def check(self, count: int) -> None:
        """Account for all emissions."""
        assert self.dispatcher.close(60)
        assert sorted(self.ended) == sorted(self.accepted), "accepted work is done once"
        assert len(self.ended) + len(self.refused) + self.dispatcher.dropped == count
        # A worker has taken a call out of the queue before the call can say so.
        assert self.longest_queue <= QUEUE_SIZE + (0 if self.is_async else WORKERS)


def from_threads(work: Callable[[int], Any], number_of_threads: int) -> list[Any]:
    """Call `work` with 0, 1, 2... in a thread each; return what it returned."""
    outcomes: list[Any] = [None] * number_of_threads

    def run(index: int) -> None:
        try:
            outcomes[index] = work(index)
        except BaseException as error:
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(n,)) for n in range(number_of_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
def test_each_emission_is_handled_or_refused_and_the_queue_keeps_its_bound(
    signals: SignalRegistry, scale: float, overflow: str, is_async: bool
) -> None:
    # All workers pause at first, for else they may be as fast as the emitters.
    load = Load(signals, overflow, is_async=is_async, pause_at=range(1, WORKERS + 1))
    count = int(EMISSIONS * scale)

    def emit(index: int) -> None:
        for number in range(index, count, EMITTERS):
            load.emit(number)

    from_threads(emit, EMITTERS)
    load.check(count)
    assert load.longest_queue > QUEUE_SIZE / 2, "the queue has hardly been tried"
    refused = len(load.refused), load.dispatcher.dropped
    assert [bool(number) for number in refused] == [overflow == "raise", overflow == "drop"]


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("emitting", ["emit", "emit_async"])
def test_no_loop_is_kept_waiting_by_a_full_queue(
    signals: SignalRegistry, scale: float, emitting: str, is_async: bool
) -> None:
    """Two loops in two threads emit, and once or twice the only worker is stuck for a second.

    A loop that waited for a place would stand still as long as that.
    """
    count = int(EMISSIONS * scale)
    pause_at = (QUEUE_SIZE // 2, count // 4)
    load = Load(signals, "block", is_async=is_async, workers=1, pause_at=pause_at)

    async def emit(numbers: range) -> None:
        for number in numbers:
            if emitting == "emit_async":
                load.note(number, await load.dispatcher.emit_async(load.signal, number=number))
                # Without the GIL the worker may empty the queue as fast as it is filled; then
                # nothing before this suspends.
                await asyncio.sleep(0)
            else:
                load.emit(number)
                await asyncio.sleep(SLOW)

    async def beat(gaps: list[float]) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async def main(index: int) -> float:
        gaps: list[float] = []
        heart = asyncio.ensure_future(beat(gaps))
        tasks = [emit(range(index + 2 * n, count, 20)) for n in range(10)]
        await asyncio.wait_for(asyncio.gather(*tasks), 300)
        heart.cancel()
        await load.dispatcher.drain_async()  # before the loop ends, which has the async handlers
        return max(gaps)

    longest = from_threads(lambda index: asyncio.run(main(index)), 2)
    load.check(count)
    assert load.pauses
    assert max(longest) < 0.9 * PAUSE, "nothing but a wait takes as long, on a busy machine either"
    assert bool(load.refused) == (emitting == "emit")


# With such a threshold finalizers run nearly anywhere, in the midst of the package's code too.
FINALIZING = """
import faulthandler, gc, logging, sys, threading
from madcrow_events import EventDispatcher, QueueFullError, SignalRegistry, WouldDeadlockError

faulthandler.dump_traceback_later(100, exit=True)
logging.disable(logging.WARNING)
signals = SignalRegistry()
dispatcher = EventDispatcher(signals, overflow=sys.argv[1], queue_size=3, max_workers=2)
finalized, handled, refused = [], [], []

class Cyclic:
    def __init__(self):
        self.me = self

    def __del__(self):
        finalized.append(1)
        emit("finalized")

def emit(event):
    try:
        dispatcher.emit(event)
    except (QueueFullError, WouldDeadlockError):
        refused.append(event)

async def async_work():
    Cyclic()
    handled.append(1)

def work():
    Cyclic()
    handled.append(1)

def emit_many():
    for _ in range(int(sys.argv[2])):
        emit("plain_thing")
        emit("async_thing")
        Cyclic()

signals.signal("finalized").subscribe(lambda: handled.append(1), background=True)
signals.signal("plain_thing").subscribe(work, background=True)
signals.signal("async_thing").subscribe(async_work, background=True)
gc.set_threshold(1)
emitters = [threading.Thread(target=emit_many) for _ in range(2)]
for thread in emitters:
    thread.start()
for thread in emitters:
    thread.join()
gc.set_threshold(0)
while not dispatcher.drain(0) or gc.collect():
    assert dispatcher.drain(60)
emissions = len(finalized) + 4 * int(sys.argv[2])
print(emissions - len(handled) - len(refused) - dispatcher.dropped, "lost of", emissions)
"""


@pytest.mark.guarantee("F6")
@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="Python 3.11 itself crashes, see lifetimes.md"
)
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
def test_finalizers_that_emit_anywhere_neither_hang_nor_lose(scale: float, overflow: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FINALIZING, overflow, str(int(2_000 * scale))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.startswith("0 lost of "), ran.stdout + ran.stderr
