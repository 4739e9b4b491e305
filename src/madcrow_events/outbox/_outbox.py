"""The outbox: durable handlers, and events that are committed with the caller's transaction."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary, WeakSet

from pydantic_core import from_json
from sqlalchemy import Connection, Engine, MetaData, inspect
from sqlalchemy.orm import Session, scoped_session

from madcrow_events._text import type_name
from madcrow_events._transactions import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    Watcher,
    async_scoped_session,
    in_transaction,
    is_autocommit,
    synchronous,
    watcher_of,
)
from madcrow_events._validation import validate_keywords
from madcrow_events.emissions import Emission
from madcrow_events.emissions._causes import give_id
from madcrow_events.emissions._frames import ambient_frame_of, current, enter, leave
from madcrow_events.emissions._ids import check_id
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.models import BaseEventContext, GenericEventContext, filled, values_for
from madcrow_events.outbox._calling import Caller
from madcrow_events.outbox._database import (
    access_to,
    is_async_engine,
    synchronous_engine,
)
from madcrow_events.outbox._dialects import statements_for
from madcrow_events.outbox._durable import OnDead, declare
from madcrow_events.outbox._errors import HandlerIdError, MalformedPayloadError, NoTransactionError
from madcrow_events.outbox._inspecting import Inspection
from madcrow_events.outbox._keeping import keeping
from madcrow_events.outbox._payload import dump, load
from madcrow_events.outbox._retry import Retry
from madcrow_events.outbox._rows import StoredEvent
from madcrow_events.outbox._senders import write
from madcrow_events.outbox._storable import check_model
from madcrow_events.outbox._sweeping import Sweeping
from madcrow_events.outbox._tables import Tables
from madcrow_events.outbox._versions import Upcasts, version_of
from madcrow_events.outbox._writing import Writing, key_of, refuse, schema_error
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.subscriptions import ANY

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from sqlalchemy import Dialect

    from madcrow_events.dispatcher import EventDispatcher
    from madcrow_events.outbox._database import Access
    from madcrow_events.outbox._durable import DurableHandler
    from madcrow_events.outbox._statements import Statements
    from madcrow_events.outbox._worker import Worker

__all__ = ["Outbox", "durable_handlers_of"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)
HandlerT = TypeVar("HandlerT")


class Outbox:
    """Events that are committed with your data, and handlers that are sure to hear of them.

    Args:
        source: where the events come from, as a URI reference such as `/shop` (CloudEvents 1.0).
        signals: the registry of the events.
        schema: the schema of the tables; None for the default one.
        table_prefix: what the names of the tables begin with.
        encode: turns the JSON of an event into what is stored, such as encrypted text.
        decode: the inverse of `encode`.
        notify: whether workers in other processes hear of each commit at once, by PostgreSQL's
            NOTIFY, instead of looking every now and then. Each commit of events then takes a lock
            of the whole database for a moment, and a pool that gives each transaction another
            connection, as PgBouncer may, loses the word.
        keep_done: how long deliveries that were handled are kept.
        keep_dead: how long dead deliveries are kept.
        keep_inbox: how long it is known which events were taken in, and which `id` was given.

    Raises:
        InvalidOptionError: a value is impossible.

    Attributes:
        metadata: the tables, for Alembic's `target_metadata`, or `metadata.create_all(engine)`.
    """

    metadata: MetaData

    def __init__(
        self,
        source: str,
        *,
        signals: SignalRegistry = madcrow_signals,
        schema: str | None = None,
        table_prefix: str = "madcrow_",
        encode: Callable[[str], str] | None = None,
        decode: Callable[[str], str] | None = None,
        notify: bool = False,
        keep_done: timedelta = timedelta(0),
        keep_dead: timedelta = timedelta(days=90),
        keep_inbox: timedelta = timedelta(days=14),
    ) -> None:
        _check(source, signals, schema, table_prefix, encode, decode)
        if (encode is None) is not (decode is None):
            raise InvalidOptionError(
                "encode and decode belong together: give both, or none", option="encode"
            )
        self.source = source
        self.signals = signals
        self.tables: Tables = Tables(schema, table_prefix)
        self.metadata = self.tables.metadata
        self._encode = encode
        self._decode = decode
        self._channel = _channel_of(self.tables) if notify else None
        self._keeping = keeping(keep_done=keep_done, keep_dead=keep_dead, keep_inbox=keep_inbox)
        self._handlers: dict[str, DurableHandler] = {}
        self._upcasts = Upcasts()
        self._statements: dict[type[Dialect], Statements] = {}
        self._writings: WeakKeyDictionary[Watcher, Writing] = WeakKeyDictionary()
        self._workers: set[Worker] = set()
        _outboxes.add(self)

    # Declaring

    def on(
        self,
        event: str | EventSignal[Any] | type[BaseEventContext],
        *,
        id: str | None = None,  # noqa: A002  # as the option of every subscription
        retry: Retry = Retry(),  # noqa: B008  # it cannot be changed
        timeout: float | None = None,
        concurrency: int | None = None,
        when: Callable[[Mapping[str, Any]], object] | None = None,
        sender: object = ANY,
        formerly: tuple[str, ...] = (),
        on_dead: OnDead | None = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Declare a durable handler, which a `Worker` calls.

        It takes what ordinary handlers take. If a parameter is annotated with SQLAlchemy's
        `Session`, or an async handler's with `AsyncSession`, it gets a session, and what it writes
        with it is committed together with the note that the event is handled: exactly once. It must
        not commit the session itself. Any other effect happens at least once.

        Args:
            event: the event: its name, signal or context class.
            id: the lasting name of the handler, by which its deliveries are stored; None for the
                name of its module and its own.
            retry: when it is called again after a failure.
            timeout: after how many seconds a call has failed; None for no limit. An async handler
                is cancelled; a plain one goes on in its thread, and its result is not kept.
            concurrency: how many calls a worker makes at the same time; None for as many as it can.
            when: asked before the first call, with the fields of the context; if it returns
                something false, the handler is not called.
            sender: the only sender to hear of: a `str`, `int`, `UUID` or None.
            formerly: earlier ids of the handler, whose deliveries it takes over.
            on_dead: what becomes of later events of the same key when a delivery is dead:
                `"block"`, the default, lets them wait until somebody retries or discards it,
                `"continue"` goes on with them.

        Returns:
            A decorator, which returns the handler unchanged.

        Raises:
            HandlerIdError: the handler has no lasting name, or another one has the same id.
            NotSerialisableError: contexts of the event's model do not come back from JSON as they
                were.
            HandlerSignatureError: the handler cannot be called with what the event carries.
            InvalidOptionError: an option has an impossible value.
            UnknownEventError: the event is not declared.
        """
        signal = self.signals[event]
        check_model(signal.name, signal.context_model)

        def decorate(handler: HandlerT) -> HandlerT:
            durable = declare(
                signal,
                handler,
                id=id,
                retry=retry,
                timeout=timeout,
                concurrency=concurrency,
                when=when,
                sender=sender,
                formerly=formerly,
                on_dead=on_dead,
            )
            self._enter(durable, handler)
            return handler

        return decorate

    def _enter(self, durable: DurableHandler, handler: object) -> None:
        for known in self._handlers.values():
            is_same = (known.name, known.written_as, known.signal.name) == (
                durable.name,
                durable.written_as,
                durable.signal.name,
            )
            shared = {known.name, *known.formerly} & {durable.name, *durable.formerly}
            if shared and not is_same:
                raise HandlerIdError(
                    f"another durable handler has, or had, the id '{min(shared)}', "
                    f"{known.written_as} for {known.signal.name}: give one of them another id, or "
                    "leave the old one out of formerly",
                    handler=handler,
                )
        self._handlers[durable.name] = durable

    @property
    def handlers(self) -> tuple[str, ...]:
        """The ids of the durable handlers that were declared here, in this order."""
        return tuple(self._handlers)

    def upcast(
        self, event: str | EventSignal[Any] | type[BaseEventContext], *, from_version: int
    ) -> Callable[[HandlerT], HandlerT]:
        """Declare how an event that was stored in an older version becomes the next version.

        The model says `event_version: ClassVar[int] = 2`.

        Args:
            event: the event.
            from_version: the version that the function takes, as a dictionary; it returns one of
                the next version.

        Returns:
            A decorator, which returns the function unchanged.

        Raises:
            HandlerSignatureError: the function is async, or cannot be called.
            InvalidOptionError: `from_version` is no positive int.
            SubscriptionConflictError: another function takes this version.
        """
        name = self.signals[event].name

        def decorate(function: HandlerT) -> HandlerT:
            self._upcasts.add(name, from_version, function)  # type: ignore[arg-type]  # it checks
            return function

        return decorate

    # Emitting

    def emit(
        self,
        session: (
            Session
            | AsyncSession
            | scoped_session[Any]
            | async_scoped_session[Any]
            | Connection
            | AsyncConnection
        ),
        context: ContextT,
        *,
        sender: object = None,
        id: UUID | None = None,  # noqa: A002  # as the attribute of the emission
        not_before: datetime | None = None,
    ) -> Emission[ContextT]:
        """Emit an event with the transaction of a session: committed with it, or never emitted.

        The event is written just before the COMMIT. When the transaction is committed, the ordinary
        handlers of the event are called here, and workers call the durable ones, wherever they are.
        If the transaction, or the savepoint in which it was emitted, is rolled back, nobody hears
        of the event. It is no `async` function, because it does nothing that has to be awaited.

        Args:
            session: the session or connection in whose transaction you emit. A session begins one
                if none has begun, as `session.add` does.
            context: the context, whose class is the model of the event.
            sender: the object that emits. Durable handlers get it if it is a `str`, `int` or
                `UUID`; else they get the signal.
            id: the id of the event; None to make one. An id that was written before is not written
                again, so that an emitter may safely repeat itself.
            not_before: the moment before which no durable handler is called.

        Returns:
            The emission, whose ordinary handlers are called after the commit.

        Raises:
            NoTransactionError: the connection has no transaction, that of the session is committed
                or has failed, or each statement commits itself.
            NotSerialisableError: the context does not come back from JSON as it was. The commit
                then fails, too, even if you catch this error.
            InvalidOptionError: the id is no UUID, or the moment has no time zone.
            TypeError: `session` is something else.
            MadcrowEventsError: as for `EventDispatcher.emit_typed`.
        """
        watched = synchronous(session, refuse)
        if not in_transaction(watched):
            raise NoTransactionError(
                "the event needs a transaction to belong to: begin one first, as in "
                f"`with {_word_for(watched)}.begin():`"
            )
        if isinstance(watched, Session) and not watched.is_active:
            raise NoTransactionError(
                "the transaction of the session is committed, or has failed, and takes no event: "
                "emit before the commit, or roll back first"
            )
        watcher = watcher_of(watched)
        writing = self._writings.get(watcher)
        if writing is None:
            writing = Writing(self.tables.event, self._statements_on, self._wake, self._channel)
            self._writings[watcher] = writing
        try:
            emission, event = self._prepare(watcher, context, sender, id, not_before)
        except BaseException as error:
            writing.take(error)  # however deep this is swallowed, the commit fails
            watcher.join(watched, writing)
            raise
        writing.take(event)
        watcher.join(watched, writing)
        return emission

    def _prepare(
        self,
        watcher: Watcher,
        context: ContextT,
        sender: object,
        id: UUID | None,  # noqa: A002  # as above
        not_before: datetime | None,
    ) -> tuple[Emission[ContextT], StoredEvent]:
        check_id("id", id)
        due = 0 if not_before is None else _microseconds(not_before)
        signal = self._signal_of(context)
        check_model(signal.name, signal.context_model)
        ambient = ambient_frame_of(current())
        fields = {} if ambient is None else ambient.resolved_fields()
        payload = dump(
            signal.name, signal.context_model, filled(_of_model(signal, context), fields)
        )
        dispatcher = self._dispatcher
        frame = watcher.holder_for(dispatcher).frame_of_part()
        enter(frame, self)
        try:
            emission = dispatcher.emit_typed(signal, context, sender)
        finally:
            leave(frame)
        if id is not None:
            give_id(emission, id)
        created = time.time_ns() // 1000
        return emission, StoredEvent(
            self.source,
            str(emission.id),
            signal.name,
            version_of(signal.name, signal.context_model),
            key_of(signal, context),
            write(sender),
            self._encoded(payload),
            _headers(emission, fields),
            due,
            created,
            0 if id is None else created + self._keeping.inbox,
        )

    def _encoded(self, payload: str) -> str:
        if self._encode is None:
            return payload
        encoded: object = self._encode(payload)
        if not isinstance(encoded, str):
            raise InvalidOptionError(
                f"encode must return a str, not {type_name(type(encoded))}: if it is bytes, "
                "decode it, as in fernet.encrypt(plain.encode()).decode()",
                option="encode",
            )
        return encoded

    def _signal_of(self, context: BaseEventContext) -> EventSignal[Any]:
        if isinstance(context, GenericEventContext):
            return self.signals[context.event_type]
        return self.signals[type(context)]

    def inspect(self, engine: Engine | AsyncEngine) -> Inspection:
        """Return what looks into the outbox, and mends what is stuck.

        Its methods wait for the database; where an event loop runs, call them by
        `asyncio.to_thread`.

        Args:
            engine: the engine of the database.
        """
        return Inspection(
            lambda: access_to(engine),
            self._statements_for(engine),
            self.tables,
            self._check_tables,
        )

    # What workers need

    @property
    def _dispatcher(self) -> EventDispatcher:
        return self.signals.dispatcher

    def _statements_on(self, connection: Connection) -> Statements:
        return self._statements_of(connection.dialect)

    def _statements_for(self, engine: Any) -> Statements:
        return self._statements_of(synchronous_engine(engine).dialect)

    def _statements_of(self, dialect: Dialect) -> Statements:
        known = self._statements.get(type(dialect))
        if known is None:
            known = self._statements[type(dialect)] = statements_for(self.tables, dialect)
        return known

    def _check_schema(self, database: Access) -> None:
        database.transaction(self._check_tables)

    def _check_tables(self, connection: Connection) -> None:
        found = inspect(connection)
        for table in self.metadata.sorted_tables:
            if not found.has_table(table.name, table.schema):
                raise schema_error(f"the table {table.fullname} is missing")
            there = {it["name"] for it in found.get_columns(table.name, table.schema)}
            missing = [it.name for it in table.columns if it.name not in there]
            if missing:
                raise schema_error(f"the table {table.fullname} has no {', '.join(missing)}")

    def _check_sessions(self, engine: Any, pattern: str | None) -> None:
        """Refuse an engine that can make no session for a handler that takes one."""
        is_async = is_async_engine(engine)
        # In PostgreSQL, sessions of handlers have an isolation level of their own.
        is_unsafe = engine.dialect.name == "sqlite" and is_autocommit(synchronous_engine(engine))
        for it in self._handlers.values():
            is_chosen = pattern is None or fnmatchcase(it.name, pattern)
            if is_chosen and it.session is not None and is_unsafe:
                raise InvalidOptionError(
                    f"{it.name} takes a session, but the isolation level of the engine is "
                    "AUTOCOMMIT, so nothing could be rolled back: choose another isolation level",
                    option="engine",
                )
            if is_chosen and it.session is not None and it.session.is_async is not is_async:
                needed = "an Engine" if is_async else "an AsyncEngine"
                other = "AsyncSession" if is_async else "Session"
                raise InvalidOptionError(
                    f"{it.name} takes {type_name(it.session.class_)}, which needs {needed}: call "
                    "it by another worker that has one, with handlers= for both, or let the "
                    f"handler take {other}",
                    option="engine",
                )

    def _announce(self, database: Access) -> dict[int, DurableHandler]:
        """Write down the handlers, and return them by their ids in the tables."""
        self._upcasts.check(self._version_of)
        announced = [it.announced() for it in self._handlers.values()]

        def announce(connection: Connection) -> dict[str, int]:
            return self._statements_on(connection).announce(connection, announced)

        ids = database.transaction(announce)
        return {id_: self._handlers[name] for name, id_ in ids.items()}

    def _version_of(self, event: str) -> int:
        return version_of(event, self.signals[event].context_model)

    def _caller(
        self, statements: Statements, engine: Any, loop: AbstractEventLoop | None
    ) -> Caller:
        return Caller(
            self._dispatcher,
            statements,
            engine,
            self._read,
            loop,
            keep=self._keeping.done > 0,
        )

    def _sweeping(self, statements: Statements) -> Sweeping:
        return Sweeping(statements, self._keeping)

    def _read(self, signal: EventSignal[Any], version: int, stored: str) -> BaseEventContext:
        # Nothing is stored of what was redacted, and `decode` may raise anything at it.
        payload = stored if self._decode is None or not stored else self._decode(stored)
        try:
            document: object = from_json(payload)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise MalformedPayloadError(
                f"what is stored of {signal.name} is no JSON object: discard the delivery",
                event=signal.name,
            )
        known = version_of(signal.name, signal.context_model)
        if version != known:
            document = self._upcasts.raise_version(signal.name, version, known, document)
            payload = json.dumps(document)
        return load(signal.name, signal.context_model, payload)

    @contextmanager
    def _waking(self, worker: Worker) -> Iterator[None]:
        """Wake a worker when this process commits events."""
        self._workers.add(worker)
        try:
            yield
        finally:
            self._workers.discard(worker)

    def _wake(self) -> None:
        for worker in tuple(self._workers):  # others may start or end meanwhile
            worker.wake()

    def __repr__(self) -> str:
        return f"<Outbox {self.source} of {type_name(type(self.signals))}>"


