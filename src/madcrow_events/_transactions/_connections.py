"""Watching the transactions of a connection by its events, and by their class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, RootTransaction, TwoPhaseTransaction, event
from sqlalchemy.sql.expression import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)

from madcrow_events._transactions._participants import Participant
from madcrow_events._transactions._refusing import Refuse
from madcrow_events._transactions._watching import Watcher, known_watcher

__all__ = ["ConnectionWatcher", "roll_back"]


class ConnectionWatcher(Watcher):
    """Watches the transactions of a connection.

    SQLAlchemy has no event for a commit that is done. So the transaction itself reports it: from
    its first statement or emission on, it is an object of a class of this module. The `commit`
    event is no place to write in: if its listener raises, SQLAlchemy returns the connection to
    the pool with its transaction open.
    """

    _follows = False

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        event.listen(connection, "before_cursor_execute", self._on_execute)

    def watch(self, watched: Connection) -> None:
        transaction = watched.get_transaction()
        watching = _WATCHING.get(type(transaction))
        if watching is not None:
            self.begin()
            transaction.__class__ = watching
        elif transaction is None:
            self.give_up()

    def follow(self, watched: Connection, refuse: Refuse) -> None:  # noqa: ARG002  # for sessions
        if not self._follows:
            event.listen(watched, "commit", self._on_commit)
            event.listen(watched, "commit_twophase", self._on_commit)
            event.listen(watched, "rollback", self._on_rollback)
            event.listen(watched, "rollback_twophase", self._on_rollback)
            self._follows = True

    def _connection_for(self, watched: Connection, participant: Participant) -> Connection:  # noqa: ARG002  # there is no other one
        return watched

    def _spoil(self, watched: Connection) -> None:
        roll_back(watched)

    def _on_execute(
        self,
        connection: Connection,
        _cursor: object,
        _statement: str,
        _parameters: object,
        context: Any,
        _is_many: bool,
    ) -> None:
        self.watch(connection)
        statement = context.invoked_statement
        if isinstance(statement, SavepointClause):
            self.mark(statement.ident)
        elif isinstance(statement, ReleaseSavepointClause):
            self.release(statement.ident)
        elif isinstance(statement, RollbackToSavepointClause):
            self.roll_back_to(statement.ident)

    def _on_commit(self, connection: Connection, *_: object) -> None:
        self._settle_unused(connection, is_committed=True)

    def _on_rollback(self, connection: Connection, *_: object) -> None:
        self._settle_unused(connection, is_committed=False)

    def _settle_unused(self, connection: Connection, *, is_committed: bool) -> None:
        """Settle a transaction without a statement, whose end nobody needs to wait for."""
        if type(connection.get_transaction()) in _WATCHING:
            self.give_up()
            self.settle(is_committed=is_committed)


class _WatchedTransaction(RootTransaction):
    """A transaction of a connection that tells before it is committed, and when it has ended."""

    __slots__ = ()

    def commit(self) -> None:
        _write(self)
        with _ending(self, is_committed=True):
            super().commit()

    def rollback(self) -> None:
        # A `with` would roll back what it has committed, if a handler raises out of the commit.
        if self.connection.get_transaction() is self:
            with _ending(self, is_committed=False):
                super().rollback()

    def close(self) -> None:
        with _ending(self, is_committed=False):
            super().close()


class _WatchedTwoPhaseTransaction(_WatchedTransaction, TwoPhaseTransaction):
    """The same, if it is committed in two phases."""

    __slots__ = ()

    def prepare(self) -> None:
        _write(self)
        super().prepare()


_WATCHING = {
    RootTransaction: _WatchedTransaction,
    TwoPhaseTransaction: _WatchedTwoPhaseTransaction,
}


def roll_back(connection: Connection) -> None:
    """Roll back the innermost savepoint of a connection, or its transaction; else do nothing."""
    transaction = connection.get_nested_transaction() or connection.get_transaction()
    if transaction is not None:
        transaction.rollback()


def _write(transaction: RootTransaction) -> None:
    """Let those write who take part in a transaction, unless it has ended."""
    watcher = known_watcher(transaction.connection)
    if watcher is not None and transaction.is_active:
        watcher.write(transaction.connection)


@contextmanager
def _ending(transaction: RootTransaction, *, is_committed: bool) -> Iterator[None]:
    # None if an interrupt has cut off the call that would have made it known.
    watcher = known_watcher(transaction.connection)
    is_over = transaction.connection.get_transaction() is not transaction
    try:
        yield
    except BaseException:
        is_committed = False
        raise
    finally:
        if watcher is not None and not is_over:
            watcher.settle(is_committed=is_committed)
