"""What a stream emits goes out when the stream has ended well."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.once


@contextmanager
def first_part_of(server: Any, path: str) -> Iterator[Iterator[bytes]]:
    """Ask for a stream, and give what follows its first part."""
    with server.client.stream("GET", path, headers={"X-Request-ID": "r-17"}) as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        assert server.numbers() == [1]
        yield parts


def test_what_a_stream_emits_goes_out_before_its_end(server: Any) -> None:
    """Its first part arrives before its last is made."""
    with first_part_of(server, "/stream") as parts:
        server.go_on()
        assert b"".join(parts) == b"last!"
        assert server.numbers() == [1, 2, 3, 4]
    assert {order["request_id"] for order in server.orders()} == {"r-17"}


def test_a_stream_may_have_a_length(server: Any) -> None:
    """Then a client may have all of it a little before the end is known."""
    with first_part_of(server, "/stream?length=10") as parts:
        server.go_on()
        assert b"".join(parts) == b"last!"
        server.wait_for(1, 2, 3, 4)


def test_a_stream_that_breaks_drops_what_it_has_emitted(server: Any) -> None:
    """What was emitted before its head has gone out."""
    with first_part_of(server, "/stream?then=break") as parts:
        server.go_on()
        with suppress(httpx.RemoteProtocolError):
            assert [*parts] == []
    server.client.get("/emit/200?n=7")  # in the place of the stream
    server.wait_for(1, 7)


def test_a_client_that_leaves_is_no_failure(server: Any) -> None:
    """What was emitted until then goes out, and the next request has a scope of its own."""
    with first_part_of(server, "/stream?then=more"):
        pass
    server.go_on()
    server.wait_for(1, 2, 3)
    server.client.get("/emit/200?n=7", headers={"X-Request-ID": "r-18"})
    assert [order["request_id"] for order in server.orders()] == ["r-17"] * 3 + ["r-18"]


def test_a_head_without_its_stream_is_no_failure(server: Any) -> None:
    """HEAD asks for it; all make the stream all the same, but Flask."""
    server.go_on()
    with server.client.stream("HEAD", "/stream"):
        assert server.numbers()[:1] == [1]
        is_made = server.framework != "flask"
        server.wait_for(1, *[2, 3, 4] * is_made)


def test_a_file_arrives_whole(server: Any) -> None:
    """A WSGI server that can send it without reading it sees its own wrapper, and may do so."""
    answer = server.client.get("/file", headers={"X-Request-ID": "r-17"})
    assert answer.content == b"0123456789" * 100_000
    server.wait_for(1, *[2] * (server.framework == "django"))  # by its signal at the end
    assert {order["request_id"] for order in server.orders()} == {"r-17"}
    files = [line for line in server.lines() if line["event"] == "file for the server"]
    assert len(files) == (server.name in {"sync", "gthread", "runserver"})
