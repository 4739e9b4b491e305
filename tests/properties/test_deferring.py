"""Blocks that hold emissions back, in whatever program and under many tasks and threads (B4).

A program of nested blocks that fail, flush and discard is compared with a model
of lists. Tasks and threads then have blocks of their own, share one, and close
it under each other; the full counts run under `-m soak`.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madcrow_events import Deferral, Emission, EventDispatcher, SignalRegistry

pytestmark = pytest.mark.guarantee("B4")

TASKS = 100
THREADS = 8
LONG = 60.0

Step: TypeAlias = "str | tuple[Program, bool]"
Program: TypeAlias = list[Step]


class Failed(Exception):
    """What a block raises."""


def end(*, fails: bool) -> None:
    if fails:
        raise Failed


class Stage:
    """A dispatcher, a sibling, another one, and what their handlers have heard."""

    def __init__(self) -> None:
        signals = SignalRegistry()
        self.signal = signals.signal("thing_happened")
        self.dispatcher = EventDispatcher(signals)
        self.sibling = self.dispatcher.with_options(on_error="raise")
        self.other = EventDispatcher(signals)
        self.heard: list[Any] = []
        self.signal.subscribe(self.hear)

    def hear(self, number: Any) -> None:
        self.heard.append(number)


@contextmanager
def switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def in_threads(works: list[Callable[[], None]]) -> None:
    """Do each work in a thread with an empty context; raise what one of them raises."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


# Programs


STEPS = st.sampled_from(["emit", "sibling", "other", "flush", "discard"])
PROGRAMS = st.recursive(
    st.lists(STEPS, max_size=4),
    lambda inner: st.lists(STEPS | st.tuples(inner, st.booleans()), max_size=6),
    max_leaves=12,
)


class Model:
    """What should happen: lists of numbers that move to the outer one, or go out."""

    def __init__(self) -> None:
        self.out: list[int] = []
        self.dropped: list[int] = []
        self.numbers = itertools.count()

    def run(self, program: Program, held: list[list[int]]) -> None:
        for step in program:
            if not isinstance(step, str):
                self.run_block(*step, held)
            elif step == "flush":
                self.out += self.take(held)
            elif step == "discard":
                self.dropped += self.take(held)
            else:
                is_held = held and step != "other"
                (held[-1] if is_held else self.out).append(next(self.numbers))

    def run_block(self, program: Program, fails: bool, held: list[list[int]]) -> None:
        own: list[int] = []
        self.run(program, [*held, own])
        if fails:
            self.dropped += own
        else:
            (held[-1] if held else self.out).extend(own)

    def take(self, held: list[list[int]]) -> list[int]:
        if not held:
            return []
        taken = list(held[-1])
        held[-1].clear()
        return taken


class Reality:
    """The same with dispatchers; in each form of the block, and each way to emit."""

    def __init__(self, *, is_async: bool, awaits: bool) -> None:
        self.stage = Stage()
        self.is_async = is_async
        self.awaits = awaits
        self.emissions: list[Emission[Any]] = []
        if awaits:
            self.stage.signal.subscribe(self.suspend, priority=-1)

    async def suspend(self) -> None:
        await asyncio.sleep(0)

    async def run(self, program: Program, deferral: Deferral | None = None) -> None:
        for step in program:
            if not isinstance(step, str):
                await self.run_block(*step)
            elif step == "flush":
                if deferral is not None:
                    await self.flush(deferral)
            elif step == "discard":
                if deferral is not None:
                    deferral.discard()
            else:
                await self.emit(step)

    async def run_block(self, program: Program, fails: bool) -> None:
        try:
            if self.is_async:
                async with self.stage.dispatcher.deferred() as deferral:
                    await self.run(program, deferral)
                    end(fails=fails)
            else:
                with self.stage.dispatcher.deferred() as deferral:
                    await self.run(program, deferral)
                    end(fails=fails)
        except Failed:
            pass

    async def flush(self, deferral: Deferral) -> None:
        if self.is_async:
            await deferral.flush_async()
        else:
            deferral.flush()

    async def emit(self, step: str) -> None:
        stage, number = self.stage, len(self.emissions)
        dispatchers = {"emit": stage.dispatcher, "sibling": stage.sibling, "other": stage.other}
        dispatcher = dispatchers[step]
        if self.awaits:
            self.emissions.append(await dispatcher.emit_async(stage.signal, number=number))
        else:
            self.emissions.append(dispatcher.emit(stage.signal, number=number))


