"""Failures as events: a `handler_failed` for each of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from madcrow_events._logs import log
from madcrow_events._names import HANDLER_FAILED
from madcrow_events._text import type_name
from madcrow_events.emissions._causes import is_announcing
from madcrow_events.emissions._emission import as_the_cause
from madcrow_events.emissions._frames import AmbientFrame, await_in_frame, run_in_frame
from madcrow_events.exceptions import DispatcherClosedError, QueueFullError, WouldDeadlockError
from madcrow_events.models import HandlerFailedEventContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from madcrow_events.dispatcher._dispatcher import EventDispatcher
    from madcrow_events.emissions import Emission, HandlerFailure
    from madcrow_events.signals import EventSignal

__all__ = ["announce", "announce_async"]

# The errors that keep a failure from being announced, and that the emitter need not know of.
_NO_PLACE = (QueueFullError, DispatcherClosedError, WouldDeadlockError)


def announce(
    dispatcher: EventDispatcher,
    emission: Emission,
    failures: tuple[HandlerFailure, ...],
    batch_size: int | None = None,
) -> None:
    """Emit `handler_failed` for each failure, but not for failures of its own handlers."""
    # `get` below would first bring the name into its canonical form, which costs each failure.
    if not dict.__contains__(dispatcher.signals, HANDLER_FAILED):
        return
    for quiet, signal, context in _announcements(dispatcher, emission, failures, batch_size):
        try:
            run_in_frame(_frame_for(emission), quiet.emit_typed, signal, context)
        except _NO_PLACE as error:
            log(logging.WARNING, "a failure of %s is not announced: %s", emission.event, error)


async def announce_async(
    dispatcher: EventDispatcher,
    emission: Emission,
    failures: tuple[HandlerFailure, ...],
    batch_size: int | None = None,
) -> None:
    """Emit `handler_failed` for each failure, and await its async handlers."""
    for quiet, signal, context in _announcements(dispatcher, emission, failures, batch_size):
        try:
            emit = quiet.emit_typed_async
            await await_in_frame(_frame_for(emission), emit, signal, context)
        except _NO_PLACE as error:
            log(logging.WARNING, "a failure of %s is not announced: %s", emission.event, error)


def _frame_for(emission: Emission) -> AmbientFrame:
    """Return the frame in which the failures of an emission are announced."""
    frame = as_the_cause(emission)
    frame.announced = emission
    return frame


def _announcements(
    dispatcher: EventDispatcher,
    emission: Emission,
    failures: tuple[HandlerFailure, ...],
    batch_size: int | None,
) -> Iterator[tuple[EventDispatcher, EventSignal[Any], HandlerFailedEventContext]]:
    signal = dispatcher.signals.get(HANDLER_FAILED)
    if signal is None or is_announcing(emission):
        return
    quiet = dispatcher if dispatcher.on_error == "log" else dispatcher.with_options(on_error="log")
    for failure in failures:
        context = HandlerFailedEventContext(
            event_name=emission.event,
            handler_name=emission.name_of(failure.handler),
            exception_type=type_name(type(failure.exception)),
            batch_size=batch_size,
        )
        yield quiet, signal, context
