"""Events that wait for the commit of a session or connection of SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias
from weakref import ReferenceType, WeakKeyDictionary, WeakSet, ref

from sqlalchemy import Connection, Engine, RootTransaction, TwoPhaseTransaction, event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session
from sqlalchemy.sql.expression import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)

from madcrow_events.dispatcher import EventDispatcher, get_event_dispatcher
from madcrow_events.emissions._frames import AmbientFrame, enter, leave
from madcrow_events.emissions._holding import DeferralFrame, Raised
from madcrow_events.exceptions import InvalidOptionError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
else:
    try:
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
    except ImportError:  # without greenlet, so that nobody has one of these
        AsyncConnection, AsyncSession, async_scoped_session = Connection, Session, scoped_session

__all__ = ["after_commit"]

_Pending: TypeAlias = "dict[DeferralFrame, int]"
"""How many emissions each block held back at some moment."""


def after_commit(
    session: (
        Session
        | AsyncSession
        | scoped_session[Any]
        | async_scoped_session[Any]
        | Connection
        | AsyncConnection
    ),
    dispatcher: EventDispatcher | None = None,
) -> AbstractContextManager[None]:
    """Hold back what is emitted in the `with` until the session's transaction is committed.

    The events go out when the outermost transaction has been committed, in the order in which they
    were emitted. They are dropped if this transaction, or the savepoint in which they were emitted,
    is rolled back, or if the session is closed before the commit. If no transaction has begun, they
    wait for the next one, or are dropped if the `with` raises. The `with` itself begins and ends no
    transaction. It is a plain `with` for async sessions, too.

    Handlers run before the commit returns, even inside of a `deferred` block, and must not use the
    session. Async handlers are started, as by `EventDispatcher.emit`. If a handler has
    `on_error="raise"`, its exception comes out of the commit, which is done all the same.

    Args:
        session: the session or connection in whose transaction you emit. A `scoped_session` or
            `async_scoped_session` stands for its present session.
        dispatcher: the dispatcher that emits, or a sibling of it; the default dispatcher if None.

    Returns:
        A context manager for one `with`.

    Raises:
        TypeError: `session` is something else, such as an engine.
        InvalidOptionError: the isolation level is `AUTOCOMMIT`, so there is no transaction; or the
            `AsyncConnection` is not connected. If a session finds its engine only by its tables,
            its first statement raises the error.

    Example:
        ```python
        from sqlalchemy import create_engine, text
        from sqlalchemy.orm import Session

        from madcrow_events import emit_event, madcrow_signals, on_event
        from madcrow_events.contrib.sqlalchemy import after_commit

        madcrow_signals.signal("order_placed", "A customer placed an order.")
        on_event("order_placed")(lambda order_id: print("confirmed: order", order_id))

        engine = create_engine("sqlite://")
        with Session(engine) as session:
            session.execute(text("CREATE TABLE orders (id INTEGER)"))
            with after_commit(session):
                emit_event("order_placed", order_id=1)
            print("no handler has been called yet")
            session.commit()
        engine.dispose()
        ```

        ```text
        no handler has been called yet
        confirmed: order 1
        ```
    """
    return _Block(_synchronous(session), dispatcher or get_event_dispatcher())


class _Block:
    """One `with after_commit(...)`."""

    __slots__ = ("__weakref__", "_dispatcher", "_frame", "_held_by", "_watched", "kept")

    kept: int
    """How many of the emissions that are held back are older than this `with`."""

    def __init__(self, watched: Session | Connection, dispatcher: EventDispatcher) -> None:
        self._watched = watched
        self._dispatcher = dispatcher
        self._frame: AmbientFrame | None = None

    def __enter__(self) -> None:
        if self._frame is not None:
            raise RuntimeError("after_commit is good for one `with`: call it again")
        watcher = _watcher_of(self._watched)
        watcher.watch(self._watched)
        self._held_by = held_by = watcher.holder_for(self._dispatcher)
        self._frame = held_by.frame_of_part()
        self.kept = len(held_by.held_back)
        watcher.open.add(self)  # which forgets it if an interrupt keeps `__exit__` from its call
        enter(self._frame, self)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._frame is not None  # noqa: S101  # it has been entered
        leave(self._frame)
        watcher = _watcher_of(self._watched)
        watcher.open.discard(self)
        if self._watched.get_transaction() is None:
            if error is not None:  # no transaction will decide
                self._held_by.discard(keep=self.kept)
            if not watcher.open:
                watcher.end_idle()

    async def __aenter__(self) -> NoReturn:
        raise TypeError(
            "after_commit is for a plain `with`, even if the session is async: write "
            "`with after_commit(session):`"
        )

    __aexit__ = __aenter__


def _synchronous(session: Any) -> Session | Connection:
    """Return the session or connection itself, or the one behind a proxy.

    Raises:
        TypeError: it is something else.
        InvalidOptionError: it has no transactions, or no connection yet.
    """
    match session:
        case scoped_session() | async_scoped_session():
            return _synchronous(session())
        case AsyncSession(sync_session=found) | (Session() as found):
            bind: Engine | Connection | None = found.bind
        case AsyncConnection(sync_connection=found) | (Connection() as found):
            if found is None:
                raise InvalidOptionError(
                    "the AsyncConnection is not connected: write `async with engine.connect()`",
                    option="session",
                )
            bind = found
        case _:
            raise TypeError(
                "after_commit takes a Session, AsyncSession, scoped_session, async_scoped_session, "
                f"Connection or AsyncConnection, not {type(session).__name__}: pass the session "
                "you emit in, such as db.session"
            )
    _refuse_autocommit(bind)
    return found


def _refuse_autocommit(bind: Engine | Connection | None) -> None:
    """Refuse what commits each statement by itself, as far as its settings tell.

    Raises:
        InvalidOptionError: the isolation level is `AUTOCOMMIT`.
    """
    if bind is None:
        return
    # There is no public name for the level that was given to `create_engine`.
    of_engine = getattr(bind.dialect, "_on_connect_isolation_level", None)
    if bind.get_execution_options().get("isolation_level", of_engine) == "AUTOCOMMIT":
        raise InvalidOptionError(
            "after_commit needs a transaction, but the isolation level is AUTOCOMMIT: emit without "
            "after_commit, or choose another isolation level",
            option="session",
        )


class _Watcher:
    """Holds events back for the transactions of one session or connection."""

    def __init__(self) -> None:
        self.open: WeakSet[_Block] = WeakSet()
        """Each `with` that has begun and not ended."""
        self._holders: list[DeferralFrame] = []
        """One for each dispatcher and its siblings, in the order of their first use.

        A holder is for several transactions if a `with` is around these.
        """
        self._marks: dict[object, _Pending] = {}
        """For each savepoint, what was held back when it began."""
        self._is_undecided = False
        """Whether a transaction has begun, and neither its commit nor its rollback was noticed."""

    @property
    def is_in_use(self) -> bool:
        """Whether there is something that holds events back."""
        return bool(self._holders)

    def holder_for(self, dispatcher: EventDispatcher) -> DeferralFrame:
        """Return what holds back the events of a dispatcher; make it at the first call."""
        for holder in self._holders:
            if holder.is_of(dispatcher):
                return holder
        holder = DeferralFrame(dispatcher, None)
        # In an empty context, because it may go on after all that is around this `with`.
        Context().run(holder.open)
        self._holders.append(holder)
        return holder

    def watch(self, watched: Any) -> None:
        """See to it that the end of the present transaction is noticed."""

    def begin(self) -> None:
        """Note that a transaction has begun."""
        self.give_up()
        self._is_undecided = True

    def give_up(self) -> None:
        """Drop what waits for a transaction that has gone without notice, by an interrupt."""
        if self._is_undecided:
            self._drop()
            self._is_undecided = False

    def mark(self, savepoint: object) -> None:
        """Note what is held back, as a savepoint begins."""
        self._marks[savepoint] = {it: len(it.held_back) for it in self._holders}

    def roll_back_to(self, savepoint: object) -> None:
        """Drop what was emitted since a savepoint began."""
        mark = self._marks.pop(savepoint, {})
        for holder in self._holders:
            holder.discard(keep=mark.get(holder, 0))

    def release(self, savepoint: object) -> None:
        """Forget a savepoint, so that its events go the way of the transaction."""
        self._marks.pop(savepoint, None)

    def settle(self, *, is_committed: bool) -> None:
        """Let what is held back go out, or drop it, at the end of a transaction."""
        if not is_committed:
            self._drop()
        self._is_undecided = False
        self._forget()
        holders = [*self._holders]
        if is_last := not self.open:
            self._holders.clear()  # first, because a handler may use the session
        raised = Raised()
        for holder in holders:
            try:
                if is_last:
                    # From now on, what a task from one of its `with` emits goes out at once.
                    holder.end(None)
                if is_committed or is_last:
                    holder.flush()  # even if a block is around the commit
            except BaseException as error:
                if is_last:
                    holder.break_off()  # if an interrupt came before anything went out
                raised.add(error, [])
        raised.again()

    def end_idle(self) -> None:
        """End the holders that nobody may end later, so that nothing is held back for ever."""
        idle = [it for it in self._holders if not it.held_back]
        for holder in idle:
            self._holders.remove(holder)
            holder.end(None)
            holder.flush()  # what another thread has emitted at this very moment

    def _drop(self) -> None:
        self._forget()
        for holder in self._holders:
            holder.discard()

    def _forget(self) -> None:
        """Forget what the savepoints and each `with` have noted."""
        self._marks.clear()
        for block in self.open:
            block.kept = 0


class _SessionWatcher(_Watcher):
    """Holds events back for the transactions of a session, and listens to these."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._committed: SessionTransaction | None = None
        event.listen(session, "after_begin", self._on_begin)
        event.listen(session, "after_transaction_create", self._on_create)
        event.listen(session, "after_commit", self._on_commit)
        event.listen(session, "after_transaction_end", self._on_end)

    def watch(self, watched: Session) -> None:
        if watched.get_transaction() is not None:
            self._is_undecided = self._is_undecided or self._committed is None
        else:
            self.give_up()

    def _on_begin(self, _session: Session, _transaction: object, connection: Connection) -> None:
        if self.is_in_use:
            _refuse_autocommit(connection)

    def _on_create(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:
            self.mark(transaction)
        elif transaction.parent is None:
            self._committed = None
            self.begin()

    def _on_commit(self, session: Session) -> None:
        # Also called for savepoints, and before the connections are free: so this only notes it.
        nested = session.get_nested_transaction()
        self._committed = nested or session.get_transaction()
        if nested is None:
            self._is_undecided = False

    def _on_end(self, _session: Session, transaction: SessionTransaction) -> None:
        is_committed = transaction is self._committed
        if is_committed:
            self._committed = None
        if transaction.nested:
            (self.release if is_committed else self.roll_back_to)(transaction)
        elif transaction.parent is None:  # and is not one of a flush
            self.settle(is_committed=is_committed)


class _ConnectionWatcher(_Watcher):
    """Holds events back for the transactions of a connection, and listens to these.

    SQLAlchemy has no event for a commit that is done. So the transaction itself reports it: from
    its first statement on, it is an object of a class of this module.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        event.listen(connection, "before_cursor_execute", self._on_execute)
        event.listen(connection, "commit", self._on_commit)
        event.listen(connection, "commit_twophase", self._on_commit)
        event.listen(connection, "rollback", self._on_rollback)
        event.listen(connection, "rollback_twophase", self._on_rollback)

    def watch(self, watched: Connection) -> None:
        transaction = watched.get_transaction()
        watching = _WATCHING.get(type(transaction))
        if watching is not None:
            self.begin()
            transaction.__class__ = watching
        elif transaction is None:
            self.give_up()

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
    """A transaction of a connection that tells when it has ended."""

    __slots__ = ()

    def commit(self) -> None:
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


_WATCHING = {
    RootTransaction: _WatchedTransaction,
    TwoPhaseTransaction: _WatchedTwoPhaseTransaction,
}


@contextmanager
def _ending(transaction: RootTransaction, *, is_committed: bool) -> Iterator[None]:
    watcher = _watcher_of(transaction.connection)
    is_over = transaction.connection.get_transaction() is not transaction
    try:
        yield
    except BaseException:
        is_committed = False
        raise
    finally:
        if not is_over:
            watcher.settle(is_committed=is_committed)


# Weak on both sides, because an emission may refer to its session. The listeners keep the watcher.
_watchers: WeakKeyDictionary[Session | Connection, ReferenceType[_Watcher]] = WeakKeyDictionary()


def _watcher_of(watched: Session | Connection) -> _Watcher:
    """Return the watcher of a session or connection; make it at the first call."""
    known = _watchers.get(watched)
    watcher = known() if known is not None else None
    if watcher is None:
        watcher = (
            _SessionWatcher(watched)
            if isinstance(watched, Session)
            else _ConnectionWatcher(watched)
        )
        _watchers[watched] = ref(watcher)
    return watcher