@pytest.mark.parametrize("is_async", [False, True], ids=["with", "async with"])
@pytest.mark.parametrize("awaits", [False, True], ids=["emit", "emit_async"])
@given(program=PROGRAMS)
def test_any_program_of_blocks_does_what_lists_would(
    is_async: bool, awaits: bool, program: Program
) -> None:
    async def run() -> None:
        await reality.run(program)
        if not is_async:
            for dispatcher in (reality.stage.dispatcher, reality.stage.other):
                assert await dispatcher.drain_async(LONG)

    model = Model()
    model.run(program, [])
    reality = Reality(is_async=is_async, awaits=awaits)
    asyncio.run(run())
    assert reality.stage.heard == model.out
    dropped = [n for n, emission in enumerate(reality.emissions) if emission.state == "dropped"]
    assert dropped == sorted(model.dropped)
    done = [n for n, emission in enumerate(reality.emissions) if emission.state == "done"]
    assert done == sorted(model.out)


# Generators


def page(stage: Stage, number: int, *, fails: bool) -> Generator[None]:
    with stage.dispatcher.deferred():
        stage.dispatcher.emit(stage.signal, number=(number, "first"))
        yield
        stage.dispatcher.emit(stage.signal, number=(number, "last"))
        end(fails=fails)


@given(
    ends=st.lists(
        st.sampled_from(["well", "fails", "closed", "collected", "closed elsewhere"]), max_size=6
    ),
    order=st.randoms(use_true_random=False),
)
def test_generators_that_end_in_any_order_leave_no_block_open(
    ends: list[str], order: random.Random
) -> None:
    """Each began in the context of them all, as requests of one thread do.

    Which block is the innermost one there when a generator goes on is nobody's promise, so only
    what it emitted at once is known to be its own.
    """
    stage = Stage()

    def end_page(number: int, how: str) -> None:
        if how in ("well", "fails"):
            try:
                next(pages[number], None)
            except Failed:
                pass
        elif how == "closed":
            pages[number].close()
        elif how == "closed elsewhere":
            in_threads([pages[number].close])
        del pages[number]

    def run() -> None:
        for number, how in enumerate(ends):
            pages[number] = page(stage, number, fails=how == "fails")
            next(pages[number])
        numbers = list(enumerate(ends))
        order.shuffle(numbers)
        for number, how in numbers:
            end_page(number, how)
        assert stage.dispatcher.emit(stage.signal, number="others").state == "done"

    pages: dict[int, Generator[None]] = {}
    contextvars.copy_context().run(run)
    assert stage.heard[-1] == "others"
    assert len(set(stage.heard)) == len(stage.heard)
    assert {ends[number] for number, which in stage.heard[:-1] if which == "first"} <= {"well"}
    assert stage.dispatcher.emit(stage.signal, number="afterwards").state == "done"


# Blocks of one's own


@pytest.mark.soak
@pytest.mark.parametrize("is_async", [False, True], ids=["with", "async with"])
def test_a_hundred_tasks_with_blocks_of_their_own_touch_no_others(
    scale: float, is_async: bool
) -> None:
    """10,000 blocks, a third of which fail; each holds 1 to 4 emissions."""
    stage = Stage()
    rounds = int(100 * scale)
    expected: list[tuple[int, int, int]] = []

    async def work(task: int) -> None:
        for turn in range(rounds):
            mine = [(task, turn, number) for number in range(1 + (task + turn) % 4)]
            fails = (task * 7 + turn) % 3 == 0
            try:
                await transact(mine, fails=fails)
            except Failed:
                assert fails
            else:
                expected.extend(mine)

    async def transact(mine: list[tuple[int, int, int]], *, fails: bool) -> None:
        if is_async:
            async with stage.dispatcher.deferred() as deferral:
                await fill(deferral, mine, fails=fails)
        else:
            with stage.dispatcher.deferred() as deferral:
                await fill(deferral, mine, fails=fails)

    async def fill(deferral: Deferral, mine: list[tuple[int, int, int]], *, fails: bool) -> None:
        for count, number in enumerate(mine):
            await stage.dispatcher.emit_async(stage.signal, number=number)
            assert deferral.pending == count + 1
            await asyncio.sleep(0)
        end(fails=fails)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for task in range(TASKS):
                group.create_task(work(task))

    asyncio.run(main())
    assert sorted(stage.heard) == sorted(expected)
    for task in range(TASKS):  # in each task's order
        own = [number for number in stage.heard if number[0] == task]
        assert own == sorted(own)


