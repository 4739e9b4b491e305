"""An emission that reaches nobody has a line at DEBUG that says why (X2)."""

from __future__ import annotations

import gc
import logging
from contextlib import nullcontext
from typing import Any

import pytest

from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    SignalRegistry,
)
from madcrow_events.testing.recorder import fake_events, record_events
from support.inside import table_of
from support.waiting import LIMIT

pytestmark = pytest.mark.guarantee("X2")


class Lines(logging.Handler):
    """What was written at DEBUG, and where: while the garbage was collected, or a lock held."""

    def __init__(self, signal: EventSignal[Any]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.signal = signal

    def emit(self, record: logging.LogRecord) -> None:
        assert not table_of(self.signal)._busy
        if record.levelno == logging.DEBUG:
            self.lines.append(record.getMessage())

    def taken(self) -> list[str]:
        """Return the lines so far, and forget them."""
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def debug(signal: EventSignal[Any], caplog: pytest.LogCaptureFixture) -> Any:
    lines, logger = Lines(signal), logging.getLogger("madcrow_events")
    caplog.set_level(logging.DEBUG, logger=logger.name)
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


class Owner:
    def handle(self, **context: Any) -> None: ...

    async def handle_async(self) -> None: ...


def plain() -> None: ...


# Nobody listens


@pytest.mark.parametrize(
    ("number", "told"), [(0, ": nobody listens"), (1, " to 1 handler"), (2, " to 2 handlers")]
)
@pytest.mark.parametrize("recorded", [False, True])
def test_an_emission_is_told_with_the_number_of_its_handlers(
    signal: EventSignal[Any],
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    debug: Lines,
    number: int,
    told: str,
    recorded: bool,
) -> None:
    """The recorder of a test is no handler."""
    for _ in range(number):
        signal.subscribe(lambda: None)
    recorder = record_events(signals=signals)
    if recorded:
        with recorder:
            debug.taken()
            dispatcher.emit(signal)
    else:
        debug.taken()
        dispatcher.emit(signal)
    assert debug.taken()[0] == f"thing_happened emitted by EventSignal{told}"


def test_handlers_of_other_senders_are_no_listeners(
    signal: EventSignal[Any], dispatcher: EventDispatcher, debug: Lines
) -> None:
    signal.subscribe(plain, sender="shop")
    debug.taken()
    dispatcher.emit(signal, sender=Owner())
    dispatcher.emit(signal, sender="shop")
    assert debug.taken()[:2] == [
        "thing_happened emitted by Owner: nobody listens to this sender",
        "thing_happened emitted by str to 1 handler",
    ]


def test_a_muted_emission_is_told_as_muted(
    signal: EventSignal[Any], dispatcher: EventDispatcher, debug: Lines
) -> None:
    signal.subscribe(plain)
    debug.taken()
    with signal.muted():
        dispatcher.emit(signal)
    assert debug.taken() == ["thing_happened emitted by EventSignal, and muted"]


def test_a_faked_emission_is_told_as_faked(
    signal: EventSignal[Any], signals: SignalRegistry, dispatcher: EventDispatcher, debug: Lines
) -> None:
    with fake_events(signals=signals):
        debug.taken()
        dispatcher.emit(signal)
        with signal.subscribe(plain):
            debug.taken()
            dispatcher.emit(signal)
    assert debug.taken()[0] == "thing_happened emitted by EventSignal, and faked by a test"


# Dropped


@pytest.mark.parametrize("raises", [False, True])
def test_an_emission_that_is_dropped_with_its_block_is_told(
    signal: EventSignal[Any], dispatcher: EventDispatcher, debug: Lines, raises: bool
) -> None:
    """Because the block raised, or gave it up; after all are dropped."""
    emissions: list[Emission[Any]] = []
    signal.subscribe(plain)
    debug.taken()
    with (
        pytest.raises(ValueError) if raises else nullcontext(),
        dispatcher.deferred() as deferral,
    ):
        emissions.extend(dispatcher.emit(signal) for _ in range(2))
        assert debug.taken() == []
        if raises:
            raise ValueError
        assert deferral.discard() == 2
    assert [it.state for it in emissions] == ["dropped", "dropped"]
    assert debug.taken() == ["thing_happened dropped with its deferred block"] * 2


def test_each_call_that_a_full_queue_drops_is_told(
    signal: EventSignal[Any], signals: SignalRegistry, debug: Lines, caplog: Any
) -> None:
    """The first one of a burst by a warning."""
    emissions: list[Emission[Any]] = []

    def emit_more() -> None:
        emissions.extend(dispatcher.emit(signal, more=False) for _ in range(3))

    def note() -> None: ...

    with EventDispatcher(signals, queue_size=1, overflow="drop", max_workers=1) as dispatcher:
        signal.subscribe(emit_more, background=True, when=lambda it: it["more"])
        signal.subscribe(note, background=True, when=lambda it: not it["more"], id="note")
        emissions.append(dispatcher.emit(signal, more=True))
        assert dispatcher.drain(LIMIT)
    assert dispatcher.dropped == 2
    assert [line for line in debug.taken() if "dropped" in line] == [
        "note of thing_happened is dropped, because the queue is full"
    ]
    warnings = [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "note of thing_happened is dropped, and others until half" in warnings[0]


# Collected

COLLECTED = (
    "handler {} of thing_happened was collected, because nothing else held it: hold its object, "
    "or subscribe it with weak=False"
)


@pytest.mark.parametrize("event", ["thing_happened", "thing_*"])
@pytest.mark.parametrize("cyclic", [False, True])
def test_a_handler_that_was_collected_is_told_at_the_next_emission(
    signal: EventSignal[Any],
    signals: SignalRegistry,
    dispatcher: EventDispatcher,
    debug: Lines,
    event: str,
    cyclic: bool,
) -> None:
    """Not in the callback of the weak reference, and once; the level may be set in between."""
    owner: Any = Owner()
    owner.itself = owner if cyclic else None
    signals.subscribe(event, owner.handle)
    signals.subscribe(event, owner.handle_async, id="by-id")
    debug.taken()
    logger = logging.getLogger("madcrow_events")
    if cyclic:
        logger.setLevel(logging.INFO)
    del owner
    gc.collect()
    dispatcher.emit(signal) if cyclic else None
    assert debug.taken() == []
    logger.setLevel(logging.DEBUG)
    dispatcher.emit(signal)
    assert sorted(debug.taken()) == sorted(
        [
            COLLECTED.format("by-id"),
            COLLECTED.format(f"{__name__}.Owner.handle"),
            "thing_happened emitted by EventSignal: nobody listens",
        ]
    )
    dispatcher.emit(signal)
    assert debug.taken() == ["thing_happened emitted by EventSignal: nobody listens"]


def test_a_function_that_was_connected_and_collected_is_told(
    signal: EventSignal[Any], dispatcher: EventDispatcher, debug: Lines
) -> None:
    def connected(sender: Any, **context: Any) -> None: ...

    signal.connect(connected)
    name = f"{__name__}.{connected.__qualname__}"
    del connected
    signal.send()
    assert debug.taken() == []
    dispatcher.emit(signal)
    assert debug.taken()[0] == COLLECTED.format(name)


def test_what_was_cancelled_or_recorded_and_a_sender_that_is_gone_are_not_told_as_collected(
    signal: EventSignal[Any], signals: SignalRegistry, dispatcher: EventDispatcher, debug: Lines
) -> None:
    owner, sender = Owner(), Owner()
    kept = signal.subscribe(owner.handle)
    kept.cancel()
    signal.subscribe(plain, sender=sender)
    recorder: Any = record_events(signals=signals)
    recorder.__enter__()
    debug.taken()
    del owner, sender, recorder
    gc.collect()
    dispatcher.emit(signal)
    assert debug.taken() == ["thing_happened emitted by EventSignal: nobody listens"]


def test_no_more_than_sixteen_collected_handlers_of_an_event_are_noted(
    signal: EventSignal[Any], dispatcher: EventDispatcher, debug: Lines
) -> None:
    for number in range(100):
        signal.subscribe(Owner().handle, id=f"number {number}")
    debug.taken()
    dispatcher.emit(signal)
    assert debug.taken()[:-1] == [COLLECTED.format(f"number {it}") for it in range(84, 100)]


def test_a_weak_handler_that_goes_away_during_an_emission_is_skipped_by_its_name(
    signal: EventSignal[Any], dispatcher: EventDispatcher, debug: Lines
) -> None:
    owners = [Owner()]
    signal.subscribe(owners.clear, priority=1)
    signal.subscribe(owners[0].handle)
    debug.taken()
    dispatcher.emit(signal)
    assert debug.taken()[-1] == f"handler {__name__}.Owner.handle of thing_happened skipped"
