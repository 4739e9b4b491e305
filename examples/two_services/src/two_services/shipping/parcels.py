"""What shipping does with orders."""

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from two_services.shipping.events import OrderPlaced, OrderShipped, outbox


class Table(DeclarativeBase):
    """What all tables of shipping have in common."""


class Parcel(Table):
    """A parcel."""

    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int]
    address: Mapped[str]


@outbox.on(OrderPlaced, id="book-parcel")
def book_parcel(context: OrderPlaced, session: Session) -> None:
    """Book a parcel, and tell of it; handles `order_placed`.

    The parcel, its event, and the note that this event is handled are committed together.
    """
    parcel = Parcel(order_id=context.order_id, address=context.address)
    session.add(parcel)
    session.flush()  # gives the parcel its id
    outbox.emit(session, OrderShipped(order_id=context.order_id, parcel_id=parcel.id))
