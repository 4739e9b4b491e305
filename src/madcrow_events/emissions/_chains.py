"""The limit of nested emissions, and the end of a chain that is too deep."""

from __future__ import annotations

import weakref
from typing import Any

from madcrow_events._logs import Writing, writing
from madcrow_events.emissions._causes import ids_of, is_announcing, place
from madcrow_events.emissions._emission import Emission
from madcrow_events.emissions._failures import add_failure, failures_of
from madcrow_events.emissions._frames import (
    AmbientFrame,
    Branch,
    Frame,
    emission_of,
    enclosing,
    new_ambient_frame,
    running,
)
from madcrow_events.exceptions import EmissionDepthError

__all__ = [
    "MAX_DEPTH",
    "break_off",
    "is_broken",
    "nest",
    "outermost",
    "pass_on_broken_chain",
]

MAX_DEPTH = 64
"""How many emissions may be nested in each other."""

_NAMED_EVENTS = 6

_broken: set[weakref.ref[Emission | Branch]] = set()
"""The frames that a broken chain began in, while they exist; nearly always empty.

So an emission need not look for the frame that its own chain began in.
"""


def nest(emission: Emission, innermost: Frame) -> None:
    """Nest an emission in the one whose handler emitted it.

    Raises:
        EmissionDepthError: the chain is too deep, now or earlier under its outermost handler.
    """
    line = writing()
    if line is not None:
        innermost = _frame_of_line(line, innermost)
    if type(innermost) is Emission and innermost._running:  # nearly always
        emission._outer, emission._ambient = innermost, innermost._ambient
        parent: Emission | None = innermost
    elif innermost._outer is None and isinstance(innermost, AmbientFrame):
        emission._outer = emission._ambient = innermost  # a block outside of all handlers
        return
    else:
        place(emission, innermost)
        parent = emission.parent
    if parent is None:  # a handler that no emitter waits for begins a chain of its own
        return
    emission.depth = parent.depth + 1
    is_too_deep = emission.depth >= MAX_DEPTH  # the outermost has depth 0
    if not (is_too_deep or _broken):  # nearly always
        return
    frame: Any = enclosing(emission)
    root = outermost(frame)
    was_broken = is_broken(root)
    if not (is_too_deep or was_broken):  # another chain is broken
        return
    error = _depth_error(emission)
    if not was_broken:
        _break_chain(root, error)
    raise error


def _frame_of_line(line: Writing, innermost: Frame) -> Frame:
    """Return the frame for an emission by a log handler: a new branch, which begins its own chain.

    This package writes the line, not a handler of the emission that the line is about. So if
    logging handlers emit without end, no handler of that emission is recorded as failed.
    """
    frame: Any = line.frame
    written_in = running(frame)
    if written_in is None or running(innermost) is not written_in:
        return innermost
    emission: Any = emission_of(written_in)
    branch = Branch(emission, 0)
    branch.unawaited = True
    branch.is_announcing = is_announcing(emission)
    branch.ids = ids_of(emission)
    branch._outer, branch._ambient = written_in._outer, written_in._ambient
    if not isinstance(innermost, AmbientFrame):
        return branch
    inside = new_ambient_frame(innermost)
    inside._outer, inside.cause = branch, innermost.cause
    return inside


def outermost(frame: Emission | Branch) -> Emission | Branch:
    """Return the frame that a chain began in: the outermost emission, or a branch of it.

    A chain is all that is emitted under one handler of the outermost emission.
    """
    while True:
        outer = enclosing(frame)
        if outer is None or not outer._running or (isinstance(outer, Branch) and outer.unawaited):
            return frame
        frame = outer


def is_broken(root: Emission | Branch) -> bool:
    if isinstance(root, Branch):
        return root.broken
    failures = root._failures
    # Equal while that handler still runs: its value is appended when it has ended.
    return failures is not None and failures.broken_at == len(root._values)


def pass_on_broken_chain(emission: Emission) -> None:
    """Fail an emission of a broken chain, so that the chain ends up to its outermost emission.

    Raises:
        EmissionDepthError: the emission is in a broken chain.
    """
    # If no handler failed, each has swallowed the error, and the emission ends well. The outermost
    # one has depth 0, and recorded the error when the chain broke.
    failures = emission._failures
    if failures is None or not failures.has_failed or not emission.depth:
        return
    if is_broken(outermost(emission)):
        raise _depth_error(emission)


def _break_chain(root: Emission | Branch, error: EmissionDepthError) -> None:
    """Record the end of a chain in its outermost emission, once for that emission."""
    emission = emission_of(root)
    assert emission is not None  # noqa: S101  # it still runs
    failures = failures_of(emission)
    index = root.index if isinstance(root, Branch) else len(emission._values)
    break_off(root)
    if not failures.depth_recorded:
        failures.depth_recorded = True
        add_failure(emission, index, error)


def break_off(root: Emission | Branch) -> None:
    """Refuse what is emitted below a frame from now on."""
    _broken.add(weakref.ref(root, _broken.discard))
    if isinstance(root, Branch):
        root.broken = True
    else:
        failures_of(root).broken_at = len(root._values)


def _depth_error(emission: Emission) -> EmissionDepthError:
    names: list[str] = []
    ancestor: Emission | None = emission
    while ancestor is not None and len(names) < _NAMED_EVENTS:
        names.insert(0, ancestor.event)
        ancestor = ancestor.parent
    return EmissionDepthError(
        f"emissions are nested more than {MAX_DEPTH} levels deep; the last events are "
        f"{' > '.join(names)}: stop a handler of one of them from emitting",
        events=tuple(names),
    )
