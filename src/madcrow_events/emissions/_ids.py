"""The ids of emissions and their causes, made when somebody asks for them.

An id is a UUIDv7 of the moment at which it was first needed. The ids of the causes are made first,
so that ids grow along every chain of causes, and with time.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import TYPE_CHECKING
from uuid import UUID

from madcrow_events._text import type_name
from madcrow_events.exceptions import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from madcrow_events.emissions._emission import Emission

__all__ = ["Ids", "check_id"]

_last_moment: list[int] = [0]


def _next_moment() -> int:
    """Return the time in nanoseconds since 1970, always later than the time returned before."""
    # Two threads may get the same time; the random bits keep their ids apart.
    moment, last = time.time_ns(), _last_moment[0]
    if moment <= last:
        moment = last + 1
    _last_moment[0] = moment
    return moment


class Ids:
    """The id of an emission and of the root of its chain, kept by the emissions that it caused.

    It refers to the ids of the root and to no others, so that a chain of events without end
    does not keep its beginning.

    Args:
        cause: the ids of the emission that caused this one, if there is one.
        emission: the emission.

    Attributes:
        emission: `emission()` returns the emission, or None if nobody holds it any more.
        root: the ids of the emission that began the chain of causes.
    """

    __slots__ = ("_made", "_moment", "emission", "root")

    def __init__(self, cause: Ids | None, emission: Emission) -> None:
        self.emission: Callable[[], Emission | None] = weakref.ref(emission)
        self.root: Ids = self if cause is None else cause.root
        self._moment = _next_moment()
        self._made: list[UUID] = []

    @classmethod
    def given(cls, id: UUID, root: Ids | None = None, emission: Emission | None = None) -> Ids:  # noqa: A002  # its name everywhere
        """Return ids with an id that was not made here.

        Args:
            id: the id.
            root: the ids of the emission that began the chain of causes; None if it is this one.
            emission: the emission; None if it is in another process, or gone.
        """
        ids = cls.__new__(cls)
        ids.emission = _gone if emission is None else weakref.ref(emission)
        ids.root = ids if root is None else root
        ids._moment = 0  # not needed any more
        ids._made = [id]
        return ids

    @property
    def id(self) -> UUID:
        """The id, always the same one."""
        if not self._made:
            self._made.append(_uuid7(self._moment))
        return self._made[0]  # the first, if several threads made one at the same time


def _gone() -> None:
    """Stand for the reference to an emission that does not exist in this process."""


def check_id(option: str, id: object) -> None:  # noqa: A002  # as above
    """Refuse an id that is neither a UUID nor None.

    Raises:
        InvalidOptionError: it is something else.
    """
    if not isinstance(id, UUID | None):
        raise InvalidOptionError(
            f"{option} must be a UUID or None, not {type_name(type(id))}: write UUID(...)",
            option=option,
        )


def _uuid7(moment: int) -> UUID:
    """Make a UUID of version 7 for a moment in nanoseconds since 1970.

    The 20 bits after the milliseconds are the fraction of the millisecond, which RFC 9562 allows
    in section 6.2, method 3; the other 54 are random.
    """
    milliseconds, fraction = divmod(moment, 1_000_000)
    random = int.from_bytes(os.urandom(7), "big") >> 2
    return UUID(
        int=milliseconds << 80
        | 0x7 << 76
        | (fraction >> 8) << 64
        | 0x2 << 62
        | (fraction & 0xFF) << 54
        | random
    )
