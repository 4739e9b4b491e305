"""Batches under load: each context arrives once, in order, in time, whatever happens (B3)."""

from __future__ import annotations

import asyncio
import math
import os
import random
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from madcrow_events import Batch, Emission, EventDispatcher, QueueFullError, SignalRegistry
from support.inside import backlog_of
from support.ways import plain_and_async

EMISSIONS = 100_000
EMITTERS = 8
SIZE = 100
LATEST = 0.05  # seconds after its time

pytestmark = [pytest.mark.soak, pytest.mark.guarantee("B3")]


class Load:
    """Emits pairs of emitter and number from many threads, and keeps the batches that arrive."""

    def __init__(self, signals: SignalRegistry, limits: Batch, *, is_async: bool) -> None:
        self.signal = signals.signal("thing_happened")
        self.limits = limits
        self.batches: list[list[Any]] = []
        self.running = 0
        self.most_running = 0
        self.emissions: list[list[Emission[Any]]] = [[] for _ in range(EMITTERS)]
        self.refusals = [0] * EMITTERS  # a place for each thread, for += is no single operation
        handler = self.async_work if is_async else self.work
        self.subscription = self.signal.subscribe(handler, batch=limits)

    def work(self, batch: list[Any]) -> int:
        self.begin(batch)
        self.running -= 1
        return len(batch)

    async def async_work(self, batch: list[Any]) -> int:
        self.begin(batch)
        await asyncio.sleep(0)
        self.running -= 1
        return len(batch)

    def begin(self, batch: list[Any]) -> None:
        self.running += 1  # by one thread at a time, which is what is to be shown
        self.most_running = max(self.most_running, self.running)
        self.batches.append([(context["emitter"], context["number"]) for context in batch])

    def emit(self, dispatcher: EventDispatcher, count: int) -> None:
        """Emit so many, from all threads together."""
        barrier = threading.Barrier(EMITTERS)

        def run(emitter: int) -> None:
            barrier.wait()
            for number in range(emitter, count, EMITTERS):
                try:
                    emission = dispatcher.emit(self.signal, emitter=emitter, number=number)
                except QueueFullError:
                    self.refusals[emitter] += 1
                else:
                    self.emissions[emitter].append(emission)

        with ThreadPoolExecutor(EMITTERS) as pool:
            list(pool.map(run, range(EMITTERS)))

    def check(self, expected: int) -> None:
        """Account for all emissions, after a drain."""
        got = [pair for batch in self.batches for pair in batch]
        assert len(got) == expected
        assert len(set(got)) == len(got), "no context arrives twice"
        assert max(map(len, self.batches)) <= self.limits.max_size
        assert self.most_running == 1, "one batch runs at a time"
        for emitter in range(EMITTERS):
            own = [number for sender, number in got if sender == emitter]
            assert own == sorted(own), "what a thread emits stays in its order"
        assert not any(emission.pending for made in self.emissions for emission in made)


@contextmanager
def switching_every(seconds: float) -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@plain_and_async
def test_every_context_of_eight_threads_arrives_once_and_in_order(
    signals: SignalRegistry, scale: float, is_async: bool
) -> None:
    load = Load(signals, Batch(SIZE, 0.02), is_async=is_async)
    count = int(EMISSIONS * scale)
    dispatcher = EventDispatcher(signals)
    began = time.monotonic()
    load.emit(dispatcher, count)
    assert dispatcher.close(60)
    print(f"{count} emissions, {len(load.batches)} batches: {time.monotonic() - began:.2f} s")
    load.check(count)
    values = [r.value for made in load.emissions for emission in made for r in emission.results]
    assert len(values) == count
    assert sum(values) == sum(len(batch) ** 2 for batch in load.batches)


