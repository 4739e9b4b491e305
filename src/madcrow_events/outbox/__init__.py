"""Durable events: what was committed is handled.

Needs the extra `outbox`: `pip install "madcrow-events[outbox]"`.
"""

from madcrow_events.outbox._errors import (
    HandlerIdError,
    LeaseLostError,
    MalformedPayloadError,
    NotInOutboxError,
    NoTransactionError,
    NotSerialisableError,
    OutboxError,
    OutboxSchemaError,
    UnknownVersionError,
    UnreadablePayloadError,
    WorkerDiedError,
)
from madcrow_events.outbox._outbox import Outbox
from madcrow_events.outbox._retry import GiveUp, Retry, RetryLater
from madcrow_events.outbox._worker import Worker

__all__ = [
    "GiveUp",
    "HandlerIdError",
    "LeaseLostError",
    "MalformedPayloadError",
    "NoTransactionError",
    "NotInOutboxError",
    "NotSerialisableError",
    "Outbox",
    "OutboxError",
    "OutboxSchemaError",
    "Retry",
    "RetryLater",
    "UnknownVersionError",
    "UnreadablePayloadError",
    "Worker",
    "WorkerDiedError",
]
