"""The outbox: durable handlers, and events that are committed with the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID
from weakref import WeakSet

from madcrow_events._text import type_name
from madcrow_events._transactions import AnySession, AsyncEngine
from madcrow_events.emissions import Emission
from madcrow_events.models import BaseEventContext
from madcrow_events.outbox._cloud_events import CloudEvent
from madcrow_events.outbox._database import access_to
from madcrow_events.outbox._durable import OnDead, declare
from madcrow_events.outbox._errors import HandlerIdError, NotInOutboxError
from madcrow_events.outbox._exchange import check_consumer, cloud_event_of
from madcrow_events.outbox._gathering import Gathering
from madcrow_events.outbox._inspecting import Inspection
from madcrow_events.outbox._keeping import keeping
from madcrow_events.outbox._retry import Retry
from madcrow_events.outbox._sessions import CALL
from madcrow_events.outbox._settings import channel_of, check_settings
from madcrow_events.outbox._storable import check_model
from madcrow_events.outbox._tables import Tables
from madcrow_events.outbox._versions import Upcasts
from madcrow_events.signals import EventSignal, SignalRegistry, madcrow_signals
from madcrow_events.subscriptions import ANY

if TYPE_CHECKING:
    from sqlalchemy import Dialect, Engine, MetaData

    from madcrow_events.outbox._companions import Companion
    from madcrow_events.outbox._durable import DurableHandler
    from madcrow_events.outbox._statements import Statements
    from madcrow_events.outbox._worker import Worker

__all__ = ["Outbox", "durable_handlers_of"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)
HandlerT = TypeVar("HandlerT")


class Outbox(Gathering):
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
        tables: the same one by one, such as `tables.event`, to name in the `binds` of a session.
    """

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
        check_settings(source, signals, schema, table_prefix, encode, decode)
        super().__init__()
        self.source = source
        self.signals = signals
        self.tables: Tables = Tables(schema, table_prefix)
        self.metadata: MetaData = self.tables.metadata
        self._encode = encode
        self._decode = decode
        self._channel = channel_of(self.tables) if notify else None
        self._keeping = keeping(keep_done=keep_done, keep_dead=keep_dead, keep_inbox=keep_inbox)
        self._handlers: dict[str, DurableHandler] = {}
        self._upcasts = Upcasts()
        self._statements: dict[tuple[type[Dialect], str], Statements] = {}
        self._workers: set[Worker] = set()
        self._companions: list[Companion] = []
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
        session: AnySession,
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
        watched, watcher, writing = self._writing_in(session)
        try:
            emission, event = self._prepare(watcher, context, sender, id, not_before)
        except BaseException as error:
            writing.take(error)  # however deep this is swallowed, the commit fails
            watcher.join(watched, writing)
            raise
        writing.take(event)
        watcher.join(watched, writing)
        return emission

    def receive(
        self,
        cloud_event: CloudEvent,
        session: AnySession,
        *,
        event: str | EventSignal[Any] | type[BaseEventContext] | None = None,
        consumer: str = "",
    ) -> None:
        """Take in an event that another service has sent, with the transaction of a session.

        The event is written just before the COMMIT, together with a note that it was taken in. So
        it is taken in once, however often it is sent; events are the same if their source and their
        id are. Workers then call the durable handlers of the event. An event whose source is that
        of this outbox is left out, because it was written here before.

        An event that does not fit its model is taken in, too, and its deliveries become dead, where
        `inspect` shows them.

        Args:
            cloud_event: the event, as `CloudEvent.read` returns it.
            session: the session or connection in whose transaction it is taken in.
            event: the event that it must be: a name, signal or context class. None for every
                declared event but those that this package declares itself.
            consumer: for whom it is noted that the event was taken in.

        Raises:
            InvalidCloudEventError: the data is no JSON object, the version is none, or it is
                another event than `event` says.
            UnknownEventError: the event is not declared, or is one of this package.
            NoTransactionError: as for `emit`.
            InvalidOptionError: `consumer` is no text of up to 64 characters.
            TypeError: as for `emit`; or `cloud_event` is no `CloudEvent`.
        """
        if not isinstance(cloud_event, CloudEvent):
            raise TypeError(
                f"receive takes a CloudEvent, not {type_name(type(cloud_event))}: write "
                "outbox.receive(CloudEvent.read(headers, body), session)"
            )
        check_consumer(consumer)
        watched, watcher, writing = self._writing_in(session)
        received = self._received(cloud_event, self._signal_for(cloud_event, event), consumer)
        if received is not None:
            writing.take(received)
            watcher.join(watched, writing)

    def as_cloud_event(self, event: Emission[Any]) -> CloudEvent:
        """Return the event that a durable handler is called for, to send it to another service.

        Its data is the JSON of the context. Its attributes have the time of the emission, the
        version of the model as `eventversion`, the ordering key as `partitionkey`, the ids of the
        emissions before it as `correlationid` and `causationid`, the `sender`, and the fields of
        the `event_scope` as JSON in `scope`, unless that is longer than 4,096 characters.

        Args:
            event: the emission, as a parameter of the handler or `current_event()` gives it.

        Raises:
            NotInOutboxError: the emission is none that a durable handler of this outbox is called
                for just now.
            InvalidCloudEventError: the sender is no text that an attribute can have.
        """
        call = CALL.get(None)
        if call is None or call.owner is not self or call.claimed.event_id != str(event.id):
            raise NotInOutboxError(
                "only the event that a durable handler of this outbox is called for can be sent: "
                "write outbox.as_cloud_event(current_event()) in that handler"
            )
        return cloud_event_of(call.claimed, self._decoded(call.claimed.payload))

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

    def __repr__(self) -> str:
        return f"<Outbox {self.source} of {type_name(type(self.signals))}>"


_outboxes: WeakSet[Outbox] = WeakSet()


def durable_handlers_of(signals: SignalRegistry) -> list[DurableHandler]:
    """Return the durable handlers of all outboxes of a registry, sorted by id.

    Args:
        signals: the registry.
    """
    mine = [it for it in _outboxes if it.signals is signals]
    found = [handler for outbox in mine for handler in outbox._handlers.values()]
    return sorted(found, key=lambda it: it.name)
