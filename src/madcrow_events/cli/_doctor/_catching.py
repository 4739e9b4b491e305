"""Whether the code of an application catches an error itself."""

from __future__ import annotations

import ast
import linecache
import sys
import traceback
from itertools import dropwhile, takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import CodeType, FrameType

__all__ = ["catches", "is_caught"]

_COMMAND: Final = __name__.partition("._")[0]

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def is_caught(error: BaseException, trees: dict[str, ast.Module]) -> bool:
    """Whether the application, which the command has called, would catch an error and go on.

    Args:
        error: an error that is about to be raised.
        trees: the trees of files that were read before, by their paths; others are added.
    """
    frames = (it for it, _ in traceback.walk_stack(sys._getframe(1)))
    called = dropwhile(_is_of_command, frames)
    for frame in takewhile(lambda it: not _is_of_command(it), called):
        code = frame.f_code
        tree = trees.get(code.co_filename) or trees.setdefault(code.co_filename, _read(code))
        if catches(tree, frame.f_lineno, type(error), code.co_name):
            return True
    return False


def _is_of_command(frame: FrameType) -> bool:
    return f"{frame.f_globals.get('__name__')}.".startswith(f"{_COMMAND}.")


def _read(code: CodeType) -> ast.Module:
    try:
        return ast.parse("".join(linecache.getlines(code.co_filename)))
    except (SyntaxError, ValueError):  # it is no Python, or has changed meanwhile
        return ast.Module([], [])


def catches(
    tree: ast.AST, line: int, error: type[BaseException], function: str | None = None
) -> bool:
    """Whether a line stands in a `try` or a `suppress` that catches an error and goes on.

    Args:
        tree: the tree of the file.
        line: the number of the line.
        error: the class of the error.
        function: the name of the function that runs there. The blocks around it do not count. If
            None, those around any function do not count.
    """
    names = {it.__name__ for it in error.__mro__}
    is_within = False
    for node in _around(tree, line):
        if isinstance(node, _Function):
            name = getattr(node, "name", "<lambda>")
            is_within = is_within and function not in (None, name)
        elif isinstance(node, ast.Try):
            in_body = node.body[0].lineno <= line <= (node.body[-1].end_lineno or line)
            is_within |= in_body and any(_catches(it, names) for it in node.handlers)
        elif isinstance(node, ast.With):
            is_within |= any(_suppresses(it.context_expr, names) for it in node.items)
    return is_within


def _around(tree: ast.AST, line: int) -> Iterable[ast.AST]:
    """Yield the nodes that a line is in, the outer ones first."""
    for node in ast.iter_child_nodes(tree):
        first, last = getattr(node, "lineno", None), getattr(node, "end_lineno", None)
        if first is None or last is None or first <= line <= last:
            if first is not None:
                yield node
            yield from _around(node, line)


def _catches(handler: ast.ExceptHandler, names: set[str]) -> bool:
    goes_on = not isinstance(handler.body[-1], ast.Raise)
    return goes_on and (handler.type is None or bool(names & _names_in(handler.type)))


def _suppresses(expression: ast.expr, names: set[str]) -> bool:
    if not isinstance(expression, ast.Call) or "suppress" not in _names_in(expression.func):
        return False
    return any(names & _names_in(it) for it in expression.args)


def _names_in(expression: ast.expr) -> set[str]:
    nodes = ast.walk(expression)
    return {it.id if isinstance(it, ast.Name) else getattr(it, "attr", "") for it in nodes}
