"""How a database of SQLite is opened so that it carries an outbox."""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event


def open_database(file: Path) -> Engine:
    """Return an engine whose transactions write; with the option `reads=True`, they only read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{file}")
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
    connection.execute("PRAGMA synchronous = FULL")  # what is committed survives a power cut
    connection.execute("PRAGMA busy_timeout = 10000")  # in milliseconds
    connection.isolation_level = None  # the driver begins no transaction by itself


def _begin(connection: Connection) -> None:
    # What has read first may not write any more after somebody else has written.
    mode = "DEFERRED" if connection.get_execution_options().get("reads") else "IMMEDIATE"
    connection.exec_driver_sql(f"BEGIN {mode}")
