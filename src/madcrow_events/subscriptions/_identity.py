"""What handlers and senders are told apart by: keys that run no code of theirs (L2)."""

from __future__ import annotations

import types
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


__all__ = ["identity_key", "sender_key"]


_PLAIN_TYPES = frozenset({str, bytes, int, float, complex, bool, types.NoneType, uuid.UUID})


def identity_key(thing: object) -> Hashable:
    """Return what tells `thing` from every other living object; equal for one method's objects."""
    if isinstance(thing, types.MethodType):
        return (id(thing.__self__), id(thing.__func__))
    if isinstance(thing, types.BuiltinMethodType) and not isinstance(
        thing.__self__, types.ModuleType | types.NoneType
    ):
        return (id(thing.__self__), thing.__name__)
    return id(thing)


def sender_key(sender: object) -> Hashable:
    """Return what a sender is matched by: its type and value if plain, else its identity (L2)."""
    kind = type(sender)
    if kind in _PLAIN_TYPES:
        return (kind, sender)
    if kind is tuple:
        return (tuple, *map(sender_key, sender))  # type: ignore[call-overload]  # it is a tuple
    return identity_key(sender)
