"""What the shop does with orders."""

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from two_services.shop.events import OrderPlaced, OrderShipped, outbox


class Table(DeclarativeBase):
    """What all tables of the shop have in common."""


class Order(Table):
    """An order.

    Attributes:
        state: `placed`, and then `shipped`.
        parcel_id: the number that shipping has given its parcel.
    """

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]
    item: Mapped[str]
    cents: Mapped[int]
    address: Mapped[str]
    state: Mapped[str] = mapped_column(default="placed")
    parcel_id: Mapped[int | None]


def place_order(session: Session, order: Order) -> Order:
    """Write an order, and its event, in the transaction of a session."""
    session.add(order)
    session.flush()  # gives the order its id
    outbox.emit(
        session,
        OrderPlaced(
            order_id=order.id,
            customer=order.customer,
            item=order.item,
            cents=order.cents,
            address=order.address,
        ),
    )
    return order


@outbox.on(OrderShipped, id="mark-shipped")
def mark_shipped(context: OrderShipped, session: Session) -> None:
    """Note that an order is on its way; handles `order_shipped`."""
    order = session.get_one(Order, context.order_id)
    order.state, order.parcel_id = "shipped", context.parcel_id
