"""What the source of an application says of events, also in functions that were not called."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import sys
from contextlib import suppress
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._names import canonical_name, name_after
from madcrow_events.cli._doctor._modules import contents_of, file_of, is_installed
from madcrow_events.cli._places import Line
from madcrow_events.dispatcher import EventDispatcher, emit_event, emit_event_async
from madcrow_events.exceptions import InvalidEventNameError
from madcrow_events.handlers import on_event, register_handler, unregister_handler
from madcrow_events.models import BaseEventContext
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.signals._models import matches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from madcrow_events.subscriptions._patterns import Pattern

__all__ = ["UNKNOWN", "Call", "LookUp", "Sources", "parsed", "read_sources"]

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
        return _last_name(self.node.func)

    @property
    def function(self) -> Any:
        """The function without the arguments that it was given before, or `UNKNOWN`."""
        function = self.value_of(self.node.func)
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
        is_ours = _subscribes(function)
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
        if isinstance(node, ast.Call) and _last_name(node.func) in ("resolve", "signal"):
            return self.value_of(node.args[0]) if node.args else UNKNOWN
        return self.value_of(node)


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
            for code in _walk(source):
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
            handed_on = any(_subscribes(call.value_of(it)) for it in call.node.args)
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


def _walk(source: Source) -> Iterator[Code]:
    """Yield the pieces of a source."""
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
    return code.value_of(node.func) is suppress or _last_name(node.func) == "suppress"


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
        if _last_name(it.func if isinstance(it, ast.Call) else it) == "event"
    ]


def _subscribes(function: object) -> bool:
    """Whether a value is a function of this package that subscribes a handler."""
    if type(function) is MethodType:
        function = function.__func__
    return any(function is it for it in (on_event, register_handler, SignalRegistry.subscribe))


def _is_foreign(function: Any) -> bool:
    """Whether a function is known to be another package's, such as `sqlite3.connect`."""
    if type(function) is FunctionType:
        file = function.__code__.co_filename
        return is_installed(file)
    return type(function) is BuiltinFunctionType


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


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def read_sources(modules: Iterable[str], own: set[str]) -> Sources:
    """Return the sources of those modules that are the application's own or use this package.

    Args:
        modules: the names of the modules.
        own: the names of the application's own modules.
    """
    found = []
    for name in modules:
        with suppress(Exception):  # what cannot be read says nothing
            if name in own or _uses_events(name):
                found.append(_read(name, is_own=name in own))
    return Sources(found)


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
