"""Async handlers: how they are recognised, called, awaited, cancelled and waited for (A1-A5)."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import re
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    EventSignal,
    GenericEventContext,
    HandlerErrors,
    HandlerFailedEventContext,
    HandlerSignatureError,
    HandlerTimeoutError,
    InvalidOptionError,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    UnknownEventError,
    WouldDeadlockError,
    current_event,
    emit_event_async,
    madcrow_signals,
    user_logged_in,
)
from support.outcomes import errors, logged, values

EAGER = sys.version_info >= (3, 12)
KEYWORDS: dict[str, Any] = {"user_id": 1, "email": "a@b.c"}

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def login(signals: SignalRegistry) -> EventSignal[LoginEventContext]:
    return signals.signal("user_logged_in", context=LoginEventContext)


def run(story: Coroutine[Any, Any, Any]) -> Any:
    """Run a story in a loop of its own; an interrupt that leaves it is no end of the tests."""
    try:
        return asyncio.run(story)
    except KeyboardInterrupt:
        pytest.fail("a KeyboardInterrupt went past the emitter")


def on_a_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in another thread, or raise what it raises."""
    outcome: list[Any] = []

    def target() -> None:
        try:
            outcome[:] = [True, work()]
        except BaseException as error:
            outcome[:] = [False, error]

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert outcome, "it hangs"
    if not outcome[0]:
        raise outcome[1]
    return outcome[1]


async def awaited(emission: Emission[Any]) -> Emission[Any]:
    async with asyncio.timeout(10):
        await emission.done()
    return emission


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  # what is waited for may happen in another thread
            await asyncio.sleep(0.001)


class Emits:
    """One of the ways in which an async handler can be reached; to its end in each."""

    def __init__(self, mode: str, dispatcher: EventDispatcher) -> None:
        self.mode = mode
        self.dispatcher = dispatcher

    def __call__(self, event: Any, sender: Any = None, **context: Any) -> Emission[Any]:
        """Emit with keywords."""
        return self._ended(
            lambda: self.dispatcher.emit(event, sender, **context),
            lambda: self.dispatcher.emit_async(event, sender, **context),
        )

    def typed(self, event: Any, context: BaseEventContext, sender: Any = None) -> Emission[Any]:
        """Emit with a model."""
        return self._ended(
            lambda: self.dispatcher.emit_typed(event, context, sender),
            lambda: self.dispatcher.emit_typed_async(event, context, sender),
        )

    def _ended(self, emit: Callable[[], Any], emit_async: Callable[[], Any]) -> Emission[Any]:
        async def in_a_loop() -> Emission[Any]:
            if self.mode == "emit_async":
                emission = await emit_async()
            else:
                emission = emit()
            await awaited(emission)
            # Announcements of failures come after the handlers.
            assert await self.dispatcher.drain_async(timeout=10)
            return emission

        if self.mode != "emit outside of a loop":
            return run(in_a_loop())
        emission: Emission[Any] = emit()
        assert emission.wait(timeout=10)
        assert self.dispatcher.drain(timeout=10)
        return emission


@pytest.fixture(params=["emit_async", "emit in a loop", "emit outside of a loop"])
def emits(request: pytest.FixtureRequest, dispatcher: EventDispatcher) -> Emits:
    return Emits(request.param, dispatcher)


async def fail() -> None:
    raise ValueError("on purpose")


async def fail_later() -> None:
    await asyncio.sleep(0)
    raise ValueError("on purpose")


# What is an async handler


async def plainly(sender: Any, **context: Any) -> str:
    return "function"


class Owner:
    async def method(self, sender: Any, **context: Any) -> str:
        await asyncio.sleep(0)
        return "method"

    @classmethod
    async def of_class(cls, sender: Any, **context: Any) -> str:
        return cls.__name__

    @staticmethod
    async def static(sender: Any, **context: Any) -> str:
        return "static"

    async def __call__(self, sender: Any, **context: Any) -> str:
        await asyncio.sleep(0)
        return "object"


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*arguments: Any, **keywords: Any) -> Any:
        return "decorated " + await function(*arguments, **keywords)

    return wrapper


OWNER = Owner()


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize(
    ("handler", "value"),
    [
        (plainly, "function"),
        (OWNER.method, "method"),
        (OWNER, "object"),
        (Owner.of_class, "Owner"),
        (Owner.static, "static"),
        (decorated(plainly), "decorated function"),
        (functools.partial(plainly), "function"),
        (functools.partial(functools.partial(plainly), extra=1), "function"),
        (functools.partial(OWNER.method, extra=1), "method"),
        (functools.partial(OWNER), "object"),
    ],
)
@pytest.mark.parametrize("connected", [False, True])
def test_everything_that_gives_a_coroutine_is_awaited(
    signal: EventSignal[Any], emits: Emits, handler: Any, value: str, connected: bool
) -> None:
    if connected:
        signal.connect(handler)
    else:
        signal.subscribe(handler)
    emission = emits(signal, number=1)
    assert emission.results == ((handler, value),)
    assert emission.ok


@pytest.mark.guarantee("H1")
def test_generators_are_refused_also_if_they_are_async(signal: EventSignal[Any]) -> None:
    async def generator() -> AsyncIterator[int]:
        yield 1

    class Generates:
        async def __call__(self) -> AsyncIterator[int]:
            yield 1

    for handler in (generator, Generates(), functools.partial(generator)):
        with pytest.raises(HandlerSignatureError, match="return, not yield"):
            signal.subscribe(handler)


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("options", [{}, {"when": lambda context: True}, {"timeout": 60.0}])
def test_async_handlers_of_every_shape_get_what_they_ask_for(
    login: EventSignal[Any], emits: Emits, typed: bool, options: Any
) -> None:
    async def keywords(sender: Any, **context: Any) -> Any:
        return (sender, context["email"], "timestamp" in context)

    async def some(sender: Any, email: str, **rest: Any) -> Any:
        return (sender, email, "email" in rest)

    async def model(context: LoginEventContext) -> Any:
        return (type(context), context.email)

    async def union(context: LoginEventContext | LogoutEventContext) -> Any:
        return (type(context), context.email)

    async def emission(emission: Emission[Any]) -> Any:
        return (emission.event, current_event() is emission)

    async def typed_emission(emission: Emission[LoginEventContext]) -> Any:
        return emission.context.email

    async def by_name(sender: Any, email: str) -> Any:
        return (sender, email)

    async def nothing() -> Any:
        return None

    async def bound(word: str, context: LoginEventContext) -> Any:
        return (word, context.email)

    handlers = [keywords, some, model, union, emission, typed_emission, by_name, nothing]
    for handler in [*handlers, functools.partial(bound, "word")]:
        login.subscribe(handler, **options)
    if typed:
        ended = emits.typed(login, LoginEventContext(**KEYWORDS), "me")
    else:
        ended = emits(login, "me", **KEYWORDS)
    assert ended.failures == ()
    assert values(ended) == [
        ("me", "a@b.c", typed),
        ("me", "a@b.c", False),
        (LoginEventContext, "a@b.c"),
        (LoginEventContext, "a@b.c"),
        ("user_logged_in", True),
        "a@b.c",
        ("me", "a@b.c"),
        None,
        ("word", "a@b.c"),
    ]


@pytest.mark.guarantee("A1")
def test_each_async_handler_gets_keywords_of_its_own(
    signal: EventSignal[Any], emits: Emits
) -> None:
    async def spoiling(sender: Any, **context: Any) -> None:
        context.clear()

    async def reading(sender: Any, **context: Any) -> Any:
        await asyncio.sleep(0)
        return context

    signal.subscribe(spoiling)
    signal.subscribe(reading)
    assert values(emits(signal, a=1)) == [None, {"a": 1}]


