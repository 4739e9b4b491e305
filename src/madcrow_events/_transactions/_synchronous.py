"""From whatever stands for a session or connection to the one that is watched."""

from __future__ import annotations

from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, scoped_session

from madcrow_events._transactions._asyncio import (
    AsyncConnection,
    AsyncSession,
    async_scoped_session,
)
from madcrow_events._transactions._refusing import Refusal, Refuse, is_autocommit

__all__ = ["AnySession", "Watched", "in_transaction", "synchronous"]

AnySession: TypeAlias = (
    Session
    | AsyncSession
    | scoped_session[Any]
    | async_scoped_session[Any]
    | Connection
    | AsyncConnection
)
"""What has a transaction: of SQLAlchemy's ORM or Core, plain or async."""

Watched: TypeAlias = Session | Connection


def synchronous(given: Any, refuse: Refuse) -> Watched:
    """Return the session or connection itself, or the one behind a proxy.

    Args:
        given: a session, `scoped_session` or connection, or an async one.
        refuse: returns the error to raise if it is something else, has no connection yet, or
            commits each statement by itself.
    """
    match given:
        case scoped_session() | async_scoped_session():
            return synchronous(given(), refuse)
        case AsyncSession(sync_session=found) | (Session() as found):
            bind: Engine | Connection | None = found.bind
        case AsyncConnection(sync_connection=found) | (Connection() as found):
            if found is None:
                raise refuse(Refusal.NOT_CONNECTED, given)
            bind = found
        case _:
            raise refuse(Refusal.NO_SESSION, given)
    if bind is not None and is_autocommit(bind):
        raise refuse(Refusal.AUTOCOMMIT, given)
    return found


def in_transaction(watched: Watched) -> bool:
    """Whether a transaction has begun; begin that of a session, as `Session.add` does.

    It does no I/O. A session made with `autobegin=False` begins nothing by itself.
    """
    if watched.in_transaction():
        return True
    if isinstance(watched, Session) and watched.autobegin:
        watched.begin()
        return True
    return False
