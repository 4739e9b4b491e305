"""What is gathered for a handler of batches, when that is called, and what comes of it (B3).

One long file, for nearly all of it is shown of plain and of async handlers with the same tools.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import os
import queue
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    Batch,
    DispatcherClosedError,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    HandlerTimeoutError,
    QueueFullError,
    SignalRegistry,
    WouldDeadlockError,
    _batching,
    current_event,
    event_scope,
)
from madcrow_events._batching import Gathering
from madcrow_events._jobs import Backlog, _keep_time

LIMIT = 20  # seconds after which a test gives up; nothing takes near as long
HOUR = 3600.0
NAME = "thing_happened"

pytestmark = pytest.mark.guarantee("B3")

plain_and_async = pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])


class ThingContext(BaseEventContext):
    number: int


def handler_of(work: Callable[[Any], Any], is_async: bool) -> Callable[[Any], Any]:
    """Return a handler for batches that does the work, with its annotations."""

    @functools.wraps(work)
    async def handler(batch: Any) -> Any:
        return work(batch)

    return handler if is_async else work


def numbers(batch: Any) -> list[Any]:
    return [context["number"] for context in batch]


class Kept:
    """Keeps the numbers of each batch, and lets a test wait for the next."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self._arrived = threading.Semaphore(0)

    def __call__(self, batch: Any) -> int:
        self.batches.append(numbers(batch))
        self._arrived.release()
        return len(batch)

    @property
    def numbers(self) -> list[Any]:
        return [number for batch in self.batches for number in batch]

    def await_one(self) -> list[Any]:
        assert self._arrived.acquire(timeout=LIMIT)
        return self.batches[-1]


@pytest.fixture
def kept() -> Kept:
    return Kept()


class Gate:
    """Work that waits in the middle of its first batch, until the test lets it go on."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.began = threading.Event()
        self.open = threading.Event()

    def __call__(self, batch: Any) -> Any:
        self.began.set()
        assert self.open.wait(LIMIT)
        return self.work(batch)


def emit_numbers(dispatcher: EventDispatcher, *given: int, name: str = NAME) -> list[Emission[Any]]:
    return [dispatcher.emit(name, number=number) for number in given]


def backlog_of(dispatcher: EventDispatcher) -> Backlog:
    return dispatcher._workers._backlog


def values_of(emission: Emission[Any]) -> list[Any]:
    return [result.value for result in emission.results]


def run_python(source: str, *arguments: str) -> str:
    """Run a program in an interpreter of its own; return what it wrote."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


# When a batch is delivered


@plain_and_async
def test_a_batch_is_delivered_as_soon_as_it_is_full(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    subscription = signal.subscribe(handler_of(kept, is_async), batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3, 4)
    assert all(emission.wait(LIMIT) for emission in emissions[:3])
    assert kept.batches == [[1, 2, 3]]
    assert emissions[3].pending == 1
    assert [values_of(emission) for emission in emissions] == [[3], [3], [3], []]
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[1, 2, 3], [4]]
    assert emissions[3].results[0].handler is subscription.handler


@plain_and_async
def test_a_batch_is_delivered_when_its_first_context_has_waited_long_enough(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    """Each of several, one after the other, and never before its time."""
    signal.subscribe(handler_of(kept, is_async), batch=Batch(100, 0.05))
    for number in (1, 3, 5):
        began = time.monotonic()
        emit_numbers(dispatcher, number, number + 1)
        assert kept.await_one() == [number, number + 1]
        assert time.monotonic() - began >= 0.05
    assert backlog_of(dispatcher).timer is not None


@plain_and_async
def test_what_comes_in_during_a_batch_waits_for_the_next_and_is_not_forgotten(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    """Both when it fills a batch, and when its time comes, before the handler returns."""
    gate = Gate(kept)
    signal.subscribe(handler_of(gate, is_async), batch=Batch(3, 0.05))
    emit_numbers(dispatcher, 0, 1, 2)
    assert gate.began.wait(LIMIT)
    emissions = emit_numbers(dispatcher, 3, 4, 5, 6)
    timer = backlog_of(dispatcher).alarms
    while not timer.empty():
        time.sleep(0.001)
    time.sleep(0.1)  # so that all of it is overdue
    gate.open.set()
    assert all(emission.wait(LIMIT) for emission in emissions)
    assert kept.batches == [[0, 1, 2], [3, 4, 5], [6]]


@plain_and_async
def test_a_batch_of_one_waits_for_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(1, HOUR))
    for emission in emit_numbers(dispatcher, 1, 2, 3):
        assert emission.wait(LIMIT)
    assert kept.batches == [[1], [2], [3]]


def drains(dispatcher: EventDispatcher) -> bool:
    return dispatcher.drain(LIMIT)


def drains_async(dispatcher: EventDispatcher) -> bool:
    return asyncio.run(dispatcher.drain_async(LIMIT))


def closes(dispatcher: EventDispatcher) -> bool:
    return dispatcher.close(LIMIT)


def leaves_a_block(dispatcher: EventDispatcher) -> bool:
    with dispatcher:
        pass
    return True


each_end = pytest.mark.parametrize("end", [drains, drains_async, closes, leaves_a_block])


@each_end
@plain_and_async
@pytest.mark.guarantee("B2")
def test_whoever_waits_for_all_gets_what_waits_for_a_batch(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
    end: Callable[[EventDispatcher], bool],
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3)
    assert end(dispatcher)
    assert kept.batches == [[1, 2], [3]]
    assert not any(emission.pending for emission in emissions)


@each_end
@plain_and_async
@pytest.mark.guarantee("B2")
def test_whoever_waits_for_all_gets_a_chain_of_batches(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
    end: Callable[[EventDispatcher], bool],
) -> None:
    def passes_on(batch: Any) -> None:
        emit_numbers(dispatcher, *numbers(batch), name="next_thing")

    def passes_on_again(batch: Any) -> None:
        emit_numbers(dispatcher, *numbers(batch), name="last_thing")

    signal.subscribe(handler_of(passes_on, is_async), batch=Batch(100, HOUR))
    signals.signal("next_thing").subscribe(
        handler_of(passes_on_again, not is_async), batch=Batch(100, HOUR)
    )
    signals.signal("last_thing").subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR))
    emit_numbers(dispatcher, 1, 2, 3)
    assert end(dispatcher)
    assert sorted(kept.numbers) == [1, 2, 3]


