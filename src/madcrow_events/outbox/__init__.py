"""Durable events: an outbox in the application's own database."""

from madcrow_events.outbox._errors import (
    HandlerIdError,
    NoTransactionError,
    NotSerialisableError,
    OutboxError,
    OutboxSchemaError,
    UnknownVersionError,
    UnreadablePayloadError,
)

__all__ = [
    "HandlerIdError",
    "NoTransactionError",
    "NotSerialisableError",
    "OutboxError",
    "OutboxSchemaError",
    "UnknownVersionError",
    "UnreadablePayloadError",
]
