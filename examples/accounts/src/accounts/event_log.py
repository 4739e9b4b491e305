"""A log of the events that happen, for a page that shows them as they do.

An observer notes emissions and calls of handlers. What it noted is written in batches to a SQLite
file, which is what processes that serve one application can share, and what outlives a restart.
Nothing of an event's payload is in it but the fields that are marked as `SHOWN`.
"""

import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import Context
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from accounts.events import SHOWN
from madcrow_events import Batch, Emission, EventDispatcher, SignalRegistry

POLL_SECONDS = 0.2
STREAM_SECONDS = 1.0
"""How long a page is followed by one response. Then it asks again, so that a server that ends never
waits for a page, and one who has signed out sees nothing more."""

RETRY_MILLISECONDS = 250
KEPT = 2000  # entries
SHOWN_AT_FIRST = 500  # entries
LONGEST_VALUE = 200  # characters


class EventLog:
    """An observer that writes what it sees; add it to a dispatcher.

    Args:
        folder: where the file is; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "events.db"
        with closing(self._connect()) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS entries "
                "(position INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL)"
            )
        # One of its own: what it notes is no event of the application, and rather lost than waited
        # for. It brings the batches, the thread, and the end of the program.
        self._dispatcher = EventDispatcher(
            SignalRegistry(), overflow="drop", queue_size=10_000, max_workers=1
        )
        self._noted = self._dispatcher.signals.signal("noted")
        self._dispatcher.signals.subscribe(
            self._noted, self._write, batch=Batch(max_size=1000, max_wait=0.1)
        )
        self._called: dict[int, list[Any]] = {}

    @contextmanager
    def emission(self, emission: Emission[Any]) -> Iterator[None]:
        """Note an emission when it has ended."""
        called = self._called[id(emission)] = []
        began_at, began = time.time(), time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            del self._called[id(emission)]
            for handler, error in emission.failures:
                if handler not in called:  # its `when` has raised
                    self._note_call(emission, handler, 0.0, error)
            self._note(
                kind="event",
                id=str(emission.id),
                cause=str(emission.causation_id) if emission.causation_id else None,
                root=str(emission.correlation_id),
                event=emission.event,
                at=began_at,
                took=took,
                handlers=len(emission.results) + len(emission.failures) + emission.pending,
                process=os.getpid(),
                fields=shown_fields(emission),
            )

    @contextmanager
    def handling(self, emission: Emission[Any], handler: Any) -> Iterator[None]:
        """Note a call of a handler when it has ended."""
        self._called.get(id(emission), []).append(handler)
        began = time.perf_counter()
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            self._note_call(emission, handler, time.perf_counter() - began, failure)

    def _note_call(
        self, emission: Emission[Any], handler: Any, took: float, failure: BaseException | None
    ) -> None:
        name = getattr(handler, "__qualname__", type(handler).__qualname__)
        self._note(
            kind="call",
            of=str(emission.id),
            event=emission.event,
            handler=f"{handler.__module__}.{name}",
            took=took,
            failure=None if failure is None else type(failure).__name__,
        )

    def _note(self, **entry: Any) -> None:
        # In an empty context, so that it neither counts as nested in what is observed, nor has it
        # as its cause.
        Context().run(self._dispatcher.emit, self._noted, text=json.dumps(entry))

    def _write(self, noted: list[Mapping[str, str]]) -> None:
        with closing(self._connect()) as database, database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO entries (text) VALUES (?)", [(entry["text"],) for entry in noted]
            )
            database.execute(
                "DELETE FROM entries WHERE position <= (SELECT max(position) FROM entries) - ?",
                (KEPT,),
            )

    def follow(self, last_event_id: str | None = None) -> "Follower":
        """Return what reads the entries for one page.

        Args:
            last_event_id: what the page has seen, as its browser says; None for a new page.
        """
        return Follower(self, last_event_id)

    def after(self, position: int) -> list[tuple[int, str]]:
        """Return the entries after a position, the oldest first, each with its own position."""
        with closing(self._connect()) as database:
            return database.execute(
                "SELECT position, text FROM entries WHERE position > ? ORDER BY position",
                (position,),
            ).fetchall()

    def newest(self) -> int:
        """Return the position of the newest entry; 0 if there is none."""
        with closing(self._connect()) as database:
            (position,) = database.execute("SELECT max(position) FROM entries").fetchone()
            return position or 0

    def close(self) -> None:
        """Write what waits, and note nothing more."""
        self._dispatcher.close(timeout=2)

    def _connect(self) -> sqlite3.Connection:
        # For each use anew, which takes a fraction of a millisecond: none is shared by threads,
        # and none is inherited by a process that is forked.
        return sqlite3.connect(self._file, timeout=5, isolation_level=None)


class Follower:
    """Reads for one page, as server-sent events, what is new in the log.

    Args:
        log: what it reads.
        last_event_id: what the page has seen; None for a new page.
    """

    def __init__(self, log: EventLog, last_event_id: str | None) -> None:
        self._log = log
        newest = log.newest()
        self._position = newest - SHOWN_AT_FIRST
        # A page may have seen more than there is, in a log that was thrown away.
        if last_event_id is not None and re.fullmatch("[0-9]{1,18}", last_event_id):
            self._position = max(self._position, min(int(last_event_id), newest))
        self._head = f"retry: {RETRY_MILLISECONDS}\n\n"
        self._ends = time.monotonic() + STREAM_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether the response is to end, and the page to ask again."""
        return time.monotonic() >= self._ends

    def read(self) -> str:
        """Return what has come since the last time; may be empty."""
        text, self._head = self._head, ""
        for position, entry in self._log.after(self._position):
            text += f"id: {position}\ndata: {entry}\n\n"
            self._position = position
        return text


def shown_fields(emission: Emission[Any]) -> dict[str, str]:
    """Return the fields of an event that are marked as `SHOWN`, as text of limited length."""
    context = emission.context
    if isinstance(context, BaseModel):
        values: Mapping[str, Any] = vars(context)
        model: type[BaseModel] | None = type(context)
    else:
        values, model = context, emission.signal.context_model
    names = () if model is None else _shown_names(model)
    return {name: str(values[name])[:LONGEST_VALUE] for name in names if name in values}


@lru_cache(maxsize=1000)
def _shown_names(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if SHOWN in field.metadata)
