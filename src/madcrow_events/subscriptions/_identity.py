"""Identity keys of handlers and senders, made without running code of theirs."""

from __future__ import annotations

import types
import uuid
from functools import partial, singledispatchmethod
from inspect import getclosurevars
from typing import TYPE_CHECKING, Any, NamedTuple

from madcrow_events._text import module_of, printable, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

__all__ = ["Binding", "binding_of", "identity_key", "sender_key", "sender_name", "undispatched"]


_PLAIN_TYPES = frozenset({str, bytes, int, float, complex, bool, types.NoneType, uuid.UUID})

_BUILTIN_METHOD, _METHOD_WRAPPER = types.BuiltinMethodType, types.MethodWrapperType

_NO_OWNERS = frozenset({types.ModuleType, types.NoneType})


class Binding(NamedTuple):
    """The binding of a handler to an object, if each access makes the handler anew.

    Attributes:
        owner: the object or class that it is bound to; the source if it is bound to neither.
        source: the function, the descriptor or the parts that it is made of.
        key: the identity of the source among all living ones.
        bind: `bind(source, owner)` makes the handler once more.
    """

    owner: Any
    source: Any
    key: Hashable
    bind: Callable[[Any, Any], Any]

    @property
    def is_bound(self) -> bool:
        """Whether it is bound to an object or a class; static methods are not."""
        return self.owner is not self.source

    @property
    def is_of_instance(self) -> bool:
        """Whether it is bound to an object, with which it goes away; a class stays."""
        return self.is_bound and not isinstance(self.owner, type)


def binding_of(handler: Any) -> Binding | None:
    """Return how a handler is bound, or None for a function, an object or a partial.

    Bound are methods, also a `partialmethod`, a `singledispatchmethod`, a method under a decorator
    of wrapt, and a method under a decorator that is a class and returns partials.
    """
    kind = type(handler)
    if kind is types.MethodType:
        function = handler.__func__
        return Binding(handler.__self__, function, id(function), types.MethodType)
    if kind is partial:
        is_method = "__self__" in handler.__dict__
        return _partially_bound(handler) if is_method else _bound_by_descriptor(handler)
    if kind is types.FunctionType:
        return _dispatched(handler) if hasattr(handler, "register") else None
    if module_of(kind) == "functools":
        return _dispatched(handler)
    if _is_of_wrapt(kind):
        owner = handler.__self__ if handler._self_binding == "classmethod" else None
        descriptor = handler._self_parent
        return _accessed(descriptor, descriptor.__wrapped__, handler._self_instance, owner)
    return None


def _is_of_wrapt(kind: type) -> bool:
    """Whether a class is wrapt's class of decorated methods, or a copy of it in another package."""
    return any(type_name(base) == "BoundFunctionWrapper" for base in kind.__mro__)


def _dispatched(handler: Any) -> Binding | None:
    """Return how a `singledispatchmethod` is bound; None for other wrappers of functions."""
    register = getattr(handler, "register", None)
    descriptor: Any = register.__self__ if type(register) is types.MethodType else None
    if not issubclass(type(descriptor), singledispatchmethod):
        return None
    # A closure until Python 3.13, and then an object.
    is_closure = type(handler) is types.FunctionType
    bound = getclosurevars(handler).nonlocals if is_closure else vars(handler)
    owner, kind = (bound.get(name, bound.get(f"_{name}")) for name in ("obj", "cls"))
    return _accessed(descriptor, descriptor.func, owner, kind)


def _accessed(descriptor: object, decorated: object, owner: object, kind: object) -> Binding:
    """Return the binding of a method that a descriptor around a decorated function has made."""
    decorator = decorated.__class__
    if issubclass(decorator, classmethod):
        owner = kind
    elif issubclass(decorator, staticmethod):
        owner = None
    return Binding(descriptor if owner is None else owner, descriptor, id(descriptor), _access)


def _access(descriptor: Any, owner: Any) -> Any:
    if owner is descriptor:
        return descriptor.__get__(None, object)
    if isinstance(owner, type):
        return descriptor.__get__(None, owner)
    return descriptor.__get__(owner, type(owner))


def undispatched(handler: object) -> Any:
    """Return the method for all types if `handler` is a `singledispatchmethod`; else `handler`."""
    binding = binding_of(handler)
    if binding is None or not issubclass(type(binding.source), singledispatchmethod):
        return handler
    method = binding.source.func
    return _access(method, binding.owner if binding.is_bound else method)


def _partially_bound(handler: partial[Any]) -> Binding | None:
    """Return how a `partialmethod` is bound; None for a partial of something else."""
    inner = binding_of(handler.func)
    if inner is None:
        return None
    source = (inner.bind, inner.source, handler.args, handler.keywords)
    arguments = (*handler.args, *handler.keywords.values())
    key = (inner.key, *handler.keywords, *map(id, arguments))
    return Binding(inner.owner, source, key, _bind_partial)


def _bound_by_descriptor(handler: partial[Any]) -> Binding | None:
    """Return the binding of a method whose decorator passes the object itself, as asgiref's do."""
    function: Any = handler.func
    descriptor = function.__self__ if type(function) is types.MethodType else function
    if len(handler.args) != 1 or handler.keywords or not hasattr(type(descriptor), "__get__"):
        return None
    (owner,) = handler.args
    if type(descriptor) is types.FunctionType or not any(
        descriptor is it for class_ in type(owner).__mro__ for it in vars(class_).values()
    ):
        return None
    return Binding(owner, descriptor, id(descriptor), _access)


def _bind_partial(source: Any, owner: Any) -> Any:
    bind, inner, arguments, keywords = source
    bound = partial(bind(inner, owner), *arguments, **keywords)
    bound.__self__ = owner  # type: ignore[attr-defined]  # as partialmethod does
    return bound


def identity_key(handler: Any) -> Hashable:
    """Return a key of `handler` among all living objects; equal for all objects of one method."""
    if issubclass(type(handler), staticmethod):
        handler = handler.__func__  # the class returns this one, too
    binding = binding_of(handler)
    return _own_key(handler) if binding is None else (id(binding.owner), binding.key)


def _own_key(thing: Any) -> Hashable:
    kind = type(thing)
    if kind is types.MethodType:
        return (id(thing.__self__), id(thing.__func__))
    is_builtin = kind is _BUILTIN_METHOD or kind is _METHOD_WRAPPER
    if is_builtin and type(thing.__self__) not in _NO_OWNERS:
        return (id(thing.__self__), thing.__name__)
    return id(thing)


def sender_key(sender: object) -> Hashable:
    """Return the key by which a sender is matched: type and value of a plain one, else identity."""
    kind = type(sender)
    try:
        if kind in _PLAIN_TYPES:
            return (kind, sender)
    except TypeError:  # the metaclass of its class has no hash
        return _own_key(sender)
    if kind is tuple:
        return (tuple, *map(sender_key, sender))  # type: ignore[call-overload]  # it is a tuple
    return _own_key(sender)


def sender_name(sender: Any) -> str:
    """Return a sender in words: a plain one as in code, a signal by its name, others by class."""
    kind = type(sender)
    if kind is not bytes and any(kind is plain for plain in _PLAIN_TYPES):
        return printable(repr(sender), limit=60)
    if any(type_name(base) == "NamedSignal" for base in kind.__mro__):
        return f"the signal {printable(sender.name)}"
    return type_name(sender) if issubclass(kind, type) else f"<{type_name(kind)} object>"