@plain_and_async
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
@pytest.mark.parametrize("queue_size", [3, 250])
def test_nothing_is_lost_where_threads_switch_all_the_time(
    signals: SignalRegistry, scale: float, overflow: Any, queue_size: int, is_async: bool
) -> None:
    """With a queue that is smaller than a batch, or larger, and others that drain meanwhile."""
    load = Load(signals, Batch(SIZE, 0.001), is_async=is_async)
    count = int(20_000 * scale)
    dispatcher = EventDispatcher(signals, queue_size=queue_size, overflow=overflow)
    over = threading.Event()

    def drain_often() -> None:
        while not over.wait(0.005):
            assert dispatcher.drain(60)

    drainer = threading.Thread(target=drain_often)
    with switching_every(1e-6):
        drainer.start()
        load.emit(dispatcher, count)
        assert dispatcher.drain(60)
        over.set()
        drainer.join()
    assert dispatcher.close(60)
    refused = sum(load.refusals)
    load.check(count - refused - dispatcher.dropped)
    assert bool(refused) <= (overflow == "raise")
    assert bool(dispatcher.dropped) <= (overflow == "drop")
    assert len(backlog_of(dispatcher).permits.free) == queue_size


@plain_and_async
def test_subscriptions_that_come_and_go_lose_nothing_and_leave_nothing_behind(
    signals: SignalRegistry, scale: float, is_async: bool
) -> None:
    """Each thread subscribes, emits, and cancels before its contexts are delivered."""

    def churn(emitter: int) -> None:
        for _ in range(int(2_000 * scale)):
            got: list[int] = []

            def handle(batch: list[Any], got: list[int] = got) -> None:
                got.extend(context["emitter"] for context in batch)

            async def handle_async(batch: list[Any], got: list[int] = got) -> None:
                got.extend(context["emitter"] for context in batch)

            handler: Any = handle_async if is_async else handle
            with signal.subscribe(handler, batch=Batch(4, 3600), when=of(emitter)):
                for _ in range(6):
                    dispatcher.emit(signal, emitter=emitter)
            outcomes.append((emitter, got))

    def of(emitter: int) -> Callable[[Any], bool]:
        return lambda context: bool(context["emitter"] == emitter)

    outcomes: list[tuple[int, list[int]]] = []
    signal = signals.signal("thing_happened")
    dispatcher = EventDispatcher(signals)
    backlog = backlog_of(dispatcher)
    with switching_every(1e-6), ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert dispatcher.close(60)
    assert len(outcomes) == 4 * int(2_000 * scale)
    assert all(got == [emitter] * 6 for emitter, got in outcomes)
    signal.send(emitter=-1)
    until = time.monotonic() + 10
    while backlog.batches.buffers and time.monotonic() < until:
        time.sleep(0.001)
    assert backlog.batches.buffers == {}


class Heartbeat(threading.Thread):
    """Sleeps and wakes up, and so knows when the machine let nobody run."""

    PERIOD = 0.002

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.beats: list[float] = [time.monotonic()]

    def run(self) -> None:
        while not self.over.wait(self.PERIOD):
            self.beats.append(time.monotonic())

    def stop(self) -> None:
        self.over.set()
        self.join()
        self.beats.append(time.monotonic())

    def stalled(self, begin: float, end: float) -> float:
        """Return for how many seconds of a time it was kept from running."""
        pairs = zip(self.beats, self.beats[1:], strict=False)
        gaps = [after - before for before, after in pairs if after > begin and before < end]
        return sum(gap - self.PERIOD for gap in gaps if gap > 2 * self.PERIOD)


def lateness(signals: SignalRegistry, seconds: float, *, is_async: bool) -> tuple[float, float]:
    """Emit at a moderate rate; return the worst lateness, and the worst that is not the machine's.

    Late is how long after `max_wait` the first of a batch was handled.
    """

    def handle(batch: list[Any]) -> None:
        handled.append((batch[0]["at"], time.monotonic()))
        counts.append(len(batch))

    async def handle_async(batch: list[Any]) -> None:
        handle(batch)

    handled: list[tuple[float, float]] = []
    counts: list[int] = []
    limits = Batch(1_000, 0.05)
    signal = signals.signal("thing_happened")
    heart = Heartbeat()
    pause = threading.Event()
    random_pause = random.Random(1).random  # noqa: S311  # no secret
    emitted = 0
    with (
        EventDispatcher(signals) as dispatcher,
        signal.subscribe(handle_async if is_async else handle, batch=limits),
    ):
        heart.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            dispatcher.emit(signal, at=time.monotonic())
            emitted += 1
            pause.wait(0.01 * random_pause())
        last = time.monotonic() + 10
        while sum(counts) < emitted and time.monotonic() < last:
            pause.wait(0.01)
        heart.stop()
    assert sum(counts) == emitted
    late = [(done - at - limits.max_wait, at, done) for at, done in handled]
    assert min(late)[0] >= 0, "a batch was not waited for"
    worst = max(late)[0]
    return worst, max(by - heart.stalled(at, done) for by, at, done in late)


