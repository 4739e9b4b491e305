"""The events of shipping: what it hears, and what it says.

`OrderPlaced` is the shop's event with the fields that shipping needs, and no others. Nothing is
imported from the shop: what they share is the name of the event, and the JSON.
"""

from madcrow_events import BaseEventContext, SignalRegistry
from madcrow_events.bridge import Bridge
from madcrow_events.outbox import Outbox

signals = SignalRegistry()  # as in the shop
outbox = Outbox("/shipping", signals=signals)


@signals.event(key="order_id")
class OrderPlaced(BaseEventContext):
    """A customer placed an order; the shop says so."""

    order_id: int
    address: str


@signals.event(key="order_id")
class OrderShipped(BaseEventContext):
    """An order is in a parcel."""

    order_id: int
    parcel_id: int


def connect(bridge: Bridge) -> None:
    """Say which events come in, and which go out."""
    bridge.incoming(OrderPlaced, sources=("/shop",))
    bridge.outgoing(OrderShipped)
