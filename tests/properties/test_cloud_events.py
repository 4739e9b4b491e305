"""The official SDK reads what we write, and writes what we read; no message does any harm."""

from __future__ import annotations

import datetime as dt
import json
import string
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from madcrow_events.outbox import CloudEvent, InvalidCloudEventError

pytest.importorskip("cloudevents")

from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings import amqp, http, kafka
from cloudevents.core.v1.event import CloudEvent as TheirEvent

PREFIXES = ["ce-", "ce_", "cloudEvents:", "cloudEvents_"]
RESERVED = {"id", "source", "type", "specversion", "data"}
KNOWN = {"subject", "time", "datacontenttype", "dataschema"}

SPECIAL = ["100%", "50%25", "%41", "%FF", '"', '"Zone 4"', 'say "hi"', r"\"", " Zürich ", "a=b;c"]
TEXTS = st.sampled_from(SPECIAL) | st.text(
    st.characters(exclude_categories=["Cc", "Cn", "Cs"]), min_size=1, max_size=8
)
NAMES = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20).filter(
    lambda name: name not in RESERVED | KNOWN
)
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
TIMES = st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=OFFSETS)  # noqa: DTZ001  # hypothesis wants bounds without a zone
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda values: (
        st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values, max_size=2)
    ),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text(max_size=3), JSON, max_size=3)
JSON_TYPES = ["application/json", "text/json; charset=utf-8", "application/vnd.shop.order+json"]
OTHER_TYPES = ["text/plain; charset=utf-8", "application/octet-stream", "image/svg+xml"]


