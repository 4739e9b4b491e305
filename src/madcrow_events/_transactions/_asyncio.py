"""The async sessions and connections of SQLAlchemy, or stand-ins where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection
from sqlalchemy.orm import Session, scoped_session

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
else:
    try:
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    except ImportError:  # without greenlet, so that nobody has one of these
        AsyncConnection, AsyncSession, async_scoped_session = Connection, Session, scoped_session

__all__ = ["AsyncConnection", "AsyncSession", "async_scoped_session"]
