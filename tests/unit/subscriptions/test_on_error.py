"""A failure that the handler itself has raised to its emitter (H11)."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerCancelledError,
    HandlerErrors,
    HandlerFailedEventContext,
    HandlerGroup,
    HandlerTimeoutError,
    InvalidOptionError,
    SignalRegistry,
    on_event,
    register_handler,
)
from support.async_handlers import run
from support.outcomes import errors, logged, values
from support.waiting import LIMIT
from support.ways import Way, in_every_way

pytestmark = pytest.mark.guarantee("H11")

INLINE_AND_LATER = pytest.mark.parametrize("awaits", [False, True], ids=["emit", "emit_async"])


def fail() -> None:
    raise ValueError("on purpose")


async def fail_async() -> None:
    await asyncio.sleep(0)
    raise ValueError("on purpose")


# What the emitter gets


@in_every_way
async def test_its_failure_is_raised_after_all_handlers_have_run(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    """As under F2; it is logged, recorded and announced like any other."""
    error = ValueError("on purpose")
    called: list[str] = []
    emissions: list[Emission[Any]] = []

    async def note(emission: Emission[Any]) -> None:
        emissions.append(emission)
        called.append("another handler")

    way.signal.subscribe(way.failing(error), on_error="raise")
    way.signal.subscribe(way.handler(note))
    way.signals.subscribe("handler_failed", lambda: called.append("handler_failed"))
    with pytest.raises(ValueError, match="on purpose") as caught:
        await way.emit()
    assert caught.value is error
    assert called == ["another handler", "handler_failed"]
    assert [failure.exception for failure in emissions[0].failures] == [error]
    assert len(logged(caplog)) == 1


@in_every_way
async def test_the_failures_of_other_handlers_are_left_to_the_dispatcher(way: Way) -> None:
    """A dispatcher that logs raises none of them, one that raises raises all."""
    way.signal.subscribe(way.failing(KeyError))
    assert errors(await way.emit()) == [KeyError]
    way.signal.subscribe(way.failing(ValueError), on_error="raise")
    with pytest.raises(ValueError):
        await way.emit()
    with pytest.raises(HandlerErrors) as caught:
        await way.raising.emit()
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


@in_every_way
async def test_several_failures_come_in_one_group(way: Way) -> None:
    for error in (ValueError, KeyError, OSError):
        way.signal.subscribe(way.failing(error), on_error=None if error is KeyError else "raise")
    with pytest.raises(HandlerErrors, match="2 handlers of thing_happened failed") as caught:
        await way.emit()
    assert [type(error) for error in caught.value.exceptions] == [ValueError, OSError]


@in_every_way
async def test_a_predicate_that_raises_is_a_failure_too(way: Way) -> None:
    way.signal.subscribe(
        way.returning("guarded"), when=lambda context: context["missing"], on_error="raise"
    )
    with pytest.raises(KeyError):
        await way.emit()


@in_every_way
async def test_a_handler_that_returns_or_is_not_called_raises_nothing(way: Way) -> None:
    way.signal.subscribe(way.returning("fine"), on_error="raise")
    way.signal.subscribe(way.failing(), on_error="raise", sender="another")
    way.signal.subscribe(way.failing(), on_error="raise", when=lambda context: False)
    assert values(await way.emit()) == ["fine"]


@in_every_way
async def test_the_emitter_may_be_a_handler_itself(way: Way) -> None:
    """Whose failure it then is, to be raised no further."""

    async def emit_other(emission: Emission[Any]) -> None:
        await way.emit_inside(way.other)

    way.signal.subscribe(way.handler(emit_other))
    way.other.subscribe(way.failing(), on_error="raise")
    assert errors(await way.emit()) == [ValueError]


async def test_what_cannot_be_raised_as_it_is_comes_as_under_f2(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """A timeout, a cancellation and an end of an iteration."""

    async def slow() -> None:
        await asyncio.sleep(LIMIT)

    async def cancelled() -> None:
        raise asyncio.CancelledError

    def stop() -> None:
        raise StopIteration

    stories: list[tuple[Any, Any, type[BaseException]]] = [
        (slow, 0.001, HandlerTimeoutError),
        (cancelled, None, HandlerCancelledError),
        (stop, None, HandlerErrors),
    ]
    for handler, timeout, raised in stories:
        with (
            signal.subscribe(handler, timeout=timeout, on_error="raise"),
            pytest.raises(raised),
        ):
            await dispatcher.emit_async(signal)


# Handlers that run later


@pytest.mark.parametrize("in_a_loop", [False, True])
def test_an_async_handler_that_nobody_awaits_is_only_logged_and_recorded(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    in_a_loop: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The emitter has gone on; who waits for it may ask for it."""

    async def emit() -> Emission[Any]:
        emission = dispatcher.emit(signal)
        assert await emission.wait_async(LIMIT)
        return emission

    signal.subscribe(fail_async, on_error="raise")
    emission = run(emit()) if in_a_loop else dispatcher.emit(signal)
    assert emission.wait(LIMIT)
    assert errors(emission) == [ValueError]
    assert len(logged(caplog)) == 1
    with pytest.raises(ValueError, match="on purpose"):
        emission.raise_for_failures()


