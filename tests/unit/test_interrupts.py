"""What a signal handler raises, at any moment: it costs at most that emission (F3).

Python runs signal handlers where a function is entered, and after a call of a built-in one. A
profile function is called at just these places, so that each of them can be tried in turn. It
also runs them where a loop steps back; what is wrong there can be read from the code.
"""

from __future__ import annotations

import asyncio
import dis
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import madcrow_events
from madcrow_events import Batch, Emission, EventDispatcher, SignalRegistry, event_scope
from madcrow_events.testing.recorder import fake_events, record_events
from support import shops
from support.inside import (
    BackgroundLoop,
    BatchBuffer,
    Batches,
    WorkerThreads,
    backlog_of,
    renaming,
)
from support.interrupting import SWALLOWING, Keeper, all_in
from support.shops import LIMIT, Shop, Way

PACKAGE = f"{Path(madcrow_events.__file__).parent}{os.sep}"

pytestmark = [
    pytest.mark.guarantee("F3"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # a loop that was cut off
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # finalizers
]


class Interrupt(BaseException):
    """As KeyboardInterrupt, which pytest keeps for itself."""


class TimeLimit(Exception):
    """As what task queues raise when a job takes too long."""


class Stopped(RuntimeError):
    """Of the kind that is expected, and made the best of, in many places."""


KINDS = (Interrupt, TimeLimit, Stopped)


class Interrupter:
    """Sends a signal at the so-and-so-many-th place in the package where its handler could run."""

    def __init__(self, place: int, error: type[BaseException]) -> None:
        self.left = place
        self.error = error("time is up")
        self.is_swallowed = False

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

    def _handle(self, _number: int, frame: Any) -> None:
        while frame is not None:  # Python makes the best of what goes wrong as it shows objects
            self.is_swallowed |= frame.f_code.co_filename.endswith(SWALLOWING)
            frame = frame.f_back
        raise self.error

    def run(self, act: Callable[[], object]) -> set[int]:
        """Do something; return the ids of what came through."""
        before = signal.signal(signal.SIGALRM, self._handle)
        sys.setprofile(self)
        try:
            act()
        except BaseException as error:
            if self.left > 0:
                raise
            # A frame of a traceback holds the block that was cut off, which lives as long.
            return {id(part.with_traceback(None)) for part in all_in(error)}
        finally:
            sys.setprofile(None)
            signal.signal(signal.SIGALRM, before)
        return set()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """The ids of all exceptions that were logged, or raised in a finalizer; 0 for others."""

    def note(message: str) -> None:
        if "was interrupted by" in message:  # which names the type only
            ids.add(0)

    ids: set[int] = set()
    keeper = Keeper(ids, note)
    loggers = [logging.getLogger(name) for name in ("madcrow_events", "asyncio")]
    for logger in loggers:
        logger.addHandler(keeper)
    monkeypatch.setattr(sys, "unraisablehook", lambda it: ids.add(id(it.exc_value)))
    yield ids
    for logger in loggers:
        logger.removeHandler(keeper)


def use_a_dispatcher(shop: Shop, number: int) -> None:
    with EventDispatcher(shop.signals, max_workers=1) as dispatcher:
        dispatcher.emit("thing_happened", number=number)


def record(shop: Shop, number: int) -> None:
    with record_events(signals=shop.signals):
        shop.dispatcher.emit("thing_happened", number=number)


def fake(shop: Shop, number: int) -> None:
    with fake_events(signals=shop.signals):
        shop.dispatcher.emit("thing_happened", number=number)


def isolate(shop: Shop, number: int) -> None:
    with shop.signals.isolated(empty=number > 1):
        shop.signals.signal("thing_happened")
        shop.dispatcher.emit("thing_happened", number=number)


def nest_scopes(shop: Shop, number: int) -> None:
    with event_scope(request_id="of another"), event_scope(ip_address="10.0.0.1"):
        shop.dispatcher.emit("thing_happened", number=number)


def defer_in_a_scope(shop: Shop, number: int) -> None:
    with event_scope(request_id="of another"), shop.dispatcher.deferred():
        shop.dispatcher.emit("thing_happened", number=number)


WAYS = [
    *shops.ALL,
    *shops.UNOBSERVED,
    isolate,
    nest_scopes,
    defer_in_a_scope,
    record,
    fake,
    use_a_dispatcher,
]
QUICK = [
    shops.deliver,
    shops.deliver_async,
    shops.deliver_elsewhere,
    shops.emit_muted,
    shops.explain,
    shops.send,
    shops.send_async,
    shops.subscribe_and_cancel,
    shops.subscribe_once,
    shops.subscribe_to_a_pattern,
    shops.subscribe_to_a_sender,
]
"""Those with few places."""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no such signal")
@pytest.mark.parametrize("step", [20, pytest.param(5, marks=pytest.mark.once)])
@pytest.mark.parametrize("way", QUICK)
def test_all_is_well_after_an_interrupt_at_any_place(way: Way, told: set[int], step: int) -> None:
    interrupt_at_each_place(way, KINDS, step, told)


@pytest.mark.soak
@pytest.mark.once
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no such signal")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_so_it_is_in_every_way_and_for_every_kind(
    way: Way, kind: type[BaseException], told: set[int], scale: float
) -> None:
    interrupt_at_each_place(way, (kind,), 1 if scale == 1 else 50, told)


