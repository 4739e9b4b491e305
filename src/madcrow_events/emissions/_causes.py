"""Finding an emission's place among others: what it is nested in, and what caused it."""

from __future__ import annotations

from operator import attrgetter
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
from madcrow_events.emissions._ids import Ids

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from uuid import UUID

    from madcrow_events.emissions._emission import Emission

__all__ = [
    "begin_chain",
    "cause_of",
    "causing_emission",
    "enter_batch",
    "finish_unawaited",
    "give_id",
    "ids_of",
    "is_announcement",
    "is_announcing",
    "place",
]


def ids_of(emission: Emission) -> Ids:
    """Return the ids of an emission; make them now, those of its causes first, if need be."""
    present: Ids | None = getattr(emission, "_ids", None)  # quicker than to catch the error
    if present is not None:
        return present
    if emission._outer is None:
        return _give_ids(emission, Ids(None, emission))
    # A loop, not a recursion: the stack may be nearly full when ids are needed.
    without_ids: list[Emission] = []
    cause: Any = emission
    while not isinstance(cause, Ids | None):
        without_ids.append(cause)
        cause = _cause_of(cause)
    for caused in reversed(without_ids):
        cause = _give_ids(caused, Ids(cause, caused))
    return emission._ids


_claims: dict[int, Ids] = {}
"""Ids that are being given to emissions, by the `id()` of the emission."""


def _give_ids(emission: Emission, ids: Ids) -> Ids:
    """Give an emission its ids; return those of another thread if that thread was faster."""
    # Without a lock: a finalizer that runs under one could wait for it forever. Of several threads
    # that claim at the same time one wins; a thread that comes later finds the ids in place.
    try:
        winner = _claims.setdefault(id(emission), ids)
        present: Ids | None = getattr(emission, "_ids", None)
        if present is None:
            present = emission._ids = winner
    finally:
        _claims.pop(id(emission), None)
    return present


def give_id(emission: Emission, id: UUID) -> None:  # noqa: A002  # its name everywhere
    """Give an emission an id that its emitter has chosen; its causes stay as they are.

    For the wings above, before a handler is called.

    Args:
        emission: the emission, which a block holds back.
        id: the id.

    Raises:
        RuntimeError: somebody knows the emission by another id already.
    """
    cause = cause_of(emission)
    given = Ids.given(id, None if cause is None else cause.root, emission)
    if _give_ids(emission, given) is not given:
        raise RuntimeError(f"an emission of {emission.event} has its id already")


def cause_of(emission: Emission) -> Ids | None:
    """Return the ids of the emission whose handler caused this one, whether it is over or not."""
    cause = _cause_of(emission)
    return cause if isinstance(cause, Ids | None) else ids_of(cause)


def causing_emission(emission: Emission) -> Emission | None:
    """Return the emission whose handler caused this one, as long as somebody holds it."""
    cause = _cause_of(emission)
    return cause.emission() if isinstance(cause, Ids) else cause


def _cause_of(emission: Emission) -> Emission | Ids | None:
    """Return the ids of the cause, or the cause itself as long as it has none."""
    outer = emission._outer
    if isinstance(outer, AmbientFrame) and outer.cause is not None:
        return outer.cause
    frame = enclosing(emission)
    if isinstance(frame, Branch):
        # In this order, because a branch that ends in another thread has its ids before it loses
        # its emission.
        handled = frame.emission
        if frame.ids is not None:
            return frame.ids
        frame = handled
    return getattr(frame, "_ids", frame)


def place(emission: Emission, innermost: Frame) -> None:
    """Put an emission inside of the innermost handler that still runs.

    A task that a handler started inherits the handler's frame, and may outlive it. The handler is
    then only the cause of the emission, and not a frame around it.

    Args:
        emission: the emission.
        innermost: the innermost frame of its emitter.
    """
    handling: Any = innermost._outer if isinstance(innermost, AmbientFrame) else innermost
    outer: Any = running(handling)
    if outer is None and isinstance(handling, Branch) and handling.job is not None:
        outer = handling  # a worker announces a failure
    cause = None
    if handling is not None and handling is not outer:
        handled = emission_of(handling)
        cause = ids_of(handled) if handled is not None else handling.ids
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
    emission._ambient = ambient_frame_of(emission._outer)


def is_announcement(emission: Emission) -> bool:
    """Whether an emission is the `handler_failed` of a dispatcher, and not one of the user's."""
    frame = emission._outer
    return isinstance(frame, AmbientFrame) and frame.announced is not None


def is_announcing(emission: Emission) -> bool:
    """Whether an emission is a `handler_failed`, or was caused by one, however far up."""
    frame: Emission | Branch | None = emission
    while frame is not None:
        if isinstance(frame, Branch):
            if frame.unawaited:
                return frame.is_announcing
            frame = frame.emission
        elif frame.event == HANDLER_FAILED:
            return True
        else:
            frame = enclosing(frame)
    return False


def begin_chain(branch: Branch, job: Any) -> None:
    """Let a handler that no emitter waits for begin a chain of its own; for `_background`.

    Args:
        branch: the handler's.
        job: the job that calls the handler, until its failure is announced.
    """
    # Also in `Admission.start_alone`: change both.
    emission: Any = branch.emission
    branch.unawaited = branch._running = True
    branch.job = job
    if emission._outer is None:
        branch.is_announcing = emission.signal.name == HANDLER_FAILED
        return
    branch.is_announcing = is_announcing(emission)
    ambient = ambient_frame_of(emission)
    own: AmbientFrame | None = None
    if ambient is not None:
        own = AmbientFrame()
        own.fields, own.holders = ambient.lazy_fields(), ambient.holders
    branch._outer = branch._ambient = own


def finish_unawaited(branch: Branch) -> None:
    """Mark an unawaited handler as finished.

    Events that its leftover tasks emit are then no longer nested in it. The emission is let go, so
    that a chain of events without end does not keep its beginning; its ids stay.
    """
    emission = branch.emission
    if emission is not None:
        branch.ids = ids_of(emission)
    branch.finish()


_is_announcing = attrgetter("is_announcing")


def enter_batch(frame: Branch, branches: list[Branch | None]) -> None:
    """Make a branch the frame of a whole batch, in the present context; for `_background`.

    `event_scope` fields are filled in for the batch if all of its emissions have them.

    Args:
        frame: the branch of the last emission.
        branches: those of all emissions; None for an emission that nothing surrounds.
    """
    common: AbstractSet[tuple[str, str]] = _fields_of(frame).items()
    for branch in branches:
        if not common:
            break
        common = common & _fields_of(branch).items()
    frame._outer = frame._ambient = ambient = AmbientFrame()
    ambient.fields = dict(common)
    frame.is_announcing = any(map(_is_announcing, filter(None, branches)))
    CURRENT.set(frame)


def _fields_of(branch: Branch | None) -> Mapping[str, str]:
    outer = None if branch is None else branch._outer
    return outer.resolved_fields() if isinstance(outer, AmbientFrame) else NO_FIELDS