@plain_and_async
def test_no_context_waits_longer_than_it_may(
    signals: SignalRegistry, scale: float, is_async: bool
) -> None:
    """50 ms later at most; what a busy machine adds, it adds to a heart that beats beside, too."""
    for attempt in range(5):
        worst, own = lateness(signals, 20 * scale, is_async=is_async)
        print(f"attempt {attempt}: {worst * 1000:.1f} ms late, of which ours {own * 1000:.1f}")
        if own <= LATEST:
            return
    pytest.fail(f"{own * 1000:.1f} ms late")


# Exits, forks and finalizers, in processes of their own

ENDING = """
import asyncio, os, sys, threading, time
from madcrow_events import Batch, EventDispatcher, SignalRegistry

signals = SignalRegistry()
dispatcher = EventDispatcher(signals, max_workers=2)

def done(batch):
    time.sleep(0.002)
    os.write(1, "".join(f"done {context['number']}\\n" for context in batch).encode())

async def done_async(batch):
    await asyncio.sleep(0.002)
    os.write(1, "".join(f"done {context['number']}\\n" for context in batch).encode())

def passes_on(batch):
    for context in batch:
        dispatcher.emit("last_async" if context["number"] % 2 else "last", **context)

async def passes_on_async(batch):
    passes_on(batch)

limits = Batch(int(sys.argv[2]), float(sys.argv[3]))
signals.signal("last").subscribe(done, batch=limits)
signals.signal("last_async").subscribe(done_async, batch=limits)
signals.signal("first").subscribe(passes_on, batch=limits)
signals.signal("first_async").subscribe(passes_on_async, batch=limits)
NAMES = ["first", "first_async", "last", "last_async"]

def emit(start):
    for number in range(start, start + 40):
        dispatcher.emit(NAMES[number % 4], number=number)

def emit_from_threads(start):
    threads = [threading.Thread(target=emit, args=(start + 100 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    return threads

def join(threads):
    for thread in threads:
        thread.join()
"""

IN_A_LOOP = """
async def main():
    for number in range(40):
        await dispatcher.emit_async(NAMES[number % 4], number=number)
    await dispatcher.drain_async()  # before the loop ends, which has the async handlers
asyncio.run(main())
"""

IN_A_FORK = """
emit(0)
child = os.fork()
emit(1000 if child else 2000)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

ENDINGS = {
    "the end of main": ("join(emit_from_threads(0))", 120),
    "threads that outlive main": ("emit(1000); emit_from_threads(0)", 160),
    "sys.exit": ("join(emit_from_threads(0)); sys.exit(0)", 120),
    "an event loop": (IN_A_LOOP, 40),
    "close": ("join(emit_from_threads(0)); assert dispatcher.close(20); os._exit(0)", 120),
}
if hasattr(os, "fork"):
    ENDINGS["a fork at work"] = (IN_A_FORK, 120)


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize("ending", ENDINGS)
def test_no_exit_loses_what_waits_for_a_batch(scale: float, ending: str) -> None:
    """100 exits, of processes that end in different ways."""
    source, expected = ENDINGS[ending]
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}

    def end_once(number: int) -> None:
        limits = [("100", "3600"), ("7", "3600"), ("7", "0.001")][number % 3]
        ran = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ENDING + source, ending, *limits],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stderr == ""
        lines = ran.stdout.splitlines()
        assert len(lines) == len(set(lines)) == expected, sorted(lines)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(end_once, range(math.ceil(100 * scale / len(ENDINGS)) + 2)))


FORKING = """
import faulthandler, os, sys, threading, time
from madcrow_events import Batch, EventDispatcher, SignalRegistry

faulthandler.dump_traceback_later(500, exit=True)
signals = SignalRegistry()
dispatcher = EventDispatcher(signals, queue_size=200)
stop = threading.Event()
sys.setswitchinterval(1e-5)
parent = os.getpid()
handled, emitted = [], []

