"""Ids that the emitter has chosen, for the wings that store events (K3)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from madcrow_events import Emission, EventDispatcher, EventSignal
from support.inside import finding_causes

pytestmark = pytest.mark.guarantee("K3")

CHOSEN = UUID(int=7)


def test_an_emission_that_is_held_back_can_be_given_its_id(
    dispatcher: EventDispatcher, signal: EventSignal[Any]
) -> None:
    """Its handlers, and what they emit, know it by that id."""
    nested: list[Emission[Any]] = []
    other = dispatcher.signals.signal("other")
    signal.subscribe(lambda: nested.append(dispatcher.emit(other)))
    with dispatcher.deferred():
        emission = dispatcher.emit(signal)
        finding_causes.give_id(emission, CHOSEN)
    assert emission.id == emission.correlation_id == CHOSEN
    assert emission.causation_id is None
    (inner,) = nested
    assert (inner.causation_id, inner.correlation_id) == (CHOSEN, CHOSEN)
    assert inner.cause is emission


def test_its_causes_stay_as_they_are(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> None:
    other = dispatcher.signals.signal("other")

    def emit() -> Emission[Any]:
        with dispatcher.deferred():
            emission = dispatcher.emit(other)
            finding_causes.give_id(emission, CHOSEN)
            return emission

    signal.subscribe(emit)
    outer = dispatcher.emit(signal)
    emission = outer.results[0].value
    assert emission.id == CHOSEN
    assert emission.causation_id == emission.correlation_id == outer.id


def test_an_emission_has_one_id(dispatcher: EventDispatcher, signal: EventSignal[Any]) -> None:
    with dispatcher.deferred():
        emission = dispatcher.emit(signal)
        known = emission.id
        with pytest.raises(RuntimeError, match="has its id already"):
            finding_causes.give_id(emission, CHOSEN)
    assert emission.id == known
