"""Handlers that take a session: what they write commits together with the settling."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, get_type_hints

from sqlalchemy import event
from sqlalchemy.orm import Session

from madcrow_events._text import handler_name
from madcrow_events._transactions import AsyncSession
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox._errors import LeaseLostError, NoTransactionError
from madcrow_events.subscriptions._kinds import is_async
from madcrow_events.subscriptions._parameters import signature_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from madcrow_events.outbox._rows import Claimed

__all__ = [
    "CALL",
    "SessionParameter",
    "TransactionalCall",
    "engine_for_handlers",
    "may_take_session",
    "session_parameter",
]


class TransactionalCall(Protocol):
    """The delivery that a handler is called for."""

    owner: object
    """The outbox."""
    claimed: Claimed
    """The delivery, with its event."""
    engine: Any
    """The engine for the session."""
    is_settled: bool
    """Whether the handler's transaction was committed, with the settling."""

    def begin(self, connection: Connection) -> None:
        """Do what is to be done first in the transaction."""
        ...

    def settle(self, connection: Connection) -> bool:
        """Write down that the delivery was handled; return whether the lease is still held."""
        ...


CALL: ContextVar[TransactionalCall] = ContextVar("madcrow_events.outbox.call")
"""The delivery in hand, for the handler that takes a session."""


@dataclass(frozen=True, slots=True)
class SessionParameter:
    """The parameter of a handler that takes the session.

    Attributes:
        name: its name.
        class_: the class of the session.
    """

    name: str
    class_: type[Any]

    @property
    def is_async(self) -> bool:
        """Whether it is an async session."""
        return issubclass(self.class_, AsyncSession)

    def filled_in(self, handler: Any) -> Callable[..., Any]:
        """Return a function without the parameter, that calls the handler with a session."""
        signature = inspect.signature(handler)
        others = [it for name, it in signature.parameters.items() if name != self.name]
        call = self._awaiting(handler) if is_async(handler) else self._calling(handler)
        filled: Any = wraps(handler)(call)
        filled.__signature__ = signature.replace(parameters=others)
        filled.__annotations__ = {
            name: it for name, it in _hints(handler).items() if name != self.name
        }
        del filled.__wrapped__  # which has the parameter
        return filled  # type: ignore[no-any-return]  # as it was made above

    def _calling(self, handler: Any) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            delivery = CALL.get()
            with self.class_(delivery.engine) as session:
                delivery.begin(session.connection())
                keywords[self.name] = session
                with _uncommitted(session):
                    value = handler(*args, **keywords)
                session.flush()  # as late as possible, because other workers wait for the lane
                _check_lease(delivery.settle(session.connection()))
                session.commit()
                delivery.is_settled = True
                return value

        return call

    def _awaiting(self, handler: Any) -> Callable[..., Any]:
        async def call(*args: Any, **keywords: Any) -> Any:
            delivery = CALL.get()
            async with self.class_(delivery.engine) as session:
                connection = await session.connection()
                await connection.run_sync(delivery.begin)
                keywords[self.name] = session
                with _uncommitted(session.sync_session):
                    value = await handler(*args, **keywords)
                await session.flush()
                connection = await session.connection()
                _check_lease(await connection.run_sync(delivery.settle))
                await session.commit()
                delivery.is_settled = True
                return value

        return call


_UNCOMMITTED = "_madcrow_events_uncommitted"
"""The attribute of a session while its handler runs, which must not commit it."""


@contextmanager
def _uncommitted(session: Session) -> Iterator[None]:
    """Refuse a commit: what is committed without the settling has its effect once more."""
    setattr(session, _UNCOMMITTED, True)
    try:
        yield
    finally:
        delattr(session, _UNCOMMITTED)


def _refuse_commit(session: Session) -> None:
    # A savepoint may be committed, which has the same event.
    if hasattr(session, _UNCOMMITTED) and session.get_nested_transaction() is None:
        raise NoTransactionError(
            "the worker commits the session of a durable handler, together with the note that the "
            "event is handled: do not commit it, or open a session of your own"
        )


event.listen(Session, "before_commit", _refuse_commit)


def _check_lease(is_held: bool) -> None:
    if not is_held:
        raise LeaseLostError(
            "another worker has taken the delivery over: nothing of this call is kept"
        )


def session_parameter(handler: Any) -> SessionParameter | None:
    """Return the parameter that is annotated with a class of sessions, if there is one.

    Raises:
        InvalidOptionError: an async handler takes a `Session`, or a plain one an `AsyncSession`.
    """
    for name, annotation in _hints(handler).items():
        is_session = isinstance(annotation, type) and issubclass(
            annotation, (Session, AsyncSession)
        )
        if name != "return" and is_session:
            parameter = SessionParameter(name, annotation)
            if parameter.is_async is not is_async(handler):
                raise InvalidOptionError(
                    f"{handler_name(handler)} takes {annotation.__name__}: a plain handler takes a "
                    "Session, and an async handler an AsyncSession",
                    option="handler",
                )
            return parameter
    return None


def may_take_session(handler: Any) -> bool:
    """Whether a parameter looks as if it were for a session."""
    return callable(handler) and any(
        it.name == "session" or "Session" in str(it.annotation)
        for it in signature_of(handler).parameters.values()
    )


def _hints(handler: Any) -> dict[str, Any]:
    function = handler if hasattr(handler, "__annotations__") else type(handler).__call__
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # a name that exists for type checkers only
        return dict(getattr(function, "__annotations__", {}))


def engine_for_handlers(engine: Any) -> Any:
    """Return an engine for the sessions of handlers, with the isolation that settling needs."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="READ COMMITTED")
