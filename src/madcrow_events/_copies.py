"""Copying and pickling signals, registries, dispatchers, subscriptions and emissions.

Handlers, locks and threads belong to one object, and a second one would have none. So copying
returns the same object, and what holds such an object can be copied. Pickling is refused.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn, Self, SupportsIndex

__all__ = ["Unique"]


class Unique:
    """A base class: `copy` and `deepcopy` return the object itself, `pickle` refuses it."""

    __slots__ = ()

    _instead_of_pickling: ClassVar[str]
    """What to do instead, for the message."""

    def __copy__(self) -> Self:
        """Return the object itself."""
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the object itself."""
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be pickled.

        Raises:
            TypeError: always; the message says what to do instead.
        """
        raise TypeError(
            f"{type(self).__name__} belongs to its process and cannot be pickled: "
            f"{self._instead_of_pickling}"
        )
