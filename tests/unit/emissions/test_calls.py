"""The call loops: isolation, cancellation, snapshots and depth (F)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EmissionDepthError,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    HandlerErrors,
    HandlerFailedEventContext,
    SignalRegistry,
    current_event,
)
from support.outcomes import logged


def fail() -> None:
    raise ValueError("on purpose")


@pytest.mark.guarantee("F1")
def test_a_failing_handler_stops_no_other_and_is_recorded_and_logged_once(
    signal: EventSignal[Any], dispatcher: EventDispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    signal.subscribe(lambda: "before")
    signal.subscribe(fail)
    signal.subscribe(lambda: "after")
    emission = dispatcher.emit(signal)
    assert [result.value for result in emission.results] == ["before", "after"]
    (failure,) = emission.failures
    assert failure.handler is fail
    assert isinstance(failure.exception, ValueError)
    assert not emission.ok
    assert logged(caplog) == [
        "handler tests.unit.emissions.test_calls.fail of thing_happened failed: ValueError"
    ]


@pytest.mark.guarantee("F1")
@pytest.mark.parametrize("shapes", ["together", "mixed"])
def test_failures_are_isolated_in_every_way_of_calling(
    signals: SignalRegistry, dispatcher: EventDispatcher, shapes: str
) -> None:
    from madcrow_events import LoginEventContext

    def keywords(sender: Any, **context: Any) -> None:
        raise KeyError

    def context(context: LoginEventContext) -> None:
        raise TypeError

    def by_name(email: str) -> None:
        raise IndexError

    signal = signals.signal("user_logged_in", context=LoginEventContext)
    expected: list[type[BaseException]] = []
    for number in range(9):
        handler, error = [(keywords, KeyError), (context, TypeError), (by_name, IndexError)][
            number // 3 if shapes == "together" else number % 3
        ]
        expected.append(error)
        signals.subscribe(signal, lambda *a, **k: None, priority=9 - number, sender=None)
        signals.subscribe(
            signal, handler, priority=9 - number, sender=("key", number, "of", "many")
        ).cancel()
        signals.subscribe(signal, _copy(handler), priority=9 - number)
    typed = dispatcher.emit_typed(signal, LoginEventContext(user_id=1, email="e"))
    loose = dispatcher.emit(signal, user_id=1, email="e")
    for emission in (typed, loose):
        assert [type(failure.exception) for failure in emission.failures] == expected


def _copy(handler: Any) -> Any:
    import types

    copied = types.FunctionType(
        handler.__code__,
        handler.__globals__,
        handler.__name__,
        handler.__defaults__,
        handler.__closure__,
    )
    copied.__annotations__ = {
        name: eval(text, handler.__globals__, _models()) if isinstance(text, str) else text  # noqa: S307
        for name, text in handler.__annotations__.items()
    }
    return copied


def _models() -> dict[str, Any]:
    from madcrow_events import LoginEventContext

    return {"LoginEventContext": LoginEventContext}


@pytest.mark.guarantee("F1")
def test_each_failure_is_announced_after_the_last_handler(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    order: list[Any] = []

    def announced(context: HandlerFailedEventContext) -> None:
        order.append((context.event_name, context.handler_name, context.exception_type))

    signals.subscribe("handler_failed", announced)
    signal.subscribe(fail)
    signal.subscribe(lambda: 1 / 0)
    signal.subscribe(lambda: order.append("last handler"))
    dispatcher.emit(signal)
    assert order[0] == "last handler"
    assert order[1] == ("thing_happened", "tests.unit.emissions.test_calls.fail", "ValueError")
    assert order[2][2] == "ZeroDivisionError"
    assert len(order) == 3


@pytest.mark.guarantee("F1")
def test_a_failure_in_a_handler_of_handler_failed_is_not_announced(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    calls: list[str] = []

    def failing(event_name: str) -> None:
        calls.append(event_name)
        dispatcher.emit("other_thing")
        raise ValueError

    signals.signal("other_thing").subscribe(fail)
    signals.subscribe("handler_failed", failing)
    signal.subscribe(fail)
    for policy in (dispatcher, dispatcher.with_options(on_error="raise")):
        calls.clear()
        try:
            policy.emit(signal)
        except ValueError as error:
            assert str(error) == "on purpose"  # noqa: PT017  # only one of the two raises
        assert calls == ["thing_happened"]


@pytest.mark.guarantee("F2")
def test_the_emitter_sees_nothing_of_it_unless_it_asks(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(fail)
    emission = dispatcher.emit(signal)
    with pytest.raises(ValueError, match="on purpose"):
        emission.raise_for_failures()
    signal.unsubscribe(fail)
    dispatcher.emit(signal).raise_for_failures()


@pytest.mark.guarantee("F2")
def test_a_raising_dispatcher_raises_after_all_ran(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    raising = dispatcher.with_options(on_error="raise")
    calls: list[str] = []
    signal.subscribe(fail)
    signal.subscribe(lambda: calls.append("ran"))
    with pytest.raises(ValueError, match="on purpose") as single:
        raising.emit(signal)
    assert type(single.value) is ValueError
    assert calls == ["ran"]
    signal.subscribe(lambda: 1 / 0)
    with pytest.raises(HandlerErrors) as several:
        raising.emit(signal)
    assert several.value.event == "thing_happened"
    assert [type(error) for error in several.value.exceptions] == [ValueError, ZeroDivisionError]
    matched, rest = several.value.split(ValueError)
    assert isinstance(matched, HandlerErrors)
    assert isinstance(rest, HandlerErrors)
    assert matched.event == "thing_happened"
    assert dispatcher.on_error == "log"


@pytest.mark.guarantee("F3")
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_goes_through_and_the_next_emission_works(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    error: type[BaseException],
) -> None:
    after: list[str] = []

    def interrupted() -> None:
        raise error

    signal.subscribe(fail)
    subscription = signal.subscribe(interrupted)
    signal.subscribe(lambda: after.append("ran"))
    with pytest.raises(error):
        dispatcher.emit(signal)
    assert len(logged(caplog)) == 1, "the failure before it must not be lost"
    assert current_event() is None
    assert after == []
    subscription.cancel()
    assert dispatcher.emit(signal).depth == 0
    assert after == ["ran"]


@pytest.mark.guarantee("F3")
def test_a_handler_that_raises_cancelled_error_is_a_failed_handler(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def cancelled() -> None:
        raise asyncio.CancelledError

    signal.subscribe(cancelled)
    signal.subscribe(lambda: "after")

    async def main() -> Emission[Any]:
        return dispatcher.emit(signal)

    emission = asyncio.run(main())
    assert isinstance(emission.failures[0].exception, asyncio.CancelledError)
    assert emission.results[0].value == "after"
    with pytest.raises(HandlerCancelledError, match="nobody had cancelled its caller") as caught:
        dispatcher.with_options(on_error="raise").emit(signal)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    signal.subscribe(fail)
    with pytest.raises(HandlerErrors) as several:
        dispatcher.with_options(on_error="raise").emit(signal)
    assert [type(error) for error in several.value.exceptions] == [
        HandlerCancelledError,
        ValueError,
    ]


@pytest.mark.guarantee("F4")
def test_an_emission_calls_nobody_who_came_after_it_began(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def late() -> str:
        return "late"

    signal.subscribe(lambda: signal.subscribe(late) and "first")
    assert [result.value for result in dispatcher.emit(signal).results] == ["first"]
    assert [result.value for result in dispatcher.emit(signal).results] == ["first", "late"]


@pytest.mark.guarantee("F4")
def test_a_handler_may_cancel_itself_and_others(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def first() -> str:
        mine.cancel()
        other.cancel()
        return "first"

    mine = signal.subscribe(first)
    other = signal.subscribe(lambda: "other")
    dispatcher.emit(signal)
    assert dispatcher.emit(signal).results == ()


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_handlers_that_emit_their_own_event_end_at_once_with_one_error(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    number: int,
    swallow: bool,
) -> None:
    calls: list[int] = []

    def make(index: int) -> Any:
        def handler(emission: Emission[Any]) -> None:
            calls.append(emission.depth)
            try:
                dispatcher.emit("thing_happened")
            except EmissionDepthError:
                if not swallow:
                    raise

        return handler

    for index in range(number):
        signal.subscribe(make(index))
    emission = dispatcher.emit(signal)
    (failure,) = emission.failures
    error = failure.exception
    assert isinstance(error, EmissionDepthError)
    assert isinstance(error, RecursionError)
    assert error.events == ("thing_happened",) * 6
    assert failure.handler is signal.subscriptions[0].handler
    assert len(logged(caplog)) == 1
    assert max(calls) == 63
    assert len(calls) <= 64 * number * number
    assert not emission.ok
    assert current_event() is None


@pytest.mark.guarantee("F5")
def test_two_events_that_cause_each_other_end_and_are_named(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("ping").subscribe(lambda: dispatcher.emit("pong"))
    signals.signal("pong").subscribe(lambda: dispatcher.emit("ping"))
    (failure,) = dispatcher.emit("ping").failures
    assert isinstance(failure.exception, EmissionDepthError)
    assert failure.exception.events == ("pong", "ping", "pong", "ping", "pong", "ping")
    assert "pong > ping" in str(failure.exception)
    with pytest.raises(EmissionDepthError):
        dispatcher.with_options(on_error="raise").emit("ping")


@pytest.mark.guarantee("F5")
def test_sixty_four_levels_are_allowed(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    depths: list[int] = []

    def handler(emission: Emission[Any]) -> None:
        depths.append(emission.depth)
        if emission.depth < 63:
            dispatcher.emit(signal)

    signal.subscribe(handler)
    assert dispatcher.emit(signal).ok
    assert depths == list(range(64))


@pytest.mark.guarantee("F5")
def test_a_failure_at_the_deepest_level_is_still_announced(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    announced: list[str] = []

    def handler(emission: Emission[Any]) -> None:
        if emission.depth < 63:
            dispatcher.emit(signal)
        else:
            fail()

    signals.subscribe("handler_failed", lambda exception_type: announced.append(exception_type))
    signal.subscribe(handler)
    assert dispatcher.emit(signal).ok
    assert announced == ["ValueError"]


@pytest.mark.guarantee("F5")
def test_every_later_emission_of_a_broken_chain_raises_and_the_outermost_goes_on(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    refused: list[str] = []
    signals.signal("harmless").subscribe(lambda: "heard")

    def looping(emission: Emission[Any]) -> None:
        try:
            dispatcher.emit(signal)
        finally:
            try:
                dispatcher.emit("harmless")
            except EmissionDepthError:
                refused.append(emission.event)

    def remaining(emission: Emission[Any]) -> Any:
        return dispatcher.emit("harmless").results if emission.depth == 0 else None

    signal.subscribe(looping)
    signal.subscribe(remaining)
    emission = dispatcher.emit(signal)
    assert len(refused) == 64
    assert len(emission.failures) == 1
    (result,) = emission.results
    assert result.value[0].value == "heard"


@pytest.mark.guarantee("F5")
def test_other_failures_within_a_broken_chain_are_recorded_where_they_happen(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def looping() -> None:
        dispatcher.emit(signal)

    signals.subscribe("handler_failed", lambda: None)
    signal.subscribe(looping)
    signal.subscribe(fail)
    emission = dispatcher.emit(signal)
    assert {type(failure.exception) for failure in emission.failures} == {
        EmissionDepthError,
        ValueError,
    }
    assert len(logged(caplog)) == 1 + 64


@pytest.mark.guarantee("F5")
def test_a_broken_chain_that_handlers_swallow_still_fails_a_send(
    signal: EventSignal[Any],
) -> None:
    def handler() -> None:
        try:
            signal.send()
        except EmissionDepthError:
            pass

    signal.subscribe(handler)
    with pytest.raises(EmissionDepthError):
        signal.send()
    signal.unsubscribe(handler)
    signal.subscribe(lambda: signal.send())
    with pytest.raises(EmissionDepthError):
        signal.send()
    assert current_event() is None


@pytest.mark.guarantee("F5")
def test_depth_counts_unfinished_ancestors_only(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    seen: list[Any] = []

    async def later() -> None:
        seen.append(current_event())
        seen.append(dispatcher.emit(signal))

    def handler(emission: Emission[Any]) -> None:
        if not tasks:
            tasks.append(asyncio.get_running_loop().create_task(later()))

    tasks: list[asyncio.Task[None]] = []
    signal.subscribe(handler)

    async def main() -> None:
        dispatcher.emit(signal)
        await tasks[0]

    asyncio.run(main())
    assert seen[0] is None
    assert seen[1].depth == 0
    assert seen[1].parent is None


@pytest.mark.guarantee("F6")
def test_no_lock_is_held_while_a_handler_a_predicate_or_a_send_runs(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    def from_another_thread() -> bool:
        def use() -> None:
            signal.subscribe(lambda: None, sender="nobody").cancel()
            signals.signal("declared_meanwhile")
            signals.subscribe("z*", lambda: None).cancel()
            done.append(True)

        done: list[bool] = []
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(timeout=5)
        return bool(done)

    signal.subscribe(from_another_thread, when=lambda context: from_another_thread())
    signal.subscribe(lambda: from_another_thread(), once=True, sender=None)
    assert dispatcher.emit(signal).results[0].value is True
    assert [value for _, value in signal.send()] == [True, True]


@pytest.mark.guarantee("E2")
def test_nested_emissions_know_their_parents(
    signals: SignalRegistry, signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    seen: list[Any] = []

    def inner(emission: Emission[Any]) -> None:
        seen.append((emission.event, emission.depth, emission.parent))
        assert current_event() is emission

    def outer(emission: Emission[Any]) -> None:
        assert current_event() is emission
        dispatcher.emit("inner_thing")
        assert current_event() is emission

    signals.signal("inner_thing").subscribe(inner)
    signal.subscribe(outer)
    emission = dispatcher.emit(signal)
    assert seen == [("inner_thing", 1, emission)]
    assert current_event() is None
