"""Moving things between lists in one step, so that an interrupt loses none of them.

A signal handler runs between two steps of the interpreter, and what it raises comes up there.
It does not part what one call of a built-in function does.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from itertools import repeat
from typing import TypeVar

__all__ = ["move_all", "move_first", "move_last"]

ThingT = TypeVar("ThingT")


def move_last(source: list[ThingT], target: list[ThingT], number: int = 1) -> None:
    """Move so many things from the end of a list to the end of another.

    Raises:
        IndexError: there were fewer, which have been moved.
    """
    target.extend(map(list.pop, repeat(source, number)))


def move_first(source: deque[ThingT], target: list[ThingT], number: int = 1) -> None:
    """Move so many things from the beginning of a queue to the end of a list.

    Raises:
        IndexError: there were fewer, which have been moved.
    """
    target.extend(map(deque.popleft, repeat(source, number)))


def move_all(source: list[ThingT], target: list[ThingT]) -> int:
    """Move what a list holds to another; return how many things it held."""
    number = len(source)
    with suppress(IndexError):  # another thread has moved some in this very moment
        move_last(source, target, number)
    return number
