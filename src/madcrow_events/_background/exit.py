"""Making the exit of the interpreter wait for handlers that are still pending."""

from __future__ import annotations

import atexit
import logging
import sys
from typing import TYPE_CHECKING

from madcrow_events._clock import monotonic
from madcrow_events._logs import log

if TYPE_CHECKING:
    from madcrow_events._background.backlog import Backlog

__all__ = ["EXIT_SECONDS", "forget", "over", "wait_for"]

EXIT_SECONDS = 5.0
"""How long the exit waits at most."""

_waited_for: dict[int, Backlog] = {}
"""The backlogs that may have pending work, by their ids."""

over: list[bool] = []
"""Truthy once the exit has waited: no thread begins with work any more.

A list, so that importers read one object.
"""


def wait_for(backlog: Backlog) -> None:
    """Make the exit wait until nothing in a backlog is pending, `EXIT_SECONDS` at most."""
    _waited_for[id(backlog)] = backlog
    # Children that multiprocessing forks do not run the functions registered with atexit.
    parent_process = getattr(sys.modules.get("multiprocessing.process"), "parent_process", None)
    if parent_process is not None and parent_process() is not None:
        from multiprocessing.util import Finalize  # late, because few programs use it

        Finalize(None, _wait, exitpriority=100)


def forget(backlog: Backlog) -> None:
    """Do not make the exit wait for a backlog any more."""
    _waited_for.pop(id(backlog), None)


def _wait() -> None:
    """Wait for pending work; log how many calls are left, and lost."""
    if over:
        return
    try:
        _wait_until(monotonic() + EXIT_SECONDS)
    except KeyboardInterrupt:  # the user has waited enough
        pass
    finally:
        # Before counting: from now on each emitter itself calls the handlers that run later.
        over.append(True)
        left = sum(
            len(backlog.jobs) + len(backlog.deliveries) for backlog in list(_waited_for.values())
        )
        if left:
            log(
                logging.WARNING,
                "calls of handlers that were pending at exit and are lost: %d",
                left,
            )


def _wait_until(deadline: float) -> None:
    """Wait until no pending job can still end, or the clock shows `deadline`."""
    flushed: set[int] = set()
    while True:
        backlogs = list(_waited_for.values())
        for backlog in backlogs:
            if id(backlog) not in flushed:
                flushed.add(id(backlog))
                backlog.batches.flush_now()
        for backlog in backlogs:
            backlog.changed.wait(backlog.is_hopeless, max(0, deadline - monotonic()))
        # Once more: the work of one backlog may have emitted through another one.
        if monotonic() >= deadline or all(
            backlog.is_hopeless() for backlog in list(_waited_for.values())
        ):
            break


# Registered at import, and not with the first job, so that it runs after the application's own
# callbacks, and waits for the handlers of the events that they emit.
atexit.register(_wait)
