"""When a session lets its participants write, and on which connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")
pytest.importorskip("greenlet")

from sqlalchemy import Column, Integer, create_engine, event, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError, OperationalError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm import declarative_base as new_base

from madcrow_events._transactions import Refusal, in_transaction, watcher_of
from support.transactions import NOTES, Box, RefusedError, with_real_transactions

Committed = Callable[..., list[int]]


class Order(new_base()):  # type: ignore[misc]
    __tablename__ = "orders"
    id = Column(Integer, primary_key=True)


@pytest.fixture
def session(engine: Any) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


def test_a_session_without_any_statement_writes(
    session: Session, box: Box, committed: Committed
) -> None:
    box.emit(session, 1)
    session.commit()
    assert committed() == [1]


def test_a_session_that_does_not_begin_by_itself_has_to_be_begun(engine: Any, box: Box) -> None:
    with Session(engine, autobegin=False) as session:
        assert not in_transaction(session)
        assert not session.in_transaction()
        with session.begin():
            assert in_transaction(session)


@pytest.mark.parametrize("form", ["begin", "sessionmaker", "savepoint", "transaction"])
def test_blocks_write_at_their_end(engine: Any, box: Box, committed: Committed, form: str) -> None:
    if form == "sessionmaker":
        with sessionmaker(engine).begin() as session:
            box.emit(session, 1)
    elif form == "begin":
        with Session(engine) as session, session.begin():
            box.emit(session, 1)
    elif form == "savepoint":
        with Session(engine) as session:
            session.begin_nested()
            box.emit(session, 1)
            session.begin_nested()
            session.commit()  # which releases both
    else:
        with Session(engine) as session, session.begin() as transaction:
            session.begin_nested()
            session.begin_nested()
            box.emit(session, 1)
            transaction.commit()
    assert committed() == [1]
    assert box.log == [("written", [1]), "committed", 1]


def test_a_savepoint_that_is_released_writes_nothing(session: Session, box: Box) -> None:
    """Not even together with those that were left open in it."""
    session.begin_nested().commit()
    outer = session.begin_nested()
    session.begin_nested()
    box.emit(session, 1)
    outer.commit()
    assert box.log == []
    session.commit()
    assert box.log == [("written", [1]), "committed", 1]


def test_a_flush_that_fails_in_the_commit_writes_nothing(
    session: Session, box: Box, committed: Committed
) -> None:
    session.execute(text("INSERT INTO orders VALUES (1)"))
    session.add(Order(id=1))
    emission = box.emit(session, 1)
    with pytest.raises(IntegrityError):
        session.commit()
    session.rollback()
    assert (box.log, emission.state, committed()) == (["rolled back"], "dropped", [])


def test_what_mapped_objects_emit_as_they_are_flushed_is_written_with_the_rest(
    session: Session, box: Box, committed: Committed
) -> None:
    @event.listens_for(Order, "after_insert")
    def placed(_mapper: Any, _connection: Any, order: Order) -> None:
        box.emit(session, order.id)

    try:
        session.add(Order(id=2))
        box.emit(session, 1)
        session.commit()
    finally:
        event.remove(Order, "after_insert", placed)
    assert box.log == [("written", [1, 2]), "committed", 1, 2]
    assert committed() == [1, 2]


@pytest.mark.parametrize("has_emitted", [True, False])
@pytest.mark.parametrize("moment", ["before_commit", "after_flush", "before_flush"])
@pytest.mark.parametrize("level", ["session", "class", "savepoint"])
def test_what_is_emitted_when_the_commit_has_begun_is_written_too(
    session: Session, box: Box, committed: Committed, moment: str, level: str, has_emitted: bool
) -> None:
    """Even if nothing had been emitted before."""
    left = [2]

    def emit(*_: Any) -> None:
        if left:
            box.emit(session, left.pop())

    session.add(Order(id=1))
    if has_emitted:
        box.emit(session, 1)
    if level == "savepoint":
        session.begin_nested()
        session.add(Order(id=2))
    target = Session if level == "class" else session
    event.listen(target, moment, emit)
    try:
        if level == "savepoint":  # which a commit of the session itself would release before
            session.get_transaction().commit()
        else:
            session.commit()
    finally:
        event.remove(target, moment, emit)
    assert committed() == ([1, 2] if has_emitted else [2])
    assert [it for it in box.log if isinstance(it, int)] == committed()

    box.emit(session, 3)
    session.commit()
    assert committed()[-1] == 3


def test_who_joins_between_the_write_and_the_commit_knows_it(session: Session, box: Box) -> None:
    seen: list[bool] = []

    def look(*_: Any) -> None:
        seen.append(watcher_of(session).writes_at_once)

    box.emit(session, 1)
    event.listen(session, "before_commit", look)
    event.listen(session, "after_commit", look)
    look()
    session.commit()
    look()
    assert seen == [False, True, True, False]


def test_a_late_row_that_cannot_be_written_makes_the_commit_fail(
    session: Session, box: Box, committed: Committed
) -> None:
    """Even if the emitter swallows the error, as the isolation of a handler does."""

    def emit(*_: Any) -> None:
        with pytest.raises(IntegrityError):
            box.emit(session, 1)

    session.execute(text("INSERT INTO orders VALUES (1)"))
    session.execute(text("INSERT INTO notes VALUES (1)"))
    emission = box.emit(session, 2)
    event.listen(session, "before_commit", emit)
    with pytest.raises(InvalidRequestError, match="inactive"):
        session.commit()
    session.close()
    assert (committed(), committed("orders"), emission.state) == ([], [], "dropped")
    assert box.log == [("written", [2]), "rolled back"]


def test_late_rows_that_fail_before_they_reach_the_database_make_the_commit_fail_too(
    session: Session, box: Box, committed: Committed
) -> None:
    def fail() -> None:
        raise LookupError

    def emit(*_: Any) -> None:
        (rows,) = box.rows.values()
        rows.before_write = fail
        for number in (2, 3):
            with pytest.raises(LookupError):
                box.emit(session, number)

    box.emit(session, 1)
    event.listen(session, "before_commit", emit)
    with pytest.raises(InvalidRequestError, match="inactive"):
        session.commit()
    session.close()
    assert (committed(), box.log) == ([], [("written", [1]), "rolled back"])


@pytest.mark.parametrize("has_emitted", [True, False])
def test_an_emission_between_the_commit_and_its_end_is_refused(
    session: Session, box: Box, committed: Committed, has_emitted: bool
) -> None:
    """It would be too late for the one transaction, and too early for the next."""

    def emit(session: Session) -> None:
        with pytest.raises(InvalidRequestError, match="committed"):
            box.emit(session, 2)

    session.begin()
    if has_emitted:
        box.emit(session, 1)
    event.listen(Session, "after_commit", emit)
    try:
        session.commit()
    finally:
        event.remove(Session, "after_commit", emit)
    assert committed() == ([1] if has_emitted else [])
    box.emit(session, 3)
    session.commit()
    assert committed()[-1] == 3


def test_two_sessions_keep_their_rows_apart(database: Path, box: Box, committed: Committed) -> None:
    engine = create_engine(f"sqlite:///{database}")
    with Session(engine) as one, Session(engine) as other:
        box.emit(one, 1)
        box.emit(other, 2)
        box.emit(one, 3)
        other.rollback()
        box.emit(other, 4)
        one.commit()
        assert committed() == [1, 3]
        other.commit()
    assert committed() == [1, 3, 4]
    engine.dispose()


def test_sessions_of_many_threads_keep_their_rows_apart(
    database: Path, box: Box, committed: Committed
) -> None:
    engine = create_engine(f"sqlite:///{database}", connect_args={"timeout": 60})

    def work(first: int) -> None:
        with Session(engine) as session:
            for number in range(first, first + 10):
                box.emit(session, number)
                (session.rollback if number % 2 else session.commit)()

    threads = [threading.Thread(target=work, args=[10 * number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert committed() == [*range(0, 80, 2)]
    assert sorted(it for it in box.log if isinstance(it, int)) == committed()
    engine.dispose()


# The transaction of another one


@pytest.mark.parametrize(
    "mode", ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
)
@pytest.mark.parametrize("is_kept", [True, False])
def test_a_session_in_the_transaction_of_a_test_writes_at_its_own_commit(
    engine: Any, box: Box, committed: Committed, mode: Any, is_kept: bool
) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            box.emit(session, 1)
            session.commit()
            assert box.log == [("written", [1]), "committed", 1]
        found = connection.scalars(NOTES.select()).all()
        if transaction.is_active:
            (transaction.commit if is_kept else transaction.rollback)()
            assert found == [1]
    assert committed() == ([1] if is_kept or mode == "control_fully" else [])


def test_a_session_and_its_connection_each_write_at_their_own_commit(
    engine: Any, box: Box, committed: Committed
) -> None:
    with engine.connect() as connection, connection.begin():
        box.emit(connection, 1)
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            box.emit(session, 2)
            session.rollback()
            box.emit(session, 3)
            session.commit()
            assert box.log == ["rolled back", ("written", [3]), "committed", 3]
    assert committed() == [1, 3]


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("is_prepared", [True, False])
def test_two_phases_write_before_the_first(
    two_phases: list[Any],
    engine: Any,
    box: Box,
    committed: Committed,
    end: str,
    is_prepared: bool,
) -> None:
    with Session(engine, twophase=True) as session:
        session.add(Order(id=1))
        box.emit(session, 1)
        if is_prepared:
            session.prepare()
            assert box.log == [("written", [1])]
        getattr(session, end)()
    assert committed() == ([1] if end == "commit" else [])
    assert two_phases == (["prepare"] if is_prepared or end == "commit" else [])


# The connection


@pytest.fixture
def other_engine(tmp_path: Path) -> Iterator[Any]:
    engine = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE notes (number INTEGER PRIMARY KEY)"))
    yield with_real_transactions(engine)
    engine.dispose()


def test_rows_go_where_their_table_is_bound(
    engine: Any, other_engine: Any, box: Box, committed: Committed
) -> None:
    with Session(binds={Order: other_engine, NOTES: engine}) as session:
        box.emit(session, 1)
        session.commit()
    with Session(other_engine, binds={NOTES: engine}) as session:
        box.emit(session, 2)
        session.commit()
    assert committed() == [1, 2]


def test_rows_of_a_table_that_is_not_bound_go_to_the_only_connection(
    engine: Any, box: Box, committed: Committed
) -> None:
    with Session(binds={Order: engine}) as session:
        session.get(Order, 1)
        box.emit(session, 1)
        session.commit()
    assert committed() == [1]


@pytest.mark.parametrize("number_of_engines", [0, 2])
def test_a_session_that_does_not_know_where_to_write_is_refused_by_its_commit(
    engine: Any, other_engine: Any, box: Box, committed: Committed, number_of_engines: int
) -> None:
    class Parcel(new_base()):  # type: ignore[misc]
        __tablename__ = "notes"
        number = Column(Integer, primary_key=True)

    with Session(binds={Order: engine, Parcel: other_engine}) as session:
        if number_of_engines:
            session.add(Order(id=1))
            session.get(Parcel, 1)
        box.emit(session, 1)
        with pytest.raises(RefusedError) as refused:
            session.commit()
        assert refused.value.args == (Refusal.NO_BIND, Session)
        session.rollback()
    assert committed("orders") == []


def test_rows_are_not_written_where_each_statement_is_committed(
    database: Path, box: Box, committed: Committed
) -> None:
    """An engine that a session finds by its tables only is found out by the commit."""
    engine = create_engine(f"sqlite:///{database}", isolation_level="AUTOCOMMIT")
    with Session(binds={NOTES: engine}) as session:
        box.emit(session, 1)
        with pytest.raises(RefusedError) as refused:
            session.commit()
        assert refused.value.args == (Refusal.AUTOCOMMIT, Session)
    assert committed() == []
    engine.dispose()


def test_a_database_that_cannot_be_written_refuses_the_commit(
    engine: Any, box: Box, committed: Committed
) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE notes"))
    with Session(engine) as session:
        session.add(Order(id=1))
        box.emit(session, 1)
        with pytest.raises(OperationalError, match="no such table"):
            session.commit()
    assert committed("orders") == []
    assert box.log == ["rolled back"]


# Costs


def test_a_session_that_only_writes_has_no_listeners_of_its_own(session: Session, box: Box) -> None:
    """Each costs a new session some 30 microseconds, and one is made for each request."""
    for number in range(3):
        box.emit(session, number)
        session.commit()
    other = Session(session.bind)
    for name in ("before_commit", "after_commit", "after_transaction_end", "after_begin"):
        assert len(getattr(session.dispatch, name)) == len(getattr(other.dispatch, name))
