"""Noticing a finalizer that interrupts an emitter as it hands handlers over.

A finalizer may run between any two steps, and it may emit. If it then waited for a place in the
queue, it might wait for the very handlers that the code below it has not handed over yet.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

    from madcrow_events._background.permits import Permits

__all__ = ["asks", "hands_over", "is_handing_over"]

FunctionT = TypeVar("FunctionT")

_asking: set[CodeType] = set()
_handing_over: dict[CodeType, attrgetter[Permits]] = {}


def hands_over(permits: str) -> Callable[[FunctionT], FunctionT]:
    """Note a method that has places in the queue, or a batch's turn, while it runs.

    Args:
        permits: the attribute of its object that has the permits of that queue.
    """

    def note(method: FunctionT) -> FunctionT:
        code: Any = method
        _handing_over[code.__code__] = attrgetter(permits)
        return method

    return note


def asks(function: FunctionT) -> FunctionT:
    """Note a function that runs the application's predicates; its caller waits for nothing then."""
    code: Any = function
    _asking.add(code.__code__)
    return function


def is_handing_over(frame: FrameType | None, permits: Permits) -> bool:
    """Whether handlers are being handed over further out on the stack.

    Args:
        frame: the frame in which to begin.
        permits: the permits of the queue that the handlers are for.
    """
    is_asking = False
    while frame is not None:
        permits_of = _handing_over.get(frame.f_code)
        if frame.f_code in _asking:
            is_asking = True
        elif permits_of is not None:
            if not is_asking and permits_of(frame.f_locals["self"]) is permits:
                return True
            # This one called the predicates, and waits for nothing meanwhile: look farther out.
            is_asking = False
        frame = frame.f_back
    return False
