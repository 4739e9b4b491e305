"""The tables as Alembic sees them: what `create_all` has made lacks nothing."""

from __future__ import annotations

from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import MetaData, create_engine, text
from sqlalchemy.schema import CreateSchema, DropSchema

from madcrow_events import SignalRegistry
from madcrow_events.outbox import Outbox
from support.outboxes import postgres_url

pytest.importorskip("alembic")

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext


def outbox_with(**options):
    return Outbox("/shop", signals=SignalRegistry(), **options)


def differences(connection, outbox):
    """Return what Alembic would migrate, beside another metadata that the application has."""
    options = {
        "compare_type": True,
        "compare_server_default": True,
        "include_schemas": True,
        "include_name": lambda name, kind, _: (
            kind != "schema" or name == outbox.metadata.schema or name is None
        ),
        "include_object": lambda thing, name, kind, *_: (
            kind != "table" or name in {it.name for it in outbox.metadata.tables.values()}
        ),
    }
    context = MigrationContext.configure(connection, opts=options)
    return compare_metadata(context, outbox.metadata)


@contextmanager
def a_schema():
    """Yield an engine of PostgreSQL and the name of a schema, which is dropped."""
    engine = create_engine(postgres_url())
    name = f"migrations_{uuid4().hex[:12]}"
    with engine.begin() as connection:
        connection.execute(CreateSchema(name))
    try:
        yield engine, name
    finally:
        with engine.begin() as connection:
            connection.execute(DropSchema(name, cascade=True))
        engine.dispose()


def test_sqlite_lacks_nothing(tmp_path):
    """Neither a type, nor a default, nor an index."""
    engine, outbox = create_engine(f"sqlite:///{tmp_path / 'events.db'}"), outbox_with()
    with engine.connect() as connection:
        assert len(differences(connection, outbox)) > 3
        outbox.metadata.create_all(connection)
        assert differences(connection, outbox) == []
    engine.dispose()


@pytest.mark.parametrize("table_prefix", ["madcrow_", "other_"])
def test_postgresql_lacks_nothing(table_prefix):
    """In a schema of its own, with any prefix."""
    with a_schema() as (engine, schema):
        outbox = outbox_with(schema=schema, table_prefix=table_prefix)
        with engine.connect() as connection:
            assert len(differences(connection, outbox)) > 3
            outbox.metadata.create_all(connection)
            assert differences(connection, outbox) == []


def test_postgresql_lacks_nothing_in_the_default_schema():
    """That of the connection's search path."""
    with a_schema() as (engine, schema), engine.connect() as connection:
        connection.execute(text(f'SET search_path TO "{schema}"'))
        connection.dialect.default_schema_name = schema
        outbox = outbox_with()
        outbox.metadata.create_all(connection)
        assert differences(connection, outbox) == []


def test_the_tables_may_be_a_part_of_the_metadata_of_the_application():
    """For those whose migrations know one metadata only."""
    outbox, metadata = outbox_with(), MetaData()
    for table in outbox.metadata.sorted_tables:
        table.to_metadata(metadata)
    assert metadata.tables.keys() == outbox.metadata.tables.keys()
