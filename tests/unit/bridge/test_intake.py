"""What comes in may be anything: each message is taken in, passed over or refused, by itself."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from madcrow_events.bridge._judging import LARGEST
from madcrow_events.outbox import CloudEvent
from madcrow_events.testing import DrainReport
from support.outboxes import lines_of
from support.services import TOPIC, placed

CANARY = "hunter2"


def refused(broker, shipping, headers, body, caplog) -> list[str]:
    """Publish a message and a good one; return the lines about the first one."""
    broker.publish(TOPIC, headers, body)
    broker.publish(TOPIC, *placed(2))
    shipping.drain()
    assert shipping.handled == [("order_placed", 2)]
    assert shipping.drain() == DrainReport(0, 0, 0)
    assert CANARY not in caplog.text
    return lines_of(caplog, logging.DEBUG)


def binary(**given: Any) -> tuple[dict[str, str], bytes]:
    """Return a message with headers as they are given, which may be wrong."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "order_placed"}
    body = given.pop("body", b'{"number": 1, "customer": "hunter2"}')
    return {**headers, **{name.replace("_", "-"): it for name, it in given.items()}}, body


def structured(**given: Any) -> tuple[dict[str, str], bytes]:
    event = {"specversion": "1.0", "id": "1", "source": "/s", "type": "order_placed"}
    body = json.dumps({**event, "data": {"number": 1, "customer": CANARY}, **given})
    return {"content-type": "application/cloudevents+json"}, body.encode()


