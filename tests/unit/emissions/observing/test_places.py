"""Where observers stand around what dispatchers do (B6)."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from madcrow_events import Batch, Emission, EventDispatcher, EventSignal, SignalRegistry
from support.observers import Notes, each_way, emit, emit_async, name_of
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B6")


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
    await emission.wait_async()
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
