"""Who takes part in a transaction writes just before its COMMIT, or never."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")
pytest.importorskip("greenlet")

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from madcrow_events import Emission
from madcrow_events._transactions import in_transaction, synchronous
from madcrow_events.contrib.sqlalchemy import after_commit
from support.transactions import Box, Unit, done, refuse

Committed = Callable[..., list[int]]


async def begin(unit: Unit) -> None:
    await done(unit.it.begin())


async def test_rows_are_written_once_before_the_commit_and_events_go_out_after_it(
    unit: Unit, box: Box, committed: Committed
) -> None:
    await begin(unit)
    emissions = [box.emit(unit, 1), box.emit(unit, 2)]
    assert [it.state for it in emissions] == ["deferred"] * 2
    await unit.insert(5)
    assert box.log == []

    await unit.commit()

    assert box.log == [("written", [1, 2]), "committed", 1, 2]
    assert (committed(), committed("orders")) == ([1, 2], [5])


@pytest.mark.parametrize("end", ["rollback", "close", "invalidate"])
async def test_nothing_is_written_if_the_transaction_is_not_committed(
    unit: Unit, box: Box, committed: Committed, end: str
) -> None:
    await begin(unit)
    await unit.insert(5)
    emission = box.emit(unit, 1)
    await getattr(unit, end)()
    if end == "invalidate":
        await unit.rollback()  # which SQLAlchemy wants of a connection
    assert (box.log, emission.state, committed()) == (["rolled back"], "dropped", [])


async def test_each_of_several_transactions_has_its_own(
    unit: Unit, box: Box, committed: Committed
) -> None:
    for number in (1, 2, 3, 4):
        await begin(unit)
        box.emit(unit, number)
        await (unit.rollback() if number % 2 else unit.commit())
    assert box.log == [
        *["rolled back", ("written", [2]), "committed", 2],
        *["rolled back", ("written", [4]), "committed", 4],
    ]
    assert committed() == [2, 4]


@pytest.mark.parametrize("is_first_in_a_savepoint", [True, False])
@pytest.mark.parametrize("released", [*itertools.product([True, False], repeat=3)])
async def test_a_savepoint_takes_what_was_taken_in_it_along(
    unit: Unit,
    box: Box,
    committed: Committed,
    released: tuple[bool, bool, bool],
    is_first_in_a_savepoint: bool,
) -> None:
    """However deep, and even if nothing had been emitted when it began."""

    async def emit(number: int) -> Emission[Any]:
        await unit.insert(number)
        return box.emit(unit, number)

    async def level(number: int) -> None:
        if number > len(released):
            return
        async with unit.block("begin_nested") as savepoint:
            if number > 1 or not is_first_in_a_savepoint:
                emissions[number] = await emit(number)
            await level(number + 1)
            emissions[10 * number] = await emit(10 * number)
            await done(savepoint.commit() if released[number - 1] else savepoint.rollback())

    emissions: dict[int, Emission[Any]] = {}
    async with unit.block("begin"):
        await unit.insert(99)
        if not is_first_in_a_savepoint:
            emissions[100] = await emit(100)
        await level(1)
        emissions[1000] = await emit(1000)

    def is_kept(number: int) -> bool:
        depth = number if number < 10 else number // 10
        return number >= 100 or all(released[:depth])

    kept = sorted(it for it in emissions if is_kept(it))
    assert committed() == kept
    assert committed("orders") == sorted([*kept, 99])
    assert {it for it, emission in emissions.items() if emission.state == "done"} == {*kept}
    assert sorted(it for it in box.log if isinstance(it, int)) == kept


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError])
@pytest.mark.parametrize("is_block", [True, False])
async def test_what_the_write_raises_comes_out_of_the_commit_and_nothing_is_committed(
    unit: Unit, box: Box, committed: Committed, is_block: bool, error: type[BaseException]
) -> None:
    """Nor is the connection handed on with its transaction open: the next commit has nothing."""

    def fail() -> None:
        raise error

    async def emit() -> Emission[Any]:
        await unit.insert(5)
        emission = box.emit(unit, 1)
        (rows,) = box.rows.values()
        rows.before_write = fail
        return emission

    if is_block:
        with pytest.raises(error):
            async with unit.block("begin"):
                emission = await emit()
    else:
        await begin(unit)
        emission = await emit()
        with pytest.raises(error):
            await unit.commit()
        assert box.log == []
        await unit.rollback()
    assert (box.log, emission.state) == (["rolled back"], "dropped")

    await begin(unit)
    await unit.insert(6)
    await unit.commit()
    assert (committed(), committed("orders")) == ([], [6])


async def test_a_commit_that_is_tried_again_writes_again(
    unit: Unit, box: Box, committed: Committed
) -> None:
    def fail_once() -> None:
        rows.before_write = int
        raise LookupError

    await begin(unit)
    box.emit(unit, 1)
    (rows,) = box.rows.values()
    rows.before_write = fail_once
    with pytest.raises(LookupError):
        await unit.commit()
    box.emit(unit, 2)
    assert box.log == []
    await unit.commit()
    assert box.log == [("written", [1, 2]), "committed", 1, 2]
    assert committed() == [1, 2]


async def test_a_commit_that_the_database_refuses_takes_the_rows_along(
    unit: Unit, box: Box, committed: Committed
) -> None:
    await begin(unit)
    await unit.insert_parcel(1)  # of no order, which is found out by the commit
    emission = box.emit(unit, 1)
    with pytest.raises(IntegrityError):
        await unit.commit()
    await unit.rollback()
    assert box.log == [("written", [1]), "rolled back"]
    assert (emission.state, committed()) == ("dropped", [])


async def test_a_participant_that_has_nothing_left_to_write_is_not_asked(
    unit: Unit, box: Box
) -> None:
    """So that a session need not find a connection for it."""
    await begin(unit)
    async with unit.block("begin_nested") as savepoint:
        box.emit(unit, 1)
        (rows,) = box.rows.values()
        await done(savepoint.rollback())
    asked: list[Any] = []
    rows.before_write = lambda: asked.append(1)
    await unit.commit()
    assert (asked, box.log) == ([], ["committed"])


async def test_several_participants_write_in_the_order_in_which_they_joined(
    unit: Unit, box: Box, committed: Committed
) -> None:
    other = Box(box.dispatcher, box.signal)
    other.log = box.log
    await begin(unit)
    box.emit(unit, 1)
    other.emit(unit, 2)
    box.emit(unit, 3)
    await unit.commit()
    assert [it for it in box.log if not isinstance(it, int)] == [
        ("written", [1, 3]),
        ("written", [2]),
        *["committed", "committed"],
    ]
    assert committed() == [1, 2, 3]


async def test_events_that_no_with_is_around_wait_for_this_transaction_only(
    unit: Unit, box: Box
) -> None:
    """What tasks of theirs emit later goes out at once."""
    await begin(unit)
    box.emit(unit, 1)
    await unit.commit()
    await begin(unit)
    box.dispatcher.emit(box.signal, number=2)
    assert box.log[-2:] == [1, 2]


@pytest.mark.parametrize("is_commit", [True, False])
async def test_a_with_that_is_around_goes_on_after_the_transaction(
    unit: Unit, box: Box, is_commit: bool
) -> None:
    with after_commit(unit.it, box.dispatcher):
        await begin(unit)
        box.emit(unit, 1)
        box.dispatcher.emit(box.signal, number=2)
        await (unit.commit() if is_commit else unit.rollback())
        assert [it for it in box.log if isinstance(it, int)] == ([1, 2] if is_commit else [])
        box.log.clear()
        await begin(unit)
        box.dispatcher.emit(box.signal, number=3)
        async with unit.block("begin_nested") as savepoint:
            await unit.insert(1)
            box.emit(unit, 4)
            await done(savepoint.rollback())
        assert box.log == []
        await unit.commit()
    assert box.log == ["committed", 3]


async def test_a_session_begins_its_transaction_as_if_something_was_added(
    unit: Unit, box: Box, committed: Committed
) -> None:
    """By no statement, and not that of a connection, which has to be there."""
    watched = synchronous(unit.it, refuse)
    is_session = isinstance(watched, Session)
    assert in_transaction(watched) is is_session
    assert watched.in_transaction() is is_session
    if isinstance(watched, Session):
        assert not watched.bind.pool.checkedout()
    else:
        await unit.insert(1)
        assert in_transaction(watched)
    box.emit(unit, 1)
    await unit.commit()
    assert committed() == [1]


async def test_a_participant_is_forgotten_at_the_end_of_its_transaction(
    unit: Unit, box: Box
) -> None:
    """The next one asks it for nothing."""
    await begin(unit)
    box.emit(unit, 1)
    await unit.commit()
    (rows,) = box.rows.values()
    rows.before_write = pytest.fail
    await begin(unit)
    await unit.insert(1)
    async with unit.block("begin_nested") as savepoint:
        await done(savepoint.rollback())
    assert rows.taken == [1]
    await unit.commit()
    assert box.log.count("committed") == 1
