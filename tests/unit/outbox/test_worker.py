"""Workers: in a thread, beside an event loop, as a process that is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from madcrow_events import current_event
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox import GiveUp, OutboxError, OutboxSchemaError, Retry, RetryLater, Worker
from madcrow_events.testing import drain_outbox
from support.outboxes import Order, emit, keyed_outbox, lines_of, sqlite_engine, wait_for

effects = Table(
    "effects", MetaData(), Column("id", Integer, primary_key=True), Column("number", Integer)
)


@pytest.fixture
def engine(tmp_path):
    engine = sqlite_engine(tmp_path)
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine):
    outbox = keyed_outbox()
    outbox.metadata.create_all(engine)
    effects.metadata.create_all(engine)
    return outbox


def numbers(engine):
    with engine.connect() as connection:
        return list(connection.execute(select(effects.c.number).order_by(effects.c.id)).scalars())


def test_a_worker_in_a_thread_hears_at_once_what_this_process_commits(outbox, engine):
    """Long before it would look by itself."""
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    with Worker(outbox, engine, poll=60):
        time.sleep(0.1)
        emit(outbox, engine, Order(number=1))
        wait_for(lambda: handled == [1], 5)


def test_a_worker_may_be_used_again_when_it_has_ended(outbox, engine):
    """But not twice at the same time."""
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    worker = Worker(outbox, engine, poll=0.05)
    for number in (1, 2):
        emit(outbox, engine, Order(number=number))
        with worker:
            with pytest.raises(RuntimeError, match="works already"), worker:
                pass
            wait_for(lambda number=number: handled[-1:] == [number])


def test_a_worker_that_was_stopped_runs_again(outbox, engine):
    """What stopped it was for that time only."""
    handled = []
    outbox.on("order", id="mail")(lambda number: handled.append(number))
    worker = Worker(outbox, engine)
    worker.stop()
    worker.run()
    emit(outbox, engine, Order(number=1))
    worker.run(once=True)
    assert handled == [1]


def test_a_worker_works_once_at_a_time(outbox, engine):
    """In a thread or in this one."""
    worker = Worker(outbox, engine)
    with worker, pytest.raises(RuntimeError, match="make another one"):
        worker.run(once=True)
    runs = threading.Thread(target=worker.run)
    runs.start()
    wait_for(worker._working.locked)
    with pytest.raises(RuntimeError, match="make another one"), worker:
        pass
    worker.stop()
    runs.join()


async def test_a_worker_whose_start_is_cancelled_ends(outbox, engine, monkeypatch):
    """Nothing else would end it."""
    released = threading.Event()
    monkeypatch.setattr(outbox, "_check_schema", lambda _access: released.wait(20))
    worker = Worker(outbox, engine)
    starting = asyncio.create_task(worker.__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    released.set()
    await asyncio.to_thread(wait_for, lambda: worker._has_worked)


def test_a_worker_without_tables_says_what_to_run(engine):
    """In the thread that starts it, whichever way it is started."""
    outbox = keyed_outbox()
    worker = Worker(outbox, engine)
    for start in (worker.run, worker.__enter__, lambda: drain_outbox(outbox, engine)):
        with pytest.raises(OutboxSchemaError, match=r"create_all\(engine\), or add"):
            start()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("concurrency", 0),
        ("concurrency", True),
        ("batch", 1.5),
        ("lease", 0),
        ("lease", None),
        ("poll", -1),
    ],
)
def test_impossible_options_are_refused(outbox, engine, option, value):
    """Before anything starts."""
    with pytest.raises(InvalidOptionError) as raised:
        Worker(outbox, engine, **{option: value})
    assert raised.value.option == option


def test_a_database_in_memory_is_refused(outbox):
    """A worker needs connections of its own."""
    with pytest.raises(OutboxError, match="use a file"):
        Worker(outbox, create_engine("sqlite://"))


def test_what_is_no_engine_is_refused(outbox):
    """As is a database of another kind."""
    with pytest.raises(TypeError, match="needs an Engine or an AsyncEngine, not str"):
        Worker(outbox, "sqlite://")
    with pytest.raises(OutboxError, match="needs PostgreSQL or SQLite, not mssql"):
        outbox._statements_for(type("Strange", (), {}) and _engine_of("mssql"))


def _engine_of(name):
    engine = create_engine("sqlite://")
    engine.dialect.name = name
    return engine


async def test_async_handlers_run_in_the_loop_that_the_worker_is_beside(outbox, tmp_path):
    """With a session of the async engine, whose writes are committed with the settling."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'events.db'}")
    loops, plain = [], []

    @outbox.on("order", id="book")
    async def book(context: Order, session: AsyncSession) -> None:
        loops.append(asyncio.get_running_loop())
        await session.execute(effects.insert().values(number=context.number))

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        plain.append((number, threading.current_thread()))

    async with Worker(outbox, engine, poll=0.05):
        async with AsyncSession(engine) as session:
            outbox.emit(session, Order(number=1))
            await session.commit()
        async with asyncio.timeout(20):
            while not (plain and loops):  # noqa: ASYNC110  # set in other threads
                await asyncio.sleep(0.01)
    assert loops == [asyncio.get_running_loop()]
    assert plain[0][1] is not threading.current_thread()
    async with engine.connect() as connection:
        assert list((await connection.execute(select(effects.c.number))).scalars()) == [1]
    await engine.dispose()


