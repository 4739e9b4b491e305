"""Functions that are subscribed to one event again and again, each time as another object."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from types import BuiltinFunctionType, FunctionType, MethodType, NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._text import handler_name
from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._places import line_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

__all__ = ["Listening", "repeated_handlers"]

_MANY: Final = 10
"""How many closures of one function may listen to an event if each holds other values."""

_DEEP: Final = 8
"""How deep closures, partials and containers are looked into."""

_LARGE: Final = 100
"""Containers of more entries count as equal only to themselves."""

_PLAIN: Final = (str, bytes, int, float, complex, bool, NoneType)
_CALLABLE: Final = (BuiltinFunctionType, type)
_CONTAINERS: Final = (list, dict, set, frozenset)


class Listening(NamedTuple):
    """A handler that is to be called for an event.

    Attributes:
        event: the name of the event, the pattern, or the class.
        shown: the same, for messages.
        handler: the handler.
        options: its options but `id`, without those that are left out.
        id: the option `id`.
    """

    event: object
    shown: str
    handler: Any
    options: tuple[tuple[str, Any], ...]
    id: str | None


def repeated_handlers(listening: Iterable[Listening]) -> Iterator[Finding]:
    """Yield a finding for each function that one event has again and again.

    Two of its objects are one too many if they hold equal values. If each holds other values, as
    handlers do that a function makes for each customer, ten are too many. An `id` says that a
    handler is meant to be one of its own.

    Args:
        listening: the handlers.
    """
    of_shape: dict[Hashable, list[Listening]] = defaultdict(list)
    for it in listening:
        if it.id is None and _is_function(it.handler):
            event = id(it.event) if isinstance(it.event, type) else it.event
            of_shape[event, _key(it.handler, with_values=False)].append(it)
    for alike in of_shape.values():
        if len(alike) > 1:
            equal = Counter(_key((it.handler, it.options)) for it in alike)
            times = max(equal.values())
            if times > 1:
                yield _repeated(alike[0], times)
            elif len(alike) >= _MANY:
                yield _repeated(alike[0], len(alike), ", with other values each time")


def _repeated(it: Listening, times: int, how: str = "") -> Finding:
    name = handler_name(it.handler)
    return finding(
        "repeated_handler",
        name,
        f"{name} is subscribed to {it.shown} {times} times{how}",
        "subscribe it once, outside of the loop or the function that is called again and again; "
        "or give each an `id`",
        line_of(it.handler),
    )


def _is_function(handler: object) -> bool:
    """Whether a handler is a function or a partial; methods and other objects are not."""
    return type(handler) in (FunctionType, functools.partial)


def _key(  # noqa: PLR0911  # one for each kind of thing
    thing: Any, within: tuple[int, ...] = (), *, with_values: bool = True
) -> Hashable:
    """Return a key that is equal for functions that do the same.

    What is no function, partial, small container or plain value is equal only to itself. No code of
    the application runs.

    Args:
        thing: a function, or what it holds.
        within: the identities of what it is in.
        with_values: whether functions that hold other values are others. If not, only their code
            counts, and that of the functions in their closures.
    """
    kind = type(thing)
    key = functools.partial(_key, within=(*within, id(thing)), with_values=with_values)
    if id(thing) in within:  # a function that calls itself, say
        return within.index(id(thing))
    if len(within) == _DEEP:
        return id(thing) if with_values else None
    if kind is FunctionType:
        cells = tuple(key(_content(it)) for it in thing.__closure__ or ())
        return id(thing.__code__), cells, key(thing.__defaults__), key(thing.__kwdefaults__)
    if kind is functools.partial:
        return kind, key(thing.func), key(thing.args), key(thing.keywords)
    if kind is tuple:
        return kind, *map(key, thing)
    if kind is MethodType:
        return kind, id(thing.__func__), with_values and id(thing.__self__)
    if not with_values:
        return id(thing) if kind in _CALLABLE else None
    if kind in _PLAIN:
        return kind, thing
    if kind in _CONTAINERS and len(thing) <= _LARGE:
        things = thing.items() if kind is dict else thing
        keys = [*map(key, things)]
        return kind, tuple(keys) if kind is list else frozenset(keys)
    return id(thing)


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None
