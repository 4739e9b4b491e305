"""Reading and writing CloudEvents 1.0, the form in which events travel between programs.

The specification is that of the CNCF: https://github.com/cloudevents/spec, with its JSON format and
its bindings for HTTP, NATS, Kafka and AMQP. A message comes from outside, so nothing of it is
trusted: each text has a limit, and no error shows a value.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, unquote

from pydantic_core import from_json, to_json

from madcrow_events._text import type_name
from madcrow_events.exceptions import InvalidOptionError
from madcrow_events.outbox._errors import InvalidCloudEventError

__all__ = ["LONGEST", "CloudEvent"]

_VERSION = "1.0"
LONGEST: Final = 4096
"""How many characters an attribute has at most."""
_LONGEST_TOGETHER: Final = 65_536

_JSON = "application/json"
_STRUCTURED = "application/cloudevents+json"
_ANY_STRUCTURED = "application/cloudevents"
_PREFIXES = ("ce-", "ce_", "cloudEvents:", "cloudEvents_")
_PREFIXES_LOWERED = tuple(prefix.lower() for prefix in _PREFIXES)

_REQUIRED = ("id", "source", "type")
_RESERVED = frozenset({*_REQUIRED, "specversion", "data"})
_NEVER_EMPTY = frozenset({*_REQUIRED, "datacontenttype", "dataschema", "subject"})
_NAME = re.compile("[a-z0-9]{1,64}")

_NONCHARACTERS = "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17)
)
_FORBIDDEN = re.compile(f"[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_NONCHARACTERS}]")
_TIME = re.compile(  # RFC 3339, which knows leap seconds
    r"\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?"
    r"([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)

_EPOCH = datetime.fromtimestamp(0, UTC)

# What the binding for HTTP writes as it is: printable ASCII without the space, `"` and `%`.
_SAFE = "".join(char for char in map(chr, range(0x21, 0x7F)) if char not in '"%')
_UNSAFE = re.compile("[^!#$&-~]")
_QUOTED = re.compile('".*"')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """An event as it travels between programs (CloudEvents 1.0).

    Its representation shows neither data nor attributes, which may be personal.

    Args:
        id: its id, which is unique within the source.
        source: where it comes from, as a URI reference such as `/shop`.
        type: what has happened, such as `order_placed`.
        data: the data, encoded as its content type says; b"" if there is none.
        attributes: the other attributes as texts, such as `time`, `subject`, `datacontenttype`,
            `partitionkey` and `correlationid`, but without `specversion`.

    Raises:
        InvalidCloudEventError: a name or a text is not what CloudEvents allows, a text has more
            than 4,096 characters, or names and texts have more than 65,536 together.
    """

    id: str
    source: str
    type: str
    data: bytes = field(default=b"", repr=False)
    attributes: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.data, bytes):
            raise InvalidCloudEventError(
                f"the data has the type {type_name(type(self.data))}: encode it as bytes"
            )
        attributes = dict(self.attributes)
        object.__setattr__(self, "attributes", attributes)
        reserved = _RESERVED.intersection(attributes)
        if reserved:
            raise _refusal(min(reserved), "has a place of its own: take it out of the attributes")
        required = {"id": self.id, "source": self.source, "type": self.type}
        _check({**required, **attributes})

    @property
    def is_json(self) -> bool:
        """Whether the data is JSON by its content type; without one, it is."""
        return _is_json(self.attributes)

    @classmethod
    def read(cls, headers: Mapping[str, Any], body: bytes) -> CloudEvent:
        """Return the event that a message carries, in the binary or the structured mode.

        The body is parsed as a whole, so limit its size before.

        Args:
            headers: the headers of the message. Attributes have the prefix `ce-` (HTTP, NATS, with
                percent-encoding), `ce_` (Kafka), `cloudEvents:` or `cloudEvents_` (AMQP). Upper
                and lower case are the same. A value may also be an int, a bool or a time, as some
                brokers have them. The content type is among the headers, as `content-type`.
            body: the body of the message.

        Raises:
            InvalidCloudEventError: the message carries no event of CloudEvents 1.0, or several.
        """
        content_type = _content_type(headers)
        media_type = _media_type(content_type)
        if media_type.startswith(_ANY_STRUCTURED):
            if media_type not in (_STRUCTURED, _ANY_STRUCTURED):
                raise InvalidCloudEventError(
                    "the content type is neither that of one event nor of JSON: send each event by "
                    f"itself, as {_STRUCTURED}"
                )
            return cls._of(*_structured(body))
        attributes = _binary(headers)
        if not attributes:
            return cls._of(*_structured(body))
        if content_type:
            # NATS has a header of its own for it, and clients may set the other one as they like.
            attributes.setdefault("datacontenttype", content_type)
        return cls._of(attributes, body)

    @classmethod
    def _of(cls, attributes: dict[str, str], data: bytes) -> CloudEvent:
        for name in ("specversion", *_REQUIRED):
            if name not in attributes:
                raise _refusal(name, "is missing: every event of CloudEvents has it")
        if attributes.pop("specversion") != _VERSION:
            raise _refusal("specversion", f"is not {_VERSION}, which alone is read: send that")
        id_, source, type_ = (attributes.pop(name) for name in _REQUIRED)
        return cls(id=id_, source=source, type=type_, data=data, attributes=attributes)

    def binary(self, prefix: str = "ce-") -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of a message that has the data as its body.

        Args:
            prefix: what the names of headers start with: `ce-` for HTTP and NATS, which encodes
                with percent signs what headers cannot have; `ce_` for Kafka; `cloudEvents_` or
                `cloudEvents:` for AMQP.

        Raises:
            InvalidOptionError: there is no such prefix.
            InvalidCloudEventError: the data is of a content type that means the structured mode.
        """
        if prefix not in _PREFIXES:
            known = ", ".join(_PREFIXES)
            raise InvalidOptionError(f"prefix must be one of {known}", option="prefix")
        write = _encoded if prefix == "ce-" else str
        headers = {
            f"{prefix}specversion": _VERSION,
            f"{prefix}id": write(self.id),
            f"{prefix}source": write(self.source),
            f"{prefix}type": write(self.type),
        }
        for name, text in self.attributes.items():
            headers[prefix + name] = write(text)
        content_type = self.attributes.get("datacontenttype")
        if content_type is not None:
            if _media_type(content_type).startswith(_ANY_STRUCTURED):
                raise _refusal("datacontenttype", "would be read as the mode: call structured()")
            del headers[f"{prefix}datacontenttype"]
            headers["content-type"] = content_type
        return headers, self.data

    def structured(self) -> tuple[dict[str, str], bytes]:
        """Return the headers and the body of a message that has the whole event as its body.

        Data that is JSON stays so; other data becomes base64.
        """
        required = {"id": self.id, "source": self.source, "type": self.type}
        start = to_json({"specversion": _VERSION, **required, **self.attributes})[:-1]
        if not self.data:
            data = b""
        elif self.is_json and _parses(self.data):
            data = b',"data":' + self.data
        else:
            data = b',"data_base64":"' + b64encode(self.data) + b'"'
        return {"content-type": _STRUCTURED}, start + data + b"}"


