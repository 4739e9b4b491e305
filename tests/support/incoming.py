"""Events as other services send them."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from madcrow_events.outbox import CloudEvent, Outbox

__all__ = ["EVERYTHING", "noted", "order_from", "rows_of", "take_in"]

EVERYTHING = {
    "time": "2026-01-31T12:00:00Z",
    "correlationid": "00000000-0000-0000-0000-00000000000c",
    "causationid": "00000000-0000-0000-0000-00000000000d",
    "sender": "till 3",
    "scope": '{"request_id": "r-1"}',
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
"""What a service may say of its event beyond what is needed."""


def order_from(source: str = "/till", id: str = "1", **given: Any) -> CloudEvent:  # noqa: A002  # as the attribute
    """Return an event `order` of another service.

    Args:
        source: its source.
        id: its id.
        given: `type`, `data` as bytes, `attributes`, or fields of the context.
    """
    type_, attributes = given.pop("type", "order"), given.pop("attributes", {})
    data = given.pop("data", None)
    if data is None:
        data = json.dumps({"number": 1, **given}).encode()
    return CloudEvent(source=source, id=id, type=type_, data=data, attributes=attributes)


def take_in(outbox: Outbox, engine: Any, *events: CloudEvent, **options: Any) -> None:
    """Take in events in one transaction."""
    with Session(engine) as session:
        for event in events:
            outbox.receive(event, session, **options)
        session.commit()


def rows_of(outbox: Outbox, engine: Any) -> list[Any]:
    """Return the rows of the events, in their order."""
    table = outbox.tables.event
    with engine.begin() as connection:
        return list(connection.execute(select(table).order_by(table.c.seq)))


def noted(outbox: Outbox, engine: Any) -> list[tuple[str, str, str]]:
    """Return what was noted in the inbox."""
    table = outbox.tables.inbox
    with engine.begin() as connection:
        rows = connection.execute(select(table.c.consumer, table.c.source, table.c.event_id))
        return sorted(tuple(it) for it in rows)
