"""The events of the shop: what it says, and what it hears."""

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.bridge import Bridge
from madcrow_events.outbox import Outbox

signals = SignalRegistry()  # not the default one, because in tests one process has both services
outbox = Outbox("/shop", signals=signals)


@signals.event(key="order_id")
class OrderPlaced(BaseEventContext):
    """A customer placed an order."""

    order_id: int
    customer: str
    item: str
    cents: int
    address: str


@signals.event(key="order_id")
class OrderShipped(BaseEventContext):
    """An order is in a parcel; shipping says so."""

    order_id: int
    parcel_id: int


def connect(bridge: Bridge) -> None:
    """Say which events go out, and which come in."""
    bridge.outgoing(OrderPlaced)
    bridge.incoming(OrderShipped, sources=("/shipping",))
