"""Finding the watcher of a session or connection."""

from __future__ import annotations

from sqlalchemy.orm import Session

from madcrow_events._transactions._connections import ConnectionWatcher
from madcrow_events._transactions._sessions import SessionWatcher
from madcrow_events._transactions._synchronous import Watched
from madcrow_events._transactions._watching import Watcher, known_watcher, make_known

__all__ = ["watcher_of"]


def watcher_of(watched: Watched) -> Watcher:
    """Return the watcher of a session or connection, which now watches its transaction.

    Made at the first call. Call it before each emission, or each `with` around emissions.
    """
    watcher = known_watcher(watched) or _new_watcher(watched)
    watcher.watch(watched)
    return watcher


def _new_watcher(watched: Watched) -> Watcher:
    watcher = (
        SessionWatcher(watched) if isinstance(watched, Session) else ConnectionWatcher(watched)
    )
    make_known(watched, watcher)
    return watcher
