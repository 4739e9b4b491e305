"""Which execution of its module a function or class belongs to.

A module runs again when it is reloaded, when it is imported under its name once more, when a
script is run in a new `__main__` or once more in the old one, and, cell by cell, in a notebook.
What it defines then takes the place of what it defined before. Two things of one name in one
execution stay two, and so do those of two files that are loaded under one name.
"""

from __future__ import annotations

import os
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._interrupts import is_interrupt

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Definition", "Execution", "definition_of", "execution_of", "was_executed_again"]

_DECORATORS: Final = 100
"""How many decorators are looked through; one that wraps itself has no end."""

_NAMELESS: Final = "builtins"
"""Where a class is said to be whose globals have no `__name__`, as in a console of `code`."""


class Execution:
    """One execution of a module, as far as it can be told from another.

    Args:
        namespace: the module's globals.
        module: the module, if it can be found.
    """

    __slots__ = ("__weakref__", "_code", "_mark", "_module", "_namespace", "_origin")

    def __init__(self, namespace: dict[str, Any], module: types.ModuleType | None) -> None:
        # The globals are not held, for they hold the handlers that are held weakly.
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
            # Compared by value if it counts cells; the specs of a module are equal.
            and (mark is others or (type(mark) is int and mark == others))
            # In a thread or a task nobody sees the code: then it is that of the others.
            and (None in codes or codes[0] is codes[1])
            and (None in modules or modules[0] == modules[1])
        )

    def is_again(self, other: Execution) -> bool:
        """Whether both are executions of one module: not the same, nor of files of one name."""
        if self.is_same(other):
            return False
        if self._module is not None and self._module == other._module:
            return True  # also if it was moved to another file
        origins = (self._origin, other._origin)
        return None in origins or origins[0] == origins[1]


_latest: weakref.WeakValueDictionary[str, Execution] = weakref.WeakValueDictionary()
"""By module, its latest execution, as long as something that it defined is in use."""

_seen: weakref.WeakKeyDictionary[types.FunctionType, Execution] = weakref.WeakKeyDictionary()
"""By function, the execution in which it was seen first; a later one may find it in use."""

_executed_again: set[str] = set()
"""The modules of which a second execution was seen."""


def was_executed_again(module: str) -> bool:
    """Whether a second execution of a module was seen, so that there is something to replace."""
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


class Definition(NamedTuple):
    """What stands at the top of a module, or in a class there, and is called.

    Attributes:
        module: the name of the module.
        name: the qualified name.
        function: the function behind its decorators.
    """

    module: str
    name: str
    function: Any


def definition_of(handler: Any) -> Definition | None:
    """Return what a handler is defined as, by which a later execution finds it again.

    Returns:
        None for what may be there more than once: lambdas, functions and classes that are made
        inside of functions, methods of instances, other objects.
    """
    try:
        owner = getattr(handler, "__self__", None)
        named, suffix = handler, ""
        if isinstance(owner, type):
            # By the class, for several may inherit one class method.
            named, suffix = owner, f".{handler.__name__}"
        elif owner is not None and not isinstance(owner, types.ModuleType):
            return None
        module, name = named.__module__, named.__qualname__
        if module is None and type(named) is types.FunctionType:
            module = _NAMELESS
        if not (isinstance(module, str) and isinstance(name, str)) or "<" in name:
            return None
        return Definition(module, name + suffix, _function_behind(handler))
    except Exception as error:  # a proxy may raise anything
        if is_interrupt(error):
            raise
        return None


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
    # A class does not know its globals, and `__main__` may be none of the modules that are loaded.
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__", _NAMELESS) == module:
            return frame.f_globals
        frame = frame.f_back
    loaded = sys.modules.get(module)
    namespace = getattr(loaded, "__dict__", None)
    return namespace if type(namespace) is dict else None


def _count_of_cells(namespace: dict[str, Any]) -> int | None:
    """Return how many cells IPython has executed, as it does so statement by statement."""
    get_shell = namespace.get("get_ipython")
    shell = get_shell() if callable(get_shell) else None
    # Modules may import `get_ipython`, too.
    if getattr(shell, "user_ns", None) is not namespace:
        return None
    return getattr(shell, "execution_count", None)


def _code_running_in(namespace: dict[str, Any]) -> types.CodeType | None:
    """Return the code of a module, script, cell or line that is executed in a namespace now."""
    code = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is namespace and frame.f_code.co_name == "<module>":
            code = frame.f_code  # not the frame, which would keep alive what its callers hold
        frame = frame.f_back
    return code


def _origin_of(namespace: dict[str, Any], code: types.CodeType | None) -> object:
    """Return the path that a module was read from, or None if nobody knows."""
    if "__name__" not in namespace:
        return id(namespace)  # whatever else has no name is another module
    origin = getattr(namespace.get("__spec__"), "origin", None) or namespace.get("__file__")
    if origin is None and code is not None and not code.co_filename.startswith("<"):
        origin = code.co_filename
    if not isinstance(origin, str | os.PathLike):
        return None
    return os.path.abspath(origin)  # noqa: PTH100  # `Path.absolute` keeps `..`
