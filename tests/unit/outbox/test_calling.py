"""Calling the handler of a run, and judging what came of it."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from madcrow_events import SignalRegistry, current_event
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import GiveUp, Outbox, Retry, RetryLater, Worker
from madcrow_events.outbox import _calling as calling
from madcrow_events.outbox._calling import Caller, place_of
from madcrow_events.testing import drain_outbox
from support.outbox_steps import Steps
from support.outboxes import Order, emit, keyed_outbox, lines_of, sqlite_engine, wait_for

NOTES = Table("notes", MetaData(), Column("number", Integer))
LATER = Retry(attempts=3, wait_initial=3600, wait_jitter=0)


@pytest.fixture
def engine(any_engine):
    return any_engine


def new_outbox(engine, **options) -> Outbox:
    outbox = keyed_outbox(**options)
    outbox.metadata.create_all(engine)
    NOTES.create(engine)
    return outbox


def notes(engine):
    with engine.begin() as connection:
        return sorted(connection.execute(select(NOTES)).scalars())


def test_a_run_ends_where_a_handler_fails(engine):
    """What came before is done, and what follows waits behind it."""
    outbox, handled = new_outbox(engine), []

    @outbox.on("order", id="mail", retry=LATER)
    def mail(number):
        handled.append(number)
        if number == 2:
            raise LookupError

    emit(outbox, engine, *(Order(number=it) for it in (1, 2, 3)))
    worker = Steps(outbox, engine)
    (ended,) = worker.work()
    assert (handled, ended.done, type(ended.error)) == ([1, 2], 1, LookupError)
    assert ended.settlement.failed.delay == 3_600_000_000
    assert worker.work() == []
    (run,) = worker.claim(ahead=True)
    assert [it.event_seq for it in run.rows] == [2]


def test_a_long_run_gives_the_rest_back(engine, monkeypatch):
    """So that a crash repeats little; nothing counts as an attempt."""
    outbox, handled = new_outbox(engine), []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    monkeypatch.setattr(calling, "_RUN_FOR", -1.0)
    emit(outbox, engine, *(Order(number=it) for it in (1, 2, 3)))
    worker = Steps(outbox, engine)
    for number in (1, 2, 3):
        (ended,) = worker.work()
        assert (ended.done, ended.error) == (1, None)
        assert handled[-1] == number
    assert handled == [1, 2, 3]


def test_a_run_ends_when_its_lease_is_over(engine):
    """By the clock of this process, without asking the database."""
    outbox, handled = new_outbox(engine), []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1), Order(number=2))
    worker = Steps(outbox, engine)
    (run,) = worker.claim()
    run.valid_until = 0.0
    ended = worker.call(run)
    assert (ended.settlement, handled, ended.done) == (None, [], 0)
    assert ended.is_lost


def test_what_has_ended_its_worker_as_often_as_may_be_is_dead(engine, caplog):
    """It is not called again; the attempts that nobody has told of do not count."""
    outbox, handled = new_outbox(engine), []
    outbox.on("order", id="mail", retry=Retry(attempts=2))(lambda number: handled.append(number))
    emit(outbox, engine, Order(number=1))
    worker = Steps(outbox, engine)
    worker.claim()
    worker.claim(ahead=True)
    (run,) = worker.claim(ahead=True)
    worker.settle(worker.call(run))
    (dead,) = outbox.inspect(engine).dead()
    assert (handled, dead.attempts, dead.deliveries) == ([], 2, 3)
    assert (dead.error_type, dead.error_group) == ("WorkerDiedError", "WorkerDiedError")


def test_what_ends_a_process_ends_no_worker(engine):
    """It is a failure like others."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="mail", retry=LATER)
    def mail(number):
        raise SystemExit(number)

    emit(outbox, engine, Order(number=1))
    (ended,) = Steps(outbox, engine).work()
    assert isinstance(ended.error, SystemExit)


