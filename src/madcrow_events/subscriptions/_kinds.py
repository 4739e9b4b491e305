"""The kind of callable that a handler is, read from the callable itself.

A decorator decides what a call does, so the function in it does not count; but decorators that only
pass a call on are looked through. Mocks and proxies claim to be of another class. The claim of a
mock is ignored, because a mock does not behave like that class.
"""

from __future__ import annotations

import inspect
import sys
import types
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import module_of, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "function_behind",
    "is_async",
    "is_bare_classmethod",
    "is_generator",
    "is_mock",
    "is_perhaps_awaited",
    "wrapping_packages",
]

_PASS_ON = frozenset({"functools", "contextlib", "fast_depends.use", "dependency_injector.wiring"})
"""The modules whose wrappers return the result of the wrapped function."""

_MOCKS = frozenset({"unittest.mock", "mock.mock"})

_DECORATED = frozenset({"FunctionWrapper", "BoundFunctionWrapper"})
"""The classes of wrapt's decorators, also in packages that have a copy of wrapt."""

_SLOTS = (types.WrapperDescriptorType, types.MethodWrapperType)


def is_async(handler: object) -> bool:
    """Whether calling `handler` returns a coroutine, also for objects with async `__call__`."""
    flags = _plain_flags(handler)
    if flags is not None:
        return bool(flags & inspect.CO_COROUTINE)
    try:
        return any(map(_gives_coroutine, _layers(handler, _wrapped_if_passed_on)))
    except Exception as error:  # a proxy without a target may raise anything
        if is_interrupt(error):
            raise
        return False


def is_perhaps_awaited(handler: object) -> bool:
    """Whether a decorator of wrapt decides at each call if the result is to be awaited."""
    if _plain_flags(handler) is not None:
        return False
    return any(map(_wrapper_of, _layers(handler, _wrapped_if_passed_on)))


def is_generator(handler: object) -> bool:
    """Whether calling `handler` only makes a generator, and runs none of its code."""
    lazy = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
    flags = _plain_flags(handler)
    if flags is not None:
        return bool(flags & lazy)
    layers = _layers(handler, _wrapped_if_passed_on)
    return any(_flags(layer) & lazy for layer in takewhile(_is_no_proxy, layers))


def is_bare_classmethod(handler: object) -> bool:
    """Whether `handler` is a class method without its class, with or without wrapt around it."""
    return issubclass(handler.__class__, classmethod) and not is_mock(handler)


def is_mock(handler: object) -> bool:
    """Whether `handler` is a mock of `unittest`, or of its backport."""
    return any(module_of(base) in _MOCKS for base in type(handler).__mro__)


def function_behind(handler: object) -> Any:
    """Return the function whose parameters are those of `handler`, through all wrappers."""
    *_, innermost = _layers(handler, _wrapped)
    return vars(innermost).get("__init__") if isinstance(innermost, type) else innermost


def wrapping_packages(handler: object) -> set[str]:
    """Return the names of the top-level packages whose decorators are around `handler`."""
    found = set()
    for layer in _layers(handler, _wrapped):
        if getattr(layer, "__dishka_injected__", False) is True:
            found.add("dishka")  # its wrappers are compiled, and name no module
        if _wrapped(layer) is not None:
            found.add(_module_of(layer).partition(".")[0])
    return found


def _plain_flags(handler: object) -> int | None:
    """Return the code flags of a function or method without decorators; else None. For speed."""
    function = handler.__func__ if type(handler) is types.MethodType else handler
    if type(function) is not types.FunctionType or function.__dict__:
        return None
    return function.__code__.co_flags


def _layers(handler: object, unwrap: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield `handler` and the callables that it passes calls on to, from outside to inside."""
    yield handler
    below = unwrap(handler)
    if below is None:
        below = _called_by(handler)
    if below is not None:
        yield from _layers(below, unwrap)


def _called_by(handler: Any) -> Any:
    """Return the callable that `handler` calls, or None if it does the work itself."""
    if is_mock(handler):
        return None
    kind = handler.__class__
    if issubclass(kind, partial):
        return handler.func
    if issubclass(kind, types.MethodType | staticmethod | classmethod):
        return handler.__func__
    call = getattr(kind, "__call__", None)  # noqa: B004  # the function itself is wanted
    return None if type(call) in _SLOTS else call


def _wrapped(handler: object) -> Any:
    """Return the callable that a decorator says it wraps, or None."""
    if module_of(type(handler)) == "functools":
        return getattr(handler, "__wrapped__", None)
    return getattr(handler, "__dict__", {}).get("__wrapped__")


def _wrapper_of(layer: object) -> Any:
    """Return the function that a decorator of wrapt calls in the handler's place, or None."""
    is_decorated = any(type_name(base) in _DECORATED for base in type(layer).__mro__)
    return getattr(layer, "_self_wrapper", None) if is_decorated else None


def _wrapped_if_passed_on(handler: Any) -> Any:
    if _wrapper_of(handler) is not None:
        return handler.__wrapped__  # a call may return its result
    if _module_of(handler) not in _PASS_ON or issubclass(type(handler), partial):
        return None
    return _wrapped(handler)


def _module_of(layer: object) -> str:
    """Return the name of the module that defines a function, or the class of an object."""
    scope: dict[str, Any] = getattr(layer, "__globals__", {})
    return str(scope.get("__name__", module_of(type(layer))))


def _gives_coroutine(layer: object) -> bool:
    if is_mock(layer):
        return any(type_name(base) == "AsyncMockMixin" for base in type(layer).__mro__)
    wrapper = _wrapper_of(layer)
    if wrapper is not None and is_async(wrapper):
        return True
    # The mark from before `inspect.markcoroutinefunction`; setting it takes asyncio.
    mark = getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", layer)
    return inspect.iscoroutinefunction(layer) or getattr(layer, "_is_coroutine", None) is mark


def _flags(layer: object) -> int:
    code = getattr(layer, "__code__", None)
    return code.co_flags if type(code) is types.CodeType else 0  # a mock's is a mock


def _is_no_proxy(layer: object) -> bool:
    return layer.__class__ is type(layer)