def interrupt_at_each_place(
    way: Way, kinds: tuple[type[BaseException], ...], step: int, told: set[int]
) -> None:
    place = len(way.__name__) % step  # not the same ones in each way
    bad = []
    while True:
        place += step
        shop = Shop()
        way(shop, 1)  # what is made when first needed
        assert shop.dispatcher.drain(LIMIT)
        interrupter = Interrupter(place, kinds[place % len(kinds)])
        told.clear()
        reached = interrupter.run(lambda shop=shop: way(shop, 2))
        shop.close_loops()
        if interrupter.left > 0:
            break
        try:
            shop.assert_all_is_well()
            shop.assert_accounted_for(2, returned=False)
            heard = reached | told | shop.told()
            is_told = interrupter.is_swallowed or bool({id(interrupter.error), 0} & heard)
            assert is_told, "nobody was told"
        except BaseException as problem:
            bad.append((place, repr(interrupter.error), repr(problem)[:150]))
        shop.dispatcher.close(0.1)
    print(place, bad[:40])
    assert not bad


@pytest.mark.guarantee("N8")
@pytest.mark.filterwarnings("ignore:the event .* is called .* now:DeprecationWarning")
@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="Windows has no such signal")
@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.once)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_event_that_is_renamed_loses_no_handler_wherever_that_is_interrupted(
    kind: type[BaseException], step: int
) -> None:
    """Nor as its old name is taken back, or as an isolated block ends."""

    def rename() -> None:
        signals.signal("order_placed", formerly="order_made")

    def take_back() -> None:
        renaming.take_back(signals, ["order_made"])

    def isolate() -> None:
        with signals.isolated():
            (take_back if is_renamed else rename)()

    for act, is_renamed in ((rename, False), (take_back, True), (isolate, False), (isolate, True)):
        place = 1
        while True:
            signals = SignalRegistry()
            emit = EventDispatcher(signals).emit
            calls: list[int] = []
            signals.signal("order_made").subscribe(lambda calls=calls: calls.append(1))
            if is_renamed:
                rename()
            interrupter = Interrupter(place, kind)
            interrupter.run(act)
            if interrupter.left > 0:
                break
            for again in (lambda: None, rename, take_back, take_back, rename, lambda: None):
                calls.clear()
                emit("order_made")
                assert calls == [1], (act, place)
                again()
            emit("order_placed")
            assert calls == [1, 1], (act, place)
            place += step
        assert place > 40


# What comes up in a handler that nobody waits for, in the main thread


@pytest.fixture
def raises(request: pytest.FixtureRequest) -> Iterator[type[BaseException]]:
    """The exception that SIGTERM raises."""
    error: type[BaseException] = request.param

    def handle(*_arguments: object) -> None:
        raise error

    before = signal.signal(signal.SIGTERM, handle)
    yield error
    signal.signal(signal.SIGTERM, before)


def interrupt(*_arguments: object) -> None:
    signal.raise_signal(signal.SIGTERM)


async def interrupt_async(*_arguments: object) -> None:
    interrupt()


@pytest.mark.parametrize("raises", [KeyboardInterrupt, SystemExit], indirect=True)
@pytest.mark.parametrize("options", [{"background": True}, {"batch": Batch(1, LIMIT)}])
def test_an_exit_ends_the_program_also_in_a_background_handler_on_its_loop(
    raises: type[BaseException], options: dict[str, Any]
) -> None:
    shop = Shop()
    subscription = shop.other.subscribe(interrupt_async, **options)

    async def main() -> None:
        emissions.append(shop.dispatcher.emit("other"))
        await asyncio.sleep(LIMIT)

    emissions: list[Emission[Any]] = []
    with pytest.raises(raises):
        shop.run(main())
    (emission,) = emissions
    assert [type(failure.exception) for failure in emission.failures] == [raises]
    assert not emission.pending
    subscription.cancel()
    shop.assert_all_is_well()


@pytest.mark.parametrize("raises", [KeyboardInterrupt, SystemExit], indirect=True)
@pytest.mark.parametrize("handler", [interrupt, interrupt_async])
@pytest.mark.parametrize("options", [{"background": True}, {"batch": Batch(1, LIMIT)}])
def test_an_exit_ends_the_program_also_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
    raises: type[BaseException],
    handler: Callable[..., Any],
    options: dict[str, Any],
) -> None:
    shop = Shop()
    monkeypatch.setattr(threading.Thread, "start", cannot_start)
    with shop.other.subscribe(handler, **options), pytest.raises(raises):
        shop.dispatcher.emit("other")
    monkeypatch.undo()
    shop.assert_all_is_well()


