"""Ids of emissions, and what caused them (B5)."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    EventSignal,
    SignalRegistry,
    _frames,
    current_event,
    event_scope,
)
from madcrow_events import _traces as traces

pytestmark = pytest.mark.guarantee("B5")

LIMIT = 20  # seconds after which a test gives up; nothing takes near as long


class Numbered(BaseEventContext):
    number: int


@pytest.fixture
def signal(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("first_thing")


@pytest.fixture
def inner(signals: SignalRegistry) -> EventSignal[Any]:
    return signals.signal("inner_thing")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Return the ids that are made from now on."""
    ids: list[UUID] = []
    make = traces._uuid7

    def noting(moment: int) -> UUID:
        ids.append(make(moment))
        return ids[-1]

    monkeypatch.setattr(traces, "_uuid7", noting)
    return ids


def milliseconds(identity: UUID) -> int:
    return identity.int >> 80


def is_caused_by(caused: Emission[Any], cause: Emission[Any], root: Emission[Any]) -> bool:
    """Tell whether the ids of three emissions say so."""
    return (
        caused.causation_id == cause.id
        and caused.correlation_id == root.id
        and caused.id > cause.id >= root.id
    )


# Ids


def test_an_id_is_a_uuid_of_version_7(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It holds the time in milliseconds since 1970."""
    before = time.time_ns() // 1_000_000
    identity = dispatcher.emit(signal).id
    after = time.time_ns() // 1_000_000
    assert type(identity) is UUID
    assert (identity.version, identity.variant) == (7, RFC_4122)
    assert before <= milliseconds(identity) <= after


def test_an_id_stays_the_same(signal: EventSignal[Any], dispatcher: EventDispatcher) -> None:
    """Each emission has its own, whatever it carries."""
    first, second = dispatcher.emit(signal, number=1), dispatcher.emit(signal, number=1)
    assert first.id == first.id != second.id == second.id


def test_ids_grow_in_the_order_in_which_they_are_first_asked_for(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Also a thousand of the same millisecond, as numbers and as text."""
    ids = [dispatcher.emit(signal).id for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert [str(identity) for identity in ids] == sorted(str(identity) for identity in ids)


@pytest.mark.parametrize(
    ("moment", "field"),
    [(0, 0), (1, 1), (999_999, 999_999), (1_000_000, 0), (1_784_000_000_123_456_789, 456_789)],
)
def test_an_id_holds_the_moment_to_the_nanosecond(moment: int, field: int) -> None:
    """Milliseconds in 48 bits, the rest in the 20 bits after them that are not fixed."""
    identity = traces._uuid7(moment)
    assert milliseconds(identity) == moment // 1_000_000
    assert (identity.int >> 64 & 0xFFF) << 8 | identity.int >> 54 & 0xFF == field
    assert (identity.version, identity.variant) == (7, RFC_4122)


def test_two_ids_of_one_moment_differ() -> None:
    """As those of two processes may be; 54 bits are random."""
    ids = {traces._uuid7(5) for _ in range(1000)}
    assert len(ids) == 1000
    assert len({identity.int & (1 << 54) - 1 for identity in ids}) == 1000


@pytest.mark.parametrize("setting", [lambda now: now - 3_600 * 10**9, lambda now: now, lambda _: 0])
def test_ids_grow_though_the_clock_is_set_back_or_stands_still(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    setting: Callable[[int], int],
) -> None:
    """Time goes on from the latest moment there was; once the clock is ahead it counts again."""
    monkeypatch.setattr(traces, "_last_moment", list(traces._last_moment))
    now = time.time_ns()
    before = dispatcher.emit(signal).id
    with monkeypatch.context() as patch:
        patch.setattr(traces.time, "time_ns", lambda: setting(now))
        after = [dispatcher.emit(signal).id for _ in range(100)]
        patch.setattr(traces.time, "time_ns", lambda: now + 60 * 10**9)
        ahead = dispatcher.emit(signal).id
    ids = [before, *after, ahead]
    assert ids == sorted(set(ids))
    assert milliseconds(ahead) == (now + 60 * 10**9) // 1_000_000


def test_no_id_is_made_when_none_is_read(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    inner: EventSignal[Any],
    dispatcher: EventDispatcher,
    made: list[UUID],
) -> None:
    """Whatever handlers there are, and whatever fails; one that is read makes one."""

    def fail() -> None:
        raise ValueError

    async def emit_later() -> None:
        await asyncio.sleep(0)
        await dispatcher.emit_async(inner)

    async def emit_in_background() -> None:
        await emit_later()

    signals.subscribe("handler_failed", lambda: None)
    signal.subscribe(lambda: dispatcher.emit(inner))
    signal.subscribe(lambda: dispatcher.emit(inner), background=True)
    signal.subscribe(emit_later)
    signal.subscribe(emit_in_background, background=True, priority=1)
    signal.subscribe(fail)
    inner.subscribe(fail)

    async def main() -> Emission[Any]:
        with event_scope(request_id="1"), dispatcher.deferred():
            dispatcher.emit(signal)
        emission = dispatcher.emit(signal)
        with emission.as_cause():
            await dispatcher.emit_async(signal)
        await dispatcher.drain_async(LIMIT)
        return emission

    emission = asyncio.run(main())
    repr(emission)
    assert made == []
    assert made == [emission.id] == [emission.id]
    assert emission.correlation_id == emission.id
    assert emission.causation_id is None
    assert len(made) == 1


def test_without_background_nothing_is_noted_of_causes(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Inline handlers cost nothing more than if there were no ids."""
    seen: list[Emission[Any]] = []
    signal.subscribe(lambda: seen.append(dispatcher.emit(inner)))
    seen.append(dispatcher.emit(signal))
    assert [hasattr(emission, "_trace") for emission in seen] == [False, False]


def test_a_cause_that_was_not_read_gets_an_id_below(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Whichever is asked for first, from outside or in the handler."""
    seen: list[Emission[Any]] = []

    def handler() -> None:
        seen.append(dispatcher.emit(inner))

    signal.subscribe(handler)
    first = dispatcher.emit(signal)
    (caused,) = seen
    other = dispatcher.emit(signal)
    assert other.id < caused.id
    assert first.id < caused.id
    assert is_caused_by(caused, first, first)


def test_the_handlers_own_emission_has_the_same_id(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Be it the current one, or a twin with a validated context."""
    seen: list[UUID] = []

    def by_emission(emission: Emission[Any]) -> None:
        seen.append(emission.id)

    def by_current() -> None:
        emission = current_event()
        assert emission is not None
        seen.append(emission.id)

    def by_twin(emission: Emission[Numbered]) -> None:
        assert isinstance(emission.context, Numbered)
        seen.append(emission.id)

    for handler in (by_twin, by_emission, by_current):
        signal.subscribe(handler)
    emission = dispatcher.emit(signal, number=1)
    assert emission.ok
    assert seen == [emission.id] * 3


def test_what_is_dropped_or_sent_has_an_id_too(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """An emission of `signal.send`, and one that its `deferred` block gave up."""
    seen: list[Emission[Any]] = []

    def handler(emission: Emission[Any]) -> None:
        seen.append(emission)
        seen.append(dispatcher.emit(inner))

    signal.subscribe(handler)
    signal.send()
    sent, caused = seen
    assert is_caused_by(caused, sent, sent)
    with dispatcher.deferred() as deferral:
        dropped = dispatcher.emit(signal)
        assert dropped.causation_id is None
        identity = dropped.id
        deferral.discard()
    assert dropped.state == "dropped"
    assert dropped.id == dropped.correlation_id == identity


# Causes


def inline(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    signal.subscribe(work)


def once(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    signal.subscribe(work, once=True)


def in_background(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    signal.subscribe(work, background=True)


def at_once(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on()
    async def handler() -> None:
        work()


def suspending(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on()
    async def handler() -> None:
        await asyncio.sleep(0)
        work()


def in_background_loop(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on(background=True)
    async def handler() -> None:
        await asyncio.sleep(0)
        work()


def in_time(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    @signal.on(timeout=LIMIT)
    async def handler() -> None:
        await asyncio.to_thread(work)


def in_a_predicate(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    def when(context: Any) -> bool:
        work()
        return False

    signal.subscribe(lambda: None, when=when)


def in_a_background_predicate(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    def when(context: Any) -> bool:
        work()
        return False

    signal.subscribe(lambda: None, when=when, background=True)


def in_a_task_left_behind(work: Callable[[], Any], signal: EventSignal[Any]) -> None:
    kept: list[asyncio.Task[None]] = []

    async def later() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        work()

    @signal.on()
    async def handler() -> None:
        kept.append(asyncio.create_task(later()))

    @signal.on(priority=-1)
    async def keeping_the_loop() -> None:
        await asyncio.wait(kept)


def emitting(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Emission[Any]:
    return dispatcher.emit(signal)


def emitting_async(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Emission[Any]:
    return asyncio.run(dispatcher.emit_async(signal))


def emitting_in_a_loop(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> Emission[Any]:
    async def main() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        await dispatcher.drain_async(LIMIT)
        return emission

    return asyncio.run(main())


@pytest.mark.parametrize("emit", [emitting, emitting_async, emitting_in_a_loop])
@pytest.mark.parametrize(
    "subscribe",
    [
        inline,
        once,
        in_background,
        at_once,
        suspending,
        in_background_loop,
        in_time,
        in_a_predicate,
        in_a_background_predicate,
        in_a_task_left_behind,
    ],
)
@pytest.mark.parametrize("fails", [False, True], ids=["", "failing"])
def test_every_kind_of_handler_is_the_cause_of_what_it_emits(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    inner: EventSignal[Any],
    dispatcher: EventDispatcher,
    emit: Any,
    subscribe: Any,
    fails: bool,
) -> None:
    """An emission below an emission; and the announcement of a failure is caused by what failed."""
    seen: dict[str, list[Emission[Any]]] = {"inner": [], "below": [], "failed": [], "heard": []}
    below = signals.signal("thing_below")

    def hear(emission: Emission[Any]) -> None:
        seen["failed"].append(emission)
        seen["heard"].append(dispatcher.emit("heard_thing"))

    def work() -> None:
        seen["inner"].append(dispatcher.emit(inner))
        if fails:
            raise ValueError

    signals.signal("heard_thing")
    signals.subscribe("handler_failed", hear)
    inner.subscribe(lambda: seen["below"].append(dispatcher.emit(below)))
    subscribe(work, signal)
    first = emit(dispatcher, signal)
    assert dispatcher.drain(LIMIT)
    assert len(seen["inner"]) == len(seen["below"]) == 1
    fails = fails and subscribe is not in_a_task_left_behind  # which fails by itself
    assert len(seen["failed"]) == len(seen["heard"]) == fails
    for heard, failed in zip(seen["heard"], seen["failed"], strict=True):
        assert is_caused_by(heard, failed, first)
        assert is_caused_by(failed, first, first)
    assert is_caused_by(seen["below"][0], seen["inner"][0], first)
    assert is_caused_by(seen["inner"][0], first, first)
    assert first.causation_id is None
    gc.collect()  # a task that failed by itself tells it here


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of a task that a handler left behind is the application's matter."""
    handle: Any = asyncio.BaseEventLoop.default_exception_handler
    monkeypatch.setattr(
        asyncio.BaseEventLoop,
        "default_exception_handler",
        lambda self, context: (
            None if isinstance(context.get("exception"), ValueError) else handle(self, context)
        ),
    )


async def test_a_task_that_outlives_its_handler_still_has_its_cause(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """As do tasks that it starts in its turn, and threads."""
    go = asyncio.Event()
    tasks: list[asyncio.Task[list[Emission[Any]]]] = []

    async def grandchild() -> Emission[Any]:
        return await dispatcher.emit_async(inner)

    async def later() -> list[Emission[Any]]:
        await go.wait()
        return [
            dispatcher.emit(inner),
            await asyncio.to_thread(dispatcher.emit, inner),
            await asyncio.create_task(grandchild()),
        ]

    def handler() -> None:
        tasks.append(asyncio.create_task(later()))

    async def async_handler() -> None:
        tasks.append(asyncio.create_task(later()))

    signal.subscribe(handler)
    signal.subscribe(async_handler)
    signal.subscribe(async_handler, priority=1, sender=dispatcher)
    first = await dispatcher.emit_async(signal, dispatcher)
    go.set()
    for task in tasks:
        for emission in await task:
            assert emission.parent is None
            assert is_caused_by(emission, first, first)
    assert len(tasks) == 3


def test_a_held_back_emission_has_the_cause_of_where_it_was_emitted(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Whether its ids are read from below or from above, and the handler is a held back one."""
    below = dispatcher.signals.signal("thing_below")
    held: list[Emission[Any]] = []
    belows: list[Emission[Any]] = []
    inner.subscribe(lambda: belows.append(dispatcher.emit(below)))
    signal.subscribe(lambda: held.append(dispatcher.emit(inner)))
    for above_first in (True, False):
        with dispatcher.deferred():
            first = dispatcher.emit(signal)
            assert first.state == "deferred"
        if above_first:
            assert is_caused_by(held[-1], first, first)
        assert is_caused_by(belows[-1], held[-1], first)
        assert is_caused_by(held[-1], first, first)


def test_a_deferred_block_in_a_handler_keeps_the_handlers_emission_as_cause(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Also where its emissions go out, and are read, after the handler has returned."""
    below = dispatcher.signals.signal("thing_below")
    seen: list[tuple[Emission[Any], UUID | None]] = []
    belows: list[Emission[Any]] = []
    deferrals: list[Any] = []

    def handler() -> None:
        with dispatcher.deferred():
            emission = dispatcher.emit(inner)
            seen.append((emission, emission.id))
        deferrals.append(dispatcher.deferred())
        deferrals[0].__enter__()
        emission = dispatcher.emit(inner)
        seen.append((emission, emission.id))
        seen.append((dispatcher.emit(inner), None))

    inner.subscribe(lambda: belows.append(dispatcher.emit(below)))
    signal.subscribe(handler)
    first = dispatcher.emit(signal)
    assert [emission.state for emission, _ in seen] == ["done", "deferred", "deferred"]
    deferrals[0].__exit__(None, None, None)
    assert len(belows) == 3
    for (emission, early), caused in zip(seen, belows, strict=True):
        assert early in (None, emission.id)
        assert is_caused_by(caused, emission, first)
        assert is_caused_by(emission, first, first)


# as_cause


def test_as_cause_names_the_cause_of_what_is_emitted_in_the_block(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """And of nothing after it; blocks nest, and the parent is not concerned."""
    below: list[Emission[Any]] = []
    inner.subscribe(lambda: below.append(dispatcher.emit("thing_below")))
    dispatcher.signals.signal("thing_below")
    first, second = dispatcher.emit(signal), dispatcher.emit(signal)
    with first.as_cause():
        caused = dispatcher.emit(inner)
        with second.as_cause():
            other = dispatcher.emit(inner)
        again = dispatcher.emit(inner)
        with event_scope(request_id="1"):
            scoped = dispatcher.emit(inner)
    after = dispatcher.emit(inner)
    assert all(is_caused_by(emission, first, first) for emission in (caused, again, scoped))
    assert is_caused_by(other, second, second)
    assert is_caused_by(below[1], other, second)
    assert after.causation_id is None
    assert after.correlation_id == after.id
    assert caused.parent is None
    assert caused.depth == 0


def test_as_cause_in_a_handler_counts_before_the_handlers_own_emission(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Which is the parent all the same, and the current one."""
    other = dispatcher.emit(inner)
    seen: list[Emission[Any]] = []

    def handler(emission: Emission[Any]) -> None:
        with other.as_cause():
            assert current_event() is emission
            seen.append(dispatcher.emit(inner))
        seen.append(dispatcher.emit(inner))

    signal.subscribe(handler)
    first = dispatcher.emit(signal)
    assert first.ok
    assert is_caused_by(seen[0], other, other)
    assert is_caused_by(seen[1], first, first)
    assert [emission.parent for emission in seen] == [first] * 2
    assert [emission.depth for emission in seen] == [1] * 2


def test_as_cause_carries_a_cause_to_a_thread_of_ones_own(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Which knows nothing else of the emission; its scope comes along."""
    with event_scope(request_id="1"):
        first = dispatcher.emit(signal)
    seen: list[Emission[Any]] = []

    def work() -> None:
        with first.as_cause():
            seen.append(dispatcher.emit(inner))
        seen.append(dispatcher.emit(inner))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert is_caused_by(seen[0], first, first)
    assert seen[0].context["request_id"] == "1"
    assert seen[1].causation_id is None
    assert dict(seen[1].context) == {}


async def test_as_cause_holds_for_tasks_and_background_handlers(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Those that were started in the block, when it is over."""
    first = dispatcher.emit(signal)
    below = dispatcher.signals.signal("thing_below")
    seen: list[Emission[Any]] = []
    inner.subscribe(lambda: seen.append(dispatcher.emit(below)), background=True)
    go = asyncio.Event()

    async def later() -> Emission[Any]:
        await go.wait()
        return dispatcher.emit(inner)

    with first.as_cause():
        task = asyncio.create_task(later())
    go.set()
    caused = await task
    assert await dispatcher.drain_async(LIMIT)
    assert is_caused_by(seen[0], caused, first)
    assert is_caused_by(caused, first, first)


def test_as_cause_is_about_where_it_is_entered(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Not about where it was made: in a `deferred` block it holds back, and it can decorate."""
    first = dispatcher.emit(signal)
    block = first.as_cause()
    with dispatcher.deferred():
        with block:
            held = dispatcher.emit(inner)
        assert held.state == "deferred"
    assert is_caused_by(held, first, first)

    @first.as_cause()
    def work() -> Emission[Any]:
        return dispatcher.emit(inner)

    for _ in range(2):
        assert is_caused_by(work(), first, first)
        with dispatcher.deferred():
            assert work().state == "deferred"


def test_a_held_back_emission_keeps_its_as_cause(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Though it goes out after the block."""
    first = dispatcher.emit(signal)
    below: list[Emission[Any]] = []
    inner.subscribe(lambda: below.append(dispatcher.emit("thing_below")))
    dispatcher.signals.signal("thing_below")
    with dispatcher.deferred(), first.as_cause():
        held = dispatcher.emit(inner)
    assert is_caused_by(below[0], held, first)
    assert is_caused_by(held, first, first)


# Threads, forks, memory


def test_threads_that_ask_at_the_same_time_get_the_same_ids(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """One thread makes what all of them get, in a chain of causes too."""
    threads = 8
    seen: list[Emission[Any]] = []
    signal.subscribe(lambda: seen.append(dispatcher.emit(inner)))
    results: list[list[tuple[UUID, UUID, UUID | None]]] = [[] for _ in range(threads)]
    seen += [dispatcher.emit(signal) for _ in range(200)]
    start = threading.Barrier(threads)

    def read(number: int) -> None:
        for emission in seen:
            start.wait(LIMIT)
            ids = (emission.id, emission.correlation_id, emission.causation_id)
            results[number].append(ids)

    running = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    expected = [(it.id, it.correlation_id, it.causation_id) for it in seen]
    assert results == [expected] * threads


@pytest.mark.parametrize("has_trace", [False, True])
def test_who_is_overtaken_gets_the_id_of_who_was_faster(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    has_trace: bool,
) -> None:
    """Another thread made it while this one was about to."""
    emission = dispatcher.emit(signal)
    seen: list[UUID] = []
    if has_trace:
        with emission.as_cause():
            pass

    def overtake() -> None:
        thread = threading.Thread(target=lambda: seen.append(emission.id))
        thread.start()
        thread.join()

    module, name = (traces, "_uuid7") if has_trace else (_frames, "_cause_of")
    function = getattr(module, name)

    def overtaken(argument: Any) -> Any:
        monkeypatch.setattr(module, name, function)
        overtake()
        return function(argument)

    monkeypatch.setattr(module, name, overtaken)
    assert [emission.id] == seen
    assert [emission.id] == seen


def test_the_cause_of_a_cause_is_read_in_a_chain_of_any_length(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Read by the innermost of 64, the others get theirs first, outermost first."""
    chain: list[Emission[Any]] = []

    def handler(emission: Emission[Any]) -> None:
        chain.append(emission)
        if len(chain) < 64:
            dispatcher.emit(signal)
        else:
            assert emission.id

    signal.subscribe(handler)
    assert dispatcher.emit(signal).ok
    ids = [emission.id for emission in chain]
    assert len(ids) == 64
    assert ids == sorted(set(ids))
    assert [emission.causation_id for emission in chain] == [None, *ids[:-1]]
    assert {emission.correlation_id for emission in chain} == {ids[0]}


def in_a_thread(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    signal.subscribe(emit_next, background=True)


def in_a_loop(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    @signal.on(background=True)
    async def handler() -> None:
        emit_next()


def in_an_awaiting_loop(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    @signal.on(background=True)
    async def handler() -> None:
        await asyncio.sleep(0)
        emit_next()


def in_tasks(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    left: set[asyncio.Task[None]] = set()

    async def later() -> None:
        await asyncio.sleep(0)
        with event_scope(request_id="1"):
            emit_next()

    @signal.on(background=True)
    async def handler() -> None:
        task = asyncio.create_task(later())
        left.add(task)
        task.add_done_callback(left.discard)


def in_tasks_of_inline_handlers(signal: EventSignal[Any], emit_next: Callable[[], Any]) -> None:
    """Of which the first is called where there is a loop."""
    left: set[asyncio.Task[None]] = set()

    async def later() -> None:
        await asyncio.sleep(0)
        emit_next()

    @signal.on(background=True, once=True)
    async def first() -> None:
        emit_next()

    @signal.on()
    def handler() -> None:
        try:
            with event_scope(request_id="1"):
                coroutine = later()
                task = asyncio.create_task(coroutine)
        except RuntimeError:
            coroutine.close()
            return
        left.add(task)
        task.add_done_callback(left.discard)


class Sender:
    """One for each emission, by whose end that of the emission is known."""


@pytest.mark.parametrize(
    "subscribe",
    [in_a_thread, in_a_loop, in_an_awaiting_loop, in_tasks, in_tasks_of_inline_handlers],
)
@pytest.mark.parametrize("asked", [False, True], ids=["", "ids are read"])
def test_an_endless_chain_does_not_keep_its_beginning(
    signal: EventSignal[Any], dispatcher: EventDispatcher, subscribe: Any, asked: bool
) -> None:
    """Only the id of the first one, and the last few that are under way."""
    links = 50
    senders: list[weakref.ref[Sender]] = []
    ids: list[tuple[UUID, UUID, UUID | None]] = []
    enough, finish = threading.Event(), threading.Event()

    def emit_next() -> None:
        if len(senders) >= links:
            enough.set()
            return
        sender = Sender()
        senders.append(weakref.ref(sender))
        dispatcher.emit(signal, sender)

    def note(emission: Emission[Any]) -> None:
        if asked:
            ids.append((emission.id, emission.correlation_id, emission.causation_id))

    signal.subscribe(note, priority=1)
    subscribe(signal, emit_next)
    emit_next()
    assert enough.wait(LIMIT)
    finish.set()
    assert dispatcher.drain(LIMIT)
    gc.collect()
    alive = [number for number, sender in enumerate(senders) if sender() is not None]
    assert len(senders) == links
    assert [number for number in alive if number < links - 5] == []
    if asked:
        assert [causation for _, _, causation in ids] == [None, *(own for own, _, _ in ids[:-1])]
        assert {root for _, root, _ in ids} == {ids[0][0]}


def test_a_trace_keeps_no_trace_but_that_of_the_root(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Causes one after the other, without end, leave the first and the last."""
    emission = first = dispatcher.emit(signal)
    senders: list[weakref.ref[Sender]] = []
    for _ in range(100):
        sender = Sender()
        senders.append(weakref.ref(sender))
        with emission.as_cause():
            emission = dispatcher.emit(signal, sender)
    del sender
    gc.collect()
    assert sum(sender() is not None for sender in senders) == 1
    assert emission.correlation_id == first.id


FORKING = """
import os
from madcrow_events import EventDispatcher, SignalRegistry

signals = SignalRegistry()
signal = signals.signal("first_thing")
inner = signals.signal("inner_thing")
dispatcher = EventDispatcher(signals)
seen = []
signal.subscribe(lambda: seen.append(dispatcher.emit(inner)))
before = dispatcher.emit(signal)
known = dispatcher.emit(signal)
identity = known.id
read, write = os.pipe()
child = os.fork()
if child == 0:
    own = dispatcher.emit(signal)
    good = (
        known.id == identity < before.id < seen[0].id < own.id
        and seen[0].causation_id == before.id
        and seen[2].causation_id == own.id
    )
    os.write(write, str(own.id if good else None).encode())
    os._exit(0)
os.waitpid(child, 0)
of_child = os.read(read, 100).decode()
own = dispatcher.emit(signal).id
print(known.id == identity < before.id, of_child != "None", of_child != str(own))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_ids_are_made_in_a_forked_child() -> None:
    """Those that were made stay the same."""
    environment = {key: value for key, value in os.environ.items() if "COV" not in key}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ran.stdout == "True True True\n", ran.stdout + ran.stderr