def handle(batch):
    handled.extend(context["pid"] for context in batch)

async def handle_async(batch):
    handled.extend(context["pid"] for context in batch)

signals.signal("plain").subscribe(handle, batch=Batch(10, 0.001))
signals.signal("coroutine").subscribe(handle_async, batch=Batch(10, 0.001))

def emit_many():
    while not stop.is_set():
        for event in ("plain", "coroutine"):
            dispatcher.emit(event, pid=os.getpid())
            emitted.append(1)

def child():
    handled.clear()
    for number in range(25):
        dispatcher.emit(("plain", "coroutine")[number % 2], pid=os.getpid())
    return 0 if dispatcher.drain(30) and handled == [os.getpid()] * 25 else 1

# Whatever asyncio makes only once, behind a lock of its own, is there before the first fork.
for event in ("plain", "coroutine"):
    dispatcher.emit(event, pid=parent)
    emitted.append(1)
assert dispatcher.drain(30)
threads = [threading.Thread(target=emit_many) for _ in range(3)]
for thread in threads:
    thread.start()
hung = failed = 0
for _ in range(int(sys.argv[1])):
    process = os.fork()
    if process == 0:
        os._exit(child())
    deadline = time.monotonic() + 30
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            failed += os.waitstatus_to_exitcode(status) != 0
            break
        if time.monotonic() > deadline:
            os.kill(process, 9)
            os.waitpid(process, 0)
            hung += 1
            break
        time.sleep(0.0005)
stop.set()
for thread in threads:
    thread.join()
assert dispatcher.drain(60)
print(f"{hung} hung, {failed} failed, {len(emitted) - len(handled)} lost")
"""


@pytest.mark.guarantee("B2")
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the child may hang in Python itself, see docs/reference/free-threading.md",
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_children_forked_between_batches_neither_hang_nor_lose(scale: float) -> None:
    """300 children in full."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(int(300 * scale))],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=environment,
    )
    assert ran.stdout == "0 hung, 0 failed, 0 lost\n", ran.stdout + ran.stderr


# With such a threshold finalizers run nearly anywhere, in the midst of the package's code too.
FINALIZING = """
import faulthandler, gc, logging, sys, threading
from madcrow_events import Batch, EventDispatcher, SignalRegistry
from madcrow_events import QueueFullError, WouldDeadlockError

faulthandler.dump_traceback_later(100, exit=True)
logging.disable(logging.WARNING)
signals = SignalRegistry()
dispatcher = EventDispatcher(signals, overflow=sys.argv[1], queue_size=20, max_workers=2)
finalized, handled, refused, sizes = [], [], [], []

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

def count(batch):
    sizes.append(len(batch))
    handled.extend(batch)

def work(batch):
    Cyclic()
    count(batch)

async def async_work(batch):
    Cyclic()
    count(batch)

def emit_many():
    for _ in range(int(sys.argv[2])):
        emit("plain_thing")
        emit("async_thing")
        Cyclic()

signals.signal("finalized").subscribe(count, batch=Batch(5, 0.005))
signals.signal("plain_thing").subscribe(work, batch=Batch(5, 0.005))
signals.signal("async_thing").subscribe(async_work, batch=Batch(5, 0.005))
gc.set_threshold(1)
emitters = [threading.Thread(target=emit_many) for _ in range(2)]
for thread in emitters:
    thread.start()
for thread in emitters:
    thread.join()
gc.set_threshold(0)
while not dispatcher.drain(0) or gc.collect():
    assert dispatcher.drain(60)
assert max(sizes) <= 5
emissions = len(finalized) + 4 * int(sys.argv[2])
print(emissions - len(handled) - len(refused) - dispatcher.dropped, "lost of", emissions)
"""


@pytest.mark.guarantee("F6")
@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="Python 3.11 itself crashes, see lifetimes.md"
)
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
def test_finalizers_that_emit_for_batches_neither_hang_nor_lose(
    scale: float, overflow: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FINALIZING, overflow, str(int(2_000 * scale))],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stdout.startswith("0 lost of "), ran.stdout + ran.stderr
