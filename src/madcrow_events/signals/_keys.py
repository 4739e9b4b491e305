"""The ordering key of an event: a field of its context, or a function of it."""

from __future__ import annotations

from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any, Final, TypeAlias

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import handler_name, printable, type_name
from madcrow_events.exceptions import ContextModelError
from madcrow_events.models import RESERVED_FIELDS, BaseEventContext
from madcrow_events.subscriptions._identity import identity_key
from madcrow_events.subscriptions._kinds import is_async, is_generator
from madcrow_events.subscriptions._parameters import signature_of

__all__ = ["Key", "check_key", "is_same_key", "keys_shown"]

Key: TypeAlias = str | Callable[[Any], object]
"""The name of a field, or a function of the context."""

_PLAIN: Final = frozenset({str, bytes, int, float, bool})
"""The classes whose instances are compared by value, because no user's code does that."""


def check_key(event: str, key: object, model: type[BaseEventContext] | None) -> None:
    """Refuse what cannot be the key of an event.

    Args:
        event: the name of the event.
        key: the key.
        model: the event's model, or None.

    Raises:
        ContextModelError: the key is neither a field of the model nor a plain function that takes
            the context. For an event without a model, any identifier may be a field.
    """
    if isinstance(key, str):
        if _is_field(key, model):
            return
        given: str | None = f"'{printable(key)}'"
    else:
        given = _other_than_function(key)
        if given is None:
            return
    field, example = "the name of a field, as in key='customer_id'", "customer_id"
    if model is not None:
        common = BaseEventContext.model_fields
        names = sorted(model.model_fields, key=lambda name: name in common)
        field, example = f"a field of {type_name(model)} ({', '.join(names)})", names[0]
    raise ContextModelError(
        f"the key of {event} must be {field}, or a plain function of the context, not {given}: "
        f"write key='{example}' or key=lambda context: context.{example}",
        event=event,
        model=model,
    )


def _is_field(name: str, model: type[BaseEventContext] | None) -> bool:
    """Whether a context may have a field of this name."""
    if model is not None:
        return name in model.model_fields
    return name.isidentifier() and name not in RESERVED_FIELDS


def _other_than_function(key: object) -> str | None:
    """Return what a key is instead of a plain function of the context; None if it is one."""
    if isinstance(key, type):
        return f"the class {type_name(key)}"
    if not callable(key):
        return type_name(type(key))
    if is_async(key):
        return "an async function"
    if is_generator(key):
        return "a generator function"
    if not _takes_the_context(key):
        return f"{handler_name(key)}, which cannot be called with the context alone"
    return None


def _takes_the_context(key: object) -> bool:
    """Whether one positional argument is enough, and not too many; yes if nobody can know."""
    try:
        signature = signature_of(key)
    except Exception as error:  # an object may raise anything while it is looked at
        if is_interrupt(error):
            raise
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def is_same_key(one: Key | None, other: Key | None) -> bool:
    """Whether two keys are one: the same name, or the same function, perhaps made twice.

    A function that declares an event with a lambda makes a new function at each call. It is the
    same key if its closure and its defaults have the same values. No code of users is run, such as
    an `__eq__`.
    """
    if one is other:
        return True
    if isinstance(one, str) and isinstance(other, str):
        return str.__eq__(one, other)
    if type(one) is FunctionType and type(other) is FunctionType:
        return (
            one.__code__ is other.__code__
            and one.__globals__ is other.__globals__
            and _are_same(_values_in(one), _values_in(other))
        )
    return identity_key(one) == identity_key(other)  # each access to a method makes it anew


def _values_in(function: FunctionType) -> list[object]:
    """Return the values that a function was made with."""
    cells = function.__closure__ or ()
    defaults = function.__defaults__ or ()
    return [*map(_contents, cells), *defaults, *(function.__kwdefaults__ or {}).values()]


def _contents(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return CellType  # it is empty: the variable has no value yet


def _are_same(values: list[object], others: list[object]) -> bool:
    return len(values) == len(others) and all(
        value is other or (type(value) is type(other) and type(value) in _PLAIN and value == other)
        for value, other in zip(values, others, strict=True)
    )


def keys_shown(there: Key | None, here: Key | None) -> tuple[str, str]:
    """Return two different keys in words, for one message."""
    shown = _shown(there), _shown(here)
    if shown[0] != shown[1]:
        return shown
    places = _place_of(there), _place_of(here)
    if places[0] == places[1]:
        return shown[0] + places[0], "another one of this name"
    return shown[0] + places[0], shown[1] + places[1]


def _shown(key: Key | None) -> str:
    if key is None:
        return "no key"
    return f"the key {repr(key) if isinstance(key, str) else handler_name(key)}"


def _place_of(key: object) -> str:
    """Return where a function is written; nothing for other objects."""
    function = key.__func__ if type(key) is MethodType else key
    if type(function) is not FunctionType:
        return ""
    code = function.__code__
    return f" ({printable(code.co_filename, limit=200)}:{code.co_firstlineno})"