class Busy(RetryLater):
    """Does not say when, for it does not call the constructor."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize(
    ("error", "is_dead", "delay"),
    [
        (LookupError, False, 3600.0),
        (RetryLater(60), False, 60.0),
        (RetryLater(0), False, 0.0),
        (Busy(), False, 0.0),
        (GiveUp, True, 0.0),
        (PermissionError, True, 0.0),
        (ExceptionGroup("", [LookupError()]), False, 3600.0),
        (ExceptionGroup("", [LookupError(), ExceptionGroup("", [GiveUp()])]), True, 0.0),
        (ExceptionGroup("", [LookupError(), PermissionError()]), True, 0.0),
        (ExceptionGroup("", [RetryLater(30), RetryLater(60), LookupError()]), False, 60.0),
        (ExceptionGroup("", [RetryLater(0), GiveUp()]), True, 0.0),
    ],
)
def test_a_handler_tells_by_what_it_raises_how_it_goes_on(engine, error, is_dead, delay):
    """Later, when it says, or not at all."""
    outbox = new_outbox(engine)
    retry = Retry(attempts=3, wait_initial=3600, wait_jitter=0, give_up_on=(PermissionError,))

    @outbox.on("order", id="mail", retry=retry)
    def mail(number):
        raise error

    emit(outbox, engine, Order(number=1))
    (ended,) = Steps(outbox, engine).work()
    failed = ended.settlement.failed
    assert (failed.is_dead, failed.delay, failed.attempts) == (is_dead, delay * 1_000_000, 1)
    assert (ended.dead is not None) is is_dead
    assert failed.error_type != "ExceptionGroup"


def test_a_version_that_nothing_raises_is_looked_at_again(engine):
    """The upcast may come with the next deployment; that is no attempt."""

    class Newer(Order):
        event_version: ClassVar[int] = 2

    signals = SignalRegistry()
    signals.signal("order", context=Newer, key="customer")
    older, newer = new_outbox(engine), Outbox("/shop", signals=signals)
    handled = []
    newer.on("order", id="mail")(lambda number: handled.append(number))
    emit(older, engine, Order(number=1))
    (ended,) = Steps(newer, engine).work()
    failed = ended.settlement.failed
    assert (failed.error_type, failed.attempts, failed.deliveries) == ("UnknownVersionError", 0, 0)
    assert failed.delay == 60_000_000
    newer.upcast("order", from_version=1)(lambda document: document)
    drain_outbox(newer, engine)
    assert handled == [1]


def test_when_decides_once_by_the_fields(engine):
    """What it turns down is done, without a call."""
    outbox, handled = new_outbox(engine), []

    @outbox.on("order", id="mail", when=lambda fields: fields["number"] > 1)
    def mail(number):
        handled.append(number)

    emit(outbox, engine, Order(number=1), Order(number=2))
    assert drain_outbox(outbox, engine) == (2, 0, 0)
    assert handled == [2]


def test_a_handler_knows_the_attempt_and_the_sender(engine):
    """And the id, which is that of the emission."""
    outbox, seen = new_outbox(engine), []

    @outbox.on("order", id="mail", retry=Retry(wait_initial=0, wait_jitter=0), sender="web")
    def mail(sender):
        it = current_event()
        seen.append((it.attempt, sender, str(it.id)))
        if it.attempt < 3:
            raise LookupError

    with Session(engine) as session:
        outbox.emit(session, Order(number=1), sender="app")
        emission = outbox.emit(session, Order(number=2), sender="web")
        session.commit()
    drain_outbox(outbox, engine, until_dead=True)
    assert seen == [(it, "web", str(emission.id)) for it in (1, 2, 3)]


def test_no_place_is_known_where_nothing_was_raised():
    """Nor where only packages are on the way."""
    assert place_of(None) == ""
    try:
        Retry(attempts=0)
    except InvalidOptionError as error:
        place = place_of(error.__traceback__)
    assert place.startswith(f" in {__name__}:")
    assert place.endswith(" test_no_place_is_known_where_nothing_was_raised")


# Handlers that take a session


def test_what_a_handler_writes_is_committed_with_the_settling(engine):
    """Or with nothing, if it fails."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="book", retry=LATER)
    def book(number: int, session: Session) -> None:
        session.execute(insert(NOTES), {"number": number})
        if number == 2:
            raise LookupError

    emit(outbox, engine, Order(number=1), Order(number=2))
    assert drain_outbox(outbox, engine) == (1, 0, 1)
    assert notes(engine) == [1]


def test_what_a_handler_writes_is_rolled_back_if_its_lease_was_lost(engine):
    """The other worker's effect is the only one."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="book")
    def book(number: int, session: Session) -> None:
        session.execute(insert(NOTES), {"number": number})

    emit(outbox, engine, Order(number=1))
    worker = Steps(outbox, engine)
    (paused,) = worker.claim()
    (other,) = worker.claim(ahead=True)
    ended = worker.call(paused)
    assert (ended.settlement, notes(engine)) == (None, [])
    assert ended.is_lost
    assert worker.call(other).done == 1
    assert notes(engine) == [1]


def test_a_handler_cannot_commit_the_session_of_its_worker(engine):
    """The effect would be there without the note that the event is handled; savepoints may be."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="book", retry=LATER)
    def book(number: int, session: Session) -> None:
        with session.begin_nested():
            session.execute(insert(NOTES), {"number": number})
        if number == 2:
            session.commit()

    emit(outbox, engine, Order(number=1), Order(number=2))
    assert drain_outbox(outbox, engine) == (1, 0, 1)
    assert notes(engine) == [1]
    with engine.begin() as connection:
        failed = connection.execute(select(outbox.tables.delivery.c.error_type)).scalar_one()
    assert failed == "NoTransactionError"


