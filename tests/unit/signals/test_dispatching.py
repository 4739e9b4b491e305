"""A registry has a dispatcher, for emitters that name none (E6)."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    InvalidOptionError,
    SignalRegistry,
    TimingObserver,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    set_event_dispatcher,
)
from support.async_handlers import run
from support.subscribers import OrderPlaced

pytestmark = pytest.mark.guarantee("E6")


def test_the_dispatcher_of_a_registry_is_the_first_that_was_made_for_it(
    signals: SignalRegistry,
) -> None:
    first, second = EventDispatcher(signals), EventDispatcher(signals)
    assert signals.dispatcher is first
    signals.dispatcher = second
    assert signals.dispatcher is second
    signals.dispatcher = sibling = first.with_options(on_error="raise")
    assert signals.dispatcher is sibling
    assert SignalRegistry().dispatcher not in (first, second)


def test_a_registry_without_a_dispatcher_makes_one(signals: SignalRegistry) -> None:
    dispatcher = signals.dispatcher
    assert dispatcher.signals is signals
    assert EventDispatcher(signals) is not dispatcher
    assert signals.dispatcher is dispatcher


def test_a_first_dispatcher_that_is_dropped_unused_does_not_count(signals: SignalRegistry) -> None:
    EventDispatcher(signals, queue_size=3)
    gc.collect()
    second = EventDispatcher(signals)
    assert signals.dispatcher is second
    del second
    gc.collect()
    assert signals.dispatcher is signals.dispatcher, "it is in use, and kept"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_first_dispatcher_that_is_closed_makes_room(
    signals: SignalRegistry, *, is_async: bool
) -> None:
    """As that of an application which a test starts and stops, before the next test does."""

    async def use_async(dispatcher: EventDispatcher, *, uses: bool) -> None:
        async with dispatcher.with_options():
            assert not uses or signals.dispatcher is dispatcher

    def use(dispatcher: EventDispatcher, *, uses: bool) -> None:
        if is_async:
            run(use_async(dispatcher, uses=uses))
            return
        with dispatcher:
            assert not uses or signals.dispatcher is dispatcher

    unused, first, second = EventDispatcher(signals), None, None
    use(unused, uses=False)
    first = EventDispatcher(signals)
    use(first, uses=True)
    second = EventDispatcher(signals)
    assert signals.dispatcher is second
    use(EventDispatcher(signals), uses=False)
    assert signals.dispatcher is second


def test_a_dispatcher_that_was_chosen_or_made_by_the_registry_stays_when_it_is_closed(
    signals: SignalRegistry,
) -> None:
    own = signals.dispatcher
    own.close()
    assert signals.dispatcher is own
    signals.dispatcher = chosen = EventDispatcher(signals)
    chosen.close()
    assert signals.dispatcher is chosen


@pytest.mark.parametrize("wrong", [None, "mine", EventDispatcher, SignalRegistry()])
def test_a_registry_takes_no_other_thing(signals: SignalRegistry, wrong: Any) -> None:
    with pytest.raises(InvalidOptionError, match=r"of its own events: give EventDispatcher\(reg"):
        signals.dispatcher = wrong


def test_a_dispatcher_of_another_registry_is_refused(signals: SignalRegistry) -> None:
    default, other = get_event_dispatcher(), EventDispatcher(signals)
    with pytest.raises(InvalidOptionError, match="the dispatcher of madcrow_signals must be an Ev"):
        madcrow_signals.dispatcher = other
    with pytest.raises(InvalidOptionError, match="of madcrow_signals must be") as caught:
        set_event_dispatcher(other)
    assert caught.value.option == "dispatcher"
    assert get_event_dispatcher() is default is madcrow_signals.dispatcher


def test_the_first_dispatcher_of_the_default_registry_is_the_default_dispatcher() -> None:
    dispatcher = EventDispatcher(on_error="raise")
    madcrow_signals.signal("order_placed").subscribe(lambda: 1 / 0)
    assert get_event_dispatcher() is madcrow_signals.dispatcher is dispatcher
    with pytest.raises(ZeroDivisionError):
        emit_event("order_placed")
    set_event_dispatcher(None)
    assert get_event_dispatcher() is not dispatcher
    assert not emit_event("order_placed").ok


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("is_used", [False, True])
def test_an_isolated_block_restores_the_dispatcher_and_its_observers(
    signals: SignalRegistry, *, empty: bool, is_used: bool
) -> None:
    first, before, during = EventDispatcher(signals), TimingObserver(), TimingObserver()
    first.add_observer(before)
    if is_used:
        assert signals.dispatcher is first
    with signals.isolated(empty=empty), signals.isolated(empty=empty):
        assert (signals.dispatcher is first) is not empty
        first.remove_observer(before)
        signals.dispatcher = other = EventDispatcher(signals)
        first.add_observer(during)
        signals.signal("order_placed")
        first.close()
        assert signals.dispatcher is other
    assert signals.dispatcher is first
    signals.signal("order_paid")
    signals.dispatcher.emit("order_paid")
    assert [it.event for it in before.snapshot().events] == ["order_paid"]
    assert not during.snapshot().events


def test_a_registry_is_copied_with_its_dispatcher_and_never_pickled(
    signals: SignalRegistry,
) -> None:
    assert copy.deepcopy(signals).dispatcher is signals.dispatcher
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(signals)


def test_threads_that_ask_at_once_get_one_dispatcher(
    signals: SignalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    meeting = threading.Barrier(4)
    init = EventDispatcher.__init__

    def slow_init(self: EventDispatcher, *arguments: Any, **options: Any) -> None:
        meeting.wait(10)
        init(self, *arguments, **options)

    monkeypatch.setattr(EventDispatcher, "__init__", slow_init)
    found: list[EventDispatcher] = []
    threads = [threading.Thread(target=lambda: found.append(signals.dispatcher)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [signals.dispatcher] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are of POSIX")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_emits_through_the_same_dispatcher(signals: SignalRegistry) -> None:
    signals.event(OrderPlaced)
    placed, dispatcher = signals[OrderPlaced], signals.dispatcher
    placed.subscribe(lambda order_id: order_id, background=True)
    assert placed.emit(OrderPlaced(order_id=7)).wait(10)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            emission = placed.emit(OrderPlaced(order_id=8))
            done = emission.wait(10) and emission.dispatcher is signals.dispatcher is dispatcher
            status = 0 if done and emission.results[0].value == 8 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    dispatcher.close()
