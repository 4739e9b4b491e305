"""What the source of an application says of events, also in functions that were not called."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._names import canonical_name
from madcrow_events.cli._doctor._modules import contents_of, file_of, uses_events
from madcrow_events.cli._places import Line
from madcrow_events.exceptions import InvalidEventNameError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal
from madcrow_events.signals._models import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["UNKNOWN", "Call", "Source", "Sources", "read_sources"]

UNKNOWN: Final = object()
"""Stands for a value that the source does not tell."""

_SUBSCRIBING: Final = frozenset(
    {"connect", "connect_via", "connected_to", "on", "on_event", "register_handler", "subscribe"}
)
"""What the functions are called that subscribe handlers, in this package and in blinker."""


_NAMING: Final = _SUBSCRIBING | {
    *("emit", "emit_async", "emit_event", "emit_event_async", "emit_typed", "emit_typed_async"),
    *("explain", "get", "resolve", "signal", "unregister_handler", "unsubscribe"),
}
"""What the functions are called that take the name of an event first."""


class Source(NamedTuple):
    """The source of a module that was imported.

    Attributes:
        file: the path of the file.
        tree: the tree of its syntax.
        values: what its names mean.
        is_own: whether the module is the application's own.
    """

    file: str
    tree: ast.Module
    values: Mapping[str, Any]
    is_own: bool

    def value_of(self, node: ast.expr | None) -> Any:
        """Return the value of an expression, or `UNKNOWN`; no code of the application runs."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.values.get(node.id, UNKNOWN)
        if isinstance(node, ast.Attribute):
            holder = self.value_of(node.value)
            if issubclass(type(holder), type):  # not `isinstance`, which asks proxies
                return vars(holder).get(node.attr, UNKNOWN)
            return contents_of(holder).get(node.attr, UNKNOWN)
        return UNKNOWN


class Call(NamedTuple):
    """A call in a source.

    Attributes:
        source: the source.
        node: the call.
        name: the last part of the function's name.
        function: the function, or `UNKNOWN`.
        is_later: whether it need not have happened during the import: it stands in a function, or
            in an `if`.
    """

    source: Source
    node: ast.Call
    name: str
    function: Any
    is_later: bool

    @property
    def line(self) -> Line:
        """Where it stands."""
        return Line(self.source.file, self.node.lineno)

    @property
    def first(self) -> Any:
        """The value of the first argument, or `UNKNOWN`."""
        return self.source.value_of(self.node.args[0]) if self.node.args else UNKNOWN

    def is_of(self, function: object) -> bool:
        """Whether a function is called, or is handed on, as to a thread that calls it."""
        return any(self.source.value_of(it) is function for it in (self.node.func, *self.node.args))

    def has_keyword(self, name: str) -> bool:
        """Whether the call has a keyword, or may have it, by `**`."""
        return any(it.arg in (name, None) for it in self.node.keywords)


