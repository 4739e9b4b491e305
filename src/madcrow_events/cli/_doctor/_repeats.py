"""Functions that are subscribed to one event again and again, each time as another object."""

from __future__ import annotations

import functools
from collections import defaultdict
from types import FunctionType, MethodType, NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._text import handler_name
from madcrow_events.cli._doctor._findings import Finding, finding
from madcrow_events.cli._places import line_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

__all__ = ["Listening", "repeated_handlers"]

_PLAIN: Final = (str, bytes, int, float, complex, bool, NoneType)
"""Values of these kinds are the same if they are equal; others, if they are one object."""


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

    Two of its objects are one too many if they hold the same and have the same options. An `id`
    says that a handler is meant to be one of its own.

    Args:
        listening: the handlers.
    """
    alike: dict[Hashable, list[Listening]] = defaultdict(list)
    for it in listening:
        # Methods and other objects are subscribed once for each of them, which is meant.
        if it.id is None and type(it.handler) in (FunctionType, functools.partial):
            options = tuple((name, _same(value)) for name, value in it.options)
            alike[_same(it.event), _key(it.handler), options].append(it)
    for same in alike.values():
        if len(same) > 1:
            yield _repeated(same[0], len(same))


def _repeated(it: Listening, times: int) -> Finding:
    name = handler_name(it.handler)
    return finding(
        "repeated_handler",
        name,
        f"{name} is subscribed to {it.shown} {times} times",
        "subscribe it once, outside of the loop or the function that is called again and again; "
        "or give each an `id`",
        line_of(it.handler),
    )


def _key(handler: Any) -> Hashable:
    """Return a key that is equal for functions, and partials, that do the same."""
    if type(handler) is functools.partial:
        keywords = tuple((name, _same(it)) for name, it in handler.keywords.items())
        return _key(handler.func), tuple(map(_same, handler.args)), keywords
    if type(handler) is not FunctionType:
        return _same(handler)
    keywords = tuple((name, _same(it)) for name, it in (handler.__kwdefaults__ or {}).items())
    held = (_content(it, handler) for it in handler.__closure__ or ())
    defaults = tuple(map(_same, handler.__defaults__ or ()))
    return id(handler.__code__), tuple(map(_same, held)), defaults, keywords


def _same(value: object) -> Hashable:
    """Return a key that is equal for equal plain values; any other is equal only to itself."""
    if type(value) is MethodType:  # each look-up makes another
        return id(value.__func__), id(value.__self__)
    return (type(value), value) if type(value) in _PLAIN else id(value)


def _content(cell: Any, function: object) -> object:
    """Return what a closure holds; None if that is nothing, or the function itself."""
    try:
        return None if cell.cell_contents is function else cell.cell_contents
    except ValueError:  # it is empty
        return None
