"""The databases, and an outbox in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.outbox import Outbox

__all__ = ["DATABASES", "Keyed", "Row", "Store", "Unkeyed", "a_store"]

DATABASES = ("postgresql", "sqlite")


class Unkeyed(BaseEventContext):
    """An event without an order."""

    number: int
    key: str


class Keyed(BaseEventContext):
    """An event whose key keeps its order."""

    number: int
    key: str


class _Mapped(DeclarativeBase):
    """What an application writes."""


class Row(_Mapped):
    """A row of the application, which comes with an event."""

    __tablename__ = "application_row"

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    key: Mapped[str]


class Store:
    """An outbox and the tables of an application.

    Args:
        url: the database.
        schema: the schema of PostgreSQL, or None.
        notify: whether workers elsewhere hear of commits.
    """

    def __init__(self, url: str, schema: str | None, *, notify: bool = False) -> None:
        self.url = url
        self.schema = schema
        signals = SignalRegistry()
        self.unkeyed = signals.signal("unkeyed", context=Unkeyed)
        self.keyed = signals.signal("keyed", context=Keyed, key="key")
        self.outbox = Outbox("/benchmark", signals=signals, schema=schema, notify=notify)

    def engine(self) -> Engine:
        """Return a new engine."""
        if not self.url.startswith("sqlite"):
            path = f"-c search_path={self.schema}"
            return create_engine(self.url, connect_args={"options": path})
        engine = create_engine(self.url, connect_args={"timeout": 60})

        @event.listens_for(engine, "connect")
        def configure(connection: Any, _record: object) -> None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")

        return engine

    def handlers(self, handler: Any, count: int = 1) -> None:
        """Declare some durable handlers of each event."""
        for number in range(count):
            self.outbox.on(self.unkeyed, id=f"unkeyed-{number}")(handler)
            self.outbox.on(self.keyed, id=f"keyed-{number}")(handler)

    def empty(self, engine: Engine) -> None:
        """Make the tables anew."""
        for metadata in (self.outbox.metadata, Row.metadata):
            metadata.drop_all(engine)
            metadata.create_all(engine)


@contextmanager
def a_store(database: str, folder: Path, *, notify: bool = False) -> Iterator[tuple[Store, Engine]]:
    """Yield an empty store and an engine; on PostgreSQL in a schema of its own."""
    if database == "sqlite":
        path = folder / f"{uuid4().hex}.db"
        store = Store(f"sqlite:///{path}", None)
        engine = store.engine()
        store.empty(engine)
        yield store, engine
        engine.dispose()
        return
    given = os.environ.get("POSTGRES_DSN", "postgresql://postgres@127.0.0.1:5432/test")
    url = make_url(given).set(drivername="postgresql+psycopg")
    name = f"benchmark_{uuid4().hex[:12]}"
    store = Store(url.render_as_string(hide_password=False), name, notify=notify)
    engine = store.engine()
    with engine.begin() as connection:
        connection.execute(text(f"create schema {name}"))
    try:
        store.empty(engine)
        yield store, engine
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"drop schema {name} cascade"))
        engine.dispose()
