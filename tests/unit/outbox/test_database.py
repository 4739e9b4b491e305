"""The database as a worker reaches it."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import StaticPool

from madcrow_events.outbox import OutboxError
from madcrow_events.outbox._database import Database, SharedDatabase, access_to, synchronous_engine
from support.outboxes import keyed_outbox
from support.transactions import with_real_transactions


def count(engine):
    with engine.connect() as connection:
        return connection.execute(text("SELECT count(*) FROM notes")).scalar_one()


def insert_and_fail(connection):
    connection.execute(text("INSERT INTO notes VALUES (1)"))
    raise LookupError


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_step_that_fails_is_rolled_back(outbox_engine, listens, is_async):
    """Also if a listener of the application's engine begins the transactions of SQLite."""
    if listens:
        with_real_transactions(outbox_engine)
    with outbox_engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (number INTEGER)"))
    engine = outbox_engine
    if is_async:
        engine = create_async_engine(f"sqlite+aiosqlite:///{outbox_engine.url.database}")
        if listens:
            with_real_transactions(engine.sync_engine)
    database = Database(engine)
    with pytest.raises(LookupError):
        database.transaction(insert_and_fail)
    database.close()
    database.close()
    assert count(outbox_engine) == 0


def test_a_driver_that_has_begun_by_itself_is_left_alone(outbox_engine):
    """As `autocommit=False` lets the one of Python 3.12 do."""

    @event.listens_for(outbox_engine, "checkout")
    def begin(connection, *_):
        connection.execute("BEGIN")

    with outbox_engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (number INTEGER)"))
    database = Database(outbox_engine)
    with pytest.raises(LookupError):
        database.transaction(insert_and_fail)
    database.close()
    assert count(outbox_engine) == 0


def test_a_worker_compiles_no_statement_and_reads_what_is_committed(postgresql_engine):
    """Its connections have another isolation than those of the application."""
    strict = postgresql_engine.execution_options(isolation_level="SERIALIZABLE")
    database = Database(strict)
    settings = ("jit", "transaction_isolation")
    shown = [
        database.transaction(lambda it: it.execute(text(f"SHOW {name}")).scalar_one())
        for name in settings
    ]
    database.close()
    assert shown == ["off", "read committed"]


def test_no_setting_of_a_connection_makes_commits_unsafe(postgresql_engine):
    """PgBouncer may give the connection to the application next; transactions have the setting."""
    with postgresql_engine.connect() as connection:
        connection.execute(text("SET synchronous_commit = on"))
        connection.commit()
        statements = keyed_outbox()._statements_for(postgresql_engine)
        statements.relax(connection)
        shown = [connection.execute(text("SHOW synchronous_commit")).scalar_one()]
        connection.commit()
        shown.append(connection.execute(text("SHOW synchronous_commit")).scalar_one())
    database = Database(postgresql_engine, is_lasting=False)
    settings = "select setting = reset_val from pg_settings where name = 'synchronous_commit'"
    assert database.transaction(lambda it: it.execute(text(settings)).scalar_one())
    database.close()
    assert shown == ["off", "on"]


async def test_a_loop_that_runs_is_not_held_up(outbox_engine):
    """With what to write instead."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{outbox_engine.url.database}")
    inspection = keyed_outbox().inspect(engine)
    with pytest.raises(RuntimeError, match=r"await asyncio\.to_thread\(inspection\.status\)"):
        inspection.dead()
    await engine.dispose()


@pytest.mark.parametrize("engine", [None, "sqlite:///x.db", create_engine])
def test_what_is_no_engine_is_refused(engine):
    """With what to pass instead."""
    with pytest.raises(TypeError, match="pass what create_engine or create_async_engine returned"):
        synchronous_engine(engine)


def test_a_database_in_memory_has_one_connection():
    """A worker refuses it, and what needs no connection of its own shares it."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with pytest.raises(OutboxError, match="use a file, as in create_engine"):
        Database(engine)
    access = access_to(engine)
    assert isinstance(access, SharedDatabase)
    assert access.transaction(lambda connection: connection.execute(text("SELECT 2")).scalar()) == 2
    access.close()
    engine.dispose()
