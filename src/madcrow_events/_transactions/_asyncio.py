"""The async engines, sessions and connections of SQLAlchemy, or stand-ins where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import (
        AsyncConnection,
        AsyncEngine,
        AsyncSession,
        async_scoped_session,
    )
else:
    try:
        from sqlalchemy.ext.asyncio import (
            AsyncConnection,
            AsyncEngine,
            AsyncSession,
            async_scoped_session,
        )
    except ImportError:  # without greenlet, so that nobody has one of these
        _Session = TypeVar("_Session")

        class _Nobodys(Generic[_Session]):
            """Stands for a class that has no instances, but may be annotated with."""

        AsyncConnection = AsyncEngine = AsyncSession = async_scoped_session = _Nobodys

__all__ = ["AsyncConnection", "AsyncEngine", "AsyncSession", "async_scoped_session"]
