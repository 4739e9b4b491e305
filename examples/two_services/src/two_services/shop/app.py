"""The routes of the shop."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from madcrow_events.outbox import Worker
from two_services.shop.events import outbox
from two_services.shop.orders import Order, Table, place_order

__all__ = ["create_app"]


def create_app(engine: Engine) -> FastAPI:
    """Return the application, whose lifespan has a worker of the outbox.

    Args:
        engine: that of the database; tables that are missing are made.
    """
    Table.metadata.create_all(engine)
    outbox.metadata.create_all(engine)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with Worker(outbox, engine):
            yield

    # The pages of FastAPI's documentation would load their parts from another host.
    app = FastAPI(title="Shop", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.engine = engine
    app.post("/orders", status_code=201)(post_order)
    app.get("/orders/{order_id}")(get_order)
    return app


class NewOrder(BaseModel):
    """What a customer sends."""

    customer: str
    item: str
    cents: int = Field(ge=0)
    address: str


class OrderView(BaseModel):
    """What a customer sees of an order."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    item: str
    state: str
    parcel_id: int | None


def _writing_session(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine) as session, session.begin():
        yield session


def _reading_session(request: Request) -> Iterator[Session]:
    with Session(request.app.state.engine.execution_options(reads=True)) as session:
        yield session


# With this scope, the order and its event are committed before the customer has the answer.
Writing = Annotated[Session, Depends(_writing_session, scope="function")]
Reading = Annotated[Session, Depends(_reading_session)]


def post_order(new: NewOrder, session: Writing) -> OrderView:
    """Place an order."""
    return OrderView.model_validate(place_order(session, Order(**new.model_dump())))


def get_order(order_id: int, session: Reading) -> OrderView:
    """Show an order."""
    order = session.get(Order, order_id)
    if order is None:
        raise HTTPException(404, "there is no such order")
    return OrderView.model_validate(order)
