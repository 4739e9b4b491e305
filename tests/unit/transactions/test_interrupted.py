"""What an interrupt cuts off is neither written without its commit nor held back for ever."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("aiosqlite")
pytest.importorskip("greenlet")

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from madcrow_events import _transactions
from support.transactions import KINDS, Box

Committed = Callable[..., list[int]]

ROOMS = {*map(str, Path(inspect.getfile(_transactions)).parent.glob("*.py"))}
WRITER = inspect.getfile(Box)


class Exit(BaseException):
    """Something like a KeyboardInterrupt, which pytest would take for one."""


def interrupted(call: Callable[[], object], line: int, files: set[str]) -> bool:
    """Raise `Exit` at one of the lines of these files that run; return whether it did."""
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


def delete_all(engine: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM notes"))


@pytest.mark.parametrize("kind", ["Session", "Connection"])
@pytest.mark.parametrize("is_tried_again", [True, False])
@pytest.mark.once
def test_an_interrupted_commit_writes_all_or_nothing(
    engine: Any, box: Box, committed: Committed, kind: str, is_tried_again: bool
) -> None:
    """At any line of ours, and in the write; the same holds if the commit is tried again."""
    for line in itertools.count():
        delete_all(engine)
        box.log.clear()
        with KINDS[kind](engine) as unit:
            unit.begin()
            box.emit(unit, 1)
            box.emit(unit, 2)
            was_interrupted = interrupted(unit.commit, line, ROOMS | {WRITER})
            if was_interrupted and is_tried_again and unit.in_transaction():
                try:
                    unit.commit()
                except Exception:  # SQLAlchemy refuses it
                    end_all(unit)
            end_all(unit)
            kept = committed()
            assert kept in ([], [1, 2])
            unit.begin()
            box.emit(unit, 3)
            unit.commit()
            assert committed() == [*kept, 3]
            handled = [it for it in box.log if isinstance(it, int)]
            assert handled.pop() == 3
            assert handled in ([], kept, kept[:1], kept[1:])  # an interrupt may hit a handler
        if not was_interrupted:
            break
    assert line > 10


@pytest.mark.parametrize("kind", ["Session", "Connection"])
@pytest.mark.parametrize("end", ["rollback", "close"])
@pytest.mark.once
def test_what_an_interrupted_rollback_leaves_is_never_written(
    engine: Any, box: Box, committed: Committed, kind: str, end: str
) -> None:
    for line in itertools.count():
        delete_all(engine)
        box.log.clear()
        with KINDS[kind](engine) as unit:
            unit.begin()
            box.emit(unit, 1)
            unit.begin_nested()
            box.emit(unit, 2)
            was_interrupted = interrupted(getattr(unit, end), line, ROOMS)
            if kind == "Session" or end == "rollback":
                end_all(unit)
        with KINDS[kind](engine) as unit:
            unit.begin()
            box.emit(unit, 3)
            unit.commit()
        assert committed() == [3]
        assert [it for it in box.log if isinstance(it, int)] == [3]
        if not was_interrupted:
            break
    assert line > 10


@pytest.mark.parametrize("kind", ["Session", "Connection"])
def test_an_interrupted_emission_is_taken_or_not_and_the_next_one_is(
    engine: Any, box: Box, committed: Committed, kind: str
) -> None:
    for line in itertools.count():
        delete_all(engine)
        box.log.clear()
        with KINDS[kind](engine) as unit:
            unit.begin()
            was_interrupted = interrupted(lambda it=unit: box.emit(it, 1), line, ROOMS)
            box.emit(unit, 2)
            unit.commit()
        assert committed() in ([2], [1, 2])
        assert [it for it in box.log if isinstance(it, int)] in ([2], [1, 2])
        if not was_interrupted:
            break
    assert line > 10


def test_a_late_row_whose_write_is_interrupted_makes_the_commit_fail_or_is_written(
    engine: Any, box: Box, committed: Committed
) -> None:
    for line in itertools.count():
        delete_all(engine)
        found: list[bool] = []

        def emit(session: Session, line: int = line, found: list[bool] = found) -> None:
            found.append(interrupted(lambda: box.emit(session, 2), line, ROOMS))

        with Session(engine) as session:
            box.emit(session, 1)
            event.listen(session, "before_commit", emit)
            try:
                session.commit()
            except Exception as error:
                assert "inactive" in str(error)  # noqa: PT017  # not at each line
                assert committed() == []
            else:
                assert committed() in ([1], [1, 2])
        assert len(found) == 1
        if not found[0]:
            break
    assert committed() == [1, 2]
    assert line > 5
