"""The code of an application: its calls, and what they do with events."""

from __future__ import annotations

import ast
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events.cli._doctor._modules import contents_of, is_installed
from madcrow_events.cli._places import Line
from madcrow_events.dispatcher import EventDispatcher, emit_event, emit_event_async
from madcrow_events.handlers import on_event, register_handler, unregister_handler
from madcrow_events.signals import SignalRegistry, madcrow_signals

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["UNKNOWN", "Call", "Code", "Source", "last_name", "subscribes", "walk"]

UNKNOWN: Final = object()
"""Stands for a value that the source does not tell."""

_CONNECTING: Final = frozenset({"connect", "connect_via", "connected_to"})
"""What the methods of a signal are called that subscribe handlers."""

_SUBSCRIBING: Final = _CONNECTING | {"on", "on_event", "register_handler", "subscribe"}
"""What all functions are called that subscribe handlers, in this package and in blinker."""

_FUNCTIONS: Final = (on_event, register_handler, emit_event, emit_event_async, unregister_handler)
"""What takes the name of an event of the default registry first."""

_METHODS: Final = frozenset({"explain", "get", "resolve", "subscribe", "unsubscribe"})
"""What the methods of a registry are called that take the name of an event first."""

_EMITTING: Final = frozenset({"emit", "emit_async", "emit_typed", "emit_typed_async"})
"""What the methods of a dispatcher are called that take the name of an event first."""

_LATER: Final = (
    *(ast.If, ast.IfExp, ast.BoolOp, ast.Match, ast.ExceptHandler),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda),
)
"""What holds code that need not run when the module is imported."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Source(NamedTuple):
    """The source of a module that was imported.

    Attributes:
        file: the path of the file.
        tree: the tree of its syntax.
        values: what its names mean.
        package: the name of the package that it is in.
        is_own: whether the module is the application's own.
        is_lazy: whether it is imported when it is first used.
    """

    file: str
    tree: ast.Module
    values: Mapping[str, Any]
    package: str | None
    is_own: bool
    is_lazy: bool


class Code(NamedTuple):
    """A piece of a source.

    Attributes:
        source: the source.
        node: the piece.
        is_later: whether it need not have happened during the import: it stands in a function, or
            in an `if`, say.
        is_guarded: whether it stands in a `try` or in a `suppress`.
        assigned: the names that the functions around it give values of their own.
    """

    source: Source
    node: Any
    is_later: bool
    is_guarded: bool
    assigned: frozenset[str | None]

    @property
    def line(self) -> Line:
        """Where it stands."""
        return Line(self.source.file, self.node.lineno)

    def value_of(self, node: ast.expr | None) -> Any:
        """Return the value of an expression in it, or `UNKNOWN`; no property is asked."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and node.id not in self.assigned:
            return self.source.values.get(node.id, UNKNOWN)
        if isinstance(node, ast.Attribute):
            holder = self.value_of(node.value)
            if issubclass(type(holder), type):  # not `isinstance`, which asks proxies
                return type.__dict__["__dict__"].__get__(holder).get(node.attr, UNKNOWN)
            return contents_of(holder).get(node.attr, UNKNOWN)
        return UNKNOWN