async def test_a_worker_beside_a_loop_raises_what_keeps_it_from_starting(tmp_path):
    """In the `async with`."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(OutboxSchemaError):
        async with Worker(keyed_outbox(), engine):
            pass
    await engine.dispose()


def test_a_handler_that_takes_the_session_has_its_effect_exactly_once(outbox, engine):
    """A failure after its writes rolls these back, and the next attempt commits them."""

    @outbox.on("order", id="book", retry=Retry(attempts=3, wait_initial=0, wait_jitter=0))
    def book(context: Order, session: Session) -> None:
        session.execute(effects.insert().values(number=context.number))
        if current_event().attempt == 1:
            raise ConnectionError("gone")

    emit(outbox, engine, Order(number=1), Order(number=2))
    Worker(outbox, engine).run(once=True)
    wait_until_drained(outbox, engine)
    assert numbers(engine) == [1, 2]


def wait_until_drained(outbox, engine):
    while any(it.due or it.delayed for it in outbox.inspect(engine).status().handlers):
        Worker(outbox, engine).run(once=True)


def test_handlers_tell_what_is_to_happen_next(outbox, engine):
    """`GiveUp` is final, `RetryLater` says when, and a class of `give_up_on` is final, too."""
    calls = []

    @outbox.on("order", id="mail", on_dead="continue", retry=Retry(give_up_on=(KeyError,)))
    def mail(context: Order) -> None:
        calls.append((context.number, current_event().attempt))
        if context.number == 1:
            raise GiveUp("no such address")
        if context.number == 2 and len(calls) < 3:
            raise RetryLater(0.01)
        if context.number == 3:
            raise KeyError(context.number)

    emit(outbox, engine, *(Order(number=it, customer=str(it)) for it in (1, 2, 3)))
    with Worker(outbox, engine, poll=0.05):
        wait_for(lambda: len(calls) >= 4)
    assert sorted(calls) == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert {it.error_type for it in outbox.inspect(engine).dead()} == {"GiveUp", "KeyError"}


def test_no_more_calls_run_than_a_handler_allows(outbox, engine):
    """Whatever the concurrency of the worker."""
    running, most, handled = [], [], []

    @outbox.on("order", id="mail", concurrency=2)
    def mail(number: int) -> None:
        running.append(number)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(number)
        handled.append(number)

    emit(outbox, engine, *(Order(number=it, customer=str(it)) for it in range(12)))
    with Worker(outbox, engine, concurrency=6, poll=0.01):
        wait_for(lambda: len(handled) == 12)
    assert max(most) == 2


def test_what_waits_too_long_for_a_thread_is_left_to_other_workers(outbox, engine):
    """A worker with one thread that is busy gives the rest of its batch back."""
    released, handled = threading.Event(), []

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        if number == 0:
            released.wait(30)
        handled.append(number)

    emit(outbox, engine, *(Order(number=it, customer=str(it)) for it in range(6)))
    with Worker(outbox, engine, concurrency=1, poll=0.05):
        wait_for(lambda: sum(it.running for it in outbox.inspect(engine).status().handlers) == 6)
        with Worker(outbox, engine, poll=0.05):
            wait_for(lambda: sorted(handled) == [1, 2, 3, 4, 5])
        released.set()
        wait_for(lambda: len(handled) == 6)


def test_a_run_of_one_key_ends_early_when_its_handler_is_slow(outbox, engine):
    """So that a crash repeats little; the rest of the key goes on at once."""
    handled = []

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        time.sleep(0.3)
        handled.append(number)

    emit(outbox, engine, *(Order(number=it) for it in range(4)))
    with Worker(outbox, engine, poll=0.05):
        wait_for(lambda: len(handled) >= 2)
        wait_for(lambda: outbox.inspect(engine).status().handlers[0].parked <= 1)
        wait_for(lambda: handled == [0, 1, 2, 3])


def test_a_lease_is_renewed_as_long_as_its_handler_runs(outbox, engine):
    """Other workers leave it alone, and it is called once."""
    handled = []

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        time.sleep(1.5)
        handled.append(number)

    emit(outbox, engine, Order(number=1))
    options = {"lease": 0.4, "poll": 0.05}
    with Worker(outbox, engine, **options), Worker(outbox, engine, **options):
        wait_for(lambda: handled)
    assert handled == [1]
    assert drain_outbox(outbox, engine) == (0, 0, 0)


def test_a_worker_that_lost_its_lease_keeps_nothing(outbox, engine, caplog):
    """Its handler's writes are rolled back, and the other worker's are committed."""
    began, released = threading.Event(), threading.Event()

    def wait(_fields: object) -> bool:
        began.set()
        return released.wait(20)

    @outbox.on("order", id="book", when=wait)
    def book(context: Order, session: Session) -> None:
        session.execute(effects.insert().values(number=context.number))

    emit(outbox, engine, Order(number=1))
    with Worker(outbox, engine, poll=0.05):
        assert began.wait(10)
        _let_leases_end(outbox, engine)  # as if it had been paused beyond its lease
        released.set()
        wait_for(lambda: numbers(engine) == [1])
    assert numbers(engine) == [1]
    assert lines_of(caplog)[-1] == "delivery 1-1 of order to book was taken over by another worker"


def _let_leases_end(outbox, engine):
    delivery = outbox.tables.delivery
    with engine.begin() as connection:
        connection.execute(delivery.update().values(token=1, due=0))


SCRIPT = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from support.outboxes import Order, keyed_outbox, sqlite_engine
    from madcrow_events.outbox import Worker

    folder = Path(sys.argv[1])
    outbox = keyed_outbox()

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        (folder / f"began-{number}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
        (folder / f"handled-{number}").touch()

    Worker(outbox, sqlite_engine(folder), concurrency=1, poll=0.05).run()
    """
)


