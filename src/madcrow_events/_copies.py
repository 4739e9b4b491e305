"""What a copy or a pickle of a signal, registry, dispatcher, subscription or emission is.

Handlers, locks and threads belong to the one object, so a copy could only be a second object
that nobody subscribed to. What holds such an object can be copied, and then holds the same one.
"""

from __future__ import annotations

from typing import ClassVar, NoReturn, Self, SupportsIndex

__all__ = ["Unique"]


class Unique:
    """A base for objects of which `copy` and `deepcopy` return the same, and `pickle` none."""

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
            TypeError: always; it says what to do instead.
        """
        raise TypeError(
            f"{type(self).__name__} belongs to its process and cannot be pickled: "
            f"{self._instead_of_pickling}"
        )