_LONGEST_CHANNEL = 63
"""In bytes, in PostgreSQL."""


def _channel_of(tables: Tables) -> str:
    """Return the channel on which commits of events are told.

    Raises:
        InvalidOptionError: PostgreSQL would refuse it, at each commit.
    """
    channel = tables.event.fullname
    if len(channel.encode()) > _LONGEST_CHANNEL or '"' in channel:
        raise InvalidOptionError(
            f"notify=True needs names without quotes and of up to {_LONGEST_CHANNEL} bytes in all: "
            "give the schema or the tables shorter ones",
            option="notify",
        )
    return channel


_outboxes: WeakSet[Outbox] = WeakSet()


def durable_handlers_of(signals: SignalRegistry) -> list[DurableHandler]:
    """Return the durable handlers of all outboxes of a registry, sorted by id.

    Args:
        signals: the registry.
    """
    mine = [it for it in _outboxes if it.signals is signals]
    found = [handler for outbox in mine for handler in outbox._handlers.values()]
    return sorted(found, key=lambda it: it.name)


_LONGEST_PREFIX = 40
"""In characters; names in PostgreSQL have 63, and the longest that follows has 15."""


def _check(
    source: object,
    signals: object,
    schema: object,
    table_prefix: object,
    encode: object,
    decode: object,
) -> None:
    if not isinstance(source, str) or not source or not source.isprintable():
        raise InvalidOptionError(
            "source must be a URI reference that tells whose events they are, such as '/shop'",
            option="source",
        )
    if not isinstance(signals, SignalRegistry):
        raise InvalidOptionError(
            "signals must be a SignalRegistry, such as madcrow_signals", option="signals"
        )
    if schema is not None and not (
        isinstance(schema, str) and schema.isprintable() and schema and ":" not in schema
    ):
        raise InvalidOptionError(
            "schema must be the name of a schema, without a colon, or None", option="schema"
        )
    if not isinstance(table_prefix, str) or not re.fullmatch(
        f"[a-zA-Z0-9_]{{0,{_LONGEST_PREFIX}}}", table_prefix
    ):
        raise InvalidOptionError(
            f"table_prefix must be a text of up to {_LONGEST_PREFIX} letters, digits and '_', such "
            "as 'shop_'",
            option="table_prefix",
        )
    for option, function in (("encode", encode), ("decode", decode)):
        if function is not None and not callable(function):
            raise InvalidOptionError(
                f"{option} must be a function that takes a str and returns one", option=option
            )


