"""Reading the signature of a handler through all that wraps it.

`inspect.signature` reads most handlers right. It misreads partials that `update_wrapper` has named,
methods under decorators that are classes, mocks, and proxies.
"""

from __future__ import annotations

import inspect
import sys
import types
import weakref
from functools import partial
from importlib import import_module
from typing import Any

from madcrow_events.subscriptions._identity import undispatched
from madcrow_events.subscriptions._kinds import function_behind, is_mock

__all__ = ["signature_of"]

_LENIENTLY: dict[str, Any] = (
    {"annotation_format": import_module("annotationlib").Format.FORWARDREF}
    if sys.version_info >= (3, 14)
    else {}
)
"""Has `inspect` accept annotations with names that are imported for type checkers only."""


def signature_of(handler: object) -> inspect.Signature:
    """Return the signature of a handler, even if its annotations have unknown names."""
    if type(handler) in (types.FunctionType, types.MethodType):
        handler = _with_bound_arguments(handler)
    else:
        handler = _with_bound_arguments(_current(handler))
        said = inspect.getattr_static(type(handler), "__signature__", None)
        if is_mock(handler) and type(said) is inspect.Signature:
            return said  # the mock checks its calls against this one
        handler = _called(handler)
    try:
        return inspect.signature(undispatched(handler), **_LENIENTLY)
    except (TypeError, ValueError):
        # Newer Pythons read a signature from a weak proxy, and do not come here.
        if type(handler) is weakref.CallableProxyType:  # pragma: no branch
            return inspect.signature(handler.__call__)  # pragma: no cover
        if not is_mock(handler):
            raise
        kind: Any = type(handler)
        return inspect.signature(kind.__call__.__get__(handler))


def _current(handler: Any) -> Any:
    """Return the present target of a proxy like those of werkzeug; else `handler`."""
    if inspect.getattr_static(type(handler), "_get_current_object", None) is None:
        return handler
    return handler._get_current_object()


def _with_bound_arguments(handler: Any) -> Any:
    """Return a partial without the `__wrapped__` that `update_wrapper` gave it.

    `inspect` would follow `__wrapped__` to the function, and count arguments that are already bound
    as parameters.
    """
    named = inspect.unwrap(handler, stop=_is_followed_no_further)
    if not issubclass(type(named), partial):
        return handler
    function = named.func
    if "__wrapped__" in named.__dict__:
        if _is_method(named):
            function = named.__wrapped__
        elif function_behind(function) is not function_behind(named.__wrapped__):
            return handler  # it calls another function than the one it wraps
    return partial(_with_bound_arguments(function), *named.args, **named.keywords)


def _is_method(named: partial[Any]) -> bool:
    """Whether a partial is a method that a decorator class has bound by passing the object."""
    call: Any = named.func
    return (
        type(call) is types.MethodType
        and hasattr(type(call.__self__), "__get__")
        and len(named.args) == 1
        and named.args[0] is not None
    )


def _is_followed_no_further(layer: object) -> bool:
    return issubclass(type(layer), partial | types.MethodType) or hasattr(layer, "__signature__")


def _called(handler: object) -> Any:
    """Return the callable behind an object whose `__call__` is no plain method; else the object."""
    call = inspect.getattr_static(type(handler), "__call__", None)
    if type(call) in (types.FunctionType, types.WrapperDescriptorType):
        return handler
    return call.__get__(handler, type(handler)) if hasattr(call, "__get__") else call