def _refusal(name: str, problem: str) -> InvalidCloudEventError:
    # Names come from outside, too: one that is none may be anything.
    is_name = _NAME.fullmatch(name)
    subject = f"the attribute {name}" if is_name else "an attribute"
    return InvalidCloudEventError(f"{subject} {problem}", attribute=name if is_name else None)


def _check(attributes: Mapping[Any, Any]) -> None:
    size = 0
    for name, text in attributes.items():
        if not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise InvalidCloudEventError(
                "the name of an attribute is not made of 1 to 64 characters from a-z and 0-9: "
                "rename it"
            )
        problem = _problem(name, text)
        if problem is not None:
            raise _refusal(name, problem)
        size += len(name) + len(text)
    if size > _LONGEST_TOGETHER:
        raise InvalidCloudEventError(
            f"the attributes have {size} characters together, and {_LONGEST_TOGETHER} are allowed: "
            "move what is long into the data"
        )


def _problem(name: str, text: object) -> str | None:
    if not isinstance(text, str):
        return f"has the type {type_name(type(text))}: write it as text"
    if len(text) > LONGEST:
        return (
            f"has {len(text)} characters, and {LONGEST} are allowed: move what is long into the "
            "data"
        )
    if not text and name in _NEVER_EMPTY:
        return "is empty: fill it in"
    if not text.isprintable() and _FORBIDDEN.search(text):
        return "has a control character, a lone surrogate or a noncharacter: remove it"
    if name in _FORMS:
        fits, problem = _FORMS[name]
        return None if fits(text) else problem
    return None


