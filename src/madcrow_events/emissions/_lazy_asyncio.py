"""Loading what imports asyncio: once, when first needed, and never across a fork.

A child that is forked while another thread imports a module inherits that module half made, behind
a lock that nobody will release. So forks wait until the import is over. They also wait while a loop
is made, because asyncio has a lock of its own there.
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

# Re-entrant, because a finalizer that runs during the import may emit or fork.
_importing = Lock()

if hasattr(os, "register_at_fork"):  # pragma: no branch  # Windows has no fork
    os.register_at_fork(
        before=_importing.acquire,
        after_in_parent=_importing.release,
        after_in_child=_importing.release,
    )

_loaded: list[ModuleType] = []


def load_async_loop() -> ModuleType:
    """Return the module `_async_loop`; import it, and asyncio, if that is not done yet."""
    if not _loaded:
        with _importing:
            from madcrow_events.emissions import _async_loop

            _loaded.append(_async_loop)
    return _loaded[0]


_ours: WeakSet[AbstractEventLoop] = WeakSet()
"""The loops that were made here, which no client or pool of the application uses."""


def new_event_loop() -> AbstractEventLoop:
    """Return a new event loop, of the package's own."""
    asyncio = load_async_loop().asyncio
    with _importing:
        if greenlets():
            # The selector that gevent puts in its place would never wake the loop's thread.
            selector = sys.modules["gevent.monkey"].get_original("selectors", "DefaultSelector")
            loop: AbstractEventLoop = asyncio.SelectorEventLoop(selector())
        else:
            loop = asyncio.new_event_loop()
    _ours.add(loop)
    return loop


def run_to_the_end(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, in a thread without a running loop."""
    with load_async_loop().asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(coroutine, context=copy_context())


def applications_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if the application made it; else None."""
    loop = running_loop()
    return None if loop in _ours else loop


def running_loop() -> AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    # Looked up, not imported: no loop can run before asyncio is loaded to the end.
    get_running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop: AbstractEventLoop | None = None if get_running_loop is None else get_running_loop()
    return None if loop is None or is_of_another_greenlet(loop) else loop
