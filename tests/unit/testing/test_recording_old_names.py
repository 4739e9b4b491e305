"""Recorders and their assertions know events by their old names (N8)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from madcrow_events import EventDispatcher, EventSignal, SignalRegistry, UnknownEventError
from madcrow_events.testing import Recorder, fake_events, record_events
from support.inside import take_back
from support.subscribers import OrderPlaced

pytestmark = [
    pytest.mark.guarantee("N8"),
    pytest.mark.filterwarnings("ignore:the event .* is called .* now:DeprecationWarning"),
]


@pytest.fixture
def placed(signals: SignalRegistry) -> EventSignal[OrderPlaced]:
    return signals.signal("order_placed", context=OrderPlaced, formerly="order_made")


def events_of(recorder: Recorder) -> list[str]:
    return [it.event for it in recorder.emissions]


@pytest.mark.parametrize("recorded", ["order_made", "order-made", "order_m*", "*", "order_placed"])
@pytest.mark.parametrize("emitted", ["order_made", "order_placed"])
@pytest.mark.parametrize("asserted", ["order-made", "order_placed"])
def test_an_event_is_recorded_and_asserted_by_any_of_its_names(
    signals: SignalRegistry,
    placed: EventSignal[Any],
    dispatcher: EventDispatcher,
    recorded: str,
    emitted: str,
    asserted: str,
) -> None:
    def handler(order_id: int) -> None: ...

    placed.subscribe(handler)
    with record_events(recorded, signals=signals) as events:
        emission = dispatcher.emit(emitted, order_id=7)
        assert events.wait_for(asserted) is emission
        assert asyncio.run(events.wait_for_async(asserted, order_id=7)) is emission
    assert events_of(events) == ["order_placed"]
    assert events.assert_emitted(asserted, times=1, order_id=7) is emission
    events.assert_not_emitted(asserted, order_id=8)
    events.assert_handled_by(asserted, handler)


def test_assertions_that_fail_name_the_event_as_it_is_called_now(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    with record_events("order_made", signals=signals) as events:
        for fails in (
            lambda: events.assert_emitted("order_made", order_id=7),
            lambda: events.wait_for("order_made", timeout=0.01),
            lambda: events.assert_handled_by("order_made", print),
        ):
            with pytest.raises(AssertionError, match=r"^order_placed.* was not "):
                fails()
        dispatcher.emit("order_made", order_id=7)
        with pytest.raises(AssertionError, match=r"^order_placed was emitted once"):
            events.assert_not_emitted("order_made")
        with pytest.raises(AssertionError, match="has no field order: did you mean order_id"):
            events.assert_emitted("order_made", order=7)
        signals.signal("order_sent")
        with pytest.raises(AssertionError, match="order_sent is not recorded, only order_placed"):
            events.assert_emitted("order_sent")
        with pytest.raises(UnknownEventError, match="or order_made"):
            events.assert_emitted("orderpmade")


@pytest.mark.parametrize("faked", ["order_made", "order_m*", "order_placed"])
def test_an_event_is_faked_by_any_of_its_names(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher, faked: str
) -> None:
    placed.subscribe(lambda: "heard")
    with fake_events(faked, signals=signals) as events:
        assert not dispatcher.emit("order_made", order_id=7).results
    events.assert_emitted("order_made")
    assert dispatcher.emit("order_made", order_id=7).results


@pytest.mark.parametrize("is_faked", [True, False])
@pytest.mark.parametrize("recorded", ["order_made", "order_m*", "*"])
@pytest.mark.parametrize("is_own", [True, False])
def test_an_event_that_is_renamed_in_the_block_is_recorded_on(
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    is_faked: bool,
    recorded: str,
    is_own: bool,
) -> None:
    placed = signals.signal("order_placed")
    if is_own or recorded == "order_made":
        signals.signal("order_made").subscribe(lambda: "heard")
    else:
        placed.subscribe(lambda: "heard")
    record = fake_events if is_faked else record_events
    with record(recorded, signals=signals) as events:
        if "order_made" in signals:
            dispatcher.emit("order_made", number=1)
        signals.signal("order_placed", formerly="order_made")
        emission = dispatcher.emit("order_made", number=2)
        assert len(emission.results) == (not is_faked)
    events.assert_emitted("order_made", number=2)
    assert set(events_of(events)) == {"order_placed"}
    assert len(dispatcher.emit("order_placed").results) == 1
    assert len(signals["order_placed"].subscriptions) == 1


def test_an_event_whose_old_name_is_taken_back_in_a_block_is_faked_no_longer_than_the_block(
    signals: SignalRegistry, placed: EventSignal[Any], dispatcher: EventDispatcher
) -> None:
    placed.subscribe(lambda: "heard")
    with fake_events("order_ma*", signals=signals):
        take_back(signals, ["order_made"])
        dispatcher.emit("order_placed", order_id=1)
    assert dispatcher.emit("order_placed", order_id=1).results


def test_a_wait_for_an_event_that_is_renamed_meanwhile_ends(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("order_made")
    with record_events(signals=signals) as events:
        waits = threading.Event()

        def rename() -> None:
            assert waits.wait(5)
            signals.signal("order_placed", formerly="order_made")
            dispatcher.emit("order_placed", number=1)

        def where(context: Any) -> bool:
            waits.set()
            return bool(context["number"])

        thread = threading.Thread(target=rename)
        thread.start()
        dispatcher.emit("order_made", number=0)
        assert events.wait_for("order_made", 5, where=where).event == "order_placed"
        thread.join()
