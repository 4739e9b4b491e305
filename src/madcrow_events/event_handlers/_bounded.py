"""What every store is made of: a bounded mapping, and a lock around some state.

A store remembers a bounded number of subjects; the least recently used makes
room for a new one. Of each text it keeps a bounded length, so a store has a bound
in bytes, which its docstring states. Its lock is never held while user code runs
on purpose, and is re-entrant for what a finalizer or a signal handler does all
the same.
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
"""How many users, e-mails or addresses a store remembers."""

MAX_KEY_LENGTH = 320
"""How many characters of a text are kept; an e-mail has 320 at most."""

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")
StateT = TypeVar("StateT")


def moment(timestamp: object) -> float:
    """Return a context's timestamp in seconds since 1970.

    Args:
        timestamp: a datetime, a naive one being local time, or seconds since
            1970; anything else stands for now, as does what no float can hold.
    """
    try:
        seconds = timestamp.timestamp() if isinstance(timestamp, datetime) else timestamp
    except (OverflowError, ValueError):  # the year 1 without a time zone
        seconds = None
    at = finite(seconds)
    return time.time() if at is None else at


def finite(number: object) -> float | None:
    """Return a number as it is kept; None for what is none, or is more than a float can hold."""
    if isinstance(number, bool) or not hasattr(type(number), "__float__"):
        return None
    try:
        kept = float(number)  # type: ignore[arg-type]  # it has what makes it one
    except (OverflowError, TypeError, ValueError):  # 10**400, or an array of several
        return None
    return kept if math.isfinite(kept) else None


def as_field(value: object) -> object:
    """Return a value for a field of a log record, which any formatter can write."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and finite(value) is not None:
        return value
    return value.isoformat() if isinstance(value, datetime) else printable(value)


def cut(text: object) -> str:
    """Return the first characters of a text, as many as are kept."""
    return text_of(text)[:MAX_KEY_LENGTH]


def account_key(user_id: object) -> str:
    """Return the text for an account; two accounts never have the same, however long their ids.

    Args:
        user_id: a UUID, a number or text; a long one is cut, and a digest of the whole added.
    """
    is_long = isinstance(user_id, int) and user_id.bit_length() >= MAX_KEY_LENGTH
    text = hex(user_id) if is_long else text_of(user_id)  # type: ignore[arg-type]  # it is an int
    if len(text) <= MAX_KEY_LENGTH:
        return text
    from hashlib import blake2b  # few ids are so long

    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    # Longer than any text that is kept as it is, so that no account can have it as its id.
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
        """Start with a free lock; a forked child does."""
        # Re-entrant: a signal handler or a finalizer may emit while the lock is held.
        self._lock = Lock()

    def clear(self) -> None:
        """Forget everything."""
        empty = self._make()
        with self._lock:
            # Dropped by the caller of the lock, not under it: a finalizer is user code (F6).
            _dropped, self._state = self._state, empty

    def isolate(self, *, empty: bool) -> Callable[[], None]:
        """Go on with a copy, or empty; return what puts the present state back."""
        with self._lock:
            saved = self._state
            self._state = self._make() if empty else copy.deepcopy(saved)

        def restore() -> None:
            with self._lock:
                _dropped, self._state = self._state, saved

        return restore
