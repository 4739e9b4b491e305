"""One set of rules for `emit` and `emit_async`, for plain handlers and async ones (E2, F, H5, L1).

Each test is one story, told in every way of emitting. Its handlers are written
as coroutines; where the way calls plain handlers, each is run to its end in one
go, and the whole story needs no event loop if nothing in it is awaited.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import logging
import threading
from collections.abc import Callable, Coroutine
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    EmissionDepthError,
    EventDispatcher,
    HandlerCancelledError,
    HandlerErrors,
    current_event,
)
from support.outcomes import errors, logged, values

RUNAWAY = 10_000
"""More calls than any chain may make; handlers stop emitting here, so that a test can fail."""


class Happened(BaseEventContext):
    number: int = 0
    ready: bool = True


class Kind(NamedTuple):
    """What tells one way from another."""

    awaits: bool  # emit_async, not emit
    is_async: bool  # the handlers are
    suspends: bool  # each of them, before it does anything
    typed: bool  # the emission carries a model, and the handlers take it
    debug: bool  # the log is on

    def __str__(self) -> str:
        emits = "emit_async" if self.awaits else "emit"
        handlers = "async" if self.is_async else "plain"
        words = [emits, "suspending" if self.suspends else handlers]
        words.append("typed" if self.typed else "loose")
        return "-".join([*words, "logged"] if self.debug else words)


KINDS = [
    Kind(awaits, is_async, suspends, typed, debug)
    for awaits, is_async, suspends in (
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, True),
    )
    for typed, debug in ((False, False), (True, False), (False, True))
]


def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, and return its value."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("this way was not to await anything")


class Way:
    """A way of emitting, and of being called."""

    def __init__(self, kind: Kind, dispatcher: EventDispatcher) -> None:
        self.kind = kind
        self.dispatcher = dispatcher
        self.signals = dispatcher.signals
        model = Happened if kind.typed else None
        self.signal = self.signals.signal("thing_happened", context=model)
        self.other = self.signals.signal("other_thing", context=model)

    @property
    def raising(self) -> Way:
        """The same way, through a dispatcher that raises."""
        return Way(self.kind, self.dispatcher.with_options(on_error="raise"))

    async def emit(self, event: Any = None, sender: Any = None, **context: Any) -> Emission[Any]:
        """Emit as the application would."""
        event = self.signal if event is None else event
        if not self.kind.awaits:
            return self._emit(event, sender, context)
        if self.kind.typed:
            return await self.dispatcher.emit_typed_async(event, Happened(**context), sender)
        return await self.dispatcher.emit_async(event, sender, **context)

    async def emit_inside(self, event: Any = None, **context: Any) -> Emission[Any]:
        """Emit as a handler of this kind would."""
        if self.kind.is_async:
            return await self.emit(event, **context)
        return self._emit(self.signal if event is None else event, None, context)

    def _emit(self, event: Any, sender: Any, context: dict[str, Any]) -> Emission[Any]:
        if self.kind.typed:
            return self.dispatcher.emit_typed(event, Happened(**context), sender)
        return self.dispatcher.emit(event, sender, **context)

    def handler(self, body: Callable[[Emission[Any]], Coroutine[Any, Any, Any]]) -> Any:
        """Make a handler of this kind, in whose place `body` gets the current emission."""

        async def called() -> Any:
            if self.kind.suspends:
                await asyncio.sleep(0)
            emission = current_event()
            assert emission is not None
            return await body(emission)

        if self.kind.is_async and self.kind.typed:

            async def handler(context: BaseEventContext) -> Any:
                return await called()

        elif self.kind.is_async:

            async def handler(sender: Any, **context: Any) -> Any:
                return await called()

        elif self.kind.typed:

            def handler(context: BaseEventContext) -> Any:
                return finished(called())

        else:

            def handler(sender: Any, **context: Any) -> Any:
                return finished(called())

        return handler

    def returning(self, value: Any) -> Any:
        """Make a handler that returns a value."""

        async def body(emission: Emission[Any]) -> Any:
            return value

        return self.handler(body)

    def failing(self, error: BaseException | type[BaseException] = ValueError) -> Any:
        """Make a handler that raises."""

        async def body(emission: Emission[Any]) -> None:
            raise error

        return self.handler(body)

    def owner(self, value: Any) -> Any:
        """Make an object with a method `handle` that is a handler of this kind."""

        class PlainOwner:
            def handle(self, sender: Any, **context: Any) -> Any:
                return value

        class AsyncOwner:
            async def handle(self, sender: Any, **context: Any) -> Any:
                if suspends:
                    await asyncio.sleep(0)
                return value

        suspends = self.kind.suspends
        return AsyncOwner() if self.kind.is_async else PlainOwner()

    def run(self, story: Coroutine[Any, Any, None]) -> None:
        """Tell a story; afterwards no task is left and the loop has nothing to complain of."""
        if not self.kind.awaits:
            finished(story)
            return
        complaints: list[str] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, problem: complaints.append(problem["message"]))
            await story
            assert asyncio.all_tasks() == {asyncio.current_task()}

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pytest.fail("a KeyboardInterrupt went past the emitter")
        assert complaints == []


@pytest.fixture(params=KINDS, ids=str)
def way(
    request: pytest.FixtureRequest, dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> Way:
    kind: Kind = request.param
    if kind.debug:
        caplog.set_level(logging.DEBUG, logger="madcrow_events")
    return Way(kind, dispatcher)


def in_every_way(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Tell a story in every way of emitting."""

    @functools.wraps(story)
    def test(way: Way, **fixtures: Any) -> None:
        way.run(story(way=way, **fixtures))

    return test


