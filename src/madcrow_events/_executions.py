"""Finding out which execution of its module a function or class belongs to.

A module runs again when it is reloaded or imported once more, when a script is run again in a new
`__main__` or in the old one, and, cell by cell, in a notebook. Its functions and classes then
replace those of the same names from the execution before. Functions of the same name are kept apart
if they come from one execution, or from two files that are loaded under one module name.
"""

from __future__ import annotations

import os
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from madcrow_events._interrupts import is_interrupt

if TYPE_CHECKING:
    from types import FrameType

__all__ = [
    "Definition",
    "Execution",
    "definition_of",
    "execution_of",
    "have_one_definition",
    "was_executed_again",
]

_DECORATORS: Final = 100
"""How many decorators are unwrapped at most, because one may wrap itself."""

_NAMELESS: Final = "builtins"
"""The module that a class names if its globals have no `__name__`, as in a `code` console."""


class Execution:
    """One execution of a module, with the marks that distinguish it from others.

    Args:
        namespace: the module's globals.
        module: the module, if it can be found.
    """

    __slots__ = ("__weakref__", "_code", "_mark", "_module", "_namespace", "_origin")

    def __init__(self, namespace: dict[str, Any], module: types.ModuleType | None) -> None:
        # By id: a reference to the globals would keep handlers alive that are held weakly.
        self._namespace = id(namespace)
        self._module = None if module is None else weakref.ref(module)
        count = _count_of_cells(namespace)
        self._mark = namespace.get("__spec__") if count is None else count
        self._code = _code_running_in(namespace) if count is None else None
        self._origin = _origin_of(namespace, self._code)

    def is_same(self, other: Execution) -> bool:
        """Whether both are one execution."""
        mark, others = self._mark, other._mark
        codes, modules = (self._code, other._code), (self._module, other._module)
        return (
            self._namespace == other._namespace
            # Counts of cells are compared by value, specs by identity: a module's are all equal.
            and (mark is others or (type(mark) is int and mark == others))
            # A thread or a task does not see the code; then the other marks decide.
            and (None in codes or codes[0] is codes[1])
            and (None in modules or modules[0] == modules[1])
        )

    def is_again(self, other: Execution) -> bool:
        """Whether these are two executions of one module, and not of two files of one name."""
        if self.is_same(other):
            return False
        if self._module is not None and self._module == other._module:
            return True  # even if the module was moved to another file
        origins = (self._origin, other._origin)
        return None in origins or origins[0] == origins[1]


_latest: weakref.WeakValueDictionary[str, Execution] = weakref.WeakValueDictionary()
"""The latest execution of each module, as long as something refers to it."""

_seen: weakref.WeakKeyDictionary[types.FunctionType, Execution] = weakref.WeakKeyDictionary()
"""The execution in which each function was first seen.

A later execution may find the same function still in use; the function still belongs to the first.
"""

_executed_again: set[str] = set()
"""The modules of which a second execution was seen."""


def was_executed_again(module: str) -> bool:
    """Whether a second execution of a module was seen, whose definitions replace earlier ones."""
    return module in _executed_again


def execution_of(thing: object, module: str) -> Execution | None:
    """Return the present execution of the module that defines `thing`.

    Args:
        thing: a function or class.
        module: the name of that module.

    Returns:
        The execution, or None if the module cannot be found.
    """
    seen = _seen.get(thing) if type(thing) is types.FunctionType else None
    if seen is not None:
        return seen
    namespace = _namespace_of(thing, module)
    if namespace is None:
        return None
    loaded = sys.modules.get(module)
    its_own = getattr(loaded, "__dict__", None) is namespace
    execution = Execution(namespace, loaded if its_own else None)
    latest = _latest.get(module)
    if latest is not None and execution.is_same(latest):
        execution = latest
    else:
        if latest is not None:
            _executed_again.add(module)
        _latest[module] = execution
    if type(thing) is types.FunctionType:
        _seen[thing] = execution
    return execution


Definition: TypeAlias = tuple[str, str, Any]
"""The definition of a function or class, at the top of a module or in a class there.

It is the name of the module, the qualified name, and the function without its decorators.
"""


def definition_of(handler: Any) -> Definition | None:
    """Return the definition of a handler, by which a later execution finds it again.

    Returns:
        The definition; None if there may be several of one name: for lambdas, functions and
        classes that are made inside of functions, methods of instances, and other objects.
    """
    try:
        owner = getattr(handler, "__self__", None)
        named, suffix = handler, ""
        if isinstance(owner, type):
            # By the class, because several classes may inherit one class method.
            named, suffix = owner, f".{handler.__name__}"
        elif owner is not None and not isinstance(owner, types.ModuleType):
            return None
        module, name = named.__module__, named.__qualname__
        if module is None and type(named) is types.FunctionType:
            module = _NAMELESS
        if not (isinstance(module, str) and isinstance(name, str)) or "<" in name:
            return None
        return module, name + suffix, _function_behind(handler)
    except Exception as error:  # a proxy may raise anything
        if is_interrupt(error):
            raise
        return None


def have_one_definition(one: object, other: object) -> bool:
    """Whether two classes or functions come from one definition, perhaps of two executions."""
    definition, others = definition_of(one), definition_of(other)
    return definition is not None and others is not None and definition[:2] == others[:2]


def _function_behind(handler: object) -> Any:
    for _ in range(_DECORATORS):
        inner = getattr(handler, "__func__", None) or getattr(handler, "__wrapped__", None)
        if inner is None:
            break
        handler = inner
    return handler


def _namespace_of(thing: object, module: str) -> dict[str, Any] | None:
    namespace: Any = getattr(thing, "__globals__", None)
    if type(namespace) is dict and namespace.get("__name__", _NAMELESS) == module:
        return namespace
    # A class does not know its globals, and `__main__` need not be among the loaded modules.
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__", _NAMELESS) == module:
            return frame.f_globals
        frame = frame.f_back
    loaded = sys.modules.get(module)
    namespace = getattr(loaded, "__dict__", None)
    return namespace if type(namespace) is dict else None


def _count_of_cells(namespace: dict[str, Any]) -> int | None:
    """Return how many cells IPython has executed; None outside of IPython."""
    get_shell = namespace.get("get_ipython")
    shell = get_shell() if callable(get_shell) else None
    # A module may have imported `get_ipython`.
    if getattr(shell, "user_ns", None) is not namespace:
        return None
    return getattr(shell, "execution_count", None)


def _code_running_in(namespace: dict[str, Any]) -> types.CodeType | None:
    """Return the code of the module, script, cell or line that a namespace executes now."""
    code = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is namespace and frame.f_code.co_name == "<module>":
            code = frame.f_code  # not the frame, which keeps its callers' variables alive
        frame = frame.f_back
    return code


def _origin_of(namespace: dict[str, Any], code: types.CodeType | None) -> object:
    """Return the path that a module was read from, or None if it is unknown."""
    if "__name__" not in namespace:
        return id(namespace)  # two namespaces without a name are two modules
    origin = getattr(namespace.get("__spec__"), "origin", None) or namespace.get("__file__")
    if origin is None and code is not None and not code.co_filename.startswith("<"):
        origin = code.co_filename
    if not isinstance(origin, str | os.PathLike):
        return None
    return os.path.abspath(origin)  # noqa: PTH100  # `Path.absolute` keeps `..`
