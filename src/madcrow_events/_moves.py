"""Moving things between lists in one step, so that an interrupt loses none of them.

A signal handler runs, and raises, between two steps of the interpreter. One call of a built-in
function is one step.
"""

from __future__ import annotations

from collections import deque
from itertools import repeat
from typing import Any, TypeVar

__all__ = ["move_all", "move_first", "move_last"]

ThingT = TypeVar("ThingT")


def move_last(source: list[ThingT] | deque[ThingT], target: list[ThingT], number: int = 1) -> None:
    """Move a number of things from the end of a list or queue to the end of a list.

    Raises:
        IndexError: there were fewer; those have been moved.
    """
    things: Any = source
    target.extend(map(type(things).pop, repeat(things, number)))


def move_first(source: deque[ThingT], target: list[ThingT], number: int = 1) -> None:
    """Move a number of things from the beginning of a queue to the end of a list.

    Raises:
        IndexError: there were fewer; those have been moved.
    """
    target.extend(map(deque.popleft, repeat(source, number)))


def move_all(source: list[ThingT], target: list[ThingT]) -> int:
    """Move all things from a list to another; return how many those were."""
    number = len(source)
    try:
        target.extend(map(list.pop, repeat(source, number)))
    except IndexError:  # another thread has moved some at the same time
        pass
    return number
