"""Finding out whether another library runs instead of asyncio, or replaces native threads.

Nothing is imported here: a library that has not been loaded does not run.
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
"""The modules of such libraries; while none is loaded, asyncio and native threads are used."""


def _in_trio() -> bool:
    lowlevel: Any = sys.modules.get("trio.lowlevel")
    in_trio_task = getattr(lowlevel, "in_trio_task", None)
    if in_trio_task is not None:  # since trio 0.25; raises no exception
        if not in_trio_task():
            return False
    else:
        current_task = getattr(lowlevel, "current_task", None)
        if current_task is None:
            return False
        try:
            current_task()
        except RuntimeError as error:
            if is_interrupt(error):
                raise
            return False
    # An asyncio loop may run in a trio task; the code then belongs to a task of asyncio.
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
    """Return the async library, other than asyncio, whose task this code runs in, or `""`."""
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
        "runs, or by emit() in a thread, or subscribe plain handlers only",
        event=event,
        library=library,
    )


def check_for_awaiting(event: str) -> None:
    """Refuse to await handlers where asyncio does not run.

    Raises:
        EventLoopError: asyncio does not run here.
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
    """Return the library that has replaced threads by greenlets, or `""`."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        return "gevent"
    patcher: Any = sys.modules.get("eventlet.patcher")
    if patcher is not None and patcher.is_monkey_patched("thread"):
        return "eventlet"
    return ""


def is_of_another_greenlet(loop: object) -> bool:
    """Whether an event loop that runs in this thread runs in another greenlet."""
    if "gevent.monkey" not in sys.modules:
        return False
    return getattr(loop, "_thread_id", None) not in (None, threading.get_ident())


class NativeThread(threading.Thread):
    """A thread of the operating system, for programs whose threads are gevent's greenlets."""

    _has_begun = _has_ended = False

    def start(self) -> None:
        """Start the thread."""
        start = sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")
        start(self._work, ())
        self._has_begun = True

    def _work(self) -> None:
        try:
            self.run()
        finally:
            self._has_ended = True

    def is_alive(self) -> bool:
        """Whether the thread has begun, and not ended."""
        return self._has_begun and not self._has_ended

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended; other greenlets go on meanwhile.

        Args:
            timeout: how many seconds at most; None for as long as it takes.
        """
        deadline = math.inf if timeout is None else monotonic() + timeout
        while self.is_alive() and monotonic() < deadline:
            time.sleep(0.001)
