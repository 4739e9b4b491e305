"""Calling durable handlers in a test, without a worker and without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

    from madcrow_events.outbox import Outbox

__all__ = ["DrainReport", "drain_outbox"]


class DrainReport(NamedTuple):
    """What came of the deliveries of an outbox.

    Attributes:
        done: how many were handled.
        dead: how many became dead.
        retried: how many attempts failed that others followed, or would follow.
    """

    done: int
    dead: int
    retried: int


def drain_outbox(
    outbox: Outbox,
    engine: Engine | AsyncEngine,
    *,
    fail: Mapping[str, Exception] | None = None,
    until_dead: bool = False,
) -> DrainReport:
    """Call the durable handlers of an outbox for all that is committed, in this thread.

    Nothing waits: instead, time is moved to the next delivery that is due. In an async test, write
    `await asyncio.to_thread(drain_outbox, outbox, engine)`.

    Args:
        outbox: the outbox.
        engine: the engine of its database.
        fail: exceptions that handlers raise instead of being called, by the ids of the handlers.
        until_dead: whether deliveries that failed are tried again until they are done or dead. If
            False, each is tried once, and stays as it is if it fails.

    Returns:
        How many deliveries were done, and how many not.

    Raises:
        InvalidOptionError: a handler takes a session that needs another kind of engine.
        OutboxSchemaError: the tables are missing, or are older than this package.

    Example:
        ```python
        from sqlalchemy import create_engine
        from sqlalchemy.orm import Session

        from madcrow_events import BaseEventContext, SignalRegistry
        from madcrow_events.outbox import Outbox
        from madcrow_events.testing import drain_outbox

        signals = SignalRegistry()


        @signals.event
        class OrderPlaced(BaseEventContext):
            order_id: int


        outbox = Outbox("/shop", signals=signals)


        @outbox.on(OrderPlaced, id="invoice")
        def send_invoice(context: OrderPlaced) -> None:
            print("invoice for order", context.order_id)


        engine = create_engine("sqlite://")
        outbox.metadata.create_all(engine)
        with Session(engine) as session:
            outbox.emit(session, OrderPlaced(order_id=7))
            session.commit()
        print(drain_outbox(outbox, engine))
        engine.dispose()
        ```

        ```text
        invoice for order 7
        DrainReport(done=1, dead=0, retried=0)
        ```
    """
    # Here, because only tests of an outbox have SQLAlchemy.
    from madcrow_events.outbox._draining import drain

    return DrainReport(*drain(outbox, engine, fail or {}, until_dead=until_dead))
