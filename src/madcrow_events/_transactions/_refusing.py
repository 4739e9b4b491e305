"""Why something that was given cannot be watched or written to; its caller words the error."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["Refusal", "Refuse", "is_autocommit"]


class Refusal(Enum):
    """Why there is no transaction to watch, or none to write in."""

    NO_SESSION = auto()
    """It is something else than a session or connection."""
    NOT_CONNECTED = auto()
    """The `AsyncConnection` has no connection yet."""
    AUTOCOMMIT = auto()
    """Each statement is committed by itself."""
    NO_BIND = auto()
    """The session has no engine for the rows that are to be written."""


Refuse: TypeAlias = Callable[[Refusal, object], Exception]
"""Returns the error to raise; takes what was given, too, whose class it may name."""


def is_autocommit(bind: Engine | Connection) -> bool:
    """Whether each statement is committed by itself, as far as the settings tell."""
    # There is no public name for the level that was given to `create_engine`.
    of_engine = getattr(bind.dialect, "_on_connect_isolation_level", None)
    return bind.get_execution_options().get("isolation_level", of_engine) == "AUTOCOMMIT"
