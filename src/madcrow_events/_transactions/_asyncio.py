"""The async engines, sessions and connections of SQLAlchemy, or stand-ins where there are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

        class _Nobodys:
            """Stands for a class that has no instances."""

        AsyncConnection = AsyncEngine = AsyncSession = async_scoped_session = _Nobodys

__all__ = ["AsyncConnection", "AsyncEngine", "AsyncSession", "async_scoped_session"]
