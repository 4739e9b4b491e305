"""What the source of an application says of events, also in functions that were not called."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._names import canonical_name
from madcrow_events._text import module_of
from madcrow_events.cli._places import Line
from madcrow_events.exceptions import InvalidEventNameError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal
from madcrow_events.signals._models import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from madcrow_events.subscriptions._patterns import Pattern

__all__ = [
    "UNKNOWN",
    "Call",
    "Source",
    "Sources",
    "file_of",
    "modules_of",
    "own_modules",
    "read_sources",
]

UNKNOWN: Final = object()
"""Stands for a value that the source does not tell."""

_PACKAGE: Final = __name__.partition(".")[0]

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
            if issubclass(type(holder), type | ModuleType):  # not `isinstance`, which asks proxies
                return vars(holder).get(node.attr, UNKNOWN)
        return UNKNOWN


class Call(NamedTuple):
    """A call in a source.

    Attributes:
        source: the source.
        node: the call.
        name: the last part of the function's name.
        function: the function, or `UNKNOWN`.
    """

    source: Source
    node: ast.Call
    name: str
    function: Any

    @property
    def line(self) -> Line:
        """Where it stands."""
        return Line(self.source.file, self.node.lineno)

    @property
    def first(self) -> Any:
        """The value of the first argument, or `UNKNOWN`."""
        return self.source.value_of(self.node.args[0]) if self.node.args else UNKNOWN

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
            for node in ast.walk(source.tree):
                if isinstance(node, ast.Call):
                    name = _last_name(node.func)
                    self.calls.append(Call(source, node, name, source.value_of(node.func)))
                elif isinstance(node, ast.Subscript):
                    value = source.value_of(node.slice)
                    self.subscripts.append((value, source, Line(source.file, node.lineno)))
                elif isinstance(node, ast.ClassDef):
                    methods = {getattr(it, "name", "") for it in node.body}
                    self.have_observers |= methods >= {"emission", "handling"}
        self._values, self._identifiers = self._subscribed()

    def _subscribed(self) -> tuple[list[Pattern | EventSignal[Any]], set[str]]:
        """Return what the calls that subscribe are given: values, or identifiers without one."""
        values: list[Pattern | EventSignal[Any]] = []
        identifiers: set[str] = set()
        for call in self.calls:
            if call.name in _SUBSCRIBING:
                signal = call.node.func.value if isinstance(call.node.func, ast.Attribute) else None
                for node in filter(None, (signal, *call.node.args[:1])):
                    value = call.source.value_of(node)
                    wanted = _wanted(value)
                    values += [] if wanted is None else [wanted]
                    if value is UNKNOWN:
                        identifiers.add(_last_name(node))
        return values, identifiers

    def subscribe_to(self, signal: EventSignal[Any]) -> bool:
        """Whether a line of them subscribes a handler to an event, if it runs."""
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


# Which modules


def modules_of(app: str, before: frozenset[str]) -> list[str]:
    """Return the names of the modules that an application consists of and has imported.

    Args:
        app: the name of its module.
        before: the names of the modules that were imported before it.
    """
    top = app.partition(".")[0]
    return sorted(
        name
        for name in [*sys.modules]
        if name.partition(".")[0] == top
        or (name not in before and name.partition(".")[0] != _PACKAGE)
    )


def own_modules(modules: Iterable[str], app: str, folder: str | None) -> set[str]:
    """Return the names of those modules that are the application's own.

    They are those of the package of `app`, and those that were imported from beside it.

    Args:
        modules: the names of the modules.
        app: the name of the application's module.
        folder: the folder given as `--app-dir`, or None.
    """
    top = app.partition(".")[0]
    folders = _folders_of(top, folder)
    return {it for it in modules if it.partition(".")[0] == top or _is_in(file_of(it), folders)}


def file_of(name: str) -> str | None:
    """Return the path of the file of a module that was imported; None if it has none."""
    file = getattr(sys.modules.get(name), "__file__", None)
    return file if isinstance(file, str) else None


def read_sources(modules: Iterable[str], own: set[str]) -> Sources:
    """Return the sources of those modules that are the application's own or use this package.

    Args:
        modules: the names of the modules.
        own: the names of the application's own modules.
    """
    found = []
    for name in modules:
        module, file = sys.modules.get(name), file_of(name)
        if not isinstance(module, ModuleType) or file is None:
            continue
        if name in own or _uses_events(module):
            found.append(_read(module, file, is_own=name in own))
    return Sources([it for it in found if it is not None])


def _folders_of(top: str, folder: str | None) -> list[Path]:
    """Return the folders whose modules are the application's own."""
    given = [] if folder is None else [Path(folder).resolve()]
    file = file_of(top)
    if file is None:
        return given
    beside = Path(file).resolve().parent
    if Path(file).name.startswith("__init__."):
        beside = beside.parent
    return given if _is_of_installation(str(beside)) else [*given, beside]


def _is_in(file: str | None, folders: list[Path]) -> bool:
    if file is None or _is_of_installation(file):
        return False
    return any(Path(file).resolve().is_relative_to(it) for it in folders)


def _is_of_installation(path: str) -> bool:
    """Whether a path belongs to Python, or to what is installed."""
    installed = os.path.join(sys.prefix, ""), os.path.dirname(os.__file__)  # noqa: PTH118, PTH120  # texts are compared
    is_site = {"site-packages", "dist-packages"} & set(Path(path).parts)
    return bool(is_site) or path.startswith(installed)


def _uses_events(module: ModuleType) -> bool:
    """Whether a module has something of this package among its names."""
    for value in list(vars(module).values()):
        kind, origin = type(value), None
        if issubclass(kind, ModuleType):
            origin = vars(value).get("__name__")
        elif issubclass(kind, type):
            origin = module_of(value)
        elif kind is FunctionType:
            origin = value.__module__
        if str(origin).partition(".")[0] == _PACKAGE:
            return True
    return False


def _read(module: ModuleType, file: str, *, is_own: bool) -> Source | None:
    try:
        text = inspect.getsource(module)
    except (OSError, TypeError):
        return None
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):  # the file is no Python, or has changed meanwhile
        return None
    return Source(file, tree, {**_imported(tree, module), **vars(module)}, is_own)


def _imported(tree: ast.Module, module: ModuleType) -> dict[str, Any]:
    """Return what is imported inside of functions, by name, as far as it was imported."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for it in node.names:
                name = it.name if it.asname else it.name.partition(".")[0]
                found[it.asname or name] = sys.modules.get(name, UNKNOWN)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module)
            for it in node.names:
                found[it.asname or it.name] = getattr(origin, "__dict__", {}).get(it.name, UNKNOWN)
    return found


def _origin(node: ast.ImportFrom, module: ModuleType) -> ModuleType | None:
    name = "." * node.level + (node.module or "")
    try:
        return sys.modules.get(importlib.util.resolve_name(name, module.__package__))
    except ImportError:  # it is relative beyond the package
        return None
