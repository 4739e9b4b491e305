"""CloudEvents 1.0 are read in each mode and binding; whatever is none is refused."""

from __future__ import annotations

import copy
import datetime as dt
import json
import pickle
import traceback
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest

from madcrow_events import InvalidOptionError
from madcrow_events.outbox import CloudEvent, InvalidCloudEventError

PREFIXES = ["ce-", "ce_", "cloudEvents:", "cloudEvents_"]
STRUCTURED = {"content-type": "application/cloudevents+json"}
SECRET = "hunter2"

each_prefix = pytest.mark.parametrize("prefix", PREFIXES)


def order_placed(**changed: Any) -> CloudEvent:
    values = {"id": "7", "source": "/shop", "type": "order_placed", "data": b"{}", **changed}
    return CloudEvent(**values)


def headers_of(prefix: str = "ce-", **changed: Any) -> dict[str, Any]:
    values = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order_placed", **changed}
    return {prefix + name: value for name, value in values.items()}


def document_of(**changed: Any) -> bytes:
    values = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "order_placed", **changed}
    return json.dumps(values).encode()


def refusal_of(act: Callable[[], object]) -> InvalidCloudEventError:
    """Return the error of what is refused, which shows no value in any way."""
    with pytest.raises(InvalidCloudEventError) as caught:
        act()
    shown = [*traceback.format_exception(caught.value), repr(vars(caught.value))]
    assert SECRET not in "".join(shown)
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


@each_prefix
def test_an_event_is_read_from_headers_of_each_prefix(prefix: str) -> None:
    headers = {**headers_of(prefix, subject="42"), "content-type": "application/json"}

    assert CloudEvent.read(headers, b'{"total": 12}') == order_placed(
        data=b'{"total": 12}',
        attributes={"subject": "42", "datacontenttype": "application/json"},
    )


@each_prefix
def test_upper_and_lower_case_of_headers_are_the_same(prefix: str) -> None:
    headers = {name.upper(): value for name, value in headers_of(prefix).items()}

    event = CloudEvent.read({**headers, "CONTENT-Type": "text/plain", "X-Other": "1"}, b"")

    assert event == order_placed(data=b"", attributes={"datacontenttype": "text/plain"})


@pytest.mark.parametrize("content_type", [None, ""])
def test_an_event_may_have_no_content_type(content_type: str | None) -> None:
    event = CloudEvent.read({**headers_of(), "content-type": content_type}, b"{}")

    assert event == order_placed()


def test_a_content_type_among_the_attributes_goes_before_that_of_the_message() -> None:
    """The binding for NATS writes it there, and a client may set the other one by itself."""
    headers = headers_of(datacontenttype="application/xml")

    event = CloudEvent.read({**headers, "content-type": "text/plain"}, b"<a/>")

    assert event.attributes == {"datacontenttype": "application/xml"}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41", "A"),
        ("100%25", "100%"),
        ("%2541", "%41"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("Zürich", "Zürich"),
        ('"Zone 4"', "Zone 4"),
        (r'"say \"hi\" \\ %41"', r'say "hi" \ A'),
        ('a "b" c', 'a "b" c'),
        ('"', '"'),
        ("", ""),
    ],
)
def test_percent_signs_and_quotes_are_decoded_once_as_for_http(written: str, read: str) -> None:
    assert CloudEvent.read(headers_of(zone=written), b"").attributes == {"zone": read}


@pytest.mark.parametrize("prefix", PREFIXES[1:])
@pytest.mark.parametrize("text", ["%41", '"Zone 4"', "100%25"])
def test_other_bindings_than_that_for_http_take_percent_signs_as_they_are(
    prefix: str, text: str
) -> None:
    event = order_placed(attributes={"zone": text})

    assert CloudEvent.read(headers_of(prefix, zone=text), b"{}") == event
    assert event.binary(prefix)[0][f"{prefix}zone"] == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("count", 5, "5"),
        ("count", -(2**63), str(-(2**63))),
        ("is", True, "true"),
        ("is", False, "false"),
        ("time", 1_769_860_800_123, "2026-01-31T12:00:00.123000+00:00"),
        ("time", dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC), "2026-01-31T12:00:00+00:00"),
    ],
)
def test_a_value_of_a_type_of_the_broker_becomes_its_text(name: str, value: Any, text: str) -> None:
    headers = headers_of("cloudEvents_", **{name: value})

    assert CloudEvent.read(headers, b"").attributes == {name: text}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+json",
        "Application/CloudEvents+JSON; charset=utf-8",
        "application/cloudevents",
        "application/json",
        None,
    ],
)
def test_an_event_is_read_from_the_body_whatever_its_content_type(content_type: str | None) -> None:
    body = document_of(subject="42", datacontenttype="application/json", data={"a": [1, "ü", None]})

    assert CloudEvent.read({"Content-Type": content_type}, body) == order_placed(
        data='{"a":[1,"ü",null]}'.encode(),
        attributes={"subject": "42", "datacontenttype": "application/json"},
    )


