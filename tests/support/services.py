"""Services that send each other events, each with an outbox in a database of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine

from madcrow_events import BaseEventContext, SignalRegistry, current_event
from madcrow_events.bridge import MemoryBridge, MemoryBroker
from madcrow_events.outbox import CloudEvent, Outbox
from madcrow_events.testing import DrainReport, drain_outbox
from support.outboxes import emit

__all__ = ["TOPIC", "OrderPaid", "OrderPlaced", "Service", "Unstorable", "placed"]

TOPIC = "madcrow_events"


class OrderPlaced(BaseEventContext):
    number: int
    customer: str = "nobody"
    note: str = ""


class OrderPaid(BaseEventContext):
    number: int


class Unstorable(BaseEventContext):
    """It may hold anything, and so does not come back from JSON as it was."""

    number: Any = None


class Service:
    """A service, which has the events `order_placed` and `order_paid`.

    Args:
        name: its name, which is that of its consumer and, with a slash, its source.
        broker: the broker that the services share.
        engine: the engine of its database; None for a new one in memory.
        bridge: makes its bridge.
        signals: its events; None for new ones.
        decode: turns what is stored of an event into its JSON.
        options: options of its bridge.
    """

    def __init__(
        self,
        name: str,
        broker: MemoryBroker,
        *,
        engine: Any = None,
        bridge: Callable[..., Any] = MemoryBridge,
        signals: SignalRegistry | None = None,
        decode: Callable[[str], str] | None = None,
        **options: Any,
    ) -> None:
        self.engine = create_engine("sqlite://") if engine is None else engine
        self.signals = SignalRegistry() if signals is None else signals
        self.placed = self.signals.signal("order_placed", context=OrderPlaced, key="customer")
        self.paid = self.signals.signal("order_paid", context=OrderPaid)
        encode = None if decode is None else str
        self.outbox = Outbox(f"/{name}", signals=self.signals, encode=encode, decode=decode)
        self.outbox.metadata.create_all(self.engine)
        self.bridge = bridge(self.outbox, broker, **{"consumer": name, **options})
        self.handled: list[tuple[str, int]] = []
        """The events that its durable handlers have handled, and their numbers."""
        self.seen: list[Any] = []
        """Their emissions."""

    def listen(self, *events: str) -> None:
        """Handle events, all of them unless some are named."""
        for name in events or ("order_placed", "order_paid"):
            self.outbox.on(name, id=f"note {name}")(self._note)

    def _note(self, context: BaseEventContext) -> None:
        emission: Any = current_event()
        self.seen.append(emission)
        self.handled.append((emission.event, context.number))  # type: ignore[attr-defined]

    def emit(self, *contexts: BaseEventContext) -> list[str]:
        """Emit events in one transaction; return their ids."""
        return emit(self.outbox, self.engine, *contexts)

    def drain(self, **options: Any) -> DrainReport:
        """Take in what has come, and handle all there is."""
        return drain_outbox(self.outbox, self.engine, **options)

    def close(self) -> None:
        """Close the connections to its database."""
        self.engine.dispose()


def placed(number: int = 1, source: str = "/shop", **given: Any) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an event `order_placed` of a service.

    Args:
        number: the number, which is that of the id, too.
        source: the source of the service.
        given: other arguments of `CloudEvent`.
    """
    event = {
        "id": str(number),
        "source": source,
        "type": "order_placed",
        "data": b'{"number": %d}' % number,
        **given,
    }
    return CloudEvent(**event).binary()
