"""The errors of the outbox.

Each error is also the built-in one that fits it::

    OutboxError (MadcrowEventsError)
    ├── HandlerIdError (ValueError)              a handler without a lasting id
    ├── InvalidCloudEventError (ValueError)      a message that carries no event of CloudEvents 1.0
    ├── LeaseLostError (RuntimeError)            a delivery that another worker has taken
    ├── NoTransactionError (RuntimeError)        a session that commits nothing
    ├── NotInOutboxError (LookupError)           an id that nothing in the outbox has
    ├── NotSerialisableError (TypeError)         a context that storing would change
    ├── OutboxSchemaError (RuntimeError)         tables that are missing or old
    ├── UnknownVersionError (LookupError)        a version that this code cannot read
    ├── UnreadablePayloadError (ValueError)      a payload that fits no context
    │   └── MalformedPayloadError (ValueError)   a payload that is no JSON
    └── WorkerDiedError (RuntimeError)           a delivery whose calls ended their process

No message holds a value from a context: names, types and fixes only.
"""

from __future__ import annotations

from madcrow_events.exceptions import MadcrowEventsError

__all__ = [
    "HandlerIdError",
    "InvalidCloudEventError",
    "LeaseLostError",
    "MalformedPayloadError",
    "NoTransactionError",
    "NotInOutboxError",
    "NotSerialisableError",
    "OutboxError",
    "OutboxSchemaError",
    "UnknownVersionError",
    "UnreadablePayloadError",
    "WorkerDiedError",
]


class OutboxError(MadcrowEventsError):
    """The base class of all errors of the outbox."""


class NoTransactionError(OutboxError, RuntimeError):
    """An event was emitted outside of a transaction that could commit it.

    Or a durable handler commits the session that the worker commits.
    """


class NotSerialisableError(OutboxError, TypeError):
    """A context, or every context of a model, would not come back equal from its JSON.

    Attributes:
        event: the name of the event.
        field: the dotted name of the field, or None if no single field is to blame. A `*` stands
            for the items of a dictionary or a set.
    """

    def __init__(self, message: str, *, event: str = "", field: str | None = None) -> None:
        super().__init__(message)
        self.event = event
        self.field = field


class HandlerIdError(OutboxError, ValueError):
    """A durable handler has no lasting id, or another handler has the same.

    Attributes:
        handler: the handler.
    """

    def __init__(self, message: str, *, handler: object = None) -> None:
        super().__init__(message)
        self.handler = handler


class UnknownVersionError(OutboxError, LookupError):
    """An event was stored in a version that this code cannot turn into its own.

    Attributes:
        event: the name of the event.
        version: the version of what was stored.
        known: the version of the model here.
    """

    def __init__(self, message: str, *, event: str = "", version: int = 0, known: int = 0) -> None:
        super().__init__(message)
        self.event = event
        self.version = version
        self.known = known


class UnreadablePayloadError(OutboxError, ValueError):
    """What is stored of an event does not fit the event's model.

    Attributes:
        event: the name of the event.
        problems: pairs of the name of a field and what is wrong with it, as the type of one of
            pydantic's errors.
    """

    def __init__(
        self, message: str, *, event: str = "", problems: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message)
        self.event = event
        self.problems = problems


class MalformedPayloadError(UnreadablePayloadError):
    """What is stored of an event is no JSON: it was damaged, or its values were removed."""


class InvalidCloudEventError(OutboxError, ValueError):
    """A message carries no event of CloudEvents 1.0, or an event cannot be one.

    Attributes:
        attribute: the name of the attribute that is to blame, or None if no single one is, or if
            its name is invalid.
    """

    def __init__(self, message: str, *, attribute: str | None = None) -> None:
        super().__init__(message)
        self.attribute = attribute


class OutboxSchemaError(OutboxError, RuntimeError):
    """The tables of the outbox are missing, or of an older version."""

    """The tables of the outbox are missing, or of an older version."""


class LeaseLostError(OutboxError, RuntimeError):
    """Another worker has taken a delivery over, so what this call did is not kept."""


class WorkerDiedError(OutboxError, RuntimeError):
    """The worker of a delivery has ended, or lost its lease, as often as may be tried."""


class NotInOutboxError(OutboxError, LookupError):
    """An event, a delivery or a handler is not in the outbox, or no longer."""
