"""Remembering call specs, because most functions have a signature that was read before.

What is read from the signature of a plain function depends on its *shape*: the names, kinds and
annotations of its parameters. So functions of one shape share a call spec, also those that a
program makes again and again, such as lambdas. Of a function whose shape is not plain to see, the
signature is read each time.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Hashable, Iterable
from datetime import datetime
from gc import get_referents
from typing import Any, Final, TypeAlias
from uuid import UUID

from madcrow_events._interrupts import is_interrupt
from madcrow_events.emissions import Emission
from madcrow_events.emissions._plan import CallSpec
from madcrow_events.models import BaseEventContext, kept_with

__all__ = ["MOST_SHAPES", "Slot", "remember", "slot_of"]

MOST_SHAPES: Final = 256
"""How many call specs are remembered with one model."""

_PLAIN: Final = frozenset({str, bytes, int, float, bool, object, types.NoneType, datetime, UUID})
"""Classes of defaults and annotations that have no meaning for how a handler is called."""

_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08
"""The flags of code with `*args` and with `**kwargs`, as in `inspect`."""

_UNREADABLE: Final = object()


Slot: TypeAlias = "tuple[dict[Hashable, CallSpec], Hashable]"
"""Where the call spec of all functions of one shape is remembered: a dictionary, and the key."""


def remember(slot: Slot, spec: CallSpec) -> None:
    """Remember the call spec of a shape."""
    specs, key = slot
    if len(specs) >= MOST_SHAPES:
        specs.clear()
    specs[key] = spec


def slot_of(handler: object, model: type[BaseEventContext] | None, *, pattern: bool) -> Slot | None:
    """Return the slot of a handler's call spec; None if its signature is to be read each time.

    Args:
        handler: the handler.
        model: the context model of the signal, if it has one.
        pattern: whether the handler is for a pattern.
    """
    try:
        found = _shape_of(handler, model)
    except Exception as error:  # since Python 3.14 the annotations are evaluated only now
        if is_interrupt(error):
            raise
        return None
    if found is None:
        return None
    owner, shape = found
    # What the dictionary of a model refers to are bases of the model, so it keeps nothing alive.
    return kept_with(owner), (shape, model is None, pattern)


def _count_dictionaries(function: object) -> int:
    """Return how many dictionaries a function refers to."""
    return [isinstance(it, dict) for it in get_referents(function)].count(True)


_FEWEST_DICTIONARIES: Final = _count_dictionaries(lambda: None)  # pragma: no cover  # not called
"""The dictionaries of a function without attributes: its globals and its builtins."""


def _has_attributes(function: types.FunctionType) -> bool:
    """Whether a function has attributes of its own, such as a decorator leaves there.

    A function gets its `__dict__`, of 64 bytes, only when somebody reads it.
    """
    return _count_dictionaries(function) > _FEWEST_DICTIONARIES and bool(function.__dict__)


def _shape_of(
    handler: Any, model: type[BaseEventContext] | None
) -> tuple[type[BaseEventContext], Hashable] | None:
    """Return the shape of a function or method, and the model that its annotations belong to."""
    is_method = type(handler) is types.MethodType
    function = handler.__func__ if is_method else handler
    if type(function) is not types.FunctionType or _has_attributes(function):
        return None
    code, defaults, by_name = function.__code__, function.__defaults__, function.__kwdefaults__
    flags = code.co_flags
    variadic = (flags & _VARARGS != 0) + (flags & _VARKEYWORDS != 0)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + variadic]
    # A package for dependency injection may have put a marker there.
    if (defaults and not _PLAIN.issuperset(map(type, defaults))) or (
        by_name and not _PLAIN.issuperset(map(type, by_name.values()))
    ):
        return None
    owner = model
    annotations = _meanings(function, names, model) if function.__annotations__ else ()
    for meaning in annotations:
        if isinstance(meaning, type) and meaning is not Emission:
            owner = owner or meaning
            if meaning is not owner and meaning not in owner.__mro__:
                return None
    if _UNREADABLE in annotations:
        return None
    shape = (
        names,
        is_method,
        flags,
        code.co_argcount,
        code.co_posonlyargcount,
        len(defaults or ()),
        tuple(by_name or ()),
        annotations,
    )
    return owner or BaseEventContext, shape


def _meanings(
    function: types.FunctionType, names: Iterable[str], model: type[BaseEventContext] | None
) -> tuple[Any, ...]:
    """Return what the annotations of these parameters mean, None for a parameter without one."""
    if getattr(function, "__type_params__", ()):
        return (_UNREADABLE,)  # a name may be that of a type parameter, since Python 3.12
    given = function.__annotations__
    return tuple(
        [_meaning_of(given[name], function, model) if name in given else None for name in names]
    )


def _meaning_of(
    annotation: object, function: types.FunctionType, model: type[BaseEventContext] | None
) -> Any:
    """Return the model or `Emission` that an annotation is, None for what means neither.

    The simple ones are read here, and `_annotations` reads all: of the others it is `_UNREADABLE`.
    """
    if type(annotation) is str:
        scope = function.__globals__
        if annotation in scope:
            annotation = scope[annotation]
        elif model is not None and annotation == model.__name__:
            annotation = model
        else:
            annotation = vars(builtins).get(annotation, _UNREADABLE)
    if annotation is Any:
        return None
    if annotation is model or annotation is Emission:
        return annotation
    if isinstance(annotation, types.UnionType):
        return None if _PLAIN.issuperset(annotation.__args__) else _UNREADABLE
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseEventContext) else None
    return _UNREADABLE