async def test_an_async_handler_takes_an_async_session(outbox_engine):
    """It is called in the loop of the worker."""
    outbox = new_outbox(outbox_engine)
    loops = []

    @outbox.on("order", id="book", retry=LATER)
    async def book(number: int, session: AsyncSession) -> None:
        loops.append(asyncio.get_running_loop())
        await session.execute(insert(NOTES), {"number": number})
        if number == 2:
            raise LookupError

    emit(outbox, outbox_engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    engine = create_async_engine(f"sqlite+aiosqlite:///{outbox_engine.url.database}")
    async with Worker(outbox, engine, poll=0.01):
        for _ in range(500):
            if len(loops) == 2 and notes(outbox_engine) == [1]:
                break
            await asyncio.sleep(0.01)
    await engine.dispose()
    assert loops == [asyncio.get_running_loop()] * 2
    assert notes(outbox_engine) == [1]


def test_an_async_handler_has_its_session_without_a_worker_too(outbox_engine):
    """`drain_outbox` is for tests, which have no loop."""
    outbox = new_outbox(outbox_engine)

    @outbox.on("order", id="book")
    async def book(number: int, session: AsyncSession) -> None:
        await session.execute(insert(NOTES), {"number": number})

    emit(outbox, outbox_engine, Order(number=1))
    engine = create_async_engine(f"sqlite+aiosqlite:///{outbox_engine.url.database}")
    report = drain_outbox(outbox, engine)
    asyncio.run(engine.dispose())
    assert (report, notes(outbox_engine)) == ((1, 0, 0), [1])


def test_the_kind_of_the_session_is_that_of_the_handler():
    """A plain handler could not await an async session."""

    async def plain_session(number: int, session: Session) -> None: ...

    def async_session(number: int, session: AsyncSession) -> None: ...

    outbox = keyed_outbox()
    for handler in (plain_session, async_session):
        with pytest.raises(InvalidOptionError, match="a plain handler takes a Session, and an"):
            outbox.on("order", id="book")(handler)


def test_a_session_is_known_by_its_annotation_of_a_callable_instance(engine):
    """Whatever its name; annotations that nobody can read are no session."""
    outbox = new_outbox(engine)

    class Book:
        def __call__(self, number: int, database: Session) -> None:
            database.execute(insert(NOTES), {"number": number})

    def note(number: Unknown) -> Session:  # noqa: F821
        handled.append(number)

    handled: list[int] = []
    outbox.on("order", id="book")(Book())
    outbox.on("order", id="note")(note)
    emit(outbox, engine, Order(number=1))
    drain_outbox(outbox, engine)
    assert (notes(engine), handled) == ([1], [1])


def test_a_dead_delivery_is_logged(engine, caplog):
    """The line names the place, and no value."""
    outbox = new_outbox(engine)

    @outbox.on("order", id="mail", retry=Retry(attempts=1))
    def mail(number):
        raise LookupError("secret")

    emit(outbox, engine, Order(number=1))
    drain_outbox(outbox, engine)
    (line,) = [it for it in lines_of(caplog) if "delivery" in it]
    assert "is dead after 1 attempts: LookupError in" in line
    assert "secret" not in line


def test_a_fault_of_the_package_ends_no_thread(tmp_path, caplog, monkeypatch):
    """The delivery is tried again when its lease has ended."""
    engine = sqlite_engine(tmp_path)
    outbox, handled, calls = new_outbox(engine), [], []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    call = Caller.call

    def fail_once(caller, run):
        calls.append(run)
        if len(calls) == 1:
            raise ZeroDivisionError
        return call(caller, run)

    monkeypatch.setattr(Caller, "call", fail_once)
    emit(outbox, engine, Order(number=1))
    with Worker(outbox, engine, lease=0.3, poll=0.02, concurrency=1):
        wait_for(lambda: handled == [1])
    assert lines_of(caplog)[0] == (
        "delivery 1-1 of order to mail waits for the end of its lease: ZeroDivisionError"
    )
    engine.dispose()


async def test_a_loop_that_was_closed_uses_up_no_attempt(outbox_engine):
    """Another worker calls the handler."""
    outbox = new_outbox(outbox_engine)

    @outbox.on("order", id="mail", retry=Retry(attempts=1))
    async def mail(number: int) -> None: ...

    emit(outbox, outbox_engine, Order(number=1))
    worker = Steps(outbox, outbox_engine)
    worker.expand()
    (run,) = worker.claim()
    worker.caller._loop = asyncio.new_event_loop()
    worker.caller._loop.close()
    ended = worker.caller.call(run)
    assert (ended.settlement, ended.is_lost) == (None, True)
