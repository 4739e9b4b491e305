"""Handlers of the application's logs that emit an event for each line (F5, G1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from madcrow_events import (
    Batch,
    Emission,
    EmissionDepthError,
    EventDispatcher,
    current_event,
    event_scope,
)
from support.outcomes import errors
from support.ways import Way, in_every_way

MANY = 1000  # more lines than any of these stories has


drops_none = pytest.mark.skipif(
    hasattr(logging.Logger, "_is_disabled"), reason="this Python drops what a log's handler logs"
)


class Forward(logging.Handler):
    """Emits `line_written` for each record, and keeps what comes of it."""

    def __init__(self, dispatcher: EventDispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher
        self.scope: AbstractContextManager[Any] = nullcontext()
        self.lines: list[str] = []
        self.emissions: list[Emission[Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        assert len(self.lines) < MANY
        with self.scope:
            self.emissions.append(self.dispatcher.emit("line_written", text=record.getMessage()))


@pytest.fixture
def forwarding(dispatcher: EventDispatcher) -> Iterator[Callable[[int], Forward]]:
    """Return what forwards the lines of a level, and those above it."""
    dispatcher.signals.signal("line_written")
    handler = Forward(dispatcher)
    loggers = [logging.getLogger("madcrow_events"), logging.getLogger("application")]
    levels = [logger.level for logger in loggers]

    def forward(level: int) -> Forward:
        for logger in loggers:
            logger.setLevel(level)
            logger.addHandler(handler)
        return handler

    yield forward
    dispatcher.drain(10)
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


def failing(sender: Any, **context: Any) -> None:
    raise ValueError


@drops_none
@pytest.mark.guarantee("F5")
@pytest.mark.guarantee("G1")
@in_every_way
async def test_a_failure_whose_line_fails_as_an_event_is_told_twice_and_blames_nobody_else(
    way: Way, forwarding: Callable[[int], Forward]
) -> None:
    async def emits(emission: Emission[Any]) -> str:
        inner = await way.emit_inside("other_thing")
        assert inner.ok
        assert inner.parent is emission
        return "emits"

    dispatcher = way.dispatcher
    dispatcher.signals.signal("line_written").subscribe(failing)
    way.signal.subscribe(way.failing(ValueError("on purpose")))
    way.signal.subscribe(way.handler(emits))
    forward = Forward(dispatcher)
    logger = logging.getLogger("madcrow_events")
    forward.setLevel(logging.ERROR)
    logger.addHandler(forward)
    try:
        emission = await way.emit()
    finally:
        logger.removeHandler(forward)
    assert errors(emission) == [ValueError]
    assert [result.value for result in emission.results] == ["emits"]
    assert [line.rpartition(" of ")[2] for line in forward.lines] == [
        "thing_happened failed: ValueError",
        "line_written failed: ValueError",
    ]


@drops_none
@pytest.mark.guarantee("F5")
def test_an_endless_chain_that_a_line_began_is_its_own(
    dispatcher: EventDispatcher, forwarding: Callable[[int], Forward]
) -> None:
    """The handlers of the event that the line is about have nothing to do with it."""

    def logs(text: str) -> None:
        logging.getLogger("application").error("a line about %s", text[:9])

    def emits() -> str:
        return "ok" if dispatcher.emit("other").ok else "not ok"

    signals = dispatcher.signals
    signals.signal("other")
    ping = signals.signal("ping")
    signals.subscribe("line_written", logs)
    ping.subscribe(failing)
    ping.subscribe(emits)
    forward = forwarding(logging.ERROR)
    emission = dispatcher.emit("ping")
    assert errors(emission) == [ValueError]
    assert [result.value for result in emission.results] == ["ok"]
    outermost = [line for line in forward.emissions if not line.depth and not line.ok]
    assert outermost
    assert {error for line in outermost for error in errors(line)} == {EmissionDepthError}
    assert {failure.handler for line in outermost for failure in line.failures} == {logs}


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize(
    "options", [{}, {"background": True}, {"batch": Batch(max_size=2, max_wait=0.01)}], ids=str
)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
@pytest.mark.parametrize("awaits", [False, True], ids=["emit", "emit_async"])
async def test_lines_at_debug_that_are_events_are_told_of_once(
    dispatcher: EventDispatcher,
    forwarding: Callable[[int], Forward],
    options: dict[str, Any],
    is_async: bool,
    awaits: bool,
) -> None:
    def by_keywords(text: str) -> None:
        handled.append(text)

    async def by_keywords_async(text: str) -> None:
        handled.append(text)

    def in_batches(batch: list[Any]) -> None:
        handled.extend(batch)

    async def in_batches_async(batch: list[Any]) -> None:
        handled.extend(batch)

    handled: list[Any] = []
    signals = dispatcher.signals
    signals.signal("ping").subscribe(lambda: None)
    handlers: list[Any] = [by_keywords, by_keywords_async, in_batches, in_batches_async]
    chosen = handlers[2 * ("batch" in options) + is_async]
    signals.subscribe("line_written", chosen, **options)
    forward = forwarding(logging.DEBUG)
    emission = await dispatcher.emit_async("ping") if awaits else dispatcher.emit("ping")
    assert await dispatcher.drain_async(10)
    assert emission.ok
    assert len(forward.lines) == len(handled) == 2, "one of the emission, one of its handler"
    dispatcher.emit("ping")
    assert await dispatcher.drain_async(10)
    assert len(forward.lines) == len(handled) == 4, "the next one is told of again"


@drops_none
@pytest.mark.guarantee("G1")
def test_lines_of_the_application_are_events_that_are_told_of(
    dispatcher: EventDispatcher, forwarding: Callable[[int], Forward]
) -> None:
    """What the emission of an application's line is told by is lost by no rule."""
    dispatcher.signals.subscribe("line_written", lambda: None)
    forward = forwarding(logging.DEBUG)
    logging.getLogger("application").debug("a line")
    assert forward.lines[0] == "a line"
    emitted, returned = forward.lines[1:]
    assert emitted.startswith("line_written emitted")
    assert " of line_written returned" in returned


@pytest.mark.guarantee("G1")
def test_a_filter_of_the_log_sees_which_event_a_line_is_about(
    dispatcher: EventDispatcher, forwarding: Callable[[int], Forward]
) -> None:
    def note(record: logging.LogRecord) -> bool:
        seen.append(current_event())
        return True

    seen: list[Any] = []
    dispatcher.signals.signal("ping").subscribe(failing)
    forwarding(logging.ERROR).addFilter(note)
    emission = dispatcher.emit("ping")
    assert seen == [emission]


@pytest.mark.guarantee("B5")
@pytest.mark.parametrize("scoped", [False, True])
def test_what_is_emitted_for_a_line_is_caused_by_what_the_line_is_about(
    dispatcher: EventDispatcher, forwarding: Callable[[int], Forward], scoped: bool
) -> None:
    dispatcher.signals.signal("ping").subscribe(failing)
    forward = forwarding(logging.ERROR)
    if scoped:
        forward.scope = event_scope(request_id="of the line")
    emission = dispatcher.emit("ping")
    (line,) = forward.emissions
    assert line.causation_id == emission.id
    assert line.context.get("request_id") == ("of the line" if scoped else None)
    assert line.parent is None
    assert line.depth == 0
