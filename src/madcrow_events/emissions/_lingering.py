"""What the traceback of a failure keeps alive, and lets go once everybody has been told (F1).

An emission holds its failures, an exception its traceback, and that the frames that it passed
through, with all that their variables hold: the emission itself, its context, the object whose
method has failed. That is a circle, so that the object would be called again until the next
collection of garbage. The traceback itself stays, with every line.
"""

from __future__ import annotations

import gc
from types import CellType
from typing import TYPE_CHECKING, Any

from madcrow_events.emissions._frames import Branch

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

__all__ = ["let_go"]

_PACKAGE = __name__.partition(".")[0] + "."
_INSIDE = (_PACKAGE, "asyncio.")
_CALLED = (_PACKAGE + "event_handlers.", _PACKAGE + "testing.")

# An exception may be made so that its attributes cannot be read.
_cause_of: Any = BaseException.__dict__["__cause__"].__get__
_context_of: Any = BaseException.__dict__["__context__"].__get__
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
_exceptions_of: Any = BaseExceptionGroup.__dict__["exceptions"].__get__


def let_go(errors: Iterable[BaseException | None], kind: type) -> None:
    """Empty the frames that exceptions have passed through, if these hold what holds those.

    Frames that have not ended stay as they are, and so do those of handlers that hold nothing
    of the emission itself: a debugger, or an error tracker, finds their variables.

    Args:
        errors: what the handlers raised.
        kind: the class of emissions.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [*errors]
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        left += (_cause_of(error), _context_of(error))
        if issubclass(type(error), BaseExceptionGroup):
            left += _exceptions_of(error)
        traceback = _traceback_of(error)
        if traceback is not None:
            frame: FrameType | None = traceback.tb_frame
            while frame is not None and _empty(frame, kind):  # and those that called it
                frame = frame.f_back
            while (traceback := traceback.tb_next) is not None:
                _empty(traceback.tb_frame, kind)


def _empty(frame: FrameType, kind: type) -> bool:
    """Clear a frame that has ended, if it is none of the application's, or holds an emission.

    Returns:
        Whether it has ended.
    """
    code, held = frame.f_code, gc.get_referents(frame)
    for part in held:
        if part is code:
            break
    else:  # it has not ended: to clear a coroutine that is suspended would end it
        return False
    name = frame.f_globals.get("__name__")
    if isinstance(name, str) and name.startswith(_INSIDE) and not name.startswith(_CALLED):
        frame.clear()
        return True
    for part in held:
        class_held = type(_content(part) if type(part) is CellType else part)
        if class_held is kind or class_held is Branch:
            frame.clear()
            break
    return True


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None
