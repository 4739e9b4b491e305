"""Observers around what dispatchers do: their order, their place, their failures (B6)."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EmissionDepthError,
    EventDispatcher,
    EventSignal,
    HandlerErrors,
    HandlerTimeoutError,
    InvalidOptionError,
    QueueFullError,
    SignalRegistry,
    TimingObserver,
    current_event,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    set_event_dispatcher,
)

pytestmark = pytest.mark.guarantee("B6")

LIMIT = 20  # seconds after which a test gives up; nothing takes near as long


def name_of(handler: Any) -> str:
    return handler.__name__


def noted(error: BaseException | None) -> str:
    return "" if error is None else f" {type(error).__name__}"


class Notes:
    """An observer that writes down what it sees, in a list that it may share with others."""

    def __init__(self, story: list[str], prefix: str = "") -> None:
        self.story = story
        self.prefix = prefix
        self.threads: dict[str, str] = {}
        self.current: list[tuple[str, Emission[Any] | None]] = []
        self.emissions: list[Emission[Any]] = []
        self.told: list[BaseException | None] = []
        self._open: list[None] = []

    @property
    def open(self) -> int:
        """How many have been entered, and not left."""
        return len(self._open)

    @contextmanager
    def _around(self, what: str) -> Iterator[None]:
        self._open.append(None)
        self.story.append(f"{self.prefix}> {what}")
        error: BaseException | None = None
        try:
            yield
        except BaseException as caught:
            error = caught
            raise
        finally:
            self._open.pop()
            self.told.append(error)
            self.story.append(f"{self.prefix}< {what}{noted(error)}")

    def emission(self, emission: Emission[Any]) -> AbstractContextManager[None]:
        self.current.append((emission.event, current_event()))
        self.emissions.append(emission)
        return self._around(emission.event)

    def handling(self, emission: Emission[Any], handler: Any) -> AbstractContextManager[None]:
        self.current.append((name_of(handler), current_event()))
        self.threads[name_of(handler)] = threading.current_thread().name
        return self._around(name_of(handler))


@pytest.fixture
def story() -> list[str]:
    return []


@pytest.fixture
def notes(dispatcher: EventDispatcher, story: list[str]) -> Notes:
    notes = Notes(story)
    dispatcher.add_observer(notes)
    return notes


def emit(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    return dispatcher.emit("thing_happened", **context)


def emit_async(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    return asyncio.run(dispatcher.emit_async("thing_happened", **context))


def emit_in_a_loop(dispatcher: EventDispatcher, **context: Any) -> Emission[Any]:
    async def main() -> Emission[Any]:
        emission = dispatcher.emit("thing_happened", **context)
        await dispatcher.drain_async(LIMIT)
        return emission

    return asyncio.run(main())


# Where what a handler raises has an emitter to go through to.
called_or_awaited = pytest.mark.parametrize(
    ("emitting", "is_async"), [(emit, False), (emit_async, False), (emit_async, True)]
)
each_way = pytest.mark.parametrize("emitting", [emit, emit_async, emit_in_a_loop])


# Where they stand


def test_several_are_nested_in_the_order_in_which_they_were_added(
    signal: EventSignal[Any], dispatcher: EventDispatcher, story: list[str]
) -> None:
    """The first is the outermost, around emissions and around handlers."""
    for prefix in "abc":
        dispatcher.add_observer(Notes(story, prefix))

    @signal.on()
    def handler() -> None:
        story.append("called")

    emit(dispatcher)
    assert story == [
        *("a> thing_happened", "b> thing_happened", "c> thing_happened"),
        *("a> handler", "b> handler", "c> handler"),
        "called",
        *("c< handler", "b< handler", "a< handler"),
        *("c< thing_happened", "b< thing_happened", "a< thing_happened"),
    ]


@each_way
def test_an_emission_without_handlers_is_observed(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, emitting: Any
) -> None:
    """It is what was emitted that counts."""
    emission = emitting(dispatcher)
    assert notes.story == ["> thing_happened", "< thing_happened"]
    assert notes.emissions == [emission]


def test_inline_and_awaited_handlers_are_handled_within_the_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """By `emit_async`; those that suspend are handled side by side."""

    @signal.on()
    def inline() -> None: ...

    @signal.on()
    async def first() -> None:
        await asyncio.sleep(0)

    @signal.on(timeout=LIMIT)
    async def second() -> None: ...

    emission = emit_async(dispatcher)
    assert emission.ok
    assert notes.story[:3] == ["> thing_happened", "> inline", "< inline"]
    assert set(notes.story[3:-1]) == {"> first", "< first", "> second", "< second"}
    assert notes.story[-1] == "< thing_happened"
    assert set(notes.current) == {
        ("thing_happened", None),
        ("inline", emission),
        ("first", emission),
        ("second", emission),
    }
    assert set(notes.threads.values()) == {"MainThread"}


def test_awaited_handlers_that_finish_at_once_are_handled_one_after_the_other(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """Each of them in whole."""

    @signal.on()
    async def first() -> None: ...

    @signal.on()
    async def second() -> None: ...

    emit_async(dispatcher)
    assert notes.story == [
        *("> thing_happened", "> first", "< first", "> second", "< second", "< thing_happened"),
    ]


def test_what_runs_later_is_handled_where_it_runs(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """In a worker, or on the background loop, and after the emission has been left."""
    returned = threading.Event()

    @signal.on(background=True)
    def in_thread() -> None:
        assert returned.wait(LIMIT)

    @signal.on()
    async def in_loop() -> None:
        await asyncio.to_thread(returned.wait, LIMIT)

    @signal.on(background=True)
    async def in_background_loop() -> None:
        await asyncio.to_thread(returned.wait, LIMIT)

    emission = emit(dispatcher)
    assert "< thing_happened" in notes.story
    assert not any(line.startswith("< in") for line in notes.story)
    returned.set()
    assert dispatcher.drain(LIMIT)
    assert sorted(notes.story) == sorted(
        f"{mark} {what}"
        for mark in "<>"
        for what in ("thing_happened", "in_thread", "in_loop", "in_background_loop")
    )
    assert "worker" in notes.threads["in_thread"]
    assert "loop" in notes.threads["in_loop"]
    assert "loop" in notes.threads["in_background_loop"]
    assert dict(notes.current)["in_thread"] is emission


async def test_async_handlers_that_emit_starts_are_handled_in_their_tasks(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """In the running loop, when `emit` has returned."""

    @signal.on()
    async def handler() -> None:
        await asyncio.sleep(0)

    emission = dispatcher.emit(signal)
    assert notes.story == ["> thing_happened", "< thing_happened"]
    await emission.done()
    assert notes.story[2:] == ["> handler", "< handler"]
    assert notes.threads["handler"] == "MainThread"


@each_way
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_a_handler_that_is_not_called_is_not_handled(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    background: bool,
    is_async: bool,
) -> None:
    """Because of its `when`, or of its `once`."""

    def plain_handler() -> None: ...

    async def async_handler() -> None: ...

    signal.subscribe(
        async_handler if is_async else plain_handler,
        when=lambda context: context["number"] > 1,
        once=True,
        background=background,
    )
    for number in range(4):
        emission = emitting(dispatcher, number=number)
        assert dispatcher.drain(LIMIT)
        assert len(emission.results) == (number == 2)
    handled = [line for line in notes.story if "handler" in line]
    name = "async_handler" if is_async else "plain_handler"
    assert handled == [f"> {name}", f"< {name}"]
    assert notes.story.count("< thing_happened") == 4


@each_way
def test_a_predicate_that_raises_fails_outside_of_any_handling(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, emitting: Any
) -> None:
    """For the handler was never called."""

    def handler() -> None: ...

    async def async_handler() -> None: ...

    signal.subscribe(handler, when=lambda context: context["missing"])
    signal.subscribe(async_handler, when=lambda context: context["missing"])
    emission = emitting(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert len(emission.failures) == 2
    assert notes.story == ["> thing_happened", "< thing_happened"]


def test_a_weakly_held_handler_is_handled_as_it_is(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """The observer gets the method, and results name it."""

    class Owner:
        def handler(self) -> str:
            return "called"

    owner = Owner()
    signal.subscribe(owner.handler)
    emission = emit(dispatcher)
    assert notes.story[1:3] == ["> handler", "< handler"]
    assert emission.results[0] == (owner.handler, "called")
    del owner, emission
    notes.emissions.clear()
    notes.current.clear()
    assert emit(dispatcher).results == ()


def test_results_are_the_same_as_without_observers(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Whatever the handlers take, return and raise."""

    def by_keywords(sender: Any, **context: Any) -> Any:
        return (sender, context)

    def by_name(number: int) -> int:
        return number

    def by_emission(emission: Emission[Any]) -> str:
        return emission.event

    def failing() -> None:
        raise ValueError

    async def awaited(number: int) -> int:
        return -number

    for handler in (by_keywords, failing, by_name, by_emission, awaited):
        signal.subscribe(handler)
    signal.subscribe(lambda: "skipped", when=lambda context: False)
    bare = emit_async(dispatcher, number=1)
    dispatcher.add_observer(Notes([]))
    watched = emit_async(dispatcher, number=1)
    assert watched.results == bare.results
    assert [it.handler for it in watched.failures] == [it.handler for it in bare.failures]


