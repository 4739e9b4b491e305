"""Nothing grows that should not (section 6)."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal, SignalRegistry, emit_event
from madcrow_events.event_handlers import _stores, register_all_handlers
from madcrow_events.event_handlers._bounded import MAX_SUBJECTS
from support.inside import patterns_of, senders_of, stale_of, table_of

pytestmark = pytest.mark.soak

# In a process of its own, whose memory nobody else uses.
EMITTING = """
import gc, sys
from madcrow_events import EventDispatcher, LoginEventContext, SignalRegistry

def resident():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096

signals = SignalRegistry()
signal = signals.signal("user_logged_in", context=LoginEventContext)
dispatcher = EventDispatcher(signals)
signal.subscribe(lambda sender, **context: None)
signal.subscribe(lambda: None, when=lambda context: True)
signal.subscribe(lambda: None, sender="me")
context = LoginEventContext(user_id=1, email="a@b.c")

def emit(number):
    for index in range(number // 4):
        dispatcher.emit(signal, user_id=index, email="a@b.c")
        dispatcher.emit_typed(signal, context)
        dispatcher.emit(signal, "me", user_id=index)
        dispatcher.emit("user-logged-in", ("nobody", index))

emit(50_000)
gc.collect()
before = resident()
emit(int(sys.argv[1]))
gc.collect()
print(resident() - before)
"""


class Sender:
    """A sender that may go away."""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux to read the memory")  # noqa: PTH110  # a decorator
def test_emissions_do_not_grow_the_process(scale: float) -> None:
    """1,000,000 emissions grow it by less than 1 MiB."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-c", EMITTING, str(int(1_000_000 * scale))],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
        env=environment,
    )
    print(f"grown by {ran.stdout.strip()} bytes")
    assert int(ran.stdout) < 1024 * 1024


@pytest.mark.guarantee("L2")
def test_subscribing_and_cancelling_leaves_nothing_behind(
    signals: SignalRegistry, dispatcher: EventDispatcher, scale: float
) -> None:
    """100,000 subscriptions come and go."""
    signal: EventSignal[Any] = signals.signal("thing_happened")
    last: list[weakref.ref[Any]] = []
    for number in range(int(100_000 * scale)):

        def handler(number: int = number) -> int:
            return number

        last = [weakref.ref(handler)]
        pattern = number % 10 == 0
        subscription = signals.subscribe("*" if pattern else signal, handler)
        subscription.cancel()
    del handler, subscription
    gc.collect()
    assert last[0]() is None
    assert not signals.subscriptions
    assert not senders_of(signal)
    assert not stale_of(signal)
    assert not patterns_of(signals)


@pytest.mark.guarantee("L2")
def test_senders_that_come_and_go_leave_nothing_behind(
    signals: SignalRegistry, dispatcher: EventDispatcher, scale: float
) -> None:
    """20,000 senders."""
    signal: EventSignal[Any] = signals.signal("thing_happened")
    for _ in range(int(20_000 * scale)):
        sender = Sender()
        signal.subscribe(lambda: None, sender=sender)
        signal.connect(print, sender=sender, weak=False)
        assert signal.has_receivers_for(sender)
        del sender
    gc.collect()
    assert not signals.subscriptions
    assert not senders_of(signal)
    assert not stale_of(signal)
    assert not table_of(signal).plans.by_sender


def test_every_store_stays_within_its_bound(scale: float) -> None:
    """100,000 users, of whom 10,000 are remembered."""
    register_all_handlers()
    for number in range(int(100_000 * scale)):
        base: dict[str, Any] = {"email": f"{number}@b.c", "ip_address": f"10.{number}"}
        emit_event("user_registered", user_id=number, **base)
        emit_event("login_failed", failure_reason=f"reason {number}", **base)
        emit_event("user_logged_in", user_id=number, **base)
    users = MAX_SUBJECTS
    assert len(_stores.sessions) <= users
    assert len(_stores.failures) <= users
    snapshot = _stores.activity.snapshot()
    assert len(snapshot.by_user) <= users
    assert len(_stores.failures.analytics().by_reason) <= users


@pytest.mark.guarantee("N6")
def test_subscribing_takes_linear_time(scale: float) -> None:
    """20,000 handlers one by one take no more than 3 times as long as 10,000; 4 were quadratic."""

    def seconds(number: int) -> float:
        signal = SignalRegistry().signal("thing_happened")
        handlers = [lambda number=number: number for number in range(number)]
        gc.collect()
        gc.disable()
        try:
            started = time.thread_time()  # in which other programs have no part
            for handler in handlers:
                signal.subscribe(handler)
            return time.thread_time() - started
        finally:
            gc.enable()

    number = int(10_000 * scale)
    # The best of several, in turn: whatever disturbs only ever adds to a time.
    times = [(seconds(number), seconds(2 * number)) for _ in range(7)]
    ratio = min(long for _, long in times) / min(short for short, _ in times)
    print(f"twice as many handlers take {ratio:.2f} times as long")
    assert ratio <= 3
