"""Depth, and chains that never end, in every way of emitting (F5)."""

from __future__ import annotations

from typing import Any

import pytest

from madcrow_events import Emission, EmissionDepthError, EventSignal, current_event
from support.outcomes import errors, logged, values
from support.ways import Way, in_every_way

RUNAWAY = 10_000
"""More calls than any chain may make; handlers stop emitting here, so that a test can fail."""


@pytest.mark.guarantee("F5")
@pytest.mark.parametrize("swallow", [False, True])
@pytest.mark.parametrize("number", [1, 2, pytest.param(3, marks=pytest.mark.soak)])
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
    assert len(depths) <= (RUNAWAY if way.kind.is_async else 64 * number * number)
    (failure,) = emission.failures
    error = failure.exception
    assert isinstance(error, EmissionDepthError)
    assert isinstance(error, RecursionError)
    assert error.events == ("thing_happened",) * 6
    assert failure.handler is handlers[0]
    assert len(logged(caplog)) == 1
    assert max(depths) == 63
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
