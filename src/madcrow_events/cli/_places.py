"""Finding the file and the line of a handler, a class or an exception."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import sysconfig
from types import CodeType, MethodType, TracebackType
from typing import Any, NamedTuple

__all__ = ["Line", "line_of", "line_of_class", "lines_to", "raised_at"]

_IMPORTLIB = os.path.join(os.path.dirname(importlib.__file__), "")  # noqa: PTH118, PTH120  # as below
_HERE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")  # noqa: PTH118, PTH120  # pathlib would be imported


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        file: the path of the file.
        line: the number of the line.
    """

    file: str
    line: int

    def __str__(self) -> str:
        """Return the path, seen from the working directory if it is below that, and the line."""
        try:
            below = os.path.relpath(self.file)
        except ValueError:  # on Windows, another drive
            below = self.file
        return f"{self.file if below.startswith(os.pardir) else below}:{self.line}"


def line_of(handler: Any) -> Line | None:
    """Return where a handler is defined; None if it is not written in Python.

    Args:
        handler: a function, a method, a partial, or an object with `__call__`.
    """
    seen: set[int] = set()
    while id(handler) not in seen:
        seen.add(id(handler))
        if isinstance(handler, functools.partial):
            handler = handler.func
        elif isinstance(handler, MethodType | staticmethod | classmethod):
            handler = handler.__func__
        else:
            handler = getattr(handler, "__wrapped__", handler)
    code = getattr(handler, "__code__", None)
    if code is None and not isinstance(handler, type):
        code = getattr(inspect.getattr_static(type(handler), "__call__", None), "__code__", None)
    if isinstance(code, CodeType):
        return Line(code.co_filename, code.co_firstlineno)
    return line_of_class(handler) if isinstance(handler, type) else None


def line_of_class(class_: type) -> Line | None:
    """Return where a class is defined; None if its source is not there."""
    file = getattr(sys.modules.get(class_.__module__), "__file__", None)
    if not isinstance(file, str):
        return None
    try:
        return Line(file, inspect.getsourcelines(class_)[1])
    except (OSError, TypeError, IndexError, SyntaxError):
        return None


def raised_at(error: BaseException) -> Line | None:
    """Return the line of the application on the way to where an exception was raised.

    It is the innermost one that is in no installed package, or else the innermost of all.
    """
    lines = [line for line, _ in lines_to(error)]
    libraries = tuple(f"{it}{os.sep}" for it in set(sysconfig.get_paths().values()))
    own = [it for it in lines if not it.file.startswith(libraries)]
    return next(reversed(own or lines), None)


def lines_to(error: BaseException) -> list[tuple[Line, str]]:
    """Return the lines on the way to where an exception was raised, the innermost last.

    Lines of this package and of the import system are left out.

    Returns:
        Each line with the name of its function.
    """
    found: list[tuple[Line, str]] = []
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith(("<frozen", _HERE, _IMPORTLIB)):
            found.append((Line(code.co_filename, traceback.tb_lineno), code.co_name))
        traceback = traceback.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        found.append((Line(error.filename, error.lineno or 1), "<module>"))
    return found
