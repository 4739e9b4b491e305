"""Comparing what was read back with what was written, class for class.

`==` is too mild: `1 == True == 1.0`, a dictionary equals a `Counter`, and a moment equals the same
one in another time zone.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from math import isfinite
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from madcrow_events._text import module_of, names_apart
from madcrow_events.models import meaning_of
from madcrow_events.outbox._interrupts import let_interrupts_through

__all__ = ["Difference", "difference", "difference_by_name", "is_surely_same"]

Difference = tuple[tuple[str, ...], str]
"""The path of fields to where two values differ, and how."""

_PLAIN = frozenset({bool, bytes, date, int, str, timedelta, type(None), UUID})
"""The types of which two instances are the same if they are equal."""

_VALUE = "comes back with another value"
_MISSING: Any = object()


def is_surely_same(written: BaseModel, read: BaseModel) -> bool:
    """Whether two contexts of one class are the same, as a quick look tells.

    This decides for contexts whose values are all plain; `difference` decides for all others.
    """
    if getattr(written, "__pydantic_extra__", None) or getattr(
        written, "__pydantic_private__", None
    ):
        return False
    mine, theirs = vars(written), vars(read)
    # An `__init__` that does not call that of its base class leaves out the fields of both.
    if not len(mine) == len(theirs) >= len(type(written).model_fields):
        return False
    for name, value in mine.items():
        other = theirs.get(name, _MISSING)
        kind = type(value)
        if kind is not type(other):
            return False
        if kind in _PLAIN:
            is_same = value == other
        elif kind is datetime:
            is_same = value.tzinfo is other.tzinfo and value == other and not value.fold
        else:
            is_same = kind is float and value == other and isfinite(value)
        if not is_same:
            return False
    return True


def difference(written: Any, read: Any) -> Difference | None:
    """Return where two values first differ, or None if they are the same.

    Args:
        written: the value that was written.
        read: what came back.
    """
    kind = type(written)
    if kind is not type(read) and not _mean_the_same(kind, type(read)):
        was, became = names_apart(kind, type(read))
        return (), f"is of the class {was} and comes back as {became}"
    compare = _WAYS.get(kind) or _way_of(kind)
    return compare(written, read)


def _way_of(kind: type) -> Callable[[Any, Any], Difference | None]:
    """Return how the instances of a class are compared that has no way of its own."""
    for base in kind.__mro__:
        if base in _WAYS:
            return _WAYS[base]
    return _of_dataclasses if dataclasses.is_dataclass(kind) else _of_others


def difference_by_name(written: Mapping[str, Any], read: Mapping[str, Any]) -> Difference | None:
    """Return where the values of two dictionaries first differ, whose keys may be shown."""
    names = dict.fromkeys((*written, *read))
    return _first(
        _within(name, written.get(name, _MISSING), read.get(name, _MISSING)) for name in names
    )


def _mean_the_same(written: type, read: type) -> bool:
    if issubclass(written, BaseModel):
        return meaning_of(written) == meaning_of(read)
    # Its moments stand in for real ones in tests in which the clock stands still.
    return module_of(written) == "freezegun.api" and issubclass(written, read)


def _within(name: str, written: Any, read: Any) -> Difference | None:
    if written is _MISSING:
        return (name,), "has no value"
    if read is _MISSING:
        return (name,), "does not come back"
    found = difference(written, read)
    return found and ((name, *found[0]), found[1])


def _first(differences: Iterable[Difference | None]) -> Difference | None:
    return next((it for it in differences if it is not None), None)


def _of_models(written: BaseModel, read: BaseModel) -> Difference | None:
    if is_surely_same(written, read):
        return None
    # Only the fields: `vars` holds each cached_property, too.
    mine, theirs = vars(written), vars(read)
    for name in type(written).model_fields:
        found = _within(name, mine.get(name, _MISSING), theirs.get(name, _MISSING))
        if found is not None:
            return found
    return difference_by_name(*_both(written, read, "__pydantic_extra__")) or difference_by_name(
        *_both(written, read, "__pydantic_private__")
    )


def _both(written: object, read: object, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    # There is none if an `__init__` does not call that of its base class.
    return getattr(written, name, None) or {}, getattr(read, name, None) or {}


def _of_dataclasses(written: Any, read: Any) -> Difference | None:
    return difference_by_name(*map(_attributes, (written, read)))


def _attributes(instance: Any) -> dict[str, Any]:
    """Return the values of a dataclass's fields, and what pydantic lets it have besides."""
    kind = type(instance)
    values = {
        name: value
        for name, value in getattr(instance, "__dict__", {}).items()
        if not isinstance(getattr(kind, name, None), cached_property)
    }
    for field in dataclasses.fields(instance):
        values[field.name] = getattr(instance, field.name, _MISSING)
    return values


def _of_dicts(written: dict[Any, Any], read: dict[Any, Any]) -> Difference | None:
    if len(written) != len(read):
        return (), "comes back with another number of items"
    keys = {key: key for key in read}
    for key, value in written.items():
        found = _within("*", key, keys.get(key, _MISSING)) or _within("*", value, read.get(key))
        if found is not None:
            return found
    return None


def _of_sequences(written: Any, read: Any) -> Difference | None:
    if len(written) != len(read):
        return (), "comes back with another number of items"
    if getattr(written, "maxlen", None) != getattr(read, "maxlen", None):
        return (), "comes back with another maxlen"
    for place, one in enumerate(written):
        found = difference(one, read[place])
        if found is not None:
            return (str(place), *found[0]), found[1]
    return None


def _of_sets(written: Any, read: Any) -> Difference | None:
    if len(written) != len(read):
        return (), "comes back with another number of items"
    items = {item: item for item in read}
    return _first(_within("*", item, items.get(item, _MISSING)) for item in written)


def _of_floats(written: float, read: float) -> Difference | None:
    if not isfinite(written):
        return (), "is not finite"
    return None if written == read else ((), _VALUE)


def _of_decimals(written: Decimal, read: Decimal) -> Difference | None:
    # Of 1.50 and 1.5, which are equal, one has more digits.
    return None if written.as_tuple() == read.as_tuple() else ((), _VALUE)


def _of_moments(written: Any, read: Any) -> Difference | None:
    return None if _wall(written) == _wall(read) else ((), _VALUE)


def _wall(moment: Any) -> tuple[Any, ...]:
    """Return what a clock on the wall shows, and how far it is from UTC, or else which fold it is.

    Python calls no moment equal to one in another time zone if the clock shows its time twice.
    """
    offset, is_naive = moment.utcoffset(), moment.tzinfo is None
    shown = moment.replace(tzinfo=None, fold=0)
    return shown, is_naive, moment.fold if offset is None else offset


def _of_others(written: object, read: object) -> Difference | None:
    try:
        is_same = bool(written == read)
    except Exception as error:  # the `__eq__` of a class may raise anything
        let_interrupts_through(error)
        is_same = False
    return None if is_same else ((), _VALUE)


_WAYS: dict[type, Callable[[Any, Any], Difference | None]] = {
    BaseModel: _of_models,
    Decimal: _of_decimals,
    datetime: _of_moments,
    deque: _of_sequences,
    dict: _of_dicts,
    float: _of_floats,
    frozenset: _of_sets,
    list: _of_sequences,
    set: _of_sets,
    time: _of_moments,
    tuple: _of_sequences,
}
"""How the instances of a class, and of its subclasses, are compared if `==` is too mild."""
