"""How long the bridge waits for an answer of a broker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from madcrow_events._text import module_of, type_name
from madcrow_events.bridge._errors import BridgeError, BrokerAwayError

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["PATIENCE", "away", "begin", "close", "within_patience"]

PATIENCE: Final = 5.0
"""After how many seconds a broker that has not answered is away."""

_CLIENTS: Final = ("nats.", "redis.", "aio_pika.", "aiormq.", "pamqp.")
"""Where the errors of clients are from, whose words are for people."""

_Answer = TypeVar("_Answer")

_running: set[asyncio.Task[Any]] = set()
"""What has yet to end, because asyncio keeps no task alive by itself."""


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
    task = begin(asking)
    try:
        done, _ = await asyncio.wait({task}, timeout=PATIENCE)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
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
    # Others, such as those of a middleware, may show what is in an event.
    is_shown = isinstance(error, OSError) or module_of(type(error)).startswith(_CLIENTS)
    reason = (str(error) if is_shown else "") or type_name(type(error))
    return BrokerAwayError(f"{place} has not {deed}: {reason}")


async def close(place: str, deed: str, closing: Coroutine[Any, Any, object]) -> None:
    """Do the same with what closes something; a broker that is away has closed it, too."""
    try:
        await within_patience(place, deed, closing)
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
