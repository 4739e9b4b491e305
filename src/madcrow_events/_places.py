"""Finding the line of the application that has called the package, to warn about it."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Place", "calling_place", "warn_once"]

_PASSED_OVER: Final = frozenset({__name__.partition(".")[0], "asyncio"})
"""The packages whose lines are no use: an event loop, not its user, calls what runs in a task."""

_MOST_PLACES: Final = 1000
"""How many places are remembered at most."""


class Place(NamedTuple):
    """A line of a file.

    Attributes:
        file: the path of the file.
        line: the number of the line.
        module: the name of the module, by which filters of warnings choose.
    """

    file: str
    line: int
    module: str


def calling_place() -> Place:
    """Return the line outside of this package that has called it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # Without a name, as in a `code` console, the module is the one that classes there name.
        module = str(frame.f_globals.get("__name__", "builtins"))
        if module.partition(".")[0] not in _PASSED_OVER:
            return Place(frame.f_code.co_filename, frame.f_lineno, module)
        frame = frame.f_back
    return Place("sys", 1, "sys")  # as `warnings` has it for what no line has called


def warn_once(text: str, place: Place, warned: dict[tuple[str, Place], object]) -> None:
    """Warn that the code at a place is deprecated, unless it has been warned of already.

    Args:
        text: what to write instead.
        place: the place.
        warned: remembers texts with their places; when it is full, it begins anew.

    Raises:
        DeprecationWarning: a filter makes errors of warnings.
    """
    if len(warned) >= _MOST_PLACES:
        warned.clear()
    key, ours = (text, place), object()
    if warned.setdefault(key, ours) is not ours:
        return
    try:
        warnings.warn_explicit(text, DeprecationWarning, *place)
    except BaseException:
        warned.pop(key, None)  # nobody may have seen it
        raise
