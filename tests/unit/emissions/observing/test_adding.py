"""Adding and removing observers (B6)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from madcrow_events import (
    EventDispatcher,
    EventSignal,
    InvalidOptionError,
    TimingObserver,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
    set_event_dispatcher,
)
from support.observers import Notes, emit
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("B6")


def test_siblings_share_observers(
    signal: EventSignal[Any], dispatcher: EventDispatcher, story: list[str]
) -> None:
    """Those that are added and removed later, too; other dispatchers do not."""
    sibling = dispatcher.with_options(on_error="raise")
    other = EventDispatcher(dispatcher.signals)
    notes = Notes(story)
    sibling.add_observer(notes)
    for one in (dispatcher, sibling, sibling.with_options(), other):
        emit(one)
    assert len(notes.emissions) == 3
    assert dispatcher.remove_observer(notes)
    emit(sibling)
    assert len(notes.emissions) == 3


def test_to_add_one_again_changes_nothing(
    signal: EventSignal[Any], dispatcher: EventDispatcher, story: list[str]
) -> None:
    """It is entered once, in its first place; an equal object is another observer."""

    class Equal(Notes):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = None  # type: ignore[assignment]  # as of any class with such an __eq__

    first, second = Equal(story, "a"), Equal(story, "b")
    for observer in (first, second, first):
        dispatcher.add_observer(observer)
    emit(dispatcher)
    assert story == [
        *("a> thing_happened", "b> thing_happened"),
        *("b< thing_happened", "a< thing_happened"),
    ]


def test_a_removed_one_is_entered_no_more(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """To remove one that is not there is no error."""
    emit(dispatcher)
    assert dispatcher.remove_observer(notes) is True
    assert dispatcher.remove_observer(notes) is False
    assert dispatcher.remove_observer(object()) is False  # type: ignore[arg-type]  # anything
    emit(dispatcher)
    assert len(notes.emissions) == 1


def test_one_that_is_removed_meanwhile_is_left(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """And one that is added meanwhile is not left without having been entered."""
    added = Notes([])

    @signal.on()
    def handler() -> None:
        dispatcher.remove_observer(notes)
        dispatcher.add_observer(added)

    @signal.on()
    def next_handler() -> None: ...

    emit(dispatcher)
    assert notes.story == ["> thing_happened", "> handler", "< handler", "< thing_happened"]
    assert added.story == ["> next_handler", "< next_handler"]
    assert notes.open == added.open == 0


class WithoutHandling:
    def emission(self, emission: Any) -> Any: ...


class WithoutEmission:
    def handling(self, emission: Any, handler: Any) -> Any: ...


class WithValues:
    emission = handling = "canary"


@pytest.mark.parametrize(
    "observer",
    [
        TimingObserver,
        Notes,
        WithoutHandling(),
        WithoutEmission(),
        WithValues(),
        None,
        print,
        "text",
    ],
)
def test_what_is_no_observer_is_refused(
    signal: EventSignal[Any], dispatcher: EventDispatcher, observer: Any
) -> None:
    """A class in the place of an instance, or an object that lacks a method."""
    with pytest.raises(InvalidOptionError) as caught:
        dispatcher.add_observer(observer)
    assert caught.value.option == "observer"
    if isinstance(observer, type):
        assert f"is a class: give an observer, {observer.__name__}(...)" in str(caught.value)
    else:
        assert f"{type(observer).__name__} has no method " in str(caught.value)
        assert "emission(emission) and handling(emission, handler)" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert dispatcher._observers == []
    assert emit(dispatcher).ok


@pytest.mark.parametrize("empty", [False, True])
def test_isolated_restores_the_observers_of_the_default_dispatcher(empty: bool) -> None:
    """In an empty block there are none; one that is there may be removed and others be added."""
    madcrow_signals.signal("thing_happened")
    notes, added = Notes([]), Notes([])
    default = get_event_dispatcher()
    default.add_observer(notes)
    with madcrow_signals.isolated(empty=empty):
        madcrow_signals.signal("thing_happened")
        emit_event("thing_happened")
        assert len(notes.emissions) == (not empty)
        get_event_dispatcher().remove_observer(notes)
        get_event_dispatcher().add_observer(added)
        default.add_observer(added)
        emit_event("thing_happened")
        set_event_dispatcher(None)
    assert get_event_dispatcher() is default
    emit_event("thing_happened")
    assert len(notes.emissions) == (1 if empty else 2)
    assert len(added.emissions) == 1


def test_threads_may_add_and_remove_while_others_emit(
    signal: EventSignal[Any], dispatcher: EventDispatcher, notes: Notes
) -> None:
    """Who was entered is left, and who was not is not."""
    rounds = 200
    others = [Notes([]) for _ in range(4)]
    signal.subscribe(lambda: None)
    start = threading.Barrier(6)

    def churn(observer: Notes) -> None:
        start.wait(LIMIT)
        for _ in range(rounds):
            dispatcher.add_observer(observer)
            dispatcher.remove_observer(observer)

    def work() -> None:
        start.wait(LIMIT)
        for _ in range(rounds):
            emit(dispatcher)

    threads = [threading.Thread(target=churn, args=(observer,)) for observer in others]
    threads += [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(notes.emissions) == 2 * rounds
    assert [observer.open for observer in (notes, *others)] == [0] * 5
    assert dispatcher._observers == [notes]
