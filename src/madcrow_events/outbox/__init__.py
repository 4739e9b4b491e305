"""Durable events: what was committed is handled.

Needs the extra `outbox`: `pip install "madcrow-events[outbox]"`.
"""

from madcrow_events.outbox._cloud_events import CloudEvent
from madcrow_events.outbox._errors import (
    HandlerIdError,
    InvalidCloudEventError,
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
from madcrow_events.outbox._inspecting import Inspection
from madcrow_events.outbox._outbox import Outbox
from madcrow_events.outbox._records import (
    BlockedKey,
    DeadGroup,
    DeliveryRecord,
    HandlerStatus,
    OutboxStatus,
    WaitingEvents,
)
from madcrow_events.outbox._retry import GiveUp, Retry, RetryLater
from madcrow_events.outbox._worker import Worker

__all__ = [
    "BlockedKey",
    "CloudEvent",
    "DeadGroup",
    "DeliveryRecord",
    "GiveUp",
    "HandlerIdError",
    "HandlerStatus",
    "Inspection",
    "InvalidCloudEventError",
    "LeaseLostError",
    "MalformedPayloadError",
    "NoTransactionError",
    "NotInOutboxError",
    "NotSerialisableError",
    "Outbox",
    "OutboxError",
    "OutboxSchemaError",
    "OutboxStatus",
    "Retry",
    "RetryLater",
    "UnknownVersionError",
    "UnreadablePayloadError",
    "WaitingEvents",
    "Worker",
    "WorkerDiedError",
]
