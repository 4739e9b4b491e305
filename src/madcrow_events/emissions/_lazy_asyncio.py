"""Loading what imports asyncio: once, when first needed, and never across a fork.

A child that is forked while another thread imports a module inherits it half
made, behind a lock that nobody will release. So forks wait until the import
is over; likewise for the making of a loop, where asyncio has a lock of its own.
"""

from __future__ import annotations

import os
import sys
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from madcrow_events._locks import Lock
from madcrow_events._other_loops import greenlets, is_of_another_greenlet

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Coroutine
    from types import ModuleType

__all__ = [
    "applications_loop",
    "load_async_loop",
    "new_event_loop",
    "run_to_the_end",
    "running_loop",
]

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
            from madcrow_events.emissions import _async_loop

            _loaded.append(_async_loop)
    return _loaded[0]


_ours: WeakSet[AbstractEventLoop] = WeakSet()
"""The loops that were made here, in which no client or pool of the application's is."""


def new_event_loop() -> AbstractEventLoop:
    """Return a new event loop, which is not the application's."""
    asyncio = load_async_loop().asyncio
    with _importing:
        if greenlets():
            # Of greenlets' own selector nobody lets the loop's thread go on.
            selector = sys.modules["gevent.monkey"].get_original("selectors", "DefaultSelector")
            loop: AbstractEventLoop = asyncio.SelectorEventLoop(selector())
        else:
            loop = asyncio.new_event_loop()
    _ours.add(loop)
    return loop


def run_to_the_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Await something here and now, where no loop runs."""
    with load_async_loop().asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(coroutine, context=copy_context())


def applications_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if that is the application's."""
    loop = running_loop()
    return None if loop in _ours else loop


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if one does."""
    # Looked up, not imported: who has not loaded asyncio, or not to the end, runs no loop.
    get_running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop: AbstractEventLoop | None = None if get_running_loop is None else get_running_loop()
    return None if loop is None or is_of_another_greenlet(loop) else loop
