"""Making text safe for logs and messages: printable, and in one line.

Text from elsewhere is made printable first, so that no exception message can forge a line of the
log.
"""

from __future__ import annotations

import functools
from types import FunctionType
from typing import TYPE_CHECKING

from madcrow_events._interrupts import is_interrupt

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "close_matches",
    "handler_name",
    "module_of",
    "names_apart",
    "printable",
    "text_of",
    "type_name",
]

# Read without the metaclass, whose own `__name__` may raise.
_name_of_class = type.__dict__["__name__"].__get__
_path_of_class = type.__dict__["__qualname__"].__get__
_module_of_class = type.__dict__["__module__"].__get__


def module_of(class_: type) -> str:
    """Return the name of the module that defines a class."""
    return str(_module_of_class(class_))


def text_of(value: object) -> str:
    """Return any value as text, also where `str` fails: on integers of thousands of digits, say."""
    try:
        return str(value)
    except Exception as error:  # the `__str__` of a class may raise anything
        if is_interrupt(error):
            raise
        if isinstance(value, int):
            return hex(value)
        return f"{type_name(type(value))} without a text"


def printable(text: object, limit: int = 200) -> str:
    """Return `text` in one line: cut at `limit` characters, with control characters escaped."""
    if type(text) is str and len(text) <= limit and text.isprintable():
        return text  # nearly every name, and each failure has some
    shown = text_of(text)
    if len(shown) > limit:
        shown = shown[:limit] + "..."
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in shown
    )


def close_matches(
    word: str, known: Iterable[str], most: int, *, likeness: float = 0.6
) -> list[str]:
    """Return the known words that resemble a wrong one, the nearest first.

    Args:
        word: the wrong word.
        known: the known words.
        most: how many to return at most.
        likeness: what a word must reach; 1 is that of equal words.
    """
    from difflib import get_close_matches  # only a mistake needs it, and each import would pay

    return get_close_matches(word, known, most, likeness)


def handler_name(handler: object) -> str:
    """Return the dotted name of a handler, never its `repr`, which may show values."""
    if type(handler) is not FunctionType:
        while issubclass(type(handler), functools.partial):
            handler = handler.func  # type: ignore[attr-defined]  # it is a partial
    try:
        module, name = handler.__module__, handler.__qualname__  # type: ignore[attr-defined]  # tried
        if type(name) is not str:  # the `__qualname__` of a mock is a mock
            name = type(handler).__qualname__
    except Exception as error:  # a proxy may raise anything; its type does not
        if is_interrupt(error):
            raise
        module, name = _module_of_class(type(handler)), _path_of_class(type(handler))
    return printable(f"{module}.{name}" if module else name)


def type_name(annotation: object) -> str:
    """Return an annotation as it is written in code, for messages that say what to write."""
    if issubclass(type(annotation), type):
        return printable(_name_of_class(annotation))
    return printable(annotation).replace("typing.", "")


def names_apart(*classes: type) -> list[str]:
    """Return the names of classes for one message, with their modules if two have one name."""
    names = [type_name(it) for it in classes]
    if len(set(names)) == len(set(map(id, classes))):
        return names
    names = [printable(f"{module_of(it)}.{_path_of_class(it)}") for it in classes]
    # Two such classes come from a module that ran again, or from a function that makes classes.
    return [
        f"{name} (another class)" if name in names[:place] else name
        for place, name in enumerate(names)
    ]
