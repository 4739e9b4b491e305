"""Claims go by the moments at which deliveries are due."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from madcrow_events.outbox import _claiming
from madcrow_events.outbox._claiming import Claiming
from madcrow_events.outbox._rows import Look
from support.outboxes import Order, emit, keyed_outbox, sqlite_engine


class Claims:
    """An outbox with a handler, and what claims for it."""

    def __init__(self, folder: Path) -> None:
        self.engine = sqlite_engine(folder)
        self.outbox = keyed_outbox()
        self.outbox.on("order", id="book")(book)
        self.outbox.metadata.create_all(self.engine)
        self.statements = self.outbox._statements_for(self.engine)
        handlers = [it.announced() for it in self.outbox._handlers.values()]
        with self.engine.begin() as connection:
            self.id = self.statements.announce(connection, handlers)["book"]
        self.claiming = Claiming(self.statements, {self.id: self.outbox._handlers["book"]}, 30.0)

    def make(self, customer: str, *, ago: float) -> None:
        """Make a delivery that has been due for so many seconds."""
        emit(self.outbox, self.engine, Order(number=1, customer=customer))
        delivery = self.outbox.tables.delivery
        with self.engine.begin() as connection:
            self.claiming.expand(connection)
            due = self.statements.now(connection) - int(ago * 1_000_000)
            connection.execute(delivery.update().where(delivery.c.key == customer).values(due=due))

    def look(self) -> Look:
        with self.engine.begin() as connection:
            return self.claiming.look(connection)

    def claim(self, room: int) -> list[str | None]:
        """Return the keys of what is claimed."""
        with self.engine.begin() as connection:
            look = self.claiming.look(connection)
            runs = self.claiming.claim(connection, look, room=room, running=Counter())
        return [it.rows[0].key for it in runs]


def book(context: Order) -> None:
    """Do nothing."""


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[Claims]:
    claims = Claims(tmp_path)
    yield claims
    claims.engine.dispose()


def test_what_was_due_first_is_claimed_first(claims: Claims) -> None:
    claims.make("new", ago=1)
    claims.make("old", ago=3)
    assert claims.claim(1) == ["old"]
    assert claims.claim(2) == ["new"]


def test_what_is_committed_a_little_late_is_claimed_first(claims: Claims) -> None:
    claims.make("now", ago=5)
    claims.make("next", ago=4)
    assert claims.claim(1) == ["now"]
    claims.make("late", ago=5.5)
    assert claims.claim(1) == ["late"]


def test_what_is_committed_very_late_is_claimed_when_nothing_else_is_due(claims: Claims) -> None:
    claims.make("now", ago=5)
    claims.make("next", ago=4)
    assert claims.claim(1) == ["now"]
    claims.make("late", ago=60)
    assert claims.claim(1) == ["next"]
    assert claims.claim(1) == ["late"]


def test_it_is_claimed_after_a_second_whatever_else_is_due(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        claims.make(f"now-{number}", ago=5)
    assert claims.claim(1) == ["now-0"]
    claims.make("late", ago=60)
    assert claims.claim(1) == ["now-1"]
    later = _claiming.monotonic() + 1.1
    monkeypatch.setattr(_claiming, "monotonic", lambda: later)
    assert claims.claim(1) == ["late"]


def test_a_look_does_not_read_what_waits_for_a_handler_that_is_paused(claims: Claims) -> None:
    """However much that is."""

    def steps() -> int:
        counted = []
        with claims.engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda: counted.append(1), 100)
            claims.claiming.look(connection)
            driver.set_progress_handler(None, 0)
        return len(counted)

    emit(claims.outbox, claims.engine, *(Order(number=1, customer=str(it)) for it in range(200)))
    with claims.engine.begin() as connection:
        claims.claiming.expand(connection)
    claims.outbox.inspect(claims.engine).pause("book")
    assert claims.look().due == {}
    assert steps() < 10


def test_a_look_tells_when_what_is_left_is_due(claims: Claims) -> None:
    claims.make("now", ago=5)
    claims.make("later", ago=-60)
    assert claims.claim(2) == ["now"]
    look = claims.look()
    assert 29 < (look.due[claims.id] - look.now) / 1_000_000 < 31  # the end of the lease


def test_what_another_worker_has_claimed_since_the_look_is_left_to_it(claims: Claims) -> None:
    claims.make("now", ago=5)
    look = claims.look()
    assert claims.claim(1) == ["now"]
    with claims.engine.begin() as connection:
        assert claims.claiming.claim(connection, look, room=1, running=Counter()) == []