def attributes(
    content_types: list[str | None], times: st.SearchStrategy[Any], values: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for the attributes that are not required."""
    known = {"subject": TEXTS, "dataschema": TEXTS, "time": times}
    return st.builds(
        lambda some, extensions, content_type: {
            **some,
            **extensions,
            **({} if content_type is None else {"datacontenttype": content_type}),
        },
        st.fixed_dictionaries({}, optional=known),
        st.dictionaries(NAMES, values, max_size=3),
        st.sampled_from(content_types),
    )


def our_events(
    data: st.SearchStrategy[bytes], content_types: list[str | None]
) -> st.SearchStrategy[CloudEvent]:
    others = attributes(content_types, TIMES.map(dt.datetime.isoformat), TEXTS | st.just(""))
    return st.builds(CloudEvent, id=TEXTS, source=TEXTS, type=TEXTS, data=data, attributes=others)


def their_events(data: st.SearchStrategy[Any], content_types: list[str | None]) -> Any:
    own = st.fixed_dictionaries({"id": TEXTS, "source": TEXTS, "type": TEXTS})
    values = TEXTS | st.booleans() | st.integers(-(2**31), 2**31 - 1)
    others = attributes(content_types, TIMES, values)
    return st.builds(lambda own, others, data: TheirEvent(own | others, data), own, others, data)


WITH_JSON = our_events(JSON.map(lambda it: json.dumps(it).encode()), [None, *JSON_TYPES])
WITH_OTHER_DATA = our_events(st.binary(max_size=9), [*OTHER_TYPES])
WITH_WRONG_JSON = our_events(st.binary(max_size=9), [None, *JSON_TYPES])


def through_http(headers: dict[str, str], body: bytes) -> BaseCloudEvent:
    return http.from_http_event(http.HTTPMessage(headers, body))


def through_kafka(headers: dict[str, str], body: bytes) -> BaseCloudEvent:
    encoded = {name: text.encode() for name, text in headers.items()}
    return kafka.from_kafka_event(kafka.KafkaMessage(encoded, None, body))


def through_amqp(headers: dict[str, str], body: bytes) -> BaseCloudEvent:
    content_type = headers.pop("content-type", None)
    properties = {} if content_type is None else {"content-type": content_type}
    return amqp.from_amqp_event(amqp.AMQPMessage(properties, headers, body))


TO_THEM: dict[str, Callable[[CloudEvent], BaseCloudEvent]] = {
    "http": lambda written: through_http(*written.binary()),
    "kafka": lambda written: through_kafka(*written.binary("ce_")),
    "amqp:": lambda written: through_amqp(*written.binary("cloudEvents:")),
    "amqp_": lambda written: through_amqp(*written.binary("cloudEvents_")),
    "structured": lambda written: through_http(*written.structured()),
}


def from_http(message: http.HTTPMessage) -> CloudEvent:
    return CloudEvent.read(message.headers, message.body)


def from_kafka(message: kafka.KafkaMessage) -> CloudEvent:
    headers = {name: text.decode() for name, text in message.headers.items()}
    return CloudEvent.read(headers, message.value)


def from_amqp(message: amqp.AMQPMessage) -> CloudEvent:
    headers = {**message.application_properties, **message.properties}
    return CloudEvent.read(headers, message.application_data)


FROM_THEM: dict[str, Callable[[TheirEvent], CloudEvent]] = {
    "http": lambda written: from_http(http.to_binary_event(written)),
    "kafka": lambda written: from_kafka(kafka.to_binary_event(written)),
    "amqp": lambda written: from_amqp(amqp.to_binary_event(written)),
    "structured": lambda written: from_http(http.to_structured_event(written)),
}


def assert_same_attributes(ours: CloudEvent, theirs: BaseCloudEvent) -> None:
    """Compare texts with values. Some of their bindings write True for true, or milliseconds."""
    own = {"specversion": "1.0", "id": ours.id, "source": ours.source, "type": ours.type}
    texts, values = {**own, **ours.attributes}, dict(theirs.get_attributes())
    time = values.pop("time")  # they add one
    if "time" in texts:
        difference = dt.datetime.fromisoformat(texts.pop("time")) - time
        assert abs(difference) <= dt.timedelta(milliseconds=1)
    if "datacontenttype" not in values:
        assert texts.pop("datacontenttype", "application/json") == "application/json"
    flags = {name for name, value in values.items() if isinstance(value, bool)}
    assert {name: text.lower() if name in flags else text for name, text in texts.items()} == {
        name: str(value).lower() if name in flags else str(value) for name, value in values.items()
    }


def as_bytes(data: Any) -> bytes:
    """Return data that is no JSON, and that their SDK makes a text or None if it can."""
    return data.encode() if isinstance(data, str) else data or b""


@given(way=st.sampled_from([*TO_THEM]), written=WITH_JSON)
def test_the_sdk_reads_the_json_that_we_write(way: str, written: CloudEvent) -> None:
    read = TO_THEM[way](written)

    assert_same_attributes(written, read)
    assert read.get_data() == json.loads(written.data)


@given(way=st.sampled_from([*TO_THEM]), written=WITH_OTHER_DATA)
def test_the_sdk_reads_other_data_that_we_write(way: str, written: CloudEvent) -> None:
    read = TO_THEM[way](written)

    assert_same_attributes(written, read)
    assert as_bytes(read.get_data()) == written.data


@given(way=st.sampled_from([*FROM_THEM]), written=their_events(OBJECTS, [None, *JSON_TYPES]))
def test_we_read_the_json_that_the_sdk_writes(way: str, written: TheirEvent) -> None:
    read = FROM_THEM[way](written)

    assert_same_attributes(read, written)
    assert "time" in read.attributes
    assert read.is_json
    assert json.loads(read.data) == written.get_data()


@given(
    way=st.sampled_from([*FROM_THEM]),
    written=their_events(st.binary(max_size=9), [None, *JSON_TYPES, *OTHER_TYPES]),
)
def test_we_read_the_bytes_that_the_sdk_writes(way: str, written: TheirEvent) -> None:
    read = FROM_THEM[way](written)

    assert_same_attributes(read, written)
    assert "time" in read.attributes
    assert read.data == written.get_data()


@given(prefix=st.sampled_from(PREFIXES), written=WITH_JSON | WITH_OTHER_DATA | WITH_WRONG_JSON)
def test_an_event_comes_back_equal_from_headers(prefix: str, written: CloudEvent) -> None:
    assert CloudEvent.read(*written.binary(prefix)) == written


@given(written=WITH_JSON)
def test_an_event_with_json_comes_back_equal_from_a_body(written: CloudEvent) -> None:
    read = CloudEvent.read(*written.structured())

    implied = {"datacontenttype": "application/json", **written.attributes}
    assert replace(read, data=b"") == replace(written, data=b"", attributes=implied)
    assert json.loads(read.data) == json.loads(written.data)


@given(written=WITH_OTHER_DATA)
def test_an_event_with_other_data_comes_back_equal_from_a_body(written: CloudEvent) -> None:
    assert CloudEvent.read(*written.structured()) == written


VALID = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order_placed"}
LIKELY_NAMES = NAMES | st.sampled_from([*VALID, *KNOWN, "data", "data_base64", "Id", "", "\ud800"])
LIKELY_TEXTS = st.text(st.characters(), max_size=9) | st.sampled_from(
    ["1.0", "0.3", "application/json", "text/plain", "2026-01-31T12:00:00Z", "e30=", *SPECIAL]
)
OTHER_VALUES = st.sampled_from(
    [float("nan"), float("inf"), 10**5000, b"a", (), dt.datetime.max.replace(tzinfo=dt.UTC)]
)
STRUCTURED = st.sampled_from(["application/cloudevents+json", "application/cloudevents"])
HEADERS = st.dictionaries(
    st.builds(str.__add__, st.sampled_from(PREFIXES), LIKELY_NAMES)
    | st.sampled_from(["content-type", "Content-Type"])
    | st.text(st.characters(), max_size=9),
    LIKELY_TEXTS | JSON | OTHER_VALUES | STRUCTURED,
    max_size=3,
)
VALID_HEADERS = st.sampled_from(PREFIXES).map(
    lambda prefix: {prefix + name: text for name, text in VALID.items()}
)
DOCUMENTS = st.dictionaries(LIKELY_NAMES, LIKELY_TEXTS | JSON, max_size=2)
BODIES = st.binary(max_size=9) | st.builds(
    lambda valid, members, end: json.dumps(valid | members).encode() + end,
    st.sampled_from([{}, VALID]),
    DOCUMENTS,
    st.sampled_from([b"", b"", b"\xff"]),
)


@settings(max_examples=200)
@given(
    headers=HEADERS
    | st.builds(dict.__or__, VALID_HEADERS, HEADERS)
    | STRUCTURED.map(lambda it: {"content-type": it}),
    body=BODIES,
)
def test_any_message_is_read_or_refused_as_none(headers: dict[str, Any], body: bytes) -> None:
    try:
        read = CloudEvent.read(headers, body)
    except InvalidCloudEventError:
        event("refused")
        return
    # The binary mode has no place for an event in an event.
    assume("cloudevents" not in read.attributes.get("datacontenttype", ""))
    event("read from headers" if read.data == body else "read from the body")
    assert CloudEvent.read(*read.binary()) == read