class Call(Code):
    """A call in a source."""

    @property
    def name(self) -> str:
        """The last part of the function's name."""
        return last_name(self.node.func)

    @property
    def function(self) -> Any:
        """The function without the arguments that it was given before, or `UNKNOWN`."""
        function: Any = self.value_of(self.node.func)
        while type(function) is partial:
            function = function.func
        return function

    @property
    def holder(self) -> ast.expr | None:
        """The expression whose method is called, or None."""
        return self.node.func.value if isinstance(self.node.func, ast.Attribute) else None

    @property
    def first(self) -> Any:
        """The value of the first argument, or `UNKNOWN`."""
        return self.value_of(self.node.args[0]) if self.node.args else UNKNOWN

    def is_of(self, function: object) -> bool:
        """Whether a function is called, or is handed on, as to a thread that calls it."""
        return any(self.value_of(it) is function for it in (self.node.func, *self.node.args))

    def keyword(self, name: str) -> ast.expr | None:
        """Return what the call is given as a keyword, or None."""
        return next((it.value for it in self.node.keywords if it.arg == name), None)

    def may_have_keyword(self, name: str) -> bool:
        """Whether the call has a keyword, or may have it, by `**`."""
        return any(it.arg in (name, None) for it in self.node.keywords)

    @property
    def registry(self) -> object:
        """The registry in which it looks up its first argument; None if it is unknown."""
        holder = self.value_of(self.holder)
        if any(self.function is it for it in _FUNCTIONS):
            given = self.keyword("signals")
            if given is not None:
                return self.value_of(given)
            is_default = type(self.value_of(self.node.func)) is not partial
            is_default = is_default and not self.may_have_keyword("signals")
            return madcrow_signals if is_default else None
        if type(holder) is EventDispatcher and self.name in _EMITTING:
            return holder.signals
        return holder if self.name in _METHODS else None

    @property
    def event(self) -> Any:
        """What it subscribes a handler to, or `UNKNOWN`; None if it subscribes none."""
        function = self.function
        is_ours = subscribes(function)
        if not is_ours and (self.name not in _SUBSCRIBING or _is_foreign(function)):
            return None
        if not (self.node.args or self.node.keywords):
            return None
        if self.name in _CONNECTING and not is_ours:
            return self._event_in(self.holder)
        return self._event_in(self.node.args[0] if self.node.args else None)

    def _event_in(self, node: ast.expr | None) -> Any:
        if isinstance(node, ast.Subscript):
            return self.value_of(node.slice)
        if isinstance(node, ast.Call) and last_name(node.func) in ("resolve", "signal"):
            return self.value_of(node.args[0]) if node.args else UNKNOWN
        return self.value_of(node)


def walk(source: Source) -> Iterator[Code]:
    """Yield the pieces of a source.

    Args:
        source: the source.
    """
    waiting = [Code(source, source.tree, source.is_lazy, False, frozenset())]
    while waiting:
        code = waiting.pop()
        yield code
        node = code.node
        parts = [*ast.iter_child_nodes(node)]
        within = code
        if isinstance(node, _LATER):
            within = within._replace(is_later=True)
        body: Iterable[ast.AST] = parts
        if isinstance(node, _Function):
            body = node.body if isinstance(node.body, list) else [node.body]
            within = within._replace(assigned=code.assigned | _assigned_in(node))
        elif isinstance(node, ast.Try | ast.TryStar) and node.handlers:
            body = node.body
            within = within._replace(is_guarded=True)
        elif isinstance(node, ast.With | ast.AsyncWith):
            calls = [it.context_expr for it in node.items]
            if any(_is_suppress(code, it) for it in calls):
                within = within._replace(is_guarded=True)
        # What is not in the body, as the decorators and defaults of a function, runs at once.
        inner = {id(it) for it in body}
        waiting += [(within if id(it) in inner else code)._replace(node=it) for it in parts]


def _is_suppress(code: Code, node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return code.value_of(node.func) is suppress or last_name(node.func) == "suppress"


def _assigned_in(function: ast.AST) -> frozenset[str | None]:
    """Return the names that a function gives values of its own, without what it imports."""
    names: set[str | None] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.ClassDef):
            names.add(node.name)
    return frozenset(names)


def subscribes(function: object) -> bool:
    """Whether a value is a function of this package that subscribes a handler.

    Args:
        function: the value, or `UNKNOWN`.
    """
    if type(function) is MethodType:
        function = function.__func__
    return any(function is it for it in (on_event, register_handler, SignalRegistry.subscribe))


def _is_foreign(function: Any) -> bool:
    """Whether a function is known to be another package's, such as `sqlite3.connect`."""
    if type(function) is FunctionType:
        file = function.__code__.co_filename
        return is_installed(file)
    return type(function) is BuiltinFunctionType


def last_name(node: ast.expr) -> str:
    """Return the last part of a name with dots; empty if an expression is none.

    Args:
        node: the expression.
    """
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
