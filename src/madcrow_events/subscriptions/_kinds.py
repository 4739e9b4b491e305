"""What kind of callable a handler is, read from the callable itself.

Decorators decide for themselves what a call does, so what they wrap is not judged in
their place; those that only pass a call on are looked through. Mocks and proxies claim
to be of another class: of mocks the claim is ignored, for they do nothing of what it says.
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
"""The modules whose wrappers return whatever the wrapped function returns."""

_MOCKS = frozenset({"unittest.mock", "mock.mock"})

_DECORATED = frozenset({"FunctionWrapper", "BoundFunctionWrapper"})
"""The classes of wrapt's decorators, under whatever package that has wrapt in it."""

_SLOTS = (types.WrapperDescriptorType, types.MethodWrapperType)


def is_async(handler: object) -> bool:
    """Whether calling `handler` gives a coroutine, also for objects with async `__call__`."""
    flags = _plain_flags(handler)
    if flags is not None:
        return bool(flags & inspect.CO_COROUTINE)
    try:
        return any(map(_gives_coroutine, _layers(handler, _wrapped_if_passed_on)))
    except Exception as error:  # a proxy without a target raises anything for any name
        if is_interrupt(error):
            raise
        return False


def is_perhaps_awaited(handler: object) -> bool:
    """Whether a decorator of wrapt decides in each call if an async handler is awaited."""
    if _plain_flags(handler) is not None:
        return False
    return any(map(_wrapper_of, _layers(handler, _wrapped_if_passed_on)))


def is_generator(handler: object) -> bool:
    """Whether calling `handler` only makes a generator, so that nothing of it runs."""
    lazy = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
    flags = _plain_flags(handler)
    if flags is not None:
        return bool(flags & lazy)
    layers = _layers(handler, _wrapped_if_passed_on)
    return any(_flags(layer) & lazy for layer in takewhile(_is_no_proxy, layers))


def is_bare_classmethod(handler: object) -> bool:
    """Whether `handler` is a class method as it stands in a class body, under wrapt or not."""
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
            found.add("dishka")  # whose wrappers are compiled, and of no module
        if _wrapped(layer) is not None:
            found.add(_module_of(layer).partition(".")[0])
    return found


def _plain_flags(handler: object) -> int | None:
    """Return the flags of a plain function or method, without decorators; else None. For speed."""
    function = handler.__func__ if type(handler) is types.MethodType else handler
    if type(function) is not types.FunctionType or function.__dict__:
        return None
    return function.__code__.co_flags


def _layers(handler: object, unwrap: Callable[[Any], Any]) -> Iterator[Any]:
    """Yield `handler` and what is called in its place, from the outside to the inside."""
    yield handler
    below = unwrap(handler)
    if below is None:
        below = _called_by(handler)
    if below is not None:
        yield from _layers(below, unwrap)


def _called_by(handler: Any) -> Any:
    """Return what `handler` calls as it is called, or None if that is itself."""
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
    """Return what a decorator has noted that it wraps, or None."""
    if module_of(type(handler)) == "functools":
        return getattr(handler, "__wrapped__", None)
    return getattr(handler, "__dict__", {}).get("__wrapped__")


def _wrapper_of(layer: object) -> Any:
    """Return the function with which a decorator of wrapt takes the place of another, or None."""
    is_decorated = any(type_name(base) in _DECORATED for base in type(layer).__mro__)
    return getattr(layer, "_self_wrapper", None) if is_decorated else None


def _wrapped_if_passed_on(handler: Any) -> Any:
    if _wrapper_of(handler) is not None:
        return handler.__wrapped__  # a call may give what it gives
    if _module_of(handler) not in _PASS_ON or issubclass(type(handler), partial):
        return None
    return _wrapped(handler)


def _module_of(layer: object) -> str:
    """Return the name of the module in which a function, or the class of an object, was written."""
    scope: dict[str, Any] = getattr(layer, "__globals__", {})
    return str(scope.get("__name__", module_of(type(layer))))


def _gives_coroutine(layer: object) -> bool:
    if is_mock(layer):
        return any(type_name(base) == "AsyncMockMixin" for base in type(layer).__mro__)
    wrapper = _wrapper_of(layer)
    if wrapper is not None and is_async(wrapper):
        return True
    # Older than the mark of inspect; only who has imported asyncio has set it.
    mark = getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", layer)
    return inspect.iscoroutinefunction(layer) or getattr(layer, "_is_coroutine", None) is mark


def _flags(layer: object) -> int:
    code = getattr(layer, "__code__", None)
    return code.co_flags if type(code) is types.CodeType else 0  # a mock's is a mock


def _is_no_proxy(layer: object) -> bool:
    return layer.__class__ is type(layer)