# Order, results and what an emission tells


@pytest.mark.guarantee("H5")
@in_every_way
async def test_handlers_run_by_priority_and_then_in_order_of_registration(way: Way) -> None:
    calls: list[str] = []

    def noting(name: str) -> Any:
        async def body(emission: Emission[Any]) -> str:
            calls.append(name)
            return name

        return way.handler(body)

    way.signal.subscribe(noting("b"))
    way.signal.subscribe(noting("last"), priority=-1)
    way.signal.subscribe(noting("first"), priority=10)
    way.signal.subscribe(noting("c"))
    emission = await way.emit()
    assert calls == values(emission) == ["first", "b", "c", "last"]


@pytest.mark.guarantee("A1")
@in_every_way
async def test_plain_handlers_come_first_whatever_their_priority(way: Way) -> None:
    calls: list[str] = []

    def noting(name: str) -> Any:
        async def body(emission: Emission[Any]) -> str:
            calls.append(name)
            return name

        return way.handler(body)

    def plain(name: str) -> Any:
        return lambda: calls.append(name) or name

    way.signal.subscribe(noting("low"))
    way.signal.subscribe(plain("plain low"))
    way.signal.subscribe(plain("plain middle"), priority=5)
    way.signal.subscribe(noting("high"), priority=10)
    emission = await way.emit()
    assert calls == values(emission)
    if way.kind.is_async:
        assert calls == ["plain middle", "plain low", "high", "low"]
    else:
        assert calls == ["high", "plain middle", "low", "plain low"]


@pytest.mark.guarantee("E2")
@in_every_way
async def test_an_emission_tells_all_about_itself(way: Way) -> None:
    seen: list[Emission[Any]] = []

    async def body(emission: Emission[Any]) -> str:
        seen.append(emission)
        assert current_event() is emission
        return "value"

    handler = way.handler(body)
    way.signal.subscribe(handler)
    emission = await way.emit(number=7)
    assert seen == [emission]
    assert emission.event == "thing_happened"
    assert emission.signal is way.signal
    assert emission.sender is way.signal
    assert emission.dispatcher is way.dispatcher
    assert (emission.parent, emission.depth) == (None, 0)
    assert emission.ok
    assert emission.results == ((handler, "value"),)
    assert emission.results[0].handler is handler
    assert emission.failures == ()
    assert emission.pending == 0
    assert emission.wait(timeout=5)
    assert current_event() is None
    if way.kind.typed:
        assert isinstance(emission.context, Happened)
        assert emission.context.number == 7
    else:
        assert type(emission.context) is MappingProxyType
        assert emission.context == {"number": 7}
    assert repr(emission) == "<Emission thing_happened, results: 1, failures: 0>"


@pytest.mark.guarantee("E2")
@in_every_way
async def test_an_emission_that_nobody_hears_is_whole_too(way: Way) -> None:
    emission = await way.emit(sender="me")
    assert emission.ok
    assert (emission.results, emission.failures, emission.pending) == ((), (), 0)
    assert emission.sender == "me"
    way.signal.subscribe(way.returning("muted"))
    with way.signal.muted():
        assert (await way.emit()).results == ()