@pytest.fixture
def process(outbox, engine, tmp_path):
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1, customer="a"), Order(number=2, customer="b"))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "tests"])},
        cwd=Path(__file__).parents[3],
    )
    wait_for((tmp_path / "began-1").exists, 60)
    yield process
    process.kill()
    process.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.guarantee("D9")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.once
def test_a_process_that_is_told_to_stop_ends_what_runs(outbox, engine, process, tmp_path, number):
    """It claims nothing more, gives back what has not begun, and exits with 0."""
    process.send_signal(number)
    time.sleep(0.3)
    assert process.poll() is None
    (tmp_path / "go").touch()
    assert process.wait(30) == 0
    assert (tmp_path / "handled-1").exists()
    assert not (tmp_path / "began-2").exists()
    (mail,) = outbox.inspect(engine).status().handlers
    assert (mail.due, mail.running) == (1, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.guarantee("D9")
@pytest.mark.once
def test_a_process_that_is_told_twice_releases_its_leases(outbox, engine, process):
    """It exits at once, and other workers call what it has left."""
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    (mail,) = outbox.inspect(engine).status().handlers
    assert (mail.due, mail.running) == (2, 0)
    assert drain_outbox(outbox, engine) == (2, 0, 0)


def test_a_worker_removes_what_was_handled(outbox, engine, monkeypatch):
    """Within seconds; nobody has to ask for it."""
    monkeypatch.setattr("madcrow_events.outbox._sweeping._EVERY", 0.02)
    outbox.on("order", id="mail")(lambda number: None)
    emit(outbox, engine, Order(number=1))
    events = outbox.tables.event

    def rows():
        with engine.connect() as connection:
            return connection.execute(select(events.c.seq)).all()

    assert len(rows()) == 1
    with Worker(outbox, engine, poll=0.02):
        wait_for(lambda: not rows())


def test_the_end_of_the_with_waits_for_what_runs(outbox, engine):
    """And settles it."""
    began, handled = threading.Event(), []

    @outbox.on("order", id="mail")
    def mail(number: int) -> None:
        began.set()
        time.sleep(0.3)
        handled.append(number)

    emit(outbox, engine, Order(number=1))
    with Worker(outbox, engine, poll=0.02):
        assert began.wait(20)
    assert handled == [1]
    assert drain_outbox(outbox, engine) == (0, 0, 0)


class Booking(Order):
    """An order of another event."""


def test_a_key_goes_on_beside_the_backlog_of_another_handler(outbox, engine):
    """Although each of its events is due only when the one before it is handled."""
    outbox.signals.signal("booking", context=Booking, key="customer")
    called = []

    @outbox.on("booking", id="book")
    def book(session: Session):
        called.append("book")

    outbox.on("order", id="mail")(lambda: called.append("mail"))
    emit(outbox, engine, *[Booking(number=number) for number in range(10)])
    emit(outbox, engine, *[Order(number=number, customer=str(number)) for number in range(500)])
    Worker(outbox, engine).run(once=True)
    assert called.count("book") == 10
    assert called[-100:] == ["mail"] * 100
