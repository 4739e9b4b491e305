"""Noticing a finalizer that interrupts an emitter as it hands handlers over.

A finalizer may run between any two steps, and it may emit. If it then waited for a place in the
queue, it might wait for the very handlers that the code below it has not handed over yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["asks", "hands_over", "is_handing_over"]

FunctionT = TypeVar("FunctionT")

_asking: set[CodeType] = set()
_handing_over: set[CodeType] = set()


def hands_over(function: FunctionT) -> FunctionT:
    """Note a function that has places in the queue, or a batch's turn, while it runs."""
    code: Any = function
    _handing_over.add(code.__code__)
    return function


def asks(function: FunctionT) -> FunctionT:
    """Note a function that runs the application's predicates; its caller waits for nothing then."""
    code: Any = function
    _asking.add(code.__code__)
    return function


def is_handing_over(frame: FrameType | None) -> bool:
    """Whether handlers are being handed over further out on the stack.

    Args:
        frame: the frame in which to begin.
    """
    is_asking = False
    while frame is not None:
        if frame.f_code in _asking:
            is_asking = True
        elif frame.f_code in _handing_over:
            if not is_asking:
                return True
            # this one called the predicates, and waits for nothing meanwhile: look farther out
            is_asking = False
        frame = frame.f_back
    return False
