"""Both services in this process, with a broker in memory between them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from two_services.database import open_database
from two_services.shipping.events import connect as connect_shipping
from two_services.shipping.events import outbox as shipping_outbox
from two_services.shipping.parcels import Parcel
from two_services.shipping.parcels import Table as ShippingTable
from two_services.shop.events import connect as connect_shop
from two_services.shop.events import outbox as shop_outbox
from two_services.shop.orders import Order, place_order
from two_services.shop.orders import Table as ShopTable

from madcrow_events.bridge import MemoryBridge, MemoryBroker
from madcrow_events.testing import DrainReport, drain_outbox


class Services:
    """The shop and shipping, each with a new database.

    Attributes:
        broker: the broker between them.
        shop: the engine of the shop.
        shipping: the engine of shipping.
    """

    def __init__(self, broker: MemoryBroker, folder: Path) -> None:
        self.broker = broker
        self.shop = open_database(folder / "shop.db")
        self.shipping = open_database(folder / "shipping.db")
        ShopTable.metadata.create_all(self.shop)
        shop_outbox.metadata.create_all(self.shop)
        ShippingTable.metadata.create_all(self.shipping)
        shipping_outbox.metadata.create_all(self.shipping)

    def work_in_shop(self) -> DrainReport:
        """Take in what has come, and handle all there is."""
        return drain_outbox(shop_outbox, self.shop)

    def work_in_shipping(self, fail: dict[str, Exception] | None = None) -> DrainReport:
        return drain_outbox(shipping_outbox, self.shipping, fail=fail)

    def work(self) -> None:
        """Let events go to shipping, and back."""
        for step in (self.work_in_shop, self.work_in_shipping, self.work_in_shop):
            step()

    def place(self, item: str) -> int:
        """Place an order, and return its number."""
        order = Order(customer="Ada", item=item, cents=450, address="1 Mill Lane")
        with Session(self.shop) as session, session.begin():
            return place_order(session, order).id

    def state_of(self, order_id: int) -> str:
        with Session(self.shop) as session:
            return session.get_one(Order, order_id).state

    def parcels(self) -> list[tuple[int, int, str]]:
        """Return the number, the order and the address of each parcel."""
        with Session(self.shipping) as session:
            return [(it.id, it.order_id, it.address) for it in session.scalars(select(Parcel))]


@pytest.fixture(scope="session")
def broker() -> MemoryBroker:
    """Return the broker to which the outboxes are connected; once, as in a process."""
    broker = MemoryBroker()
    connect_shop(MemoryBridge(shop_outbox, broker, consumer="shop"))
    connect_shipping(MemoryBridge(shipping_outbox, broker, consumer="shipping"))
    return broker


@pytest.fixture
def services(broker: MemoryBroker, tmp_path: Path) -> Iterator[Services]:
    services = Services(broker, tmp_path)
    yield services
    services.shop.dispose()
    services.shipping.dispose()
