"""Eight threads on one signal, switched as often as the interpreter can (section 6).

Nothing may be lost, doubled or raised. The full run takes 10 s for each test.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal
from support.inside import senders_of

THREADS = 8
SECONDS = 10.0

pytestmark = [pytest.mark.soak, pytest.mark.guarantee("N6")]


class Owner:
    """Counts what its method hears."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def handle(self, sender: Any, **context: Any) -> None:
        self.heard.append(context["number"])


class Sender:
    """A sender that may go away."""


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def churn(work: Callable[[int, int], None], seconds: float) -> int:
    """Let each thread do the work again and again; return how often it was done in all."""
    errors: list[BaseException] = []
    rounds = [0] * THREADS
    start = threading.Barrier(THREADS)
    end = time.monotonic() + seconds

    def run(mine: int) -> None:
        try:
            start.wait()
            while time.monotonic() < end and not errors:
                work(mine, rounds[mine])
                rounds[mine] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(rounds)


def test_threads_that_emit_subscribe_and_cancel_lose_and_double_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, scale: float
) -> None:
    permanent: list[tuple[int, int]] = []
    signal.subscribe(
        lambda sender, **context: permanent.append((context["mine"], context["number"]))
    )
    emitted: list[list[int]] = [[] for _ in range(THREADS)]

    def work(mine: int, number: int) -> None:
        heard: list[int] = []

        def handler(sender: Any, **context: Any) -> None:
            if context["mine"] == mine:
                heard.append(context["number"])

        subscription = signal.subscribe(handler)
        emission = dispatcher.emit(signal, mine=mine, number=number)
        assert emission.ok
        assert heard == [number], "a subscription of this thread's own was missed, or called twice"
        subscription.cancel()
        dispatcher.emit(signal, mine=mine, number=-1)
        assert heard == [number], "a cancelled subscription was called"
        emitted[mine].append(number)

    rounds = churn(work, SECONDS * scale)
    assert rounds > THREADS
    for mine in range(THREADS):
        assert [n for m, n in permanent if m == mine and n >= 0] == emitted[mine]
    assert len(permanent) == 2 * rounds
    assert len(signal.subscriptions) == 1


def test_subscriptions_to_one_sender_are_neither_lost_nor_doubled(
    signal: EventSignal[Any], dispatcher: EventDispatcher, scale: float
) -> None:
    def work(mine: int, number: int) -> None:
        heard: list[Any] = []
        sender = Sender()
        signal.subscribe(lambda: heard.append("mine"), sender=sender)
        with signal.subscribe(lambda: heard.append("plain"), sender=(mine, number)):
            dispatcher.emit(signal, sender, number=number)
            dispatcher.emit(signal, (mine, number), number=number)
            dispatcher.emit(signal, Sender(), number=number)
            assert heard == ["mine", "plain"]
        dispatcher.emit(signal, (mine, number), number=number)
        assert len(heard) == 2

    assert churn(work, SECONDS * scale) > THREADS
    gc.collect()
    assert not signal.subscriptions
    assert not senders_of(signal)


def test_owners_that_die_take_their_handlers_along(
    signal: EventSignal[Any], dispatcher: EventDispatcher, scale: float
) -> None:
    def work(mine: int, number: int) -> None:
        owner = Owner()
        signal.subscribe(owner.handle)
        marked = mine * 10_000_000 + number
        dispatcher.emit(signal, number=marked)
        assert owner.heard.count(marked) == 1
        del owner

    assert churn(work, SECONDS * scale) > THREADS
    gc.collect()
    assert not signal.subscriptions
    assert not senders_of(signal)


def test_once_is_called_once(
    signal: EventSignal[Any], dispatcher: EventDispatcher, scale: float
) -> None:
    calls: list[tuple[int, int]] = []

    def work(mine: int, number: int) -> None:
        signal.subscribe(lambda: calls.append((mine, number)), once=True)
        dispatcher.emit(signal)

    rounds = churn(work, SECONDS * scale)
    dispatcher.emit(signal)
    assert len(calls) == rounds
    assert len(set(calls)) == rounds
    assert not signal.subscriptions
