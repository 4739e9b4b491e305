"""Where an emission stands among others: what it is nested in, and what caused it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from madcrow_events._names import HANDLER_FAILED
from madcrow_events.emissions._frames import (
    CURRENT,
    NO_FIELDS,
    AmbientFrame,
    Branch,
    Frame,
    ambient_frame_of,
    emission_of,
    enclosing,
    new_ambient_frame,
    running,
)
from madcrow_events.emissions._ids import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from madcrow_events.emissions._emission import Emission

__all__ = ["cause_of", "detach", "enter_batch", "is_announcing", "place", "trace_of"]


def trace_of(emission: Emission) -> Trace:
    """Return the trace of an emission, made with those of its causes if need be."""
    try:
        return emission._trace
    except AttributeError:
        pass
    # A loop, for where a trace is needed the stack may be nearly full.
    untraced: list[Emission] = []
    cause: Any = emission
    while not isinstance(cause, Trace | None):
        untraced.append(cause)
        cause = _cause_of(cause)
    for caused in reversed(untraced):
        cause = _traced(caused, Trace(cause))
    return emission._trace


_claims: dict[int, Trace] = {}
"""Traces that are being given to emissions, by the id of the emission."""


def _traced(emission: Emission, trace: Trace) -> Trace:
    """Give an emission its trace, or return that which another thread was faster to give it."""
    # Without a lock, under which a finalizer could wait for a thread that wants it: one of those
    # who claim at the same time wins, and who claims later finds the trace in its place.
    try:
        winner = _claims.setdefault(id(emission), trace)
        present: Trace | None = getattr(emission, "_trace", None)
        if present is None:
            present = emission._trace = winner
    finally:
        _claims.pop(id(emission), None)
    return present


def cause_of(emission: Emission) -> Trace | None:
    """Return the trace of the emission whose handler caused this one, also if that is over."""
    cause = _cause_of(emission)
    return cause if isinstance(cause, Trace | None) else trace_of(cause)


def _cause_of(emission: Emission) -> Emission | Trace | None:
    """Return the same, or the emission itself as long as it has no trace."""
    outer = emission._outer
    if isinstance(outer, AmbientFrame) and outer.cause is not None:
        return outer.cause
    frame = enclosing(emission)
    if isinstance(frame, Branch):
        if frame.trace is not None:
            return frame.trace
        frame = frame.emission  # which only a detached branch outlives
    return getattr(frame, "_trace", frame)


def place(emission: Emission, innermost: Frame) -> None:
    """Put an emission where it belongs among the frames: below what runs, caused by what is over.

    A task that a handler started inherits the handler's frame, and may outlive it.
    """
    handling: Any = innermost._outer if isinstance(innermost, AmbientFrame) else innermost
    outer: Any = running(handling)
    if outer is None and isinstance(handling, Branch) and handling.job is not None:
        outer = handling  # a worker announces a failure
    cause = None
    if handling is not None and handling is not outer:
        handled = emission_of(handling)
        cause = trace_of(handled) if handled is not None else handling.trace
    if isinstance(outer, Branch) and outer.is_anothers():
        outer = outer.of_others()
    if outer is innermost:
        emission._outer = outer
    elif isinstance(innermost, AmbientFrame) and outer is innermost._outer:
        emission._outer = innermost
    else:
        emission._outer = new_ambient_frame(innermost)
        emission._outer._outer = outer
        emission._outer.cause = emission._outer.cause or cause


def is_announcing(emission: Emission) -> bool:
    """Whether an emission is a `handler_failed`, or was caused by one, however far up."""
    frame: Emission | Branch | None = emission
    while frame is not None:
        if isinstance(frame, Branch):
            if frame.detached:
                return frame.is_announcing
            frame = frame.emission
        elif frame.event == HANDLER_FAILED:
            return True
        else:
            frame = enclosing(frame)
    return False


def detach(branch: Branch, job: Any) -> None:
    """Let what a handler emits that nobody awaits begin a chain of its own; for `_background`.

    Args:
        branch: the handler's.
        job: what it is to the workers, until its failure is announced.
    """
    emission: Any = branch.emission
    branch.is_announcing = is_announcing(emission)
    branch.detached = branch._running = True
    branch.job = job
    branch.trace = trace_of(emission)
    ambient = ambient_frame_of(emission)
    own: AmbientFrame | None = None
    if ambient is not None:
        own = AmbientFrame()
        own.fields, own.holders = ambient.lazy_fields(), ambient.holders
    branch._outer = own


def enter_batch(branches: list[Branch]) -> None:
    """Make the last branch the frame of a whole batch, in the present context; for `_background`.

    Of what `event_scope` fills in, the batch has what all of its emissions have.
    """
    common: AbstractSet[tuple[str, str]] = _fields_of(branches[-1]).items()
    for branch in branches:
        common = common & _fields_of(branch).items()
    frame = branches[-1]
    frame._outer = ambient = AmbientFrame()
    ambient.fields = dict(common)
    frame.is_announcing = any(branch.is_announcing for branch in branches)
    CURRENT.set(frame)


def _fields_of(branch: Branch) -> Mapping[str, str]:
    outer = branch._outer
    return outer.resolved_fields() if isinstance(outer, AmbientFrame) else NO_FIELDS
