"""The ordering key of an event: a field of its context, or a function of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from madcrow_events._text import handler_name, printable, type_name
from madcrow_events.exceptions import ContextModelError
from madcrow_events.models import BaseEventContext
from madcrow_events.subscriptions._kinds import is_async

__all__ = ["Key", "check_key", "key_shown"]

Key: TypeAlias = str | Callable[[Any], object]
"""The name of a field, or a function of the context."""


def check_key(event: str, key: object, model: type[BaseEventContext] | None) -> None:
    """Refuse what cannot be the key of an event.

    Args:
        event: the name of the event.
        key: the key.
        model: the event's model, or None.

    Raises:
        ContextModelError: the key is neither a field of the model nor a plain function. For an
            event without a model, any identifier may be a field.
    """
    if isinstance(key, str):
        if key in model.model_fields if model is not None else key.isidentifier():
            return
        given = f"'{printable(key)}'"
    elif callable(key) and not is_async(key):
        return
    else:
        given = type_name(type(key))
    field = "the name of a field, as in key='customer_id'"
    if model is not None:
        common = BaseEventContext.model_fields
        names = sorted(model.model_fields, key=lambda name: name in common)
        field = f"a field of {type_name(model)} ({', '.join(names)})"
    raise ContextModelError(
        f"the key of {event} must be {field}, or a plain function of the context, not {given}",
        event=event,
        model=model,
    )


def key_shown(key: Key | None) -> str:
    """Return a key in words, for messages."""
    if key is None:
        return "no key"
    return f"the key {repr(key) if isinstance(key, str) else handler_name(key)}"