@pytest.mark.soak
def test_threads_with_blocks_of_their_own_touch_no_others(scale: float) -> None:
    """8 threads with 1,000 blocks each, a third of which fail, with a nested one that may."""
    stage = Stage()
    expected: list[tuple[int, int, int]] = []

    def work(thread: int) -> None:
        for turn in range(int(1000 * scale)):
            outer = [(thread, turn, number) for number in range(1 + turn % 3)]
            inner = [(thread, turn, 10)]
            outer_fails, inner_fails = turn % 3 == 0, turn % 5 == 0
            try:
                with stage.dispatcher.deferred() as deferral:
                    for number in outer:
                        stage.dispatcher.emit(stage.signal, number=number)
                    try:
                        with stage.dispatcher.deferred():
                            stage.dispatcher.emit(stage.signal, number=inner[0])
                            end(fails=inner_fails)
                    except Failed:
                        inner = []
                    assert deferral.pending == len(outer) + len(inner)
                    end(fails=outer_fails)
            except Failed:
                continue
            expected.extend(outer + inner)

    with switching_often():
        in_threads([lambda thread=thread: work(thread) for thread in range(THREADS)])
    assert sorted(stage.heard) == sorted(expected)
    for thread in range(THREADS):
        own = [number for number in stage.heard if number[0] == thread]
        assert own == sorted(own)


# One block that is shared


class Crowd:
    """Threads that emit into the block of another one, turn by turn.

    Args:
        emit: what each does in a turn, in a copy of the block's context.
        threads: how many.
    """

    def __init__(self, emit: Callable[[int, int], None], threads: int = 4) -> None:
        self.emit = emit
        self.threads = threads
        self.contexts: list[contextvars.Context] | None = None
        self.begins = threading.Barrier(threads + 1)
        self.ends = threading.Barrier(threads + 1)

    def work(self, thread: int) -> None:
        for turn in itertools.count():
            self.begins.wait(LONG)
            if self.contexts is None:
                return
            try:
                self.contexts[thread].run(self.emit, thread, turn)
            finally:
                self.ends.wait(LONG)

    def run(self, turns: int, turn: Callable[[int, Callable[[], None]], None]) -> None:
        """Do the turns, in each of which `turn` calls what lets the others begin."""

        def lead() -> None:
            for number in range(turns):
                turn(number, self.begin)
                self.ends.wait(LONG)
            self.contexts = None
            self.begins.wait(LONG)

        workers = [lambda thread=thread: self.work(thread) for thread in range(self.threads)]
        with switching_often():
            in_threads([lead, *workers])

    def begin(self) -> None:
        self.contexts = [contextvars.copy_context() for _ in range(self.threads)]
        self.begins.wait(LONG)


def dawdle(turn: int) -> None:
    """Let some time pass, which differs from turn to turn."""
    for _ in range((turn * 37) % 400):
        pass


EACH = 10


@pytest.mark.soak
@pytest.mark.parametrize("nested", [False, True], ids=["", "in blocks of their own"])
def test_threads_that_emit_while_the_block_closes_lose_and_double_nothing(
    scale: float, nested: bool
) -> None:
    """4 threads emit 10 times each into 1,000 blocks that close meanwhile."""
    stage = Stage()
    emissions: list[Emission[Any]] = []
    held = at_once = 0

    def emit(thread: int, turn: int) -> None:
        for number in range(EACH):
            if nested:
                with stage.dispatcher.deferred():
                    add(thread, turn, number)
            else:
                add(thread, turn, number)

    def add(thread: int, turn: int, number: int) -> None:
        key = (thread, turn, number)
        emissions.append(stage.dispatcher.emit(stage.signal, number=key))

    def turn(number: int, begin: Callable[[], None]) -> None:
        nonlocal held
        with stage.dispatcher.deferred() as deferral:
            begin()
            dawdle(number)
            held += deferral.pending

    turns = int(1000 * scale)
    Crowd(emit).run(turns, turn)
    counts = Counter(stage.heard)
    assert set(counts.values()) == {1}
    assert len(counts) == turns * 4 * EACH
    assert {emission.state for emission in emissions} == {"done"}
    assert {len(emission.results) for emission in emissions} == {1}
    at_once = len(emissions) - held
    print(f"{held} held back, {at_once} afterwards")
    assert held
    assert at_once