def test_a_predicate_that_raises_for_such_a_handler_does_so_in_the_emitter(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(fail_async, when=lambda context: context["missing"], on_error="raise")
    with pytest.raises(KeyError):
        dispatcher.emit(signal)


@pytest.mark.parametrize("options", [{"background": True}, {"batch": Batch()}], ids=str)
@pytest.mark.parametrize("handler", [fail, fail_async])
def test_a_handler_in_the_background_has_nobody_to_raise_to(
    signals: SignalRegistry, signal: EventSignal[Any], handler: Any, options: dict[str, Any]
) -> None:
    (other,) = options
    for subscribe in (
        lambda: signal.subscribe(handler, on_error="raise", **options),
        lambda: signals.subscribe("thing_*", handler, on_error="raise", **options),
        lambda: HandlerGroup("group").on("thing_happened", on_error="raise", **options),
    ):
        with pytest.raises(
            InvalidOptionError, match=f"no emitter to raise to.*: leave out on_error, or {other}$"
        ) as caught:
            subscribe()
        assert caught.value.option == "on_error"
    assert not signals.subscriptions


@pytest.mark.parametrize("value", ["log", True, "Raise", ValueError])
def test_any_other_value_is_refused(signal: EventSignal[Any], value: Any) -> None:
    with pytest.raises(InvalidOptionError, match="on_error must be 'raise', or None"):
        signal.subscribe(fail, on_error=value)


def test_it_goes_with_a_background_and_a_batch_that_are_left_out(signal: EventSignal[Any]) -> None:
    assert signal.subscribe(fail, on_error="raise", background=False, batch=None).active
    assert signal.subscribe(fail_async, on_error=None, background=True).on_error is None


# Where


@INLINE_AND_LATER
def test_the_end_of_a_deferred_block_raises_it(
    signal: EventSignal[Any], dispatcher: EventDispatcher, awaits: bool
) -> None:
    """After everything has gone out."""

    async def emit_async() -> None:
        async with dispatcher.deferred():
            emissions.append(await dispatcher.emit_async(signal, number=1))
            emissions.append(await dispatcher.emit_async(signal, number=2))

    def emit() -> None:
        with dispatcher.deferred():
            emissions.append(dispatcher.emit(signal, number=1))
            emissions.append(dispatcher.emit(signal, number=2))

    emissions: list[Emission[Any]] = []
    signal.subscribe(
        fail_async if awaits else fail, on_error="raise", when=lambda it: it["number"] == 1
    )
    with pytest.raises(ValueError, match="on purpose"):
        if awaits:
            run(emit_async())
        else:
            emit()
    assert [emission.state for emission in emissions] == ["done", "done"]


@INLINE_AND_LATER
def test_patterns_groups_and_decorators_take_it(
    signals: SignalRegistry, dispatcher: EventDispatcher, awaits: bool
) -> None:
    group = HandlerGroup("group")
    handler: Any = fail_async if awaits else fail

    def emit(event: str) -> None:
        emission = dispatcher.emit_async(event) if awaits else dispatcher.emit(event)
        if awaits:
            run(emission)  # type: ignore[arg-type]

    for event in ("decorated", "named", "grouped", "later.declared"):
        if event.startswith("later"):
            signals.subscribe("later.*", handler, on_error="raise")
        declared = signals.signal(event)
        if event == "decorated":
            declared.on(on_error="raise")(handler)
        elif event == "named":
            on_event(event, signals=signals, on_error="raise")(handler)
            subscription = register_handler(event, handler, signals=signals, on_error="raise")
            assert subscription.on_error == "raise"
        elif event == "grouped":
            group.on(event, on_error="raise")(handler)
            group.register(signals)
        with pytest.raises(ValueError, match="on purpose"):
            emit(event)


@INLINE_AND_LATER
@pytest.mark.parametrize("observed", [False, True])
def test_a_handler_of_handler_failed_raises_to_whoever_emits_that_itself(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    caplog: pytest.LogCaptureFixture,
    awaits: bool,
    observed: bool,
) -> None:
    """The emitter of an announcement is the dispatcher, which raises the failure itself, if any."""

    class Deferring:
        def emission(self, emission: Emission[Any]) -> Any:
            return dispatcher.deferred()  # so that the announcement is held back

        def handling(self, emission: Emission[Any], handler: Any) -> Any:
            return nullcontext()

    def emit(event: Any, **context: Any) -> Emission[Any]:
        if not awaits:
            return dispatcher.emit(event, **context)
        emission: Emission[Any] = run(dispatcher.emit_async(event, **context))
        return emission

    context = HandlerFailedEventContext(event_name="a", handler_name="b", exception_type="c")
    signals.subscribe("handler_failed", fail_async if awaits else fail, on_error="raise")
    signal.subscribe(lambda: {}["missing"])
    if observed:
        dispatcher.add_observer(Deferring())
    assert errors(emit(signal)) == [KeyError]
    assert dispatcher.drain(LIMIT)
    assert len(logged(caplog)) == 2
    if not observed:
        with pytest.raises(ValueError, match="on purpose"):
            emit("handler_failed", **dict(context))


def test_a_once_that_fails_is_used_up(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    signal.subscribe(fail, once=True, on_error="raise")
    with pytest.raises(ValueError, match="on purpose"):
        dispatcher.emit(signal)
    assert dispatcher.emit(signal).ok


def test_the_next_emission_works(signal: EventSignal[Any], dispatcher: EventDispatcher) -> None:
    """Nothing of the one that raised is left."""
    subscription = signal.subscribe(fail, on_error="raise")
    signal.subscribe(lambda: "fine", background=True)
    with pytest.raises(ValueError, match="on purpose"):
        dispatcher.emit(signal)
    subscription.cancel()
    emission = dispatcher.emit(signal)
    assert emission.wait(LIMIT)
    assert (emission.ok, values(emission)) == (True, ["fine"])