@pytest.mark.guarantee("E2")
@in_every_way
async def test_nested_emissions_know_their_parents(way: Way) -> None:
    seen: list[Any] = []

    async def inner(emission: Emission[Any]) -> None:
        seen.append((emission.event, emission.depth, emission.parent))
        assert current_event() is emission

    async def outer(emission: Emission[Any]) -> Any:
        nested = await way.emit_inside("other_thing")
        assert current_event() is emission
        assert nested.parent is emission
        return "outer"

    way.other.subscribe(way.handler(inner))
    way.signal.subscribe(way.handler(outer))
    way.signal.subscribe(way.handler(outer))
    emission = await way.emit()
    assert values(emission) == ["outer", "outer"]
    assert seen == [("other_thing", 1, emission)] * 2
    assert current_event() is None


@pytest.mark.guarantee("F5")
@in_every_way
async def test_depth_counts_unfinished_ancestors_only(way: Way) -> None:
    contexts: list[contextvars.Context] = []

    async def body(emission: Emission[Any]) -> None:
        contexts.append(contextvars.copy_context())

    way.signal.subscribe(way.handler(body))
    await way.emit()
    inherited = contexts[0]
    assert inherited.run(current_event) is None
    if way.kind.awaits:
        task = asyncio.get_running_loop().create_task(way.emit(), context=inherited)
        later = await task
    else:
        later = inherited.run(finished, way.emit())
    assert (later.depth, later.parent) == (0, None)


# Failure


