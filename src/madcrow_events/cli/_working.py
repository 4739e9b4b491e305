"""Handling what is due, and carrying what goes to other services, as a process of its own."""

from __future__ import annotations

import logging
import os
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from madcrow_events._logs import LOGGER
from madcrow_events._text import close_matches, printable
from madcrow_events.cli._errors import CommandError
from madcrow_events.cli._outboxes import with_database

if TYPE_CHECKING:
    from collections.abc import Mapping

    from madcrow_events.bridge import Bridge
    from madcrow_events.cli._outboxes import FoundOutbox
    from madcrow_events.outbox import Worker

__all__ = ["carry", "work"]

_PATIENCE: Final = 5.0
"""How many seconds to wait for ordinary handlers in the background, at the end."""


def carry(bridge: Bridge, options: Mapping[str, object]) -> None:
    """Let a bridge without an outbox receive until a signal comes.

    Args:
        bridge: the bridge.
        options: the options that only a worker has, by their names.

    Raises:
        CommandError: one of them was given.
        TopologyError: a stream, exchange or queue of the broker does not fit.
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise CommandError(
            f"{given[0]} is for the durable handlers of an outbox, and this bridge has none: leave "
            "it out"
        )
    _log_to_stderr()
    bridge.run()
    bridge.signals.dispatcher.drain(_PATIENCE)


def work(found: FoundOutbox, *, handlers: str | None, concurrency: int | None, once: bool) -> None:
    """Call the durable handlers of an outbox until a signal comes.

    Args:
        found: the outbox, with its worker or its database.
        handlers: a pattern for the ids of the handlers; None for that of the worker.
        concurrency: how many handlers run at the same time; None for what the worker says.
        once: whether to end as soon as nothing is due.

    Raises:
        CommandError: no handler is there, or the database cannot be used.
        OutboxSchemaError: the tables are missing or old.
    """
    worker = _worker_of(found, handlers, concurrency)
    _check(worker)
    _log_to_stderr()
    with_database(worker.engine, lambda: worker.run(once=once))
    if worker.stops > 1:
        # The exit of Python would wait for async handlers that were given up.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    worker.outbox.signals.dispatcher.drain(_PATIENCE)


def _worker_of(found: FoundOutbox, handlers: str | None, concurrency: int | None) -> Worker:
    from madcrow_events.outbox import Worker

    engine = found.needed_engine()
    theirs = found.worker or Worker(found.outbox, engine)
    return Worker(
        found.outbox,
        engine,
        concurrency=concurrency or theirs.concurrency,
        lease=theirs.lease,
        poll=theirs.poll,
        batch=theirs.batch,
        handlers=handlers or theirs.handlers,
    )


def _check(worker: Worker) -> None:
    """See that there is a handler to call.

    Raises:
        CommandError: there is none.
    """
    declared = worker.outbox.handlers
    from madcrow_events.outbox._linking import companions_of

    if not declared and companions_of(worker.outbox):
        return  # which take in what handlers will be declared for
    if not declared:
        raise CommandError(
            "the outbox has no durable handler: let the module that --app names import those with "
            "@outbox.on"
        )
    pattern = worker.handlers or "*"
    if not any(fnmatchcase(it, pattern) for it in declared):
        near = close_matches(pattern, list(declared), 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(declared)}"
        raise CommandError(f"no durable handler matches '{printable(pattern)}': {hint}")


def _log_to_stderr() -> None:
    """Write the log to the standard error, unless the application has said where it goes."""
    if not LOGGER.hasHandlers():
        logging.basicConfig(
            level=logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
