"""The event of a delivery as a CloudEvent, for those who send it themselves."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from madcrow_events import BaseEventContext, current_event, event_scope
from madcrow_events.outbox import CloudEvent, InvalidCloudEventError, NotInOutboxError, Outbox
from madcrow_events.testing import drain_outbox
from support.incoming import EVERYTHING, order_from, take_in
from support.outboxes import Order, emit, keyed_outbox


@pytest.fixture
def engine():
    """Return an engine of a database in memory."""
    engine = create_engine("sqlite://")
    yield engine
    engine.dispose()


@pytest.fixture
def outbox(engine):
    outbox = keyed_outbox()
    outbox.metadata.create_all(engine)
    return outbox


def sent_by(outbox: Outbox, event: str = "order") -> list[CloudEvent]:
    """Return what a new durable handler makes of each event."""
    sent: list[CloudEvent] = []

    @outbox.on(event, id=f"send {event}")
    def send() -> None:
        sent.append(outbox.as_cloud_event(current_event()))

    return sent


class Paid(BaseEventContext):
    event_version: ClassVar[int] = 3

    number: int


def test_all_that_is_known_of_an_event_goes_along(outbox, engine):
    """Its cause, its sender and the fields of its scope, too."""
    outbox.signals.signal("paid", context=Paid, key=lambda context: f"k-{context.number}")
    sent = sent_by(outbox, "paid")

    @outbox.on("order", id="pay")
    def pay(number: int, session: Session) -> None:
        outbox.emit(session, Paid(number=number), sender="till 3")

    with event_scope(request_id="r-1", user_agent="é"):
        (order,) = emit(outbox, engine, Order(number=7))
    drain_outbox(outbox, engine)
    (event,) = sent
    assert (event.source, event.type) == ("/shop", "paid")
    assert UUID(event.id) != UUID(order)
    assert json.loads(event.data)["number"] == 7
    attributes = dict(event.attributes)
    at = datetime.fromisoformat(attributes.pop("time"))
    assert timedelta(0) <= datetime.now(UTC) - at < timedelta(minutes=1)
    assert json.loads(attributes.pop("scope")) == {"request_id": "r-1", "user_agent": "é"}
    assert attributes == {
        "datacontenttype": "application/json",
        "eventversion": "3",
        "partitionkey": "k-7",
        "correlationid": order,
        "causationid": order,
        "sender": "till 3",
    }


@pytest.mark.parametrize("sender", [None, object()])
def test_what_is_not_known_is_left_out(outbox, engine, sender):
    """The first event of a chain is its own correlation."""
    outbox.signals.signal("paid", context=Paid)
    sent = sent_by(outbox, "paid")
    with Session(engine) as session:
        emission = outbox.emit(session, Paid(number=1), sender=sender)
        session.commit()
    drain_outbox(outbox, engine)
    assert sent[0].id == str(emission.id)
    assert set(sent[0].attributes) == {"time", "datacontenttype", "eventversion", "correlationid"}
    assert sent[0].attributes["correlationid"] == str(emission.id)


def test_a_scope_that_no_attribute_can_have_is_left_out(outbox, engine):
    """A client chooses its user agent, and must not keep the event from being sent by that."""
    sent = sent_by(outbox)
    with event_scope(user_agent="x" * 5000):
        emit(outbox, engine, Order(number=7))
    assert drain_outbox(outbox, engine).done == 1
    assert "scope" not in sent[0].attributes


@pytest.mark.parametrize("sender", [7, UUID(int=7)])
def test_a_sender_goes_along_as_text(outbox, engine, sender):
    sent = sent_by(outbox)
    with Session(engine) as session:
        outbox.emit(session, Order(number=1), sender=sender)
        session.commit()
    drain_outbox(outbox, engine)
    assert sent[0].attributes["sender"] == str(sender)


def test_what_is_stored_encoded_goes_along_as_json(engine):
    outbox = keyed_outbox(encode=lambda it: it[::-1], decode=lambda it: it[::-1])
    outbox.metadata.create_all(engine)
    sent = sent_by(outbox)
    emit(outbox, engine, Order(number=7))
    drain_outbox(outbox, engine)
    assert json.loads(sent[0].data)["number"] == 7


def test_an_event_that_was_taken_in_keeps_its_source_id_and_time(outbox, engine):
    """The rest is what this service says of it."""
    sent = sent_by(outbox)
    take_in(outbox, engine, order_from(id="theirs", customer="a", attributes=EVERYTHING))
    drain_outbox(outbox, engine)
    (event,) = sent
    assert (event.source, event.id, event.type) == ("/till", "theirs", "order")
    assert event.attributes["time"] == EVERYTHING["time"]
    assert event.attributes["partitionkey"] == "a"
    assert event.attributes["correlationid"] != EVERYTHING["correlationid"]
    assert {"causationid", "sender", "scope", "traceparent"}.isdisjoint(event.attributes)


def test_only_the_event_that_a_durable_handler_is_called_for_can_be_sent(outbox, engine):
    """Not one that the handler emits, nor by another outbox, nor when the handler has ended."""
    other = Outbox("/other", signals=outbox.signals)
    outbox.signals.signal("paid", context=Paid)
    problems: list[Any] = []
    seen: list[Any] = []

    def try_to_send(by: Outbox, event: Any) -> None:
        with pytest.raises(NotInOutboxError, match="in that handler") as caught:
            by.as_cloud_event(event)
        problems.append(caught.value)

    @outbox.on("order", id="send")
    def send() -> None:
        seen.append(current_event())
        try_to_send(other, current_event())
        try_to_send(outbox, outbox.signals.dispatcher.emit("paid", number=1))
        assert outbox.as_cloud_event(current_event()).type == "order"

    outbox.signals["order"].on()(lambda: try_to_send(outbox, current_event()))
    emit(outbox, engine, Order(number=1))
    assert drain_outbox(outbox, engine).done == 1
    try_to_send(outbox, seen[0])
    assert len(problems) == 4


def test_an_async_handler_can_send_too(outbox, engine):
    sent: list[CloudEvent] = []

    @outbox.on("order", id="send")
    async def send() -> None:
        await asyncio.sleep(0)
        sent.append(outbox.as_cloud_event(current_event()))

    emit(outbox, engine, Order(number=1))
    drain_outbox(outbox, engine)
    assert len(sent) == 1


@pytest.mark.parametrize("sender", ["a\nb", "x" * 5000])
def test_a_sender_that_no_attribute_can_have_is_an_error_of_the_handler(outbox, engine, sender):
    problems: list[InvalidCloudEventError] = []

    @outbox.on("order", id="send")
    def send() -> None:
        with pytest.raises(InvalidCloudEventError, match="the attribute sender has") as caught:
            outbox.as_cloud_event(current_event())
        problems.append(caught.value)

    with Session(engine) as session:
        outbox.emit(session, Order(number=1), sender=sender)
        session.commit()
    drain_outbox(outbox, engine)
    assert [it.attribute for it in problems] == ["sender"]