def test_the_body_counts_if_the_content_type_says_so_although_headers_have_attributes() -> None:
    headers = headers_of(id="8", other="%FF")

    assert CloudEvent.read({**headers, **STRUCTURED}, document_of()) == order_placed(data=b"")


@pytest.mark.parametrize(
    ("members", "data", "content_type"),
    [
        ({}, b"", None),
        ({"data": {"total": 1.5}}, b'{"total":1.5}', "application/json"),
        ({"data": None}, b"null", "application/json"),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": "Infinity"}, b'"Infinity"', "application/json"),
        ({"data": [1], "datacontenttype": "text/json"}, b"[1]", "text/json"),
        ({"data": 1, "datacontenttype": "a/b+JSON;c=d"}, b"1", "a/b+JSON;c=d"),
        ({"data": "<ü/>", "datacontenttype": "text/xml"}, "<ü/>".encode(), "text/xml"),
        ({"data_base64": "/w=="}, b"\xff", None),
        ({"data_base64": "", "datacontenttype": "image/png"}, b"", "image/png"),
        ({"data_base64": "e30=", "datacontenttype": "text/json"}, b"{}", "text/json"),
        ({"data_base64": None}, b"", None),
        ({"data_base64": None, "data": 1}, b"1", "application/json"),
    ],
)
def test_data_in_the_body_is_encoded_as_its_content_type_says(
    members: dict[str, Any], data: bytes, content_type: str | None
) -> None:
    """The content type that the format implies is said, since other modes imply none."""
    event = CloudEvent.read(STRUCTURED, document_of(**members))

    assert (event.data, event.attributes.get("datacontenttype")) == (data, content_type)


def test_attributes_in_the_body_become_texts_and_are_left_out_if_they_are_null() -> None:
    body = document_of(count=-5, most=2**63 - 1, no=False, yes=True, subject=None, empty="")

    assert CloudEvent.read(STRUCTURED, body).attributes == {
        "count": "-5",
        "most": str(2**63 - 1),
        "no": "false",
        "yes": "true",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        (None, True),
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/vnd.shop.order+json", True),
        ("text/json", True),
        ("text/plain", False),
        ("application/jsonl", False),
        ("text/plain; as=application/json", False),
    ],
)
def test_an_event_knows_whether_its_data_is_json(content_type: str | None, is_json: bool) -> None:
    attributes = {} if content_type is None else {"datacontenttype": content_type}

    assert order_placed(attributes=attributes).is_json is is_json


def test_the_binary_mode_has_attributes_in_headers_and_the_data_as_body() -> None:
    event = order_placed(
        source="/shop/Zürich",
        data=b'{"total": 12}',
        attributes={
            "datacontenttype": "application/json; charset=utf-8",
            "subject": '100% "new"',
            "time": "2026-01-31T12:00:00+01:00",
        },
    )

    assert event.binary() == (
        {
            "ce-specversion": "1.0",
            "ce-id": "7",
            "ce-source": "/shop/Z%C3%BCrich",
            "ce-type": "order_placed",
            "ce-subject": "100%25%20%22new%22",
            "ce-time": "2026-01-31T12:00:00+01:00",
            "content-type": "application/json; charset=utf-8",
        },
        b'{"total": 12}',
    )