@pytest.mark.guarantee("F1")
@in_every_way
async def test_a_failing_handler_stops_no_other_and_is_recorded_and_logged_once(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    failing = way.failing(ValueError("on purpose"))
    way.signal.subscribe(way.returning("before"))
    way.signal.subscribe(failing)
    way.signal.subscribe(way.returning("after"))
    emission = await way.emit()
    assert values(emission) == ["before", "after"]
    (failure,) = emission.failures
    assert failure.handler is failing
    assert isinstance(failure.exception, ValueError)
    assert not emission.ok
    assert emission.pending == 0
    (line,) = logged(caplog)
    assert line.startswith("handler tests.unit.emissions.test_both_ways.Way.handler")
    assert line.endswith(" of thing_happened failed: ValueError")


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("failing", [(0,), (4,), (1, 2), (0, 1, 2, 3, 4)])
@in_every_way
async def test_any_handlers_may_fail(way: Way, failing: tuple[int, ...]) -> None:
    handlers = [
        way.failing(KeyError(number)) if number in failing else way.returning(number)
        for number in range(5)
    ]
    for handler in handlers:
        way.signal.subscribe(handler)
    emission = await way.emit()
    assert values(emission) == [number for number in range(5) if number not in failing]
    assert [failure.exception.args[0] for failure in emission.failures] == list(failing)
    assert [handlers.index(failure.handler) for failure in emission.failures] == list(failing)


@pytest.mark.guarantee("F1")
@in_every_way
async def test_each_failure_is_announced_after_the_last_handler(way: Way) -> None:
    order: list[Any] = []

    async def announced(emission: Emission[Any]) -> None:
        context = emission.context
        order.append((context.event_name, context.handler_name, context.exception_type))

    async def last(emission: Emission[Any]) -> None:
        order.append("last handler")

    way.signals.subscribe("handler_failed", way.handler(announced))
    way.signal.subscribe(way.failing(ValueError))
    way.signal.subscribe(way.failing(ZeroDivisionError))
    way.signal.subscribe(way.handler(last))
    await way.emit()
    assert order[0] == "last handler"
    assert [entry[0] for entry in order[1:]] == ["thing_happened"] * 2
    assert [entry[2] for entry in order[1:]] == ["ValueError", "ZeroDivisionError"]
    assert all(entry[1].startswith("tests.unit.emissions.test_both_ways") for entry in order[1:])


@pytest.mark.guarantee("F1")
@in_every_way
async def test_a_failure_in_a_handler_of_handler_failed_is_not_announced(way: Way) -> None:
    calls: list[str] = []

    async def failing(emission: Emission[Any]) -> None:
        calls.append(emission.context.event_name)
        await way.emit_inside("other_thing")
        raise ValueError

    way.other.subscribe(way.failing())
    way.signals.subscribe("handler_failed", way.handler(failing))
    way.signal.subscribe(way.failing(ValueError("on purpose")))
    await way.emit()
    assert calls == ["thing_happened"]
    calls.clear()
    with pytest.raises(ValueError, match="on purpose"):
        await way.raising.emit()
    assert calls == ["thing_happened"]


@pytest.mark.guarantee("F2")
@in_every_way
async def test_the_emitter_sees_nothing_of_it_unless_it_asks(way: Way) -> None:
    error = ValueError("on purpose")
    subscription = way.signal.subscribe(way.failing(error))
    emission = await way.emit()
    with pytest.raises(ValueError, match="on purpose") as caught:
        emission.raise_for_failures()
    assert caught.value is error
    subscription.cancel()
    (await way.emit()).raise_for_failures()


@pytest.mark.guarantee("F2")
@in_every_way
async def test_a_raising_dispatcher_raises_after_all_ran(way: Way) -> None:
    calls: list[str] = []

    async def last(emission: Emission[Any]) -> None:
        calls.append("ran")

    way.signal.subscribe(way.failing(ValueError("on purpose")))
    way.signal.subscribe(way.handler(last), priority=-1)
    with pytest.raises(ValueError, match="on purpose") as single:
        await way.raising.emit()
    assert type(single.value) is ValueError
    assert calls == ["ran"]
    way.signal.subscribe(way.failing(ZeroDivisionError))
    with pytest.raises(HandlerErrors) as several:
        await way.raising.emit()
    assert several.value.event == "thing_happened"
    assert [type(error) for error in several.value.exceptions] == [ValueError, ZeroDivisionError]
    assert calls == ["ran", "ran"]
    assert current_event() is None


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@in_every_way
async def test_what_is_no_exception_goes_through_and_the_next_emission_works(
    way: Way, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    way.signal.subscribe(way.failing(ValueError))
    subscription = way.signal.subscribe(way.failing(error))
    way.signal.subscribe(way.returning("after"))
    with pytest.raises(error):
        await way.emit()
    assert len(logged(caplog)) == 1, "the failure before it must not be lost"
    assert current_event() is None
    subscription.cancel()
    emission = await way.emit()
    assert emission.depth == 0
    assert values(emission) == ["after"]


@pytest.mark.guarantee("F3")
@in_every_way
async def test_a_handler_that_raises_cancelled_error_is_a_failed_handler(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    way.signal.subscribe(way.failing(asyncio.CancelledError))
    way.signal.subscribe(way.returning("after"))
    emission = await way.emit()
    assert errors(emission) == [asyncio.CancelledError]
    assert values(emission) == ["after"]
    assert len(logged(caplog)) == 1
    with pytest.raises(HandlerCancelledError, match="nobody had cancelled its caller") as caught:
        await way.raising.emit()
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    way.signal.subscribe(way.failing())
    with pytest.raises(HandlerErrors) as several:
        await way.raising.emit()
    assert [type(error) for error in several.value.exceptions] == [
        HandlerCancelledError,
        ValueError,
    ]


# Snapshots


@pytest.mark.guarantee("F4")
@in_every_way
async def test_an_emission_calls_nobody_who_came_after_it_began(way: Way) -> None:
    late = way.returning("late")

    async def first(emission: Emission[Any]) -> str:
        way.signal.subscribe(late)
        return "first"

    way.signal.subscribe(way.handler(first))
    assert values(await way.emit()) == ["first"]
    assert values(await way.emit()) == ["first", "late"]


@pytest.mark.guarantee("F4")
@in_every_way
async def test_a_handler_may_cancel_itself_and_others(way: Way) -> None:
    async def first(emission: Emission[Any]) -> str:
        mine.cancel()
        other.cancel()
        return "first"

    mine = way.signal.subscribe(way.handler(first))
    other = way.signal.subscribe(way.returning("other"))
    emission = await way.emit()
    assert values(emission)[0] == "first"
    assert emission.ok
    assert (await way.emit()).results == ()


# Depth


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize("number", [1, 3])
@in_every_way
async def test_handlers_that_emit_their_own_event_end_at_once_with_one_error(
    way: Way, caplog: pytest.LogCaptureFixture, number: int, swallow: bool
) -> None:
    """Two of them would double the emissions with each level, three treble them."""
    depths: list[int] = []

    async def body(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if len(depths) > RUNAWAY:
            return
        try:
            await way.emit_inside()
        except EmissionDepthError:
            if not swallow:
                raise

    handlers = [way.handler(body) for _ in range(number)]
    for handler in handlers:
        way.signal.subscribe(handler)
    emission = await way.emit()
    assert len(depths) <= RUNAWAY
    (failure,) = emission.failures
    error = failure.exception
    assert isinstance(error, EmissionDepthError)
    assert isinstance(error, RecursionError)
    assert error.events == ("thing_happened",) * 6
    assert failure.handler is handlers[0]
    assert len(logged(caplog)) == 1
    assert max(depths) <= 63
    assert max(depths) == 63 or number > 1
    assert not emission.ok
    assert current_event() is None
    assert (await way.emit("other_thing")).ok


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("swallow", [False, True])
@in_every_way
async def test_two_events_that_cause_each_other_end_and_are_named(way: Way, swallow: bool) -> None:
    depths: list[int] = []

    def causing(event: str) -> Any:
        async def body(emission: Emission[Any]) -> None:
            depths.append(emission.depth)
            try:
                await way.emit_inside(event)
            except EmissionDepthError:
                if not swallow:
                    raise

        return way.handler(body)

    cause = causing("other_thing")
    way.signal.subscribe(cause)
    way.other.subscribe(causing("thing_happened"))
    (failure,) = (await way.emit()).failures
    assert isinstance(failure.exception, EmissionDepthError)
    assert failure.handler is cause
    assert failure.exception.events == ("other_thing", "thing_happened") * 3
    assert "other_thing > thing_happened" in str(failure.exception)
    assert depths == list(range(64))
    with pytest.raises(EmissionDepthError):
        await way.raising.emit()


@pytest.mark.guarantee("F5")
@in_every_way
async def test_sixty_four_levels_are_allowed(way: Way) -> None:
    depths: list[int] = []

    async def body(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if emission.depth < 63:
            assert (await way.emit_inside()).ok

    way.signal.subscribe(way.handler(body))
    assert (await way.emit()).ok
    assert depths == list(range(64))


@pytest.mark.guarantee("F5")
@in_every_way
async def test_a_failure_at_the_deepest_level_is_still_announced(way: Way) -> None:
    announced: list[str] = []

    async def body(emission: Emission[Any]) -> None:
        if emission.depth == 63:
            raise ValueError
        await way.emit_inside()

    async def told(emission: Emission[Any]) -> None:
        announced.append(emission.context.exception_type)

    way.signals.subscribe("handler_failed", way.handler(told))
    way.signal.subscribe(way.handler(body))
    assert (await way.emit()).ok
    assert announced == ["ValueError"]


@pytest.mark.guarantee("F5")
@in_every_way
async def test_every_later_emission_of_a_broken_chain_raises_and_the_outermost_goes_on(
    way: Way,
) -> None:
    refused: list[str] = []

    async def looping(emission: Emission[Any]) -> None:
        try:
            await way.emit_inside()
        finally:
            try:
                await way.emit_inside("other_thing")
            except EmissionDepthError:
                refused.append(emission.event)

    async def remaining(emission: Emission[Any]) -> Any:
        return values(await way.emit_inside("other_thing")) if emission.depth == 0 else None

    way.other.subscribe(way.returning("heard"))
    way.signal.subscribe(way.handler(looping))
    way.signal.subscribe(way.handler(remaining))
    emission = await way.emit()
    assert len(refused) == 64
    assert errors(emission) == [EmissionDepthError]
    assert values(emission) == [["heard"]]


@pytest.mark.guarantee("F5")
@in_every_way
async def test_other_failures_within_a_broken_chain_are_recorded_where_they_happen(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    async def looping(emission: Emission[Any]) -> None:
        await way.emit_inside()

    way.signals.subscribe("handler_failed", way.returning(None))
    way.signal.subscribe(way.handler(looping))
    way.signal.subscribe(way.failing())
    emission = await way.emit()
    assert set(errors(emission)) == {EmissionDepthError, ValueError}
    assert len(logged(caplog)) == 1 + 64


# Locks


@pytest.mark.guarantee("F6")
@in_every_way
async def test_no_lock_is_held_while_a_handler_or_a_predicate_runs(way: Way) -> None:
    def from_another_thread() -> bool:
        def use() -> None:
            way.signal.subscribe(lambda: None, sender="nobody").cancel()
            way.signals.signal("declared_meanwhile")
            way.signals.subscribe("z*", lambda: None).cancel()
            done.append(True)

        done: list[bool] = []
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(timeout=5)
        return bool(done)

    async def body(emission: Emission[Any]) -> bool:
        return from_another_thread()

    way.signal.subscribe(way.handler(body), when=lambda context: from_another_thread())
    way.signal.subscribe(way.handler(body), once=True)
    assert values(await way.emit()) == [True, True]


# Options


@pytest.mark.guarantee("H5")
@in_every_way
async def test_once_is_called_once(way: Way) -> None:
    subscription = way.signal.subscribe(way.returning("now"), once=True)
    assert values(await way.emit()) == ["now"]
    assert values(await way.emit()) == []
    assert not subscription.active
    assert not way.signal.subscriptions


@pytest.mark.guarantee("H5")
@in_every_way
async def test_once_waits_for_its_sender_and_its_when(way: Way) -> None:
    way.signal.subscribe(
        way.returning("now"), once=True, sender="me", when=lambda context: context["ready"]
    )
    assert values(await way.emit(sender="you", ready=True)) == []
    assert values(await way.emit(sender="me", ready=False)) == []
    assert values(await way.emit(sender="me", ready=True)) == ["now"]
    assert values(await way.emit(sender="me", ready=True)) == []


@pytest.mark.guarantee("H5")
@in_every_way
async def test_a_nested_emission_finds_once_claimed(way: Way) -> None:
    calls: list[int] = []

    async def body(emission: Emission[Any]) -> None:
        calls.append(emission.depth)
        await way.emit_inside()

    way.signal.subscribe(way.handler(body), once=True)
    assert (await way.emit()).ok
    assert calls == [0]


@pytest.mark.guarantee("H5")
@in_every_way
async def test_when_decides_and_sees_the_context_read_only(way: Way) -> None:
    seen: list[Any] = []

    def when(context: Any) -> bool:
        seen.append(context)
        return bool(context["ready"])

    way.signal.subscribe(way.returning("ready"), when=when)
    way.signal.subscribe(way.returning("always"))
    assert values(await way.emit(ready=False)) == ["always"]
    assert values(await way.emit(ready=True)) == ["ready", "always"]
    with pytest.raises(TypeError):
        seen[0]["ready"] = True


@pytest.mark.guarantee("H5")
@in_every_way
async def test_a_when_that_raises_is_that_handlers_failure(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    subscription = way.signal.subscribe(
        way.returning("guarded"), when=lambda context: context["missing"], once=True
    )
    way.signal.subscribe(way.returning("other"))
    emission = await way.emit()
    (failure,) = emission.failures
    assert failure.handler is subscription.handler
    assert isinstance(failure.exception, KeyError)
    assert values(emission) == ["other"]
    assert len(logged(caplog)) == 1
    assert subscription.active


@pytest.mark.guarantee("H5")
@in_every_way
async def test_a_handler_for_one_sender_hears_no_other(way: Way) -> None:
    way.signal.subscribe(way.returning("everyone"))
    way.signal.subscribe(way.returning("me"), sender="me")
    way.signal.subscribe(way.returning("zero"), sender=0)
    assert values(await way.emit()) == ["everyone"]
    assert values(await way.emit(sender="me")) == ["everyone", "me"]
    assert values(await way.emit(sender=0)) == ["everyone", "zero"]
    assert values(await way.emit(sender=False)) == ["everyone"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_a_method_goes_with_its_object_unless_it_is_held(way: Way) -> None:
    gone, kept = way.owner("gone"), way.owner("kept")
    way.signal.subscribe(gone.handle)
    way.signal.subscribe(kept.handle, weak=False)
    emission = await way.emit()
    assert values(emission) == ["gone", "kept"]
    assert [result.handler for result in emission.results] == [gone.handle, kept.handle]
    del gone, kept, emission
    gc.collect()
    assert values(await way.emit()) == ["kept"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_a_function_is_held_unless_it_is_not_to_be(way: Way) -> None:
    way.signal.subscribe(way.returning("held"))
    let_go = way.returning("let go")
    way.signal.subscribe(let_go, weak=True)
    assert values(await way.emit()) == ["held", "let go"]
    del let_go
    gc.collect()
    assert values(await way.emit()) == ["held"]


@pytest.mark.guarantee("L1")
@in_every_way
async def test_an_object_that_goes_away_during_an_emission_is_not_called_or_called_whole(
    way: Way,
) -> None:
    owners = [way.owner("heard")]

    async def clear(emission: Emission[Any]) -> str:
        owners.clear()
        return "cleared"

    way.signal.subscribe(way.handler(clear))
    way.signal.subscribe(owners[0].handle)
    emission = await way.emit()
    assert emission.ok
    assert values(emission) in (["cleared"], ["cleared", "heard"])
    del emission  # which names the method, and so keeps the object
    gc.collect()
    assert values(await way.emit()) == ["cleared"]
