"""What an outbox takes from the caller, to write it with the transaction of a session."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from madcrow_events._text import printable, type_name
from madcrow_events._transactions import (
    AnySession,
    Watcher,
    in_transaction,
    synchronous,
    watcher_of,
)
from madcrow_events.emissions import Emission
from madcrow_events.emissions._causes import give_id
from madcrow_events.emissions._frames import ambient_frame_of, current, enter, leave
from madcrow_events.emissions._ids import check_id
from madcrow_events.exceptions import InvalidOptionError, UnknownEventError
from madcrow_events.models import BaseEventContext, GenericEventContext, filled
from madcrow_events.outbox._errors import InvalidCloudEventError, NoTransactionError
from madcrow_events.outbox._exchange import received, signal_of
from madcrow_events.outbox._payload import dump
from madcrow_events.outbox._rows import Received, StoredEvent
from madcrow_events.outbox._senders import write
from madcrow_events.outbox._serving import Serving
from madcrow_events.outbox._storable import check_model
from madcrow_events.outbox._stored import context_to_store, due_at, headers_of, key_of
from madcrow_events.outbox._versions import version_of
from madcrow_events.outbox._writing import Writing, refuse
from madcrow_events.signals import EventSignal
from madcrow_events.signals._registry import is_built_in

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from madcrow_events.outbox._cloud_events import CloudEvent

__all__ = ["Gathering"]

ContextT = TypeVar("ContextT", bound=BaseEventContext)


class Gathering(Serving):
    """The part of `Outbox` that gathers the events of each transaction."""

    source: str
    _channel: str | None
    _encode: Callable[[str], str] | None

    def __init__(self) -> None:
        self._writings: WeakKeyDictionary[Watcher, Writing] = WeakKeyDictionary()

    def _writing_in(self, session: AnySession) -> tuple[Session | Connection, Watcher, Writing]:
        """Return what gathers the events of the transaction of a session.

        Raises:
            NoTransactionError: it has no transaction that could take events.
            TypeError: it is no session.
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
        return watched, watcher, writing

    def _received(
        self, cloud_event: CloudEvent, signal: EventSignal[Any], consumer: str
    ) -> Received | None:
        """Return what is written of an event that comes in; None if it is one of this outbox."""
        if cloud_event.source == self.source:
            return None
        return received(cloud_event, signal, consumer, self._context_of, self._encoded)

    def _signal_for(self, cloud_event: CloudEvent, event: object) -> EventSignal[Any]:
        named = signal_of(self.signals, cloud_event)
        if event is not None:
            signal = self.signals.resolve(event)
            if signal is not named:
                raise InvalidCloudEventError(
                    f"the type is not {signal.name}: give outbox.receive the event that it is",
                    attribute="type",
                )
            return signal
        if named is None:
            raise UnknownEventError(
                f"no event '{printable(cloud_event.type)}' is declared: declare it, or leave it out"
            )
        if is_built_in(self.signals, named):
            raise UnknownEventError(
                f"{named.name} is an event of madcrow_events itself, which others do not send "
                f"unasked: to take it in, write event='{named.name}'"
            )
        return named

    def _prepare(
        self,
        watcher: Watcher,
        context: ContextT,
        sender: object,
        id: UUID | None,  # noqa: A002  # as the attribute of the emission
        not_before: datetime | None,
    ) -> tuple[Emission[ContextT], StoredEvent]:
        check_id("id", id)
        due = 0 if not_before is None else due_at(not_before)
        signal = self._signal_of(context)
        check_model(signal.name, signal.context_model)
        ambient = ambient_frame_of(current())
        fields = {} if ambient is None else ambient.resolved_fields()
        payload = dump(
            signal.name, signal.context_model, filled(context_to_store(signal, context), fields)
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
            headers_of(emission, fields),
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


def _word_for(watched: object) -> str:
    return "connection" if isinstance(watched, Connection) else "session"
