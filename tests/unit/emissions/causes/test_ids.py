"""Ids of emissions (B5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import RFC_4122, UUID

import pytest

from madcrow_events import (
    BaseEventContext,
    Emission,
    EventDispatcher,
    EventSignal,
    SignalRegistry,
    current_event,
    event_scope,
)
from support.causes import is_caused_by
from support.inside import making_ids
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B5")


class Numbered(BaseEventContext):
    number: int


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """Return the ids that are made from now on."""
    ids: list[UUID] = []
    make = making_ids._uuid7

    def noting(moment: int) -> UUID:
        ids.append(make(moment))
        return ids[-1]

    monkeypatch.setattr(making_ids, "_uuid7", noting)
    return ids


def milliseconds(identity: UUID) -> int:
    return identity.int >> 80


# Ids


def test_an_id_is_a_uuid_of_version_7(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """It holds the time in milliseconds since 1970."""
    before = time.time_ns() // 1_000_000
    identity = dispatcher.emit(signal).id
    after = time.time_ns() // 1_000_000
    assert type(identity) is UUID
    assert (identity.version, identity.variant) == (7, RFC_4122)
    assert before <= milliseconds(identity) <= after


def test_an_id_stays_the_same(signal: EventSignal[Any], dispatcher: EventDispatcher) -> None:
    """Each emission has its own, whatever it carries."""
    first, second = dispatcher.emit(signal, number=1), dispatcher.emit(signal, number=1)
    assert first.id == first.id != second.id == second.id


def test_ids_grow_in_the_order_in_which_they_are_first_asked_for(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Also a thousand of the same millisecond, as numbers and as text."""
    ids = [dispatcher.emit(signal).id for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert [str(identity) for identity in ids] == sorted(str(identity) for identity in ids)


@pytest.mark.parametrize(
    ("moment", "field"),
    [(0, 0), (1, 1), (999_999, 999_999), (1_000_000, 0), (1_784_000_000_123_456_789, 456_789)],
)
def test_an_id_holds_the_moment_to_the_nanosecond(moment: int, field: int) -> None:
    """Milliseconds in 48 bits, the rest in the 20 bits after them that are not fixed."""
    identity = making_ids._uuid7(moment)
    assert milliseconds(identity) == moment // 1_000_000
    assert (identity.int >> 64 & 0xFFF) << 8 | identity.int >> 54 & 0xFF == field
    assert (identity.version, identity.variant) == (7, RFC_4122)


def test_two_ids_of_one_moment_differ() -> None:
    """As those of two processes may be; 54 bits are random."""
    ids = {making_ids._uuid7(5) for _ in range(1000)}
    assert len(ids) == 1000
    assert len({identity.int & (1 << 54) - 1 for identity in ids}) == 1000


@pytest.mark.parametrize("setting", [lambda now: now - 3_600 * 10**9, lambda now: now, lambda _: 0])
def test_ids_grow_though_the_clock_is_set_back_or_stands_still(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    monkeypatch: pytest.MonkeyPatch,
    setting: Callable[[int], int],
) -> None:
    """Time goes on from the latest moment there was; once the clock is ahead it counts again."""
    monkeypatch.setattr(making_ids, "_last_moment", list(making_ids._last_moment))
    now = time.time_ns()
    before = dispatcher.emit(signal).id
    with monkeypatch.context() as patch:
        patch.setattr(making_ids.time, "time_ns", lambda: setting(now))
        after = [dispatcher.emit(signal).id for _ in range(100)]
        patch.setattr(making_ids.time, "time_ns", lambda: now + 60 * 10**9)
        ahead = dispatcher.emit(signal).id
    ids = [before, *after, ahead]
    assert ids == sorted(set(ids))
    assert milliseconds(ahead) == (now + 60 * 10**9) // 1_000_000


def test_no_id_is_made_when_none_is_read(
    signals: SignalRegistry,
    signal: EventSignal[Any],
    inner: EventSignal[Any],
    dispatcher: EventDispatcher,
    made: list[UUID],
) -> None:
    """Whatever handlers there are, and whatever fails; one that is read makes one."""

    def fail() -> None:
        raise ValueError

    async def emit_later() -> None:
        await asyncio.sleep(0)
        await dispatcher.emit_async(inner)

    async def emit_in_background() -> None:
        await emit_later()

    signals.subscribe("handler_failed", lambda: None)
    signal.subscribe(lambda: dispatcher.emit(inner))
    signal.subscribe(lambda: dispatcher.emit(inner), background=True)
    signal.subscribe(emit_later)
    signal.subscribe(emit_in_background, background=True, priority=1)
    signal.subscribe(fail)
    inner.subscribe(fail)

    async def main() -> Emission[Any]:
        with event_scope(request_id="1"), dispatcher.deferred():
            dispatcher.emit(signal)
        emission = dispatcher.emit(signal)
        with emission.as_cause():
            await dispatcher.emit_async(signal)
        await dispatcher.drain_async(LIMIT)
        return emission

    emission = asyncio.run(main())
    repr(emission)
    assert made == []
    assert made == [emission.id] == [emission.id]
    assert emission.correlation_id == emission.id
    assert emission.causation_id is None
    assert len(made) == 1


def test_without_background_nothing_is_noted_of_causes(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Inline handlers cost nothing more than if there were no ids."""
    seen: list[Emission[Any]] = []
    signal.subscribe(lambda: seen.append(dispatcher.emit(inner)))
    seen.append(dispatcher.emit(signal))
    assert [hasattr(emission, "_ids") for emission in seen] == [False, False]


def test_a_cause_that_was_not_read_gets_an_id_below(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Whichever is asked for first, from outside or in the handler."""
    seen: list[Emission[Any]] = []

    def handler() -> None:
        seen.append(dispatcher.emit(inner))

    signal.subscribe(handler)
    first = dispatcher.emit(signal)
    (caused,) = seen
    other = dispatcher.emit(signal)
    assert other.id < caused.id
    assert first.id < caused.id
    assert is_caused_by(caused, first, first)


def test_the_handlers_own_emission_has_the_same_id(
    signal: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """Be it the current one, or a twin with a validated context."""
    seen: list[UUID] = []

    def by_emission(emission: Emission[Any]) -> None:
        seen.append(emission.id)

    def by_current() -> None:
        emission = current_event()
        assert emission is not None
        seen.append(emission.id)

    def by_twin(emission: Emission[Numbered]) -> None:
        assert isinstance(emission.context, Numbered)
        seen.append(emission.id)

    for handler in (by_twin, by_emission, by_current):
        signal.subscribe(handler)
    emission = dispatcher.emit(signal, number=1)
    assert emission.ok
    assert seen == [emission.id] * 3


def test_what_is_dropped_or_sent_has_an_id_too(
    signal: EventSignal[Any], inner: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    """An emission of `signal.send`, and one that its `deferred` block gave up."""
    seen: list[Emission[Any]] = []

    def handler(emission: Emission[Any]) -> None:
        seen.append(emission)
        seen.append(dispatcher.emit(inner))

    signal.subscribe(handler)
    signal.send()
    sent, caused = seen
    assert is_caused_by(caused, sent, sent)
    with dispatcher.deferred() as deferral:
        dropped = dispatcher.emit(signal)
        assert dropped.causation_id is None
        identity = dropped.id
        deferral.discard()
    assert dropped.state == "dropped"
    assert dropped.id == dropped.correlation_id == identity


# Causes
