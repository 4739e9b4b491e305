"""The package's own event loop, for async handlers that run later and have no other loop."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from madcrow_events._background.threads import start_thread
from madcrow_events._interrupts import suppress_but_interrupts
from madcrow_events._logs import log
from madcrow_events._other_loops import NativeThread, greenlets
from madcrow_events._text import type_name
from madcrow_events.emissions._lazy_asyncio import load_async_loop, new_event_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["BackgroundLoop"]


class BackgroundLoop:
    """An event loop in a thread of its own; both are made when they are first needed.

    Attributes:
        loops: the loop, once it runs.
    """

    __slots__ = ("is_stopping", "loops", "thread")

    def __init__(self) -> None:
        self.loops: list[AbstractEventLoop] = []
        self.thread: threading.Thread | None = None
        self.is_stopping = False

    def get(self) -> AbstractEventLoop | None:
        """Return the loop; None if it cannot run any more."""
        if self.loops:
            return self.loops[0]
        loop = new_event_loop()
        if self.loops:  # another thread was faster
            loop.close()
            return self.loops[0]
        started: list[threading.Thread] = []
        try:
            # An asyncio loop in a greenlet would seem to run in all greenlets of its thread.
            make = NativeThread if greenlets() else threading.Thread
            thread = start_thread(
                _serve, "madcrow-events-loop", [None], started, self, loop, make=make
            )
            if thread is not None:
                self.loops.append(loop)  # only now: in a loop that does not run, work is stuck
        finally:
            if loop not in self.loops:
                _stop_soon(loop, is_running=bool(started))
        if thread is None:
            return self.loops[0] if self.loops else None
        if self.loops[0] is not loop:  # another thread was faster
            self.loops.remove(loop)
            _stop_soon(loop, is_running=True)
        else:
            self.thread = thread
        return self.loops[0]

    def stop(self) -> None:
        """Let the loop and its thread end."""
        self.is_stopping = True
        for loop in self.loops:
            with suppress_but_interrupts(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(loop.stop)


def _stop_soon(loop: AbstractEventLoop, *, is_running: bool) -> None:
    """Stop or close a loop that nobody will use."""
    if is_running:
        loop.call_soon_threadsafe(loop.stop)
    else:
        loop.close()


def _serve(background_loop: BackgroundLoop, loop: AbstractEventLoop) -> None:
    """Run a background loop until it is stopped; the target of its thread."""
    load_async_loop().asyncio.set_event_loop(loop)
    is_wanted = True
    while is_wanted:
        try:
            loop.run_forever()
        except BaseException as error:  # an exit of a task that a handler started
            # Without the traceback, whose text is the author's.
            log(
                logging.ERROR, "a task in the background loop ended with %s", type_name(type(error))
            )
        is_stopping = background_loop.is_stopping or loop.is_closed()
        is_wanted = loop in background_loop.loops and not is_stopping
    try:
        asyncio = load_async_loop().asyncio
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