def _is_time(text: str) -> bool:
    if _TIME.fullmatch(text) is None:
        return False
    try:
        date.fromisoformat(text[:10])
    except ValueError:  # such as the 30th of February
        return False
    return True


_FORMS: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "datacontenttype": (str.isascii, "is no media type: write it as in application/json"),
    "time": (_is_time, "is no time of RFC 3339: write it as in 2026-01-31T12:00:00Z"),
}


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(attributes: Mapping[str, str]) -> bool:
    return _media_type(attributes.get("datacontenttype", _JSON)).endswith(("/json", "+json"))


def _text(name: str, value: object) -> str:
    """Return the canonical text of a value; brokers and JSON have types of their own for some."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return str(value)
    raise _refusal(name, "is neither a text, a bool nor an int of 64 bits: write it as text")


def _text_of_header(name: str, value: object) -> str:
    """Return the text of a value; of a time, AMQP 1.0 has milliseconds, and AMQP 0.9.1 a type."""
    try:
        if name == "time" and type(value) is int:
            value = _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        pass  # it is refused as what it is
    return value.isoformat() if isinstance(value, datetime) else _text(name, value)


def _content_type(headers: Mapping[str, Any]) -> str:
    for header, value in headers.items():
        if len(header) == len("content-type") and header.lower() == "content-type":
            return "" if value is None else _text("datacontenttype", value)
    return ""


def _binary(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes that headers have; none if no header has a prefix of theirs."""
    attributes: dict[str, str] = {}
    for header, value in headers.items():
        lowered = header.lower()
        if value is None or not lowered.startswith(_PREFIXES_LOWERED):
            continue
        name = lowered[3:] if lowered.startswith("ce") else lowered[len("cloudevents_") :]
        if name in attributes:
            raise _refusal(name, "is in two headers: send it once")
        text = value if isinstance(value, str) else _text_of_header(name, value)
        if lowered.startswith("ce-") and ("%" in text or '"' in text):
            text = _decoded(name, text)
        attributes[name] = text
    return attributes


def _encoded(text: str) -> str:
    return quote(text, safe=_SAFE) if _UNSAFE.search(text) else text


def _decoded(name: str, text: str) -> str:
    if _QUOTED.fullmatch(text):  # as older versions of the binding write
        text = _ESCAPED.sub(r"\1", text[1:-1])
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise _refusal(name, "has percent-encoded bytes that are no UTF-8: encode it so") from None


def _structured(body: bytes) -> tuple[dict[str, str], bytes]:
    """Return the attributes and the data of an event that is the body."""
    document = None
    try:
        document = from_json(body, allow_inf_nan=False)
    except ValueError:
        problem = "is no JSON, or is nested too deep"
    else:
        problem = "is no JSON object with a specversion"
    if not isinstance(document, dict) or "specversion" not in document:
        raise InvalidCloudEventError(
            f"the message is no CloudEvent: no header has a prefix such as ce-, and the body "
            f"{problem}: send one of both"
        )
    encoded = document.pop("data_base64", None)
    has_data = "data" in document
    value = document.pop("data", None)
    attributes = {name: _text(name, it) for name, it in document.items() if it is not None}
    if encoded is not None:
        if has_data:
            raise InvalidCloudEventError("the event has data and data_base64: send one of both")
        return attributes, _from_base64(encoded)
    if not has_data:
        return attributes, b""
    if not _is_json(attributes):
        if not isinstance(value, str):
            raise InvalidCloudEventError(
                "the data is no text, and its datacontenttype is not that of JSON: send it as "
                "data_base64"
            )
        return attributes, value.encode()
    # The format implies it, and in another mode it would be missing.
    attributes.setdefault("datacontenttype", _JSON)
    return attributes, _compact(value)


def _from_base64(encoded: object) -> bytes:
    try:
        # Of another type, it is refused as a text that is not encoded.
        return b64decode(encoded if isinstance(encoded, str) else "?", validate=True)
    except ValueError:
        raise InvalidCloudEventError("data_base64 is no base64: encode it so") from None


def _compact(value: object) -> bytes:
    data = to_json(value)
    # A number that is too large for a float has become infinite, which JSON cannot say.
    if b"Infinity" in data and not _parses(data):
        raise InvalidCloudEventError("the data has a number that is too large: write it as text")
    return data


def _parses(data: bytes) -> bool:
    try:
        from_json(data, allow_inf_nan=False)
    except ValueError:
        return False
    return True