def _word_for(watched: object) -> str:
    return "connection" if isinstance(watched, Connection) else "session"


def _of_model(signal: EventSignal[Any], context: BaseEventContext) -> BaseEventContext:
    """Return a context of the model of its event, also of one that came as a dictionary."""
    model = signal.context_model
    if (
        model is None
        or model is GenericEventContext
        or not isinstance(context, GenericEventContext)
    ):
        return context
    return validate_keywords(signal.name, model, values_for(context, model))


def _microseconds(moment: datetime) -> int:
    """Return a moment as microseconds since 1970.

    Raises:
        InvalidOptionError: it is no moment, or has no time zone.
    """
    given: object = moment
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise InvalidOptionError(
            "not_before must be a datetime with a time zone, such as "
            "datetime.now(UTC) + timedelta(hours=1)",
            option="not_before",
        )
    return max(0, (moment - _EPOCH) // timedelta(microseconds=1))


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _headers(emission: Emission[Any], fields: Mapping[str, str]) -> str:
    """Return what a handler needs to know beside the context."""
    headers: dict[str, Any] = {}
    if emission.correlation_id != emission.id:
        headers["correlation"] = str(emission.correlation_id)
    if (causation := emission.causation_id) is not None:
        headers["causation"] = str(causation)
    if fields:
        headers["scope"] = dict(fields)
    return json.dumps(headers) if headers else "{}"