@pytest.mark.guarantee("B2")
def test_only_to_ask_whether_all_is_done_delivers_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(kept, batch=Batch(100, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    assert not dispatcher.drain(0)
    assert not emission.wait(0)
    assert kept.batches == []
    assert dispatcher.drain(LIMIT)
    assert emission.wait(0)


def test_batches_wait_again_after_a_drain(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(kept, batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    assert dispatcher.drain(LIMIT)
    (waiting,) = emit_numbers(dispatcher, 2)
    assert not waiting.wait(0.05)
    emit_numbers(dispatcher, 3)
    assert waiting.wait(LIMIT)
    assert kept.batches == [[1], [2, 3]]


EXITING = """
import sys
from madcrow_events import Batch, EventDispatcher, SignalRegistry

signals = SignalRegistry()
dispatcher = EventDispatcher(signals)

def plain(batch):
    print("handled", len(batch), flush=True)

async def coroutine(batch):
    plain(batch)

def plain_chain(batch):
    for context in batch:
        dispatcher.emit("last", **context)

async def chain(batch):
    plain_chain(batch)

kind = sys.argv[1]
handlers = {"plain": (plain_chain, plain), "async": (chain, coroutine),
            "plain then async": (plain_chain, coroutine), "async then plain": (chain, plain)}
first, last = handlers[kind]
signals.signal("first").subscribe(first, batch=Batch(100, 3600))
signals.signal("last").subscribe(last, batch=Batch(100, 3600))
for number in range(3):
    dispatcher.emit(sys.argv[2], number=number)
"""


@pytest.mark.guarantee("B2")
@pytest.mark.parametrize("event", ["first", "last"])
@pytest.mark.parametrize("kind", ["plain", "async", "plain then async", "async then plain"])
def test_the_exit_of_the_interpreter_delivers_what_waits(kind: str, event: str) -> None:
    """A chain of batches, too; that no thread can be started any more is no hindrance."""
    lines = run_python(EXITING, kind, event).splitlines()
    handled = [line.split() for line in lines]
    assert {word for word, _ in handled} == {"handled"}, lines
    assert sum(int(size) for _, size in handled) == 3
    if event == "last":
        assert lines == ["handled 3"]


# What comes of it


@plain_and_async
@pytest.mark.guarantee("E2")
def test_each_emission_has_what_the_handler_returned(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    signal.subscribe(handler_of(lambda batch: batch, is_async), batch=Batch(2, HOUR))
    first, second = emit_numbers(dispatcher, 1, 2)
    assert first.wait(LIMIT)
    assert second.wait(LIMIT)
    (value,), (other) = values_of(first), values_of(second)
    assert [value] == other
    assert numbers(value) == [1, 2]
    assert first.ok
    assert first.state == second.state == "done"


@plain_and_async
@pytest.mark.guarantee("E2")
async def test_a_batch_can_be_awaited_by_each_of_its_emitters(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    signal.subscribe(handler_of(len, is_async), batch=Batch(3, HOUR))
    emissions = [await dispatcher.emit_async(NAME, number=n) for n in range(2)]
    assert [emission.pending for emission in emissions] == [1, 1]
    waiting = asyncio.gather(*(emission.done() for emission in emissions))
    emissions.append(dispatcher.emit(NAME, number=2))
    await asyncio.wait_for(waiting, LIMIT)
    await asyncio.wait_for(emissions[2].done(), LIMIT)
    assert [values_of(emission) for emission in emissions] == [[3]] * 3


@plain_and_async
@pytest.mark.guarantee("F1")
def test_a_failing_batch_is_one_failure_that_names_its_size(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    """Every emission has it; it is logged and announced once. The next batch is called."""

    def fail(batch: Any) -> int:
        if numbers(batch)[0] == 0:
            raise ValueError("on purpose")
        return len(batch)

    told: list[Any] = []
    signals.subscribe("handler_failed", lambda **context: told.append(current_event()))
    subscription = signal.subscribe(handler_of(fail, is_async), batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 0, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    errors = set()
    for emission in emissions[:3]:
        ((handler, error),) = emission.failures
        errors.add(error)
        assert handler is subscription.handler
        assert not emission.results
        with pytest.raises(ValueError, match="on purpose"):
            emission.raise_for_failures()
    assert len(errors) == 1
    assert emissions[3].ok
    assert values_of(emissions[3]) == [1]
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage().endswith(f"of {NAME} in a batch of 3 failed: ValueError")
    (announcement,) = told
    assert announcement.context.event_name == NAME
    assert announcement.context.exception_type == "ValueError"
    assert announcement.context.batch_size == 3
    assert announcement.causation_id == emissions[2].id


@plain_and_async
@pytest.mark.guarantee("F1")
def test_a_failing_handler_of_announcements_in_batches_is_not_announced_again(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    def fail(batch: Any) -> None:
        calls.append(len(batch))
        raise ValueError("on purpose")

    def fail_alone() -> None:
        raise OSError("on purpose")

    calls: list[int] = []
    signal.subscribe(fail_alone)
    signals.subscribe("handler_failed", handler_of(fail, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    assert calls == [2, 1]
    told = [message for message in caplog.messages if "ValueError" in message]
    assert len(caplog.messages) == 3 + 2
    assert [message.split(" in a ")[1] for message in told] == [
        "batch of 2 failed: ValueError",
        "batch of 1 failed: ValueError",
    ]


@plain_and_async
@pytest.mark.guarantee("F1")
def test_a_batch_with_part_of_an_announcement_is_not_announced(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    """For it would come back to the same handler, for ever; one without any is."""

    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    def passes_on() -> None:
        announced.append(1)
        dispatcher.emit(NAME, number=3)

    announced: list[int] = []
    signals.subscribe("handler_failed", passes_on)
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert announced == [1]
    (caused,) = emit_numbers(dispatcher, 4)
    assert dispatcher.drain(LIMIT)
    assert announced == [1, 1]
    assert not caused.ok


@plain_and_async
@pytest.mark.guarantee("F1")
def test_one_part_of_an_announcement_is_enough_wherever_it_stands_in_the_batch(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    def fail_alone() -> None:
        raise OSError("on purpose")

    def passes_on(exception_type: str) -> None:
        announced.append(exception_type)
        dispatcher.emit(NAME, number=1)

    announced: list[str] = []
    signals.subscribe("handler_failed", passes_on)
    signals.signal("failing_thing").subscribe(fail_alone)
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    dispatcher.emit("failing_thing")
    (other,) = emit_numbers(dispatcher, 2)
    assert other.wait(LIMIT)
    assert not other.ok
    assert dispatcher.drain(LIMIT)
    assert announced == ["OSError"]


@plain_and_async
@pytest.mark.guarantee("F1")
def test_the_announcement_of_a_failing_batch_may_take_the_places_of_the_batch(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    announced: list[int] = []
    dispatcher = EventDispatcher(signals, queue_size=2, overflow="raise")
    signals.subscribe(
        "handler_failed", lambda batch_size: announced.append(batch_size), background=True
    )
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert announced == [2]


@plain_and_async
@pytest.mark.guarantee("F1")
def test_what_a_batch_of_announcements_emits_is_part_of_them(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def passes_on(batch: Any) -> None:
        announced.append(len(batch))
        dispatcher.emit("failing_thing")

    def fail() -> None:
        raise ValueError("on purpose")

    announced: list[int] = []
    signals.subscribe("handler_failed", handler_of(passes_on, is_async), batch=Batch(2, HOUR))
    signals.signal("failing_thing").subscribe(fail)
    dispatcher.emit("failing_thing")
    assert dispatcher.drain(LIMIT)
    assert announced == [1]


@plain_and_async
@pytest.mark.guarantee("F2")
def test_the_failure_of_a_batch_is_not_raised_in_its_emitters(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    dispatcher = EventDispatcher(signals, on_error="raise")
    signal.subscribe(handler_of(fail, is_async), batch=Batch(1, HOUR))
    emission = dispatcher.emit(signal, number=1)
    assert dispatcher.drain(LIMIT)
    assert not emission.ok


@plain_and_async
@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("exit_type", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_handler_that_exits_has_failed_and_the_next_batch_is_handled(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    exit_type: type[BaseException],
    is_async: bool,
) -> None:
    def leave(batch: Any) -> int:
        if numbers(batch) == [1, 2]:
            raise exit_type
        return len(batch)

    signal.subscribe(handler_of(leave, is_async), batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3, 4)
    assert dispatcher.drain(LIMIT)
    for emission in emissions[:2]:
        (failure,) = emission.failures
        assert type(failure.exception) is exit_type
        with pytest.raises(HandlerCancelledError):
            emission.raise_for_failures()
    assert [values_of(emission) for emission in emissions[2:]] == [[2], [2]]


@plain_and_async
@pytest.mark.guarantee("F3")
def test_an_exit_of_whom_a_batch_is_announced_to_ends_no_worker(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    def fail(batch: Any) -> None:
        raise ValueError("on purpose")

    def leave() -> None:
        raise SystemExit

    signals.subscribe("handler_failed", leave)
    signal.subscribe(handler_of(fail, is_async), batch=Batch(2, HOUR))
    for _ in range(2):
        emit_numbers(dispatcher, 1, 2)
        assert dispatcher.drain(LIMIT)
    told = f"a failure of {NAME} is not announced to all: SystemExit"
    assert caplog.messages.count(told) == 2


@pytest.mark.guarantee("A5")
def test_a_timeout_is_for_the_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang(batch: Any) -> str:
        if numbers(batch) == [1, 2]:
            try:
                await asyncio.sleep(HOUR)
            finally:
                cancelled.append(len(batch))
        return "in time"

    cancelled: list[int] = []
    signal.subscribe(hang, batch=Batch(2, HOUR), timeout=0.05)
    emissions = emit_numbers(dispatcher, 1, 2, 3, 4)
    assert dispatcher.drain(LIMIT)
    assert cancelled == [2]
    for emission in emissions[:2]:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerTimeoutError)
        assert failure.exception.timeout == 0.05
    assert [values_of(emission) for emission in emissions[2:]] == [["in time"]] * 2
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


# What the list holds


@plain_and_async
@pytest.mark.guarantee("C4")
def test_a_loose_context_that_does_not_fit_is_its_emissions_own_failure(
    signals: SignalRegistry, dispatcher: EventDispatcher, is_async: bool
) -> None:
    """The others arrive, each as a model, though the handler is called after the misfit came."""

    def handle(contexts: list[ThingContext]) -> None:
        got.extend(contexts)

    got: list[Any] = []
    announced: list[str] = []
    signal = signals.signal(NAME, context=ThingContext)
    signals.subscribe(
        "handler_failed", lambda exception_type: announced.append(exception_type), weak=False
    )
    signal.subscribe(handler_of(handle, is_async), batch=Batch(10, HOUR))
    typed = ThingContext(number=1)
    emissions = [
        dispatcher.emit_typed(signal, typed),
        dispatcher.emit(signal, number="no number"),
        dispatcher.emit(signal, number="3"),
        dispatcher.emit(signal),
    ]
    assert [emission.pending for emission in emissions] == [1, 0, 1, 0]
    assert [emission.ok for emission in emissions] == [True, False, True, False]
    assert announced == ["ContextValidationError"] * 2
    assert dispatcher.drain(LIMIT)
    assert got[0] is typed
    assert [type(context) for context in got] == [ThingContext] * 2
    assert got[1].number == 3
    assert emissions[2].context["number"] == "3"
    assert len(backlog_of(dispatcher).places) == 1000


def test_a_model_is_made_once_for_all_handlers_of_an_emission(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def batch_handler(contexts: list[ThingContext]) -> None:
        got.extend(contexts)

    def single_handler(context: ThingContext) -> None:
        got.append(context)

    got: list[ThingContext] = []
    signal = signals.signal(NAME, context=ThingContext)
    signal.subscribe(batch_handler, batch=Batch(10, HOUR))
    signal.subscribe(single_handler)
    dispatcher.emit(signal, number=1)
    assert dispatcher.drain(LIMIT)
    assert got[0] is got[1]


@plain_and_async
def test_emissions_in_a_list_are_those_of_the_emitters(
    signals: SignalRegistry, dispatcher: EventDispatcher, is_async: bool
) -> None:
    def untyped(emissions: list[Emission]) -> None:
        got["untyped"] = emissions

    def typed(emissions: list[Emission[ThingContext]]) -> None:
        got["typed"] = emissions

    got: dict[str, list[Any]] = {}
    signal = signals.signal(NAME, context=ThingContext)
    for work in (untyped, typed):
        signal.subscribe(handler_of(work, is_async), batch=Batch(10, HOUR))
    emissions: list[Emission[Any]] = [
        dispatcher.emit_typed(signal, ThingContext(number=1), sender="shop"),
        dispatcher.emit(signal, "shop", number=2),
    ]
    assert dispatcher.drain(LIMIT)
    assert [got["untyped"][n] is emissions[n] for n in (0, 1)] == [True, True]
    assert got["typed"][0] is emissions[0]
    assert [emission.context.number for emission in got["typed"]] == [1, 2]
    assert [emission.id for emission in got["typed"]] == [emission.id for emission in emissions]
    assert [emission.sender for emission in got["typed"]] == ["shop", "shop"]


def test_the_list_is_the_handlers_own(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    def greedy(batch: list[Any]) -> None:
        batch.clear()

    signal.subscribe(greedy, batch=Batch(2, HOUR))
    signal.subscribe(kept, batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    assert all(emission.wait(LIMIT) for emission in emissions)
    assert kept.batches == [[1, 2]]


@plain_and_async
@pytest.mark.guarantee("N4")
def test_a_pattern_has_one_batch_over_all_its_events(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
) -> None:
    """Of events that are declared later, too; a failure names the pattern."""

    def handle(emissions: list[Emission]) -> None:
        got.append([emission.event for emission in emissions])
        if len(got) == 2:
            raise ValueError("on purpose")

    got: list[list[str]] = []
    signals.signal("order_placed")
    signals.subscribe("order_*", handler_of(handle, is_async), batch=Batch(3, HOUR))
    signals.signal("order_paid")
    signals.signal("thing_happened")
    for name in ("order_placed", "thing_happened", "order_paid", "order_placed"):
        dispatcher.emit(name)
    (failed, other) = dispatcher.emit("order_paid"), dispatcher.emit("order_placed")
    assert dispatcher.drain(LIMIT)
    assert got == [["order_placed", "order_paid", "order_placed"], ["order_paid", "order_placed"]]
    assert len(backlog_of(dispatcher).gatherings) == 1
    assert failed.failures == other.failures
    (record,) = caplog.records
    assert "of order_* in a batch of 2 failed" in record.getMessage()


@pytest.mark.guarantee("N4")
def test_a_pattern_of_models_gets_each_event_in_its_own(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    def handle(contexts: list[BaseEventContext]) -> None:
        got.extend(type(context).__name__ for context in contexts)

    got: list[str] = []
    signals.signal("thing_happened", context=ThingContext)
    signals.signal("thing_seen")
    signals.subscribe("thing_*", handle, batch=Batch(3, HOUR))
    dispatcher.emit("thing_happened", number=1)
    dispatcher.emit("thing_seen", color="blue")
    assert dispatcher.drain(LIMIT)
    assert got == ["ThingContext", "GenericEventContext"]


# Which emissions are in a batch


@plain_and_async
@pytest.mark.guarantee("H5")
def test_sender_and_when_decide_on_each_emission(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
) -> None:
    def is_even(context: Any) -> bool:
        asked.append(context["number"])
        if context["number"] == 5:
            raise ValueError("on purpose")
        return context["number"] % 2 == 0

    asked: list[int] = []
    signal.subscribe(
        handler_of(kept, is_async), batch=Batch(100, HOUR), sender="shop", when=is_even
    )
    emissions = [
        dispatcher.emit(signal, sender, number=number)
        for number, sender in enumerate(["shop", "other"] * 4)
    ]
    emissions += [dispatcher.emit(signal, "shop", number=5)]
    assert asked == [0, 2, 4, 6, 5]
    assert [emission.pending for emission in emissions] == [1, 0] * 4 + [0]
    assert not emissions[-1].ok
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[0, 2, 4, 6]]
    assert len(backlog_of(dispatcher).places) == 1000


@plain_and_async
@pytest.mark.guarantee("L1")
def test_a_weakly_held_method_gets_what_was_emitted_while_its_object_lived(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    class Listener:
        def hear(self, batch: Any) -> int:
            got.append(numbers(batch))
            return len(batch)

        async def hear_async(self, batch: Any) -> int:
            return self.hear(batch)

    got: list[list[int]] = []
    listener = Listener()
    method = "hear_async" if is_async else "hear"
    subscription = signal.subscribe(getattr(listener, method), batch=Batch(100, HOUR))
    assert subscription.weak
    emissions = emit_numbers(dispatcher, 1, 2)
    reference = weakref.ref(listener)
    del listener
    assert dispatcher.drain(LIMIT)
    (result,) = emissions[0].results
    assert result.value == 2
    assert result.handler.__name__ == method
    del result, emissions
    gc.collect()
    assert reference() is None
    assert not subscription.active
    assert values_of(dispatcher.emit(signal, number=3)) == []
    assert got == [[1, 2]]


@plain_and_async
@pytest.mark.guarantee("F4")
def test_what_waits_when_the_subscription_is_cancelled_is_still_delivered(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    with signal.subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR)):
        emissions = emit_numbers(dispatcher, 1, 2)
    gc.collect()
    emit_numbers(dispatcher, 3)
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[1, 2]]
    assert values_of(emissions[0]) == [2]


@plain_and_async
def test_dispatchers_have_batches_of_their_own_and_siblings_share_them(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    other, sibling = EventDispatcher(signals), dispatcher.with_options(log_tracebacks=False)
    emit_numbers(dispatcher, 1)
    emit_numbers(other, 2)
    assert kept.batches == []
    emit_numbers(sibling, 3)
    assert kept.await_one() == [1, 3]
    assert other.drain(LIMIT)
    assert kept.batches == [[1, 3], [2]]


@pytest.mark.guarantee("N5")
def test_send_calls_the_handler_in_its_place_with_a_list_of_one(signals: SignalRegistry) -> None:
    def handle(contexts: list[ThingContext]) -> Any:
        return contexts, threading.current_thread()

    signal = signals.signal(NAME, context=ThingContext)
    signal.subscribe(handle, batch=Batch(100, HOUR))
    ((handler, (contexts, thread)),) = signal.send("shop", number="1")
    assert handler is handle
    assert [context.number for context in contexts] == [1]
    assert thread is threading.current_thread()


@pytest.mark.guarantee("N5")
async def test_send_async_awaits_the_handler_with_a_list_of_one(signal: EventSignal[Any]) -> None:
    async def handle(batch: Any) -> Any:
        return numbers(batch)

    async def hang(batch: Any) -> None:
        await asyncio.sleep(HOUR)

    signal.subscribe(handle, batch=Batch(100, HOUR))
    assert await signal.send_async(number=1) == [(handle, [1])]
    signal.subscribe(hang, batch=Batch(100, HOUR), timeout=0.01)
    with pytest.raises(HandlerTimeoutError):
        await signal.send_async(number=1)


# How the handler is called


@plain_and_async
def test_one_batch_of_a_subscription_runs_at_a_time(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    """However many workers are free, and from however many threads is emitted."""

    def begin(batch: Any) -> None:
        with lock:
            running.append(1)
            most.append(len(running))
        got.extend(numbers(batch))
        time.sleep(0.001)

    def end() -> None:
        with lock:
            running.pop()

    def plain(batch: Any) -> None:
        begin(batch)
        end()

    async def coroutine(batch: Any) -> None:
        begin(batch)
        await asyncio.sleep(0.001)
        end()

    lock = threading.Lock()
    running: list[int] = []
    most: list[int] = []
    got: list[int] = []
    dispatcher = EventDispatcher(signals, max_workers=4)
    signal.subscribe(coroutine if is_async else plain, batch=Batch(5, 0.001))
    threads = [
        threading.Thread(target=emit_numbers, args=(dispatcher, *range(n, 400, 4)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dispatcher.close(LIMIT)
    assert max(most) == 1
    assert sorted(got) == list(range(400))
    for emitter in range(4):
        own = [number for number in got if number % 4 == emitter]
        assert own == sorted(own)


@plain_and_async
def test_subscriptions_do_not_wait_for_each_others_batches(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    async def hang(batch: Any) -> None:
        await asyncio.to_thread(free.wait, LIMIT)

    free = threading.Event()
    signal.subscribe(hang if is_async else lambda _: free.wait(LIMIT), batch=Batch(1, HOUR))
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert kept.await_one() == [1, 2]
    free.set()
    assert dispatcher.drain(LIMIT)


@plain_and_async
@pytest.mark.guarantee("A4")
def test_the_handler_sees_no_emitters_context_variables(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    """Nor does one batch see what the handler has set in another."""

    def handle(batch: Any) -> None:
        seen.append(user.get("nobody"))
        user.set("handler")

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    seen: list[str] = []
    signal.subscribe(handler_of(handle, is_async), batch=Batch(2, HOUR))
    for number in range(6):
        contextvars.copy_context().run(user.set, f"user {number}")
        token = user.set(f"user {number}")
        dispatcher.emit(signal, number=number)
        user.reset(token)
    user.set("drainer")
    assert dispatcher.drain(LIMIT)
    assert seen == ["nobody"] * 3


@plain_and_async
@pytest.mark.guarantee("B5")
def test_the_current_event_is_the_last_emission_of_the_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    current: list[Any] = []
    work = handler_of(lambda _: current.append(current_event()), is_async)
    signal.subscribe(work, batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    assert current[0] is emissions[2]
    assert current_event() is None


@plain_and_async
@pytest.mark.guarantee("B5")
def test_what_a_batch_emits_has_the_scope_fields_that_all_of_it_share(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def handle(emissions: list[Emission]) -> None:
        dispatcher.emit("next_thing")
        with emissions[0].as_cause():
            dispatcher.emit("next_thing")

    got: list[dict[str, Any]] = []
    signals.signal("next_thing").subscribe(lambda _, **context: got.append(context))
    signal.subscribe(handler_of(handle, is_async), batch=Batch(2, HOUR))
    with event_scope(ip_address="192.0.2.1"):
        for request in ("first", "second"):
            with event_scope(request_id=request):
                dispatcher.emit(signal)
        assert dispatcher.drain(LIMIT)
    with event_scope(request_id="same"):
        dispatcher.emit(signal)
        dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    with event_scope(request_id="lonely"):
        dispatcher.emit(signal)
    dispatcher.emit(signal)
    assert dispatcher.drain(LIMIT)
    assert got == [
        {"ip_address": "192.0.2.1"},
        {"ip_address": "192.0.2.1", "request_id": "first"},
        {"request_id": "same"},
        {"request_id": "same"},
        {},
        {"request_id": "lonely"},
    ]


@plain_and_async
@pytest.mark.guarantee("B5")
def test_what_a_batch_emits_is_caused_by_the_last_or_by_the_one_that_is_named(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    def handle(emissions: list[Emission]) -> None:
        made.append(dispatcher.emit("next_thing"))
        for emission in emissions:
            with emission.as_cause():
                made.append(dispatcher.emit("next_thing"))

    made: list[Emission[Any]] = []
    signals.signal("next_thing").subscribe(lambda: None)
    signal.subscribe(handler_of(handle, is_async), batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    ids = [emission.id for emission in emissions]
    assert [emission.causation_id for emission in made] == [ids[2], *ids]
    assert [emission.correlation_id for emission in made] == [ids[2], *ids]
    assert {emission.depth for emission in made} == {0}
    assert {emission.parent for emission in made} == {None}


@plain_and_async
@pytest.mark.guarantee("B6")
def test_observers_enter_the_handling_of_a_batch_once(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    class Observing:
        @contextmanager
        def emission(self, emission: Emission[Any], /) -> Iterator[None]:
            yield

        @contextmanager
        def handling(self, emission: Emission[Any], handler: Any, /) -> Iterator[None]:
            seen.append(("enters", emission.context["number"], handler))
            try:
                yield
            except ValueError:
                seen.append(("fails", emission.context["number"], handler))
                raise
            else:
                seen.append(("leaves", emission.context["number"], handler))

    def handle(batch: Any) -> None:
        seen.append(("called", len(batch), None))
        if numbers(batch)[0] == 4:
            raise ValueError("on purpose")

    seen: list[Any] = []
    dispatcher.add_observer(Observing())
    handler = handler_of(handle, is_async)
    signal.subscribe(handler, batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1, 2, 3)
    assert dispatcher.drain(LIMIT)
    emit_numbers(dispatcher, 4, 5)
    assert dispatcher.drain(LIMIT)
    assert seen == [
        ("enters", 3, handler),
        ("called", 3, None),
        ("leaves", 3, handler),
        ("enters", 5, handler),
        ("called", 2, None),
        ("fails", 5, handler),
    ]


# A full queue


@plain_and_async
@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("emitting", ["emit", "emit in a loop", "emit_async"])
@pytest.mark.parametrize("overflow", ["block", "raise", "drop"])
def test_a_queue_full_of_waiting_contexts_delivers_early(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    kept: Kept,
    overflow: Any,
    emitting: str,
    is_async: bool,
) -> None:
    """A batch that the queue has no room for is never waited for."""
    dispatcher = EventDispatcher(signals, queue_size=3, overflow=overflow)
    signal.subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR))
    accepted: list[int] = []
    refused: list[int] = []
    emissions: list[Emission[Any]] = []

    def note(number: int, emission: Emission[Any]) -> None:
        emissions.append(emission)
        if emission.pending or emission.results:
            accepted.append(number)

    async def main() -> None:
        for number in range(60):
            try:
                if emitting == "emit_async":
                    note(number, await dispatcher.emit_async(NAME, number=number))
                else:
                    note(number, dispatcher.emit(NAME, number=number))
            except QueueFullError:
                refused.append(number)
                await asyncio.sleep(0)

    if emitting == "emit":
        for number in range(60):
            try:
                note(number, dispatcher.emit(NAME, number=number))
            except QueueFullError:
                refused.append(number)
    else:
        asyncio.run(asyncio.wait_for(main(), LIMIT))
    assert len(accepted) >= 3
    assert all(emission.wait(LIMIT) for emission in emissions[:3]), "the queue has been full"
    assert dispatcher.drain(LIMIT)
    assert kept.numbers == accepted
    assert len(accepted) + len(refused) + dispatcher.dropped == 60
    assert max(map(len, kept.batches)) <= 3
    assert not any(emission.pending for emission in emissions)
    assert len(backlog_of(dispatcher).places) == 3
    if overflow == "block" and emitting != "emit in a loop":
        assert accepted == list(range(60))


@plain_and_async
@pytest.mark.guarantee("B1")
def test_a_single_handler_that_finds_no_place_is_not_kept_waiting_by_a_batch(
    signals: SignalRegistry, signal: EventSignal[Any], kept: Kept, is_async: bool
) -> None:
    """The contexts that take up the whole queue are delivered; then there are places."""
    dispatcher = EventDispatcher(signals, queue_size=2)
    signal.subscribe(handler_of(kept, is_async), batch=Batch(100, HOUR))
    signals.signal("other_thing").subscribe(lambda: "done", background=True)
    emit_numbers(dispatcher, 1)
    others = [dispatcher.emit("other_thing") for _ in range(5)]
    assert all(other.wait(LIMIT) for other in others)
    emit_numbers(dispatcher, 2, 3)
    assert dispatcher.drain(LIMIT)
    assert kept.numbers == [1, 2, 3]


@pytest.mark.guarantee("B1")
def test_an_emitter_that_waits_for_a_place_gets_that_of_a_waiting_context(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    """Though it was another handler that took the last place."""

    async def handle(batch: Any) -> None: ...

    def hold() -> None:
        began.set()
        assert free.wait(LIMIT)

    began, free = threading.Event(), threading.Event()
    dispatcher = EventDispatcher(signals, queue_size=2, max_workers=1)
    signal.subscribe(handle, batch=Batch(100, HOUR))
    signals.signal("busy_thing").subscribe(hold, background=True)
    dispatcher.emit("busy_thing")
    assert began.wait(LIMIT)
    (waiting,) = emit_numbers(dispatcher, 1)
    dispatcher.emit("busy_thing")
    emitter = threading.Thread(target=dispatcher.emit, args=("busy_thing",), daemon=True)
    emitter.start()
    emitter.join(LIMIT)
    assert not emitter.is_alive()
    assert not waiting.pending
    free.set()
    assert dispatcher.close(LIMIT)


@plain_and_async
@pytest.mark.guarantee("B1")
def test_a_waiting_context_holds_a_place_until_it_is_handled(
    signals: SignalRegistry, signal: EventSignal[Any], kept: Kept, is_async: bool
) -> None:
    """Until its handler has been called, or, if that is async, has ended."""

    def handle(batch: Any) -> None:
        left.append(len(backlog.places))

    left: list[int] = []
    dispatcher = EventDispatcher(signals, queue_size=10)
    backlog = backlog_of(dispatcher)
    signal.subscribe(handler_of(handle, is_async), batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert len(backlog.places) == 8
    emit_numbers(dispatcher, 3)
    assert dispatcher.drain(LIMIT)
    assert left == [7 if is_async else 10]
    assert len(backlog.places) == 10


@plain_and_async
@pytest.mark.guarantee("B1")
def test_a_batch_that_emits_into_a_full_queue_is_told_so(
    signals: SignalRegistry, signal: EventSignal[Any], is_async: bool
) -> None:
    """It holds up the queue itself, and waiting might never end."""

    def handle(batch: Any) -> None:
        for _ in range(10):
            dispatcher.emit("busy_thing")

    free = threading.Event()
    dispatcher = EventDispatcher(signals, queue_size=2, max_workers=2)
    signals.signal("busy_thing").subscribe(lambda: free.wait(LIMIT), background=True)
    signal.subscribe(handler_of(handle, is_async), batch=Batch(1, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    assert emission.wait(LIMIT)
    assert isinstance(emission.failures[0].exception, QueueFullError)
    free.set()
    assert dispatcher.close(LIMIT)


# Waiting where it could never end


@plain_and_async
@pytest.mark.guarantee("A3")
def test_a_batch_cannot_wait_for_all_pending_work(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    async def waits(batch: Any) -> None:
        await dispatcher.drain_async()

    signal.subscribe(waits if is_async else lambda _: dispatcher.drain(), batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert isinstance(emissions[0].failures[0].exception, WouldDeadlockError)


@plain_and_async
@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("which", ["first", "last", "next"])
def test_a_batch_cannot_wait_for_itself_or_the_next(
    signal: EventSignal[Any], dispatcher: EventDispatcher, which: str, is_async: bool
) -> None:
    def wanted(emissions: list[Emission[Any]]) -> Emission[Any] | None:
        if len(emissions) == 1:
            return None
        if which == "next":
            return dispatcher.emit(signal, number=3)
        return emissions[0 if which == "first" else -1]

    def plain(emissions: list[Emission]) -> None:
        emission = wanted(emissions)
        if emission is not None:
            emission.wait()

    async def coroutine(emissions: list[Emission]) -> None:
        emission = wanted(emissions)
        if emission is not None:
            await emission.done()

    signal.subscribe(coroutine if is_async else plain, batch=Batch(2, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    error = emissions[0].failures[0].exception
    assert isinstance(error, WouldDeadlockError)
    if which == "next" and is_async:
        assert "part of this batch or of the next" in str(error)


@pytest.mark.guarantee("A3")
def test_the_background_loop_cannot_wait_for_a_batch_that_it_would_handle(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handle(batch: Any) -> None: ...

    async def waits() -> None:
        dispatcher.emit(signal, number=1).wait()

    signal.subscribe(handle, batch=Batch(2, HOUR))
    signals.signal("other_thing").subscribe(waits, background=True)
    emission = dispatcher.emit("other_thing")
    assert emission.wait(LIMIT)
    assert isinstance(emission.failures[0].exception, WouldDeadlockError)
    assert dispatcher.drain(LIMIT)


@pytest.mark.guarantee("A3")
def test_a_batch_may_wait_for_the_batch_of_another_handler(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def waits(batch: Any) -> Any:
        emission = dispatcher.emit("other_thing", number=1)
        await emission.done()
        return values_of(emission)

    async def handle(batch: Any) -> str:
        return "handled"

    signal.subscribe(waits, batch=Batch(1, HOUR))
    signals.signal("other_thing").subscribe(handle, batch=Batch(1, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    assert emission.wait(LIMIT)
    assert values_of(emission) == [["handled"]]


@plain_and_async
@pytest.mark.guarantee("B2")
def test_a_closed_dispatcher_gathers_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    backlog = backlog_of(dispatcher)
    assert dispatcher.close(LIMIT)
    with pytest.raises(DispatcherClosedError):
        emit_numbers(dispatcher, 2)
    assert kept.batches == [[1]]
    assert backlog.timer is not None
    assert not backlog.timer.is_alive()
    assert not any(thread.is_alive() for thread in backlog.threads)


# Where no thread can be started, after a fork, and in finalizers


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


@plain_and_async
@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_start_nothing_waits_and_nothing_is_lost(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    is_async: bool,
) -> None:
    """The emitter does it, a chain, too, but in none of its own context."""

    def handle(batch: Any) -> int:
        seen.append(user.get("nobody"))
        emit_numbers(dispatcher, *numbers(batch), name="next_thing")
        return len(batch)

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    seen: list[str] = []
    signal.subscribe(handler_of(handle, is_async), batch=Batch(3, HOUR))
    signals.signal("next_thing").subscribe(kept, batch=Batch(3, HOUR))
    token = user.set("emitter")
    emissions = emit_numbers(dispatcher, 1, 2)
    user.reset(token)
    assert [values_of(emission) for emission in emissions] == [[1], [1]]
    assert kept.batches == [[1], [2]]
    assert seen == ["nobody"] * 2
    assert dispatcher.drain(LIMIT)
    assert current_event() is None


@plain_and_async
@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_start_what_a_handler_emits_to_itself_is_the_next_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    def handle(batch: Any) -> None:
        if kept(batch) == 1 and numbers(batch) == [0]:
            emit_numbers(dispatcher, 1, 2, 3)

    signal.subscribe(handler_of(handle, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 0)
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[0], [1, 2], [3]]


@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
async def test_where_then_nobody_can_await_the_batch_that_is_reported(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """As for any async handler in the background; nothing stays pending."""

    async def handle(batch: Any) -> None: ...

    signal.subscribe(handle, batch=Batch(3, HOUR))
    for emission in emit_numbers(dispatcher, 1, 2):
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
        assert str(failure.exception) == "no thread can be started for it"
    assert await dispatcher.drain_async(LIMIT)
    assert len(caplog.records) == 2
    assert len(backlog_of(dispatcher).places) == 1000


@pytest.mark.guarantee("B2")
@pytest.mark.usefixtures("no_threads")
async def test_a_plain_handler_needs_no_thread_in_a_running_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept
) -> None:
    signal.subscribe(kept, batch=Batch(3, HOUR))
    emit_numbers(dispatcher, 1)
    assert kept.batches == [[1]]


def test_where_only_the_timer_could_start_it_calls_the_handler(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signal.subscribe(kept, batch=Batch(3, 0.05))
    emit_numbers(dispatcher, 1)
    monkeypatch.setattr(backlog_of(dispatcher), "startable", [])
    assert kept.await_one() == [1]


FORKING = """
import os, sys
from madcrow_events import Batch, EventDispatcher, SignalRegistry

signals = SignalRegistry()
dispatcher = EventDispatcher(signals)

def handle(batch):
    os.write(1, f"{os.getpid() == parent} {[c['number'] for c in batch]}\\n".encode())

async def coroutine(batch):
    handle(batch)

parent = os.getpid()
handler = coroutine if sys.argv[1] == "async" else handle
signals.signal("thing").subscribe(handler, batch=Batch(3, 3600))
inherited = [dispatcher.emit("thing", number=number) for number in (1, 2)]
child = os.fork()
if not child:
    assert not any(emission.pending for emission in inherited)
    dispatcher.emit("thing", number=10)
    assert dispatcher.drain(10)
    for number in (11, 12, 13):
        emission = dispatcher.emit("thing", number=number)
    assert emission.wait(10)
    dispatcher.emit("thing", number=14)
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
emission = dispatcher.emit("thing", number=3)
assert emission.wait(10)
dispatcher.emit("thing", number=4)
"""


@plain_and_async
@pytest.mark.guarantee("B2")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_starts_afresh_and_the_parents_batch_is_the_parents(is_async: bool) -> None:
    lines = run_python(FORKING, "async" if is_async else "plain").splitlines()
    assert lines == [
        "False [10]",
        "False [11, 12, 13]",
        "False [14]",
        "True [1, 2, 3]",
        "True [4]",
    ]


@plain_and_async
@pytest.mark.guarantee("F6")
def test_a_finalizer_may_emit_for_a_batch_in_the_middle_of_another(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    """While a batch is being taken, say; whoever takes it looks again."""

    def take(gathering: Gathering) -> Any:
        if not finalized:
            finalized.append(1)
            emit_numbers(dispatcher, 3, 4, 5)
        return original(gathering)

    finalized: list[int] = []
    original = Gathering._take
    monkeypatch.setattr(Gathering, "_take", take)
    signal.subscribe(handler_of(kept, is_async), batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1, 2)
    assert dispatcher.drain(LIMIT)
    assert kept.numbers == [1, 2, 3, 4, 5]
    assert max(map(len, kept.batches)) == 2


# What is left behind


@plain_and_async
@pytest.mark.guarantee("L2")
def test_subscriptions_that_are_gone_leave_nothing_behind(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, is_async: bool
) -> None:
    backlog = backlog_of(dispatcher)
    for number in range(50):
        with signal.subscribe(handler_of(lambda batch: len(batch), is_async), batch=Batch(2, HOUR)):
            emit_numbers(dispatcher, number)
        with signals.subscribe("thing_*", lambda batch: len(batch), batch=Batch(2, HOUR)):
            emit_numbers(dispatcher, number)
    assert dispatcher.drain(LIMIT)
    dispatcher.emit(signal)  # and its plan is renewed
    threads_let_go = time.monotonic() + LIMIT
    while backlog.gatherings and time.monotonic() < threads_let_go:
        gc.collect()
        time.sleep(0.001)
    assert backlog.gatherings == {}
    assert backlog.jobs == {}
    assert len(backlog.places) == 1000


def test_what_was_gathered_is_not_kept_after_its_batch(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    class Payload: ...

    signal.subscribe(lambda batch: len(batch), batch=Batch(2, HOUR))
    references = []
    for _ in range(2):
        payload = Payload()
        references.append(weakref.ref(payload))
        dispatcher.emit(signal, payload=payload)
    del payload
    assert dispatcher.drain(LIMIT)
    until = time.monotonic() + LIMIT
    while any(reference() for reference in references) and time.monotonic() < until:
        gc.collect()
        time.sleep(0.001)
    assert [reference() for reference in references] == [None, None]


def test_a_dispatcher_that_is_dropped_stops_its_timer(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    dispatcher = EventDispatcher(signals)
    with signal.subscribe(lambda batch: len(batch), batch=Batch(2, HOUR)):
        dispatcher.emit(signal)
        assert dispatcher.drain(LIMIT)
    timer = backlog_of(dispatcher).timer
    assert timer is not None
    del dispatcher
    until = time.monotonic() + LIMIT
    while timer.is_alive() and time.monotonic() < until:
        gc.collect()
        timer.join(0.01)
    assert not timer.is_alive()


def test_a_forgotten_dispatcher_does_not_mind_subscriptions_that_go(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    dispatcher = EventDispatcher(signals)
    subscription = signal.subscribe(lambda batch: len(batch), batch=Batch(1, HOUR))
    dispatcher.emit(signal)
    assert dispatcher.close(LIMIT)
    gathering = next(iter(backlog_of(dispatcher).gatherings.values()))
    owner = gathering.owner
    assert owner is not None
    assert owner() is subscription
    del dispatcher, gathering
    gc.collect()
    subscription.cancel()
    del subscription
    signal.send(payload=1)
    gc.collect()
    assert owner() is None


# Batches that are broken off


@pytest.mark.guarantee("A2")
def test_a_batch_whose_task_is_cancelled_before_it_begins_has_failed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handle(batch: Any) -> int:
        return len(batch)

    def emit_and_cancel() -> None:
        emissions.extend(emit_numbers(dispatcher, 1, 2))
        # After the batch's task was made, and before its first step.
        loop.call_soon(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        emitted.set()

    emissions: list[Emission[Any]] = []
    emitted = threading.Event()
    loop = backlog_of(dispatcher).background_loop()
    assert loop is not None
    signal.subscribe(handle, batch=Batch(2, HOUR))
    loop.call_soon_threadsafe(emit_and_cancel)
    assert emitted.wait(LIMIT)
    assert dispatcher.drain(LIMIT)
    for emission in emissions:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
        assert str(failure.exception) == "its task was cancelled"
    (emission,) = emit_numbers(dispatcher, 3)
    assert dispatcher.drain(LIMIT)
    assert values_of(emission) == [1]


class Broken:
    """Stands for a task that was broken off."""

    def __init__(self, error: BaseException) -> None:
        self.exception = lambda: error

    def cancelled(self) -> bool:
        return False


@pytest.mark.guarantee("A2")
def test_a_batch_whose_task_is_broken_off_has_failed_once(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(len, batch=Batch(3, HOUR))
    emissions = emit_numbers(dispatcher, 1, 2)
    backlog = backlog_of(dispatcher)
    (gathering,) = backlog.gatherings.values()
    gathering._token.pop()
    jobs = gathering._take()
    broken: Any = Broken(OSError("broken"))
    gathering._task_is_done(jobs, broken)
    for emission in emissions:
        (failure,) = emission.failures
        assert isinstance(failure.exception, HandlerCancelledError)
        assert isinstance(failure.exception.__cause__, OSError)
    gathering._token.pop()
    gathering._task_is_done(jobs, broken)
    assert len(emissions[0].failures) == 1
    assert dispatcher.drain(0)
    assert len(backlog.places) == 1000


@pytest.mark.guarantee("A2")
def test_a_batch_that_is_closed_by_force_is_not_gone_on_with(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """As the collector does with what is left of a loop; nothing can be awaited then."""

    class Never:
        def __await__(self) -> Iterator[None]:
            yield

    async def handle(batch: Any) -> None:
        await Never()

    signal.subscribe(handle, batch=Batch(3, HOUR))
    (emission,) = emit_numbers(dispatcher, 1)
    (gathering,) = backlog_of(dispatcher).gatherings.values()
    gathering._token.pop()
    jobs = gathering._take()
    coroutine = _batching._call_async(jobs)
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    assert emission.pending == 1
    assert emission.ok
    broken: Any = Broken(GeneratorExit())
    gathering._task_is_done(jobs, broken)
    assert not emission.ok
    assert dispatcher.drain(0)


def has_its_token(gathering: Any) -> bool:
    """Soon, that is: a drain waits for the contexts, and the token comes back a moment later."""
    deadline = time.monotonic() + LIMIT
    while gathering._token != [None] and time.monotonic() < deadline:
        time.sleep(0.001)
    return gathering._token == [None]


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("queued", [False, True])
def test_an_emitter_that_is_interrupted_leaves_a_handler_that_works_on(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    queued: bool,
) -> None:
    """By Ctrl-C, while it hands a batch to a thread, before or after it is in the queue."""
    batches: list[list[int]] = []
    signal.subscribe(lambda batch: batches.append([it["n"] for it in batch]), batch=Batch(2, HOUR))
    backlog = backlog_of(dispatcher)
    put = type(backlog).put

    def interrupted(self: Any, work: Any) -> bool:
        monkeypatch.setattr(type(backlog), "put", put)
        if queued:
            put(self, work)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(backlog), "put", interrupted)
    dispatcher.emit(signal, n=1)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal, n=2)
    for number in (3, 4):
        dispatcher.emit(signal, n=number)
    assert dispatcher.drain(LIMIT)
    handled = [number for batch in batches for number in batch]
    assert handled in ([1, 3, 4], [1, 2, 3, 4])
    (gathering,) = backlog.gatherings.values()
    assert has_its_token(gathering)


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("begun", [False, True])
def test_an_emitter_that_is_interrupted_leaves_an_async_handler_that_works_on(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
    begun: bool,
) -> None:
    """By Ctrl-C, when it has just given the batch to the loop, which may have begun with it."""

    async def handle(batch: Any) -> None:
        kept(batch)
        handled.set()

    def interrupted(*call: Any, **context: Any) -> None:
        monkeypatch.undo()
        if not begun:
            loop.call_soon_threadsafe(free.wait, LIMIT)
        loop.call_soon_threadsafe(*call, **context)
        if begun:
            assert handled.wait(LIMIT)
        raise KeyboardInterrupt

    free, handled = threading.Event(), threading.Event()
    signal.subscribe(handle, batch=Batch(2, HOUR))
    emit_numbers(dispatcher, 1)
    loop = backlog_of(dispatcher).background_loop()
    assert loop is not None
    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dispatcher.emit(signal, number=2)
    free.set()
    emit_numbers(dispatcher, 3, 4)
    assert dispatcher.drain(LIMIT)
    assert [number for batch in kept.batches for number in batch] in ([1, 3, 4], [1, 2, 3, 4])
    (gathering,) = backlog_of(dispatcher).gatherings.values()
    assert has_its_token(gathering)


@plain_and_async
@pytest.mark.guarantee("B3")
def test_a_batch_of_nothing_but_lost_contexts_calls_nobody(
    signal: EventSignal[Any], dispatcher: EventDispatcher, kept: Kept, is_async: bool
) -> None:
    """Whose emitters were interrupted, say; the next batch is handled."""
    signal.subscribe(handler_of(kept, is_async), batch=Batch(5, HOUR))
    emit_numbers(dispatcher, 1)
    backlog = backlog_of(dispatcher)
    (job,) = backlog.jobs.values()
    job.lose("its emitter was interrupted")
    (gathering,) = backlog.gatherings.values()
    with backlog.hurrying():
        deadline = time.monotonic() + LIMIT
        while gathering._token != [None] or gathering._waiting:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert kept.batches == []
    emit_numbers(dispatcher, 2)
    assert dispatcher.drain(LIMIT)
    assert kept.batches == [[2]]


def test_the_timer_forgets_the_alarms_of_subscriptions_that_are_gone() -> None:
    class Alarmed:
        def ring(self) -> None:
            rung.append(sum(reference() is not None for reference in references))
            backlog.alarms.put(None)

    class Reference(weakref.ref[Any]):
        """One that can be referred to weakly itself."""

    backlog: Any = SimpleNamespace(forked=False, alarms=queue.SimpleQueue(), gatherings={})
    rung: list[int] = []
    live, now = Alarmed(), time.monotonic()
    gone = [Reference(Alarmed()) for _ in range(150)]
    references = [weakref.ref(reference) for reference in gone]
    backlog.alarms.put((now, 0, gone.pop()))
    for number in range(1, 150):
        backlog.alarms.put((now + HOUR, number, gone.pop()))
    backlog.alarms.put((now, 150, weakref.ref(live)))
    _keep_time(backlog)
    (still_there,) = rung
    assert still_there < 100


@pytest.mark.guarantee("G1")
def test_one_of_a_batch_that_asks_for_no_traceback_is_obeyed(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    """For its values may be in it."""

    def handle(batch: Any) -> None:
        raise ValueError(batch[0]["password"])

    signal.subscribe(handle, batch=Batch(2, HOUR))
    dispatcher.with_options(log_tracebacks=False).emit(signal, password="canary")
    dispatcher.emit(signal, password="other")
    assert dispatcher.drain(LIMIT)
    assert "in a batch of 2 failed: ValueError" in caplog.text
    assert "canary" not in caplog.text
