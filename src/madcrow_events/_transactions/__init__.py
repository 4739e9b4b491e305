"""Watching the transactions of SQLAlchemy: their savepoints, their commit and their end."""

from madcrow_events._transactions._asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
)
from madcrow_events._transactions._finding import watcher_of
from madcrow_events._transactions._participants import Participant
from madcrow_events._transactions._refusing import Refusal, Refuse, is_autocommit
from madcrow_events._transactions._synchronous import (
    AnySession,
    Watched,
    in_transaction,
    synchronous,
)
from madcrow_events._transactions._watching import Watcher

__all__ = [
    "AnySession",
    "AsyncConnection",
    "AsyncEngine",
    "AsyncSession",
    "Participant",
    "Refusal",
    "Refuse",
    "Watched",
    "Watcher",
    "async_scoped_session",
    "in_transaction",
    "is_autocommit",
    "synchronous",
    "watcher_of",
]
