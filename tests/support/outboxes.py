"""Outboxes for tests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.outbox import Outbox

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Order", "emit", "keyed_outbox", "lines_of", "sqlite_engine"]


class Order(BaseEventContext):
    number: int
    customer: str = "nobody"


def keyed_outbox(**options: Any) -> Outbox:
    """Return an outbox whose event `order` is ordered by the customer."""
    signals = SignalRegistry()
    signals.signal("order", context=Order, key="customer")
    return Outbox("/shop", signals=signals, **options)


def sqlite_engine(folder: Path, **options: Any) -> Engine:
    """Return an engine for a file, which survives the process, but not the machine."""
    engine = create_engine(f"sqlite:///{folder / 'events.db'}", **options)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")

    return engine


def emit(outbox: Outbox, engine: Engine, *contexts: BaseEventContext) -> list[str]:
    """Emit events in one transaction; return their ids."""
    with Session(engine) as session:
        emissions = [outbox.emit(session, it) for it in contexts]
        session.commit()
    return [str(it.id) for it in emissions]


def lines_of(caplog: Any, level: int = logging.WARNING) -> list[str]:
    """Return the lines of the package's log from a level on."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "madcrow_events" and record.levelno >= level
    ]
