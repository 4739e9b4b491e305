"""What is emitted in `after_commit` goes out when the transaction is committed, or never."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import runpy
import sys
import threading
import weakref
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import madcrow_events
from madcrow_events import (
    Emission,
    EventDispatcher,
    EventSignal,
    HandlerErrors,
    InvalidOptionError,
    SignalRegistry,
    emit_event,
    event_scope,
    madcrow_signals,
    on_event,
)

sqlalchemy = pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")
pytest.importorskip("greenlet")

from sqlalchemy import create_engine, text  # noqa: E402
from sqlalchemy.exc import IntegrityError, InvalidRequestError  # noqa: E402
from sqlalchemy.ext.asyncio import (  # noqa: E402
    create_async_engine,
)
from sqlalchemy.orm import Session, sessionmaker  # noqa: E402
from sqlalchemy.orm import declarative_base as new_base  # noqa: E402

from madcrow_events import _transactions  # noqa: E402
from madcrow_events._transactions import Watcher, watcher_of  # noqa: E402
from madcrow_events._transactions._watching import _watchers  # noqa: E402
from madcrow_events.contrib.sqlalchemy import after_commit  # noqa: E402
from support.transactions import KINDS, Unit, done, with_real_transactions  # noqa: E402

pytestmark = pytest.mark.guarantee("B4")

TABLES = (
    "CREATE TABLE orders (id INTEGER PRIMARY KEY)",
    "CREATE TABLE parcels (order_id INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)",
)


class Order(new_base()):  # type: ignore[misc]
    __tablename__ = "orders"
    id = sqlalchemy.Column(sqlalchemy.Integer, primary_key=True)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for table in TABLES:
            connection.execute(text(table))
    engine.dispose()
    return path


@pytest.fixture
def engine(database: Path) -> Any:
    engine = with_real_transactions(create_engine(f"sqlite:///{database}"))
    yield engine
    engine.dispose()


@pytest.fixture(params=KINDS)
async def unit(request: pytest.FixtureRequest, database: Path, engine: Any) -> Any:
    is_async = request.param.lower().startswith("async")
    if is_async:
        engine = create_async_engine(f"sqlite+aiosqlite:///{database}")
        with_real_transactions(engine.sync_engine)
    it = KINDS[request.param](engine)
    if request.param == "AsyncConnection":
        await it.start()
    yield Unit(it)
    await done(it.close())
    if is_async:
        await engine.dispose()


class Shop:
    """Emits events, and knows which went out and whether their rows were there for others."""

    def __init__(self, dispatcher: EventDispatcher, signal: EventSignal[Any], path: Path) -> None:
        self.dispatcher = dispatcher
        self.signal = signal
        self.path = path
        self.handled: list[int] = []
        signal.subscribe(self.note)

    def note(self, number: int) -> None:
        self.handled.append(number)

    def emit(self, number: int) -> Emission[Any]:
        return self.dispatcher.emit(self.signal, number=number)

    def rows(self) -> list[int]:
        """Read the orders by a connection of its own, as a handler does."""
        engine = create_engine(f"sqlite:///{self.path}")
        with engine.connect() as connection:
            found = connection.execute(text("SELECT id FROM orders ORDER BY id")).scalars()
            rows = [*found]
        engine.dispose()
        return rows

    def held_back(self, unit: Any, number: int) -> Emission[Any]:
        with after_commit(getattr(unit, "it", unit), self.dispatcher):
            return self.emit(number)


@pytest.fixture
def shop(dispatcher: EventDispatcher, signal: EventSignal[Any], database: Path) -> Shop:
    return Shop(dispatcher, signal, database)


# Commit, rollback and savepoints


async def test_events_go_out_in_their_order_when_the_transaction_is_committed(
    unit: Unit, shop: Shop
) -> None:
    await unit.insert(1)
    emissions = [shop.held_back(unit, 1), shop.held_back(unit, 2)]
    await unit.insert(2)
    assert (shop.handled, [it.state for it in emissions]) == ([], ["deferred"] * 2)

    await unit.commit()

    assert (shop.handled, [it.state for it in emissions]) == ([1, 2], ["done"] * 2)


async def test_each_handler_sees_the_committed_row(unit: Unit, shop: Shop) -> None:
    seen = []

    async def asynchronous(number: int) -> None:
        seen.append(("async", shop.rows()))

    shop.signal.subscribe(lambda number: seen.append(("inline", shop.rows())))
    shop.signal.subscribe(lambda number: seen.append(("background", shop.rows())), background=True)
    shop.signal.subscribe(asynchronous)
    await unit.insert(1)
    emission = shop.held_back(unit, 1)
    await unit.commit()

    assert await emission.wait_async(10)
    assert sorted(seen) == [("async", [1]), ("background", [1]), ("inline", [1])]


@pytest.mark.parametrize("end", ["rollback", "close", "invalidate"])
async def test_events_are_dropped_when_the_transaction_is_not_committed(
    unit: Unit, shop: Shop, end: str
) -> None:
    await unit.insert(1)
    emission = shop.held_back(unit, 1)
    await getattr(unit, end)()
    if end == "invalidate":
        await unit.rollback()  # which SQLAlchemy wants of a connection
    assert (shop.handled, emission.state) == ([], "dropped")


async def test_a_savepoint_that_is_rolled_back_takes_its_own_events_along(
    unit: Unit, shop: Shop
) -> None:
    with after_commit(unit.it, shop.dispatcher):
        async with unit.block("begin"):
            shop.emit(1)
            async with unit.block("begin_nested"):
                shop.emit(2)
            async with unit.block("begin_nested") as savepoint:
                shop.emit(3)
                async with unit.block("begin_nested"):
                    shop.emit(4)
                await done(savepoint.rollback())
            shop.emit(5)
            assert shop.handled == []
        assert shop.handled == [1, 2, 5]


async def test_a_savepoint_older_than_the_first_with_takes_its_events_along(
    unit: Unit, shop: Shop
) -> None:
    async with unit.block("begin"):
        async with unit.block("begin_nested") as savepoint:
            shop.held_back(unit, 1)
            await done(savepoint.rollback())
        shop.held_back(unit, 2)
    assert shop.handled == [2]


async def test_a_block_that_raises_drops_its_events(unit: Unit, shop: Shop) -> None:
    with pytest.raises(LookupError):
        async with unit.block("begin"):
            with after_commit(unit.it, shop.dispatcher):
                shop.emit(1)
                with pytest.raises(TimeoutError):
                    async with unit.block("begin_nested"):
                        shop.emit(2)
                        raise TimeoutError
                raise LookupError
    assert shop.handled == []


async def test_the_transaction_decides_and_not_the_with(unit: Unit, shop: Shop) -> None:
    """What a `with` has emitted before it raised has happened if it is committed all the same."""
    await unit.insert(1)
    with pytest.raises(LookupError), after_commit(unit.it, shop.dispatcher):
        shop.emit(1)
        raise LookupError
    await unit.commit()
    assert shop.handled == [1]


async def test_events_wait_for_the_next_transaction_if_none_has_begun(
    unit: Unit, shop: Shop
) -> None:
    shop.held_back(unit, 1)
    await unit.insert(1)
    assert shop.handled == []
    await unit.commit()
    assert shop.handled == [1]


async def test_a_commit_that_fails_drops_the_events(unit: Unit, shop: Shop) -> None:
    await unit.insert_parcel(1)  # of no order, which is found out by the commit
    emission = shop.held_back(unit, 1)
    with pytest.raises(IntegrityError):
        await unit.commit()
    await unit.rollback()
    assert (shop.handled, emission.state) == ([], "dropped")


# The `with`


async def test_a_with_may_stand_around_several_transactions(unit: Unit, shop: Shop) -> None:
    with after_commit(unit.it, shop.dispatcher):
        for number in (1, 2, 3):
            await unit.insert(number)
            shop.emit(number)
            await (unit.rollback() if number == 2 else unit.commit())
            assert shop.handled == ([1] if number < 3 else [1, 3])
        shop.emit(4)
    assert shop.handled == [1, 3]
    await unit.insert(4)
    await unit.commit()
    assert shop.handled == [1, 3, 4]


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_a_transaction_without_statements_is_one(unit: Unit, shop: Shop, end: str) -> None:
    shop.held_back(unit, 1)
    await done(unit.it.begin())
    await getattr(unit, end)()
    assert shop.handled == ([1] if end == "commit" else [])


async def test_a_with_that_stands_in_another_ends_nothing(unit: Unit, shop: Shop) -> None:
    with after_commit(unit.it, shop.dispatcher):
        with after_commit(unit.it, shop.dispatcher):
            pass
        shop.emit(1)
    assert shop.handled == []
    await unit.insert(1)
    await unit.commit()
    assert shop.handled == [1]


async def test_what_is_committed_goes_out_even_inside_of_a_deferred_block(
    unit: Unit, shop: Shop
) -> None:
    """A web framework opens one for each request."""
    with shop.dispatcher.deferred():
        await unit.insert(1)
        shop.held_back(unit, 1)
        shop.emit(2)
        await unit.commit()
        assert shop.handled == [1]
    assert shop.handled == [1, 2]


async def test_a_deferred_block_in_the_with_joins_it(unit: Unit, shop: Shop) -> None:
    await unit.insert(1)
    with after_commit(unit.it, shop.dispatcher):
        shop.emit(1)
        with shop.dispatcher.deferred():
            shop.emit(2)
        with pytest.raises(LookupError), shop.dispatcher.deferred():
            shop.emit(3)
            raise LookupError
    assert shop.handled == []
    await unit.commit()
    assert shop.handled == [1, 2]


async def test_each_with_has_the_fields_of_its_own_scope(
    unit: Unit, shop: Shop, signal: EventSignal[Any]
) -> None:
    ids = []
    signal.subscribe(lambda request_id=None: ids.append(request_id))
    for request_id in ("r-1", "r-2"):
        with event_scope(request_id=request_id):
            shop.held_back(unit, 1)
    shop.held_back(unit, 1)
    await unit.insert(1)
    await unit.commit()
    assert ids == ["r-1", "r-2", None]


async def test_what_handlers_emit_is_not_held_back(unit: Unit, shop: Shop) -> None:
    shop.signal.subscribe(lambda number: number < 3 and shop.emit(number + 1), priority=-1)
    with after_commit(unit.it, shop.dispatcher):
        await unit.insert(1)
        shop.emit(1)
        await unit.commit()
        assert shop.handled == [1, 2, 3]


@pytest.mark.parametrize("is_around", [True, False])
async def test_a_task_that_emits_after_the_end_of_the_transaction_loses_nothing(
    unit: Unit, shop: Shop, is_around: bool
) -> None:
    """Its event goes out at once, for nobody waits for a transaction any more."""
    go = asyncio.Event()

    async def emit_later() -> None:
        await go.wait()
        shop.emit(2)

    with after_commit(unit.it, shop.dispatcher):
        task = asyncio.create_task(emit_later())
        await asyncio.sleep(0)
        if is_around:
            await unit.insert(1)
            await unit.commit()
    if not is_around:
        await unit.insert(1)
        await unit.commit()
    go.set()
    await task
    assert shop.handled == [2]


async def test_a_task_that_emits_before_the_end_of_the_transaction_waits_for_it(
    unit: Unit, shop: Shop
) -> None:
    await unit.insert(1)
    with after_commit(unit.it, shop.dispatcher):
        context = contextvars.copy_context()
    context.run(shop.emit, 1)
    assert shop.handled == []
    await unit.commit()
    assert shop.handled == [1]


async def test_a_task_of_a_with_without_transaction_and_events_loses_nothing(
    unit: Unit, shop: Shop
) -> None:
    with after_commit(unit.it, shop.dispatcher):
        context = contextvars.copy_context()
    context.run(shop.emit, 1)
    assert shop.handled == [1]


async def test_other_dispatchers_are_left_alone(
    unit: Unit, shop: Shop, signals: SignalRegistry
) -> None:
    sibling = shop.dispatcher.with_options(on_error="raise")
    with EventDispatcher(signals) as other, after_commit(unit.it, shop.dispatcher):
        other.emit(shop.signal, number=1)
        sibling.emit(shop.signal, number=2)
        assert shop.handled == [1]
        with after_commit(unit.it, other):
            other.emit(shop.signal, number=3)
        await unit.insert(1)
        await unit.commit()
        assert sorted(shop.handled) == [1, 2, 3]


async def test_the_default_dispatcher_is_meant_unless_another_is_given(unit: Unit) -> None:
    madcrow_signals.signal("order_placed")
    handled: list[int] = []
    on_event("order_placed")(lambda number: handled.append(number))
    await unit.insert(1)
    with after_commit(unit.it):
        emit_event("order_placed", number=1)
    assert handled == []
    await unit.commit()
    assert handled == [1]


async def test_two_dispatchers_keep_their_savepoints_apart(
    unit: Unit, shop: Shop, signals: SignalRegistry
) -> None:
    with EventDispatcher(signals) as other:
        async with unit.block("begin"):
            shop.held_back(unit, 1)
            async with unit.block("begin_nested") as savepoint:
                shop.held_back(unit, 2)
                with after_commit(unit.it, other):
                    other.emit(shop.signal, number=3)
                await done(savepoint.rollback())
        assert shop.handled == [1]


async def test_a_with_that_raises_without_transaction_drops_its_own_events(
    unit: Unit, shop: Shop
) -> None:
    """No transaction will be rolled back for it."""
    shop.held_back(unit, 1)
    with pytest.raises(LookupError), after_commit(unit.it, shop.dispatcher):
        shop.emit(2)
        raise LookupError
    await unit.insert(1)
    await unit.commit()
    assert shop.handled == [1]


async def test_a_with_that_raises_after_a_transaction_drops_what_it_emitted_since(
    unit: Unit, shop: Shop
) -> None:
    shop.held_back(unit, 1)
    shop.held_back(unit, 2)
    with pytest.raises(LookupError), after_commit(unit.it, shop.dispatcher):
        await unit.insert(1)
        await unit.commit()
        shop.emit(3)
        raise LookupError
    await unit.insert(2)
    await unit.commit()
    assert shop.handled == [1, 2]


def test_a_with_is_good_for_once(engine: Any, shop: Shop) -> None:
    with Session(engine) as session, session.begin():
        block = after_commit(session, shop.dispatcher)
        with block:
            shop.emit(1)
        with pytest.raises(RuntimeError, match="call it again"), block:
            pass
        shop.emit(2)
        assert shop.handled == [2]
    assert shop.handled == [2, 1]


async def test_an_async_with_is_refused(engine: Any) -> None:
    with Session(engine) as session:
        block: Any = after_commit(session)
        with pytest.raises(TypeError, match=r"`with after_commit\(session\):`"):
            async with block:
                pass


# Handlers


class Exit(BaseException):
    """Something like a KeyboardInterrupt, which pytest and asyncio would take for one."""


@pytest.mark.parametrize("error", [LookupError, Exit])
@pytest.mark.parametrize("form", ["commit", "begin"])
async def test_an_exception_comes_out_of_the_commit_which_is_done(
    unit: Unit, shop: Shop, error: type[BaseException], form: str
) -> None:
    """All events go out, and the session or connection can be used."""

    def fail(number: int) -> None:
        if number == 1:
            raise error

    shop.signal.subscribe(fail, on_error="raise")
    with pytest.raises(error):
        if form == "commit":
            await unit.insert(1)
            shop.held_back(unit, 1)
            shop.held_back(unit, 2)
            await unit.commit()
        else:
            async with unit.block("begin"):
                await unit.insert(1)
                shop.held_back(unit, 1)
                shop.held_back(unit, 2)
    assert (shop.handled, shop.rows()) == ([1, 2], [1])

    await unit.insert(3)
    shop.held_back(unit, 3)
    await unit.commit()
    assert (shop.handled, shop.rows()) == ([1, 2, 3], [1, 3])


async def test_a_handler_that_uses_the_session_in_a_begin_block_fails_alone(
    engine: Any, shop: Shop
) -> None:
    """SQLAlchemy refuses it, the dispatcher isolates it, and the commit is done."""
    with Session(engine) as session:
        shop.signal.subscribe(lambda number: session.execute(text("SELECT 1")))
        with session.begin():
            session.add(Order(id=1))
            emission = shop.held_back(session, 1)
        (failure,) = emission.failures
        assert isinstance(failure.exception, InvalidRequestError)
        assert not session.in_transaction()
    assert shop.rows() == [1]


@pytest.mark.parametrize("is_around", [True, False])
def test_a_handler_that_uses_the_session_after_a_commit_begins_a_transaction(
    engine: Any, shop: Shop, is_around: bool
) -> None:
    """It works, but it is the next transaction, so it is for nobody to build on."""

    def confirm(number: int) -> None:
        if number == 1:
            session.add(Order(id=2))
            shop.held_back(session, 2)
            session.commit()

    shop.signal.subscribe(confirm)
    with Session(engine) as session, ExitStack() as stack:
        if is_around:
            stack.enter_context(after_commit(session, shop.dispatcher))
        session.add(Order(id=1))
        shop.held_back(session, 1)
        session.commit()
        assert (shop.handled, shop.rows()) == ([1, 2], [1, 2])


def test_the_connection_of_a_session_is_free_when_handlers_run(database: Path, shop: Shop) -> None:
    """So that a handler gets one from a pool of one."""
    engine = create_engine(
        f"sqlite:///{database}", poolclass=sqlalchemy.QueuePool, pool_size=1, max_overflow=0
    )

    def count(number: int) -> None:
        with Session(engine) as own:
            counts.append(own.scalar(text("SELECT count(*) FROM orders")))

    counts: list[int] = []
    shop.signal.subscribe(count)
    with Session(engine) as session:
        session.add(Order(id=1))
        shop.held_back(session, 1)
        session.commit()
    assert counts == [1]
    engine.dispose()


def test_the_events_of_several_dispatchers_go_out_in_the_order_of_their_first_use(
    engine: Any, shop: Shop, signals: SignalRegistry
) -> None:
    """Even if all of them raise; those of siblings go out in the order of the emissions."""

    def fail(number: int) -> None:
        raise Exit if number == 6 else LookupError(number)

    shop.signal.subscribe(fail, on_error="raise")
    sibling = shop.dispatcher.with_options(on_error="raise")
    with EventDispatcher(signals) as other, Session(engine) as session:
        session.execute(text("SELECT 1"))
        for number, dispatcher in enumerate([other, shop.dispatcher, sibling, shop.dispatcher]):
            with after_commit(session, dispatcher):
                dispatcher.emit(shop.signal, number=number)
        with pytest.raises(HandlerErrors) as raised:
            session.commit()
        assert shop.handled == [0, 1, 2, 3]
        assert raised.value.exceptions[0].args == (0,)
        assert [it.args for it in raised.value.exceptions[1].exceptions] == [(1,), (2,), (3,)]

        session.execute(text("SELECT 1"))
        for number, dispatcher in [(5, other), (6, shop.dispatcher)]:
            with after_commit(session, dispatcher):
                dispatcher.emit(shop.signal, number=number)
        with pytest.raises(Exit) as exited:
            session.commit()
        assert shop.handled[4:] == [5, 6]
        assert repr(exited.value.__cause__) == "LookupError(5)"


def interrupted(call: Any, line: int) -> bool:
    """Raise `Exit` at one of the lines that hold back, settle and drop; return whether it did."""
    rooms = Path(inspect.getfile(_transactions)).parent.glob("*.py")
    holding = sys.modules["madcrow_events.emissions._holding"]
    files = {*map(str, rooms), inspect.getfile(after_commit), inspect.getfile(holding)}
    left = line

    def trace(frame: Any, kind: str, _argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in files:
            return None
        if kind == "line":
            if not left:
                sys.settrace(None)
                raise Exit
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Exit as error:
        error.__traceback__ = None  # it keeps what the interrupt has cut off
        return True
    finally:
        sys.settrace(before)
    return False


def end_all(unit: Any) -> None:
    """Roll back what an interrupt has left of a transaction, as far as SQLAlchemy knows."""
    if isinstance(unit, Session):
        unit.close()
    else:
        unit.rollback()
        unit.connection.driver_connection.rollback()


async def test_a_with_around_several_transactions_holds_back_after_an_exception_too(
    unit: Unit, shop: Shop
) -> None:
    def fail(number: int) -> None:
        raise LookupError

    with after_commit(unit.it, shop.dispatcher):
        await unit.insert(1)
        with shop.signal.subscribe(fail, on_error="raise"):
            shop.emit(1)
            with pytest.raises(LookupError):
                await unit.commit()
        await unit.insert(2)
        shop.emit(2)
        assert shop.handled == [1]
        await unit.commit()
    assert shop.handled == [1, 2]


@pytest.mark.parametrize("is_around", [True, False])
@pytest.mark.parametrize("kind", ["Session", "Connection"])
def test_what_is_rolled_back_never_goes_out_even_after_an_interrupt(
    engine: Any, shop: Shop, kind: str, is_around: bool
) -> None:
    for line in itertools.count():
        with KINDS[kind](engine) as unit, ExitStack() as stack:
            if is_around:
                stack.enter_context(after_commit(unit, shop.dispatcher))
            unit.execute(text("SELECT 1"))
            shop.held_back(unit, 0)
            unit.begin_nested()
            shop.held_back(unit, 1)
            was_interrupted = interrupted(unit.rollback, line)
            end_all(unit)
            shop.held_back(unit, 2)
            unit.execute(text("SELECT 1"))
            shop.held_back(unit, 3)
            unit.commit()
            assert shop.handled == [2, 3]
            shop.handled.clear()
        if not was_interrupted:
            break
    assert line > 10


@pytest.mark.parametrize("kind", ["Session", "Connection"])
def test_an_interrupt_of_a_commit_holds_nothing_else_back(
    engine: Any, shop: Shop, kind: str
) -> None:
    for line in itertools.count():
        with KINDS[kind](engine) as unit:
            unit.execute(text("SELECT 1"))
            shop.held_back(unit, 1)
            was_interrupted = interrupted(unit.commit, line)
            shop.emit(2)
            assert shop.handled in ([1, 2], [2])
            end_all(unit)
            unit.execute(text("SELECT 1"))
            shop.held_back(unit, 3)
            unit.commit()
            assert [it for it in shop.handled if it > 1] == [2, 3]
            shop.handled.clear()
        if not was_interrupted:
            break
    assert line > 10


def test_an_interrupt_after_a_commit_does_not_drop_what_was_committed(
    engine: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes out with the next commit."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise Exit

    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        shop.held_back(session, 1)
        with monkeypatch.context() as patch, pytest.raises(Exit):
            patch.setattr(Watcher, "settle", interrupt)
            session.commit()
        shop.held_back(session, 2)
        session.execute(text("SELECT 1"))
        session.commit()
    assert shop.handled == [1, 2]


def test_a_transaction_without_statements_does_not_let_the_lost_ones_go_out(
    engine: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise Exit

    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        emission = shop.held_back(connection, 1)
        with monkeypatch.context() as patch, pytest.raises(Exit):
            patch.setattr(Watcher, "settle", interrupt)
            connection.rollback()
        connection.begin()
        connection.commit()
    assert (shop.handled, emission.state) == ([], "dropped")


@pytest.mark.parametrize("kind", ["Session", "Connection"])
def test_an_interrupt_as_a_with_begins_or_ends_leaves_nothing_open(
    engine: Any, shop: Shop, kind: str
) -> None:
    for line in itertools.count():
        with KINDS[kind](engine) as unit:
            was_interrupted = interrupted(lambda it=unit: shop.held_back(it, 1), line)
            shop.emit(2)
            assert shop.handled == [2]
            unit.execute(text("SELECT 1"))
            unit.commit()
            assert shop.handled in ([2, 1], [2])
            assert not watcher_of(unit).open
            shop.handled.clear()
        if not was_interrupted:
            break
    assert line > 10


# Sessions


def test_a_flush_that_fails_drops_the_events_with_the_rollback(engine: Any, shop: Shop) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.commit()
        shop.held_back(session, 1)
        session.execute(text("INSERT INTO orders VALUES (1)  ON CONFLICT DO NOTHING"))
        session.add(Order(id=1))
        with pytest.raises(IntegrityError):
            session.flush()
        emission = shop.held_back(session, 2)
        session.rollback()
        assert (shop.handled, emission.state) == ([], "dropped")
        shop.held_back(session, 3)
        session.commit()
        assert shop.handled == [3]


def test_a_flush_that_fails_in_a_savepoint_drops_its_events(engine: Any, shop: Shop) -> None:
    with Session(engine) as session, after_commit(session, shop.dispatcher), session.begin():
        session.add(Order(id=1))
        shop.emit(1)
        with pytest.raises(IntegrityError), session.begin_nested():
            shop.emit(2)
            session.execute(text("INSERT INTO orders VALUES (1)"))
        with session.begin_nested():
            session.add(Order(id=2))
            shop.emit(3)
    assert (shop.handled, shop.rows()) == ([1, 3], [1, 2])


@pytest.mark.parametrize("end", ["commit", "rollback", "close", "invalidate"])
def test_the_end_of_a_session_ends_its_savepoints(engine: Any, shop: Shop, end: str) -> None:
    with Session(engine) as session:
        shop.held_back(session, 1)
        session.begin_nested()
        shop.held_back(session, 2)
        session.begin_nested()
        shop.held_back(session, 3)
        getattr(session, end)()
        assert shop.handled == ([1, 2, 3] if end == "commit" else [])


def test_a_commit_of_a_session_that_has_begun_nothing_is_one(engine: Any, shop: Shop) -> None:
    with Session(engine) as session:
        shop.held_back(session, 1)
        session.commit()
    assert shop.handled == [1]


def test_a_close_of_a_session_that_has_begun_nothing_ends_nothing(engine: Any, shop: Shop) -> None:
    with Session(engine) as session:
        shop.held_back(session, 1)
    with session.begin():
        pass
    assert shop.handled == [1]


def test_a_session_that_does_not_begin_by_itself_can_begin_after_the_with(
    engine: Any, shop: Shop
) -> None:
    with Session(engine, autobegin=False) as session:
        shop.held_back(session, 1)
        with session.begin():
            assert shop.handled == []
    assert shop.handled == [1]


@pytest.fixture
def two_phases(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let SQLite's dialect pretend that it has transactions with two phases."""
    dialect = engine.dialect

    monkeypatch.setattr(
        dialect, "do_begin_twophase", lambda it, xid: it.exec_driver_sql("BEGIN"), raising=False
    )
    monkeypatch.setattr(dialect, "do_prepare_twophase", lambda it, xid: None)
    monkeypatch.setattr(
        dialect, "do_commit_twophase", lambda it, xid, *_: dialect.do_commit(it.connection)
    )
    monkeypatch.setattr(
        dialect,
        "do_rollback_twophase",
        lambda it, xid, *_, **__: dialect.do_rollback(it.connection),
    )
    return engine


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_session_with_two_phases(
    two_phases: Any, shop: Shop, end: str, is_prepared: bool
) -> None:
    with Session(two_phases, twophase=True) as session:
        session.add(Order(id=1))
        shop.held_back(session, 1)
        session.flush()
        if is_prepared:
            session.prepare()
        assert shop.handled == []
        getattr(session, end)()
        assert shop.handled == shop.rows() == ([1] if end == "commit" else [])


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_a_connection_with_two_phases(two_phases: Any, shop: Shop, end: str) -> None:
    with two_phases.connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        shop.held_back(connection, 1)
        transaction.prepare()
        assert shop.handled == []
        getattr(transaction, end)()
        assert shop.handled == shop.rows() == ([1] if end == "commit" else [])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_connection_with_two_phases_and_without_statements(
    two_phases: Any, shop: Shop, end: str
) -> None:
    with two_phases.connect() as connection:
        shop.held_back(connection, 1)
        transaction = connection.begin_twophase()
        getattr(transaction, end)()
        connection.execute(text("SELECT 1"))
        connection.commit()
    assert shop.handled == ([1] if end == "commit" else [])


