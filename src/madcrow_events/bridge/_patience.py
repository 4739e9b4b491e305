"""How long the bridge waits for an answer of a broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from madcrow_events.bridge._errors import BridgeError, BrokerAwayError

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["PATIENCE", "away", "give_up", "within_patience"]

PATIENCE: Final = 5.0
"""After how many seconds a broker that has not answered is away."""

_Answer = TypeVar("_Answer")

_given_up: set[asyncio.Task[Any]] = set()
"""What still runs, because asyncio keeps no task alive by itself."""


async def within_patience(place: str, deed: str, asking: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return what a broker answers, unless it takes too long.

    Args:
        place: what the broker is and where.
        deed: what it has not done if that fails, such as "answered".
        asking: asks it.

    Raises:
        BridgeError: `asking` raises it.
        BrokerAwayError: `asking` raises anything else, or takes too long.
    """
    # In a task of its own, as some clients go on when they are cancelled, and are to be left then.
    task = asyncio.create_task(asking)
    try:
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    except asyncio.CancelledError:
        give_up(task)
        raise
    if not done:
        give_up(task)
        raise BrokerAwayError(f"{place} has not {deed} within {PATIENCE:g} seconds")
    try:
        return task.result()
    except BridgeError:
        raise
    except asyncio.CancelledError as error:  # by the client, which closes the connection
        raise BrokerAwayError(f"{place} has not {deed}: the connection is closed") from error
    except Exception as error:  # each client and each middleware has errors of its own
        raise away(place, deed, error) from error


def away(place: str, deed: str, error: Exception) -> BrokerAwayError:
    """Return the error for a broker that has not done something.

    Args:
        place: what the broker is and where.
        deed: what it has not done, such as "answered".
        error: what its client has raised.
    """
    reason = str(error) or type(error).__name__
    return BrokerAwayError(f"{place} has not {deed}: {reason}")


def give_up(task: asyncio.Task[Any]) -> None:
    """Cancel a task without waiting for its end."""
    task.cancel()
    _given_up.add(task)
    task.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _given_up.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio logs that nobody has asked for it
