"""How long the bridge waits for an answer of a broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from madcrow_events.bridge._errors import BridgeError, BrokerAwayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["PATIENCE", "within_patience"]

PATIENCE: Final = 5.0
"""After how many seconds a broker that has not answered is away."""


@asynccontextmanager
async def within_patience(place: str, deed: str) -> AsyncIterator[None]:
    """Give a broker some seconds for what is asked of it in the block.

    Args:
        place: what the broker is and where.
        deed: what it has not done if the block fails, such as "answered".

    Raises:
        BridgeError: the block raised it.
        BrokerAwayError: the block raised anything else, or took too long.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except BridgeError:
        raise
    except TimeoutError as error:
        raise BrokerAwayError(f"{place} has not {deed} within {PATIENCE:g} seconds") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # A client ends like this what waits for a connection that it closes.
        raise BrokerAwayError(f"{place} has not {deed}: the connection is closed") from error
    except Exception as error:  # each client and each middleware has errors of its own
        reason = str(error) or type(error).__name__
        raise BrokerAwayError(f"{place} has not {deed}: {reason}") from error