@pytest.mark.parametrize("mode", ["rollback_only", "control_fully", "create_savepoint"])
def test_a_session_in_the_transaction_of_a_test_commits_as_it_sees_it(
    engine: Any, shop: Shop, mode: str
) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(connection, join_transaction_mode=mode) as session:
            session.add(Order(id=1))
            shop.held_back(session, 1)
            session.commit()
            assert shop.handled == [1]
        if transaction.is_active:
            transaction.rollback()


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_session_and_its_connection_each_wait_for_their_own(
    engine: Any, shop: Shop, end: str
) -> None:
    with engine.connect() as connection:
        transaction = connection.begin()
        shop.held_back(connection, 1)
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            session.add(Order(id=1))
            session.flush()
            shop.held_back(session, 2)
            shop.held_back(connection, 3)
            session.rollback()
            session.add(Order(id=2))
            shop.held_back(session, 4)
            shop.held_back(connection, 5)
            session.commit()
        assert shop.handled == [4]
        getattr(transaction, end)()
    assert shop.handled == ([4, 1, 5] if end == "commit" else [4])


# Connections


def test_the_end_of_a_transaction_that_has_ended_says_nothing(engine: Any, shop: Shop) -> None:
    with engine.connect() as connection:
        with connection.begin() as transaction:
            shop.held_back(connection, 1)
            transaction.commit()
            shop.held_back(connection, 2)
            transaction.rollback()
            transaction.close()
            with pytest.raises(InvalidRequestError):
                transaction.commit()
        connection.execute(text("SELECT 1"))
        connection.commit()
    assert shop.handled == [1, 2]


