"""Rehearsing an emission: what its handlers would see is there, and none is called."""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from madcrow_events.emissions._causes import place
from madcrow_events.emissions._contexts import fill
from madcrow_events.emissions._emission import Emission
from madcrow_events.emissions._frames import CURRENT, ambient_frame_of, current
from madcrow_events.emissions._plan import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.models import BaseEventContext
    from madcrow_events.signals import EventSignal

__all__ = ["rehearse"]

ReturnedT = TypeVar("ReturnedT")


def rehearse(
    signal: EventSignal[Any],
    dispatcher: EventDispatcher,
    sender: object,
    payload: BaseEventContext | dict[str, Any],
    ask: Callable[[Emission], ReturnedT],
) -> ReturnedT:
    """Call a function with an emission that calls nobody, in the frame of that emission.

    It runs in a copy of the context variables, so that nothing of it is left.

    Args:
        signal: the signal of the emission.
        dispatcher: its dispatcher, which does nothing.
        sender: its sender.
        payload: its context; the enclosing `event_scope` adds its fields, unless it is empty.
        ask: the function; `current_event()` returns the emission there.

    Returns:
        What the function returned.
    """
    emission: Emission = Emission()
    emission.signal = signal
    emission.sender = sender
    emission.dispatcher = dispatcher
    emission._outer = emission._ambient = None
    emission.depth = 0
    emission._plan = NOBODY
    emission._payload = payload
    emission._values = []
    emission._failures = None
    emission._running = True
    innermost = current()
    if innermost is not None:
        place(emission, innermost)
        ambient = ambient_frame_of(innermost)
        if ambient is not None and (type(payload) is not dict or payload):
            fields = ambient.resolved_fields()
            emission._payload = fill(emission.signal, payload, fields)
    return copy_context().run(_in_frame, emission, ask)


def _in_frame(emission: Emission, ask: Callable[[Emission], ReturnedT]) -> ReturnedT:
    CURRENT.set(emission)
    return ask(emission)