@pytest.mark.parametrize(
    ("data", "content_type", "member"),
    [
        (b"", None, b""),
        (b"", "application/json", b""),
        (b'{"total": 1.50}', None, b',"data":{"total": 1.50}'),
        (b"null", "text/json", b',"data":null'),
        (b"{broken", "text/json", b',"data_base64":"' + b64encode(b"{broken") + b'"'),
        (b'1,"id":"8"', None, b',"data_base64":"' + b64encode(b'1,"id":"8"') + b'"'),
        (b"NaN", "text/json", b',"data_base64":"TmFO"'),
        (b'"\xff"', "text/json", b',"data_base64":"Iv8i"'),
        (b"{}", "image/png", b',"data_base64":"e30="'),
    ],
)
def test_the_structured_mode_has_all_in_the_body(
    data: bytes, content_type: str | None, member: bytes
) -> None:
    """Data that claims to be JSON and is none, or more than one value, cannot add attributes."""
    attributes = {} if content_type is None else {"datacontenttype": content_type}
    event = order_placed(data=data, attributes={"subject": '"ü"', **attributes})

    headers, body = event.structured()

    assert headers == STRUCTURED
    assert body.endswith(member + b"}")
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "7",
        "source": "/shop",
        "type": "order_placed",
        "subject": '"ü"',
        **attributes,
        **json.loads(b"{" + member[1:] + b"}"),
    }
    assert CloudEvent.read(headers, body).id == "7"


def test_there_are_four_prefixes() -> None:
    with pytest.raises(InvalidOptionError, match="one of ce-, ce_, cloudEvents:") as caught:
        order_placed().binary("x-")
    assert caught.value.option == "prefix"


def test_an_event_in_an_event_is_written_structured() -> None:
    """By its content type, a message in the binary mode would be taken for the inner event."""
    outer = order_placed(
        data=document_of(id="8"), attributes={"datacontenttype": "application/cloudevents+json"}
    )

    assert refusal_of(outer.binary).attribute == "datacontenttype"
    returned = CloudEvent.read(*outer.structured())
    assert (returned.id, json.loads(returned.data)["id"]) == ("7", "8")


def test_an_event_shows_neither_its_data_nor_its_attributes() -> None:
    event = order_placed(data=SECRET.encode(), attributes={"subject": SECRET})

    assert repr(event) == "CloudEvent(id='7', source='/shop', type='order_placed')"


def test_an_event_cannot_be_changed_but_copied_pickled_and_hashed() -> None:
    attributes = {"subject": "42"}
    event = order_placed(attributes=attributes)
    attributes["subject"] = "43"

    with pytest.raises(AttributeError):
        event.id = "8"  # type: ignore[misc]  # as an author may try
    assert event.attributes == {"subject": "42"}
    assert pickle.loads(pickle.dumps(event)) == copy.deepcopy(event) == event  # noqa: S301  # ours
    assert len({event, copy.copy(event), order_placed(id="8")}) == 2


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31t12:00:00.123456789z",
        "2024-02-29T23:59:59+23:59",
        "2016-12-31T23:59:60Z",
        "0001-01-01T00:00:00-00:00",
    ],
)
def test_a_time_of_rfc_3339_stays_as_it_is(time: str) -> None:
    event = order_placed(attributes={"time": time})

    assert CloudEvent.read(*event.binary()) == event


WRONG_TEXTS = [
    ("id", "", "is empty: fill it in"),
    ("source", "", "is empty"),
    ("type", "", "is empty"),
    ("subject", "", "is empty"),
    ("dataschema", "", "is empty"),
    ("datacontenttype", "", "is empty"),
    *(
        (
            name,
            f"{SECRET}{char}",
            "has a control character, a lone surrogate or a noncharacter: remove",
        )
        for name in ("id", "zone")
        for char in "\0\n\x1f\x7f\x85\x9f\ud800\udfff\ufdd0\ufdef\ufffe\uffff\U0010ffff"
    ),
    ("id", SECRET * 1000, "has 7000 characters, and 4096 are allowed: move"),
    ("zone", "a" * 4097, "has 4097 characters"),
    ("datacontenttype", "text/plain; as=ü", "is no media type: write it as in application/json"),
    *(
        ("time", text, "is no time of RFC 3339: write it as in 2026")
        for text in (
            "",
            SECRET,
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-02-30T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "0000-01-01T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:00:01",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00.\uff12Z",
            "2026-01-31T12:00:00Z ",
        )
    ),
]


@pytest.mark.parametrize(("name", "text", "problem"), WRONG_TEXTS)
def test_a_text_that_is_not_allowed_is_refused_wherever_it_comes_from(
    name: str, text: str, problem: str
) -> None:
    own = {name: text} if name in ("id", "source", "type") else {"attributes": {name: text}}

    errors = [
        refusal_of(lambda: order_placed(**own)),
        refusal_of(lambda: CloudEvent.read(headers_of("ce_", **{name: text}), b"")),
    ]
    if text.isascii():
        errors.append(refusal_of(lambda: CloudEvent.read(STRUCTURED, document_of(**{name: text}))))

    for error in errors:
        assert f"the attribute {name} {problem}" in str(error)
        assert error.attribute == name


