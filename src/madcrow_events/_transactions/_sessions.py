"""Watching the transactions of a session by its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import Session

from madcrow_events._transactions._connections import roll_back
from madcrow_events._transactions._participants import Participant
from madcrow_events._transactions._refusing import Refusal, Refuse, is_autocommit
from madcrow_events._transactions._watching import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction

__all__ = ["SessionWatcher"]


class SessionWatcher(Watcher):
    """Watches the transactions of a session, by listeners that all sessions share.

    A new session is made for each request, and each listener of its own would cost it as much as
    four sessions; one that is shared costs a look at whether the session has a watcher.
    """

    _refuse: Refuse | None = None

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._root: SessionTransaction | None = None
        """The outermost transaction that is watched."""
        self._committed: SessionTransaction | None = None
        setattr(session, _WATCHER, self)

    def watch(self, watched: Session) -> None:
        root = watched.get_transaction()
        if root is None:
            self.give_up()
            self._root = None
            return
        self._adopt(root)
        # Nothing was taken in a savepoint that has no mark: it may as well have begun now.
        savepoint = watched.get_nested_transaction()
        while savepoint is not None:
            if savepoint.nested and savepoint not in self._marks:
                self.mark(savepoint)
            savepoint = savepoint.parent

    def follow(self, watched: Session, refuse: Refuse) -> None:
        if self._refuse is None:
            event.listen(watched, "after_transaction_create", self._on_create)
            event.listen(watched, "after_begin", self._on_begin)
            self._refuse = refuse

    def join(self, watched: Session, participant: Participant) -> None:
        if _is_being_committed(watched):  # so `before_commit` is over, or just being sent
            self.writes_at_once = True
        super().join(watched, participant)

    def _adopt(self, root: SessionTransaction) -> None:
        if root is not self._root:
            self._committed = None
            self.begin()
            self._root = root

    def _connection_for(self, watched: Session, participant: Participant) -> Connection:
        try:
            connection = watched.connection(bind_arguments={"clause": participant.clause})
        except UnboundExecutionError:
            begun = _connections_of(watched)
            if len(begun) != 1:
                raise participant.refuse(Refusal.NO_BIND, watched) from None
            (connection,) = begun
        if is_autocommit(connection):
            raise participant.refuse(Refusal.AUTOCOMMIT, watched)
        return connection

    def _spoil(self, watched: Session) -> None:
        for connection in _connections_of(watched):
            roll_back(connection)

    # The events of the session

    def _on_create(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self.mark(transaction)
        elif transaction.parent is None:
            self._adopt(transaction)

    def _on_begin(self, session: Session, _transaction: object, connection: Connection) -> None:
        if self._refuse is not None and self.is_in_use and is_autocommit(connection):
            raise self._refuse(Refusal.AUTOCOMMIT, session)

    def _on_before_commit(self, session: Session) -> None:
        # Also called for savepoints; and once for all that are open when the session is committed.
        if session.get_nested_transaction() is None or _is_being_committed(session):
            self.watch(session)
            if self._participants:
                session.flush()  # for what mapped objects still emit
            self.write(session)

    def _on_commit(self, session: Session) -> None:
        # Also called for savepoints, and before the connections are free: so this only notes it.
        self.watch(session)
        savepoint = session.get_nested_transaction()
        self._committed = savepoint or self._root
        if savepoint is None:
            self._is_undecided = False

    def _on_end(self, _session: Session, transaction: SessionTransaction) -> None:
        if not transaction.nested and transaction.parent is not None:  # it is one of a flush
            return
        if not transaction.nested:
            self._adopt(transaction)
        is_committed = transaction is self._committed
        if is_committed:
            self._committed = None
        if not transaction.nested:
            self._root = None
            self.settle(is_committed=is_committed)
        elif is_committed:
            self.release(transaction)
        elif transaction in self._marks:
            self.roll_back_to(transaction)


_WATCHER = "_madcrow_events_watcher"
"""The attribute of a session that keeps its watcher."""


def _heard_by(hear: Callable[..., None]) -> Callable[..., None]:
    """Return a listener for all sessions, that passes an event on to the watcher of one."""

    def listener(session: Session, *arguments: Any) -> None:
        watcher = getattr(session, _WATCHER, None)
        if isinstance(watcher, SessionWatcher):
            hear(watcher, session, *arguments)

    return listener


event.listen(Session, "before_commit", _heard_by(SessionWatcher._on_before_commit))
event.listen(Session, "after_commit", _heard_by(SessionWatcher._on_commit))
event.listen(Session, "after_transaction_end", _heard_by(SessionWatcher._on_end))


def _is_being_committed(session: Session) -> bool:
    """Whether the outermost transaction has begun to be committed or prepared."""
    # There is no public name for it.
    running = getattr(session.get_transaction(), "_current_fn", None)
    return getattr(running, "__name__", None) in ("_prepare_impl", "commit")


def _connections_of(session: Session) -> set[Connection]:
    """Return the connections that take part in the transaction of a session."""
    # There is no public name for it before SQLAlchemy 2.1.7.
    begun = getattr(session.get_transaction(), "_connections", {})
    return {entry[0] for entry in begun.values()}