def test_statements_of_the_driver_are_seen_too(engine: Any, shop: Shop) -> None:
    with engine.connect() as connection:
        shop.held_back(connection, 1)
        connection.exec_driver_sql("INSERT INTO orders VALUES (1)")
        connection.commit()
    assert shop.handled == [1]


# What is refused


@pytest.mark.parametrize("wrong", ["engine", "sessionmaker", "async engine", None])
def test_anything_else_is_refused(engine: Any, database: Path, wrong: str | None) -> None:
    things = {
        "engine": engine,
        "sessionmaker": sessionmaker(engine),
        "async engine": create_async_engine(f"sqlite+aiosqlite:///{database}"),
    }
    thing = things.get(wrong or "")
    with (
        pytest.raises(
            TypeError, match=f"takes a Session, .* not {type(thing).__name__}: pass .* db.session$"
        ),
        after_commit(thing),
    ):
        pass


def test_an_async_connection_that_is_not_connected_is_refused(database: Path) -> None:
    connection = create_async_engine(f"sqlite+aiosqlite:///{database}").connect()
    with pytest.raises(InvalidOptionError, match="not connected"), after_commit(connection):
        pass


@contextmanager
def refused() -> Any:
    with pytest.raises(InvalidOptionError, match="AUTOCOMMIT"):
        yield


