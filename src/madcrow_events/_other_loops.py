"""What may run in the place of asyncio's loop, or of the threads of the operating system.

Nothing is imported here: what has not been loaded does not run.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from madcrow_events._clock import monotonic
from madcrow_events._interrupts import is_interrupt
from madcrow_events.exceptions import EventLoopError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = [
    "STRANGERS",
    "NativeThread",
    "check_for_awaiting",
    "event_loop_error",
    "greenlets",
    "is_of_another_greenlet",
    "loop_to_wait_in",
    "other_library",
]

STRANGERS = ("trio", "curio", "gevent.monkey", "eventlet.patcher")
"""The modules without which nothing of this is the case."""


def _in_trio() -> bool:
    current_task = getattr(sys.modules.get("trio.lowlevel"), "current_task", None)
    if current_task is None:
        return False
    try:
        current_task()
    except RuntimeError as error:
        if is_interrupt(error):
            raise
        return False
    # A loop of asyncio's may run in a task of trio's, and there may be tasks of asyncio's in that.
    asyncio: Any = sys.modules.get("asyncio")
    try:
        return asyncio is None or asyncio.current_task() is None
    except RuntimeError as error:
        if is_interrupt(error):
            raise
        return True


def _in_curio() -> bool:
    is_running = getattr(sys.modules.get("curio.meta"), "curio_running", None)
    return is_running is not None and bool(is_running())


def other_library() -> str:
    """Return the name of the async library, other than asyncio, in a task of which this runs."""
    modules = sys.modules
    if "trio" in modules and _in_trio():
        return "trio"
    if "curio" in modules and _in_curio():
        return "curio"
    return ""


def event_loop_error(event: str, library: str) -> EventLoopError:
    """Return the error for an event whose async handlers cannot be called here."""
    runs = f"{library} runs" if library else "no event loop runs"
    return EventLoopError(
        f"{event} has async handlers, which need asyncio, and {runs} here: emit it where asyncio "
        "runs, or from a thread by emit(), or let plain handlers take it",
        event=event,
        library=library,
    )


def check_for_awaiting(event: str) -> None:
    """See to it that handlers can be awaited here.

    Raises:
        EventLoopError: they cannot.
    """
    library = other_library()
    if library:
        raise event_loop_error(event, library)
    get_running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if get_running_loop is None or get_running_loop() is None:
        raise event_loop_error(event, "")


def loop_to_wait_in() -> AbstractEventLoop:
    """Return the event loop of the task that is about to wait.

    Raises:
        EventLoopError: asyncio does not run here.
    """
    library = other_library()
    get_running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    loop: AbstractEventLoop | None = None
    if not library and get_running_loop is not None:
        loop = get_running_loop()
    if loop is None:
        raise EventLoopError(
            f"waiting in a task needs asyncio, and {library or 'no event loop'} runs here: "
            "wait in a thread, by wait(), drain() or close()",
            library=library,
        )
    return loop


def greenlets() -> str:
    """Return the name of the library that has put greenlets in the place of threads, if any."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return "gevent"
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def is_of_another_greenlet(loop: object) -> bool:
    """Whether an event loop that runs in this thread does so in another greenlet than this."""
    if "gevent.monkey" not in sys.modules:
        return False
    return getattr(loop, "_thread_id", None) not in (None, threading.get_ident())


class NativeThread(threading.Thread):
    """A thread of the operating system where gevent has put greenlets in their place."""

    _has_begun = _has_ended = False

    def start(self) -> None:
        """Let it begin."""
        start = sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")
        start(self._work, ())
        self._has_begun = True

    def _work(self) -> None:
        try:
            self.run()
        finally:
            self._has_ended = True

    def is_alive(self) -> bool:
        """Whether it has begun, and not ended."""
        return self._has_begun and not self._has_ended

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, and let other greenlets go on meanwhile.

        Args:
            timeout: how many seconds at most; None for as long as it takes.
        """
        deadline = math.inf if timeout is None else monotonic() + timeout
        while self.is_alive() and monotonic() < deadline:
            time.sleep(0.001)
