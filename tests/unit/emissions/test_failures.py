"""Handlers that fail, in every way of emitting (F1-F3)."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    GenericEventContext,
    HandlerCancelledError,
    HandlerErrors,
    LoginEventContext,
    SignalRegistry,
    current_event,
)
from support.inside import noting_failures
from support.outcomes import errors, logged, values
from support.ways import Way, in_every_way


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
    assert line.startswith("handler support.ways.Way.handler")
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
    assert all(entry[1].startswith("support.ways") for entry in order[1:])


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
    for part in several.value.split(ValueError):
        assert isinstance(part, HandlerErrors)
        assert part.event == "thing_happened"
    assert calls == ["ran", "ran"]
    assert way.dispatcher.on_error == "log"
    assert current_event() is None


def runs_out() -> None:
    next(iter(()))


async def runs_out_later() -> None:
    await asyncio.sleep(0)


@pytest.mark.guarantee("F2")
def test_emit_raises_a_stop_iteration_as_it_is(dispatcher: EventDispatcher) -> None:
    dispatcher.signals.signal("thing_happened").subscribe(runs_out)
    with pytest.raises(StopIteration):
        dispatcher.with_options(on_error="raise").emit("thing_happened")
    with pytest.raises(StopIteration):
        dispatcher.emit("thing_happened").raise_for_failures()


@pytest.mark.guarantee("F2")
@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("handlers", [[runs_out], [runs_out, runs_out_later]])
async def test_where_none_can_be_raised_it_comes_in_a_group_that_names_its_handler(
    dispatcher: EventDispatcher, handlers: list[Any], typed: bool
) -> None:
    signal = dispatcher.signals.signal("user_logged_in", context=LoginEventContext)
    for handler in handlers:
        signal.subscribe(handler)
    raising = dispatcher.with_options(on_error="raise")
    context = LoginEventContext(user_id=1, email="e")
    with pytest.raises(HandlerErrors, match=r"runs_out .*StopIteration.* a coroutine") as caught:
        if typed:
            await raising.emit_typed_async(signal, context)
        else:
            await raising.emit_async(signal, user_id=1, email="e")
    assert [type(error) for error in caught.value.exceptions] == [StopIteration]
    assert caught.value.event == "user_logged_in"


@pytest.mark.guarantee("F2")
@pytest.mark.parametrize("way", ["raise_for_failures", "emit", "emit_typed"])
@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration])
async def test_what_is_raised_of_an_emission_passes_through_its_caller(
    dispatcher: EventDispatcher, error: type[Exception], way: str
) -> None:
    """Each of these would replace the one or the other by a `RuntimeError` that tells nothing."""

    def failing() -> None:
        raise error

    async def coroutine() -> None:
        raises()

    def generator() -> Any:
        yield raises()

    async def async_generator() -> Any:
        yield raises()

    dispatcher.signals.signal("thing_happened").subscribe(failing)
    raising = dispatcher.with_options(on_error="raise")
    raises: Any = {
        "raise_for_failures": dispatcher.emit("thing_happened").raise_for_failures,
        "emit": partial(raising.emit, "thing_happened"),
        "emit_typed": partial(
            raising.emit_typed, "thing_happened", GenericEventContext(event_type="thing_happened")
        ),
    }[way]
    expected = HandlerErrors if error is StopIteration else StopAsyncIteration
    with pytest.raises(expected):
        await coroutine()
    with pytest.raises(expected):
        list(generator())
    with pytest.raises(HandlerErrors, match="async generator"):
        await anext(async_generator())


@pytest.mark.guarantee("F2")
def test_so_it_is_at_the_end_of_a_block(dispatcher: EventDispatcher) -> None:
    def generator() -> Any:
        with raising.deferred():
            raising.emit("thing_happened")
            yield

    dispatcher.signals.signal("thing_happened").subscribe(runs_out)
    raising = dispatcher.with_options(on_error="raise")
    with pytest.raises(HandlerErrors, match="a generator"):
        list(generator())


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@in_every_way
async def test_what_is_no_exception_goes_through_and_the_next_emission_works(
    way: Way, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    called: list[str] = []

    async def after(emission: Emission[Any]) -> str:
        called.append("after")
        return "after"

    way.signal.subscribe(way.failing(ValueError))
    subscription = way.signal.subscribe(way.failing(error))
    way.signal.subscribe(way.handler(after))
    with pytest.raises(error):
        await way.emit()
    assert called == [] or way.kind.is_async, "plain handlers stop there"
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
    if not way.kind.awaits:  # then the story has no loop; a loop changes nothing
        assert errors(asyncio.run(way.emit())) == [asyncio.CancelledError]
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


def raising_in_each_shape() -> list[Any]:
    def keywords(sender: Any, **context: Any) -> None:
        raise KeyError

    def model(context: LoginEventContext) -> None:
        raise TypeError

    def field(email: str) -> None:
        raise IndexError

    return [keywords, model, field]


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("shapes", [[0, 0, 0, 1, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 2, 0, 1, 2]])
def test_failures_are_isolated_in_every_way_of_calling(
    signals: SignalRegistry, dispatcher: EventDispatcher, shapes: list[int]
) -> None:
    signal = signals.signal("user_logged_in", context=LoginEventContext)
    for number, shape in enumerate(shapes):
        priority = 9 - number
        signal.subscribe(lambda *a, **k: None, priority=priority)
        elsewhere = raising_in_each_shape()[shape]
        signal.subscribe(elsewhere, priority=priority, sender="somebody else").cancel()
        signal.subscribe(raising_in_each_shape()[shape], priority=priority)
    expected = [(KeyError, TypeError, IndexError)[shape] for shape in shapes]
    typed = dispatcher.emit_typed(signal, LoginEventContext(user_id=1, email="e"))
    loose = dispatcher.emit(signal, user_id=1, email="e")
    assert errors(typed) == errors(loose) == expected


@pytest.mark.guarantee("F1")
def test_two_threads_in_which_handlers_fail_keep_their_notes_in_one_place(
    signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Claims(dict[int, Any]):
        """Another thread is faster, between the look and the claim."""

        def setdefault(self, key: int, notes: Any) -> Any:
            emission._failures = others
            return notes

    signals.signal("thing_happened")
    emission: Any = EventDispatcher(signals).emit("thing_happened")
    others: Any = noting_failures.Failures()
    monkeypatch.setattr(noting_failures, "_claims", Claims())
    assert noting_failures.failures_of(emission) is others