@pytest.mark.parametrize(
    "name", ["", "Zone", "zone_id", "zone-id", "zone id", "zöne", "z" * 65, "\n", SECRET + "!"]
)
def test_a_name_that_is_not_allowed_is_refused_and_not_shown(name: str) -> None:
    errors = [
        refusal_of(lambda: order_placed(attributes={name: "4"})),
        refusal_of(lambda: CloudEvent.read(STRUCTURED, document_of(**{name: "4"}))),
        refusal_of(lambda: CloudEvent.read(STRUCTURED, document_of(**{name: []}))),
    ]
    if name.islower() or not name.isalpha():
        errors.append(refusal_of(lambda: CloudEvent.read(headers_of(**{name: "4"}), b"")))

    for error in errors:
        assert error.attribute is None
        assert not name.strip() or name not in str(error)


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion", "data"])
def test_what_has_a_place_of_its_own_is_refused_among_the_attributes(name: str) -> None:
    error = refusal_of(lambda: order_placed(attributes={name: SECRET}))

    assert "take it out of the attributes" in str(error)
    assert error.attribute == name


def test_attributes_are_limited_together() -> None:
    most = {f"a{number:02}": "x" * 4093 for number in range(15)}

    order_placed(attributes={**most, "b": "x" * 4065})
    order_placed(attributes={"b": "x" * 4096})
    error = refusal_of(lambda: order_placed(attributes={**most, "b": "x" * 4066}))

    assert "have 65537 characters together, and 65536 are allowed: move" in str(error)
    assert error.attribute is None


@pytest.mark.parametrize(
    ("changed", "attribute"),
    [
        ({"id": 7}, "id"),
        ({"source": None}, "source"),
        ({"attributes": {"zone": 4}}, "zone"),
        ({"attributes": {4: "zone"}}, None),
        ({"data": SECRET}, None),
        ({"data": {SECRET: 1}}, None),
    ],
)
def test_an_event_is_made_of_texts_and_bytes(
    changed: dict[str, Any], attribute: str | None
) -> None:
    assert refusal_of(lambda: order_placed(**changed)).attribute == attribute


@pytest.mark.parametrize("name", ["specversion", "id", "source", "type"])
def test_an_event_needs_four_attributes(name: str) -> None:
    headers = headers_of()
    del headers[f"ce-{name}"]

    error = refusal_of(lambda: CloudEvent.read(headers, b"{}"))

    assert f"the attribute {name} is missing" in str(error)
    assert error.attribute == name


@pytest.mark.parametrize("name", ["id", "source", "type"])
def test_an_event_in_a_body_needs_four_attributes(name: str) -> None:
    error = refusal_of(lambda: CloudEvent.read(STRUCTURED, document_of(**{name: None})))

    assert error.attribute == name


@pytest.mark.parametrize("version", ["0.3", "1.0.2", "2.0", "1", "", SECRET])
def test_an_event_of_another_version_is_refused_with_that_which_is_read(version: str) -> None:
    headers, body = headers_of(specversion=version), document_of(specversion=version)

    for error in (
        refusal_of(lambda: CloudEvent.read(headers, b"")),
        refusal_of(lambda: CloudEvent.read(STRUCTURED, body)),
    ):
        assert "specversion is not 1.0" in str(error)
        assert error.attribute == "specversion"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({}, b"{broken"),
        ({}, b"\xff"),
        ({}, b"[]"),
        ({}, b'"specversion"'),
        ({}, b'{"id": "7"}'),
        ({"traceparent": "1"}, b"{}"),
        (dict.fromkeys(headers_of()), b"{}"),
        (STRUCTURED, b"NaN"),
        (STRUCTURED, document_of()[:-1]),
        (STRUCTURED, document_of(data=float("nan"))),
        (STRUCTURED, document_of(zone="\ud800")),
        (STRUCTURED, b'{"specversion": "1.0", "data": ' + b"[" * 9999 + b"]" * 9999 + b"}"),
        (STRUCTURED, b'{"specversion": "1.0", "n": ' + b"9" * 9999 + b"}"),
        (STRUCTURED, SECRET.encode()),
    ],
)
def test_a_message_without_an_event_is_refused(headers: dict[str, Any], body: bytes) -> None:
    error = refusal_of(lambda: CloudEvent.read(headers, body))

    assert "the message is no CloudEvent: no header has a prefix such as ce-" in str(error)
    assert error.attribute is None