def test_what_commits_each_statement_is_refused(database: Path, shop: Shop) -> None:
    address = f"sqlite:///{database}"
    by_argument = create_engine(address, isolation_level="AUTOCOMMIT")
    by_option = create_engine(address).execution_options(isolation_level="AUTOCOMMIT")
    for engine in (by_argument, by_option):
        with engine.connect() as connection, Session(engine) as session:
            for it in (connection, session, Session(connection)):
                with refused():
                    shop.held_back(it, 1)
        engine.dispose()


def test_a_connection_may_have_another_level_than_its_engine(database: Path, shop: Shop) -> None:
    engine = create_engine(f"sqlite:///{database}", isolation_level="AUTOCOMMIT")
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        connection.execute(text("INSERT INTO orders VALUES (1)"))
        shop.held_back(connection, 1)
        connection.commit()
    assert shop.handled == [1]
    engine.dispose()


def test_a_session_without_an_engine_of_its_own_is_refused_by_its_first_statement(
    database: Path, shop: Shop
) -> None:
    engine = create_engine(f"sqlite:///{database}", isolation_level="AUTOCOMMIT")
    with Session(binds={Order: engine}) as session:
        emission = shop.held_back(session, 1)
        with refused():
            session.get(Order, 1)
        session.close()
        assert emission.state == "dropped"
        session.get(Order, 1)  # nothing waits for it
    engine.dispose()


