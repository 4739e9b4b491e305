"""Emptying the frames that the traceback of a failure keeps alive, once it has been announced.

An emission refers to its failures, a failure to its traceback, and the traceback to frames. The
variables of these frames refer to the emission again, to its context, and to the object whose
method has failed. Because of this cycle the object would live, and be called again, until the next
garbage collection. The traceback itself stays, with every line.
"""

from __future__ import annotations

import gc
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import module_of
from madcrow_events.emissions._frames import Branch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.emissions._failures import HandlerFailure

__all__ = ["empty_all_frames", "empty_frames", "is_inside"]

_PACKAGE = __name__.partition(".")[0] + "."
_INSIDE = (_PACKAGE, "asyncio.")
_CALLED = (_PACKAGE + "event_handlers.", _PACKAGE + "testing.")

_SUSPENDABLE = 0x20 | 0x80 | 0x200
"""The flags of the code of generators and coroutines, as in `inspect`, which takes long to import.

On old Pythons, to clear the frame of one that is suspended would end it.
"""

_DEPTH = 6
"""How many references are followed: enough for a closure in a closure in a variable."""

_MOST = 300
"""How many objects a search visits at most."""

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
        errors: the exceptions that the handlers raised.
        kind: the class of emissions.
        keep_variables: whether the exceptions go on to the emitter, so that a debugger may look at
            the variables. Then a handler's frame is emptied only if it leads to an emission.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [*errors]
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        left += [it for it in (_cause_of(error), _context_of(error)) if it is not None]
        if issubclass(type(error), BaseExceptionGroup):
            left += _exceptions_of(error)
        traceback = _traceback_of(error)
        if traceback is not None:
            frame: FrameType | None = traceback.tb_frame
            # Then the frames that called it.
            while frame is not None and _empty(frame, kind, keep_variables=keep_variables):
                frame = frame.f_back
            while (traceback := traceback.tb_next) is not None:
                _empty(traceback.tb_frame, kind, keep_variables=keep_variables)


def empty_all_frames(failures: Iterable[HandlerFailure], kind: type) -> None:
    """Empty the frames of failures that go no further; do as `empty_frames`, and faster."""
    for _, error in failures:
        if (
            _cause_of(error) is not None
            or _context_of(error) is not None
            or issubclass(type(error), BaseExceptionGroup)
        ):
            empty_frames((error,), kind, keep_variables=False)
            continue
        traceback = _traceback_of(error)
        if traceback is None:
            continue
        # The loop that called the handler still runs nearly always, and so do its callers.
        caller: FrameType | None = traceback.tb_frame
        while caller is not None and _empty(caller, kind, keep_variables=False):
            caller = caller.f_back
        while (traceback := traceback.tb_next) is not None:
            frame = traceback.tb_frame
            if frame.f_code.co_flags & _SUSPENDABLE:
                _empty(frame, kind, keep_variables=False)
                continue
            try:  # without looking first: it has ended nearly always
                frame.clear()
            except RuntimeError as raised:
                if is_interrupt(raised):
                    raise


def _empty(frame: FrameType, kind: type, *, keep_variables: bool) -> bool:
    """Empty a frame that has ended, unless its variables are to be kept.

    Returns:
        Whether it has ended.
    """
    code, referents = frame.f_code, gc.get_referents(frame)
    for part in referents:
        if part is code:
            break
    else:  # it has not ended: clearing a suspended coroutine would end it
        return False
    if not keep_variables or is_inside(frame) or _lead_to(referents, kind):
        frame.clear()
    return True


def is_inside(frame: FrameType) -> bool:
    """Whether a frame belongs to this package or to asyncio, and not to a handler."""
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_INSIDE) and not name.startswith(_CALLED)


def _lead_to(parts: list[Any], kind: type) -> bool:
    """Whether objects are emissions, or lead to one within a limited search."""
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
    """Whether the objects of a class lead to large parts of the program, and to no emission."""
    return issubclass(its_class, _LARGE) or module_of(its_class).startswith(_WHOLE)