HOSTILE: dict[str, tuple[dict[str, str], bytes]] = {
    "nothing": ({}, b""),
    "no JSON": ({}, b"hunter2"),
    "no CloudEvent": ({}, b'{"password": "hunter2"}'),
    "a list": ({"content-type": "application/cloudevents-batch+json"}, b"[]"),
    "bytes": ({"content-type": "application/cloudevents+json"}, bytes(range(256))),
    "deep": ({}, b"[" * 100_000),
    "deep data": binary(body=b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "10 MB": binary(body=b'{"number": 1, "note": "' + b"x" * 10_000_000 + b'"}'),
    "more than 1 MB": binary(body=b'{"number": 1, "note": "' + b"x" * LARGEST + b'"}'),
    "no data": binary(body=b""),
    "data that is no object": binary(body=b'"hunter2"'),
    "data that is no JSON": binary(content_type="text/plain"),
    "a future of CloudEvents": binary(ce_specversion="2.0"),
    "no source": binary(ce_source=""),
    "no version": binary(ce_eventversion="hunter2"),
    "a huge version": binary(ce_eventversion="9" * 4000),
    "NUL": binary(ce_id="hunter2\0"),
    "encoded NUL": binary(ce_id="hunter2%00"),
    "no UTF-8": binary(ce_id="hunter2%ff"),
    "a lone surrogate": binary(ce_source="/\ud800"),
    "a lone surrogate in the data": binary(body=rb'{"number": 1, "customer": "\ud800"}'),
    "a lone surrogate in JSON": structured(source="/\ud800"),
    "a long id": binary(ce_id="é" * 1000),
    "an endless id": binary(ce_id="x" * 1_000_000),
    "thousands of attributes": binary(**{f"ce_a{it}": "x" * 100 for it in range(5000)}),
    "thousands in JSON": structured(**{f"a{it}": 1 for it in range(50_000)}),
    "an attribute twice": binary(**{"CE-ID": "2"}),
    "an attribute that is an object": structured(sender={"password": CANARY}),
}
"""Messages that nobody can take in."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_taken_in_is_refused_with_a_line(broker, shipping, caplog, kind):
    """It names the place of the message, and shows nothing of it; the next one is handled."""
    (line,) = refused(broker, shipping, *HOSTILE[kind], caplog)
    start = "the bridge of shipping refuses message 1 of the queue shipping: "
    assert line.startswith(start)
    assert len(line) > len(start) + 10
    assert line.isprintable()


def test_a_message_that_is_far_too_large_is_refused_before_it_is_read(broker, shipping, caplog):
    """Reading it would cost more than it is worth."""
    (line,) = refused(broker, shipping, {}, b"[" * 2_000_000, caplog)
    assert line.endswith(": its body has 2,000,000 bytes, and 1,572,864 are allowed")


@pytest.mark.parametrize(
    "given",
    [
        {"source": "/shipping"},
        {"type": "order_paid"},
        {"type": "unheard_of"},
        {"type": "Order Placed"},
        {"type": "order_placed\u202e"},
        {"type": "*"},
    ],
    ids=repr,
)
def test_what_is_not_for_this_service_is_passed_over(broker, shipping, caplog, given):
    """All services share the topic, so this is no news. A forged source is that of this service."""
    assert refused(broker, shipping, *placed(1, **given), caplog) == []


@pytest.mark.parametrize(
    "type_", ["order_Placed", "order_\u202eplaced", "order_" + "x" * 200, "order_*", "order_a b"]
)
def test_a_type_that_no_event_can_have_is_refused_though_a_pattern_fits_it(
    broker, service, caplog, type_
):
    """Else it would be kept for an event that can never be declared."""
    shipping = service("shipping")
    shipping.bridge.incoming("order_*")
    shipping.listen()
    lines = refused(broker, shipping, *placed(1, type=type_), caplog)
    assert [it.split(": ")[1] for it in lines] == ["its type is no name of an event"]


def test_a_message_may_have_the_whole_event_as_its_body(broker, shipping):
    """As from Redis, and from producers without this package."""
    broker.publish(TOPIC, *CloudEvent.read(*placed(1)).structured())
    shipping.drain()
    assert shipping.handled == [("order_placed", 1)]


def test_the_largest_event_comes_in_however_it_is_written(broker, shipping, caplog):
    """The attributes do not count, which may be in the body, too."""
    start, end = b'{"number": 1, "note": "', b'"}'
    data = start + b"x" * (LARGEST - len(start + end)) + end
    attributes = {f"a{it}": "\u00e9" * 4000 for it in range(16)}
    event = CloudEvent(id="1", source="/s", type="order_placed", data=data, attributes=attributes)
    broker.publish(TOPIC, *event.structured())
    shipping.drain()
    assert shipping.handled == [("order_placed", 1)]
    assert lines_of(caplog) == []


def test_a_message_that_is_repeated_is_taken_in_once(broker, shipping):
    """Also if somebody else writes another event under its id and source."""
    for number in (1, 1, 2):
        broker.publish(TOPIC, *placed(number, id="1"))
    shipping.drain()
    broker.publish(TOPIC, *placed(3, id="1"))
    shipping.drain()
    assert shipping.handled == [("order_placed", 1)]


def test_an_event_that_does_not_fit_its_model_is_kept_and_holds_up_nobody(broker, shipping):
    """Its delivery is dead, where people can see it."""
    bad = b'{"number": "hunter2", "customer": "a"}'
    broker.publish(TOPIC, *placed(1, data=bad))
    broker.publish(TOPIC, *placed(2, data=b'{"number": 2, "customer": "a"}'))
    shipping.drain(until_dead=True)
    assert shipping.handled == [("order_placed", 2)]
    (dead,) = shipping.outbox.inspect(shipping.engine).dead()
    assert (dead.handler, dead.error_type) == ("note order_placed", "UnreadablePayloadError")


def test_an_event_of_a_newer_version_waits(broker, shipping):
    """It is taken in, and no worker can read it yet; others go on."""
    broker.publish(TOPIC, *placed(1, attributes={"eventversion": "2"}))
    broker.publish(TOPIC, *placed(2, data=b'{"number": 2, "customer": "b"}'))
    shipping.drain()
    assert shipping.handled == [("order_placed", 2)]
    by_name = {it.name: it for it in shipping.outbox.inspect(shipping.engine).status().handlers}
    assert by_name["note order_placed"].unknown == 1


def test_messages_are_taken_in_in_their_order(broker, shipping):
    """Also if they are more than one transaction takes."""
    for number in range(130):
        broker.publish(TOPIC, *placed(number))
    shipping.drain()
    assert shipping.handled == [("order_placed", it) for it in range(130)]


def test_what_a_database_that_is_away_cannot_take_in_comes_again(broker, shipping, monkeypatch):
    """The drain raises, and the next one takes in what this one could not."""

    def raise_once(*_):
        monkeypatch.undo()
        raise OperationalError("insert", {}, ConnectionError("away"))

    broker.publish(TOPIC, *placed(1))
    broker.publish(TOPIC, *placed(2))
    statements = shipping.outbox._statements_for(shipping.engine)
    shipping.drain()
    broker.publish(TOPIC, *placed(3))
    broker.publish(TOPIC, *placed(4))
    monkeypatch.setattr(statements, "note", raise_once)
    with pytest.raises(OperationalError):
        shipping.drain()
    shipping.drain()
    assert shipping.handled == [("order_placed", it) for it in (1, 2, 3, 4)]