@pytest.mark.soak
@pytest.mark.parametrize("how", ["discard", "fails"])
def test_threads_that_emit_while_the_block_drops_are_either_called_or_dropped(
    scale: float, how: str
) -> None:
    """4 threads emit 10 times each into 1,000 blocks that fail meanwhile."""
    stage = Stage()
    emissions: dict[tuple[int, int, int], Emission[Any]] = {}

    def emit(thread: int, turn: int) -> None:
        for number in range(EACH):
            key = (thread, turn, number)
            emissions[key] = stage.dispatcher.emit(stage.signal, number=key)

    def turn(number: int, begin: Callable[[], None]) -> None:
        try:
            with stage.dispatcher.deferred() as deferral:
                begin()
                dawdle(number)
                if how == "discard":
                    deferral.discard()
                end(fails=how == "fails")
        except Failed:
            pass

    turns = int(1000 * scale)
    Crowd(emit).run(turns, turn)
    counts = Counter(stage.heard)
    assert set(counts.values()) == {1}
    states = Counter(emission.state for emission in emissions.values())
    print(states)
    assert set(states) == {"done", "dropped"}
    assert len(emissions) == turns * 4 * EACH
    assert {key for key, emission in emissions.items() if emission.state == "done"} == set(counts)


@pytest.mark.soak
def test_threads_that_flush_and_discard_one_block_take_each_emission_once(scale: float) -> None:
    """Two emit, one flushes and one discards, in 1,000 blocks that close meanwhile."""
    stage = Stage()
    emissions: dict[tuple[int, int, int], Emission[Any]] = {}
    dropped = 0
    shared: list[Deferral] = []

    def act(thread: int, turn: int) -> None:
        nonlocal dropped
        for number in range(EACH):
            if thread == 0:
                shared[-1].flush()
            elif thread == 1:
                dropped += shared[-1].discard()
            else:
                key = (thread, turn, number)
                emissions[key] = stage.dispatcher.emit(stage.signal, number=key)

    def turn(number: int, begin: Callable[[], None]) -> None:
        with stage.dispatcher.deferred() as deferral:
            shared.append(deferral)
            begin()
            dawdle(number)

    turns = int(1000 * scale)
    Crowd(act).run(turns, turn)
    counts = Counter(stage.heard)
    assert set(counts.values()) == {1}
    assert len(emissions) == turns * 2 * EACH
    assert len(counts) + dropped == len(emissions)
    states = Counter(emission.state for emission in emissions.values())
    assert states == {"done": len(counts), "dropped": dropped}


@pytest.mark.soak
def test_nested_blocks_that_close_while_the_outer_ones_do_lose_and_double_nothing(
    scale: float,
) -> None:
    """Of three nested blocks one closes in each of three threads at once, 1,000 times."""
    stage = Stage()
    blocks: list[Deferral] = []

    def close(thread: int, turn: int) -> None:
        dawdle(turn * (thread + 1))
        blocks[thread].__exit__(None, None, None)

    def turn(number: int, begin: Callable[[], None]) -> None:
        def enter() -> None:
            blocks[:] = [stage.dispatcher.deferred() for _ in range(4)]
            for level, block in enumerate(blocks):
                block.__enter__()
                for index in range(EACH):
                    stage.dispatcher.emit(stage.signal, number=(number, level, index))
            begin()
            dawdle(number)
            blocks[3].__exit__(None, None, None)

        contextvars.copy_context().run(enter)

    turns = int(1000 * scale)
    Crowd(close, threads=3).run(turns, turn)
    counts = Counter(stage.heard)
    assert set(counts.values()) == {1}
    assert len(counts) == turns * 4 * EACH
