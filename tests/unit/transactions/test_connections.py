"""When a connection lets its participants write, and in which state it goes back to its pool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")
pytest.importorskip("greenlet")

from sqlalchemy import AsyncAdaptedQueuePool, create_engine, event, text
from sqlalchemy.exc import IntegrityError, SAWarning
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from madcrow_events._transactions import Refusal, in_transaction, synchronous
from support.transactions import NOTES, Box, RefusedError, refuse, with_real_transactions

Committed = Callable[..., list[int]]

ORDER = text("INSERT INTO orders VALUES (1)")


class WriteError(Exception):
    pass


def refuse_to_write(box: Box) -> None:
    def fail() -> None:
        raise WriteError

    for rows in box.rows.values():
        rows.before_write = fail


def test_a_connection_writes_in_the_block_of_its_engine(
    engine: Any, box: Box, committed: Committed
) -> None:
    with engine.begin() as connection:
        box.emit(connection, 1)
    assert box.log == [("written", [1]), "committed", 1]
    assert committed() == [1]


def test_savepoints_that_are_left_open_are_written_with_the_rest(
    engine: Any, box: Box, committed: Committed
) -> None:
    with engine.connect() as connection:
        connection.begin()
        box.emit(connection, 1)
        connection.begin_nested()
        box.emit(connection, 2)
        connection.commit()
    assert committed() == [1, 2]


def commit(engine: Any, work: Callable[[Any], None]) -> None:
    with engine.connect() as connection:
        work(connection)
        connection.commit()


def commit_without_block(engine: Any, work: Callable[[Any], None]) -> None:
    connection = engine.connect()
    try:
        work(connection)
        connection.commit()
    finally:
        connection.close()


def commit_transaction(engine: Any, work: Callable[[Any], None]) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        work(connection)
        transaction.commit()


def block(engine: Any, work: Callable[[Any], None]) -> None:
    with engine.connect() as connection, connection.begin():
        work(connection)


def block_of_engine(engine: Any, work: Callable[[Any], None]) -> None:
    with engine.begin() as connection:
        work(connection)


@pytest.mark.parametrize(
    "way", [commit, commit_without_block, commit_transaction, block, block_of_engine]
)
def test_a_write_that_raises_leaves_nothing_open_in_the_pool(
    engine: Any, box: Box, committed: Committed, way: Any
) -> None:
    """The only connection of the pool is used again, and what it commits is its own."""

    def work(connection: Any) -> None:
        connection.execute(ORDER)
        box.emit(connection, 1)
        refuse_to_write(box)

    with pytest.raises(WriteError):
        way(engine, work)
    assert box.log == ["rolled back"]

    with engine.begin() as connection:
        assert connection.scalars(text("SELECT id FROM orders")).all() == []
    assert (committed(), committed("orders")) == ([], [])


@pytest.mark.parametrize("way", ["commit", "block", "engine", "session"])
async def test_an_async_write_that_raises_leaves_nothing_open_in_the_pool(
    database: Path, box: Box, committed: Committed, way: str
) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{database}",
        poolclass=AsyncAdaptedQueuePool,
        pool_size=1,
        max_overflow=0,
    )
    with_real_transactions(engine.sync_engine)

    async def work(unit: Any) -> None:
        await unit.execute(ORDER)
        box.emit(unit, 1)
        refuse_to_write(box)

    with pytest.raises(WriteError):
        if way == "commit":
            async with engine.connect() as connection:
                await work(connection)
                await connection.commit()
        elif way == "block":
            async with engine.connect() as connection, connection.begin():
                await work(connection)
        elif way == "engine":
            async with engine.begin() as connection:
                await work(connection)
        else:
            async with AsyncSession(engine) as session:
                await work(session)
                await session.commit()
    assert box.log == ["rolled back"]

    async with engine.begin() as connection:
        assert (await connection.scalars(text("SELECT id FROM orders"))).all() == []
    await engine.dispose()
    assert (committed(), committed("orders")) == ([], [])


def test_a_listener_of_commit_that_raises_hands_its_transaction_on(
    database: Path, committed: Committed
) -> None:
    """Which is why nobody writes in it here.

    SQLAlchemy takes the transaction for ended, and the next user of the connection commits it. If
    this fails, SQLAlchemy has mended it, and `ConnectionWatcher` may write in its listener.
    """

    def fail(_connection: Any) -> None:
        raise WriteError

    engine = create_engine(f"sqlite:///{database}", pool_size=1, max_overflow=0)
    with engine.connect() as connection:
        event.listen(connection, "commit", fail)
        connection.execute(ORDER)
        with pytest.raises(WriteError):
            connection.commit()
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES (2)"))
    assert (committed("orders"), committed()) == ([1], [2])
    engine.dispose()


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
@pytest.mark.parametrize("is_prepared", [True, False])
def test_two_phases_write_before_the_first(
    two_phases: list[str],
    engine: Any,
    box: Box,
    committed: Committed,
    end: str,
    is_prepared: bool,
) -> None:
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        box.emit(connection, 1)
        if is_prepared:
            transaction.prepare()
            assert box.log == [("written", [1])]
        getattr(transaction, end)()
        assert not two_phases or is_prepared
    assert committed() == ([1] if end == "commit" else [])


def test_what_is_emitted_as_the_rows_are_written_is_written_too(
    engine: Any, box: Box, committed: Committed
) -> None:
    left = [2]

    def emit(connection: Any, *_: Any) -> None:
        if left:
            box.emit(connection, left.pop())

    with engine.begin() as connection:
        box.emit(connection, 1)
        event.listen(connection, "before_cursor_execute", emit)
    assert committed() == [1, 2]
    assert [it for it in box.log if isinstance(it, int)] == [1, 2]


def test_a_late_row_that_cannot_be_written_rolls_the_transaction_back(
    engine: Any, box: Box, committed: Committed
) -> None:
    """In a listener of the commit, which would hand the open transaction on."""

    def emit(connection: Any) -> None:
        box.emit(connection, 7)

    with engine.connect() as connection:
        connection.execute(ORDER)
        connection.execute(NOTES.insert(), {"number": 7})
        emission = box.emit(connection, 1)
        event.listen(connection, "commit", emit)
        with pytest.warns(SAWarning, match="deassociated"), pytest.raises(IntegrityError):
            connection.commit()
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
    assert (committed(), committed("orders"), emission.state) == ([], [], "dropped")


def test_a_transaction_that_has_ended_writes_nothing(engine: Any, box: Box) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        box.emit(connection, 1)
        transaction.rollback()
        with pytest.raises(Exception, match="inactive"):
            transaction.commit()
    assert box.log == ["rolled back"]


def test_a_connection_has_no_transaction_before_its_first_statement(engine: Any) -> None:
    with engine.connect() as connection:
        assert not in_transaction(connection)
        connection.execute(ORDER)
        assert in_transaction(connection)
        connection.commit()
        assert not in_transaction(connection)
    assert not in_transaction(connection)


async def test_what_has_no_transactions_is_refused_in_the_words_of_the_caller(
    database: Path,
) -> None:
    engine = create_engine(f"sqlite:///{database}", isolation_level="AUTOCOMMIT")
    unconnected = create_async_engine(f"sqlite+aiosqlite:///{database}").connect()
    with engine.connect() as connection:
        for given, refusal in [
            (connection, Refusal.AUTOCOMMIT),
            (unconnected, Refusal.NOT_CONNECTED),
            (engine, Refusal.NO_SESSION),
        ]:
            with pytest.raises(RefusedError) as refused:
                synchronous(given, refuse)
            assert refused.value.args == (refusal, type(given))
    engine.dispose()