def test_sessions_need_no_greenlet(
    engine: Any, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy 2.1 leaves it to those who install `sqlalchemy[asyncio]`."""
    monkeypatch.setitem(sys.modules, "sqlalchemy.ext.asyncio", None)
    for name in [name for name in sys.modules if name.startswith(_transactions.__name__)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(madcrow_events, "_transactions", None)  # which the import replaces
    held_back = runpy.run_path(inspect.getfile(after_commit))["after_commit"]
    with Session(engine) as session, engine.connect() as connection:
        for it in (session, connection):
            with held_back(it, shop.dispatcher):
                shop.emit(1)
            assert shop.handled == []
            it.execute(text("SELECT 1"))
            it.commit()
            assert shop.handled.pop() == 1


# What is left behind


@pytest.mark.parametrize("end", ["commit", "nothing"])
@pytest.mark.parametrize("kind", ["Session", "Connection"])
def test_nothing_is_left_behind_by_what_is_gone(
    engine: Any, shop: Shop, kind: str, end: str
) -> None:
    """Not even if an event that waits refers to its session."""
    unit = KINDS[kind](engine)
    with after_commit(unit, shop.dispatcher):
        emission = shop.dispatcher.emit(shop.signal, unit, number=1)
    if end == "commit":
        unit.execute(text("SELECT 1"))
        unit.commit()
    unit.close()
    gone = [weakref.ref(it) for it in (unit, emission)]
    del unit, emission
    gc.collect()
    assert [it() for it in gone] == [None, None]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_session_that_goes_on_keeps_nothing_of_its_transactions(
    engine: Any, shop: Shop, end: str
) -> None:
    """Nor of its savepoints, while the transaction goes on."""
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        shop.held_back(session, 1)
        savepoint, transaction = session.begin_nested(), session.get_transaction()
        session.execute(text("SELECT 1"))
        of_savepoint, of_transaction = weakref.ref(savepoint), weakref.ref(transaction)
        getattr(savepoint, end)()
        savepoint = None
        session.begin_nested().commit()
        gc.collect()
        assert of_savepoint() is None
        getattr(session, end)()
        transaction = None
        gc.collect()
        assert of_transaction() is None


@pytest.mark.parametrize("end", ["commit", "rollback", None])
def test_a_connection_that_goes_on_keeps_nothing_of_its_savepoints(engine: Any, end: str) -> None:
    with engine.connect() as connection, after_commit(connection):
        (watcher,) = (it() for it in _watchers.values())
        savepoint = connection.begin_nested()
        assert len(watcher._marks) == 1
        if end:
            getattr(savepoint, end)()
        else:
            connection.rollback()
        assert watcher._marks == {}


def test_listeners_are_added_once(engine: Any, shop: Shop) -> None:
    with Session(engine) as session, engine.connect() as connection:
        for number in range(3):
            for it in (session, connection):
                shop.held_back(it, number)
                it.execute(text("SELECT 1"))
                it.commit()
        assert len(session.dispatch.after_transaction_create) == 1
        assert len(session.dispatch.after_begin) == 1
        assert len(connection.dispatch.before_cursor_execute) == 1
    assert shop.handled == [0, 0, 1, 1, 2, 2]


def test_sessions_of_many_threads_wait_each_for_its_own(engine: Any, shop: Shop) -> None:
    def work(start: int) -> None:
        for number in range(start, start + 50):
            with Session(engine) as session, session.begin() as transaction:
                shop.held_back(session, number)
                if number % 2:
                    transaction.rollback()

    threads = [threading.Thread(target=work, args=[100 * it]) for it in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shop.handled) == [100 * it + n for it in range(4) for n in range(0, 50, 2)]


# Any order of calls


class Model:
    """Which events go out, and when, in the plainest terms: lists of what waits."""

    def __init__(self) -> None:
        self.levels: list[list[int]] = [[]]  # what waits, and above it what each savepoint adds
        self.has_begun = False
        self.handled: list[int] = []

    def end(self, *, is_committed: bool) -> None:
        if self.has_begun:
            if is_committed:
                self.handled += [number for level in self.levels for number in level]
            self.levels = [[]]
            self.has_begun = False


class Calls:
    """A session or connection, and the model, to which the same is done."""

    def __init__(self, unit: Any, shop: Shop) -> None:
        self.unit = unit
        self.shop = shop
        self.model = Model()
        self.savepoints: list[Any] = []
        self.blocks = ExitStack()

    def emit(self, number: int) -> None:
        self.shop.held_back(self.unit, number)
        self.model.levels[-1].append(number)

    def execute(self, _number: int) -> None:
        self.unit.execute(text("SELECT 1"))
        self.model.has_begun = True

    def begin(self, _number: int) -> None:
        if not self.model.has_begun:
            self.unit.begin()
            self.model.has_begun = True

    def savepoint(self, _number: int) -> None:
        self.savepoints.append(self.unit.begin_nested())
        self.model.has_begun = True
        self.model.levels.append([])

    def release(self, _number: int) -> None:
        if self.savepoints:
            self.savepoints.pop().commit()
            above = self.model.levels.pop()
            self.model.levels[-1] += above

    def roll_back_to_savepoint(self, _number: int) -> None:
        if self.savepoints:
            self.savepoints.pop().rollback()
            self.model.levels.pop()

    def commit(self, _number: int) -> None:
        self.unit.commit()
        if isinstance(self.unit, Session):
            self.model.has_begun = True  # its commit begins a transaction if there is none
        self.end(is_committed=True)

    def rollback(self, _number: int) -> None:
        self.unit.rollback()
        self.end(is_committed=False)

    def close(self, _number: int) -> None:
        if isinstance(self.unit, Session):  # a connection is good for nothing more
            self.unit.close()
            self.end(is_committed=False)

    def end(self, *, is_committed: bool) -> None:
        self.model.end(is_committed=is_committed)
        self.savepoints.clear()

    def enter(self, _number: int) -> None:
        self.blocks.enter_context(after_commit(self.unit, self.shop.dispatcher))

    def exit(self, _number: int) -> None:
        self.blocks.close()


CALLS = [Calls.emit, Calls.execute, Calls.begin, Calls.savepoint, Calls.release]
CALLS += [Calls.roll_back_to_savepoint, Calls.commit, Calls.rollback, Calls.close]
CALLS += [Calls.enter, Calls.exit]
AT_THE_END = [Calls.exit, Calls.execute, Calls.commit]


@pytest.mark.parametrize("kind", ["Session", "Connection"])
@given(calls=st.lists(st.sampled_from(CALLS), max_size=25))
def test_whatever_is_called_the_events_that_are_committed_go_out(
    kind: str, calls: list[Any]
) -> None:
    signals = SignalRegistry()
    engine = with_real_transactions(create_engine("sqlite://"))
    with EventDispatcher(signals) as dispatcher, KINDS[kind](engine) as unit:
        shop = Shop(dispatcher, signals.signal("thing_happened"), Path())
        here = Calls(unit, shop)
        for number, call in enumerate([*calls, *AT_THE_END]):
            call(here, number)
            assert shop.handled == here.model.handled
    engine.dispose()
