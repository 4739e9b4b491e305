"""Outboxes for tests."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateSchema, DropSchema

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Order", "emit", "keyed_outbox", "lines_of", "postgres_url", "sqlite_engine", "wait_for"]


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


def postgres_url() -> URL:
    """Return the URL of PostgreSQL by psycopg, or skip the test if no server is there.

    The environment variable `POSTGRES_DSN` says where it is.
    """
    pytest.importorskip("psycopg")
    given = os.environ.get("POSTGRES_DSN", "postgresql://postgres@127.0.0.1:5432/test")
    url = make_url(given).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    try:
        engine.connect().close()
    except SQLAlchemyError as error:
        pytest.skip(f"needs PostgreSQL, and POSTGRES_DSN finds none: {error}")
    finally:
        engine.dispose()
    return url


@contextmanager
def postgresql_schema() -> Iterator[Engine]:
    """Yield an engine of PostgreSQL for a schema of its own, which is removed; or skip the test."""
    url, schema = postgres_url(), f"madcrow_events_{uuid4().hex}"
    # Nobody pulls the plug, and no test waits for a lock that it holds itself.
    options = f"-c search_path={schema} -c synchronous_commit=off -c lock_timeout=10s"
    engine = create_engine(url, connect_args={"options": options})
    try:
        with engine.begin() as connection:
            connection.execute(CreateSchema(schema))
        yield engine
        with engine.begin() as connection:
            connection.execute(DropSchema(schema, cascade=True))
    finally:
        engine.dispose()


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something is true; fail if it does not become so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.01)
