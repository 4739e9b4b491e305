"""What the source of an application says of events, also in functions that were not called."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._names import canonical_name, name_after
from madcrow_events.cli._doctor._code import (
    UNKNOWN,
    Call,
    Code,
    Source,
    last_name,
    subscribes,
    walk,
)
from madcrow_events.cli._doctor._modules import contents_of, file_of, is_installed
from madcrow_events.exceptions import InvalidEventNameError
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry
from madcrow_events.signals._models import matches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from madcrow_events.cli._places import Line
    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["LookUp", "Sources", "parsed", "read_sources"]


class LookUp(NamedTuple):
    """A name that is looked up in a registry.

    Attributes:
        name: the canonical name.
        line: where it stands.
        is_needed: whether an event that is not declared is an error there.
    """

    name: str
    line: Line
    is_needed: bool


class Sources:
    """The sources of an application, and of what it imports that uses this package.

    Args:
        sources: the sources.

    Attributes:
        calls: the calls in them.
        have_observers: whether they have a class of observers, which follow all events.
        declared: the names that lines declare that run later, each with its model or None.
            `UNKNOWN` stands for either if the source does not tell it.
        subscribe_to_any: whether a line that runs later subscribes handlers, and does not tell to
            which event; or imports a module of the application that was not imported yet.
    """

    def __init__(self, sources: list[Source]) -> None:
        self.calls: list[Call] = []
        self.have_observers = False
        self.declared: list[tuple[Any, Any]] = []
        self.subscribe_to_any = False
        self._look_ups: list[tuple[object, LookUp]] = []
        self._may_be_missing: set[str] = set()
        self._wanted: list[Pattern | EventSignal[Any]] = []
        self._tops = {it.values["__name__"].partition(".")[0] for it in sources if it.is_own}
        for source in sources:
            for code in walk(source):
                with suppress(Exception):  # an object that cannot be looked at says nothing
                    self._read(code)

    def subscribe_to(self, signal: EventSignal[Any]) -> bool:
        """Whether a line of them subscribes, or may subscribe, a handler when it runs later."""
        return any(
            it is signal if isinstance(it, EventSignal) else matches(signal, it)
            for it in self._wanted
        )

    def looked_up_in(self, signals: SignalRegistry) -> list[LookUp]:
        """Return what the application looks up in a registry.

        What it asks for with `in` or `get`, or in a `try`, need not be declared.
        """
        missing = self._may_be_missing
        return [
            it._replace(is_needed=it.is_needed and it.name not in missing)
            for registry, it in self._look_ups
            if registry is signals
        ]

    def _read(self, code: Code) -> None:
        node = code.node
        if isinstance(node, ast.Call):
            self._read_call(Call(*code))
        elif isinstance(node, ast.Subscript):
            if isinstance(node.ctx, ast.Load):
                self._look_up(code, code.value_of(node.value), code.value_of(node.slice))
        elif isinstance(node, ast.Compare):
            if isinstance(node.ops[0], ast.In | ast.NotIn):
                self._may_be_missing |= _names(code.value_of(node.left))
        elif isinstance(node, ast.ClassDef):
            methods = {getattr(it, "name", "") for it in node.body}
            self.have_observers |= methods >= {"emission", "handling"}
            self.declared += _declared_above(code) if code.is_later else []
        elif code.is_later and self._imports_more(code):
            self._allow_any()

    def _read_call(self, call: Call) -> None:
        self.calls.append(call)
        self._look_up(call, call.registry, call.first)
        if call.name == "get":
            self._may_be_missing |= _names(call.first)
        if call.is_later:
            self.declared += _declared_by(call)
            event = call.event
            handed_on = any(subscribes(call.value_of(it)) for it in call.node.args)
            self.subscribe_to_any |= call.source.is_own and (event is UNKNOWN or handed_on)
            if call.source.is_own and call.name == "import_module":
                self._allow_any()
            wanted = _wanted(event)
            self._wanted += [] if wanted is None else [wanted]

    def _look_up(self, code: Code, registry: object, name: object) -> None:
        if code.source.is_own and issubclass(type(registry), SignalRegistry):
            names = _names(name)
            self._may_be_missing |= names if code.is_guarded else set()
            self._look_ups += [(registry, LookUp(it, code.line, code.is_later)) for it in names]

    def _allow_any(self) -> None:
        """Note that a module will be imported, which may subscribe and declare anything."""
        self.subscribe_to_any = True
        self.declared.append((UNKNOWN, UNKNOWN))

    def _imports_more(self, code: Code) -> bool:
        """Whether it imports a module of the application that was not imported yet."""
        node = code.node
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [it.name for it in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, code.source.package)
            contents = contents_of(sys.modules.get(origin))
            names = [
                origin,
                *(f"{origin}.{it.name}" for it in node.names if it.name not in contents),
            ]
        return code.source.is_own and any(map(self._is_unread, names))

    def _is_unread(self, name: str) -> bool:
        top = name.partition(".")[0]
        if name in sys.modules or top in self._tops:
            return name not in sys.modules
        spec = None if top in sys.modules else PathFinder.find_spec(top)
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        return any(it is not None and not is_installed(it) for it in places)


def _declared_by(call: Call) -> list[tuple[Any, Any]]:
    """Return the name that a call declares, and its model."""
    given = call.keyword("name")
    name = call.first if given is None else call.value_of(given)
    is_name = type(name) is str and call.name in ("signal", "event")
    if not is_name and (name is not UNKNOWN or call.name != "signal"):
        return []
    given = call.keyword("context")
    model = None if given is None and call.name == "signal" else call.value_of(given)
    if not issubclass(type(model), type | NoneType):
        model = UNKNOWN
    return [(name.replace("-", "_") if type(name) is str else UNKNOWN, model)]


def _declared_above(code: Code) -> list[tuple[Any, Any]]:
    """Return the name that a decorator above a class declares, unless it is given there."""
    model = code.value_of(ast.Name(code.node.name, ast.Load()))
    return [
        (name_after(code.node.name), model)
        for it in code.node.decorator_list
        if last_name(it.func if isinstance(it, ast.Call) else it) == "event"
    ]


def _names(value: object) -> set[str]:
    return {value.replace("-", "_")} if type(value) is str else set()


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


def read_sources(modules: Iterable[str], own: set[str]) -> Sources:
    """Return the sources of those modules that are the application's own or use this package.

    Args:
        modules: the names of the modules.
        own: the names of the application's own modules.
    """
    found = (_source_of(name, own) for name in modules)
    return Sources([it for it in found if it is not None])


def _source_of(name: str, own: set[str]) -> Source | None:
    """Return the source of a module, or None if it does not matter or cannot be read."""
    try:
        is_read = name in own or _uses_events(name)
        return _read(name, is_own=name in own) if is_read else None
    except Exception:  # what cannot be read says nothing
        return None


def _uses_events(name: str) -> bool:
    file = Path(file_of(name) or "")
    return file.suffix in (".py", ".pyw") and b"madcrow_events" in file.read_bytes()


def _read(name: str, *, is_own: bool) -> Source:
    contents = contents_of(sys.modules.get(name))
    tree = parsed(file_of(name) or "", contents)
    package = contents.get("__package__")
    values = {**_imported(tree, package), **contents, "__name__": name}
    is_lazy = type(sys.modules[name]).__name__ == "_LazyModule"
    return Source(file_of(name) or "", tree, values, package, is_own, is_lazy)


def parsed(file: str, contents: dict[str, Any]) -> ast.Module:
    """Return the tree of a file, or an empty one if it cannot be read as Python.

    Args:
        file: the path of the file.
        contents: the names of its module, which say how to read it if it lies in an archive.
    """
    try:
        return ast.parse("".join(linecache.getlines(file, contents)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])  # it is no Python, has changed meanwhile, or is too deep


def _imported(tree: ast.Module, package: str | None) -> dict[str, Any]:
    """Return what is imported inside of functions, by name, as far as it was imported."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for it in node.names:
                name = it.name if it.asname else it.name.partition(".")[0]
                found[it.asname or name] = sys.modules.get(name, UNKNOWN)
        elif isinstance(node, ast.ImportFrom):
            contents = contents_of(sys.modules.get(_origin(node, package)))
            for it in node.names:
                found[it.asname or it.name] = contents.get(it.name, UNKNOWN)
    return found


def _origin(node: ast.ImportFrom, package: str | None) -> str:
    """Return the name of the module that something is imported from; empty if there is none."""
    try:
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)
    except (ImportError, TypeError, AttributeError):  # beyond the package, or that is no text
        return ""
