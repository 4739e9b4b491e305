"""What the exit of the interpreter waits for: handlers that are pending still."""

from __future__ import annotations

import atexit
import logging
import sys
from typing import TYPE_CHECKING

from madcrow_events._clock import monotonic
from madcrow_events._logs import log

if TYPE_CHECKING:
    from madcrow_events._background.backlog import Backlog

__all__ = ["EXIT_SECONDS", "forget", "is_over", "wait_for"]

EXIT_SECONDS = 5.0
"""How long the exit waits at most."""

_waited_for: dict[int, Backlog] = {}
"""All that may have pending work."""

_over: list[bool] = []
"""Holds something from the moment on in which the exit waits no more."""


def is_over() -> bool:
    """Whether the exit has waited, so that nobody else will do what is left to do now."""
    return bool(_over)


def wait_for(backlog: Backlog) -> None:
    """Let the exit wait until nothing of `backlog` is pending, `EXIT_SECONDS` at most."""
    if id(backlog) in _waited_for:
        return
    _waited_for[id(backlog)] = backlog
    # The children that multiprocessing forks do not run what is registered with atexit.
    parent_process = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    if parent_process is not None and parent_process() is not None:
        from multiprocessing.util import Finalize  # only where it is in use

        Finalize(None, _wait, exitpriority=100)


def forget(backlog: Backlog) -> None:
    """Let the exit not wait for it any more."""
    _waited_for.pop(id(backlog), None)


def _wait() -> None:
    """Wait for pending work, and report what is left of it."""
    if _over:
        return
    try:
        _wait_until(monotonic() + EXIT_SECONDS)
    except KeyboardInterrupt:  # the user has waited enough
        pass
    finally:
        # Before counting, so that what is emitted from now on is done by its emitter.
        _over.append(True)
        left = sum(len(backlog.jobs) for backlog in list(_waited_for.values()))
        if left:
            log(
                logging.WARNING,
                "calls of handlers that were pending at exit and are lost: %d",
                left,
            )


def _wait_until(deadline: float) -> None:
    """Wait until nothing is pending that can still end, or the clock shows `deadline`."""
    flushed: set[int] = set()
    while True:
        backlogs = list(_waited_for.values())
        for backlog in backlogs:
            if id(backlog) not in flushed:
                flushed.add(id(backlog))
                backlog.batches.flush_now()
        for backlog in backlogs:
            backlog.changed.wait(backlog.is_hopeless, max(0, deadline - monotonic()))
        # Again, for one may have begun work of another that had none.
        if monotonic() >= deadline or all(
            backlog.is_hopeless() for backlog in list(_waited_for.values())
        ):
            break


# Now, and not with the first work, so that it runs after the application's own callbacks, and
# waits for what they emit.
atexit.register(_wait)