@pytest.mark.guarantee("A1")
def test_keywords_that_do_not_fit_are_the_handlers_failure(
    login: EventSignal[Any], emits: Emits
) -> None:
    async def model(context: LoginEventContext) -> None: ...

    async def by_name(user_agent: str, email: str) -> None: ...

    async def other() -> str:
        return "other"

    login.subscribe(model)
    login.subscribe(by_name)
    login.subscribe(other)
    emission = emits(login, email="a@b.c")
    assert values(emission) == ["other"]
    assert len(emission.failures) == 2
    assert isinstance(emission.failures[0].exception, ContextValidationError)


@pytest.mark.guarantee("C3")
def test_a_generic_context_reaches_async_handlers_as_their_model(
    login: EventSignal[Any], emits: Emits
) -> None:
    async def model(context: LoginEventContext) -> str:
        return context.email

    async def keywords(sender: Any, **context: Any) -> str:
        return context["email"]

    login.subscribe(model)
    login.subscribe(keywords)
    generic = GenericEventContext(event_type="user_logged_in", data=KEYWORDS)
    assert values(emits.typed(login, generic)) == ["a@b.c", "a@b.c"]


# Order and concurrency


@pytest.mark.guarantee("A1")
async def test_inline_handlers_have_finished_before_the_first_async_one_starts(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []

    def note(name: str, *, is_async: bool) -> Any:
        async def handler() -> str:
            calls.append(name)
            await asyncio.sleep(0)
            calls.append(f"{name} again")
            return name

        return handler if is_async else lambda: calls.append(name) or name

    signal.subscribe(note("a", is_async=True), priority=100)
    signal.subscribe(note("b", is_async=False))
    signal.subscribe(note("c", is_async=True), priority=200)
    signal.subscribe(note("d", is_async=False), priority=1)
    emission = await dispatcher.emit_async(signal)
    assert calls == ["d", "b", "c", "a", "c again", "a again"]
    assert values(emission) == ["d", "b", "c", "a"]


@pytest.mark.guarantee("A1")
async def test_results_are_in_order_whoever_finishes_first(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    finished: list[int] = []

    def make(number: int) -> Any:
        async def handler() -> int:
            for _ in range(10 - number):
                await asyncio.sleep(0)
            finished.append(number)
            if number == 5:
                raise ValueError
            return number

        return handler

    for number in range(10):
        signal.subscribe(make(number))
    emission = await dispatcher.emit_async(signal)
    assert finished == list(range(9, -1, -1))
    assert values(emission) == [number for number in range(10) if number != 5]
    assert errors(emission) == [ValueError]


@pytest.mark.guarantee("A1")
def test_async_handlers_run_at_the_same_time(signal: EventSignal[Any], emits: Emits) -> None:
    """Each waits for the others, so one after the other would wait for ever."""
    barriers: list[asyncio.Barrier] = []

    async def handler() -> None:
        if not barriers:
            barriers.append(asyncio.Barrier(3))
        async with asyncio.timeout(5):
            await barriers[0].wait()

    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    assert emits(signal).failures == ()


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("depth", [1, 4])
async def test_handlers_of_a_nested_emission_run_at_the_same_time_too(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, depth: int
) -> None:
    barrier = asyncio.Barrier(10)

    async def handler() -> None:
        async with asyncio.timeout(5):
            await barrier.wait()

    async def outer(emission: Emission[Any]) -> Emission[Any]:
        if emission.depth + 1 < depth:
            return (await dispatcher.emit_async(signal)).results[0].value
        return await dispatcher.emit_async("inner_thing")

    inner = signals.signal("inner_thing")
    for _ in range(10):
        inner.subscribe(functools.partial(handler))
    signal.subscribe(outer)
    (nested,) = values(await dispatcher.emit_async(signal))
    assert nested.depth == depth
    assert len(nested.results) == 10
    assert nested.failures == ()


@pytest.mark.guarantee("A1")
async def test_a_handler_that_never_suspends_needs_no_trip_through_the_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    turns: list[int] = []

    async def handler() -> str:
        return "at once"

    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert values(await dispatcher.emit_async(signal)) == ["at once"] * 3
    if EAGER:
        assert not turns


@pytest.mark.guarantee("A1")
async def test_an_emission_to_plain_handlers_does_not_suspend(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    turns: list[int] = []
    signal.subscribe(lambda: "plain")
    asyncio.get_running_loop().call_soon(turns.append, 1)
    assert values(await dispatcher.emit_async(signal)) == ["plain"]
    assert not turns


@pytest.mark.guarantee("A1")
def test_each_handler_sees_a_task_of_its_own(signal: EventSignal[Any], emits: Emits) -> None:
    def make(suspends: bool) -> Any:
        async def handler() -> Any:
            task = asyncio.current_task()
            assert task is not None
            assert task in asyncio.all_tasks()
            assert task.get_loop() is asyncio.get_running_loop()
            if suspends:
                await asyncio.sleep(0)
                assert asyncio.current_task() is task
            return task

        return handler

    emitters: list[Any] = []

    def note_emitter() -> None:
        with suppress(RuntimeError):
            emitters.append(asyncio.current_task())

    signal.subscribe(note_emitter, priority=1)
    for suspends in (False, True, False, True):
        signal.subscribe(make(suspends))
    emission = emits(signal)
    assert emission.failures == ()
    tasks = values(emission)[1:]
    assert len({*map(id, tasks)} | {*map(id, emitters)}) == 4 + len(emitters)


@pytest.mark.guarantee("A1")
def test_what_asyncio_offers_works_inside(signal: EventSignal[Any], emits: Emits) -> None:
    async def timed_out() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    async def in_time() -> str:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "in time"

    async def grouped() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(in_time()) for _ in range(2)]
        return [task.result() for task in tasks]

    async def gathered() -> list[str]:
        return await asyncio.gather(in_time(), timed_out())

    async def shielded() -> str:
        return await asyncio.wait_for(asyncio.shield(in_time()), 10)

    async def threaded() -> str:
        return await asyncio.to_thread(variable.get)

    for handler in (timed_out, in_time, grouped, gathered, shielded, threaded):
        signal.subscribe(handler)
    assert values(emits(signal)) == [
        "timed out",
        "in time",
        ["in time", "in time"],
        ["in time", "timed out"],
        "in time",
        "unset",
    ]


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("is_eager", [False, True] if EAGER else [False])
async def test_the_task_factory_of_the_emitters_loop_makes_the_tasks(
    signal: EventSignal[Any], dispatcher: EventDispatcher, is_eager: bool
) -> None:
    class Task(asyncio.Task):  # type: ignore[type-arg]
        pass

    def make(loop: Any, coroutine: Any, **options: Any) -> Any:
        if is_eager:
            options["eager_start"] = True
        return Task(coroutine, loop=loop, **options)

    async def handler() -> str:
        return type(asyncio.current_task()).__qualname__

    async def suspending() -> str:
        await asyncio.sleep(0)
        return type(asyncio.current_task()).__qualname__

    signal.subscribe(handler)
    signal.subscribe(suspending)
    signal.subscribe(fail_later)
    asyncio.get_running_loop().set_task_factory(make)
    emission = await dispatcher.emit_async(signal)
    assert values(emission) == [Task.__qualname__] * 2
    assert errors(emission) == [ValueError]


@pytest.mark.guarantee("A1")
async def test_nothing_is_left_of_an_emission_that_was_awaited(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    threads = set(threading.enumerate())
    for handler in (fail, fail_later, plainly, OWNER):
        signal.subscribe(handler)
    emission = await dispatcher.emit_async(signal)
    assert emission.pending == 0
    assert emission.wait(timeout=5)
    await emission.done()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) <= threads


# Context variables


@pytest.mark.guarantee("A4")
async def test_inline_handlers_share_the_variables_and_async_ones_have_a_copy(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def make(name: str, *, suspends: bool) -> Any:
        async def handler() -> Any:
            before = variable.get()
            token = variable.set(name)
            if suspends:
                await asyncio.sleep(0)
            assert variable.get() == name
            if name == "a":
                variable.reset(token)
            return before

        return handler

    signal.subscribe(make("a", suspends=True), priority=9)
    signal.subscribe(make("b", suspends=False), priority=8)
    signal.subscribe(make("c", suspends=True), priority=7)
    signal.subscribe(lambda: variable.set("inline") and None)
    variable.set("emitter")
    emission = await dispatcher.emit_async(signal)
    assert values(emission) == [None, "inline", "inline", "inline"]
    assert variable.get() == "inline"


@pytest.mark.guarantee("A4")
@pytest.mark.parametrize("background", [False, True])
async def test_a_held_task_has_the_variables_of_the_moment_of_emitting(
    signal: EventSignal[Any], dispatcher: EventDispatcher, background: bool
) -> None:
    async def handler() -> Any:
        before = variable.get()
        variable.set("handler")
        await asyncio.sleep(0)
        return (before, variable.get())

    signal.subscribe(handler, background=background)
    variable.set("then")
    emission = dispatcher.emit(signal)
    variable.set("later")
    await awaited(emission)
    assert values(emission) == [("then", "handler")]
    assert variable.get() == "later"


@pytest.mark.guarantee("A4")
def test_the_background_loop_has_the_variables_of_the_emitter(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> Any:
        before = variable.get()
        variable.set("handler")
        return before

    def emit(word: str) -> list[Any]:
        variable.set(word)
        emission = dispatcher.emit(signal)
        assert emission.wait(timeout=10)
        assert variable.get() == word
        return values(emission)

    signal.subscribe(handler)
    for word in ("one", "two"):
        assert contextvars.copy_context().run(emit, word) == [word]


@pytest.mark.guarantee("E2")
def test_a_handler_knows_its_emission_before_and_after_it_suspends(
    signal: EventSignal[Any], emits: Emits
) -> None:
    async def handler(emission: Emission[Any]) -> None:
        assert current_event() is emission
        await asyncio.sleep(0)
        assert current_event() is emission
        task = asyncio.get_running_loop().create_task(asyncio.sleep(0, current_event()))
        assert await task is emission

    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    assert emits(signal).failures == ()
    assert current_event() is None


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("background", [False, True])
async def test_what_nobody_awaits_begins_a_chain_of_its_own(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    background: bool,
) -> None:
    inner = signals.signal("inner_thing")
    seen: list[Any] = []

    async def later(emission: Emission[Any]) -> None:
        assert current_event() is emission
        nested = await dispatcher.emit_async("other_thing")
        seen.append((emission.depth, nested.depth, nested.parent))

    async def outer() -> Emission[Any]:
        return dispatcher.emit(inner)

    signals.signal("other_thing")
    inner.subscribe(later, background=background)
    signal.subscribe(outer)
    emission = await dispatcher.emit_async(signal)
    (nested,) = values(emission)
    assert nested.parent is emission
    await awaited(nested)
    assert nested.failures == ()
    assert seen == [(1, 0, None)]


@pytest.mark.guarantee("F5")
async def test_a_chain_of_held_tasks_may_be_longer_than_any_nesting(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    depths: list[int] = []

    async def handler(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if len(depths) < 200:
            dispatcher.emit(signal)

    signal.subscribe(handler)
    dispatcher.emit(signal)
    await until(lambda: len(depths) == 200)
    assert set(depths) == {0}
    assert await dispatcher.drain_async(timeout=10)


@pytest.mark.guarantee("F5")
async def test_a_chain_of_held_tasks_does_not_keep_its_beginning(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    kept: list[int] = []

    async def handler(number: int) -> None:
        if number < 100:
            dispatcher.emit(signal, number=number + 1)
        else:
            gc.collect()
            kept.append(sum(type(thing) is Emission for thing in gc.get_objects()))

    signal.subscribe(handler)
    dispatcher.emit(signal, number=0)
    await until(lambda: kept)
    assert kept[0] < 50


@pytest.mark.guarantee("F5")
async def test_a_chain_is_what_happens_under_one_handler_though_they_run_side_by_side(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    broken = asyncio.Event()

    async def looping(emission: Emission[Any]) -> None:
        try:
            await dispatcher.emit_async("loop")
        finally:
            if emission.event == "thing_happened":
                broken.set()
                await asyncio.sleep(0.01)

    async def patient() -> Any:
        before = await dispatcher.emit_async("harmless")
        await broken.wait()
        after = await dispatcher.emit_async("harmless")
        return values(before), values(after)

    async def heard() -> str:
        await asyncio.sleep(0)
        return "heard"

    signals.signal("loop").subscribe(looping)
    signals.signal("harmless").subscribe(heard)
    signal.subscribe(looping)
    signal.subscribe(patient)
    async with asyncio.timeout(10):
        emission = await dispatcher.emit_async(signal)
    assert [type(failure.exception).__name__ for failure in emission.failures] == [
        "EmissionDepthError"
    ]
    assert emission.failures[0].handler is looping
    assert (["heard"], ["heard"]) in values(emission)


# Failure


@pytest.mark.guarantee("F1")
def test_every_failure_is_recorded_logged_and_announced_once(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    emits: Emits,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announced: list[Any] = []

    async def inform(context: HandlerFailedEventContext) -> None:
        await asyncio.sleep(0)
        announced.append((context.event_name, context.handler_name, context.exception_type))

    signals.subscribe("handler_failed", inform)
    signal.subscribe(fail)
    signal.subscribe(fail_later)
    signal.subscribe(plainly)
    emission = emits(signal)
    assert sorted(announced) == [
        ("thing_happened", "tests.unit.emissions.test_async_loop.fail", "ValueError"),
        ("thing_happened", "tests.unit.emissions.test_async_loop.fail_later", "ValueError"),
    ]
    assert {failure.handler for failure in emission.failures} == {fail, fail_later}
    assert values(emission) == ["function"]
    assert sorted(logged(caplog)) == [
        "handler tests.unit.emissions.test_async_loop.fail of thing_happened failed: ValueError",
        "handler tests.unit.emissions.test_async_loop.fail_later of thing_happened failed: ValueError",
    ]


@pytest.mark.guarantee("F1")
async def test_who_awaits_an_emission_awaits_what_its_failures_cause(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    announced: list[str] = []

    async def inform(exception_type: str) -> None:
        await asyncio.sleep(0)
        announced.append(exception_type)

    signals.subscribe("handler_failed", inform)
    signal.subscribe(lambda: 1 / 0)
    signal.subscribe(fail_later)
    await dispatcher.emit_async(signal)
    assert announced == ["ZeroDivisionError", "ValueError"]


@pytest.mark.guarantee("F1")
async def test_a_held_task_that_fails_is_announced_when_it_has(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    announced: list[str] = []
    go = asyncio.Event()

    async def inform(exception_type: str) -> None:
        announced.append(exception_type)

    async def slow() -> None:
        await go.wait()

    signals.subscribe("handler_failed", inform)
    signal.subscribe(slow)
    signal.subscribe(fail)
    emission = dispatcher.emit(signal)
    await until(lambda: announced)
    assert emission.pending == 1
    go.set()
    await awaited(emission)
    assert announced == ["ValueError"]


@pytest.mark.guarantee("F1")
def test_a_failure_in_an_async_handler_of_handler_failed_is_not_announced(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    emits: Emits,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    async def failing(event_name: str) -> None:
        calls.append(event_name)
        raise KeyError

    signals.subscribe("handler_failed", failing)
    signal.subscribe(fail)
    emission = emits(signal)
    assert calls == ["thing_happened"]
    assert len(logged(caplog)) == 2
    assert errors(emission) == [ValueError]


@pytest.mark.guarantee("F2")
async def test_an_awaiting_emitter_gets_inline_and_async_failures(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    raising = dispatcher.with_options(on_error="raise")
    ran: list[str] = []

    async def last() -> None:
        await asyncio.sleep(0)
        ran.append("last")

    signal.subscribe(fail_later, priority=1)
    signal.subscribe(last)
    with pytest.raises(ValueError, match="on purpose"):
        await raising.emit_async(signal)
    assert ran == ["last"]
    signal.subscribe(lambda: 1 / 0)
    with pytest.raises(HandlerErrors) as caught:
        await raising.emit_async(signal)
    assert {type(error) for error in caught.value.exceptions} == {ZeroDivisionError, ValueError}


@pytest.mark.guarantee("F2")
def test_an_emitter_that_does_not_wait_gets_the_inline_failures_only(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    raising = dispatcher.with_options(on_error="raise")

    async def main() -> None:
        signal.subscribe(fail)
        emission = raising.emit(signal)
        await awaited(emission)
        assert errors(emission) == [ValueError]
        with signal.subscribe(lambda: 1 / 0), pytest.raises(ZeroDivisionError):
            raising.emit(signal)
        assert await dispatcher.drain_async(timeout=10)

    run(main())
    emission = raising.emit(signal)
    assert emission.wait(timeout=10)
    assert errors(emission) == [ValueError]
    with pytest.raises(ValueError, match="on purpose"):
        emission.raise_for_failures()


@pytest.mark.guarantee("F1")
async def test_exceptions_that_python_itself_catches_are_failures_like_others(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def stop() -> None:
        raise StopIteration("inline")

    async def stop_async() -> None:
        raise StopAsyncIteration

    async def stop_iteration() -> None:
        raise StopIteration

    signal.subscribe(stop)
    signal.subscribe(stop_async)
    signal.subscribe(stop_iteration)
    emission = await dispatcher.emit_async(signal)
    assert errors(emission) == [StopIteration, StopAsyncIteration, RuntimeError]


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("suspends", [False, True])
def test_an_exit_of_an_async_handler_cancels_and_joins_the_others_and_reaches_the_emitter(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
    suspends: bool,
) -> None:
    left: list[str] = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001)
            left.append("joined")

    async def exiting() -> None:
        if suspends:
            await asyncio.sleep(0)
        raise error

    async def main() -> None:
        signal.subscribe(waiting)
        subscription = signal.subscribe(exiting)
        signal.subscribe(functools.partial(waiting))
        started = time.monotonic()
        with pytest.raises(error):
            await dispatcher.emit_async(signal)
        assert time.monotonic() - started < 30
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert left.count("joined") >= 1
        assert logged(caplog) == []
        assert current_event() is None
        subscription.cancel()
        signal.unsubscribe(waiting)
        for present in signal.subscriptions:
            present.cancel()
        signal.subscribe(plainly)
        assert values(await dispatcher.emit_async(signal)) == ["function"]

    run(main())


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("first", ["exit", "cancellation"])
def test_an_exit_is_not_lost_when_the_emitter_is_cancelled_as_well(
    signal: EventSignal[Any], dispatcher: EventDispatcher, first: str
) -> None:
    async def exiting() -> None:
        try:
            await asyncio.sleep(0 if first == "exit" else 60)
        finally:
            raise SystemExit(3)

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            if first == "exit":
                emitters[0].cancel()
            await asyncio.sleep(0.001)

    async def emit() -> str:
        try:
            await dispatcher.emit_async(signal)
        except BaseException as error:
            return type(error).__name__
        return "nothing"

    async def main() -> str:
        emitters.append(asyncio.get_running_loop().create_task(emit()))
        await asyncio.sleep(0.001)
        if first == "cancellation":
            emitters[0].cancel()
        return await emitters[0]

    emitters: list[asyncio.Task[str]] = []
    signal.subscribe(waiting)
    signal.subscribe(exiting)
    assert run(main()) == "SystemExit"


@pytest.mark.guarantee("F3")
async def test_a_handler_whose_task_somebody_else_cancels_is_a_failed_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: list[Any] = []

    async def victim() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(60)

    async def cancelling() -> str:
        await until(lambda: tasks)
        tasks[0].cancel()
        await asyncio.sleep(0)
        return "cancelled it"

    signal.subscribe(victim)
    signal.subscribe(cancelling)
    for emit in (dispatcher.emit_async, _emit_and_wait(dispatcher)):
        tasks.clear()
        caplog.clear()
        emission = await emit(signal)
        assert errors(emission) == [asyncio.CancelledError]
        assert values(emission) == ["cancelled it"]
        assert len(logged(caplog)) == 1
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


def _emit_and_wait(dispatcher: EventDispatcher) -> Callable[..., Any]:
    async def emit(*arguments: Any, **context: Any) -> Emission[Any]:
        return await awaited(dispatcher.emit(*arguments, **context))

    return emit


@pytest.mark.guarantee("A2")
def test_a_held_task_that_the_end_of_the_loop_cancels_is_a_failed_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def waiting() -> None:
        await asyncio.sleep(60)

    async def main() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        await asyncio.sleep(0)
        return emission

    signal.subscribe(waiting)
    emission = run(main())
    assert emission.pending == 0
    assert len(emission.failures) == 1
    assert not isinstance(emission.failures[0].exception, HandlerTimeoutError)
    assert len(logged(caplog)) == 1
    assert emission.wait(timeout=5)


@pytest.mark.guarantee("A2")
def test_a_held_task_that_never_began_is_a_failed_handler_too(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> Emission[Any]:
        return dispatcher.emit(signal)

    signal.subscribe(plainly)
    emission = run(main())
    if emission.failures:
        assert len(logged(caplog)) == 1
    else:
        assert values(emission) == ["function"]
    assert emission.pending == 0
    assert dispatcher.drain(timeout=5)


# Cancelling the emitter


@pytest.mark.guarantee("A1")
async def test_cancelling_an_emission_cancels_its_handlers_and_waits_for_them(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    left: list[str] = []
    entered = asyncio.Event()

    async def cleaning_up() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            left.append("cleaned up")
            raise

    async def swallowing() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.002)
            left.append("swallowed")
        return "value"

    async def last() -> None:
        entered.set()
        await asyncio.sleep(60)

    for handler in (cleaning_up, swallowing, last):
        signal.subscribe(handler)
    task = asyncio.get_running_loop().create_task(dispatcher.emit_async(signal))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == ["cleaned up", "swallowed"]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert logged(caplog) == []


@pytest.mark.guarantee("A1")
async def test_a_failure_during_the_clean_up_is_logged(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError

    signal.subscribe(failing)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await dispatcher.emit_async(signal)
    (line,) = logged(caplog)
    assert line.endswith("failed: ValueError")


@pytest.mark.guarantee("A1")
async def test_an_emission_obeys_a_timeout_around_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    signal.subscribe(slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await dispatcher.emit_async(signal)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(dispatcher.emit_async(signal), 0.01)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    signal.unsubscribe(slow)
    async with asyncio.timeout(10):
        assert (await dispatcher.emit_async(signal)).ok


@pytest.mark.guarantee("A1")
async def test_an_emission_obeys_the_task_group_it_is_in(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    left: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("left")

    async def breaking() -> None:
        await asyncio.sleep(0.005)
        raise ZeroDivisionError

    signal.subscribe(slow)
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.emit_async(signal))
            group.create_task(breaking())
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert left == ["left"]


@pytest.mark.guarantee("F3")
async def test_a_handler_that_cancels_the_emitter_is_heard(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    emitter = asyncio.get_running_loop().create_task(asyncio.sleep(0))
    await emitter

    async def cancelling() -> None:
        emitter.cancel()
        await asyncio.sleep(60)

    async def emit() -> None:
        await dispatcher.emit_async(signal)

    signal.subscribe(cancelling)
    emitter = asyncio.get_running_loop().create_task(emit())
    with pytest.raises(asyncio.CancelledError):
        await emitter
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert logged(caplog) == []


async def test_an_emission_that_is_closed_leaves_nothing_behind(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """As it happens to whatever awaits something when a loop is torn down."""
    left: list[str] = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("left")

    signal.subscribe(waiting)
    coroutine = dispatcher.emit_async(signal)
    contextvars.copy_context().run(coroutine.send, None)
    await asyncio.sleep(0)
    coroutine.close()
    await until(lambda: left)
    await until(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_end_of_the_loop_ends_an_emission_without_complaint(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    turns: int,
) -> None:
    """After one turn no handler has begun yet, where they do not start eagerly."""
    outcomes: list[str] = []

    async def handler() -> None:
        await asyncio.sleep(60)

    async def emit() -> None:
        try:
            await dispatcher.emit_async(signal)
        except asyncio.CancelledError:
            outcomes.append("cancelled")
            raise

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, problem: outcomes.append(problem["message"]))
        tasks.append(loop.create_task(emit()))
        for _ in range(turns):
            await asyncio.sleep(0)

    tasks: list[asyncio.Task[None]] = []
    for _ in range(3):
        signal.subscribe(functools.partial(handler))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run(main())
        tasks.clear()
        gc.collect()
    assert outcomes == ["cancelled"]
    assert [str(warning.message) for warning in warned] == []
    assert logged(caplog) == []


# Timeouts


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("background", [False, True])
def test_a_handler_that_takes_too_long_is_cancelled_and_has_failed(
    signal: EventSignal[Any], emits: Emits, caplog: pytest.LogCaptureFixture, background: bool
) -> None:
    left: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            left.append("cancelled")

    async def steady() -> str:
        await asyncio.sleep(0.05)
        return "steady"

    signal.subscribe(slow, timeout=0.01, background=background)
    signal.subscribe(steady, timeout=60)
    emission = emits(signal)
    (failure,) = emission.failures
    error = failure.exception
    assert isinstance(error, HandlerTimeoutError)
    assert isinstance(error, TimeoutError)
    assert (error.event, error.handler, error.timeout) == ("thing_happened", slow, 0.01)
    assert "slow" in str(error)
    assert "0.01 s" in str(error)
    assert failure.handler is slow
    assert values(emission) == ["steady"]
    assert left == ["cancelled"]
    assert len(logged(caplog)) == 1
    assert logged(caplog)[0].endswith("failed: HandlerTimeoutError")
    with pytest.raises(HandlerTimeoutError):
        emission.raise_for_failures()


@pytest.mark.guarantee("A5")
def test_a_timeout_error_of_the_handlers_own_stays_what_it_is(
    signal: EventSignal[Any], emits: Emits
) -> None:
    async def raising() -> None:
        raise TimeoutError("mine")

    async def waiting() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    signal.subscribe(raising, timeout=60)
    signal.subscribe(waiting, timeout=60)
    emission = emits(signal)
    assert errors(emission) == [TimeoutError, TimeoutError]


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("ending", ["returns", "raises"])
def test_a_handler_that_hides_its_cancellation_took_too_long_all_the_same(
    signal: EventSignal[Any], emits: Emits, ending: str
) -> None:
    async def hiding() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
        if ending == "raises":
            raise KeyError
        return "late"

    signal.subscribe(hiding, timeout=0.01)
    emission = emits(signal)
    assert emission.results == ()
    (failure,) = emission.failures
    assert isinstance(failure.exception, HandlerTimeoutError)
    assert isinstance(failure.exception.__cause__, KeyError if ending == "raises" else type(None))


@pytest.mark.guarantee("A5")
async def test_an_emitter_that_is_cancelled_before_the_timeout_is_told_so(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    signal.subscribe(slow, timeout=30)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.01):
            await dispatcher.emit_async(signal)
    assert not isinstance(caught.value, HandlerTimeoutError)
    assert logged(caplog) == []


@pytest.mark.guarantee("A5")
async def test_a_handler_with_a_timeout_that_is_cancelled_by_others_did_not_time_out(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(60)

    signal.subscribe(cancelled, timeout=30)
    assert errors(await dispatcher.emit_async(signal)) == [asyncio.CancelledError]


@pytest.mark.guarantee("A5")
def test_a_plain_handler_has_no_timeout(signals: SignalRegistry, signal: EventSignal[Any]) -> None:
    for options in ({"timeout": 1.0}, {"timeout": 1, "background": True}):
        with pytest.raises(InvalidOptionError, match="make it async") as caught:
            signal.subscribe(lambda: None, **options)
        assert caught.value.option == "timeout"
    with pytest.raises(InvalidOptionError, match="make it async"):
        signals.subscribe("thing_*", lambda: None, timeout=1.0)


@pytest.mark.guarantee("A5")
@pytest.mark.parametrize("timeout", [0, -1, 0.0, True, float("nan"), float("inf"), "1"])
def test_a_timeout_that_is_no_time_is_refused(signal: EventSignal[Any], timeout: Any) -> None:
    with pytest.raises(InvalidOptionError, match="number of seconds above 0") as caught:
        signal.subscribe(plainly, timeout=timeout)
    assert caught.value.option == "timeout"
    signal.subscribe(plainly, timeout=None)


@pytest.mark.guarantee("A5")
async def test_the_same_handler_with_another_timeout_is_a_conflict(
    signal: EventSignal[Any],
) -> None:
    from madcrow_events import SubscriptionConflictError

    subscription = signal.subscribe(plainly, timeout=1)
    assert signal.subscribe(plainly, timeout=1.0) is subscription
    assert (subscription.timeout, subscription.background) == (1, False)
    with pytest.raises(SubscriptionConflictError):
        signal.subscribe(plainly, timeout=2)
    with pytest.raises(SubscriptionConflictError):
        signal.subscribe(plainly, timeout=1, background=True)


# Options


@pytest.mark.guarantee("H5")
async def test_once_is_claimed_by_one_of_many_emissions_at_a_time(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0)
        return "once"

    signal.subscribe(handler, once=True)
    emissions = await asyncio.gather(*(dispatcher.emit_async(signal) for _ in range(5)))
    assert [value for emission in emissions for value in values(emission)] == ["once"]


@pytest.mark.guarantee("H5")
@pytest.mark.parametrize("background", [False, True])
def test_when_and_once_are_decided_in_every_way_of_emitting(
    signal: EventSignal[Any], emits: Emits, background: bool
) -> None:
    signal.subscribe(
        plainly, once=True, when=lambda context: context["ready"], background=background
    )
    assert values(emits(signal, ready=False)) == []
    assert values(emits(signal, ready=True)) == ["function"]
    assert values(emits(signal, ready=True)) == []


@pytest.mark.guarantee("L1")
def test_a_method_that_has_begun_keeps_its_object(signal: EventSignal[Any], emits: Emits) -> None:
    class Short:
        def __init__(self) -> None:
            self.word = "whole"

        async def handle(self) -> str:
            owners.clear()
            await asyncio.sleep(0)
            gc.collect()
            return self.word

    owners = [Short()]
    signal.subscribe(owners[0].handle)
    assert values(emits(signal)) == ["whole"]
    deadline = time.monotonic() + 10
    while signal.subscriptions and time.monotonic() < deadline:
        gc.collect()  # the loop's thread may still be leaving the call
    assert values(emits(signal)) == []


@pytest.mark.guarantee("F4")
async def test_an_inline_handler_adds_no_async_one_to_its_own_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(lambda: signal.subscribe(plainly) and None)
    assert values(await dispatcher.emit_async(signal)) == [None]
    assert values(await dispatcher.emit_async(signal)) == [None, "function"]


# What an emitter can do wrong


@pytest.mark.guarantee("C4")
@pytest.mark.parametrize(
    ("emit", "error"),
    [
        (
            lambda d: d.emit_typed_async("user_logged_in", LogoutEventContext(**KEYWORDS)),
            ContextTypeError,
        ),
        (lambda d: d.emit_typed_async("user_logged_in", KEYWORDS), ContextTypeError),
        (lambda d: d.emit_async("user_logged_in", LoginEventContext(**KEYWORDS)), ContextTypeError),
        (lambda d: d.emit_async("user_loged_in", **KEYWORDS), UnknownEventError),
        (
            lambda d: d.with_options(validate=True).emit_async("user_logged_in", user_id=1),
            ContextValidationError,
        ),
    ],
)
async def test_an_emission_that_cannot_be_is_refused_before_any_handler(
    login: EventSignal[Any], dispatcher: EventDispatcher, emit: Any, error: type[Exception]
) -> None:
    calls: list[str] = []

    async def handler() -> None:
        calls.append("async")

    login.subscribe(handler)
    login.subscribe(lambda: calls.append("plain"))
    with pytest.raises(error):
        await emit(dispatcher)
    assert calls == []


@pytest.mark.guarantee("E1")
async def test_any_keyword_may_be_given_to_emit_async(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler(sender: Any, **context: Any) -> Any:
        return (sender, context)

    signal.subscribe(handler)
    emission = await dispatcher.emit_async("thing-happened", "me", event="e", context="c", name="n")
    assert values(emission) == [("me", {"event": "e", "context": "c", "name": "n"})]
    assert values(await dispatcher.emit_async(signal))[0][0] is signal


@pytest.mark.guarantee("E1")
async def test_the_module_function_emits_through_the_default_dispatcher() -> None:
    async def handler(email: str) -> str:
        return email

    user_logged_in.subscribe(handler)
    emission = await emit_event_async("user_logged_in", **KEYWORDS)
    assert values(emission) == ["a@b.c"]
    assert emission.signal is madcrow_signals["user_logged_in"]


# blinker's own ways of sending


def call_in_a_loop(handler: Any) -> Any:
    def called(*arguments: Any, **context: Any) -> Any:
        return asyncio.run(handler(*arguments, **context))

    return called


def call_as_async(handler: Any) -> Any:
    async def called(*arguments: Any, **context: Any) -> Any:
        return handler(*arguments, **context)

    return called


@pytest.mark.guarantee("N5")
async def test_connected_async_receivers_are_awaited_by_the_dispatcher(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def receiver(sender: Any, word: str = "") -> str:
        await asyncio.sleep(0)
        return word

    signal.connect(receiver)
    signal.connect(OWNER, sender="me")
    emission = await dispatcher.emit_async(signal, "me", word="heard")
    assert values(emission) == ["heard", "object"]
    emission = await awaited(dispatcher.emit(signal, "you", word="later"))
    assert values(emission) == ["later"]


@pytest.mark.guarantee("N5")
def test_a_send_reaches_async_handlers_of_every_shape_in_order(
    login: EventSignal[Any],
) -> None:
    async def model(context: LoginEventContext) -> str:
        return f"model {context.email}"

    async def by_name(email: str) -> str:
        await asyncio.sleep(0)
        return f"name {email}"

    async def emission(emission: Emission[Any]) -> str:
        assert current_event() is emission
        return "emission"

    def plain(email: str) -> str:
        return f"plain {email}"

    login.subscribe(model)
    login.subscribe(plain, priority=5)
    login.subscribe(by_name, priority=10)
    login.subscribe(plainly, priority=-1)
    login.subscribe(emission, priority=-2)
    expected = ["name a@b.c", "plain a@b.c", "model a@b.c", "function", "emission"]
    handlers = [by_name, plain, model, plainly, emission]
    sent = login.send("me", _async_wrapper=call_in_a_loop, **KEYWORDS)
    assert sent == list(zip(handlers, expected, strict=True))
    sent = run(login.send_async("me", _sync_wrapper=call_as_async, **KEYWORDS))
    assert sent == list(zip(handlers, expected, strict=True))
    with pytest.raises(RuntimeError, match="use send_async, or give _async_wrapper"):
        login.send("me", **KEYWORDS)
    with pytest.raises(RuntimeError, match="use send, or give _sync_wrapper"):
        run(login.send_async("me", **KEYWORDS))


@pytest.mark.guarantee("N5")
def test_a_send_calls_background_handlers_in_place(signal: EventSignal[Any]) -> None:
    def plain() -> Any:
        return ("plain", threading.current_thread())

    async def awaiting() -> Any:
        await asyncio.sleep(0)
        return ("async", threading.current_thread())

    signal.subscribe(awaiting, background=True)
    signal.subscribe(plain, background=True, priority=1)
    here = threading.current_thread()
    expected = [(plain, ("plain", here)), (awaiting, ("async", here))]
    assert signal.send(_async_wrapper=call_in_a_loop) == expected
    assert run(signal.send_async(_sync_wrapper=call_as_async)) == expected


@pytest.mark.guarantee("N5")
def test_send_async_keeps_the_options_and_stops_at_the_first_failure(
    signal: EventSignal[Any],
) -> None:
    calls: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(60)

    async def after() -> str:
        calls.append("after")
        return "after"

    async def skipped() -> None:
        calls.append("skipped")

    subscription = signal.subscribe(slow, timeout=0.01)
    signal.subscribe(skipped, when=lambda context: False)
    signal.subscribe(after, once=True)
    with pytest.raises(HandlerTimeoutError):
        run(signal.send_async())
    assert calls == []
    subscription.cancel()
    assert run(signal.send_async()) == [(after, "after")]
    assert run(signal.send_async()) == []


# emit without awaiting


@pytest.mark.guarantee("A2")
async def test_emit_in_a_running_loop_leaves_tasks_to_that_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = asyncio.Event()
    loop, thread = asyncio.get_running_loop(), threading.current_thread()

    async def first() -> str:
        assert asyncio.get_running_loop() is loop
        assert threading.current_thread() is thread
        return "first"

    async def second() -> str:
        await go.wait()
        return "second"

    signal.subscribe(first, priority=1)
    signal.subscribe(second, priority=2)
    signal.subscribe(fail)
    signal.subscribe(lambda: "inline")
    emission = dispatcher.emit(signal)
    assert (values(emission), emission.pending, emission.ok) == (["inline"], 3, True)
    await until(lambda: emission.pending == 1)
    assert values(emission) == ["inline", "first"]
    assert errors(emission) == [ValueError]
    gc.collect()
    assert emission.wait(timeout=0) is False
    go.set()
    await awaited(emission)
    assert values(emission) == ["inline", "second", "first"]
    assert emission.pending == 0
    assert emission.wait(timeout=5)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.guarantee("A2")
async def test_a_held_task_needs_nobody_else_to_hold_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    finished: list[str] = []

    async def handler() -> None:
        nobody_else_knows = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, nobody_else_knows.set_result, None)
        await nobody_else_knows
        finished.append("whole")

    signal.subscribe(handler)
    dispatcher.emit(signal)
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    await until(lambda: finished)


@pytest.mark.guarantee("A2")
def test_emit_outside_of_a_loop_uses_the_background_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = threading.Event()
    seen: list[Any] = []

    async def handler() -> str:
        seen.append((asyncio.get_running_loop(), threading.current_thread()))
        await asyncio.to_thread(go.wait, 10)
        return "done"

    signal.subscribe(handler)
    signal.subscribe(lambda: "inline")
    emissions = [dispatcher.emit(signal) for _ in range(2)]
    assert [values(emission) for emission in emissions] == [["inline"]] * 2
    assert emissions[0].pending == 1
    assert not emissions[0].wait(timeout=0.01)
    assert not emissions[0].wait(timeout=0)
    go.set()
    for emission in emissions:
        assert emission.wait()
        assert values(emission) == ["inline", "done"]
        assert emission.pending == 0
    (loop, thread) = seen[0]
    assert seen == [(loop, thread)] * 2
    assert thread is not threading.current_thread()
    assert thread.daemon


@pytest.mark.guarantee("A2")
def test_done_can_be_awaited_in_another_loop_than_the_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.02)
        return "done"

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    assert values(run(awaited(emission))) == ["done"]

    async def main() -> None:
        here = dispatcher.emit(signal)
        there = await asyncio.to_thread(lambda: values(run(awaited(here))))
        assert there == ["done"]
        assert values(here) == ["done"]

    run(main())


@pytest.mark.guarantee("A2")
def test_many_may_wait_for_one_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> None:
        await asyncio.sleep(0.05)

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    waited: list[bool] = []

    async def main() -> None:
        await asyncio.gather(*(awaited(emission) for _ in range(5)))

    threads = [
        threading.Thread(target=lambda: waited.append(emission.wait(timeout=10))) for _ in range(5)
    ]
    threads.append(threading.Thread(target=lambda: waited.append(run(main()) is None)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waited == [True] * 6


@pytest.mark.guarantee("A2")
async def test_awaiting_done_can_be_cancelled_without_the_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = asyncio.Event()

    async def handler() -> str:
        await go.wait()
        return "done"

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(emission.done(), 0.01)
    assert emission.pending == 1
    go.set()
    assert values(await awaited(emission)) == ["done"]


@pytest.mark.guarantee("A2")
@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), True, "1"])
def test_a_time_to_wait_that_is_none_is_refused(
    signal: EventSignal[Any], dispatcher: EventDispatcher, timeout: Any
) -> None:
    emission = dispatcher.emit(signal)
    with pytest.raises(InvalidOptionError):
        emission.wait(timeout)


@pytest.mark.guarantee("B1")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_a_handler_that_nobody_awaits_is_its_failure(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    async def exiting() -> None:
        raise error

    async def exiting_later() -> None:
        await asyncio.sleep(0)
        raise error

    def plain() -> None:
        raise error

    signal.subscribe(exiting)
    signal.subscribe(exiting_later)
    signal.subscribe(plain, background=True)
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert errors(emission) == [error] * 3
    assert len(logged(caplog)) == 3
    signal.subscribe(plainly)
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert values(emission) == ["function"], "the threads have survived it"


@pytest.mark.guarantee("A1")
@pytest.mark.parametrize("awaits", [False, True])
def test_two_loops_share_a_dispatcher_and_each_runs_its_own_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher, awaits: bool
) -> None:
    meeting = threading.Barrier(2)
    loops: list[Any] = []
    problems: list[str] = []

    async def handler(sender: Any, **context: Any) -> Any:
        before = (asyncio.get_running_loop(), threading.get_ident())
        await asyncio.sleep(0)
        assert before == (asyncio.get_running_loop(), threading.get_ident())
        return before

    async def main() -> None:
        here = (asyncio.get_running_loop(), threading.get_ident())
        loops.append(here)
        asyncio.get_running_loop().set_exception_handler(
            lambda _, problem: problems.append(problem["message"])
        )
        await asyncio.to_thread(meeting.wait, 10)
        for _ in range(100):
            if awaits:
                emission = await dispatcher.emit_async(signal)
            else:
                emission = await awaited(dispatcher.emit(signal))
            assert values(emission) == [here, here]
        await asyncio.to_thread(meeting.wait, 10)

    signal.subscribe(handler)
    signal.subscribe(functools.partial(handler))
    failed: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            meeting.abort()
            failed.append(error)

    threads = [threading.Thread(target=target) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert problems == []
    assert len({id(loop) for loop, _ in loops}) == 2


# Waiting that could never end


@pytest.mark.guarantee("A3")
async def test_a_loop_does_not_wait_for_its_own_tasks(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(plainly)
    emission = dispatcher.emit(signal)
    for timeout in (5, None):
        with pytest.raises(WouldDeadlockError):
            emission.wait(timeout)
    assert emission.wait(timeout=0) is False
    await awaited(emission)
    assert emission.wait()


@pytest.mark.guarantee("A3")
async def test_a_loop_may_wait_for_what_runs_elsewhere(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def awaiting() -> str:
        await asyncio.sleep(0.01)
        return "async"

    signal.subscribe(lambda: "plain", background=True)
    signal.subscribe(awaiting, background=True)
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert values(emission) == ["plain", "async"]


@pytest.mark.guarantee("A3")
async def test_another_thread_may_wait_for_the_tasks_of_a_loop(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.02)
        return "done"

    signal.subscribe(handler)
    emission = dispatcher.emit(signal)
    assert await asyncio.to_thread(emission.wait, 10)
    assert values(emission) == ["done"]


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("mode", ["emit", "emit in a loop", "emit_async"])
def test_an_inline_handler_does_not_wait_for_its_own_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher, mode: str
) -> None:
    async def done(emission: Emission[Any]) -> None:
        await emission.done()

    def waiting(emission: Emission[Any]) -> None:
        emission.wait(timeout=5)

    def driving(emission: Emission[Any]) -> None:
        with suppress(StopIteration):
            done(emission).send(None)

    def in_a_thread_of_its_context(emission: Emission[Any]) -> None:
        on_a_thread(functools.partial(contextvars.copy_context().run, emission.wait, 5))

    async def main() -> Emission[Any]:
        return await dispatcher.emit_async(signal) if mode == "emit_async" else emit()

    def emit() -> Emission[Any]:
        return dispatcher.emit(signal)

    for handler in (waiting, driving, in_a_thread_of_its_context):
        signal.subscribe(handler)
    started = time.monotonic()
    emission = emit() if mode == "emit" else run(main())
    assert errors(emission) == [WouldDeadlockError] * 3
    assert time.monotonic() - started < 4


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("background", [False, True])
def test_an_async_handler_does_not_wait_for_its_own_emission(
    signal: EventSignal[Any], emits: Emits, background: bool
) -> None:
    async def waiting(emission: Emission[Any]) -> None:
        emission.wait(timeout=5)

    async def awaiting(emission: Emission[Any]) -> None:
        async with asyncio.timeout(5):
            await emission.done()

    async def later(emission: Emission[Any]) -> None:
        await asyncio.sleep(0)
        await asyncio.wait_for(emission.done(), 5)

    async def elsewhere(emission: Emission[Any]) -> None:
        await asyncio.to_thread(emission.wait, 5)

    for handler in (waiting, awaiting, later, elsewhere):
        signal.subscribe(handler, background=background)
    started = time.monotonic()
    emission = emits(signal)
    assert errors(emission) == [WouldDeadlockError] * 4
    assert time.monotonic() - started < 4


@pytest.mark.guarantee("A3")
def test_a_background_handler_does_not_wait_for_its_own_emission(
    signal: EventSignal[Any], emits: Emits
) -> None:
    def waiting(emission: Emission[Any]) -> None:
        emission.wait(timeout=5)

    def through_current_event() -> None:
        emission = current_event()
        assert emission is not None
        emission.wait(timeout=5)

    signal.subscribe(waiting, background=True)
    signal.subscribe(through_current_event, background=True)
    assert errors(emits(signal)) == [WouldDeadlockError] * 2


@pytest.mark.guarantee("A3")
def test_a_typed_view_of_an_emission_does_not_hide_it(
    login: EventSignal[Any], emits: Emits
) -> None:
    async def awaiting(emission: Emission[LoginEventContext]) -> None:
        async with asyncio.timeout(5):
            await emission.done()

    def inline(emission: Emission[LoginEventContext]) -> None:
        emission.wait(timeout=5)

    login.subscribe(inline)
    login.subscribe(awaiting)
    assert errors(emits(login, **KEYWORDS)) == [WouldDeadlockError] * 2


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("awaits", [False, True])
def test_a_nested_handler_does_not_wait_for_the_emission_that_waits_for_it(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, awaits: bool
) -> None:
    found: list[Any] = []

    async def inner(emission: Emission[Any]) -> None:
        assert emission.parent is not None
        async with asyncio.timeout(5):
            await emission.parent.done()

    def plain_inner(emission: Emission[Any]) -> None:
        assert emission.parent is not None
        emission.parent.wait(timeout=5)

    async def outer() -> None:
        found.append(await dispatcher.emit_async("inner_thing"))

    def plain_outer() -> None:
        found.append(dispatcher.emit("inner_thing"))

    signals.signal("inner_thing").subscribe(inner if awaits else plain_inner)
    signal.subscribe(outer if awaits else plain_outer)
    run(dispatcher.emit_async(signal))
    assert errors(found[0]) == [WouldDeadlockError]


@pytest.mark.guarantee("A3")
async def test_a_held_task_may_wait_for_the_emission_that_led_to_it(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """For nobody there waits for it."""
    found: list[Emission[Any]] = []

    async def later(emission: Emission[Any]) -> list[Any]:
        return values(await awaited(found[0]))

    async def outer(emission: Emission[Any]) -> str:
        found.append(emission)
        found.append(dispatcher.emit("other_thing"))
        await asyncio.sleep(0.005)
        return "outer"

    signals.signal("other_thing").subscribe(later)
    signal.subscribe(outer)
    await dispatcher.emit_async(signal)
    await awaited(found[1])
    assert values(found[1]) == [["outer"]]


@pytest.mark.guarantee("A3")
def test_a_worker_does_not_wait_for_what_needs_a_worker(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    other = signals.signal("other_thing")

    def waiting() -> None:
        dispatcher.emit(other).wait(timeout=5)

    signal.subscribe(waiting, background=True)
    other.subscribe(lambda: "other", background=True)
    with EventDispatcher(signals, max_workers=1) as dispatcher:
        started = time.monotonic()
        emission = dispatcher.emit(signal)
        assert emission.wait(timeout=10)
        assert errors(emission) == [WouldDeadlockError]
        assert time.monotonic() - started < 4
        assert dispatcher.drain(timeout=10)


@pytest.mark.guarantee("A3")
def test_a_worker_may_wait_for_what_needs_none(
    signals: SignalRegistry, signal: EventSignal[Any]
) -> None:
    def waiting() -> tuple[bool, bool]:
        here, there = dispatcher.emit("other_thing"), elsewhere.emit("third_thing")
        return here.wait(timeout=10), there.wait(timeout=10)

    signal.subscribe(waiting, background=True)
    signals.signal("other_thing").subscribe(plainly, background=True)
    signals.signal("third_thing").subscribe(lambda: "third", background=True)
    with (
        EventDispatcher(signals, max_workers=1) as dispatcher,
        EventDispatcher(signals) as elsewhere,
    ):
        emission = dispatcher.emit(signal)
        assert emission.wait(timeout=20)
    assert values(emission) == [(True, True)]


@pytest.mark.guarantee("A3")
@pytest.mark.parametrize("background", [False, True])
def test_the_background_loop_does_not_wait_for_its_own_tasks(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, background: bool
) -> None:
    async def waiting() -> None:
        dispatcher.emit("other_thing").wait(timeout=5)

    signal.subscribe(waiting)
    signals.signal("other_thing").subscribe(plainly, background=background)
    started = time.monotonic()
    emission = dispatcher.emit(signal)
    assert emission.wait(timeout=10)
    assert errors(emission) == [WouldDeadlockError]
    assert time.monotonic() - started < 4
    assert dispatcher.drain(timeout=10)


@pytest.mark.guarantee("A3")
def test_nobody_waits_for_the_tasks_of_a_loop_that_stands_still(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    async def handler() -> str:
        await asyncio.sleep(0)
        return "done"

    async def main() -> Emission[Any]:
        return dispatcher.emit(signal)

    signal.subscribe(handler)
    loop = asyncio.new_event_loop()
    try:
        emission = loop.run_until_complete(main())
        assert emission.pending == 1
        started = time.monotonic()
        with pytest.raises(WouldDeadlockError):
            emission.wait(timeout=5)
        with pytest.raises(WouldDeadlockError):
            dispatcher.drain(timeout=5)
        assert time.monotonic() - started < 4
        loop.run_until_complete(awaited(emission))
        assert values(emission) == ["done"]
        assert emission.wait()
    finally:
        loop.close()


@pytest.mark.guarantee("A3")
def test_tasks_whose_loop_was_closed_have_failed(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[str] = []

    async def handler() -> None:
        started.append("begun")
        await asyncio.sleep(60)

    async def main() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        await asyncio.sleep(0)
        return emission

    signal.subscribe(handler)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio's own word on the task
    emission = loop.run_until_complete(main())
    loop.close()
    assert started == ["begun"]
    assert emission.wait(timeout=5)
    (failure,) = emission.failures
    assert failure.handler is handler
    assert len(logged(caplog)) == 1
    assert dispatcher.drain(timeout=5)
    del loop
    gc.collect()


@pytest.mark.guarantee("A3")
def test_who_waits_in_a_thread_learns_that_the_loop_was_closed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    go = threading.Event()

    async def handler() -> None:
        await asyncio.sleep(60)

    def wait() -> None:
        go.set()
        waited.append(held[0].wait(timeout=10))

    async def emit() -> None:
        held.append(dispatcher.emit(signal))
        thread.start()
        await asyncio.to_thread(go.wait, 10)
        await asyncio.sleep(0.02)

    held: list[Emission[Any]] = []
    waited: list[bool] = []
    thread = threading.Thread(target=wait)
    signal.subscribe(handler)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio's own word on the task
    loop.run_until_complete(emit())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    thread.join()
    assert waited == [True]
    assert len(held[0].failures) == 1


# Logs


@pytest.mark.guarantee("G1")
def test_calls_of_async_handlers_are_logged_like_others(
    signal: EventSignal[Any], emits: Emits, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.02)

    def inline() -> None: ...

    async def behind() -> None: ...

    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    signal.subscribe(slow)
    signal.subscribe(fail)
    signal.subscribe(inline)
    signal.subscribe(behind, background=True)
    signal.subscribe(inline_background := functools.partial(inline), background=True)
    caplog.clear()
    emission = emits(signal)
    assert emits.dispatcher.drain(timeout=10)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG]
    assert lines[0] == "thing_happened emitted by EventSignal to 5 handlers"
    calls = [
        re.fullmatch(r"handler (\S+) of thing_happened (\w+) after (\d+\.\d{3}) ms", line)
        for line in lines[1:]
    ]
    assert all(calls), lines
    found = sorted((match[1].rpartition(".")[2], match[2]) for match in calls if match)
    assert found == [
        ("behind", "returned"),
        ("fail", "raised"),
        ("inline", "returned"),
        ("inline", "returned"),
        ("slow", "returned"),
    ]
    took = {match[1].rpartition(".")[2]: float(match[3]) for match in calls if match}
    assert took["slow"] >= 15
    assert [result.handler for result in emission.results] == [
        inline,
        slow,
        behind,
        inline_background,
    ]


@pytest.mark.guarantee("G1")
def test_an_async_handler_that_is_skipped_is_logged_as_skipped(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    signal.subscribe(plainly, when=lambda context: False)
    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    assert run(dispatcher.emit_async(signal)).results == ()
    assert re.search(r"plainly of thing_happened skipped\b", caplog.text)


@pytest.mark.guarantee("G1")
def test_a_pending_emission_shows_no_value(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    async def slow(password: str) -> str:
        await asyncio.sleep(60)
        return password

    async def main() -> None:
        emission = dispatcher.emit(signal, password="canary")
        assert repr(emission) == "<Emission thing_happened, results: 0, failures: 0, pending: 1>"
        await awaited(emission)
        assert "canary" not in repr(emission.failures)
        assert "canary" not in str(emission.failures[0].exception)

    caplog.set_level(logging.DEBUG, logger="madcrow_events")
    signal.subscribe(slow, timeout=0.01)
    run(main())
    assert "canary" not in caplog.text


@pytest.mark.guarantee("A1", "H5")
async def test_a_handler_of_a_model_that_suspends_is_awaited_after_a_loose_emission(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    async def handle(context: LoginEventContext) -> str:
        await asyncio.sleep(0)
        return context.email

    signals.signal("user_came", context=LoginEventContext).subscribe(handle)
    emission = await dispatcher.emit_async("user_came", **KEYWORDS)
    assert [result.value for result in emission.results] == ["a@b.c"]
