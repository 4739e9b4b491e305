"""Loading what imports asyncio: once, when first needed, and never across a fork.

A child that is forked while another thread imports a module inherits it half
made, behind a lock that nobody will release. So forks wait until the import
is over; likewise for the making of a loop, where asyncio has a lock of its own.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from madcrow_events._locks import Lock

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from types import ModuleType

__all__ = ["load_async_loop", "new_event_loop", "running_loop"]

# Re-entrant, for a finalizer that runs during the import may emit, or fork.
_importing = Lock()

if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    os.register_at_fork(
        before=_importing.acquire,
        after_in_parent=_importing.release,
        after_in_child=_importing.release,
    )

_loaded: list[ModuleType] = []


def load_async_loop() -> ModuleType:
    """Return the module `_async_loop`, and have asyncio loaded."""
    if not _loaded:
        with _importing:
            from madcrow_events.emissions import _async_loop  # noqa: PLC0415

            _loaded.append(_async_loop)
    return _loaded[0]


def new_event_loop() -> AbstractEventLoop:
    """Return a new event loop."""
    asyncio = load_async_loop().asyncio
    with _importing:
        loop: AbstractEventLoop = asyncio.new_event_loop()
    return loop


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    # Looked up, not imported: who has not loaded asyncio, or not to the end, runs no loop.
    get_running_loop = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
    if get_running_loop is None:
        return None
    try:
        loop: AbstractEventLoop = get_running_loop()
    except RuntimeError:
        return None
    return loop
