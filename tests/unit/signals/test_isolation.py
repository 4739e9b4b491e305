"""Whatever happens to a registry in an isolated block is undone."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import EventDispatcher, SignalRegistry, madcrow_signals
from support.inside import isolate_too, patterns_of, senders_of, table_of
from support.subscribers import OrderPlaced


def test_isolated_restores_events_handlers_and_patterns(signals: SignalRegistry) -> None:
    calls: list[str] = []
    kept = signals.signal("kept")
    before = kept.subscribe(lambda: calls.append("before"), once=True)
    pattern = signals.subscribe("k*", lambda: calls.append("pattern"))
    emit = EventDispatcher(signals).emit
    with signals.isolated() as same:
        assert same is signals
        assert signals["kept"] is kept
        emit("kept")
        pattern.cancel()
        forgotten = signals.signal("added").subscribe(lambda: None)
        during = kept.subscribe(lambda: calls.append("during"))
        signals.subscribe("a*", lambda: None)
        emit("kept")
        assert calls == ["before", "pattern", "during"]
    assert "added" not in signals
    assert signals["kept"] is kept
    assert before.active
    assert pattern.active
    assert not during.active
    assert not forgotten.active
    assert len(kept.subscriptions) == 2
    calls.clear()
    emit("kept")
    emit("kept")
    assert calls == ["before", "pattern", "pattern"]
    assert signals.signal("k_later").subscriptions
    pattern.cancel()
    assert not signals["k_later"].subscriptions
    assert not kept.subscriptions


def test_isolated_empty_starts_with_the_built_in_events_only(signals: SignalRegistry) -> None:
    madcrow_signals.signal("mine").subscribe(lambda: None)
    with madcrow_signals.isolated(empty=True):
        assert [*madcrow_signals] == [*madcrow_signals._built_in]
        assert "mine" not in madcrow_signals
    assert madcrow_signals["mine"].subscriptions
    mine = signals.signal("mine")
    mine.subscribe(lambda: None)
    with signals.isolated(empty=True):
        assert len(signals) == 0
        assert not mine.subscriptions
        assert signals.signal("mine") is mine, "who holds the signal must not part from its name"
        assert signals.signal("mine", context=None) is mine
        signals.pop("mine")
        assert signals.signal("mine", context=OrderPlaced) is not mine
    assert signals["mine"] is mine
    assert len(mine.subscriptions) == 1


def test_isolated_restores_the_default_dispatcher() -> None:
    from madcrow_events import get_event_dispatcher, set_event_dispatcher

    default = get_event_dispatcher()
    with madcrow_signals.isolated():
        assert get_event_dispatcher() is default
        set_event_dispatcher(EventDispatcher(on_error="raise"))
    assert get_event_dispatcher() is default
    with madcrow_signals.isolated(empty=True):
        assert get_event_dispatcher() is not default
    assert get_event_dispatcher() is default


@pytest.mark.guarantee("F6")
def test_isolated_runs_no_finalizer_under_its_lock(signals: SignalRegistry) -> None:
    finished: list[bool] = []

    class Handler:
        def __call__(self) -> None: ...

        def __del__(self) -> None:
            thread = threading.Thread(target=lambda: signals.signal("from_a_finalizer"))
            thread.start()
            thread.join(timeout=5)
            finished.append(not thread.is_alive())

    signals.signal("kept")
    with signals.isolated():
        signals.subscribe("kept", Handler())
        signals.subscribe("k*", Handler())
    gc.collect()
    assert finished == [True, True]


@pytest.mark.guarantee("N4")
def test_patterns_do_not_remember_events_that_an_isolated_block_forgot(
    signals: SignalRegistry,
) -> None:
    pattern = signals.subscribe("*", lambda: None)
    for number in range(5):
        with signals.isolated():
            signals.signal(f"event_{number}")
    gc.collect()
    assert len(pattern._children) == 0


def test_isolated_forgets_what_died_meanwhile(signals: SignalRegistry) -> None:
    class Owner:
        def handle(self, sender: Any, **context: Any) -> None: ...

    signal = signals.signal("kept")
    owner = Owner()
    signal.subscribe(owner.handle)
    with signals.isolated():
        del owner
        gc.collect()
    assert not signal.subscriptions
    assert not senders_of(signal)


def test_isolated_forgets_a_pattern_that_died_meanwhile(signals: SignalRegistry) -> None:
    class Owner:
        def handle(self, sender: Any, **context: Any) -> None: ...

    owner = Owner()
    signals.subscribe("*", owner.handle)
    with signals.isolated():
        del owner
        gc.collect()
    assert not patterns_of(signals)


def test_isolated_blocks_end_in_the_reverse_order_of_their_start(signals: SignalRegistry) -> None:
    outer, inner = signals.isolated(), signals.isolated()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="reverse order"):
        outer.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="reverse order"):
        inner.__exit__(None, None, None)
    with signals.isolated():
        pass


def test_isolated_restores_after_an_error(signals: SignalRegistry) -> None:
    with pytest.raises(ZeroDivisionError), signals.isolated():
        signals.signal("added")
        raise ZeroDivisionError
    assert not signals


@pytest.mark.parametrize("empty", [False, True])
def test_isolated_restores_what_is_first_kept_beside_the_registry_within_it(
    signals: SignalRegistry, *, empty: bool
) -> None:
    """As the stores of the ready-made handlers, where only the test imports them."""

    def save(empty: bool) -> Callable[[], None]:
        saved = kept[:]
        if empty:
            kept.clear()
        return lambda: kept.__setitem__(slice(None), saved)

    kept = ["as it was imported"]
    with signals.isolated(), signals.isolated(empty=empty):
        isolate_too(signals, save)
        kept.append("of the test")
    assert kept == ["as it was imported"]
    with signals.isolated(empty=empty):
        assert bool(kept) is not empty
    assert kept == ["as it was imported"]


def test_isolated_leaves_events_alone_whose_handlers_have_not_changed(
    signals: SignalRegistry,
) -> None:
    """So that a block costs little where there are many events, and the plans stay."""
    same, changed = signals.signal("same"), signals.signal("changed")
    same.subscribe(print)
    emit = EventDispatcher(signals).emit
    emit("same")
    plans = table_of(same).plans

    with signals.isolated():
        changed.subscribe(print)
        with signals.isolated():
            changed.subscribe(repr)
            emit("same")
        assert [it.handler for it in changed.subscriptions] == [print]

    assert not changed.subscriptions
    assert table_of(same).plans is plans


@pytest.mark.parametrize("emitted", [True, False])
def test_isolated_sees_a_change_before_and_after_an_emission(
    signals: SignalRegistry, *, emitted: bool
) -> None:
    calls: list[str] = []
    signal = signals.signal("changed")
    emit = EventDispatcher(signals).emit
    kept = signal.subscribe(lambda: calls.append("kept"))
    if emitted:
        emit("changed")
        calls.clear()

    with signals.isolated():
        kept.cancel()
        added = signal.subscribe(lambda: calls.append("added"))
        if emitted:
            emit("changed")

    emit("changed")
    assert calls == ["added"] * emitted + ["kept"]
    assert kept.active
    assert not added.active
