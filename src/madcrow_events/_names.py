"""Checking the names of events, and finding declared names that a wrong one resembles."""

from __future__ import annotations

import re
from heapq import nlargest
from types import UnionType
from typing import TYPE_CHECKING, Union, get_origin

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import (
    close_matches,
    handler_name,
    module_of,
    printable,
    type_name,
)
from madcrow_events.exceptions import (
    HandlerSignatureError,
    InvalidEventNameError,
    UnknownEventError,
)
from madcrow_events.models import BaseEventContext

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HANDLER_FAILED", "canonical_name", "name_after", "unknown_event"]

HANDLER_FAILED = "handler_failed"
"""The event that announces failures; failures of its own handlers are not announced."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*")
_PATTERN = re.compile(r"[a-z0-9_.*]*\*[a-z0-9_.*]*")
_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MAX_LENGTH = 128
_COMPARED = 20  # names, of many
_PIECES = 8
_LONG_NAME = 12
_SUGGESTED = 3


def canonical_name(name: object, *, pattern: bool = False) -> str:
    """Return the canonical form of a name or pattern: hyphens become underscores.

    Raises:
        InvalidEventNameError: it is not a valid name or pattern.
        HandlerSignatureError: it is a function, because a decorator lacks its parentheses.
    """
    if isinstance(name, type):
        raise InvalidEventNameError(
            f"the class {type_name(name)} names no event: give the event's name, its signal, or "
            "a context class, which derives from BaseEventContext",
            name=name,
        )
    if isinstance(name, BaseEventContext):
        raise InvalidEventNameError(
            f"an event is named by a string, its signal or its context class, not by a context: "
            f"give {type_name(type(name))}",
            name=name,
        )
    if get_origin(name) in (Union, UnionType) or isinstance(name, list | tuple | set | frozenset):
        raise InvalidEventNameError(
            f"one event is named at a time, not by a {type_name(type(name))}: write one "
            "@on_event(...) above the other, or name a base class of both; emit each context by "
            "itself",
            name=name,
        )
    if callable(name):
        event = _class_taken_by(name) or "'event_name'"
        raise HandlerSignatureError(
            f"{handler_name(name)} is a handler, and the event comes first: write "
            f"@on_event({event}) above it, or register_handler({event}, handler)",
            handler=name,
        )
    if not isinstance(name, str):
        called = getattr(name, "name", None)
        if isinstance(called, str) and any(
            module_of(base).startswith("blinker.") for base in type(name).__mro__
        ):
            raise InvalidEventNameError(
                f"an event's name is a string, and this is the {type_name(type(name))} "
                f"'{printable(called, limit=40)}': give the name of an event that is declared, or "
                "use connect() of the signal itself",
                name=name,
            )
        raise InvalidEventNameError(
            f"an event cannot be of type {type_name(type(name))}: give a context, as in "
            "emit_event(OrderPlaced(...)), a context class, as in @on_event(OrderPlaced), or a "
            "name",
            name=name,
        )
    canonical = name.replace("-", "_")
    form = _PATTERN if pattern else _NAME
    if len(canonical) > _MAX_LENGTH:
        raise InvalidEventNameError(
            f"'{printable(name, limit=40)}' has {len(name)} characters: "
            f"a name has {_MAX_LENGTH} at most",
            name=name,
        )
    if form.fullmatch(canonical) is None:
        if form is _NAME and _PATTERN.fullmatch(canonical):
            raise InvalidEventNameError(
                f"'{printable(name, limit=40)}' is a pattern, which is for subscribing only: "
                "give the name of one event",
                name=name,
            )
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", canonical).lower()
        example = re.sub(r"[^a-z0-9_.]+", "_", words).strip("_.")
        example = example if _NAME.fullmatch(example) else "order_placed"
        raise InvalidEventNameError(
            f"'{printable(name, limit=40)}' is not the name of an event: write small letters, "
            f"digits and underscores, with dots between namespaces, as in '{example}'",
            name=name,
        )
    return canonical


def _class_taken_by(handler: object) -> str | None:
    """Return the name of the context class in the annotations of a handler, if it has one."""
    try:
        annotations = [*handler.__annotations__.values()]
        known = getattr(handler, "__globals__", {})
    except Exception as error:  # a proxy may raise anything, and so may annotations
        if is_interrupt(error):
            raise
        return None
    for annotation in annotations:
        meant = known.get(annotation) if isinstance(annotation, str) else annotation
        if isinstance(meant, type) and issubclass(meant, BaseEventContext):
            return type_name(meant)
    return None


def unknown_event(
    event: str,
    declared: Iterable[str],
    formerly: Iterable[str] = (),
    *,
    decorator: str = "@madcrow_signals.event",
) -> UnknownEventError:
    """Return the error for a name that is not declared; reading it finds similar names.

    Args:
        event: the name.
        declared: the names of the declared events.
        formerly: their old names, which are suggested last.
        decorator: what declares an event.
    """
    return UnknownEventError(
        f"no event is called '{event}': import the module that declares it, or declare it, by "
        f"{_declaration_of(event, decorator)} above class {_class_name_of(event)}"
        "(BaseEventContext)",
        event=event,
        suggestions=lambda: (
            *_similar_names(event, declared),
            *_similar_names(event, formerly),
        )[:_SUGGESTED],
    )


def name_after(class_name: str) -> str:
    """Return the name of the event that is named after a class; it may be no valid one."""
    return _WORDS.sub("_", class_name).lower()


def _class_name_of(event: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[._]", event))


def _declaration_of(event: str, decorator: str) -> str:
    is_named_after = name_after(_class_name_of(event)) == event
    return decorator if is_named_after else f"{decorator}(name='{event}')"


def _similar_names(event: str, declared: Iterable[str]) -> tuple[str, ...]:
    """Return up to three names that resemble a wrong one, the nearest first.

    Comparing two names well takes 0.02 milliseconds or more. So of many names, only those of
    about the same length that share the most pieces with the wrong one are compared.
    """
    names = [name for name in list(declared) if name != event]  # declared in the meantime
    if len(names) > _COMPARED:
        size = 2 if len(event) < _LONG_NAME else 3
        step = max(1, len(event) // _PIECES)
        pieces = {event[at : at + size] for at in range(0, len(event) - size + 1, step)}
        names = nlargest(
            _COMPARED,
            # No name of another length reaches the likeness that get_close_matches asks for.
            [name for name in names if 3 * len(name) <= 7 * len(event) <= 49 / 3 * len(name)],
            key=lambda name: sum([piece in name for piece in pieces]),
        )
    return tuple(close_matches(event, names, _SUGGESTED))