def cannot_start(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("raises", [RuntimeError, OSError, MemoryError], indirect=True)
@pytest.mark.parametrize(
    ("owner", "name"), [(WorkerThreads, "put"), (BackgroundLoop, "get"), (Batches, "add")]
)
def test_a_time_limit_is_not_taken_for_a_thread_that_cannot_be_started(
    monkeypatch: pytest.MonkeyPatch, raises: type[BaseException], owner: type, name: str
) -> None:
    shop = Shop()
    monkeypatch.setattr(owner, name, interrupt)
    with pytest.raises(raises):
        shops.emit(shop, 1)
    monkeypatch.undo()
    shop.assert_all_is_well()


# Threads


@pytest.mark.parametrize("error", [Interrupt, TimeLimit, RuntimeError])
@pytest.mark.parametrize("kind", ["worker", "timer", "loop"])
@pytest.mark.parametrize("moment", ["before", "stillborn", "after"])
def test_a_thread_whose_start_is_broken_off_is_started_with_the_next_call(
    monkeypatch: pytest.MonkeyPatch, kind: str, moment: str, error: type[BaseException]
) -> None:
    """Python itself leaves a thread stillborn where a signal raises as it is started."""

    def start(thread: threading.Thread) -> None:
        if kind in thread.name and not broken_off:
            broken_off.append(thread)
            if moment == "stillborn":
                monkeypatch.setattr(thread, "_bootstrap_inner", lambda: None)
            if moment != "before":
                real(thread) if moment == "after" else begin(thread)
            raise error("time is up")
        real(thread)

    def begin(thread: threading.Thread) -> None:
        body = threading.Thread(target=thread._bootstrap_inner)  # type: ignore[attr-defined]
        real(body)
        body.join(LIMIT)

    broken_off: list[threading.Thread] = []
    real = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    shop = Shop()
    try:
        shops.emit(shop, 1)
    except error:
        pass
    assert broken_off
    if kind == "timer" and error is RuntimeError:  # batches do not wait, for nobody would ring
        backlog_of(shop.dispatcher).batches.flushing.clear()
    shop.assert_all_is_well()
    shop.assert_accounted_for(1, returned=False)
    assert shop.dispatcher.close(LIMIT)


def test_what_others_queued_for_a_thread_that_cannot_be_started_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(thread: threading.Thread) -> None:
        if thread.name != "madcrow-events-worker":
            real(thread)
            return
        while inside:
            inside.pop()()  # another emitter, which relies on it
        raise RuntimeError("can't start new thread")

    def emit_meanwhile() -> None:
        other = threading.Thread(target=lambda: shops.emit(shop, 2))
        real(other)
        other.join(LIMIT)

    real = threading.Thread.start
    inside = [emit_meanwhile]
    monkeypatch.setattr(threading.Thread, "start", start)
    shop = Shop()
    shops.emit(shop, 1)
    for number in (1, 2):
        (emission,) = shop.emissions[number]
        assert emission.wait(LIMIT)
        shop.assert_accounted_for(number, returned=True)
    assert not backlog_of(shop.dispatcher).workers.queue.qsize()


def test_the_timer_goes_on_after_whatever_comes_up_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch that was due then is handled a moment later."""
    shop = Shop()
    come_due, failed = BatchBuffer.come_due, []

    def fail_once(buffer: BatchBuffer) -> None:
        if not failed:
            failed.append(buffer)
            raise MemoryError
        come_due(buffer)

    monkeypatch.setattr(BatchBuffer, "come_due", fail_once)
    shops.emit(shop, 1)
    (emission,) = shop.emissions[1]
    assert emission.wait(LIMIT)
    assert failed
    shop.assert_accounted_for(1, returned=True)


# Loops


def codes_of(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_of(constant)


def loops_left_open(code: CodeType) -> Iterator[int]:
    """Yield the lines of loops in a `try` or `with` whose step back is outside of it.

    Since Python 3.12 it is where the last step is conditional: an interrupt there leaves the
    block without its `except`, `finally` or `__exit__`.
    """
    bytecode = dis.Bytecode(code)
    entries: Any = bytecode.exception_entries  # type: ignore[attr-defined]
    steps = {step.offset: step for step in bytecode}

    def handler(offset: int) -> int | None:
        """Return where what is raised goes, past what only ends a comprehension or `async for`."""
        targets = [entry.target for entry in entries if entry.start <= offset < entry.end]
        for target in targets:
            if steps[target].opname == "PUSH_EXC_INFO":
                return int(target)
            if steps[target].opname == "END_ASYNC_FOR":
                return handler(target)
            if steps[target].opname != "CALL_INTRINSIC_1":
                again = min(o for o in steps if o > target and steps[o].opname == "RERAISE")
                return handler(again)
        return None

    for step in steps.values():
        line = step.positions.lineno if step.positions else None
        if step.opname == "JUMP_BACKWARD" and line is not None:  # that of an `await` has no line
            wanted = handler(step.argval)
            if wanted is not None and handler(step.offset) is None:
                yield line


def test_no_loop_steps_back_outside_of_the_block_that_it_is_in() -> None:
    """Its remedy is a function of its own for the loop."""
    found = [
        f"{path.name}:{line}"
        for path in sorted(Path(PACKAGE).rglob("*.py"))
        for code in codes_of(compile(path.read_bytes(), str(path), "exec"))
        for line in loops_left_open(code)
    ]
    assert found == []
