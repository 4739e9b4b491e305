"""Which execution of its module a function or class belongs to (N7).

A module runs again when it is reloaded, when it is imported under its name once more, when a
script is run in a new `__main__`, and, cell by cell, in a notebook. What it defines then takes the
place of what it defined before; two things of one name in one execution stay two.
"""

from __future__ import annotations

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


class Execution:
    """One execution of a module, as far as it can be told from another.

    Args:
        namespace: the module's globals.
        module: the module, if it can be found.
        mark: what differs from one execution in these globals to the next.
    """

    __slots__ = ("__weakref__", "_mark", "_module", "_namespace")

    def __init__(
        self, namespace: dict[str, Any], module: types.ModuleType | None, mark: object
    ) -> None:
        # The globals are not held, for they hold the handlers that are held weakly.
        self._namespace = id(namespace)
        self._module = None if module is None else weakref.ref(module)
        self._mark = mark

    def is_same(self, other: Execution) -> bool:
        """Whether both are one execution."""
        mark, others = self._mark, other._mark
        return (
            self._namespace == other._namespace
            # Compared by value if it counts cells; the specs of a module are equal.
            and (mark is others or (type(mark) is int and mark == others))
            and (self._module is None or self._module() is not None)
        )


_latest: weakref.WeakValueDictionary[str, Execution] = weakref.WeakValueDictionary()
"""By module, its latest execution, as long as something that it defined is in use."""

_executed_again: set[str] = set()
"""The modules of which a second execution was seen."""


def was_executed_again(module: str) -> bool:
    """Whether a second execution of a module was seen, so that there is something to replace."""
    return module in _executed_again


def execution_of(thing: Any, module: str) -> Execution | None:
    """Return the present execution of the module that defines `thing`.

    Args:
        thing: a function or class.
        module: the name of that module.

    Returns:
        The execution, or None if the module cannot be found.
    """
    namespace = _namespace_of(thing, module)
    if namespace is None:
        return None
    loaded = sys.modules.get(module)
    its_own = getattr(loaded, "__dict__", None) is namespace
    execution = Execution(namespace, loaded if its_own else None, _mark_of(namespace))
    latest = _latest.get(module)
    if latest is not None:
        if execution.is_same(latest):
            return latest
        _executed_again.add(module)
    _latest[module] = execution
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
        if not (isinstance(module, str) and isinstance(name, str)) or "<" in name:
            return None
        return Definition(module, name + suffix, _function_behind(handler))
    except Exception as error:  # a proxy may raise anything
        if is_interrupt(error):
            raise
        return None


def _function_behind(handler: Any) -> Any:
    for _ in range(_DECORATORS):
        inner = getattr(handler, "__func__", None) or getattr(handler, "__wrapped__", None)
        if inner is None:
            break
        handler = inner
    return handler


def _namespace_of(thing: Any, module: str) -> dict[str, Any] | None:
    namespace: Any = getattr(thing, "__globals__", None)
    if type(namespace) is dict and namespace.get("__name__") == module:
        return namespace
    # A class does not know its globals, and `__main__` may be none of the modules that are loaded.
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_globals.get("__name__") == module:
            return frame.f_globals
        frame = frame.f_back
    loaded = sys.modules.get(module)
    namespace = getattr(loaded, "__dict__", None)
    return namespace if type(namespace) is dict else None


def _mark_of(namespace: dict[str, Any]) -> object:
    """Return what differs from one execution in these globals to the next."""
    if namespace.get("__name__") != "__main__" or "__file__" in namespace:
        return namespace.get("__spec__")
    shell = namespace.get("get_ipython")
    if shell is not None:  # it executes a cell statement by statement, and counts cells
        return getattr(shell(), "execution_count", None)
    cell: FrameType | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals is namespace:
            cell = frame
        frame = frame.f_back
    # Not the frame, which would keep alive what its callers hold.
    return None if cell is None else cell.f_code