@pytest.mark.parametrize(
    "content_type",
    ["application/cloudevents-batch+json", "application/cloudevents+avro; a=b"],
)
def test_several_events_and_other_formats_than_json_are_refused(content_type: str) -> None:
    error = refusal_of(lambda: CloudEvent.read({"content-type": content_type}, b"[]"))

    assert "send each event by itself, as application/cloudevents+json" in str(error)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"data": 1, "data_base64": "e30="}, "has data and data_base64: send one of both"),
        ({"data": None, "data_base64": "e30="}, "has data and data_base64"),
        ({"data_base64": SECRET + "!"}, "data_base64 is no base64: encode it so"),
        ({"data_base64": "e30"}, "data_base64 is no base64"),
        ({"data_base64": "ü"}, "data_base64 is no base64"),
        ({"data_base64": {SECRET: 1}}, "data_base64 is no base64"),
        ({"data": {SECRET: 1}, "datacontenttype": "text/xml"}, "send it as data_base64"),
        ({"data": None, "datacontenttype": "text/xml"}, "send it as data_base64"),
    ],
)
def test_data_that_contradicts_itself_is_refused(members: dict[str, Any], problem: str) -> None:
    error = refusal_of(lambda: CloudEvent.read(STRUCTURED, document_of(**members)))

    assert problem in str(error)
    assert error.attribute is None


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b'["Infinity", 1e999]'])
def test_a_number_that_is_too_large_for_a_float_is_refused(number: bytes) -> None:
    body = document_of(data=0).replace(b'"data": 0', b'"data": ' + number)

    assert "too large" in str(refusal_of(lambda: CloudEvent.read(STRUCTURED, body)))


@pytest.mark.parametrize("value", [1.5, 2**63, 10**4000, [SECRET], {SECRET: 1}])
def test_an_attribute_of_another_type_is_refused(value: Any) -> None:
    for error in (
        refusal_of(lambda: CloudEvent.read(headers_of(zone=value), b"")),
        refusal_of(lambda: CloudEvent.read(STRUCTURED, document_of(zone=value))),
    ):
        assert "zone is neither a text, a bool nor an int of 64 bits" in str(error)
        assert error.attribute == "zone"


@pytest.mark.parametrize("time", [2**62, 2**99, True, dt.datetime(2026, 1, 31)])  # noqa: DTZ001
def test_a_time_of_the_broker_that_is_none_is_refused(time: Any) -> None:
    error = refusal_of(lambda: CloudEvent.read(headers_of("cloudEvents_", time=time), b""))

    assert error.attribute == "time"


@pytest.mark.parametrize("content_type", [b"text/plain", 1.5])
def test_a_content_type_that_is_no_text_is_refused(content_type: Any) -> None:
    headers = {**headers_of(), "content-type": content_type}

    assert refusal_of(lambda: CloudEvent.read(headers, b"")).attribute == "datacontenttype"


@pytest.mark.parametrize(
    "headers",
    [
        {**headers_of(), "CE-ID": "8"},
        {**headers_of("ce_"), **headers_of("cloudEvents:")},
        {**headers_of("cloudEvents:"), **headers_of("cloudEvents_")},
    ],
)
def test_an_attribute_that_is_in_two_headers_is_refused(headers: dict[str, str]) -> None:
    error = refusal_of(lambda: CloudEvent.read(headers, b"{}"))

    assert "is in two headers: send it once" in str(error)
    assert error.attribute in ("id", "specversion")


@pytest.mark.parametrize("written", ["%FF", "%C0%A0", f"{SECRET}%E2%82", '"%FF"'])
def test_percent_encoded_bytes_that_are_no_utf_8_are_refused(written: str) -> None:
    error = refusal_of(lambda: CloudEvent.read(headers_of(zone=written), b""))

    assert "has percent-encoded bytes that are no UTF-8" in str(error)
    assert error.attribute == "zone"


def test_what_is_hidden_by_percent_signs_is_looked_at_when_it_is_decoded() -> None:
    assert refusal_of(lambda: CloudEvent.read(headers_of(id="7%0D%0Aa"), b"")).attribute == "id"
