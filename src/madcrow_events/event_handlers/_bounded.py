"""The parts of every store: a bounded mapping, and a lock around some state.

A store remembers a bounded number of subjects; the least recently used one makes
room for a new one. It keeps a bounded length of each text. So a store has a bound
in bytes, which its docstring states. A store calls no user code while it holds its
lock. A finalizer or a signal handler may still run then, so the lock is re-entrant.
"""

from __future__ import annotations

import copy
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Generic, TypeVar

from madcrow_events._forks import renew_after_fork
from madcrow_events._locks import Lock
from madcrow_events._text import printable, text_of

__all__ = [
    "MAX_KEY_LENGTH",
    "MAX_SUBJECTS",
    "Store",
    "account_key",
    "as_field",
    "count_one",
    "cut",
    "finite",
    "moment",
    "touch",
]

MAX_SUBJECTS = 10_000
"""The largest number of users, e-mails or addresses that a store remembers."""

MAX_KEY_LENGTH = 320
"""The number of characters that are kept of a text; an e-mail address has at most 320."""

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")
StateT = TypeVar("StateT")


def moment(timestamp: object) -> float:
    """Return a context's timestamp in seconds since 1970.

    Args:
        timestamp: a datetime, or seconds since 1970. A datetime without a time zone is
            local time. Anything else stands for now, and so does a number that no float
            can hold.
    """
    try:
        seconds = timestamp.timestamp() if isinstance(timestamp, datetime) else timestamp
    except (OverflowError, ValueError):  # the year 1 without a time zone
        seconds = None
    at = finite(seconds)
    return time.time() if at is None else at


def finite(number: object) -> float | None:
    """Return a number as a float; None if it is no number, or no float can hold it."""
    if isinstance(number, bool) or not hasattr(type(number), "__float__"):
        return None
    try:
        kept = float(number)  # type: ignore[arg-type]  # checked above
    except (OverflowError, TypeError, ValueError):  # 10**400, or an array of several
        return None
    return kept if math.isfinite(kept) else None


def as_field(value: object) -> object:
    """Return a value for a field of a log record, in a form that any formatter can write."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and finite(value) is not None:
        return value
    return value.isoformat() if isinstance(value, datetime) else printable(value)


def cut(text: object) -> str:
    """Return the first 320 characters of a text, which is as much as a store keeps."""
    return text_of(text)[:MAX_KEY_LENGTH]


def account_key(user_id: object) -> str:
    """Return the text that stands for an account; no two accounts share one.

    Args:
        user_id: a UUID, a number or text; a long id is cut, and a digest of the whole id is added.
    """
    is_long = isinstance(user_id, int) and user_id.bit_length() >= MAX_KEY_LENGTH
    text = hex(user_id) if is_long else text_of(user_id)  # type: ignore[arg-type]  # it is an int
    if len(text) <= MAX_KEY_LENGTH:
        return text
    from hashlib import blake2b  # few ids are so long

    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    # Longer than any id that is kept uncut, so it cannot be the id of another account.
    return f"{text[:MAX_KEY_LENGTH]}...{digest}"


def touch(values: OrderedDict[KeyT, ValueT], key: KeyT, make: Callable[[], ValueT]) -> ValueT:
    """Return the value of a key, made if it has none, and note that it was used.

    Args:
        values: the values by their keys; of too many the least recently used is forgotten.
        key: the key.
        make: makes a key's first value.
    """
    value = values.get(key)
    if value is None:
        value = values[key] = make()
        if len(values) > MAX_SUBJECTS:
            values.popitem(last=False)
    else:
        values.move_to_end(key)
    return value


def count_one(counts: OrderedDict[str, int], key: str) -> None:
    """Add one to the count of a key."""
    counts[key] = touch(counts, key, int) + 1


class Store(Generic[StateT]):
    """Some state, and the lock that guards it."""

    def __init__(self, make: Callable[[], StateT]) -> None:
        self._make = make
        self._state = make()
        self._renew_after_fork()
        renew_after_fork(self)

    def _renew_after_fork(self) -> None:
        """Start with a free lock; called in a forked child, too."""
        # Re-entrant: a signal handler or a finalizer may emit while the lock is held.
        self._lock = Lock()

    def clear(self) -> None:
        """Forget everything."""
        empty = self._make()
        with self._lock:
            # The old state must die after the lock is free: its finalizers are user code.
            _dropped, self._state = self._state, empty

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy of the state, or empty; return a function that puts the state back."""
        with self._lock:
            saved = self._state
            self._state = self._make() if empty else copy.deepcopy(saved)

        def restore() -> None:
            with self._lock:
                _dropped, self._state = self._state, saved

        return restore