class Sources:
    """The sources of an application, and of what it imports that uses this package.

    Args:
        sources: the sources.

    Attributes:
        calls: the calls in them.
        subscripts: the values in square brackets, as in `madcrow_signals["order_placed"]`, each
            with its source and its line.
        have_observers: whether they have a class of observers, which follow all events.
    """

    def __init__(self, sources: list[Source]) -> None:
        self.calls: list[Call] = []
        self.subscripts: list[tuple[Any, Source, Line]] = []
        self.have_observers = False
        for source in sources:
            for node, is_later in _walk(source.tree):
                if isinstance(node, ast.Call):
                    name, function = _last_name(node.func), source.value_of(node.func)
                    self.calls.append(Call(source, node, name, function, is_later))
                elif isinstance(node, ast.Subscript):
                    value = source.value_of(node.slice)
                    self.subscripts.append((value, source, Line(source.file, node.lineno)))
                elif isinstance(node, ast.ClassDef):
                    methods = {getattr(it, "name", "") for it in node.body}
                    self.have_observers |= methods >= {"emission", "handling"}
        self._values, self._identifiers = self._subscribed()

    def _subscribed(self) -> tuple[list[Pattern | EventSignal[Any]], set[str]]:
        """Return what later calls subscribe to: values, or identifiers without one."""
        values: list[Pattern | EventSignal[Any]] = []
        identifiers: set[str] = set()
        for call in self.calls:
            if call.is_later and call.name in _SUBSCRIBING:
                signal = call.node.func.value if isinstance(call.node.func, ast.Attribute) else None
                for node in filter(None, (signal, *call.node.args[:1])):
                    value = call.source.value_of(node)
                    wanted = _wanted(value)
                    values += [] if wanted is None else [wanted]
                    if value is UNKNOWN:
                        identifiers.add(_last_name(node))
        return values, identifiers

    def subscribe_to(self, signal: EventSignal[Any]) -> bool:
        """Whether a line of them subscribes a handler to an event, if it runs later."""
        model = signal.context_model
        names = {signal.name, *(it.__name__ for it in (model.__mro__ if model else ()))}
        return bool(names & self._identifiers) or any(
            value is signal if isinstance(value, EventSignal) else matches(signal, value)
            for value in self._values
        )

    def declared_later(self) -> list[tuple[str, type | None]]:
        """Return the names that calls declare, each with its model, or None."""
        found: list[tuple[str, type | None]] = []
        for call in self.calls:
            if call.name in ("signal", "event"):
                keywords = {it.arg: call.source.value_of(it.value) for it in call.node.keywords}
                name, model = keywords.get("name", call.first), keywords.get("context")
                if type(name) is str:
                    model = model if issubclass(type(model), type) else None
                    found.append((name.replace("-", "_"), model))
        return found

    def names_used(self) -> list[tuple[str, Line]]:
        """Return the texts that the application gives where a name is expected, with the lines."""
        given = [(it.first, it.source, it.line) for it in self.calls if it.name in _NAMING]
        return [
            (value.replace("-", "_"), line)
            for value, source, line in (*given, *self.subscripts)
            if source.is_own and type(value) is str
        ]


def _walk(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """Yield the nodes of a tree, each with whether it need not run when the module is imported."""
    waiting: list[tuple[ast.AST, bool]] = [(tree, False)]
    while waiting:
        node, is_later = waiting.pop()
        yield node, is_later
        parts = [*ast.iter_child_nodes(node)]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.If):
            body = node.body if isinstance(node.body, list) else [node.body]
            body = [*body, *getattr(node, "orelse", ())]
            waiting += [(it, True) for it in body]
            parts = [it for it in parts if it not in body]  # decorators and defaults run at once
        waiting += [(it, is_later) for it in parts]


def _wanted(value: Any) -> Pattern | EventSignal[Any] | None:
    """Return the canonical form of a name or pattern, a context class or a signal; else None."""
    kind = type(value)
    if kind is str:
        try:
            return canonical_name(value, pattern="*" in value)
        except InvalidEventNameError:
            return None
    is_model = issubclass(kind, type) and issubclass(value, BaseEventContext)
    found: Pattern | EventSignal[Any] | None = None
    if is_model or issubclass(kind, EventSignal):
        found = value
    return found


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


# Reading


def read_sources(modules: Iterable[str], own: set[str]) -> Sources:
    """Return the sources of those modules that are the application's own or use this package.

    Args:
        modules: the names of the modules.
        own: the names of the application's own modules.
    """
    read = (_read(it, is_own=it in own) for it in modules if it in own or _may_say(it))
    return Sources([it for it in read if it is not None])


def _may_say(name: str) -> bool:
    return uses_events(sys.modules.get(name))


def _read(name: str, *, is_own: bool) -> Source | None:
    file, contents = file_of(name), contents_of(sys.modules.get(name))
    if file is None or not file.endswith((".py", ".pyw")):
        return None
    try:
        tree = ast.parse("".join(linecache.getlines(file, contents)))
    except (SyntaxError, ValueError):  # the file is no Python, or has changed meanwhile
        return None
    values = {**_imported(tree, contents.get("__package__")), **contents}
    return Source(file, tree, values, is_own)


def _imported(tree: ast.Module, package: str | None) -> dict[str, Any]:
    """Return what is imported inside of functions, by name, as far as it was imported."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for it in node.names:
                name = it.name if it.asname else it.name.partition(".")[0]
                found[it.asname or name] = sys.modules.get(name, UNKNOWN)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, package)
            for it in node.names:
                found[it.asname or it.name] = contents_of(origin).get(it.name, UNKNOWN)
    return found


def _origin(node: ast.ImportFrom, package: str | None) -> object:
    name = "." * node.level + (node.module or "")
    try:
        return sys.modules.get(importlib.util.resolve_name(name, package))
    except ImportError:  # it is relative beyond the package
        return None
