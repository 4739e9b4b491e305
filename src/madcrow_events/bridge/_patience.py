"""How long the bridge waits for an answer of a broker."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from madcrow_events.bridge._errors import BridgeError, BrokerAwayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

__all__ = ["PATIENCE", "ask", "begin", "close", "within_patience"]

PATIENCE: Final = 5.0
"""After how many seconds a broker that has not answered is away."""

_Answer = TypeVar("_Answer")

_running: set[asyncio.Task[Any]] = set()
"""What has yet to end; asyncio itself keeps no task alive."""


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


async def ask(place: str, deed: str, asking: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Return the answer of a broker, whose client may go on when it is cancelled.

    Such a client would make a block of `within_patience` last for ever. So it has a task of its
    own, and is left to itself when it takes too long or when the caller is cancelled.

    Args:
        place: what the broker is and where.
        deed: what it has not done if that fails, such as "answered".
        asking: asks it.

    Raises:
        BridgeError: `asking` raises it.
        BrokerAwayError: `asking` raises anything else, or takes too long.
    """
    task = begin(asking)
    try:
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        raise BrokerAwayError(f"{place} has not {deed} within {PATIENCE:g} seconds")
    async with within_patience(place, deed):
        return task.result()


async def close(place: str, deed: str, closing: Coroutine[Any, Any, object]) -> None:
    """Do the same with what closes something; a broker that is away has closed it, too."""
    try:
        await ask(place, deed, closing)
    except BrokerAwayError:
        pass


def begin(doing: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
    """Return a task for whose end nobody needs to wait, whether it fails or not."""
    task = asyncio.create_task(doing)
    _running.add(task)
    task.add_done_callback(_forget)
    return task


def _forget(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio logs that nobody has asked for it
