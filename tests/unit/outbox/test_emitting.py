"""Emitting with a transaction: what is written of an event, and when."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from madcrow_events import (
    BaseEventContext,
    GenericEventContext,
    SignalRegistry,
    current_event,
    event_scope,
)
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import (
    NoTransactionError,
    NotSerialisableError,
    Outbox,
    OutboxSchemaError,
    Worker,
)
from madcrow_events.outbox._database import SharedDatabase
from madcrow_events.outbox._stored import key_of
from madcrow_events.testing import drain_outbox
from support.outboxes import Order, emit, keyed_outbox


@pytest.fixture
def engine(any_engine):
    return any_engine


def new_outbox(engine, **options) -> Outbox:
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    return outbox


def stored(outbox, engine):
    with engine.begin() as connection:
        return connection.execute(select(outbox.tables.event).order_by(text("seq"))).all()


def test_what_is_stored_of_an_event(engine):
    """The whole envelope, in the order of the emissions."""
    outbox = new_outbox(engine)
    sender, later = uuid4(), datetime.now(UTC) + timedelta(hours=1)
    with Session(engine) as session:
        first = outbox.emit(session, Order(number=1, customer="a"), sender=sender)
        given = outbox.emit(session, Order(number=2), id=uuid4(), not_before=later)
        session.commit()
    one, two = stored(outbox, engine)
    assert (one.source, one.event_id, one.event) == ("/shop", str(first.id), "order")
    assert (one.version, one.key, one.not_before, one.keep_until) == (1, "a", 0, 0)
    assert json.loads(one.sender) == {"uuid": sender.hex}
    assert json.loads(one.payload)["number"] == 1
    assert json.loads(one.headers) == {}
    assert two.event_id == str(given.id)
    assert two.not_before == int(later.timestamp() * 1_000_000)
    assert two.keep_until == two.created + 14 * 24 * 3600 * 1_000_000


def test_what_a_savepoint_takes_back_is_not_written(engine):
    """What was emitted before and after it is."""
    outbox = new_outbox(engine)
    with Session(engine) as session:
        outbox.emit(session, Order(number=1))
        savepoint = session.begin_nested()
        outbox.emit(session, Order(number=2))
        savepoint.rollback()
        outbox.emit(session, Order(number=3))
        with session.begin_nested():
            outbox.emit(session, Order(number=4))
        session.commit()
        outbox.emit(session, Order(number=5))
        session.rollback()
        session.commit()
    assert [json.loads(it.payload)["number"] for it in stored(outbox, engine)] == [1, 3, 4]


def test_an_id_is_written_once(engine):
    """Twice in one transaction, or in two."""
    outbox, id_ = new_outbox(engine), uuid4()
    for numbers in ((1, 2), (3,)):
        with Session(engine) as session:
            for number in numbers:
                outbox.emit(session, Order(number=number), id=id_)
            session.commit()
    (only,) = stored(outbox, engine)
    assert json.loads(only.payload)["number"] == 1


class Colour(Enum):
    RED = "red"


def keyed_by(key):
    signals = SignalRegistry()
    return signals.signal("keyed", key=key)


def keyed(**fields):
    return GenericEventContext(event_type="keyed", data=fields)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (None, None),
        ("a", "a"),
        (7, "7"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (date(2025, 1, 2), "2025-01-02"),
        (Colour.RED, "red"),
        ("x" * 512, "x" * 512),
    ],
)
def test_keys_are_text(value, key):
    """Be it a field of a class or of a dictionary, or what a function returns."""

    class Keyed(BaseEventContext):
        owner: Any = None

    assert key_of(keyed_by("owner"), keyed(owner=value)) == key
    assert key_of(keyed_by("owner"), Keyed(owner=value)) == key
    assert key_of(keyed_by(lambda context: value), keyed()) == key
    assert key_of(keyed_by(None), keyed(owner=value)) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1.5, "let it be a str, int, UUID, date or enum"),
        (("a",), "is of tuple"),
        ("x" * 513, "is longer than 512 characters"),
        ("a\nb", "cannot be printed"),
    ],
)
def test_other_keys_are_refused_without_being_shown(value, problem):
    """The error names the field, if there is one."""
    for key, field in (("owner", "owner"), (lambda context: value, None)):
        with pytest.raises(NotSerialisableError, match=problem) as caught:
            key_of(keyed_by(key), keyed(owner=value))
        assert (caught.value.event, caught.value.field) == ("keyed", field)
        assert str(value) not in str(caught.value)


def test_what_cannot_be_written_makes_the_commit_fail(outbox_engine):
    """Also where the error of the emission was caught."""
    outbox = new_outbox(outbox_engine)
    with Session(outbox_engine) as session:
        outbox.emit(session, Order(number=1))
        with pytest.raises(NotSerialisableError, match="longer than 512"):
            outbox.emit(session, Order(number=2, customer="x" * 513))
        with pytest.raises(NotSerialisableError, match="nothing is committed") as caught:
            session.commit()
    assert (caught.value.event, caught.value.field) == ("order", "customer")
    assert stored(outbox, outbox_engine) == []


def test_a_generic_context_becomes_one_of_the_model(outbox_engine):
    """So handlers get what the event declares."""
    outbox = new_outbox(outbox_engine)
    handled = []

    @outbox.on("order", id="mail")
    def mail(context: Order):
        handled.append(context)

    with Session(outbox_engine) as session:
        outbox.emit(session, GenericEventContext(event_type="order", data={"number": 7}))
        session.commit()
    drain_outbox(outbox, outbox_engine)
    (context,) = handled
    assert (type(context), context.number, context.customer) == (Order, 7, "nobody")


class Paid(Order):
    pass


def test_a_handler_that_emits_is_the_cause(outbox_engine):
    """The durable handlers of both are of one correlation, and know its scope."""
    outbox = new_outbox(outbox_engine)
    outbox.signals.signal("paid", context=Paid)
    seen = []

    @outbox.on("order", id="pay")
    def pay(number: int, session: Session):
        outbox.emit(session, Paid(number=number))

    @outbox.on("paid", id="thank")
    def thank():
        seen.append(current_event())

    with event_scope(request_id="r-1"):
        (first,) = emit(outbox, outbox_engine, Order(number=1))
    drain_outbox(outbox, outbox_engine)
    (paid,) = seen
    assert str(paid.causation_id) == str(paid.correlation_id) == first
    assert paid.context.request_id == "r-1"


def test_what_is_encoded_is_stored_so_and_decoded_for_the_handler(outbox_engine):
    """The JSON is not readable in the table."""
    outbox = new_outbox(outbox_engine, encode=lambda it: it[::-1], decode=lambda it: it[::-1])
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, outbox_engine, Order(number=7))
    assert stored(outbox, outbox_engine)[0].payload.startswith("}")
    drain_outbox(outbox, outbox_engine)
    assert handled == [7]


def test_what_is_encoded_must_be_text(outbox_engine):
    """PostgreSQL would store bytes as something else, and nothing could decode it."""
    outbox = new_outbox(outbox_engine, encode=str.encode, decode=lambda it: it)
    with Session(outbox_engine) as session:
        with pytest.raises(InvalidOptionError, match="must return a str, not bytes") as raised:
            outbox.emit(session, Order(number=1))
        with pytest.raises(NotSerialisableError, match="must return a str"):
            session.commit()
    assert raised.value.option == "encode"


def test_what_a_function_of_the_application_raises_is_not_quoted_by_the_commit(outbox_engine):
    """It may show values, as a KeyError does."""
    signals = SignalRegistry()
    signals.signal("order", context=Order, key=lambda context: {}[context.customer])
    outbox = Outbox("/shop", signals=signals)
    with Session(outbox_engine) as session:
        with pytest.raises(KeyError):
            outbox.emit(session, Order(number=1, customer="a secret"))
        with pytest.raises(NotSerialisableError, match=r"could not be written: KeyError$"):
            session.commit()


def test_an_emission_that_an_interrupt_breaks_off_makes_the_commit_fail(outbox_engine):
    """Its ordinary handlers wait for the commit already, and would hear what is not written."""

    def interrupt(payload):
        raise KeyboardInterrupt

    outbox = new_outbox(outbox_engine, encode=interrupt, decode=interrupt)
    heard = []
    outbox.signals["order"].subscribe(lambda number: heard.append(number), weak=False)
    with Session(outbox_engine) as session:
        with pytest.raises(KeyboardInterrupt):
            outbox.emit(session, Order(number=1))
        with pytest.raises(NotSerialisableError, match="could not be written: KeyboardInterrupt"):
            session.commit()
    assert heard == []


def test_a_transaction_that_is_committed_takes_no_event(outbox_engine):
    """As in a listener of `after_commit`; its ordinary handlers hear nothing, either."""
    outbox = new_outbox(outbox_engine)
    heard = []
    outbox.signals["order"].subscribe(lambda number: heard.append(number), weak=False)
    with Session(outbox_engine) as session:

        @event.listens_for(session, "after_commit")
        def emit_again(session):
            with pytest.raises(NoTransactionError, match="is committed, or has failed"):
                outbox.emit(session, Order(number=2))

        outbox.emit(session, Order(number=1))
        session.commit()
    assert (len(stored(outbox, outbox_engine)), heard) == (1, [1])


def test_two_outboxes_write_in_one_order_whichever_was_used_first(outbox_engine):
    """Else two transactions that use them the other way round would wait for each other."""
    outboxes = [new_outbox(outbox_engine, table_prefix=it) for it in ("one_", "two_")]
    written = []

    @event.listens_for(outbox_engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, *_):
        if "insert" in statement:
            written.append(statement.split()[2])

    for order in (1, -1):
        with Session(outbox_engine) as session:
            for outbox in outboxes[::order]:
                outbox.emit(session, Order(number=1))
            session.commit()
    assert written == ["one_event", "two_event"] * 2


def test_a_commit_without_tables_says_what_to_run(engine):
    """So does whatever else needs them; other errors of the database stay as they are."""
    outbox = keyed_outbox()
    with Session(engine) as session:
        outbox.emit(session, Order(number=1))
        with pytest.raises(OutboxSchemaError, match=r"metadata\.create_all"):
            session.commit()
    with pytest.raises(OutboxSchemaError, match=r"the table madcrow_\w+ is missing"):
        drain_outbox(outbox, engine)
    outbox.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE madcrow_event DROP COLUMN headers"))
    with pytest.raises(OutboxSchemaError, match="madcrow_event has no headers"):
        outbox._check_schema(SharedDatabase(engine))
    with Session(engine) as session:
        outbox.emit(session, Order(number=1))
        with pytest.raises(OutboxSchemaError, match=r"call outbox\.metadata\.create_all"):
            session.commit()


def test_other_errors_of_the_database_stay_as_they_are(outbox_engine):
    """They tell the emitter what it has to do with, and show no value."""
    outbox = new_outbox(outbox_engine)
    with outbox_engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON madcrow_event "
                "BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        )
    with Session(outbox_engine) as session:
        outbox.emit(session, Order(number=1, customer="a secret"))
        with pytest.raises(IntegrityError, match="full") as raised:
            session.commit()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("given", [None, 1, "session", Session])
def test_an_emission_needs_a_session(given):
    """The error names all kinds."""
    with pytest.raises(TypeError, match="emit takes a Session, AsyncSession"):
        keyed_outbox().emit(given, Order(number=1))


def test_a_connection_needs_a_transaction(outbox_engine):
    """One that has begun none would commit nothing."""
    outbox = new_outbox(outbox_engine)
    with outbox_engine.connect() as connection:
        with pytest.raises(NoTransactionError, match=r"with connection\.begin\(\)"):
            outbox.emit(connection, Order(number=1))
        with connection.begin():
            outbox.emit(connection, Order(number=2))
    with (
        Session(outbox_engine, autobegin=False) as session,
        pytest.raises(NoTransactionError, match=r"with session\.begin\(\)"),
    ):
        outbox.emit(session, Order(number=3))
    assert len(stored(outbox, outbox_engine)) == 1


def test_autocommit_is_refused(outbox_engine):
    """Each statement would commit itself."""
    engine = outbox_engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as session, pytest.raises(NoTransactionError, match="AUTOCOMMIT"):
        keyed_outbox().emit(session, Order(number=1))


def test_a_session_of_several_engines_needs_one_for_the_outbox(outbox_engine):
    """The error shows how to name it."""
    outbox, other = new_outbox(outbox_engine), create_engine("sqlite://")

    class Base(DeclarativeBase):
        pass

    with Session(binds={Base: other}) as session:
        with pytest.raises(NoTransactionError, match=r"Session\(binds="):
            outbox.emit(session, Order(number=1))
            session.commit()
        session.rollback()
    with Session(binds={outbox.tables.event: outbox_engine}) as session:
        outbox.emit(session, Order(number=2))
        session.commit()
    assert len(stored(outbox, outbox_engine)) == 1
    other.dispose()


async def test_async_sessions_commit_events_too(outbox_engine):
    """`emit` is awaited by nobody; a connection must be connected."""
    outbox = new_outbox(outbox_engine)
    engine = create_async_engine(f"sqlite+aiosqlite:///{outbox_engine.url.database}")
    async with AsyncSession(engine) as session:
        outbox.emit(session, Order(number=1))
        await session.commit()
    with pytest.raises(NoTransactionError, match=r"async with engine\.begin\(\)"):
        outbox.emit(engine.connect(), Order(number=2))
    await engine.dispose()
    assert len(stored(outbox, outbox_engine)) == 1


def test_ordinary_handlers_are_called_after_the_commit_only(outbox_engine):
    """So a worker and they hear of the same events."""
    outbox = new_outbox(outbox_engine)
    heard = []
    outbox.signals.subscribe("order", lambda number: heard.append(number), weak=False)
    with Session(outbox_engine) as session:
        outbox.emit(session, Order(number=1))
        session.rollback()
        outbox.emit(session, Order(number=2))
        assert heard == []
        session.commit()
    assert heard == [2]


def test_a_commit_wakes_the_workers_of_this_process(outbox_engine):
    """Of this outbox, if anything was written."""
    outbox = new_outbox(outbox_engine)
    worker = Worker(outbox, outbox_engine)
    with outbox._waking(worker):
        with Session(outbox_engine) as session:
            session.execute(text("SELECT 1"))
            session.commit()
        assert worker.wakes.empty()
        emit(outbox, outbox_engine, Order(number=1))
        assert worker.wakes.get_nowait() is None
    emit(outbox, outbox_engine, Order(number=2))
    assert worker.wakes.empty()


def test_a_locked_database_refuses_the_commit(outbox_engine):
    """Nobody hears of the event then."""
    outbox = new_outbox(outbox_engine)
    impatient = create_engine(outbox_engine.url, connect_args={"timeout": 0})
    with outbox_engine.connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with Session(impatient) as session:
            outbox.emit(session, Order(number=1))
            with pytest.raises(OperationalError, match="locked"):
                session.commit()
    impatient.dispose()
    assert stored(outbox, outbox_engine) == []