async def test_signal_send_is_not_observed(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """It goes through no dispatcher; what its handlers emit through one is."""
    signals.signal("inner_thing")

    def handler(sender: Any, **context: Any) -> None:
        dispatcher.emit("inner_thing")

    async def async_handler(sender: Any, **context: Any) -> None:
        dispatcher.emit("inner_thing")

    with signal.subscribe(handler):
        signal.send()
    with signal.subscribe(async_handler, timeout=LIMIT):
        await signal.send_async()
    assert notes.story == ["> inner_thing", "< inner_thing"] * 2


def test_what_handlers_emit_is_observed_within(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """The outer emission is the current one as the inner begins."""
    signals.signal("inner_thing")

    @signal.on()
    def handler() -> None:
        dispatcher.emit("inner_thing")

    outer = emit(dispatcher)
    assert notes.story == [
        *("> thing_happened", "> handler", "> inner_thing"),
        *("< inner_thing", "< handler", "< thing_happened"),
    ]
    assert notes.current[-1] == ("inner_thing", outer)


def test_a_batch_is_one_call_with_its_last_emission(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """For plain and async handlers; what it raises reaches the observer."""
    story: list[str] = []
    seen: list[Emission[Any]] = []

    class Observer(Notes):
        def handling(self, emission: Emission[Any], handler: Any) -> Any:
            seen.append(emission)
            return super().handling(emission, handler)

    dispatcher.add_observer(Observer(story))

    def plain(contexts: list[Any]) -> None:
        raise ValueError

    async def async_(contexts: list[Any]) -> None:
        raise KeyError

    signal.subscribe(plain, batch=Batch(3, LIMIT))
    signal.subscribe(async_, batch=Batch(3, LIMIT))
    emissions = [emit(dispatcher, number=number) for number in range(3)]
    assert dispatcher.drain(LIMIT)
    handled = [line for line in story if line[2:] != "thing_happened"]
    assert sorted(handled) == ["< async_ KeyError", "< plain ValueError", "> async_", "> plain"]
    assert seen == [emissions[-1]] * 2


def test_held_back_emissions_are_observed_when_they_go_out(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """Those that are dropped are not."""

    @signal.on()
    def handler() -> None: ...

    once = ["> thing_happened", "> handler", "< handler", "< thing_happened"]
    with dispatcher.deferred() as deferral:
        emit(dispatcher)
        deferral.discard()
        emit(dispatcher)
        emit(dispatcher)
        assert notes.story == []
    assert notes.story == once * 2
    with pytest.raises(ValueError), dispatcher.deferred():
        emit(dispatcher)
        raise ValueError
    assert notes.story == once * 2


async def test_emissions_held_back_by_emit_async_are_observed_until_they_have_been_awaited(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """As they would have been at once."""

    @signal.on()
    async def handler() -> None:
        await asyncio.sleep(0)

    async with dispatcher.deferred():
        await dispatcher.emit_async(signal)
        assert notes.story == []
    assert notes.story == ["> thing_happened", "> handler", "< handler", "< thing_happened"]


def test_what_an_observer_puts_into_context_variables_reaches_the_handlers(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Inline, in tasks and in the background, as tracing needs; and is taken back in the end."""
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="none")
    seen: dict[str, str] = {}
    parents: dict[str, str] = {}

    class Tracing:
        @contextmanager
        def _span(self, name: str) -> Iterator[None]:
            parents[name] = span.get()
            token = span.set(name)
            try:
                yield
            finally:
                span.reset(token)

        def emission(self, emission: Emission[Any]) -> AbstractContextManager[None]:
            return self._span(emission.event)

        def handling(self, emission: Emission[Any], handler: Any) -> AbstractContextManager[None]:
            return self._span(name_of(handler))

    @signal.on()
    def inline() -> None:
        seen["inline"] = span.get()

    @signal.on()
    async def awaited() -> None:
        await asyncio.sleep(0)
        seen["awaited"] = span.get()

    @signal.on(background=True)
    def in_thread() -> None:
        seen["in_thread"] = span.get()

    @signal.on(background=True)
    async def in_loop() -> None:
        await asyncio.sleep(0)
        seen["in_loop"] = span.get()

    async def main() -> None:
        await dispatcher.emit_async(signal)
        assert span.get() == "none"
        await dispatcher.drain_async(LIMIT)

    dispatcher.add_observer(Tracing())
    for emitting in (lambda: asyncio.run(main()), lambda: emit(dispatcher)):
        seen.clear()
        parents.clear()
        emitting()
        assert dispatcher.drain(LIMIT)
        names = {"inline", "awaited", "in_thread", "in_loop"}
        assert seen == {name: name for name in names}
        assert parents == {**dict.fromkeys(names, "thing_happened"), "thing_happened": "none"}
        assert span.get() == "none"


# What they are told


@each_way
@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_what_a_handler_raises_reaches_exit(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    background: bool,
    is_async: bool,
) -> None:
    """The exception itself; the emission ends without one."""
    error = ValueError("no")

    def plain_handler() -> None:
        raise error

    async def async_handler() -> None:
        raise error

    handler = async_handler if is_async else plain_handler
    signal.subscribe(handler, background=background)
    emission = emitting(dispatcher)
    assert dispatcher.drain(LIMIT)
    assert emission.failures == ((handler, error),)
    assert f"< {name_of(handler)} ValueError" in notes.story
    assert "< thing_happened" in notes.story
    assert sorted(map(str, notes.told)) == ["None", "no"]


def test_a_timeout_reaches_exit(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """As the error that the emission notes."""

    @signal.on(timeout=0.01)
    async def handler() -> None:
        await asyncio.Event().wait()

    emission = emit_async(dispatcher)
    assert type(emission.failures[0].exception) is HandlerTimeoutError
    assert "< handler HandlerTimeoutError" in notes.story


async def test_the_emitters_cancellation_reaches_exit_of_both(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """The handler's first; nothing is left entered."""
    started = asyncio.Event()

    @signal.on()
    async def handler() -> None:
        started.set()
        await asyncio.Event().wait()

    emitting = asyncio.ensure_future(dispatcher.emit_async(signal))
    await started.wait()
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting
    assert notes.story == [
        *("> thing_happened", "> handler", "< handler CancelledError"),
        "< thing_happened CancelledError",
    ]
    assert notes.open == 0


async def test_a_cancellation_that_waits_for_a_place_reaches_exit(
    signals: SignalRegistry, signal: EventSignal[Any], story: list[str]
) -> None:
    """An emitter that waits for a place in the queue has begun its emission."""
    go, busy = threading.Event(), threading.Semaphore(0)
    entered = asyncio.Event()

    class Observer(Notes):
        def emission(self, emission: Emission[Any]) -> AbstractContextManager[None]:
            if len(self.emissions) == 2:
                entered.set()
            return super().emission(emission)

    @signal.on(background=True)
    def hold() -> None:
        busy.release()
        assert go.wait(LIMIT)

    dispatcher = EventDispatcher(signals, queue_size=1, max_workers=1)
    observer = Observer(story)
    dispatcher.add_observer(observer)
    dispatcher.emit(signal)
    assert busy.acquire(timeout=LIMIT)
    await dispatcher.emit_async(signal)
    waiting = asyncio.ensure_future(dispatcher.emit_async(signal))
    await asyncio.wait_for(entered.wait(), LIMIT)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert story[-1] == "< thing_happened CancelledError"
    go.set()
    await asyncio.to_thread(dispatcher.close, LIMIT)
    assert observer.open == 0


@called_or_awaited
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_exit_of_a_handler_reaches_both(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    is_async: bool,
    error: type[BaseException],
) -> None:
    """And goes through to the emitter, if the emitter calls or awaits the handler."""

    def plain_handler() -> None:
        raise error

    async def async_handler() -> None:
        await asyncio.sleep(0)
        raise error

    signal.subscribe(async_handler if is_async else plain_handler)
    with pytest.raises(error):
        emitting(dispatcher)
    kind = error.__name__
    name = "async_handler" if is_async else "plain_handler"
    assert notes.story == [
        *("> thing_happened", f"> {name}", f"< {name} {kind}", f"< thing_happened {kind}"),
    ]
    assert emitting(EventDispatcher(SignalRegistry(strict=False))).ok


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
def test_an_endless_recursion_leaves_every_observer(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, is_async: bool
) -> None:
    """The emissions below the outermost are left with the error, that one without."""

    def plain_handler() -> None:
        dispatcher.emit(signal)

    async def async_handler() -> None:
        await dispatcher.emit_async(signal)

    signal.subscribe(async_handler if is_async else plain_handler)
    emission = (emit_async if is_async else emit)(dispatcher)
    assert [type(failure.exception) for failure in emission.failures] == [EmissionDepthError]
    assert notes.open == 0
    ends = [line for line in notes.story if line.startswith("< thing")]
    assert ends == ["< thing_happened EmissionDepthError"] * 63 + ["< thing_happened"]


def test_a_full_queue_leaves_none_entered(
    signals: SignalRegistry, signal: EventSignal[Any], story: list[str]
) -> None:
    """Nothing was emitted, and so nothing is observed."""
    go, busy = threading.Event(), threading.Semaphore(0)

    @signal.on(background=True)
    def hold() -> None:
        busy.release()
        assert go.wait(LIMIT)

    with EventDispatcher(signals, queue_size=1, max_workers=1, overflow="raise") as dispatcher:
        emit(dispatcher)
        assert busy.acquire(timeout=LIMIT)
        emit(dispatcher)
        notes = Notes(story)
        dispatcher.add_observer(notes)
        for emitting in (emit, emit_async):
            with pytest.raises(QueueFullError):
                emitting(dispatcher)
        assert story == []
        go.set()
    assert notes.emissions == []


@pytest.mark.parametrize("emitting", [emit, emit_async])
@pytest.mark.parametrize("number", [1, 2])
def test_an_emission_is_left_before_its_failures_are_raised(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
    number: int,
) -> None:
    """With `on_error="raise"`; it has ended well itself."""

    @signal.on()
    def first() -> None:
        raise ValueError

    if number == 2:

        @signal.on()
        def second() -> None:
            raise KeyError

    with pytest.raises(ValueError if number == 1 else HandlerErrors):
        emitting(dispatcher.with_options(on_error="raise"))
    assert notes.story[-1] == "< thing_happened"
    assert notes.open == 0


@pytest.mark.parametrize("emitting", [emit, emit_async])
def test_announcements_of_failures_are_observed_within_what_failed(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    emitting: Any,
) -> None:
    """They are emissions like others."""

    @signals.signal("handler_failed").on()
    def hear() -> None: ...

    @signal.on()
    def handler() -> None:
        raise ValueError

    emitting(dispatcher)
    assert notes.story == [
        *("> thing_happened", "> handler", "< handler ValueError"),
        *("> handler_failed", "> hear", "< hear", "< handler_failed"),
        "< thing_happened",
    ]


# Observers that fail


class Raised(Exception):
    """What an observer raises."""


class Leaving:
    """A context manager that does as it is told when it is left."""

    def __init__(self, leave: Callable[[BaseException | None], Any]) -> None:
        self.leave = leave

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> Any:
        return self.leave(error)


def raising(*_: Any) -> Any:
    raise Raised("canary")


class Entering(Leaving):
    def __enter__(self) -> None:
        raise Raised("canary")


@contextmanager
def before_yield() -> Iterator[None]:
    raise Raised("canary")
    yield


@contextmanager
def after_yield() -> Iterator[None]:
    try:
        yield
    finally:
        raise Raised("canary")


@contextmanager
def without_yield() -> Iterator[None]:
    return
    yield


@contextmanager
def two_yields() -> Iterator[None]:
    try:
        yield
    except ValueError:
        pass
    yield


@contextmanager
def swallowing() -> Iterator[None]:
    with suppress(BaseException):
        yield


@contextmanager
def replacing() -> Iterator[None]:
    try:
        yield
    except BaseException:
        raise Raised("canary") from None


def again(error: BaseException | None) -> None:
    if error is not None:
        raise error


class AsyncManager:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


class Half:
    def __enter__(self) -> None: ...


# What an observer's method does, what is logged of it where nothing and where something is raised.
FAULTS: dict[str, tuple[Callable[[], Any], str | None, str | None]] = {
    "raises": (raising, "Raised", "Raised"),
    "raises a cancellation": (
        lambda: again(asyncio.CancelledError()),
        "CancelledError",
        "CancelledError",
    ),
    "raises on entry": (lambda: Entering(raising), "Raised", "Raised"),
    "raises before yield": (before_yield, "Raised", "Raised"),
    "raises on exit": (lambda: Leaving(raising), "Raised", "Raised"),
    "raises after yield": (after_yield, "Raised", "Raised"),
    "raises a cancellation on exit": (
        lambda: Leaving(lambda error: again(asyncio.CancelledError())),
        "CancelledError",
        "CancelledError",
    ),
    "does not yield": (without_yield, "RuntimeError", "RuntimeError"),
    "yields twice": (two_yields, "RuntimeError", "RuntimeError"),
    "returns None": (lambda: None, "AttributeError", "AttributeError"),
    "returns a number": (lambda: 1, "AttributeError", "AttributeError"),
    "returns a class": (lambda: nullcontext, "TypeError", "TypeError"),
    "returns an async manager": (AsyncManager, "AttributeError", "AttributeError"),
    "returns half a manager": (Half, "AttributeError", "AttributeError"),
    "swallows": (lambda: Leaving(lambda error: True), None, None),
    "swallows after yield": (swallowing, None, None),
    "raises the same again": (lambda: Leaving(again), None, None),
    "raises another": (replacing, None, "Raised"),
}

each_fault = pytest.mark.parametrize("fault", FAULTS)


class Faulty:
    """An observer with a fault, around emissions or around handlers."""

    def __init__(self, fault: str, *, method: str) -> None:
        self.fault = FAULTS[fault][0]
        self.method = method

    def emission(self, emission: Emission[Any]) -> Any:
        return self.fault() if self.method == "emission" else nullcontext()

    def handling(self, emission: Emission[Any], handler: Any) -> Any:
        return self.fault() if self.method == "handling" else nullcontext()


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@each_fault
@each_way
@pytest.mark.parametrize("fails", [False, True], ids=["well", "failing"])
@pytest.mark.parametrize("method", ["emission", "handling"])
def test_a_faulty_observer_disturbs_nothing_and_hides_nothing(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    emitting: Any,
    fails: bool,
    method: str,
) -> None:
    """It is logged, by its type's name, once each time; the observers around it see all."""
    story: list[str] = []
    error = ValueError("no")

    def call() -> str:
        story.append("called")
        if fails:
            raise error
        return "done"

    def inline() -> str:
        return call()

    async def awaited() -> str:
        return call()

    def in_thread() -> str:
        return call()

    async def in_loop() -> str:
        await asyncio.sleep(0)
        return call()

    handlers = (inline, awaited, in_thread, in_loop)
    for handler in handlers:
        signal.subscribe(handler, background=handler.__name__.startswith("in_"))
    around = [Notes([], "a"), Notes([], "b")]
    dispatcher.add_observer(around[0])
    dispatcher.add_observer(Faulty(fault, method=method))
    dispatcher.add_observer(around[1])
    emission = emitting(dispatcher, password="canary")
    assert dispatcher.drain(LIMIT)
    assert story == ["called"] * 4
    if fails:
        assert {failure.handler for failure in emission.failures} == set(handlers)
        assert {failure.exception for failure in emission.failures} == {error}
    else:
        assert {result.handler for result in emission.results} == set(handlers)
        assert {result.value for result in emission.results} == {"done"}
    for notes in around:
        assert notes.open == 0
        assert len(notes.told) == 5
        assert sum(told is error for told in notes.told) == (4 if fails else 0)
    _, logged_well, logged_failing = FAULTS[fault]
    logged = logged_failing if fails and method == "handling" else logged_well
    lines = [line for line in errors_in(caplog) if line.startswith("observer")]
    expected = f"observer {__name__}.Faulty failed: {logged}"
    assert lines == [expected] * (0 if logged is None else 4 if method == "handling" else 1)
    assert len(errors_in(caplog)) == len(lines) + (4 if fails else 0)
    assert not any("canary" in line for line in errors_in(caplog))


@each_fault
def test_a_faulty_observer_does_not_stop_an_exit(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, fault: str
) -> None:
    """What is no failure goes through it, to the emitter and to the observers around."""

    @signal.on()
    def handler() -> None:
        raise KeyboardInterrupt

    dispatcher.add_observer(Faulty(fault, method="handling"))
    dispatcher.add_observer(Faulty(fault, method="emission"))
    with pytest.raises(KeyboardInterrupt):
        emit(dispatcher)
    assert notes.story[-2:] == ["< handler KeyboardInterrupt", "< thing_happened KeyboardInterrupt"]


@each_fault
async def test_a_faulty_observer_does_not_stop_a_cancellation(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes, fault: str
) -> None:
    """The emitter ends, and its handlers with it."""
    started = asyncio.Event()

    @signal.on()
    async def handler() -> None:
        started.set()
        await asyncio.Event().wait()

    dispatcher.add_observer(Faulty(fault, method="handling"))
    dispatcher.add_observer(Faulty(fault, method="emission"))
    emitting = asyncio.ensure_future(dispatcher.emit_async(signal))
    await started.wait()
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting
    assert notes.open == 0
    assert notes.story[-1] == "< thing_happened CancelledError"


def test_the_failure_of_an_observer_is_no_failure_of_the_emission(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It is not raised by `on_error="raise"`, and not announced."""
    announced: list[Any] = []
    signals.subscribe("handler_failed", lambda: announced.append(1))
    signal.subscribe(lambda: "done")
    for method in ("emission", "handling"):
        for fault in FAULTS:
            dispatcher.add_observer(Faulty(fault, method=method))
    emission = emit(dispatcher.with_options(on_error="raise"))
    assert emission.ok
    assert [result.value for result in emission.results] == ["done"]
    assert announced == []


class Interrupting(Notes):
    """Is interrupted at the place that it is told."""

    def __init__(self, place: str) -> None:
        super().__init__([])
        self.place = place

    @contextmanager
    def _around(self, what: str) -> Iterator[None]:
        kind = "emission" if what == "thing_happened" else "handling"
        if self.place in (f"entry of {kind}", f"entry of {what}"):
            raise KeyboardInterrupt
        yield
        if self.place == f"exit of {kind}":
            raise KeyboardInterrupt


@called_or_awaited
@pytest.mark.parametrize(
    "place", ["entry of emission", "exit of emission", "entry of handling", "exit of handling"]
)
def test_an_interrupted_observer_goes_through_and_the_others_are_left(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    emitting: Any,
    is_async: bool,
    place: str,
) -> None:
    """The emitter is interrupted; who was entered is told, and the next emission works."""
    around = [Notes([], "a"), Notes([], "b")]
    interrupted = Interrupting(place)

    def plain_handler() -> None: ...

    async def async_handler() -> None: ...

    signal.subscribe(async_handler if is_async else plain_handler)
    dispatcher.add_observer(around[0])
    dispatcher.add_observer(interrupted)
    dispatcher.add_observer(around[1])
    with pytest.raises(KeyboardInterrupt):
        emitting(dispatcher)
    assert [notes.open for notes in around] == [0, 0]
    assert around[0].story[-1] == "a< thing_happened KeyboardInterrupt"
    assert errors_in(caplog) == []
    assert dispatcher.remove_observer(interrupted)
    assert emitting(dispatcher).ok
    assert [notes.open for notes in around] == [0, 0]


@pytest.mark.parametrize("emitting", [emit, emit_async])
def test_an_interrupted_emission_gives_its_places_in_the_queue_back(
    signals: SignalRegistry, signal: EventSignal[Any], emitting: Any
) -> None:
    """None of its handlers will be called; nor does it matter if there are none."""
    other = signals.signal("other_thing")
    signal.subscribe(lambda: "done", background=True)
    interrupted = Interrupting("entry of emission")
    with EventDispatcher(signals, queue_size=1, overflow="raise") as dispatcher:
        dispatcher.add_observer(interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                emitting(dispatcher)
        assert [emission.pending for emission in interrupted.emissions] == [0, 0]
        dispatcher.remove_observer(interrupted)
        assert emitting(dispatcher).wait(LIMIT)
        interrupted.place = "entry of other_thing"
        dispatcher.add_observer(interrupted)
        with pytest.raises(KeyboardInterrupt):
            dispatcher.emit(other)


def test_two_interrupted_observers_still_leave_the_third(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """It is told of the last of them."""
    for _ in range(2):
        dispatcher.add_observer(Interrupting("exit of handling"))
    signal.subscribe(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        emit(dispatcher)
    assert notes.open == 0
    assert notes.story[-1] == "< thing_happened KeyboardInterrupt"


def test_an_observer_that_the_log_cannot_show_disturbs_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a filter of the log that raises, or an exception that cannot be shown."""

    class Unshowable(Exception):
        def __str__(self) -> str:
            raise Raised

    class Observer:
        def emission(self, emission: Emission[Any]) -> Any:
            raise Unshowable

        handling = raising

    def refuse(record: logging.LogRecord) -> bool:
        raise Raised

    signal.subscribe(lambda: "done")
    dispatcher.add_observer(Observer())
    assert emit(dispatcher).ok
    logger = logging.getLogger("madcrow_events")
    logger.addFilter(refuse)
    try:
        assert emit(dispatcher).ok
    finally:
        logger.removeFilter(refuse)


# Adding and removing them


def test_siblings_share_observers(
    signal: EventSignal[Any], dispatcher: EventDispatcher, story: list[str]
) -> None:
    """Those that are added and removed later, too; other dispatchers do not."""
    sibling = dispatcher.with_options(on_error="raise")
    other = EventDispatcher(dispatcher.signals)
    notes = Notes(story)
    sibling.add_observer(notes)
    for one in (dispatcher, sibling, sibling.with_options(), other):
        emit(one)
    assert len(notes.emissions) == 3
    assert dispatcher.remove_observer(notes)
    emit(sibling)
    assert len(notes.emissions) == 3


def test_to_add_one_again_changes_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, story: list[str]
) -> None:
    """It is entered once, in its first place; an equal object is another observer."""

    class Equal(Notes):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]  # as of any class with such an __eq__

    first, second = Equal(story, "a"), Equal(story, "b")
    for observer in (first, second, first):
        dispatcher.add_observer(observer)
    emit(dispatcher)
    assert story == [
        *("a> thing_happened", "b> thing_happened"),
        *("b< thing_happened", "a< thing_happened"),
    ]


def test_a_removed_one_is_entered_no_more(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """To remove one that is not there is no error."""
    emit(dispatcher)
    assert dispatcher.remove_observer(notes) is True
    assert dispatcher.remove_observer(notes) is False
    assert dispatcher.remove_observer(object()) is False  # type: ignore[arg-type]  # anything
    emit(dispatcher)
    assert len(notes.emissions) == 1


def test_one_that_is_removed_meanwhile_is_left(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """And one that is added meanwhile is not left without having been entered."""
    added = Notes([])

    @signal.on()
    def handler() -> None:
        dispatcher.remove_observer(notes)
        dispatcher.add_observer(added)

    @signal.on()
    def next_handler() -> None: ...

    emit(dispatcher)
    assert notes.story == ["> thing_happened", "> handler", "< handler", "< thing_happened"]
    assert added.story == ["> next_handler", "< next_handler"]
    assert notes.open == added.open == 0


class WithoutHandling:
    def emission(self, emission: Any) -> Any: ...


class WithoutEmission:
    def handling(self, emission: Any, handler: Any) -> Any: ...


class WithValues:
    emission = handling = "canary"


@pytest.mark.parametrize(
    "observer",
    [
        TimingObserver,
        Notes,
        WithoutHandling(),
        WithoutEmission(),
        WithValues(),
        None,
        print,
        "text",
    ],
)
def test_what_is_no_observer_is_refused(
    signal: EventSignal[Any], dispatcher: EventDispatcher, observer: Any
) -> None:
    """A class in the place of an instance, or an object that lacks a method."""
    with pytest.raises(InvalidOptionError) as caught:
        dispatcher.add_observer(observer)
    assert caught.value.option == "observer"
    if isinstance(observer, type):
        assert f"is a class: give an observer, {observer.__name__}()" in str(caught.value)
    else:
        assert f"{type(observer).__name__} has no method " in str(caught.value)
        assert "emission(emission) and handling(emission, handler)" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert dispatcher._observers == []
    assert emit(dispatcher).ok


@pytest.mark.parametrize("empty", [False, True])
def test_isolated_restores_the_observers_of_the_default_dispatcher(empty: bool) -> None:
    """In an empty block there are none; one that is there may be removed and others be added."""
    madcrow_signals.signal("thing_happened")
    notes, added = Notes([]), Notes([])
    default = get_event_dispatcher()
    default.add_observer(notes)
    with madcrow_signals.isolated(empty=empty):
        madcrow_signals.signal("thing_happened")
        emit_event("thing_happened")
        assert len(notes.emissions) == (not empty)
        get_event_dispatcher().remove_observer(notes)
        get_event_dispatcher().add_observer(added)
        default.add_observer(added)
        emit_event("thing_happened")
        set_event_dispatcher(None)
    assert get_event_dispatcher() is default
    emit_event("thing_happened")
    assert len(notes.emissions) == (1 if empty else 2)
    assert len(added.emissions) == 1


def test_threads_may_add_and_remove_while_others_emit(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """Who was entered is left, and who was not is not."""
    rounds = 200
    others = [Notes([]) for _ in range(4)]
    signal.subscribe(lambda: None)
    start = threading.Barrier(6)

    def churn(observer: Notes) -> None:
        start.wait(LIMIT)
        for _ in range(rounds):
            dispatcher.add_observer(observer)
            dispatcher.remove_observer(observer)

    def work() -> None:
        start.wait(LIMIT)
        for _ in range(rounds):
            emit(dispatcher)

    threads = [threading.Thread(target=churn, args=(observer,)) for observer in others]
    threads += [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes.emissions) == 2 * rounds
    assert [observer.open for observer in (notes, *others)] == [0] * 5
    assert dispatcher._observers == [notes]


# Together with the log


def test_the_debug_log_is_written_within_the_observers(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each line in its place, also where another observer is faulty."""

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.DEBUG:
                words = record.getMessage().split()
                notes.story.append(" ".join(word for word in words if word.isidentifier()))

    @signal.on()
    def handler() -> None:
        raise ValueError

    @signal.on(when=lambda context: False)
    def skipped() -> None: ...

    logger, telling = logging.getLogger("madcrow_events"), Telling()
    dispatcher.add_observer(Faulty("swallows", method="handling"))
    dispatcher.add_observer(Faulty("raises", method="emission"))
    logger.addHandler(telling)
    try:
        with caplog.at_level(logging.DEBUG, "madcrow_events"):
            emission = emit(dispatcher)
    finally:
        logger.removeHandler(telling)
    assert len(emission.failures) == 1
    assert notes.story == [
        *("> thing_happened", "thing_happened emitted by EventSignal to handlers"),
        *("> handler", "handler of thing_happened raised after ms", "< handler ValueError"),
        *("handler of thing_happened skipped", "< thing_happened"),
    ]


def test_the_debug_log_goes_on_after_observers_are_gone(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And observers after the log is quiet again."""
    signal.subscribe(lambda: None)
    with caplog.at_level(logging.DEBUG, "madcrow_events"):
        dispatcher.remove_observer(notes)
        emit(dispatcher)
    assert len(caplog.records) == 2
    assert notes.emissions == []
    dispatcher.add_observer(notes)
    emit(dispatcher)
    assert len(caplog.records) == 2
    assert len(notes.emissions) == 1


def test_without_observers_nothing_is_entered_and_nothing_kept(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """An emission notes no more than it would if there could be none."""
    signal.subscribe(lambda: None)
    assert emit(dispatcher)._failures is None


@pytest.mark.guarantee("B6")
def test_what_an_observer_emits_is_not_observed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Else one that emits as it is entered and left would go on without end."""
    seen: list[str] = []

    class Emitting:
        @contextmanager
        def emission(self, emission: Emission[Any], /) -> Iterator[None]:
            seen.append(emission.event)
            dispatcher.emit(signal)
            yield
            dispatcher.emit(signal)

        @contextmanager
        def handling(self, emission: Emission[Any], handler: Any, /) -> Iterator[None]:
            dispatcher.emit(signal)
            yield
            dispatcher.emit(signal)

    calls: list[int] = []
    signal.subscribe(lambda: calls.append(1))
    dispatcher.add_observer(Emitting())
    emission = dispatcher.emit(signal)
    assert emission.ok
    assert seen == [signal.name]
    assert len(calls) == 5


@pytest.mark.guarantee("B6")
@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("observed", [False, True])
def test_a_chain_that_is_too_deep_ends_alike_whether_somebody_watches_or_not(
    signal: EventSignal[Any], dispatcher: EventDispatcher, observed: bool
) -> None:
    class Nothing:
        def emission(self, emission: Emission[Any], /) -> Any:
            return nullcontext()

        def handling(self, emission: Emission[Any], handler: Any, /) -> Any:
            return nullcontext()

    swallowed: list[EmissionDepthError] = []

    def handler() -> None:
        try:
            dispatcher.emit(signal)
        except EmissionDepthError as error:
            swallowed.append(error)

    signal.subscribe(handler)
    if observed:
        dispatcher.add_observer(Nothing())
    dispatcher.emit(signal)
    assert len(swallowed) == 1


@pytest.mark.guarantee("B6")
async def test_an_announcement_that_is_broken_off_lets_the_observers_go(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A handler of `handler_failed` that exits goes through to whoever awaits."""
    left: list[str] = []

    class Noting:
        @contextmanager
        def emission(self, emission: Emission[Any], /) -> Iterator[None]:
            try:
                yield
            finally:
                left.append(emission.event)

        def handling(self, emission: Emission[Any], handler: Any, /) -> Any:
            return nullcontext()

    async def fails() -> None:
        raise ValueError

    def exits() -> None:
        raise KeyboardInterrupt

    signal.subscribe(fails)
    signals.subscribe("handler_failed", exits)
    dispatcher.add_observer(Noting())
    with pytest.raises(KeyboardInterrupt):
        await dispatcher.emit_async(signal)
    assert left == ["handler_failed", signal.name]
