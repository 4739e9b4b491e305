"""Events that wait for the commit of a session or connection of SQLAlchemy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import NoReturn

from madcrow_events._transactions import (
    AnySession,
    Refusal,
    Watched,
    synchronous,
    watcher_of,
)
from madcrow_events.dispatcher import EventDispatcher, get_event_dispatcher
from madcrow_events.emissions._frames import AmbientFrame, enter, leave
from madcrow_events.exceptions import InvalidOptionError

__all__ = ["after_commit"]


def after_commit(
    session: AnySession,
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
    return _Block(synchronous(session, _refuse), dispatcher or get_event_dispatcher())


class _Block:
    """One `with after_commit(...)`."""

    __slots__ = (
        "__weakref__",
        "_dispatcher",
        "_frame",
        "_held_by",
        "_watched",
        "_watcher",
        "kept",
    )

    kept: int
    """How many of the emissions that are held back are older than this `with`."""

    def __init__(self, watched: Watched, dispatcher: EventDispatcher) -> None:
        self._watched = watched
        self._dispatcher = dispatcher
        self._frame: AmbientFrame | None = None

    def __enter__(self) -> None:
        if self._frame is not None:
            raise RuntimeError("after_commit is good for one `with`: call it again")
        self._watcher = watcher = watcher_of(self._watched)
        watcher.follow(self._watched, _refuse)
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
        watcher = self._watcher
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


def _refuse(refusal: Refusal, given: object) -> Exception:
    """Return the error for what cannot be watched."""
    match refusal:
        case Refusal.NO_SESSION:
            return TypeError(
                "after_commit takes a Session, AsyncSession, scoped_session, async_scoped_session, "
                f"Connection or AsyncConnection, not {type(given).__name__}: pass the session "
                "you emit in, such as db.session"
            )
        case Refusal.NOT_CONNECTED:
            message = "the AsyncConnection is not connected: write `async with engine.connect()`"
        case _:
            message = (
                "after_commit needs a transaction, but the isolation level is AUTOCOMMIT: emit "
                "without after_commit, or choose another isolation level"
            )
    return InvalidOptionError(message, option="session")
