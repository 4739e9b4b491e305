"""Interrupts and failed starts under load: no worker, lock, place or call is lost (F3).

`tests/unit/test_interrupts.py` tries each place in turn; here the moments are random, and come
from real timers, from other threads, from a full stack, and from a system without threads left.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from madcrow_events import HandlerErrors, HandlerSignatureError
from support import shops
from support.shops import LIMIT, Shop, Way

INTERRUPTS = 10_000
FAILED_STARTS = 2_000

TESTS = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.soak,
    pytest.mark.guarantee("F3"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # coroutines that were never begun
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # loops that were not closed
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


# Signals


@pytest.mark.skipif(not hasattr(os, "fork"), reason="timers that signal are POSIX")
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "TimeLimit"])
def test_a_timer_that_raises_at_random_moments_costs_at_most_that_emission(
    scale: float, error: str
) -> None:
    """See `support.interrupting`, which looks after each handful of interrupts."""
    path = [str(TESTS), *sys.path]
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "support.interrupting"),
            *(error, str(int(INTERRUPTS * scale)), str(time.monotonic_ns() % 1_000_000)),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    assert ran.returncode == 0, ran.stderr[-5000:]
    report = json.loads(ran.stdout)
    print(f"{report['hits']} interrupts in {report['seconds']:.1f} s, seed {report['seed']}")
    print(report["ways"])
    assert report["problems"] == []
    assert report["swallowed"] == [], "what was raised must reach somebody"
    assert report["hits"] >= int(INTERRUPTS * scale)
    assert len(report["ways"]) == len(shops.ALL), "a way was never interrupted"


# Threads that cannot be started


@pytest.fixture
def failing_starts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what lets half of all starts of the package's threads fail from then on."""

    def let_fail(error: BaseException) -> None:
        def start(thread: threading.Thread) -> None:
            if "madcrow" in thread.name and chance() < 0.5:
                time.sleep(0.001 * chance())  # while other emitters rely on it
                failed.append(thread.name)
                raise error
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)

    real = threading.Thread.start
    failed: list[str] = []
    chance = random.Random(1).random  # noqa: S311  # no secret
    let_fail.failed = failed  # type: ignore[attr-defined]
    return let_fail


@pytest.mark.usefixtures("threads_switch_often")
@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError()], ids=["no thread", "no memory"]
)
def test_threads_that_cannot_be_started_lose_no_call(
    failing_starts: Any, scale: float, error: BaseException
) -> None:
    """Each of the calls of four emitters is made once, or reported once, without a drain."""
    failing_starts(error)
    while len(failing_starts.failed) < FAILED_STARTS * scale:
        shop = Shop()
        barrier = threading.Barrier(4)

        def emit(first: int, shop: Shop = shop, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(LIMIT)
            for number in range(first, first + 3):
                shop.dispatcher.emit("thing_happened", number=number)

        emitters = [threading.Thread(target=emit, args=(1 + 3 * n,)) for n in range(4)]
        for emitter in emitters:
            emitter.start()
        for emitter in emitters:
            emitter.join(LIMIT)
            assert not emitter.is_alive(), "an emitter waits for ever"
        for number in range(1, 13):
            (emission,) = shop.emissions[number]
            assert emission.wait(LIMIT), f"pending for ever: {emission}"
            shop.assert_accounted_for(number, returned=True)
        assert shop.dispatcher.close(LIMIT)


# A full stack

DEPTHS = 120  # more than any way needs
ROOM = 250  # frames that a test and its tools may need besides


@pytest.mark.parametrize("way", shops.ALL)
def test_a_stack_that_is_full_at_any_depth_loses_nothing(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That of pytest needs a stack of its own.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before = sys.getrecursionlimit()
    depth = depth_here()
    shop = Shop()
    for number in range(1, 3):
        way(shop, number)  # what is made when first needed
    assert shop.dispatcher.drain(LIMIT)
    overflows = 0
    for left in range(1, DEPTHS):
        number = left + 10
        is_whole = False
        try:
            sys.setrecursionlimit(depth + ROOM)
            dive(ROOM - left, way, shop, number)
            is_whole = True
        except (RecursionError, HandlerErrors, HandlerSignatureError):
            overflows += 1
        finally:
            sys.setrecursionlimit(before)
            shop.close_loops()
        assert shop.dispatcher.drain(LIMIT), f"pending for ever, with {left} frames left"
        # What the handler has not emitted is its own failure.
        is_whole = is_whole and way is not shops.emit_in_handler
        shop.assert_accounted_for(number, returned=is_whole and way in shops.HEARD)
        if not left % 10:
            shop.assert_all_is_well()
    shop.assert_all_is_well(100)
    assert overflows, "the stack was never full"
    assert shop.dispatcher.close(LIMIT)


def depth_here() -> int:
    frame: Any = sys._getframe()
    depth = 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth


def dive(frames: int, way: Way, shop: Shop, number: int) -> None:
    if frames > 0:
        dive(frames - 1, way, shop, number)
    else:
        way(shop, number)


# Exceptions from other threads


class TimeLimit(BaseException):
    """As what task queues raise in the thread of a job that takes too long."""


@pytest.mark.usefixtures("threads_switch_often")
@pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="only CPython raises in other threads"
)
def test_a_worker_survives_what_is_raised_in_it_from_outside(scale: float) -> None:
    chance = random.Random(2)  # noqa: S311  # no secret
    raised = 0
    while raised < INTERRUPTS * scale / 4:
        shop = Shop()
        shop.assert_all_is_well()
        shop.heard.clear()
        shop.emissions.clear()
        workers = [thread for thread in threading.enumerate() if "-worker" in thread.name]
        hits = 0
        for number in range(1, 26):
            emission = shop.dispatcher.emit("thing_happened", number=number)
            wait_about(chance.uniform(0, 3e-4))
            raise_in(chance.choice(workers))
            hits += 1
            assert emission.wait(LIMIT), f"pending for ever: {emission}"
            wait_about(2e-3)  # one limit for one job: the worker has come to rest
            for worker in workers:  # one that waits would learn of it with its next job
                raise_in(worker, None)
        raised += hits
        assert shop.dispatcher.drain(LIMIT)
        assert all(thread.is_alive() for thread in workers), "a worker has died"
        twice = 0
        for number in range(1, 26):
            (emission,) = shop.emissions[number]
            for kind in shops.LATER:
                runs = shop.heard.count((kind, number))
                reports = len([it for it in emission.failures if name_of(it) == kind])
                assert runs <= 1
                assert reports <= 1, emission.failures
                assert runs + reports, f"{kind} was lost without a word"
                twice += runs + reports == 2  # it was raised after the handler's last step
        assert twice <= 2 * hits  # a batch is of two
        shop.assert_all_is_well()
        assert shop.dispatcher.close(LIMIT)
    settle()


def settle() -> None:
    """Raise one here: Python 3.11 looks for what was taken back until some thread gets one."""
    try:
        raise_in(threading.current_thread())
        wait_about(0.1)
    except TimeLimit:
        return
    raise AssertionError("it was not raised")


def name_of(failure: Any) -> str:
    name: str = failure.handler.__name__
    return name


def wait_about(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(0)


def raise_in(thread: threading.Thread, error: type[BaseException] | None = TimeLimit) -> None:
    identity = ctypes.c_ulong(thread.ident or 0)
    given = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, given)
