"""Senders that another process can tell apart survive being stored; others are left out."""

from __future__ import annotations

import enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madcrow_events.outbox import UnreadablePayloadError
from madcrow_events.outbox._senders import is_plain, read, write

PLAIN = st.none() | st.text() | st.integers(-(2**2048) + 1, 2**2048 - 1) | st.uuids()


class Text(str):
    __slots__ = ()


class Shop(enum.IntEnum):
    MAIN = 1


@given(PLAIN)
def test_a_plain_sender_comes_back_as_it_was(sender: Any) -> None:
    text = write(sender)

    assert is_plain(sender)
    assert text is not None
    assert text.isascii()
    assert (type(read(text)), read(text)) == (type(sender), sender)


@given(PLAIN, PLAIN)
def test_texts_are_equal_exactly_if_the_senders_are(one: Any, other: Any) -> None:
    assert (write(one) == write(other)) == (one == other)


def test_a_uuid_and_its_text_are_two_senders() -> None:
    sender = UUID(int=7)

    assert len({write(sender), write(str(sender)), write(sender.hex), write(7)}) == 4


@pytest.mark.parametrize(
    "sender", [True, 1.0, Text("a"), Shop.MAIN, 2**2048, object(), b"a", ("a",), Shop]
)
def test_what_would_come_back_as_something_else_is_no_plain_sender(sender: object) -> None:
    assert not is_plain(sender)
    assert write(sender) is None


@pytest.mark.parametrize(
    "text", ["", "{", "true", "1.5", "[]", "{}", '{"uuid": 1}', '{"uuid": "x"}']
)
def test_a_text_that_the_outbox_has_not_written_is_refused(text: str) -> None:
    with pytest.raises(UnreadablePayloadError, match="no sender"):
        read(text)
