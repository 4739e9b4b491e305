"""What the traceback of a failure keeps alive, and lets go once everybody has been told.

An emission holds its failures, an exception its traceback, and that the frames that it passed
through, with all that their variables hold: the emission itself, its context, the object whose
method has failed. That is a circle, so that the object would be called again until the next
collection of garbage. The traceback itself stays, with every line.
"""

from __future__ import annotations

import gc
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from madcrow_events._text import module_of
from madcrow_events.emissions._frames import Branch

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["empty_frames", "is_inside"]

_PACKAGE = __name__.partition(".")[0] + "."
_INSIDE = (_PACKAGE, "asyncio.")
_CALLED = (_PACKAGE + "event_handlers.", _PACKAGE + "testing.")

_DEPTH = 6
"""That of the object that a closure holds which a closure in a variable holds."""

_MOST = 300
"""How many objects are looked at on the way."""

_LARGE = (type, ModuleType, FrameType, CodeType)
_WHOLE = (_PACKAGE + "dispatcher", _PACKAGE + "signals", _PACKAGE + "subscriptions")

# An exception may be made so that its attributes cannot be read.
_cause_of: Any = BaseException.__dict__["__cause__"].__get__
_context_of: Any = BaseException.__dict__["__context__"].__get__
_traceback_of: Any = BaseException.__dict__["__traceback__"].__get__
_exceptions_of: Any = BaseExceptionGroup.__dict__["exceptions"].__get__


def empty_frames(
    errors: Iterable[BaseException | None], kind: type, *, keep_variables: bool = True
) -> None:
    """Empty the frames that exceptions have passed through.

    Frames that have not ended stay as they are.

    Args:
        errors: what the handlers raised.
        kind: the class of emissions.
        keep_variables: whether somebody else may look at them, such as a debugger, since what
            is raised goes on to the emitter. Then the frames of handlers are emptied only if
            they lead to an emission.
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
            # And those that called it.
            while frame is not None and _empty(frame, kind, keep_variables=keep_variables):
                frame = frame.f_back
            while (traceback := traceback.tb_next) is not None:
                _empty(traceback.tb_frame, kind, keep_variables=keep_variables)


def _empty(frame: FrameType, kind: type, *, keep_variables: bool) -> bool:
    """Clear a frame that has ended, unless its variables are to be kept.

    Returns:
        Whether it has ended.
    """
    code, referents = frame.f_code, gc.get_referents(frame)
    for part in referents:
        if part is code:
            break
    else:  # it has not ended: to clear a coroutine that is suspended would end it
        return False
    if not keep_variables or is_inside(frame) or _lead_to(referents, kind):
        frame.clear()
    return True


def is_inside(frame: FrameType) -> bool:
    """Whether a frame is of this package, or of asyncio, and of no handler."""
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_INSIDE) and not name.startswith(_CALLED)


def _lead_to(parts: list[Any], kind: type) -> bool:
    """Whether objects are, or hold, an emission, as far as that can be seen in short time."""
    seen: set[int] = set()
    for _ in range(_DEPTH):
        referents: list[Any] = []
        for part in parts:
            its_class = type(part)
            if its_class is kind or its_class is Branch:
                return True
            if not gc.is_tracked(part) or id(part) in seen or _is_large(its_class):
                continue
            seen.add(id(part))
            if its_class is FunctionType:
                referents += (*(part.__closure__ or ()), *(part.__defaults__ or ()))
            else:
                referents += gc.get_referents(part)
        if len(seen) > _MOST:
            return False
        parts = referents
    return False


def _is_large(its_class: type) -> bool:
    """Whether objects of a class lead to half of the program, and to no emission."""
    return issubclass(its_class, _LARGE) or module_of(its_class).startswith(_WHOLE)
